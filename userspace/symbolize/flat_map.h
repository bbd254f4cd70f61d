// A hash table from 64-bit keys to 32-bit values, for the millions of small look-ups of building an index.
//
//   FlatMap map;
//   uint32_t& value = map[offset];   // 0 when new
//
// Threads: none shared. Cost: ~5 ns per look-up that hits the cache; 16 bytes per slot, half of them used.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pyrometer::symbolize {

class FlatMap {
 public:
  // Valid until the next insertion. Precondition: key is not ~0.
  uint32_t& operator[](uint64_t key) {
    if (2 * (size_ + 1) > slots_.size()) Grow();
    Slot& slot = slots_[Place(key)];
    if (slot.key == kFree) {
      slot = {key, 0};
      ++size_;
    }
    return slot.value;
  }
  void clear() {
    // What one large unit needed should not be cleared for each small one.
    if (slots_.size() > 4096 && slots_.size() > 16 * size_) {
      slots_.clear();
      slots_.shrink_to_fit();
    } else {
      std::fill(slots_.begin(), slots_.end(), Slot{});
    }
    size_ = 0;
  }
  size_t size() const { return size_; }
  size_t memory_bytes() const { return slots_.capacity() * sizeof(Slot); }
  template <typename Visitor>
  void ForEach(Visitor visit) const {
    for (const Slot& slot : slots_) {
      if (slot.key != kFree) visit(slot.key, slot.value);
    }
  }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    uint32_t value = 0;
  };

  size_t Place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    // Keys are often small multiples: spread them.
    size_t at = static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 20) & mask;
    while (slots_[at].key != kFree && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }
  void Grow() {
    std::vector<Slot> old = std::move(slots_);
    slots_.assign(std::max<size_t>(64, old.size() * 2), Slot{});
    for (const Slot& slot : old) {
      if (slot.key != kFree) slots_[Place(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace pyrometer::symbolize

// Strings, each kept once, named by a 32-bit offset.
//
//   StringPool pool;
//   uint32_t id = pool.Intern("main");
//   StringPool::At(pool.bytes(), id) == "main"
//
// Layout: u16 length, bytes, one after the other; offset 0 is the empty string. What is in a
// symbol index file is this layout.
//
// Threads: none shared. Cost: ~60 ns per string; its bytes, 2 for the length, 6-12 for the hash table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pyrometer::symbolize {

class StringPool {
 public:
  // Longer strings are cut [longest mangled name in ceph-osd: 6,100 bytes].
  static constexpr size_t kMaxStringBytes = 16u << 10;

  StringPool() : bytes_(sizeof(uint16_t), '\0') {}

  // nullopt when the pool would pass `max_bytes`.
  std::optional<uint32_t> Intern(std::string_view text, size_t max_bytes = 1u << 30) {
    text = text.substr(0, kMaxStringBytes);
    if (text.empty()) return 0;
    if (2 * (count_ + 1) > slots_.size()) Grow();
    const size_t mask = slots_.size() - 1;
    size_t slot = std::hash<std::string_view>{}(text)&mask;
    while (slots_[slot] != 0) {
      if (At(bytes_, slots_[slot]) == text) return slots_[slot];
      slot = (slot + 1) & mask;
    }
    if (bytes_.size() + text.size() + sizeof(uint16_t) > max_bytes) return std::nullopt;
    const uint32_t offset = static_cast<uint32_t>(bytes_.size());
    const uint16_t length = static_cast<uint16_t>(text.size());
    bytes_.append(reinterpret_cast<const char*>(&length), sizeof(length));
    bytes_.append(text);
    slots_[slot] = offset;
    ++count_;
    return offset;
  }

  const std::string& bytes() const { return bytes_; }
  std::string TakeBytes() && {
    std::vector<uint32_t>().swap(slots_);
    return std::move(bytes_);
  }
  size_t memory_bytes() const { return bytes_.capacity() + slots_.capacity() * sizeof(uint32_t); }

  // The string at `offset` of a pool's bytes; "" when it does not lie within.
  static std::string_view At(std::string_view pool, uint32_t offset) {
    uint16_t length = 0;
    if (pool.size() < sizeof(length) || offset > pool.size() - sizeof(length)) return {};
    std::memcpy(&length, pool.data() + offset, sizeof(length));
    return pool.substr(offset + sizeof(length), length);
  }

 private:
  void Grow() {
    std::vector<uint32_t> old = std::move(slots_);
    slots_.assign(std::max<size_t>(1024, old.size() * 2), 0);
    const size_t mask = slots_.size() - 1;
    for (const uint32_t offset : old) {
      if (offset == 0) continue;
      size_t slot = std::hash<std::string_view>{}(At(bytes_, offset)) & mask;
      while (slots_[slot] != 0) slot = (slot + 1) & mask;
      slots_[slot] = offset;
    }
  }

  std::string bytes_;
  std::vector<uint32_t> slots_;  // offsets; 0 = free
  size_t count_ = 0;
};

}  // namespace pyrometer::symbolize

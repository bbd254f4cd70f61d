// A bounded map: entries live in the current generation; when it is full it becomes the previous
// one and the previous one goes. Looking something up brings it back. Everything in it can be read
// from disk again, so forgetting costs time only.
//
//   TwoGenerationCache<std::string, uint32_t, TransparentStringHash, std::equal_to<>> ids(1 << 20);
//   ids.Insert("main", 7, 40);
//   if (const uint32_t* id = ids.Find(std::string_view("main"))) …
//   ids.Trim();           // only here does anything get forgotten
//
// Threads: none; the owner locks. Cost: one or two hash look-ups; a node of std::unordered_map per entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>

namespace pyrometer::store {

template <typename Key, typename Value, typename Hash = std::hash<Key>, typename Equal = std::equal_to<Key>>
class TwoGenerationCache {
 public:
  explicit TwoGenerationCache(uint64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  // Valid until the next call of any method; nullptr when absent.
  template <typename LookupKey>
  const Value* Find(const LookupKey& key) {
    auto found = current_.find(key);
    if (found == current_.end()) {
      auto old = previous_.find(key);
      if (old == previous_.end()) return nullptr;
      auto node = previous_.extract(old);
      const uint64_t bytes = node.mapped().bytes;
      previous_bytes_ -= bytes;
      current_bytes_ += bytes;
      found = current_.insert(std::move(node)).position;
    }
    return &found->second.value;
  }

  // Replaces an existing entry. `bytes`: what the entry takes, contents included.
  void Insert(Key key, Value value, size_t bytes) {
    Erase(key);
    current_bytes_ += bytes + kNodeBytes;
    current_.emplace(std::move(key), Entry{std::move(value), bytes + kNodeBytes});
  }

  void Erase(const Key& key) {
    EraseFrom(current_, current_bytes_, key);
    EraseFrom(previous_, previous_bytes_, key);
  }

  // Forgets the older generation when the current one has filled its half of the budget.
  void Trim() {
    if (current_bytes_ * 2 <= budget_bytes_) return;
    previous_ = std::move(current_);
    previous_bytes_ = current_bytes_;
    current_ = {};
    current_bytes_ = 0;
  }

  void Clear() {
    current_ = {};
    previous_ = {};
    current_bytes_ = previous_bytes_ = 0;
  }

  uint64_t bytes() const { return current_bytes_ + previous_bytes_; }

 private:
  // Hash node: next pointer, cached hash, bucket share, malloc header, our own bytes field.
  static constexpr size_t kNodeBytes = 48;

  struct Entry {
    Value value;
    uint64_t bytes;
  };
  using Map = std::unordered_map<Key, Entry, Hash, Equal>;

  static void EraseFrom(Map& map, uint64_t& total, const Key& key) {
    const auto found = map.find(key);
    if (found == map.end()) return;
    total -= found->second.bytes;
    map.erase(found);
  }

  const uint64_t budget_bytes_;
  Map current_;
  Map previous_;
  uint64_t current_bytes_ = 0;
  uint64_t previous_bytes_ = 0;
};

}  // namespace pyrometer::store

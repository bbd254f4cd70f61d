#include "userspace/store/trie.h"

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {

StackTrie::StackTrie() : parents_(1, 0), frames_(1, 0) {}

uint64_t StackTrie::bytes() const {
  return sizeof(*this) + parents_.capacity() * sizeof(NodeId) + frames_.capacity() * sizeof(uint32_t) +
         slots_.capacity() * sizeof(NodeId);
}

size_t StackTrie::SlotOf(NodeId parent, uint32_t frame) const {
  uint64_t hash = (uint64_t{parent} << 32 | frame) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 29;
  hash *= 0xBF58476D1CE4E5B9u;
  return static_cast<size_t>(hash >> 32) & (slots_.size() - 1);
}

void StackTrie::Rehash(size_t slots) {
  slots_.assign(slots, 0);
  for (NodeId node = 1; node < parents_.size(); ++node) {
    if (frames_[node] == 0) continue;  // dead
    size_t slot = SlotOf(parents_[node], frames_[node]);
    while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = node;
  }
}

void StackTrie::EnsureIndex() {
  // At most half full.
  if (slots_.size() >= parents_.size() * 2) return;
  size_t slots = 64;
  while (slots < parents_.size() * 2 + 2) slots *= 2;
  Rehash(slots);
}

NodeId StackTrie::Find(NodeId parent, uint32_t frame) {
  EnsureIndex();
  for (size_t slot = SlotOf(parent, frame); slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
    const NodeId node = slots_[slot];
    if (parents_[node] == parent && frames_[node] == frame) return node;
  }
  return 0;
}

NodeId StackTrie::Add(NodeId parent, uint32_t frame) {
  DCHECK(parent < parents_.size() && frame != 0);
  const NodeId node = static_cast<NodeId>(parents_.size());
  parents_.push_back(parent);
  frames_.push_back(frame);
  const size_t before = slots_.size();
  EnsureIndex();
  if (slots_.size() != before) return node;  // the rehash took it in
  size_t slot = SlotOf(parent, frame);
  while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = node;
  return node;
}

std::string StackTrie::EncodeSegment(NodeId first) const {
  std::string out;
  PutVarint(size() - first, &out);
  // Most nodes hang under the node before them: distance 1.
  for (NodeId node = first; node < size(); ++node) PutVarint(node - parents_[node], &out);
  uint32_t previous = 0;
  for (NodeId node = first; node < size(); ++node) {
    PutZigzag(static_cast<int64_t>(frames_[node]) - static_cast<int64_t>(previous), &out);
    previous = frames_[node];
  }
  return out;
}

Status StackTrie::LoadSegment(NodeId first, std::string_view record) {
  if (first < size()) return DataLossError("damaged stack trie: segments overlap");
  Decoder in(record);
  const size_t count = in.Count(2);
  if (!in.ok() || count > UINT32_MAX - size_t{first}) return DataLossError("damaged stack trie: node count");
  PadTo(first);
  parents_.reserve(first + count);
  frames_.reserve(first + count);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t distance = in.Varint();
    const uint64_t node = first + i;
    if (distance == 0 || distance > node) return DataLossError("damaged stack trie: parent after child");
    parents_.push_back(static_cast<NodeId>(node - distance));
  }
  int64_t frame = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t delta = in.Zigzag();
    // Both operands below 2^33 in size: no overflow.
    if (delta > int64_t{UINT32_MAX} || delta < -int64_t{UINT32_MAX}) return DataLossError("damaged stack trie: frame");
    frame += delta;
    if (frame <= 0 || frame > int64_t{UINT32_MAX}) return DataLossError("damaged stack trie: frame");
    frames_.push_back(static_cast<uint32_t>(frame));
  }
  if (!in.ok() || !in.done()) return DataLossError("damaged stack trie: record length");
  return OkStatus();
}

void StackTrie::PadTo(size_t size) {
  if (size <= parents_.size()) return;
  parents_.resize(size, 0);
  frames_.resize(size, 0);
}

StatusOr<std::shared_ptr<StackTrie>> TrieCache::Get(TrieId id) {
  std::shared_ptr<Entry> entry;
  size_t first_free = 0;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Entry>& slot = entries_[id];
    if (slot == nullptr) slot = std::make_shared<Entry>();
    slot->last_use = ++clock_;
    entry = slot;
    if (const auto found = first_free_.find(id); found != first_free_.end()) first_free = found->second;
  }
  const std::lock_guard load_lock(entry->load_mutex);
  if (!entry->loaded) {
    if (Status loaded = loader_(id, entry->trie.get()); !loaded.ok()) {
      entry->trie = std::make_shared<StackTrie>();
      return loaded;
    }
    entry->trie->PadTo(first_free);
    entry->loaded = true;
  }
  return entry->trie;
}

void TrieCache::Drop(TrieId id, size_t first_free) {
  const std::lock_guard lock(mutex_);
  entries_.erase(id);
  size_t& floor = first_free_[id];
  floor = std::max(floor, first_free);
}

void TrieCache::Trim() {
  const std::lock_guard lock(mutex_);
  uint64_t total = 0;
  struct Candidate {
    uint64_t last_use;
    TrieId id;
    uint64_t bytes;
  };
  std::vector<Candidate> candidates;
  for (const auto& [id, entry] : entries_) {
    // Held by nobody but us: then nobody loads, adds or walks either, so its size may be read.
    if (entry.use_count() > 1 || entry->trie.use_count() > 1) continue;
    const uint64_t bytes = entry->trie->bytes();
    total += bytes;
    candidates.push_back({entry->last_use, id, bytes});
  }
  if (total <= budget_bytes_) return;
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.last_use < b.last_use; });
  for (const Candidate& candidate : candidates) {
    if (total <= budget_bytes_) return;
    entries_.erase(candidate.id);
    total -= candidate.bytes;
  }
}

uint64_t TrieCache::bytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t total = 0;
  for (const auto& [id, entry] : entries_) {
    const std::unique_lock load_lock(entry->load_mutex, std::try_to_lock);
    if (!load_lock.owns_lock()) continue;  // being loaded: counted next time
    const std::shared_lock trie_lock(entry->trie->mutex);
    total += entry->trie->bytes();
  }
  return total;
}

}  // namespace pyrometer::store

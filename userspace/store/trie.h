// Stack tries in memory: one per service, loaded from disk when first needed, dropped when the
// budget is short. Inside this room only.
//
// A trie is two arrays (parent, frame) indexed by node id; node 0 is the empty stack; parent < child. Beside them,
// once somebody adds to it, an open-addressing table of node ids finds a child by (parent, frame).
// Nodes are added before the batch that needs them is durable, and dropped with the whole trie when its write fails:
// readers only use node ids from durable chunks, so they never see the difference.
//
// Threads: a trie has a shared mutex: readers share it while they walk, the one writer holds it while it adds. The
// cache locks itself. Memory: 8 bytes per node, 8 to 16 more for the child table (twice that while vectors grow).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

class StackTrie {
 public:
  StackTrie();

  size_t size() const { return parents_.size(); }
  NodeId parent(NodeId node) const { return parents_[node]; }
  uint32_t frame(NodeId node) const { return frames_[node]; }
  uint64_t bytes() const;

  // 0 when `parent` has no such child.
  NodeId Find(NodeId parent, uint32_t frame);
  // Precondition: not there yet; parent < size().
  NodeId Add(NodeId parent, uint32_t frame);

  // Nodes [first, size()) as one record; precondition: first < size().
  std::string EncodeSegment(NodeId first) const;
  // Appends a record's nodes at `first`. A gap before it (ids of a write that failed) is filled with dead nodes
  // that nothing refers to. DATA_LOSS when ids overlap or a parent is not smaller than its child.
  Status LoadSegment(NodeId first, std::string_view record);
  // Makes size() at least `size`, by dead nodes.
  void PadTo(size_t size);

  std::shared_mutex mutex;  // see above

 private:
  void EnsureIndex();
  void Rehash(size_t slots);
  size_t SlotOf(NodeId parent, uint32_t frame) const;

  std::vector<NodeId> parents_;
  std::vector<uint32_t> frames_;
  std::vector<NodeId> slots_;  // power of two; 0 = free; empty until the first Find
};

class TrieCache {
 public:
  using Loader = std::function<Status(TrieId, StackTrie*)>;
  TrieCache(uint64_t budget_bytes, Loader loader) : budget_bytes_(budget_bytes), loader_(std::move(loader)) {}

  // Loads when needed. The trie stays in memory at least as long as somebody holds it.
  StatusOr<std::shared_ptr<StackTrie>> Get(TrieId id);
  // Forgets it: the next Get loads afresh. Those who hold the old one keep it. `first_free`: node ids below were handed
  // out for a write that failed; a trie loaded later never hands them out again.
  void Drop(TrieId id, size_t first_free);
  // Lets the least recently used go that nobody holds, until the budget is met.
  void Trim();
  uint64_t bytes() const;

 private:
  struct Entry {
    std::mutex load_mutex;
    bool loaded = false;
    std::shared_ptr<StackTrie> trie = std::make_shared<StackTrie>();
    uint64_t last_use = 0;
  };

  const uint64_t budget_bytes_;
  const Loader loader_;
  mutable std::mutex mutex_;
  std::unordered_map<TrieId, std::shared_ptr<Entry>> entries_;
  std::unordered_map<TrieId, size_t> first_free_;
  uint64_t clock_ = 0;
};

}  // namespace pyrometer::store

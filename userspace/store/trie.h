// Stack tries in memory: one per tenant and service, loaded from disk when first needed, dropped when the
// budget is short. Inside this room only.
//
// A trie is two arrays (parent, frame) indexed by node id; node 0 is the empty stack; parent < child. A third array
// holds the node of each leaf: stacks that samples name are numbered densely, in order of first use, because the
// numbers of nodes (3 to 5 per stack) would cost 1.5 bits more per sample at rest. Beside them, once somebody adds to
// it, an open-addressing table of node ids finds a child by (parent, frame), and an array finds a node's leaf.
//
// Nodes are added before the batch that needs them is durable, and dropped with the whole trie when its write fails:
// readers only use leaves from durable chunks, so they never see the difference.
//
// Threads: a trie has a shared mutex: readers share it while they walk, the one writer holds it while it adds. The
// cache locks itself. Memory: 8 bytes per node and 4 per leaf; for a writer 12 to 24 more per node (twice that while
// vectors grow).
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

// Nodes and leaves that one record holds; where in the trie they begin stands in its key.
struct TrieSpan {
  NodeId first_node = 0;
  LeafId first_leaf = 0;
  bool operator==(const TrieSpan&) const = default;
};

// What follows the trie's id in the key of a record. DATA_LOSS for anything else.
StatusOr<TrieSpan> DecodeTrieSpan(std::string_view key_end);

class StackTrie {
 public:
  StackTrie();

  size_t size() const { return parents_.size(); }
  NodeId parent(NodeId node) const { return parents_[node]; }
  uint32_t frame(NodeId node) const { return frames_[node]; }
  // Leaves including leaf 0, the empty stack.
  size_t leaf_count() const { return leaves_.size(); }
  // 0 for leaf 0 and for numbers that a failed write took.
  NodeId leaf_node(LeafId leaf) const { return leaves_[leaf]; }
  TrieSpan end() const { return {static_cast<NodeId>(size()), static_cast<LeafId>(leaf_count())}; }
  uint64_t bytes() const;

  // 0 when `parent` has no such child.
  NodeId Find(NodeId parent, uint32_t frame);
  // Precondition: not there yet; parent < size().
  NodeId Add(NodeId parent, uint32_t frame);
  // The leaf of a node; 0 when it has none (and for node 0).
  LeafId FindLeaf(NodeId node);
  // The same for readers of a trie that somebody adds to: 0 also when the index is not there.
  LeafId KnownLeaf(NodeId node) const { return node < leaf_of_.size() ? leaf_of_[node] : 0; }
  LeafId FindOrAddLeaf(NodeId node);

  // Everything from `begin` to `end` as one record: as a batch adds it, quickly; or densely, for good. Precondition: no
  // dead nodes or leaves among them.
  std::string EncodeFresh(TrieSpan begin, TrieSpan end) const;
  std::string EncodeDense(TrieSpan begin, TrieSpan end) const;
  // Appends a record of either form. A gap before it (ids of a write that failed) is filled with dead nodes and leaves
  // that nothing refers to. DATA_LOSS for bytes that no encoder writes.
  Status Load(TrieSpan begin, std::string_view record);
  // Where a record of either form ends, without the rest of it.
  static StatusOr<TrieSpan> EndOf(TrieSpan begin, std::string_view record);
  // Makes size() and leaf_count() at least those of `end`, by dead ones.
  void PadTo(TrieSpan end);

  std::shared_mutex mutex;  // see above

 private:
  void EnsureIndex();
  void Rehash(size_t slots);
  size_t SlotOf(NodeId parent, uint32_t frame) const;
  void MakeRoom(size_t count);
  Status LoadFresh(class Decoder* in);
  Status LoadDense(class Decoder* in);

  std::vector<NodeId> parents_;
  std::vector<uint32_t> frames_;
  std::vector<NodeId> leaves_;
  std::vector<NodeId> slots_;    // power of two; 0 = free; empty until the first Find
  std::vector<LeafId> leaf_of_;  // by node; shorter than the trie until the first FindLeaf
};

class TrieCache {
 public:
  using Loader = std::function<Status(TrieId, StackTrie*)>;
  TrieCache(uint64_t budget_bytes, Loader loader) : budget_bytes_(budget_bytes), loader_(std::move(loader)) {}

  // Loads when needed. The trie stays in memory at least as long as somebody holds it.
  StatusOr<std::shared_ptr<StackTrie>> Get(TrieId id);
  // Forgets it: the next Get loads afresh. Those who hold the old one keep it. `first_free`: ids below were handed
  // out for a write that failed; a trie loaded later never hands them out again.
  void Drop(TrieId id, TrieSpan first_free);
  // Lets the least recently used go that nobody holds, until all together are within the budget.
  void Trim() { TrimTo(budget_bytes_); }
  void TrimTo(uint64_t most_bytes);
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
  std::unordered_map<TrieId, TrieSpan> first_free_;
  uint64_t clock_ = 0;
};

}  // namespace pyrometer::store

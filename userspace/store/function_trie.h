// A stack trie seen as people see it: functions instead of addresses. Derived, in memory only, so that a name that
// comes late changes what is shown and nothing that is stored.
//
// A frame is one function, or several when calls were inlined; nodes whose paths from the root name the same functions
// are one node here. So summing up a flame graph is: counts per leaf → counts per function node (one look-up each) →
// totals (one pass from the last node to the first, since parents come before children).
//
//   std::shared_lock lock(functions->mutex);
//   for (const StackSum& row : sums) self[functions->leaf(row.leaf)] += row.value;
//   for (size_t f = functions->size(); --f > 0;) total[functions->parent(f)] += total[f];
//   for (size_t f = 1; f < functions->size(); ++f)                       // what each function took, recursion once
//     if (!functions->recursive(f)) of_symbol[functions->symbol(f)] += total[f];
//
// Threads: take `mutex` (shared) while reading; Extend takes it alone. Cost: 0.2 µs per new node of the trie, then 13
// bytes per function node and 8 to 16 more for each that is not its caller's first, 4 per node and leaf of the trie, 40
// per distinct frame; once sealed, 9 bytes per function node, 4 per leaf and per distinct frame.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/dictionary.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

// A function as a person tells them apart. Texts are string ids of the store (StoreReader::Texts); 0 = "".
struct Symbol {
  uint32_t name = 0;    // 0: no name is known; then module and address say where it is
  uint32_t module = 0;  // file of the mapping
  profile::FrameKind kind = profile::FrameKind::kUnknown;
  uint64_t address = 0;  // only without a name
  // Of the first frame that had it; not part of its identity.
  uint32_t build_id = 0;  // only without a name, or without a line
  uint32_t file = 0;      // source file
  int32_t line = 0;       // where the function begins, else of a call; 0 = unknown
};

class FunctionTrie {
 public:
  // What one frame shows: its functions, innermost first; none when the frame is not written yet.
  using Describe = std::function<StatusOr<std::vector<std::vector<Symbol>>>(const std::vector<uint32_t>& frames)>;

  FunctionTrie();

  size_t size() const { return parents_.size(); }
  uint32_t parent(uint32_t node) const { return parents_[node]; }
  uint32_t symbol(uint32_t node) const { return symbols_of_[node]; }
  // Every stack that passes here had it inlined.
  bool inlined(uint32_t node) const { return (flags_[node] & kInlined) != 0; }
  // Its symbol is on the way to the root already.
  bool recursive(uint32_t node) const { return (flags_[node] & kRecursive) != 0; }
  // Precondition: leaf < leaf_count().
  uint32_t leaf(LeafId leaf) const { return leaves_[leaf]; }
  size_t leaf_count() const { return leaves_.size(); }
  // Index 0 belongs to the root and is empty.
  const std::vector<Symbol>& symbols() const { return symbols_; }
  // Does it show this frame?
  bool Shows(uint32_t frame) const;
  uint64_t bytes() const;

  // Adds what the trie has got since: `parents` and `frames` of its nodes from `first_node` on, `leaves` of its leaves
  // from `first_leaf` on, which the caller read from nodes() and leaf_count(). False, and nothing is added, when
  // another thread was quicker, or it is sealed. What begins with a frame that is not written yet is left for later: no
  // stack that was read from the disk before is among it, since nodes are written in the order in which they are made.
  // Takes the mutex. After an error nothing is added.
  StatusOr<bool> Extend(size_t first_node, size_t first_leaf, const std::vector<NodeId>& parents,
                        const std::vector<uint32_t>& frames, const std::vector<NodeId>& leaves,
                        const Describe& describe);
  size_t nodes() const { return function_of_.size(); }
  // Nothing will be added any more: keeps only what readers need. Takes the mutex.
  void Seal();
  bool sealed() const { return sealed_; }

  mutable std::shared_mutex mutex;

 private:
  uint32_t Child(uint32_t parent, uint32_t symbol, bool inlined);
  bool OnTheWay(uint32_t parent, uint32_t symbol);
  uint32_t SymbolIndex(const Symbol& symbol);
  size_t SlotOf(uint32_t parent, uint32_t symbol) const;
  // Index of its place, or of the free slot where it belongs.
  size_t PlaceSlot(uint32_t frame) const;
  void AddPlace(uint32_t frame, const std::vector<Symbol>& functions);

  struct SymbolHash {
    size_t operator()(const Symbol& symbol) const;
  };
  struct SymbolEqual {
    bool operator()(const Symbol& a, const Symbol& b) const;
  };
  std::vector<uint32_t> parents_, symbols_of_;
  static constexpr uint8_t kInlined = 1;
  static constexpr uint8_t kRecursive = 2;
  std::vector<uint8_t> flags_;
  // Most nodes have one child, so that children beyond the first are the few that need a table.
  std::vector<uint32_t> first_child_;  // by node
  std::vector<uint32_t> slots_;        // the others: open addressing by (parent, symbol); power of two
  size_t in_slots_ = 0;
  std::vector<uint32_t> function_of_;  // by node of the trie
  std::vector<uint32_t> leaves_;
  std::vector<Symbol> symbols_;
  std::unordered_map<Symbol, uint32_t, SymbolHash, SymbolEqual> symbol_ids_;
  struct Place {
    uint32_t frame = 0;             // 0: free
    uint32_t begin = 0, count = 0;  // in place_symbols_
  };
  std::vector<Place> places_;  // open addressing by frame; power of two
  size_t place_count_ = 0;
  std::vector<uint32_t> place_symbols_;  // innermost first
  // Symbols on the way to the node that was made last: those whose mark is `mark_`.
  std::vector<uint32_t> marks_;
  uint32_t mark_ = 0;
  uint32_t marked_node_ = 0;
  bool sealed_ = false;
  std::vector<uint32_t> shown_;  // frames, sorted; once it is sealed
};

}  // namespace pyrometer::store

// Sums of a selection per function, trie by trie: what flame graphs and tables of functions are made of. Inside this
// room only.
//
// Threads: none shared; made on several.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "userspace/profile/flame_graph.h"
#include "userspace/query/merge_header.h"
#include "userspace/query/selection.h"
#include "userspace/store/function_trie.h"

namespace pyrometer::query {

// Sums up the stacks of `parts` (sorted by trie) and hands them over, with the trie's functions locked for reading:
// from several threads at a time, each part once. Adds to `header` and `samples`.
Status SumParts(const Engine& engine, const std::vector<StackPart>& parts, TimeRange range, MergeHeader* header,
                uint64_t* samples,
                const std::function<Status(size_t part, const store::FunctionTrie& functions,
                                           const store::StackSums& sums)>& visit);

// Sums by node of a trie of functions, for one part after the other. An array per thread would be too many: made anew.
struct NodeSums {
  // Totals of every node. DATA_LOSS for leaves that the trie does not have. Cost: 5 ns per row, 2 per node.
  static StatusOr<NodeSums> Totals(const store::FunctionTrie& functions, const store::StackSums& sums);

  std::vector<uint64_t> samples, value;
  // Of nodes that have any; 0 = none.
  std::vector<uint32_t> first_child, next_sibling;
  bool used(uint32_t node) const { return samples[node] != 0 || value[node] != 0; }
  static constexpr uint64_t kBytesPerNode = 2 * sizeof(uint64_t) + 2 * sizeof(uint32_t);
};

// The nodes of a trie of functions at which a selection has something, children side by side; the trie itself is not
// needed any more.
struct UsedTree {
  static UsedTree Of(const store::FunctionTrie& functions, const NodeSums& sums);

  static constexpr uint32_t kInlinedBit = 1u << 31;
  size_t size() const { return symbol.size(); }
  // Node 0 is the root. Children of i are first_child[i] … first_child[i + 1].
  std::vector<uint32_t> symbol;  // index into symbols, and kInlinedBit
  std::vector<uint32_t> first_child;
  std::vector<uint64_t> samples, value;  // totals
  std::vector<store::Symbol> symbols;
  uint64_t bytes() const {
    return size() * (2 * sizeof(uint32_t) + 2 * sizeof(uint64_t)) + symbols.size() * sizeof(store::Symbol);
  }
};

// Functions that several tries have are one here.
class SymbolTable {
 public:
  // Dense, from 0. Equal in name, module, kind and, without a name, address.
  uint32_t Id(const store::Symbol& symbol);
  const store::Symbol& symbol(uint32_t id) const { return symbols_[id]; }
  size_t size() const { return symbols_.size(); }

 private:
  void Grow();
  size_t SlotOf(const store::Symbol& symbol) const;
  std::vector<store::Symbol> symbols_;
  std::vector<uint32_t> slots_;  // id + 1; power of two
};

// What they are called and where they are; names are read from the store at once.
StatusOr<std::vector<profile::FlameGraph::Function>> Describe(const store::StoreReader& reader,
                                                              const std::vector<store::Symbol>& symbols);

}  // namespace pyrometer::query

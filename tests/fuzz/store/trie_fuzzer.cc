// A stack trie as it lies on disk: records one after the other, each with a byte for the gap before it (0 = none) and
// two of length. What is accepted keeps the promises that readers rely on, can be written densely and read again, and
// can be seen as functions.
#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/store/function_trie.h"
#include "userspace/store/trie.h"

namespace pyrometer::store {
namespace {

StatusOr<std::vector<std::vector<Symbol>>> Describe(const std::vector<uint32_t>& frames) {
  std::vector<std::vector<Symbol>> result;
  for (const uint32_t frame : frames) {
    std::vector<Symbol>& symbols = result.emplace_back();
    symbols.push_back({.name = frame % 5});
    if (frame % 3 == 0) symbols.push_back({.name = frame % 7 + 1});
  }
  return result;
}

void Check(const StackTrie& trie) {
  std::vector<NodeId> parents, leaves;
  std::vector<uint32_t> frames;
  for (NodeId node = 0; node < trie.size(); ++node) {
    CHECK(node == 0 || trie.parent(node) < node);
    parents.push_back(trie.parent(node));
    frames.push_back(trie.frame(node));
  }
  for (LeafId leaf = 0; leaf < trie.leaf_count(); ++leaf) {
    CHECK(trie.leaf_node(leaf) < trie.size());
    leaves.push_back(trie.leaf_node(leaf));
  }
  FunctionTrie functions;
  // Node 0 and leaf 0 are there from the beginning.
  const StatusOr<bool> extended =
      functions.Extend(1, 1, {parents.begin() + 1, parents.end()}, {frames.begin() + 1, frames.end()},
                       {leaves.begin() + 1, leaves.end()}, Describe);
  CHECK(extended.ok() && *extended);
  for (const bool sealed : {false, true}) {
    if (sealed) functions.Seal();
    const std::shared_lock lock(functions.mutex);
    CHECK(functions.leaf_count() == trie.leaf_count());
    for (uint32_t node = 1; node < functions.size(); ++node) {
      CHECK(functions.parent(node) < node);
      CHECK(functions.symbol(node) < functions.symbols().size());
    }
    for (LeafId leaf = 0; leaf < functions.leaf_count(); ++leaf) CHECK(functions.leaf(leaf) < functions.size());
    for (const uint32_t frame : frames) CHECK(frame == 0 || functions.Shows(frame));
  }
}

}  // namespace
}  // namespace pyrometer::store

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer::store;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  StackTrie trie;
  bool dead = false;
  while (rest.size() > 3) {
    const auto gap = static_cast<unsigned char>(rest[0]);
    const size_t length =
        static_cast<size_t>(static_cast<unsigned char>(rest[1])) << 8 | static_cast<unsigned char>(rest[2]);
    TrieSpan begin = trie.end();
    begin.first_node += gap;
    begin.first_leaf += gap / 2;
    dead = dead || gap != 0;
    const std::string_view record = rest.substr(3, length);
    if (!trie.Load(begin, record).ok()) return 0;
    CHECK(StackTrie::EndOf(begin, record).value() == trie.end());
    rest.remove_prefix(std::min(rest.size(), 3 + length));
  }
  Check(trie);
  if (dead || trie.size() == 1) return 0;
  StackTrie again;
  CHECK(again.Load(again.end(), trie.EncodeDense(StackTrie().end(), trie.end())).ok());
  CHECK(again.size() == trie.size() && again.leaf_count() == trie.leaf_count());
  for (NodeId node = 1; node < trie.size(); ++node) {
    CHECK(again.parent(node) == trie.parent(node) && again.frame(node) == trie.frame(node));
  }
  for (LeafId leaf = 1; leaf < trie.leaf_count(); ++leaf) CHECK(again.leaf_node(leaf) == trie.leaf_node(leaf));
  return 0;
}

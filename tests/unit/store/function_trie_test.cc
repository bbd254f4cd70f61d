#include "userspace/store/function_trie.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "userspace/store/trie.h"

namespace pyrometer::store {
namespace {

// Innermost first. Several frames have the same function, some have inlined calls, some of these of themselves.
std::vector<Symbol> FunctionsOf(uint32_t frame) {
  std::vector<Symbol> functions = {{.name = 1 + frame % 40}};
  if (frame % 3 == 0) functions.push_back({.name = 1 + frame % 7});
  if (frame % 15 == 0) functions.push_back({.name = 1 + frame % 40, .module = frame % 2});
  return functions;
}

StatusOr<std::vector<std::vector<Symbol>>> Describe(const std::vector<uint32_t>& frames) {
  std::vector<std::vector<Symbol>> result;
  for (const uint32_t frame : frames) result.push_back(FunctionsOf(frame));
  return result;
}

using Key = std::pair<uint32_t, uint32_t>;  // name, module
Key KeyOf(const Symbol& symbol) { return {symbol.name, symbol.module}; }

// Root first.
std::vector<Key> PathOf(const FunctionTrie& functions, uint32_t node) {
  std::vector<Key> path;
  for (; node != 0; node = functions.parent(node)) path.push_back(KeyOf(functions.symbols()[functions.symbol(node)]));
  std::reverse(path.begin(), path.end());
  return path;
}

class Growing {
 public:
  void Grow(size_t stacks) {
    for (size_t i = 0; i < stacks; ++i) {
      auto node = static_cast<NodeId>(random_() % trie_.size());
      for (size_t k = 1 + random_() % 6; k > 0; --k) {
        const auto frame = static_cast<uint32_t>(1 + random_() % 300);
        const NodeId known = trie_.Find(node, frame);
        node = known != 0 ? known : trie_.Add(node, frame);
      }
      trie_.FindOrAddLeaf(node);
    }
  }
  // Shows `functions` at most so many of the nodes that it does not have, with the leaves among them.
  void Show(size_t most, FunctionTrie* functions, const FunctionTrie::Describe& describe = Describe) const {
    const size_t first = functions->nodes(), end = std::min(trie_.size(), first + most);
    std::vector<NodeId> parents, leaves;
    std::vector<uint32_t> frames;
    for (size_t node = first; node < end; ++node) {
      parents.push_back(trie_.parent(static_cast<NodeId>(node)));
      frames.push_back(trie_.frame(static_cast<NodeId>(node)));
    }
    for (size_t leaf = functions->leaf_count(); leaf < trie_.leaf_count(); ++leaf) {
      if (trie_.leaf_node(static_cast<LeafId>(leaf)) >= end) break;
      leaves.push_back(trie_.leaf_node(static_cast<LeafId>(leaf)));
    }
    const StatusOr<bool> extended =
        functions->Extend(first, functions->leaf_count(), parents, frames, leaves, describe);
    ASSERT_TRUE(extended.ok()) << extended.status();
    ASSERT_TRUE(*extended);
  }
  const StackTrie& trie() const { return trie_; }

 private:
  StackTrie trie_;
  std::mt19937_64 random_{11};
};

// Each leaf has the functions of its stack, each node a path of its own, and what is said of nodes follows from stacks.
void ExpectSame(const FunctionTrie& functions, const StackTrie& trie) {
  const std::shared_lock lock(functions.mutex);
  std::map<std::vector<Key>, bool> inlined;  // by path: was it in every stack?
  std::vector<std::vector<Key>> path_of(trie.size());
  for (NodeId node = 1; node < trie.size(); ++node) {
    std::vector<Key> path = path_of[trie.parent(node)];
    const std::vector<Symbol> added = FunctionsOf(trie.frame(node));
    for (size_t i = added.size(); i-- > 0;) {
      path.push_back(KeyOf(added[i]));
      const auto entry = inlined.try_emplace(path, true).first;
      entry->second = entry->second && i + 1 < added.size();
    }
    path_of[node] = std::move(path);
  }
  ASSERT_EQ(functions.leaf_count(), trie.leaf_count());
  for (LeafId leaf = 0; leaf < trie.leaf_count(); ++leaf) {
    ASSERT_EQ(PathOf(functions, functions.leaf(leaf)), path_of[trie.leaf_node(leaf)]) << leaf;
  }
  ASSERT_EQ(functions.size(), inlined.size() + 1);
  for (uint32_t node = 1; node < functions.size(); ++node) {
    ASSERT_LT(functions.parent(node), node);
    const std::vector<Key> path = PathOf(functions, node);
    ASSERT_EQ(inlined.count(path), 1u);
    ASSERT_EQ(functions.inlined(node), inlined[path]) << node;
    const std::vector<Key> above(path.begin(), path.end() - 1);
    ASSERT_EQ(functions.recursive(node), std::find(above.begin(), above.end(), path.back()) != above.end()) << node;
  }
}

TEST(FunctionTrie, NamesEveryStackOfATrieThatGrows) {
  Growing growing;
  FunctionTrie functions;
  for (const size_t stacks : {1, 10, 500, 4000}) {
    growing.Grow(stacks);
    while (functions.nodes() < growing.trie().size()) ASSERT_NO_FATAL_FAILURE(growing.Show(997, &functions));
    ASSERT_NO_FATAL_FAILURE(ExpectSame(functions, growing.trie()));
  }
  const uint64_t before = functions.bytes();
  functions.Seal();
  ASSERT_NO_FATAL_FAILURE(ExpectSame(functions, growing.trie()));
  // 9 bytes per node and 4 per leaf and frame, as the header says.
  EXPECT_LT(functions.bytes(), before / 2);
  EXPECT_LT(functions.bytes(), sizeof(functions) + functions.size() * 9 + (functions.leaf_count() + 301) * 4 +
                                   functions.symbols().size() * sizeof(Symbol) + 64);
  for (uint32_t frame = 0; frame < 400; ++frame) {
    EXPECT_EQ(functions.Shows(frame), frame >= 1 && frame <= 300) << frame;
  }
}

TEST(FunctionTrie, LeavesForLaterWhatBeginsWithAFrameThatIsNotWritten) {
  Growing growing;
  growing.Grow(2000);
  FunctionTrie functions;
  const auto some = [](const std::vector<uint32_t>& frames) -> StatusOr<std::vector<std::vector<Symbol>>> {
    std::vector<std::vector<Symbol>> result;
    for (const uint32_t frame : frames) {
      result.push_back(frame == 77 ? std::vector<Symbol>() : FunctionsOf(frame));
    }
    return result;
  };
  ASSERT_NO_FATAL_FAILURE(growing.Show(growing.trie().size(), &functions, some));
  ASSERT_LT(functions.nodes(), growing.trie().size());
  EXPECT_EQ(growing.trie().frame(static_cast<NodeId>(functions.nodes())), 77u);
  EXPECT_FALSE(functions.Shows(77));
  ASSERT_NO_FATAL_FAILURE(growing.Show(growing.trie().size(), &functions));
  EXPECT_TRUE(functions.Shows(77));
  ExpectSame(functions, growing.trie());
}

TEST(FunctionTrie, AddsNothingAfterAnErrorOrWhenAnotherWasQuicker) {
  Growing growing;
  growing.Grow(100);
  FunctionTrie functions;
  const auto fails = [](const std::vector<uint32_t>&) -> StatusOr<std::vector<std::vector<Symbol>>> {
    return UnavailableError("no disk");
  };
  EXPECT_FALSE(functions.Extend(1, 1, {0}, {5}, {1}, fails).ok());
  EXPECT_EQ(functions.nodes(), 1u);
  EXPECT_FALSE(functions.Shows(5));
  ASSERT_NO_FATAL_FAILURE(growing.Show(50, &functions));
  EXPECT_FALSE(*functions.Extend(1, 1, {0}, {5}, {1}, Describe));
  ASSERT_NO_FATAL_FAILURE(growing.Show(growing.trie().size(), &functions));
  ExpectSame(functions, growing.trie());
}

}  // namespace
}  // namespace pyrometer::store

#include "userspace/store/trie.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "userspace/base/strings.h"

namespace pyrometer::store {
namespace {

bool Same(const StackTrie& a, const StackTrie& b) {
  if (a.size() != b.size() || a.leaf_count() != b.leaf_count()) return false;
  for (NodeId n = 0; n < a.size(); ++n) {
    if (a.parent(n) != b.parent(n) || a.frame(n) != b.frame(n)) return false;
  }
  for (LeafId leaf = 0; leaf < a.leaf_count(); ++leaf) {
    if (a.leaf_node(leaf) != b.leaf_node(leaf)) return false;
  }
  return true;
}

// As call trees are: chains that branch off anywhere, callees that repeat.
void Grow(StackTrie* trie, std::mt19937_64& random, size_t stacks) {
  for (size_t i = 0; i < stacks; ++i) {
    auto node = static_cast<NodeId>(random() % trie->size());
    for (size_t k = 1 + random() % 6; k > 0; --k) {
      const uint32_t frame = 1 + static_cast<uint32_t>((trie->frame(node) * 7 + random() % 3) % 500);
      const NodeId known = trie->Find(node, frame);
      node = known != 0 ? known : trie->Add(node, frame);
    }
    trie->FindOrAddLeaf(node);
  }
}

TEST(Trie, FindsWhatWasAdded) {
  StackTrie trie;
  std::mt19937_64 random(5);
  std::map<std::pair<NodeId, uint32_t>, NodeId> model;
  std::map<NodeId, LeafId> leaves;
  for (int i = 0; i < 50'000; ++i) {
    const auto parent = static_cast<NodeId>(random() % trie.size());
    const auto frame = static_cast<uint32_t>(1 + random() % 50);
    const auto known = model.find({parent, frame});
    NodeId node = trie.Find(parent, frame);
    ASSERT_EQ(node, known == model.end() ? 0 : known->second);
    if (node == 0) {
      node = trie.Add(parent, frame);
      ASSERT_LT(parent, node);
      model[{parent, frame}] = node;
    }
    if (random() % 3 != 0) continue;
    const auto leaf = leaves.find(node);
    ASSERT_EQ(trie.FindLeaf(node), leaf == leaves.end() ? 0 : leaf->second);
    leaves[node] = trie.FindOrAddLeaf(node);
    ASSERT_EQ(trie.leaf_node(leaves[node]), node);
  }
  EXPECT_EQ(trie.size(), model.size() + 1);
  EXPECT_EQ(trie.leaf_count(), leaves.size() + 1);
  EXPECT_EQ(trie.FindOrAddLeaf(0), 0u);
}

TEST(Trie, ComesBackFromRecordsOfBothForms) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 60; ++round) {
    StackTrie trie;
    std::vector<TrieSpan> cuts = {{1, 1}};
    for (size_t i = 0, n = 1 + random() % 6; i < n; ++i) {
      Grow(&trie, random, 1 + random() % 400);
      if (trie.end() != cuts.back()) cuts.push_back(trie.end());
    }
    StackTrie copy;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::string record =
          random() % 2 == 0 ? trie.EncodeFresh(cuts[i], cuts[i + 1]) : trie.EncodeDense(cuts[i], cuts[i + 1]);
      const Status loaded = copy.Load(cuts[i], record);
      ASSERT_TRUE(loaded.ok()) << round << ": " << loaded;
    }
    ASSERT_TRUE(Same(copy, trie)) << round;
    StackTrie whole;
    ASSERT_TRUE(whole.Load({1, 1}, trie.EncodeDense({1, 1}, trie.end())).ok());
    ASSERT_TRUE(Same(whole, trie));
    // What comes back can be added to.
    EXPECT_EQ(whole.Find(trie.parent(5), trie.frame(5)), 5u);
    EXPECT_EQ(whole.FindLeaf(trie.leaf_node(1)), 1u);
  }
}

TEST(Trie, GapsAreLegalAndOverlapsAreNot) {
  StackTrie trie;
  std::mt19937_64 random(8);
  Grow(&trie, random, 100);
  const TrieSpan cut = trie.end();
  Grow(&trie, random, 100);
  const std::string record = trie.EncodeFresh(cut, trie.end());
  StackTrie partial;
  ASSERT_TRUE(partial.Load(cut, record).ok());
  EXPECT_EQ(partial.frame(50), 0u);
  EXPECT_EQ(partial.leaf_node(cut.first_leaf - 1), 0u);
  EXPECT_EQ(partial.leaf_node(cut.first_leaf), trie.leaf_node(cut.first_leaf));
  EXPECT_EQ(partial.Load(cut, record).code(), StatusCode::kDataLoss);
}

TEST(Trie, ExactBytes) {
  StackTrie trie;
  const NodeId a = trie.Add(0, 5);
  const NodeId b = trie.Add(a, 9);
  const NodeId c = trie.Add(a, 6);
  trie.FindOrAddLeaf(trie.Add(b, 1000));
  trie.FindOrAddLeaf(c);
  EXPECT_EQ(HexEncode(trie.EncodeFresh({1, 1}, trie.end())),
            "00"          // fresh
            "0402"        // four nodes, two leaves
            "01010202"    // distance to the parent
            "0a0805c40f"  // frames 5, +4, -3, +994
            "0601");      // leaves at nodes 4 (1 + 3), 3 (-1)
  EXPECT_EQ(HexEncode(trie.EncodeDense({1, 1}, trie.end())),
            "01"                        // dense
            "040204"                    // four nodes, two leaves, four frames
            "441d0000a0227c7de7f300");  // bits, see docs/formats/store.md
}

TEST(Trie, HostileRecords) {
  std::mt19937_64 random(6);
  StackTrie trie;
  Grow(&trie, random, 200);
  for (const std::string& good : {trie.EncodeFresh({1, 1}, trie.end()), trie.EncodeDense({1, 1}, trie.end())}) {
    for (size_t i = 0; i < good.size(); ++i) {
      StackTrie victim;
      EXPECT_EQ(victim.Load({1, 1}, good.substr(0, i)).code(), StatusCode::kDataLoss) << i;
    }
    for (int round = 0; round < 20'000; ++round) {
      std::string bytes = good;
      for (size_t i = 0, n = 1 + random() % 3; i < n; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
      StackTrie victim;
      if (!victim.Load({1, 1}, bytes).ok()) continue;
      for (NodeId n = 1; n < victim.size(); ++n) {
        ASSERT_LT(victim.parent(n), n);
        ASSERT_NE(victim.frame(n), 0u);
      }
      for (LeafId leaf = 1; leaf < victim.leaf_count(); ++leaf) ASSERT_LT(victim.leaf_node(leaf), victim.size());
    }
  }
}

TEST(TrieCache, EvictsOnlyWhatNobodyHolds) {
  int loads = 0;
  TrieCache cache(1, [&loads](TrieId id, StackTrie* trie) {
    ++loads;
    for (TrieId i = 0; i < id; ++i) trie->Add(0, i + 1);
    return OkStatus();
  });
  std::shared_ptr<StackTrie> held = cache.Get(5).value();
  EXPECT_EQ(held->size(), 6u);
  cache.Get(7).status().IgnoreError();
  EXPECT_EQ(loads, 2);
  cache.Trim();  // budget of one byte: 7 goes, 5 is held
  EXPECT_EQ(cache.Get(5).value().get(), held.get());
  EXPECT_EQ(loads, 2);
  EXPECT_EQ(cache.Get(7).value()->size(), 8u);
  EXPECT_EQ(loads, 3);
  // Ids handed out for a write that failed are not handed out again.
  cache.Drop(5, {20, 7});
  EXPECT_EQ(cache.Get(5).value()->size(), 20u);
  EXPECT_EQ(cache.Get(5).value()->leaf_count(), 7u);
  EXPECT_EQ(held->size(), 6u);
}

TEST(TrieCache, FailedLoadIsTriedAgain) {
  int loads = 0;
  TrieCache cache(1 << 20, [&loads](TrieId, StackTrie* trie) {
    trie->Add(0, 1);
    return ++loads == 1 ? DataLossError("bad block") : OkStatus();
  });
  EXPECT_EQ(cache.Get(1).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(cache.Get(1).value()->size(), 2u);
}

}  // namespace
}  // namespace pyrometer::store

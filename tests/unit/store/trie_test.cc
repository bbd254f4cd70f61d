#include "userspace/store/trie.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::store {
namespace {

TEST(Trie, FindsWhatWasAdded) {
  StackTrie trie;
  std::mt19937_64 random(5);
  std::map<std::pair<NodeId, uint32_t>, NodeId> model;
  for (int i = 0; i < 50'000; ++i) {
    const auto parent = static_cast<NodeId>(random() % trie.size());
    const auto frame = static_cast<uint32_t>(1 + random() % 50);
    const auto known = model.find({parent, frame});
    NodeId node = trie.Find(parent, frame);
    ASSERT_EQ(node, known == model.end() ? 0 : known->second);
    if (node != 0) continue;
    node = trie.Add(parent, frame);
    ASSERT_LT(parent, node);
    model[{parent, frame}] = node;
  }
  EXPECT_EQ(trie.size(), model.size() + 1);

  // In three segments to disk and back.
  StackTrie copy;
  StackTrie partial;
  std::vector<std::pair<NodeId, std::string>> segments;
  for (const NodeId cut : {NodeId{1}, NodeId{100}, static_cast<NodeId>(trie.size() / 2)}) {
    segments.push_back({cut, trie.EncodeSegment(cut)});
  }
  ASSERT_TRUE(copy.LoadSegment(1, segments[0].second).ok());
  ASSERT_EQ(copy.size(), trie.size());
  for (NodeId n = 0; n < trie.size(); ++n) {
    ASSERT_EQ(copy.parent(n), trie.parent(n));
    ASSERT_EQ(copy.frame(n), trie.frame(n));
  }
  EXPECT_EQ(copy.Find(trie.parent(777), trie.frame(777)), 777u);
  // A gap (ids of a write that failed) is legal, an overlap is not.
  ASSERT_TRUE(partial.LoadSegment(100, segments[1].second).ok());
  EXPECT_EQ(partial.frame(50), 0u);
  EXPECT_EQ(partial.LoadSegment(segments[2].first, segments[2].second).code(), StatusCode::kDataLoss);
}

TEST(Trie, ExactBytes) {
  StackTrie trie;
  const NodeId a = trie.Add(0, 5);
  const NodeId b = trie.Add(a, 9);
  trie.Add(a, 6);
  trie.Add(b, 1000);
  EXPECT_EQ(HexEncode(trie.EncodeSegment(1)),
            "04"
            "01010202"
            "0a0805c40f");
}

TEST(Trie, HostileSegments) {
  StackTrie trie;
  for (uint32_t i = 0; i < 60; ++i) trie.Add(i / 2, i + 1);
  const std::string good = trie.EncodeSegment(1);
  for (size_t i = 0; i < good.size(); ++i) {
    StackTrie victim;
    EXPECT_EQ(victim.LoadSegment(1, good.substr(0, i)).code(), StatusCode::kDataLoss) << i;
  }
  std::mt19937_64 random(6);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = good;
    for (size_t i = 0, n = 1 + random() % 3; i < n; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    StackTrie victim;
    if (!victim.LoadSegment(1, bytes).ok()) continue;
    for (NodeId n = 1; n < victim.size(); ++n) {
      ASSERT_LT(victim.parent(n), n);
      ASSERT_NE(victim.frame(n), 0u);
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
  cache.Drop(5, 20);
  EXPECT_EQ(cache.Get(5).value()->size(), 20u);
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

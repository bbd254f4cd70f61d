#include "userspace/query/flame_tree.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/query/profile_testing.h"
#include "userspace/query/engine.h"

namespace pyrometer::query {
namespace {

std::string Draw(const FlameTree& tree) {
  std::string out;
  for (size_t i = 0; i < tree.size(); ++i) {
    out += std::string(tree.depth[i] * 2, ' ') + tree.names[tree.name[i]] + " " + std::to_string(tree.self[i]) + "/" +
           std::to_string(tree.total[i]) + "\n";
  }
  return out;
}

// What every tree promises.
void CheckInvariants(const FlameTree& tree, int64_t total) {
  ASSERT_GE(tree.size(), 1u);
  EXPECT_EQ(tree.total[0], total);
  EXPECT_EQ(tree.kind[0], FlameNodeKind::kRoot);
  std::vector<int64_t> sums = tree.self;
  for (size_t i = tree.size(); i-- > 1;) {
    ASSERT_LT(tree.parent[i], i);
    ASSERT_EQ(tree.depth[i], tree.depth[tree.parent[i]] + 1);
    sums[tree.parent[i]] += tree.total[i];
  }
  for (size_t i = 0; i < tree.size(); ++i) ASSERT_EQ(sums[i], tree.total[i]) << "node " << i;
  // Pre-order: a node's parent is the node before it or one of that node's ancestors.
  std::vector<uint32_t> path = {0};
  for (uint32_t i = 1; i < tree.size(); ++i) {
    ASSERT_LE(tree.depth[i], path.size());
    path.resize(tree.depth[i]);
    ASSERT_EQ(path.back(), tree.parent[i]);
    path.push_back(i);
  }
}

TEST(FlameTree, SmallTree) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  p.Add(0, StackOf(&d, "main;work;hot"), {3, 30});
  p.Add(0, StackOf(&d, "main;work"), {1, 10});
  p.Add(0, StackOf(&d, "main;idle"), {2, 20});
  p.Add(0, StackOf(&d, "start"), {1, 5});
  const FlameTree tree = BuildFlameTree(p, 1);
  EXPECT_EQ(Draw(tree),
            "all 0/65\n"
            "  main 0/60\n"
            "    idle 20/20\n"
            "    work 10/40\n"
            "      hot 30/30\n"
            "  start 5/5\n");
  CheckInvariants(tree, 65);
  EXPECT_EQ(tree.value_type, "cpu");
  EXPECT_EQ(tree.value_unit, "nanoseconds");
  EXPECT_EQ(tree.modules[tree.module[1]], "/bin/app");
  EXPECT_EQ(tree.kind[1], FlameNodeKind::kNative);
  EXPECT_EQ(Draw(BuildFlameTree(EmptyProfile(), 0)), "all 0/0\n");
}

TEST(FlameTree, SameFunctionAtOtherAddressesIsOneNode) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  for (uint64_t address = 1; address <= 3; ++address) {
    const auto f = FrameNamed(&d, "main", "/bin/app", profile::FrameKind::kNative, address);
    p.Add(0, d.InternStack(0, f), {1, 1});
  }
  p.Add(0, d.InternStack(0, FrameNamed(&d, "main", "/bin/other")), {1, 1});
  EXPECT_EQ(Draw(BuildFlameTree(p, 0)), "all 0/4\n  main 3/3\n  main 1/1\n");
}

TEST(FlameTree, InlinedLinesBecomeNodes) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  const auto file = d.InternString("a.cc");
  const auto fn = [&](std::string_view name, int64_t line) {
    return d.InternFunction({.name = d.InternString(name), .file = file, .start_line = line});
  };
  const auto frame =
      d.InternFrame({.kind = profile::FrameKind::kNative,
                     .lines = {{.function = fn("inner", 10), .line = 12}, {.function = fn("outer", 0), .line = 33}}});
  p.Add(0, d.InternStack(0, frame), {1, 5});
  const FlameTree tree = BuildFlameTree(p, 1);
  EXPECT_EQ(Draw(tree), "all 0/5\n  outer 0/5\n    inner 5/5\n");
  EXPECT_EQ(tree.inlined[1], 0);
  EXPECT_EQ(tree.inlined[2], 1);
  EXPECT_EQ(tree.line[1], 33);
  EXPECT_EQ(tree.line[2], 10);
  EXPECT_EQ(tree.files[tree.file[2]], "a.cc");
}

TEST(FlameTree, RootLabels) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  const auto labels = [&](std::vector<profile::Label> l) {
    return d.InternLabelSet(profile::LabelSet::Make(std::move(l)).value());
  };
  p.Add(labels({{"container.name", "shop"}, {"comm", "nginx"}}), StackOf(&d, "main"), {1, 4});
  p.Add(labels({{"container.name", "shop"}, {"comm", "sh"}}), StackOf(&d, "main"), {1, 2});
  p.Add(labels({{"comm", "sh"}}), StackOf(&d, "main"), {1, 1});
  const FlameTree tree = BuildFlameTree(p, 1, {.root_labels = {"container.name", "comm"}});
  EXPECT_EQ(Draw(tree),
            "all 0/7\n"
            "  (no container.name) 0/1\n"
            "    sh 0/1\n"
            "      main 1/1\n"
            "  shop 0/6\n"
            "    nginx 0/4\n"
            "      main 4/4\n"
            "    sh 0/2\n"
            "      main 2/2\n");
  EXPECT_EQ(tree.kind[1], FlameNodeKind::kLabel);
  CheckInvariants(tree, 7);
}

TEST(FlameTree, SmallSharesAreFoldedCountedAndStillSumUp) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  p.Add(0, StackOf(&d, "main;big"), {1, 1000});
  p.Add(0, StackOf(&d, "main;s1;deep"), {1, 1});
  p.Add(0, StackOf(&d, "main;s2"), {1, 2});
  p.Add(0, StackOf(&d, "main;s3"), {1, 3});
  const FlameTree tree = BuildFlameTree(p, 1, {.min_share = 0.01});
  EXPECT_EQ(Draw(tree), "all 0/1006\n  main 0/1006\n    (3 smaller) 6/6\n    big 1000/1000\n");
  EXPECT_EQ(tree.kind[2], FlameNodeKind::kSmaller);
  EXPECT_EQ(tree.hidden[2], 3u);
  EXPECT_EQ(tree.hidden[3], 0u);
  CheckInvariants(tree, 1006);
}

TEST(FlameTree, DifferencesThatCancelAreNotHidden) {
  profile::Profile p = EmptyProfile();
  p.Add(0, StackOf(&p.dictionary, "main;faster"), {1, -500});
  p.Add(0, StackOf(&p.dictionary, "main;slower"), {1, 500});
  const FlameTree tree = BuildFlameTree(p, 1, {.min_share = 0.1});
  EXPECT_EQ(Draw(tree), "all 0/0\n  main 0/0\n    faster -500/-500\n    slower 500/500\n");
}

TEST(FlameTree, RandomTreesKeepTheirPromises) {
  std::mt19937_64 random(10);
  for (int round = 0; round < 20; ++round) {
    profile::Profile p = EmptyProfile();
    int64_t total = 0;
    for (int i = 0; i < 500; ++i) {
      std::string folded;
      for (size_t depth = random() % 15; depth > 0; --depth) {
        folded += (folded.empty() ? "f" : ";f") + std::to_string(random() % 5);
      }
      const auto value = static_cast<int64_t>(random() % 1000);
      total += value;
      p.Add(0, StackOf(&p.dictionary, folded), {1, value});
    }
    CheckInvariants(BuildFlameTree(p, 1), total);
    CheckInvariants(BuildFlameTree(p, 1, {.min_share = 0.01}), total);
  }
}

TEST(FlameTree, MillionNodesDeepAndWide) {
  // 100,000 frames deep (runaway recursion through two functions), and 900 callees with 1,000 callees each.
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  const profile::FrameId even = FrameNamed(&d, "even");
  const profile::FrameId odd = FrameNamed(&d, "odd");
  profile::StackId stack = profile::kEmptyStack;
  for (int i = 0; i < 100'000; ++i) {
    stack = d.InternStack(stack, i % 2 == 0 ? even : odd);
    if (i % 1000 == 999) p.Add(0, stack, {1, 7});
  }
  const profile::StackId wide = d.InternStack(profile::kEmptyStack, FrameNamed(&d, "wide"));
  std::vector<profile::FrameId> leaves;
  for (int i = 0; i < 1000; ++i) leaves.push_back(FrameNamed(&d, "leaf" + std::to_string(i)));
  for (int i = 0; i < 900; ++i) {
    const profile::StackId middle = d.InternStack(wide, FrameNamed(&d, "middle" + std::to_string(i)));
    for (const profile::FrameId leaf : leaves) p.Add(0, d.InternStack(middle, leaf), {1, 1});
  }
  const FlameTree tree = BuildFlameTree(p, 1);
  EXPECT_EQ(tree.size(), 1u + 100'000 + 1 + 900 + 900'000);
  CheckInvariants(tree, 100 * 7 + 900'000);
  const FlameTree cut = BuildFlameTree(p, 1, {.min_share = 0.000005});
  CheckInvariants(cut, 100 * 7 + 900'000);
  EXPECT_LT(cut.size(), 110'000u);
  const TopTable top = TopFunctions(p, 3, TopOrder::kTotal);
  EXPECT_EQ(top.rows[0].name, "wide");
  EXPECT_EQ(top.rows[1].total, 1000);
  EXPECT_EQ(top.functions, 2u + 1 + 900 + 1000);
}

}  // namespace
}  // namespace pyrometer::query

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/unit/query/profile_testing.h"
#include "userspace/query/engine.h"

namespace pyrometer::query {
namespace {

std::string Rows(const TopTable& table) {
  std::string out;
  for (const FunctionCost& row : table.rows) {
    out += row.name + " " + std::to_string(row.self) + "/" + std::to_string(row.total) + "\n";
  }
  return out;
}

TEST(TopFunctions, SelfTotalPercentAndRecursion) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  p.Add(0, StackOf(&d, "main;work"), {1, 30});
  p.Add(0, StackOf(&d, "main;fib;fib;fib"), {1, 60});
  p.Add(0, StackOf(&d, "main"), {1, 10});
  TopTable top = TopFunctions(p, 0);
  EXPECT_EQ(Rows(top), "fib 60/60\nwork 30/30\nmain 10/100\n");
  EXPECT_EQ(top.total, 100);
  EXPECT_EQ(top.functions, 3u);
  EXPECT_DOUBLE_EQ(top.rows[0].self_percent, 60);
  EXPECT_DOUBLE_EQ(top.rows[2].total_percent, 100);
  EXPECT_EQ(top.rows[0].module, "/bin/app");
  top = TopFunctions(p, 2, TopOrder::kTotal);
  EXPECT_EQ(Rows(top), "main 10/100\nfib 60/60\n");
  EXPECT_EQ(top.functions, 3u);
  EXPECT_EQ(Rows(TopFunctions(p, 0, TopOrder::kTotal, 0)), "main 1/3\nfib 1/1\nwork 1/1\n");
  EXPECT_TRUE(TopFunctions(EmptyProfile(), 5).rows.empty());
}

TEST(TopFunctions, InlinedFunctionsCountTheInnermostHasTheSelf) {
  profile::Profile p = EmptyProfile();
  profile::Dictionary& d = p.dictionary;
  const auto fn = [&](std::string_view name) { return d.InternFunction({.name = d.InternString(name)}); };
  const auto frame = d.InternFrame(
      {.kind = profile::FrameKind::kNative, .lines = {{.function = fn("inner")}, {.function = fn("outer")}}});
  const auto unnamed = d.InternFrame({.kind = profile::FrameKind::kNative,
                                      .mapping = d.InternMapping({.file = d.InternString("/usr/lib/libx.so")}),
                                      .address = ElfAddress(0x40)});
  p.Add(0, d.InternStack(d.InternStack(0, frame), unnamed), {1, 5});
  p.Add(0, d.InternStack(0, frame), {1, 7});
  p.Add(0, profile::kEmptyStack, {1, 3});
  EXPECT_EQ(Rows(TopFunctions(p, 0)), "inner 7/12\nlibx.so+0x40 5/5\nouter 0/12\n");
  EXPECT_EQ(TopFunctions(p, 0).total, 15);
}

TEST(TopFunctions, AgreesWithThePlainWay) {
  std::mt19937_64 random(9);
  profile::Profile p = EmptyProfile();
  std::map<std::string, std::pair<int64_t, int64_t>> model;
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::string> names;
    for (size_t depth = 1 + random() % 12; depth > 0; --depth) names.push_back("f" + std::to_string(random() % 9));
    std::string folded;
    for (const std::string& name : names) folded += (folded.empty() ? "" : ";") + name;
    const auto value = static_cast<int64_t>(random() % 100);
    profile::LabelSet labels = profile::LabelSet::Make({{"l", std::to_string(random() % 3)}}).value();
    p.Add(p.dictionary.InternLabelSet(labels), StackOf(&p.dictionary, folded), {1, value});
    model[names.back()].first += value;
    for (const std::string& name : std::set<std::string>(names.begin(), names.end())) model[name].second += value;
  }
  const TopTable top = TopFunctions(p, 0);
  ASSERT_EQ(top.rows.size(), model.size());
  for (const FunctionCost& row : top.rows) {
    EXPECT_EQ(row.self, model[row.name].first);
    EXPECT_EQ(row.total, model[row.name].second);
  }
}

}  // namespace
}  // namespace pyrometer::query

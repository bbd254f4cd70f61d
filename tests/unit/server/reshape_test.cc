#include "userspace/server/reshape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

using ::testing::UnorderedElementsAre;

profile::StackId Stack(profile::Profile* p, std::initializer_list<const char*> root_first) {
  auto& d = p->dictionary;
  profile::StackId stack = profile::kEmptyStack;
  for (const char* name : root_first) {
    const profile::FunctionId function = d.InternFunction({.name = d.InternString(name)});
    stack = d.InternStack(stack, d.InternFrame({.lines = {{.function = function}}}));
  }
  return stack;
}

profile::LabelSetId Labels(profile::Profile* p, std::vector<profile::Label> labels) {
  return p->dictionary.InternLabelSet(profile::LabelSet::Make(std::move(labels)).value());
}

// "{labels} root;…;leaf" -> default value.
std::map<std::string, int64_t> Folded(const profile::Profile& p) {
  std::map<std::string, int64_t> folded;
  for (size_t i = 0; i < p.sample_count(); ++i) {
    std::string line = p.dictionary.label_set(p.sample(i).labels).ToString() + " ";
    const std::vector<profile::FrameId> frames = p.dictionary.FramesLeafFirst(p.sample(i).stack);
    for (size_t f = frames.size(); f > 0; --f) line += p.dictionary.FrameName(frames[f - 1]) + (f > 1 ? ";" : "");
    folded[line] += p.values(i)[p.default_value];
  }
  return folded;
}

profile::Profile Example() {
  profile::Profile p;
  p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  p.default_value = 1;
  const auto shop = Labels(&p, {{"container.name", "shop"}});
  p.Add(shop, Stack(&p, {"main", "a"}), {1, 60});
  p.Add(shop, Stack(&p, {"main", "b", "c"}), {1, 30});
  p.Add(0, Stack(&p, {"main", "a"}), {1, 9});
  p.Add(0, Stack(&p, {"other"}), {1, 1});
  return p;
}

TEST(RootAtLabelsTest, PutsValuesAtTheRoot) {
  const profile::Profile rooted = RootAtLabels(Example(), {"container.name"});
  EXPECT_THAT(Folded(rooted), UnorderedElementsAre(std::pair("{container.name=\"shop\"} shop;main;a", 60),
                                                   std::pair("{container.name=\"shop\"} shop;main;b;c", 30),
                                                   std::pair("{} (no container.name);main;a", 9),
                                                   std::pair("{} (no container.name);other", 1)));
  EXPECT_EQ(rooted.Total(1), 100);
  EXPECT_EQ(rooted.Total(0), 4);
}

TEST(RootAtLabelsTest, SeveralLabelsFirstOutermost) {
  profile::Profile p;
  p.value_types = {{"cpu", "nanoseconds"}};
  p.Add(Labels(&p, {{"comm", "x"}, {"node", "n1"}}), Stack(&p, {"main"}), {5});
  p.Add(Labels(&p, {{"comm", "x"}, {"node", "n1"}}), profile::kEmptyStack, {2});
  EXPECT_THAT(Folded(RootAtLabels(p, {"node", "comm"})),
              UnorderedElementsAre(std::pair("{comm=\"x\",node=\"n1\"} n1;x;main", 5),
                                   std::pair("{comm=\"x\",node=\"n1\"} n1;x", 2)));
}

TEST(LimitNodesTest, KeepsTheLargestAndTheTotals) {
  const profile::Profile limited = LimitNodes(Example(), 3);  // root, main, a
  EXPECT_THAT(Folded(limited), UnorderedElementsAre(std::pair("{container.name=\"shop\"} main;a", 60),
                                                    std::pair("{container.name=\"shop\"} main;(smaller)", 30),
                                                    std::pair("{} main;a", 9), std::pair("{} (smaller)", 1)));
  EXPECT_EQ(limited.Total(1), 100);
  EXPECT_EQ(limited.Total(0), 4);
  EXPECT_EQ(limited.comments.size(), 1u);
}

TEST(LimitNodesTest, LeavesSmallProfilesAlone) {
  const profile::Profile example = Example();
  EXPECT_EQ(Folded(LimitNodes(example, 100)), Folded(example));
  EXPECT_TRUE(LimitNodes(example, 100).comments.empty());
  profile::Profile empty;
  empty.value_types = {{"cpu", "nanoseconds"}};
  EXPECT_EQ(LimitNodes(empty, 1).sample_count(), 0u);
}

TEST(LimitNodesTest, NegativeValuesMatterByTheirSize) {
  profile::Profile p;
  p.value_types = {{"cpu", "nanoseconds"}};
  p.Add(0, Stack(&p, {"grew"}), {1});
  p.Add(0, Stack(&p, {"shrank"}), {-50});
  p.Add(0, Stack(&p, {"same"}), {2});
  EXPECT_THAT(Folded(LimitNodes(p, 2)),
              UnorderedElementsAre(std::pair("{} shrank", -50), std::pair("{} (smaller)", 3)));
}

}  // namespace
}  // namespace pyrometer::server

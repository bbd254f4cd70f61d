#include "userspace/regression/flame_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/regression/made_up_program.h"
#include "userspace/regression/report.h"

namespace pyrometer::regression {
namespace {

struct Made {
  RunSet runs;
  FlameDiff flame;

  explicit Made(const MadeUpProgram& program) : runs(program.Make(16, 1)) {
    const CountTable counts = CountFunctions(runs);
    flame = MakeFlameDiff(runs, Analysis(counts, runs.MakeDesign(), {.draws = 1000, .seed = 7}));
  }
  // The first node of a function; nullptr for none.
  const FlameDiff::Node* Node(const std::string& name) const {
    for (const FlameDiff::Node& node : flame.nodes) {
      if (&node != flame.nodes.data() && flame.functions[node.function].name == name) return &node;
    }
    return nullptr;
  }
};

TEST(FlameDiff, WhatDidNotChangeIsAsWideOnBothSides) {
  const Made made(MadeUpProgram().Others().Stack({"main", "scan"}, 1500, 4500));
  const FlameDiff::Node *scan = made.Node("scan"), *other = made.Node("other7"), *main = made.Node("main");
  ASSERT_TRUE(scan != nullptr && other != nullptr && main != nullptr);
  EXPECT_NEAR(made.flame.nodes[0].baseline, 1, 1e-9);
  EXPECT_NEAR(scan->baseline, 0.2, 0.01);
  EXPECT_NEAR(scan->candidate, 0.6, 0.03);
  EXPECT_NEAR(other->candidate / other->baseline, 1, 0.15);
  EXPECT_NEAR(main->candidate, 1.4, 0.05);
  EXPECT_LE(made.flame.functions[scan->function].p_slower, 0.01);
  EXPECT_LE(made.flame.functions[scan->function].own_p_slower, 0.01);
  EXPECT_GT(made.flame.functions[other->function].p_slower, 0.01);
}

TEST(FlameDiff, StacksOfOneSideAreThere) {
  const Made made(MadeUpProgram().Others().Stack({"main", "before"}, 300, 0).Stack({"main", "after"}, 0, 300));
  ASSERT_NE(made.Node("before"), nullptr);
  EXPECT_EQ(made.Node("before")->candidate, 0);
  ASSERT_NE(made.Node("after"), nullptr);
  EXPECT_EQ(made.Node("after")->baseline, 0);
}

TEST(FlameDiff, ParentsComeFirstAndSmallStacksStayInTheirParents) {
  const Made made(MadeUpProgram().Others(1000).Stack({"main", "other1", "tiny"}, 2, 2));
  EXPECT_EQ(made.Node("tiny"), nullptr);
  EXPECT_EQ(made.flame.left_out, 1u);
  for (size_t i = 1; i < made.flame.nodes.size(); ++i) {
    EXPECT_LT(made.flame.nodes[i].parent, i);
    EXPECT_LE(made.flame.nodes[i].baseline, made.flame.nodes[made.flame.nodes[i].parent].baseline + 1e-9);
  }
}

TEST(FlameDiff, AHugeTreeIsCutToTheWidest) {
  MadeUpProgram program;
  for (int i = 0; i < 100; ++i) {
    std::vector<std::string> stack = {"f" + std::to_string(i)};
    for (int depth = 0; depth < 300; ++depth) stack.push_back("g" + std::to_string(depth));
    program.Stack(std::move(stack), 100 + i, 100 + i);
  }
  const Made made(program);
  EXPECT_LE(made.flame.nodes.size(), kMaxFlameNodes);
  EXPECT_GT(made.flame.nodes.size(), kMaxFlameNodes / 2);
  EXPECT_EQ(made.flame.nodes.size() + made.flame.left_out, 100u * 301 + 1);
  EXPECT_NE(made.Node("f99"), nullptr);
  EXPECT_EQ(made.Node("f0"), nullptr);
}

TEST(FlameDiff, ThePageHoldsItsDataWithoutMarkup) {
  const MadeUpProgram program = MadeUpProgram().Others().Stack({"main", "</script><b>"}, 300, 900);
  const RunSet runs = program.Make(16, 1);
  const CountTable counts = CountFunctions(runs);
  const Analysis analysis(counts, runs.MakeDesign(), {.draws = 1000, .seed = 7});
  const std::string page = RenderReport(MakeReport(runs, analysis, Judge(runs, analysis, {}), {}), ReportFormat::kHtml);
  const size_t begin = page.find("id=\"data\">") + 10, end = page.find("</script>", begin);
  const nlohmann::json data = nlohmann::json::parse(page.substr(begin, end - begin));
  EXPECT_EQ(data["report"]["findings"][0]["function"]["name"], "</script><b>");
  EXPECT_EQ(data["flames"][0]["nodes"][0][0], 0);
  EXPECT_EQ(data["flames"][0]["functions"][1].size(), 7u);
}

}  // namespace
}  // namespace pyrometer::regression

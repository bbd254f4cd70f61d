#include "userspace/regression/count_table.h"

#include <gtest/gtest.h>

#include <random>

namespace pyrometer::regression {
namespace {

FunctionIndex Function(RunSet& runs, const std::string& name) {
  return runs.InternFunction({.name = name, .module = "app"});
}

TEST(CountTable, RecursionCountsOnce) {
  RunSet runs;
  const FunctionIndex main = Function(runs, "main"), fib = Function(runs, "fib"), leaf = Function(runs, "leaf");
  const NodeIndex a = runs.InternNode(0, main), b = runs.InternNode(a, fib), c = runs.InternNode(b, fib),
                  d = runs.InternNode(c, leaf);
  regression::Run run;
  run.counts = {{0, 1}, {a, 2}, {b, 3}, {c, 5}, {d, 7}};
  run.facts.cpu_ns = 9;
  runs.AddRun(run);
  const CountTable table = CountFunctions(runs);
  EXPECT_EQ(table.total(0), 18) << "a sample without a stack is a sample";
  EXPECT_EQ(table.exclusive(0, main), 2);
  EXPECT_EQ(table.exclusive(0, fib), 8);
  EXPECT_EQ(table.exclusive(0, leaf), 7);
  EXPECT_EQ(table.inclusive(0, main), 17);
  EXPECT_EQ(table.inclusive(0, fib), 15);
  EXPECT_EQ(table.cpu_ns(0), 9);
}

// The walk with its counters against the plain definition, on random trees.
TEST(CountTable, AgreesWithTheDefinition) {
  std::mt19937_64 engine(1);
  for (int round = 0; round < 50; ++round) {
    RunSet runs;
    std::vector<FunctionIndex> functions;
    for (int f = 0; f < 6; ++f) functions.push_back(Function(runs, "f" + std::to_string(f)));
    for (int n = 0; n < 60; ++n) {
      runs.InternNode(static_cast<NodeIndex>(engine() % runs.nodes().size()), functions[engine() % functions.size()]);
    }
    regression::Run run;
    for (NodeIndex node = 1; node < runs.nodes().size(); ++node) run.counts.emplace_back(node, engine() % 5);
    runs.AddRun(run);
    const CountTable table = CountFunctions(runs);
    for (const FunctionIndex f : functions) {
      double inclusive = 0;
      for (const auto& [node, count] : run.counts) {
        bool on_stack = false;
        for (NodeIndex at = node; at != 0; at = runs.nodes()[at].parent) on_stack |= runs.nodes()[at].function == f;
        if (on_stack) inclusive += static_cast<double>(count);
      }
      EXPECT_EQ(table.inclusive(0, f), inclusive);
    }
  }
}

}  // namespace
}  // namespace pyrometer::regression

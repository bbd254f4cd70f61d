#include "userspace/regression/drift.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/regression/made_up_program.h"

namespace pyrometer::regression {
namespace {

// The runs of one side, each `growth` more of "scan" over all of them, and `slower` more of everything.
RunSet OneSide(double growth, double everything, uint64_t seed, size_t runs_wanted = 16) {
  const RunSet made = MadeUpProgram().Others().Stack({"main", "scan"}, 400, 400).Make(runs_wanted, seed);
  RunSet runs;
  for (FunctionIndex f = 1; f < made.functions().size(); ++f) runs.InternFunction(made.functions()[f]);
  for (NodeIndex n = 1; n < made.nodes().size(); ++n) runs.InternNode(made.nodes()[n].parent, made.nodes()[n].function);
  size_t taken = 0;
  for (Run run : made.runs()) {
    if (run.side != Side::kBaseline) continue;
    const double progress = static_cast<double>(taken++) / static_cast<double>(runs_wanted);
    for (auto& [node, count] : run.counts) {
      const bool scan = made.functions()[made.nodes()[node].function].name == "scan";
      count = static_cast<uint64_t>(static_cast<double>(count) * (scan ? 1 + growth * progress : 1));
    }
    run.facts.started_ns = static_cast<int64_t>(taken);
    run.facts.cpu_ns = static_cast<uint64_t>(1e9 * (1 + everything * progress));
    runs.AddRun(std::move(run));
  }
  return runs;
}

TEST(Drift, WhatStaysTheSameIsComparable) {
  size_t refused = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    refused += WhyDrifts(OneSide(0, 0, seed), Side::kBaseline, {.draws = 1000, .seed = seed}).empty() ? 0 : 1;
  }
  EXPECT_LE(refused, 4u);  // 2 % at most; more than 4 of 40 in 1 of 1,000 such tests
}

TEST(Drift, AFunctionThatGrowsIsNamed) {
  const std::string why = WhyDrifts(OneSide(0.8, 0, 1), Side::kBaseline, {.draws = 1000, .seed = 1});
  EXPECT_THAT(why, testing::HasSubstr("scan's part changed while the runs of the baseline were taken: by +"));
}

TEST(Drift, AMachineThatGetsSlowerIsSeen) {
  EXPECT_THAT(WhyDrifts(OneSide(0, 0.5, 2), Side::kBaseline, {.draws = 1000, .seed = 1}),
              testing::HasSubstr("the total CPU time"));
}

TEST(Drift, FewRunsSayNothing) {
  EXPECT_EQ(WhyDrifts(OneSide(0.8, 0, 3, 2), Side::kBaseline, {.draws = 1000, .seed = 1}), "");
  EXPECT_EQ(WhyDrifts(OneSide(0.8, 0, 3, 6), Side::kBaseline, {.draws = 1000, .seed = 1}), "");
}

}  // namespace
}  // namespace pyrometer::regression

#include "userspace/regression/max_t_test.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "userspace/regression/distributions.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::regression {
namespace {

Design OneBlock(size_t each) {
  Design design;
  for (const Side side : {Side::kBaseline, Side::kCandidate}) design.side.insert(design.side.end(), each, side);
  design.block.assign(2 * each, 0);
  return design;
}

Design Blocks(size_t blocks, uint64_t seed) {
  Design design;
  Random random(seed);
  for (uint32_t block = 0; block < blocks; ++block) {
    for (const Side side : DrawBlock(&random)) {
      design.side.push_back(side);
      design.block.push_back(block);
    }
  }
  return design;
}

// Student's t and Fisher's exact answer, by hand: means 1.5 and 11.5, both variances 5/3.
TEST(MaxT, OneColumnIsTheTwoSampleTest) {
  RunTable table(8, 1);
  for (size_t run = 0; run < 8; ++run) table.value(run, 0) = static_cast<double>(run % 4) + (run < 4 ? 0 : 10);
  const MaxTResult result = MaxTTest(table, OneBlock(4), {.levels = {0.05, 0.01}});
  EXPECT_TRUE(result.exact);
  EXPECT_EQ(result.arrangements, 70);
  EXPECT_EQ(result.draws, 70u);
  EXPECT_NEAR(result.columns[0].difference, 10, 1e-12);
  EXPECT_NEAR(result.columns[0].standard_error, std::sqrt(5.0 / 6), 1e-9);
  EXPECT_NEAR(result.columns[0].t, 10 / std::sqrt(5.0 / 6), 1e-8);
  EXPECT_EQ(result.columns[0].degrees, 6);
  EXPECT_NEAR(result.columns[0].p_slower, 1.0 / 70, 1e-12);
  EXPECT_EQ(result.columns[0].p_faster, 1);
  EXPECT_TRUE(std::isfinite(result.critical[0]));
  EXPECT_TRUE(std::isinf(result.critical[1])) << "one of 70 arrangements is not as rare as 1 %";
}

TEST(MaxT, AnExactAnswerDoesNotDependOnTheSeed) {
  std::mt19937_64 engine(3);
  std::normal_distribution<double> normal;
  RunTable table(12, 5);
  for (size_t run = 0; run < 12; ++run) {
    for (size_t c = 0; c < 5; ++c) table.value(run, c) = normal(engine);
  }
  const Design design = Blocks(3, 1);
  const MaxTResult a = MaxTTest(table, design, {.seed = 1}), b = MaxTTest(table, design, {.seed = 2});
  EXPECT_EQ(a.arrangements, 216);
  for (size_t c = 0; c < 5; ++c) EXPECT_EQ(a.columns[c].p_slower, b.columns[c].p_slower);
}

TEST(MaxT, DrawnAnswersRepeatFromTheirSeed) {
  RunTable table(20, 2);
  std::mt19937_64 engine(4);
  std::normal_distribution<double> normal;
  for (size_t run = 0; run < 20; ++run) {
    for (size_t c = 0; c < 2; ++c) table.value(run, c) = normal(engine);
  }
  const Design design = Blocks(5, 2);
  const MaxTResult a = MaxTTest(table, design, {.draws = 1000, .seed = 9}),
                   b = MaxTTest(table, design, {.draws = 1000, .seed = 9});
  EXPECT_FALSE(a.exact);
  EXPECT_EQ(a.columns[0].p_slower, b.columns[0].p_slower);
  EXPECT_GE(a.columns[0].p_slower, 1.0 / 1000);
}

TEST(MaxT, AdjustedValuesAreNeverBelowTheColumnsOwn) {
  std::mt19937_64 engine(5);
  std::normal_distribution<double> normal;
  const Design design = Blocks(3, 5);
  RunTable all(12, 10), alone(12, 1);
  for (size_t run = 0; run < 12; ++run) {
    for (size_t c = 0; c < 10; ++c) {
      all.value(run, c) = normal(engine) + (c == 0 && design.side[run] == Side::kCandidate ? 2.5 : 0);
    }
    alone.value(run, 0) = all.value(run, 0);
  }
  const double own = MaxTTest(alone, design, {}).columns[0].p_slower,
               adjusted = MaxTTest(all, design, {}).columns[0].p_slower;
  EXPECT_GE(adjusted, own);
  EXPECT_LE(adjusted, 10 * own + 1e-12) << "and no worse than Bonferroni's";
}

TEST(MaxT, DriftBetweenBlocksCancels) {
  std::mt19937_64 engine(6);
  std::normal_distribution<double> normal;
  const Design design = Blocks(4, 6);
  RunTable still(16, 1), drifting(16, 1);
  for (size_t run = 0; run < 16; ++run) {
    still.value(run, 0) = normal(engine);
    drifting.value(run, 0) = still.value(run, 0) + 100.0 * design.block[run];
  }
  EXPECT_NEAR(MaxTTest(still, design, {}).columns[0].t, MaxTTest(drifting, design, {}).columns[0].t, 1e-6);
}

TEST(MaxT, ConstantColumnsAreNoNews) {
  RunTable table(16, 2);
  const MaxTResult result = MaxTTest(table, Blocks(4, 1), {});
  EXPECT_EQ(result.columns[0].difference, 0);
  EXPECT_EQ(result.columns[0].p_slower, 1);
}

TEST(MaxT, DesignsThatAreNone) {
  Design design = Blocks(2, 1);
  EXPECT_TRUE(design.IsValid());
  design.side[0] = design.side[0] == Side::kBaseline ? Side::kCandidate : Side::kBaseline;
  EXPECT_FALSE(design.IsValid()) << "a block has more runs of one side";
  design = Blocks(2, 1);
  design.block = {0, 1, 0, 1, 0, 1, 0, 1};
  EXPECT_FALSE(design.IsValid()) << "runs of a block are not adjacent";
}

// The promise: heavy tails, correlated columns, unequal noise, and no more than alpha of unchanged tables has any p ≤
// alpha.
TEST(MaxT, HoldsItsLevelWhateverTheNoise) {
  constexpr size_t kChecks = 1500, kColumns = 12;
  constexpr double kAlpha = 0.05;
  std::mt19937_64 engine(7);
  std::student_t_distribution<double> heavy(2);
  size_t alarms = 0;
  for (size_t check = 0; check < kChecks; ++check) {
    const Design design = Blocks(4, check);
    RunTable table(16, kColumns);
    for (size_t run = 0; run < 16; ++run) {
      const double shared = heavy(engine);
      for (size_t c = 0; c < kColumns; ++c) {
        table.value(run, c) = (c % 2 == 0 ? shared : 0) + heavy(engine) * static_cast<double>(c + 1);
        table.prior(c) = {.variance = 1, .degrees = 4};
      }
    }
    const MaxTResult result = MaxTTest(table, design, {.draws = 400, .seed = check});
    alarms += std::any_of(result.columns.begin(), result.columns.end(),
                          [](const MaxTColumn& column) { return column.p_slower <= kAlpha; });
  }
  // 5 % would give this many alarms or more in one case of a thousand.
  EXPECT_LT(BinomialInterval(alarms, kChecks, 0.998).low, kAlpha) << alarms << " alarms";
  EXPECT_GT(alarms, 0u) << "a test that never fires has no power either";
}

}  // namespace
}  // namespace pyrometer::regression

#include "userspace/regression/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace pyrometer::regression {
namespace {

TEST(Schedule, LooksSpendAlphaAndNoMore) {
  const std::vector<Look> looks = PlanLooks(16, 0.01);
  ASSERT_EQ(looks.size(), 3u);
  EXPECT_EQ(looks[0].pairs, 8u);
  EXPECT_EQ(looks[1].pairs, 12u);
  EXPECT_EQ(looks[2].pairs, 16u);
  EXPECT_NEAR(looks[0].level, 0.002, 1e-12);
  EXPECT_NEAR(looks[1].level, 0.003, 1e-12);
  EXPECT_NEAR(looks[2].level, 0.005, 1e-12);
  for (size_t pairs = 1; pairs <= 100; ++pairs) {
    double sum = 0;
    for (const Look& look : PlanLooks(pairs, 0.01)) sum += look.level;
    EXPECT_LE(sum, 0.01 + 1e-12) << pairs;
  }
}

TEST(Schedule, AFewPairsHaveFewerLooksOrNone) {
  EXPECT_THAT(PlanLooks(4, 0.01), testing::IsEmpty()) << "36 arrangements";
  ASSERT_THAT(PlanLooks(6, 0.01), testing::SizeIs(1));
  EXPECT_NEAR(PlanLooks(6, 0.01)[0].level, 0.01, 1e-12);
  EXPECT_EQ(PlanLooks(7, 0.01).back().pairs, 8u) << "whole blocks";
}

TEST(Schedule, OrdersOfABlockAreEquallyLikely) {
  Random random(1);
  std::map<std::vector<Side>, int> seen;
  constexpr int kDraws = 6000;
  for (int i = 0; i < kDraws; ++i) {
    const std::vector<Side> order = DrawBlock(&random);
    ASSERT_EQ(std::count(order.begin(), order.end(), Side::kCandidate), 2);
    ++seen[order];
  }
  ASSERT_EQ(seen.size(), 6u);
  for (const auto& [order, count] : seen) EXPECT_NEAR(count, kDraws / 6, 130) << "4.5 standard deviations";
}

}  // namespace
}  // namespace pyrometer::regression

#include "userspace/regression/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "userspace/regression/change_points.h"

namespace pyrometer::regression {
namespace {

using testing::IsEmpty;

RunTable Noise(size_t points, size_t columns, uint64_t seed, const std::function<double(size_t, size_t)>& shift) {
  RunTable table(points, columns);
  std::mt19937_64 engine(seed);
  for (size_t i = 0; i < points; ++i) {
    for (size_t c = 0; c < columns; ++c) {
      table.value(i, c) = 0.02 * std::normal_distribution<double>()(engine) + shift(i, c);
    }
  }
  return table;
}

TEST(ChangePoints, FindsAStep) {
  const RunTable table = Noise(30, 20, 1, [](size_t i, size_t c) { return c == 7 && i >= 18 ? 0.15 : 0.0; });
  const std::vector<ChangePoint> found = FindChangePoints(table, {});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].column, 7u);
  EXPECT_EQ(found[0].at, 18u);
  EXPECT_NEAR(found[0].difference, 0.15, 0.03);
  EXPECT_LE(found[0].p, 0.01);
}

TEST(ChangePoints, FindsTwoStepsUpAndDown) {
  const RunTable table = Noise(40, 5, 2, [](size_t i, size_t c) { return c == 1 && i >= 12 && i < 26 ? 0.2 : 0.0; });
  const std::vector<ChangePoint> found = FindChangePoints(table, {});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].at, 12u);
  EXPECT_EQ(found[1].at, 26u);
  EXPECT_GT(found[0].difference, 0);
  EXPECT_LT(found[1].difference, 0);
}

TEST(ChangePoints, SingleSpikesAreNone) {
  for (const size_t spike : {0u, 1u, 11u, 22u, 28u, 29u}) {
    const RunTable table = Noise(30, 3, 3, [&](size_t i, size_t c) { return c == 0 && i == spike ? 2.0 : 0.0; });
    EXPECT_THAT(FindChangePoints(table, {}), IsEmpty()) << spike;
  }
  // Nor is one beside the end of a part that holds a real step.
  const RunTable table =
      Noise(30, 3, 4, [](size_t i, size_t c) { return c != 0 ? 0.0 : (i >= 15 ? 0.3 : 0.0) + (i == 5 ? 1.0 : 0.0); });
  const std::vector<ChangePoint> found = FindChangePoints(table, {});
  EXPECT_LE(found.size(), 1u);
}

TEST(ChangePoints, TwoSlowPointsAtTheEndAreTooFew) {
  const RunTable table = Noise(30, 3, 5, [](size_t i, size_t c) { return c == 0 && i >= 28 ? 0.5 : 0.0; });
  EXPECT_THAT(FindChangePoints(table, {}), IsEmpty());
  // Three stay.
  const RunTable three = Noise(30, 3, 5, [](size_t i, size_t c) { return c == 0 && i >= 27 ? 0.5 : 0.0; });
  ASSERT_EQ(FindChangePoints(three, {}).size(), 1u);
  EXPECT_EQ(FindChangePoints(three, {})[0].at, 27u);
}

TEST(ChangePoints, UnchangedHistoriesHaveNone) {
  // 1 % of them may; 200 hold no more than 7 with 99.8 %.
  size_t alarms = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const RunTable table = Noise(20, 30, 1000 + seed, [](size_t, size_t) { return 0.0; });
    alarms += FindChangePoints(table, {.draws = 500, .seed = seed}).empty() ? 0 : 1;
  }
  EXPECT_LE(alarms, 7u);
}

TEST(ChangePoints, FewPointsCannotShowAnything) {
  for (size_t points = 1; points < 9; ++points) {
    const RunTable table = Noise(points, 2, 6, [&](size_t i, size_t) { return i >= points / 2 ? 5.0 : 0.0; });
    EXPECT_THAT(FindChangePoints(table, {}), IsEmpty()) << points;
  }

  RunTable constant(20, 1);
  EXPECT_THAT(FindChangePoints(constant, {}), IsEmpty());
}

// Versions with two runs each of a program whose functions take what `share` says.
History Made(size_t versions, uint64_t seed, const std::function<double(size_t version, size_t function)>& mean,
             RunSet* runs) {
  std::mt19937_64 engine(seed);
  std::vector<uint32_t> version_of_run;
  std::vector<std::string> names;
  for (size_t v = 0; v < versions; ++v) {
    names.push_back("v" + std::to_string(v));
    for (int i = 0; i < 2; ++i) {
      const double speed = std::exp(0.05 * std::normal_distribution<double>()(engine));
      Run run;
      for (size_t f = 0; f < 30; ++f) {
        const double expected = mean(v, f) * speed;
        const uint64_t count = expected > 0 ? std::poisson_distribution<uint64_t>(expected)(engine) : 0;
        const NodeIndex node =
            runs->InternNode(0, runs->InternFunction({.name = "f" + std::to_string(f), .module = "app"}));
        if (count > 0) run.counts.emplace_back(node, count);
      }
      run.facts.samples = run.SampleTotal();
      run.facts.cpu_ns = run.facts.samples * 500'000;
      version_of_run.push_back(static_cast<uint32_t>(v));
      runs->AddRun(std::move(run));
    }
  }
  return FindHistory(*runs, version_of_run, names, {});
}

TEST(History, NamesFunctionAndVersion) {
  RunSet runs;
  const History history = Made(
      24, 1, [](size_t v, size_t f) { return f == 3 && v >= 15 ? 400.0 : 200.0; }, &runs);
  ASSERT_GE(history.changes.size(), 1u);
  const HistoryChange& change = history.changes[0];
  EXPECT_EQ(runs.functions()[change.function].name, "f3");
  EXPECT_EQ(history.versions[change.version], "v15");
  EXPECT_NEAR(change.ratio, 2, 0.2);
  EXPECT_NEAR(change.share_after - change.share_before, 1.0 / 30, 0.01);
  EXPECT_TRUE(change.standing);
  EXPECT_TRUE(history.HasStandingRegression());
}

TEST(History, WhatWasMendedIsNoRegression) {
  RunSet runs;
  const History history = Made(
      36, 2, [](size_t v, size_t f) { return f == 3 && v >= 12 && v < 24 ? 400.0 : 200.0; }, &runs);
  ASSERT_EQ(history.changes.size(), 2u);
  EXPECT_EQ(history.versions[history.changes[0].version], "v24");
  EXPECT_LT(history.changes[0].ratio, 1);
  EXPECT_FALSE(history.changes[1].standing);
  EXPECT_FALSE(history.HasStandingRegression());
}

TEST(History, ARenameIsMoved) {
  RunSet runs;
  const History history = Made(
      24, 3,
      [](size_t v, size_t f) {
        if (f == 3) return v >= 15 ? 0.0 : 200.0;
        if (f == 4) return v >= 15 ? 200.0 : 0.0;
        return 200.0;
      },
      &runs);
  ASSERT_EQ(history.changes.size(), 2u);
  EXPECT_FALSE(history.HasStandingRegression());
  for (const HistoryChange& change : history.changes) {
    if (runs.functions()[change.function].name != "f4") continue;
    ASSERT_EQ(change.moved_from.size(), 1u);
    EXPECT_EQ(runs.functions()[change.moved_from[0]].name, "f3");
  }
}

TEST(History, OneSlowVersionIsNothing) {
  RunSet runs;
  const History history = Made(
      24, 4, [](size_t v, size_t f) { return f == 3 && v == 15 ? 900.0 : 200.0; }, &runs);
  EXPECT_THAT(history.changes, IsEmpty());
}

}  // namespace
}  // namespace pyrometer::regression

#include "userspace/base/clock.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace pyrometer {
namespace {

TEST(ParseDuration, ReadsEveryUnit) {
  EXPECT_EQ(*ParseDuration("90"), 90 * kNsPerSecond);
  EXPECT_EQ(*ParseDuration("10s"), 10 * kNsPerSecond);
  EXPECT_EQ(*ParseDuration("1.5m"), 90 * kNsPerSecond);
  EXPECT_EQ(*ParseDuration("2h"), 7200 * kNsPerSecond);
  EXPECT_EQ(*ParseDuration("7d"), 7 * 86400 * kNsPerSecond);
  EXPECT_EQ(*ParseDuration("250ms"), 250 * kNsPerMs);
  EXPECT_EQ(*ParseDuration("3us"), 3000u);
}

TEST(ParseDuration, RefusesEverythingElseAndSaysHowToWriteIt) {
  for (const char* bad : {"", "s", "ten", "-5s", "5 parsecs", "1e300s", "nan", "10s5"}) {
    const auto parsed = ParseDuration(bad);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_NE(Message(parsed.status()).find("10s"), std::string_view::npos);
  }
}

TEST(ParseTime, ReadsAbsoluteAndRelativeTimes) {
  const int64_t now = 1'764'000'000 * static_cast<int64_t>(kNsPerSecond);
  const int64_t second = static_cast<int64_t>(kNsPerSecond);
  EXPECT_EQ(*ParseTime("now", now), now);
  EXPECT_EQ(*ParseTime("-15m", now), now - 900 * second);
  EXPECT_EQ(*ParseTime("15m", now), now - 900 * second);
  EXPECT_EQ(*ParseTime("1764000000", now), now);
  EXPECT_EQ(*ParseTime("1764000000000", now), now);
  EXPECT_EQ(*ParseTime("2025-11-24T16:00:00Z", now), now);
  EXPECT_FALSE(ParseTime("yesterday", now).ok());
}

TEST(Clock, OffsetTurnsMonotonicIntoUnixTime) {
  const int64_t converted = static_cast<int64_t>(MonotonicNowNs()) + MonotonicToUnixOffsetNs();
  EXPECT_LT(std::abs(converted - UnixNowNs()), 1'000 * static_cast<int64_t>(kNsPerMs));
}

}  // namespace
}  // namespace pyrometer

#include "userspace/profile/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace pyrometer::profile {
namespace {

static_assert(BucketIndex(0) == 0);
static_assert(BucketIndex(15) == 15);
static_assert(BucketIndex(16) == 16);
static_assert(BucketIndex(31) == 31);
static_assert(BucketIndex(32) == 32);
static_assert(BucketIndex(UINT64_MAX) == kHistogramBuckets - 1);

TEST(Buckets, AreContiguousAndNarrow) {
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) {
    const uint64_t low = BucketLowerBound(i);
    const uint64_t high = BucketUpperBound(i);
    ASSERT_EQ(BucketIndex(low), i);
    ASSERT_EQ(BucketIndex(high), i);
    if (i > 0) {
      ASSERT_EQ(BucketUpperBound(i - 1) + 1, low);
    }
    // Width at most 1/16 of the lower bound: the stated relative error.
    if (low >= 16) {
      ASSERT_LE(high - low + 1, low / 16);
    }
  }
}

TEST(Histogram, QuantilesStayWithinOneBucketOfTheTruth) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(12, 2);
  std::vector<uint64_t> values(20'000);
  Histogram histogram;
  for (uint64_t& value : values) {
    value = static_cast<uint64_t>(latency(random));
    histogram.Record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double q : {0.0, 0.01, 0.5, 0.95, 0.99, 1.0}) {
    const size_t rank = std::max<size_t>(1, static_cast<size_t>(std::ceil(q * static_cast<double>(values.size()))));
    EXPECT_EQ(BucketIndex(histogram.Quantile(q)), BucketIndex(values[rank - 1])) << q;
  }
}

TEST(Histogram, MergeIsExact) {
  Histogram a, b, all;
  for (uint64_t v = 0; v < 5'000; v += 3) a.Record(v), all.Record(v);
  for (uint64_t v = 1; v < 90'000; v += 7) b.Record(v, 2), all.Record(v, 2);
  a.Merge(b);
  EXPECT_EQ(a, all);
}

TEST(Histogram, RefusesBucketsThatDoNotExist) {
  Histogram histogram;
  EXPECT_FALSE(histogram.AddBucket(kHistogramBuckets, 1));
  EXPECT_TRUE(histogram.empty());
  EXPECT_EQ(histogram.Quantile(0.5), 0u);
}

}  // namespace
}  // namespace pyrometer::profile

// Quantiles and octaves of windows.
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "bpf/lib/histogram.h"
#include "userspace/kernel/latency_histogram.h"
#include "userspace/kernel/octave_reader.h"

namespace pyrometer::kernel {
namespace {

LatencyHistogram Of(const std::vector<uint64_t>& values) {
  std::map<uint32_t, OctaveDelta> octaves;
  for (const uint64_t v : values) {
    uint32_t octave, sub;
    pyro_bucket(v, &octave, &sub);
    octaves[octave].counts[sub]++;
    octaves[octave].sum += v;
    octaves[octave].max = std::max(octaves[octave].max, v);
  }
  LatencyHistogram h;
  for (const auto& [octave, delta] : octaves) AppendOctave(octave, delta, h);
  return h;
}

TEST(LatencyHistogram, EmptyHasNoQuantile) {
  EXPECT_TRUE(LatencyHistogram().empty());
  EXPECT_EQ(LatencyHistogram().Quantile(0.99), 0u);
}

TEST(LatencyHistogram, QuantilesAreWithinABucketOfTheTruth) {
  std::vector<uint64_t> values;
  for (uint64_t i = 1; i <= 1000; ++i) values.push_back(i * 1000);
  const LatencyHistogram h = Of(values);
  EXPECT_EQ(h.count, 1000u);
  EXPECT_EQ(h.sum_ns, 500500u * 1000);
  EXPECT_EQ(h.max_ns, 1000000u);
  for (const double q : {0.01, 0.5, 0.95, 0.99, 1.0}) {
    const double truth = std::max(1.0, q * 1000) * 1000;
    EXPECT_LE(static_cast<double>(h.Quantile(q)), truth);
    EXPECT_GE(static_cast<double>(h.Quantile(q)), truth * 15 / 16) << q;
  }
  EXPECT_EQ(h.Quantile(-1), h.Quantile(0));
  EXPECT_EQ(h.Quantile(2), h.Quantile(1));
}

TEST(LatencyHistogram, AscendingBucketsWithoutZeros) {
  const LatencyHistogram h = Of({5, 5, 17, 1000, 1ull << 41});
  uint64_t count = 0;
  for (size_t i = 0; i < h.buckets.size(); ++i) {
    EXPECT_GT(h.buckets[i].count, 0u);
    EXPECT_TRUE(i == 0 || h.buckets[i].index > h.buckets[i - 1].index);
    count += h.buckets[i].count;
  }
  EXPECT_EQ(count, h.count);
}

TEST(LatencyHistogram, MaximumOverwrittenByANewWindowFallsBackToItsBucket) {
  OctaveDelta delta;
  delta.counts[3] = 1;  // octave 21: 20 ms
  delta.sum = 20'000'000;
  LatencyHistogram h;
  AppendOctave(21, delta, h);
  EXPECT_EQ(h.max_ns, pyro_bucket_low(21 * 16 + 3));
}

}  // namespace
}  // namespace pyrometer::kernel

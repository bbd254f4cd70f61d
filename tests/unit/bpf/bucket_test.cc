// The bucket function, against its definition and at every edge.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <random>

#include "bpf/lib/histogram.h"

namespace {

// The definition, as userspace/profile/histogram.h has it.
uint32_t Reference(uint64_t v) {
  if (v < 16) return static_cast<uint32_t>(v);
  const int msb = 63 - std::countl_zero(v);
  return 16 + static_cast<uint32_t>(msb - 4) * 16 + static_cast<uint32_t>((v >> (msb - 4)) & 15);
}

TEST(Bucket, AgreesWithItsDefinition) {
  for (uint64_t v = 0; v < 100000; ++v) ASSERT_EQ(pyro_bucket_index(v), Reference(v)) << v;
  std::mt19937_64 random(1);
  for (int i = 0; i < 100000; ++i) {
    const uint64_t v = random() >> (random() % 64);
    ASSERT_EQ(pyro_bucket_index(v), Reference(v)) << v;
  }
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t v = uint64_t{1} << bit;
    ASSERT_EQ(pyro_msb(v), static_cast<uint32_t>(bit));
    ASSERT_EQ(pyro_bucket_index(v), Reference(v));
    ASSERT_EQ(pyro_bucket_index(v - 1), Reference(v - 1));
    ASSERT_EQ(pyro_bucket_index(v + 1), Reference(v + 1));
  }
  EXPECT_EQ(pyro_bucket_index(UINT64_MAX), 975u);
}

TEST(Bucket, LatencyClampFitsTheOctavesReserved) {
  EXPECT_EQ(pyro_bucket_index(PYRO_MAX_LATENCY_NS), PYRO_LATENCY_BUCKETS - 1);
  EXPECT_EQ(PYRO_LATENCY_OCTAVES * PYRO_SUB_BUCKETS, PYRO_LATENCY_BUCKETS);
}

TEST(Bucket, LowEdgesAreTheSmallestValues) {
  EXPECT_EQ(pyro_bucket_low(0), 0u);
  for (uint32_t index = 1; index < 976; ++index) {
    const uint64_t low = pyro_bucket_low(index);
    ASSERT_EQ(pyro_bucket_index(low), index);
    ASSERT_EQ(pyro_bucket_index(low - 1), index - 1);
  }
}

TEST(Bucket, NoWiderThanASixteenth) {
  for (uint32_t index = 16; index < 975; ++index) {
    const uint64_t low = pyro_bucket_low(index), width = pyro_bucket_low(index + 1) - low;
    ASSERT_LE(width * 16, low) << index;
  }
}

TEST(Bucket, OctaveAndPlaceMakeTheIndex) {
  for (uint64_t v : {0ull, 15ull, 16ull, 31ull, 32ull, 1000ull, 20000000ull, PYRO_MAX_LATENCY_NS}) {
    uint32_t octave = 99, sub = 99;
    pyro_bucket(v, &octave, &sub);
    EXPECT_LT(sub, 16u);
    EXPECT_LT(octave, static_cast<uint32_t>(PYRO_LATENCY_OCTAVES));
    EXPECT_EQ(octave * 16 + sub, pyro_bucket_index(v));
  }
}

}  // namespace

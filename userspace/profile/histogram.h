// Log-linear histograms of durations (nanoseconds) and other non-negative integers.
//
//   Histogram h;
//   h.Record(20'000'000);
//   h.Merge(other);                      // exact: bucket counts add
//   uint64_t p99 = h.Quantile(0.99);     // within 1/16 of the true order statistic
//
// Buckets: values below 16 have a bucket each; above, every power of two is cut into 16 equal
// parts, so a bucket is at most 1/16 of its lower bound wide. The kernel side uses the very same
// function (bpf/lib), so counts travel as (index, count) pairs and are never re-bucketed.
// Shape: HdrHistogram (G. Tene) with 4 significant bits.
//
// Threads: none shared. Cost: 976 possible buckets; only non-empty ones are stored (12 bytes).
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace pyrometer::profile {

inline constexpr int kHistogramSubBucketBits = 4;
inline constexpr uint32_t kHistogramSubBuckets = 1u << kHistogramSubBucketBits;
// msb 4…63, 16 sub-buckets each, after the 16 exact ones.
inline constexpr uint32_t kHistogramBuckets = kHistogramSubBuckets + 60 * kHistogramSubBuckets;

constexpr uint32_t BucketIndex(uint64_t value) {
  if (value < kHistogramSubBuckets) return static_cast<uint32_t>(value);
  const int msb = 63 - std::countl_zero(value);
  const int shift = msb - kHistogramSubBucketBits;
  return kHistogramSubBuckets + static_cast<uint32_t>(shift) * kHistogramSubBuckets +
         static_cast<uint32_t>((value >> shift) & (kHistogramSubBuckets - 1));
}

// Smallest value of bucket `index`; precondition: index < kHistogramBuckets.
constexpr uint64_t BucketLowerBound(uint32_t index) {
  if (index < kHistogramSubBuckets) return index;
  const uint32_t shift = (index - kHistogramSubBuckets) / kHistogramSubBuckets;
  const uint64_t sub = (index - kHistogramSubBuckets) % kHistogramSubBuckets;
  return (kHistogramSubBuckets + sub) << shift;
}

// Largest value of bucket `index` (inclusive).
constexpr uint64_t BucketUpperBound(uint32_t index) {
  return index + 1 >= kHistogramBuckets ? UINT64_MAX : BucketLowerBound(index + 1) - 1;
}

class Histogram {
 public:
  struct Bucket {
    uint32_t index;
    uint64_t count;
    bool operator==(const Bucket&) const = default;
  };

  void Record(uint64_t value, uint64_t count = 1);
  // Adds `count` observations to a bucket whose exact values are not known (kernel-side counts).
  // Sum, min and max are then set by AddSum/ObserveExtremes. Out-of-range indices are ignored and
  // return false.
  bool AddBucket(uint32_t index, uint64_t count);
  void AddSum(uint64_t sum) { sum_ += sum; }
  void ObserveMax(uint64_t max);
  void Merge(const Histogram& other);

  uint64_t count() const { return count_; }
  uint64_t sum() const { return sum_; }
  // 0 when unknown or empty.
  uint64_t max() const { return max_; }
  // Sorted by index, no zero counts.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  bool empty() const { return count_ == 0; }

  // The middle of the bucket that holds the q-quantile (nearest rank), never above max(); 0 when
  // empty. `q` is clamped to [0, 1].
  uint64_t Quantile(double q) const;
  double Mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }

  bool operator==(const Histogram&) const = default;

 private:
  std::vector<Bucket> buckets_;
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t max_ = 0;
};

}  // namespace pyrometer::profile

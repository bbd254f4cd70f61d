#include "userspace/profile/histogram.h"

#include <algorithm>
#include <cmath>

namespace pyrometer::profile {

bool Histogram::AddBucket(uint32_t index, uint64_t count) {
  if (index >= kHistogramBuckets) return false;
  if (count == 0) return true;
  const auto position = std::lower_bound(buckets_.begin(), buckets_.end(), index,
                                         [](const Bucket& bucket, uint32_t i) { return bucket.index < i; });
  if (position != buckets_.end() && position->index == index) {
    position->count += count;
  } else {
    buckets_.insert(position, Bucket{index, count});
  }
  count_ += count;
  return true;
}

void Histogram::Record(uint64_t value, uint64_t count) {
  AddBucket(BucketIndex(value), count);
  sum_ += value * count;
  if (count > 0) ObserveMax(value);
}

void Histogram::ObserveMax(uint64_t max) { max_ = std::max(max_, max); }

void Histogram::Merge(const Histogram& other) {
  std::vector<Bucket> merged;
  merged.reserve(buckets_.size() + other.buckets_.size());
  auto a = buckets_.begin();
  auto b = other.buckets_.begin();
  while (a != buckets_.end() || b != other.buckets_.end()) {
    if (b == other.buckets_.end() || (a != buckets_.end() && a->index < b->index)) {
      merged.push_back(*a++);
    } else if (a == buckets_.end() || b->index < a->index) {
      merged.push_back(*b++);
    } else {
      merged.push_back({a->index, a->count + b->count});
      ++a;
      ++b;
    }
  }
  buckets_ = std::move(merged);
  count_ += other.count_;
  sum_ += other.sum_;
  ObserveMax(other.max_);
}

uint64_t Histogram::Quantile(double q) const {
  if (count_ == 0) return 0;
  const double clamped = std::clamp(q, 0.0, 1.0);
  const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(clamped * static_cast<double>(count_))));
  uint64_t seen = 0;
  for (const Bucket& bucket : buckets_) {
    seen += bucket.count;
    if (seen < rank) continue;
    const uint64_t low = BucketLowerBound(bucket.index);
    const uint64_t middle = low + (BucketUpperBound(bucket.index) - low) / 2;
    return max_ == 0 ? middle : std::min(middle, max_);
  }
  return max_;
}

}  // namespace pyrometer::profile

#include "userspace/kernel/latency_histogram.h"

#include <algorithm>
#include <cmath>

#include "bpf/lib/histogram.h"

namespace pyrometer::kernel {

uint64_t LatencyHistogram::Quantile(double q) const {
  if (count == 0) return 0;
  const double clamped = std::clamp(q, 0.0, 1.0);
  // The order statistic: the smallest value with at least q × count values at or below it.
  const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(clamped * static_cast<double>(count))));
  uint64_t seen = 0;
  for (const Bucket& bucket : buckets) {
    seen += bucket.count;
    if (seen >= rank) return pyro_bucket_low(bucket.index);
  }
  return buckets.empty() ? 0 : pyro_bucket_low(buckets.back().index);
}

}  // namespace pyrometer::kernel

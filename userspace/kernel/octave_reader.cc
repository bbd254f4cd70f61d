#include "userspace/kernel/octave_reader.h"

#include <algorithm>

#include "bpf/lib/histogram.h"

namespace pyrometer::kernel {

void AppendOctave(uint32_t octave, const OctaveDelta& delta, LatencyHistogram& histogram) {
  for (uint32_t i = 0; i < PYRO_SUB_BUCKETS; ++i) {
    if (delta.counts[i] == 0) continue;
    const uint32_t index = octave * PYRO_SUB_BUCKETS + i;
    histogram.buckets.push_back({.index = index, .count = delta.counts[i]});
    histogram.count += delta.counts[i];
    histogram.max_ns = std::max<uint64_t>(histogram.max_ns, pyro_bucket_low(index));
  }
  histogram.sum_ns += delta.sum;
  histogram.max_ns = std::max(histogram.max_ns, delta.max);
}

}  // namespace pyrometer::kernel

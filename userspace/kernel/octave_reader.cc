#include "userspace/kernel/octave_reader.h"

#include <algorithm>

#include "bpf/lib/histogram.h"

namespace pyrometer::kernel {

bool OctaveSeen::Advance(const pyro_octave* values, size_t cpus, uint32_t closing_epoch, OctaveDelta& delta) {
  pyro_octave total{};
  for (size_t cpu = 0; cpu < cpus; ++cpu) {
    for (size_t i = 0; i < PYRO_SUB_BUCKETS; ++i) total.counts[i] += values[cpu].counts[i];
    total.sum += values[cpu].sum;
    if (values[cpu].max_epoch == closing_epoch && values[cpu].max > delta.max) delta.max = values[cpu].max;
  }
  bool changed = false;
  for (size_t i = 0; i < PYRO_SUB_BUCKETS; ++i) {
    delta.counts[i] = total.counts[i] - counts_[i];
    counts_[i] = total.counts[i];
    changed = changed || delta.counts[i] != 0;
  }
  // A value caught between the probe's two additions: its sum goes with its count, into the next Read at the latest.
  if (!changed) return false;
  delta.sum = total.sum - sum_;
  sum_ = total.sum;
  return true;
}

void MergeOctave(const OctaveDelta& more, OctaveDelta& delta) {
  for (size_t i = 0; i < PYRO_SUB_BUCKETS; ++i) delta.counts[i] += more.counts[i];
  delta.sum += more.sum;
  delta.max = std::max(delta.max, more.max);
}

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

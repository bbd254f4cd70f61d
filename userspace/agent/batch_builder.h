// Adds series and points to a batch, each series once, and turns the kernel room's histograms into ours. Internal to
// agent/.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "userspace/kernel/latency_histogram.h"
#include "userspace/profile/batch.h"

namespace pyrometer::agent {

// Turns maps of kernel histograms into ours; equal bucket functions (profile/histogram.h).
inline profile::Histogram FromKernel(const kernel::LatencyHistogram& latency) {
  profile::Histogram histogram;
  for (const auto& bucket : latency.buckets) histogram.AddBucket(bucket.index, bucket.count);
  histogram.AddSum(latency.sum_ns);
  histogram.ObserveMax(latency.max_ns);
  return histogram;
}

// Adds series to a batch, each once.
class BatchBuilder {
 public:
  explicit BatchBuilder(profile::Batch* batch) : batch_(*batch) {
    for (size_t i = 0; i < batch_.series.size(); ++i) ids_[batch_.series[i]] = static_cast<uint32_t>(i);
  }
  uint32_t Series(std::string_view type, profile::LabelSet labels) {
    profile::SeriesKey key{std::string(type), std::move(labels)};
    const auto [entry, added] = ids_.try_emplace(key, static_cast<uint32_t>(batch_.series.size()));
    if (added) batch_.series.push_back(std::move(key));
    return entry->second;
  }
  void Counter(std::string_view type, profile::LabelSet labels, int64_t time_ns, uint64_t duration_ns, uint64_t value) {
    if (value == 0) return;
    batch_.counters.push_back({Series(type, std::move(labels)), time_ns, duration_ns, value});
  }

 private:
  profile::Batch& batch_;
  std::map<profile::SeriesKey, uint32_t> ids_;
};

}  // namespace pyrometer::agent

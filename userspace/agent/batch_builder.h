// Adds series and points to a batch, each series and each histogram of a window once, and turns the kernel room's
// histograms into ours. Internal to agent/.
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

// While one is in use, nothing else adds series or histograms to its batch.
class BatchBuilder {
 public:
  explicit BatchBuilder(profile::Batch* batch) : batch_(*batch) {
    for (size_t i = 0; i < batch_.series.size(); ++i) ids_[batch_.series[i]] = static_cast<uint32_t>(i);
    for (size_t i = 0; i < batch_.histograms.size(); ++i) {
      histograms_[{batch_.histograms[i].series, batch_.histograms[i].time_ns}] = i;
    }
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
  // The point of that series and window, made where there is none yet: sums whose keys differ only in what labels do
  // not show (the v1 cgroup id), and single calls, share one. Valid until the next call.
  profile::HistogramPoint& Histogram(std::string_view type, profile::LabelSet labels, int64_t time_ns,
                                     uint64_t duration_ns) {
    const uint32_t series = Series(type, std::move(labels));
    const auto [entry, added] = histograms_.try_emplace({series, time_ns}, batch_.histograms.size());
    if (added) {
      profile::HistogramPoint& point = batch_.histograms.emplace_back();
      point.series = series;
      point.time_ns = time_ns;
      point.duration_ns = duration_ns;
    }
    return batch_.histograms[entry->second];
  }

 private:
  profile::Batch& batch_;
  std::map<profile::SeriesKey, uint32_t> ids_;
  std::map<std::pair<uint32_t, int64_t>, size_t> histograms_;  // (series, start) -> its place
};

}  // namespace pyrometer::agent

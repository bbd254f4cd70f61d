// What agents send about durations, added up for /metrics: running totals per container or service since the start of
// this store, so that Prometheus and its like can compute rates, quantiles and alerts of their own.
//
//   LatencyTotals totals;
//   totals.Add(batch);            // once per batch that the store took
//   body += totals.Text();        // Prometheus text, exposition format 0.0.4
//
// Histograms have classic buckets at 2^10, 2^12, … 2^34 ns (1 µs to 17 s). Those are edges of the log-linear buckets
// that agents send, so nothing is spread or guessed; a value of exactly an edge counts in the bucket above it.
//
// Labels: node, container, pod, namespace, service, where there are such, and cause or direction; tenant where it is
// not the default one. Not by call nor by peer: ask the API for those. At most kMaxSeries; what finds no room is
// counted under service="[folded]".
//
// Threads: any. Cost: one look-up per point of a batch under a mutex; 200 bytes per series.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "userspace/profile/batch.h"

namespace pyrometer::server {

class LatencyTotals {
 public:
  static constexpr size_t kMaxSeries = 10'000;

  explicit LatencyTotals(size_t max_series = kMaxSeries) : max_series_(max_series) {}

  void Add(const profile::BatchView& batch);
  std::string Text() const;

 private:
  static constexpr int kFirstEdgeBit = 10;
  static constexpr int kEdgeBits = 2;
  static constexpr size_t kEdges = 13;

  struct Total {
    uint64_t value = 0;  // of a counter; of a histogram, the sum
    uint64_t count = 0;
    std::array<uint64_t, kEdges> buckets{};  // not cumulative; what is beyond the last edge is only in `count`
  };

  // The total of a series of family `family`.
  Total& At(size_t family, std::string_view tenant, const profile::LabelSet& labels);

  const size_t max_series_;
  mutable std::mutex mutex_;
  size_t series_ = 0;
  std::map<size_t, std::map<profile::LabelSet, Total>> totals_;  // by index into the families (latency_totals.cc)
};

}  // namespace pyrometer::server

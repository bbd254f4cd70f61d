#include "userspace/server/latency_totals.h"

#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

enum class Kind { kHistogramNs, kCounterNs, kCounter };

struct Family {
  std::string_view type;  // of the profile
  std::string_view name;
  Kind kind;
  std::string_view label;  // beside the owner's; "" = none
  std::string_view help;
};

constexpr Family kFamilies[] = {
    {profile::kTypeSyscallLatency, "pyrometer_syscall_seconds", Kind::kHistogramNs, "", "Duration of system calls."},
    {profile::kTypeSyscallTime, "pyrometer_syscall_time_seconds_total", Kind::kCounterNs, profile::kLabelCause,
     "Time in system calls: running, or waiting by cause."},
    {profile::kTypeWaitTime, "pyrometer_wait_seconds_total", Kind::kCounterNs, profile::kLabelCause,
     "Time that threads waited, by cause."},
    {profile::kTypeWaits, "pyrometer_waits_total", Kind::kCounter, profile::kLabelCause, "Waits, by cause."},
    {profile::kTypeRunQueue, "pyrometer_run_queue_seconds", Kind::kHistogramNs, "",
     "Time that ready threads waited for a processor."},
    {profile::kTypeTcpRtt, "pyrometer_tcp_rtt_seconds", Kind::kHistogramNs, profile::kLabelDirection,
     "Round-trip time of TCP connections, smoothed by the kernel."},
    {profile::kTypeTcpConnect, "pyrometer_tcp_connect_seconds", Kind::kHistogramNs, "", "Duration of TCP handshakes."},
    {profile::kTypeTcpRetransmits, "pyrometer_tcp_retransmitted_segments_total", Kind::kCounter, profile::kLabelCause,
     "TCP segments sent again, by cause."},
    {profile::kTypeTcpResets, "pyrometer_tcp_resets_total", Kind::kCounter, profile::kLabelCause,
     "TCP resets, sent and received."},
    {profile::kTypeTcpZeroWindows, "pyrometer_tcp_zero_windows_total", Kind::kCounter, profile::kLabelCause,
     "Times that a TCP receive window closed: ours (sent), the peer's (received)."},
    {profile::kTypeTcpLimited, "pyrometer_tcp_limited_seconds_total", Kind::kCounterNs, profile::kLabelCause,
     "Time of TCP connections, by what kept them from sending more."},
    {profile::kTypeTcpConnections, "pyrometer_tcp_connections_total", Kind::kCounter, profile::kLabelDirection,
     "TCP connections opened."},
    {profile::kTypeTcpConnectFailures, "pyrometer_tcp_connect_failures_total", Kind::kCounter, "",
     "TCP connections that were never established."},
    {profile::kTypeTcpBytesSent, "pyrometer_tcp_sent_bytes_total", Kind::kCounter, "", "Bytes sent over TCP."},
    {profile::kTypeTcpBytesReceived, "pyrometer_tcp_received_bytes_total", Kind::kCounter, "",
     "Bytes received over TCP."},
};

// Index of the family of a type; its size when there is none.
size_t FamilyOf(std::string_view type) {
  size_t i = 0;
  while (i < std::size(kFamilies) && kFamilies[i].type != type) ++i;
  return i;
}

double Seconds(uint64_t ns) { return static_cast<double>(ns) / static_cast<double>(kNsPerSecond); }

// {a="b"} -> {a="b",le="…"}
std::string WithEdge(const std::string& labels, std::string_view edge) {
  const std::string_view inner = labels.size() > 2 ? std::string_view(labels).substr(1, labels.size() - 2) : "";
  return StrFormat("{%s%sle=\"%s\"}", inner, inner.empty() ? "" : ",", edge);
}

}  // namespace

LatencyTotals::Total& LatencyTotals::At(size_t family, std::string_view tenant, const profile::LabelSet& labels) {
  std::vector<profile::Label> kept;
  const auto keep = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) kept.push_back({std::string(name), std::string(value)});
  };
  keep("tenant", tenant);
  keep("node", labels.Get(profile::kLabelNode));
  keep("container", labels.Get(profile::kLabelContainerName));
  keep("pod", labels.Get(profile::kLabelPod));
  keep("namespace", labels.Get(profile::kLabelNamespace));
  keep("service", labels.Get(profile::kLabelService));
  const std::string_view extra = kFamilies[family].label;
  if (!extra.empty()) keep(extra, labels.Get(extra));
  auto& of_family = totals_[family];
  const profile::LabelSet key = profile::LabelSet::MakeLenient(std::move(kept));
  const auto found = of_family.find(key);
  if (found != of_family.end()) return found->second;
  if (series_ >= max_series_) {  // one more per family and cause at most
    profile::LabelSet folded = profile::LabelSet().With(profile::kLabelService, "[folded]");
    if (!extra.empty()) folded = folded.With(extra, labels.Get(extra));
    return of_family[folded];
  }
  ++series_;
  return of_family[key];
}

void LatencyTotals::Add(const profile::BatchView& batch) {
  const std::lock_guard lock(mutex_);
  for (const profile::HistogramPoint& point : batch.histograms) {
    const profile::SeriesKey& series = batch.series[point.series];
    const size_t family = FamilyOf(series.type);
    if (family == std::size(kFamilies) || series.labels.Has(profile::kLabelSession)) continue;
    Total& total = At(family, batch.tenant, series.labels);
    total.value += point.histogram.sum();
    for (const profile::Histogram::Bucket& bucket : point.histogram.buckets()) {
      total.count += bucket.count;
      const uint64_t low = profile::BucketLowerBound(bucket.index);
      size_t edge = 0;
      while (edge < kEdges && low >= uint64_t{1} << (kFirstEdgeBit + kEdgeBits * edge)) ++edge;
      if (edge < kEdges) total.buckets[edge] += bucket.count;
    }
  }
  for (const profile::CounterPoint& point : batch.counters) {
    const profile::SeriesKey& series = batch.series[point.series];
    const size_t family = FamilyOf(series.type);
    if (family == std::size(kFamilies) || series.labels.Has(profile::kLabelSession)) continue;
    At(family, batch.tenant, series.labels).value += point.value;
  }
}

std::string LatencyTotals::Text() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const auto& [index, series] : totals_) {
    const Family& family = kFamilies[index];
    text += StrFormat("# HELP %s %s\n# TYPE %s %s\n", family.name, family.help, family.name,
                      family.kind == Kind::kHistogramNs ? "histogram" : "counter");
    for (const auto& [label_set, total] : series) {
      const std::string labels = label_set.empty() ? "" : label_set.ToString();
      switch (family.kind) {
        case Kind::kCounter:
          text += StrFormat("%s%s %d\n", family.name, labels, total.value);
          break;
        case Kind::kCounterNs:
          text += StrFormat("%s%s %.9f\n", family.name, labels, Seconds(total.value));
          break;
        case Kind::kHistogramNs: {
          uint64_t below = 0;
          for (size_t edge = 0; edge < kEdges; ++edge) {
            below += total.buckets[edge];
            const double at = Seconds(uint64_t{1} << (kFirstEdgeBit + kEdgeBits * edge));
            text += StrFormat("%s_bucket%s %d\n", family.name, WithEdge(labels, StrFormat("%.9g", at)), below);
          }
          text += StrFormat("%s_bucket%s %d\n", family.name, WithEdge(labels, "+Inf"), total.count);
          text += StrFormat("%s_sum%s %.9f\n%s_count%s %d\n", family.name, labels, Seconds(total.value), family.name,
                            labels, total.count);
          break;
        }
      }
    }
  }
  return text;
}

}  // namespace pyrometer::server

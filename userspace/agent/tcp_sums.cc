#include "userspace/agent/tcp_sums.h"

#include <string>
#include <string_view>

#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

profile::LabelSet LabelsOf(Node& node, const kernel::TcpWindow& window) {
  const kernel::TcpDirection direction = window.key.direction;
  std::string peer = kernel::PeerAddress(window.key);
  // Of who connects to us the port is a new one each time.
  if (direction == kernel::TcpDirection::kOut) {
    peer = window.key.family == 6 ? StrFormat("[%s]:%d", peer, window.key.peer_port)
                                  : StrFormat("%s:%d", peer, window.key.peer_port);
  }
  profile::LabelSet labels = node.LabelsOf(window.key.cgroup_id, window.key.cgroup_v1_id, "")
                                 .With(profile::kLabelPeer, peer)
                                 .With(profile::kLabelDirection, direction == kernel::TcpDirection::kOther ? "other"
                                                                 : direction == kernel::TcpDirection::kIn  ? "in"
                                                                                                           : "out");
  if (direction != kernel::TcpDirection::kIn) return labels;
  return labels.With(profile::kLabelLocalPort, StrFormat("%d", window.key.local_port));
}

}  // namespace

Status AddTcpSums(kernel::TcpLatency& probe, Node& node, int64_t start_ns, uint64_t duration_ns,
                  BatchBuilder& builder) {
  return probe.Drain([&](const kernel::TcpWindow& window) {
    const profile::LabelSet labels = LabelsOf(node, window);
    const auto add_histogram = [&](std::string_view type, const kernel::LatencyHistogram& latency) {
      if (latency.empty()) return;
      builder.Histogram(type, labels, start_ns, duration_ns).histogram.Merge(FromKernel(latency));
    };
    add_histogram(profile::kTypeTcpRtt, window.srtt);
    add_histogram(profile::kTypeTcpMinRtt, window.min_rtt);
    add_histogram(profile::kTypeTcpRttVariation, window.rtt_variation);
    add_histogram(profile::kTypeTcpConnect, window.connect);
    const auto add_counter = [&](std::string_view type, uint64_t value) {
      builder.Counter(type, labels, start_ns, duration_ns, value);
    };
    const auto add_cause = [&](std::string_view type, std::string_view cause, uint64_t value) {
      if (value == 0) return;
      builder.Counter(type, labels.With(profile::kLabelCause, cause), start_ns, duration_ns, value);
    };
    for (size_t i = 0; i < kernel::kRetransmitCauses; ++i) {
      add_cause(profile::kTypeTcpRetransmits, RetransmitCauseName(static_cast<kernel::RetransmitCause>(i)),
                window.retransmits[i]);
    }
    add_cause(profile::kTypeTcpResets, "sent", window.resets_sent);
    add_cause(profile::kTypeTcpResets, "received", window.resets_received);
    add_cause(profile::kTypeTcpZeroWindows, "sent", window.zero_windows_sent);
    add_cause(profile::kTypeTcpZeroWindows, "received", window.zero_windows_received);
    for (size_t i = 0; i < kernel::kTcpLimits; ++i) {
      add_cause(profile::kTypeTcpLimited, TcpLimitName(static_cast<kernel::TcpLimit>(i)), window.limited_ns[i]);
    }
    add_counter(profile::kTypeTcpBytesSent, window.bytes_sent);
    add_counter(profile::kTypeTcpBytesReceived, window.bytes_received);
    add_counter(profile::kTypeTcpConnections, window.opened);
    add_counter(profile::kTypeTcpConnectionsFound, window.found);
    add_counter(profile::kTypeTcpConnectionsClosed, window.closed);
    add_counter(profile::kTypeTcpConnectFailures, window.failed);
  });
}

}  // namespace pyrometer::agent

// How far away the network is: RTT, connect time, retransmits and bytes per (container, peer).
//
//   ASSIGN_OR_RETURN(auto probe, TcpLatency::Start({}));
//   each 10 s: RETURN_IF_ERROR(probe->Drain([&](const TcpWindow& w) { … }));
//
// A flow is (cgroup of the socket, peer, direction). Outgoing connections are keyed by the peer's
// address and port, incoming ones by the peer's address and the local port: the other port is
// ephemeral and would make a flow of every connection. The socket's cgroup is that of whoever made
// it, not of the task that a packet interrupted. Both ends of a connection on one machine report.
//
// Mechanism: BTF tracepoints tcp_probe (each received packet of an established connection, every network
// namespace, also of connections older than the probe), tcp_retransmit_skb, inet_sock_set_state. A
// sock_ops program would be cheaper (57 against 135 ns per packet when each records a value) but sees only
// connections made after it was attached, and needs the root of cgroup2, which pure cgroup1 hosts lack.
// To keep the rest cheap a socket's RTT is recorded when its smoothed value changed, at most once per
// min_interval_us (a packet in between costs the tracepoint and one storage look-up: 82 ns measured, with
// the 70 ns or so that measuring itself costs).
//
// Does not promise: direction of connections older than the probe (guessed: local port in the
// ephemeral range means outgoing); bytes of a connection's last moments before it is closed or sends again;
// the owner on hosts with cgroup1 only, for connections older than the probe (cgroup_id 1, v1 id 0).
//
// Threads: one. Cost: about 80 ns per received packet, 150 when it records; 56 + 40 bytes per flow, 168 bytes per CPU
// and octave.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "userspace/base/status.h"
#include "userspace/kernel/latency_histogram.h"

namespace pyrometer::kernel {

enum class TcpDirection : uint8_t {
  kOut = 0,    // this side connected
  kIn = 1,     // this side accepted
  kOther = 2,  // all flows that found no room; the other members of the key are 0
};

struct TcpKey {
  uint64_t cgroup_id = 0;     // cgroup2 id of the socket's owner
  uint64_t cgroup_v1_id = 0;  // of the task that called connect() or listen(); 0 = not seen or no cgroup1
  uint8_t family = 4;         // 4 or 6; IPv4-mapped IPv6 is 4; 0 for kOther
  TcpDirection direction = TcpDirection::kOut;
  std::array<uint8_t, 16> peer{};  // network order; IPv4 in the first four bytes
  uint16_t peer_port = 0;          // 0 for kIn
  uint16_t local_port = 0;         // 0 for kOut
  auto operator<=>(const TcpKey&) const = default;
};

// "10.0.0.7" or "2001:db8::1"; "other" for the fold key.
std::string PeerAddress(const TcpKey& key);

// What one flow did since the last Drain; only flows that did anything.
struct TcpWindow {
  TcpKey key;
  LatencyHistogram srtt;     // smoothed RTT as the socket had it, one value per change
  LatencyHistogram min_rtt;  // minimum RTT as the socket had it, recorded together with srtt
  LatencyHistogram connect;  // SYN to ESTABLISHED of outgoing connections
  uint64_t retransmits = 0;  // segments sent again
  uint64_t bytes_sent = 0;   // acknowledged by the peer
  uint64_t bytes_received = 0;
  uint64_t opened = 0;  // connections that became established
  uint64_t closed = 0;  // established connections that ended
  uint64_t failed = 0;  // outgoing attempts that ended unestablished
};

struct TcpCounters {
  uint64_t packets = 0;       // received packets seen
  uint64_t samples = 0;       // RTT values recorded
  uint64_t folded = 0;        // updates that went to the fold key
  uint64_t lost = 0;          // updates recorded nowhere
  uint64_t storage_lost = 0;  // packets of sockets that could not be given storage
};

class TcpLatency {
 public:
  struct Options {
    uint32_t max_flows = 8192;        // then new flows are folded into kOther
    uint32_t max_octaves = 32768;     // histogram entries, 168 B per CPU each, allocated when used
    uint32_t min_interval_us = 1000;  // at most one RTT value per socket in this time; 0: no limit
    uint32_t idle_windows_before_eviction = 30;
  };
  static StatusOr<std::unique_ptr<TcpLatency>> Start(const Options& options);
  virtual ~TcpLatency() = default;

  virtual Status Drain(const std::function<void(const TcpWindow&)>& callback) = 0;
  // Detaches. What was counted stays for a last Drain.
  virtual Status Stop() = 0;
  virtual TcpCounters Counters() const = 0;
};

}  // namespace pyrometer::kernel

// How far away the network is, and what goes wrong on the way: RTT and its variation, connect time, retransmits by
// cause, resets, closed windows, what limits a connection, and bytes, per (container, peer).
//
//   ASSIGN_OR_RETURN(auto probe, TcpLatency::Start({}));
//   each 10 s: RETURN_IF_ERROR(probe->Drain([&](const TcpWindow& w) { … }));
//
// A flow is (cgroup of the socket, peer, direction). Outgoing connections are keyed by the peer's
// address and port, incoming ones by the peer's address and the local port: the other port is
// ephemeral and would make a flow of every connection. The socket's cgroup is that of whoever made
// it, not of the task that a packet interrupted. Both ends of a connection on one machine report.
//
// Mechanism: BTF tracepoints inet_sock_set_state, tcp_retransmit_skb, tcp_retransmit_synack, tcp_send_reset and
// tcp_receive_reset for what happens; an iterator over open files that takes in the connections older than the probe;
// and, for what a socket knows by itself (RTT, bytes, what limits it, windows), one of
//   kTcpProbe   the tracepoint tcp_probe, which sees each received packet: some 190 ns each.
//   kPoll       an iterator over the sockets known, run every poll_interval_ms: some 90 µs each, and for a packet
//               nothing. Less often when it takes long: at most 1 % of a CPU, but once a second in any case.
// kAuto uses kTcpProbe while few packets come, and kPoll, with tcp_probe detached, while many do: both together cost at
// most some 0.5 % of a CPU. docs/design/004-net.md has the figures, and why neither is a sock_ops program.
//
// Exact: bytes (each connection's, when it has ended, and in each window for open ones), connections, retransmitted
// segments (as `nstat` and `ss -ti` count them), resets, ticks of what limits. Sampled: the RTT histograms; a value per
// socket and min_interval_us (kTcpProbe) or poll (kPoll) in which the smoothed RTT changed, and one at its end.
//
// Does not promise: the direction of connections older than the probe whose listener has gone (guessed: local port in
// the ephemeral range means outgoing); closed windows: with kTcpProbe the own one that opens before the next packet,
// with kPoll both that open before the next poll; connections that nobody had accepted at the start, before they
// receive something (kTcpProbe) or somebody accepts them (kPoll). Where the iterators are missing, for connections
// older than the probe: bytes of open ones at a window's end, and the owner on hosts with cgroup1 only (cgroup_id 1, v1
// id 0).
//
// Threads: one caller; one of its own, but for kTcpProbe. Cost: tests/bench/net_cost. Memory: 160 + 40 bytes per flow,
// 168 bytes per CPU and octave, 80 per socket.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>

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

// Why a segment was sent again. Values are those of enum pyro_tcp_retransmit.
enum class RetransmitCause : uint8_t { kRto, kFast, kTailLossProbe, kHandshake, kOther };
inline constexpr size_t kRetransmitCauses = 5;
// "rto", "fast", "tlp", "handshake", "other"
std::string_view RetransmitCauseName(RetransmitCause cause);

// What kept a connection from sending more. Values are those of enum pyro_tcp_limit.
enum class TcpLimit : uint8_t { kApplication, kNetwork, kReceiver, kSendBuffer };
inline constexpr size_t kTcpLimits = 4;
// "application", "network", "receiver", "send buffer"
std::string_view TcpLimitName(TcpLimit limit);

// What one flow did since the last Drain; only flows that did anything.
struct TcpWindow {
  TcpKey key;
  LatencyHistogram srtt;                                  // smoothed RTT as the socket had it, one value per change
  LatencyHistogram min_rtt;                               // minimum RTT as the socket had it
  LatencyHistogram rtt_variation;                         // mean deviation of the RTT, recorded together with srtt
  LatencyHistogram connect;                               // SYN to ESTABLISHED of outgoing connections
  std::array<uint64_t, kRetransmitCauses> retransmits{};  // segments sent again
  uint64_t bytes_sent = 0;                                // acknowledged by the peer
  uint64_t bytes_received = 0;
  uint64_t opened = 0;  // connections that became established
  uint64_t found = 0;   // connections that were open when the probe began
  uint64_t closed = 0;  // of both, those that ended
  uint64_t failed = 0;  // outgoing attempts that ended unestablished
  uint64_t resets_sent = 0;
  uint64_t resets_received = 0;
  uint64_t zero_windows_sent = 0;      // times this side's receive window was seen to close
  uint64_t zero_windows_received = 0;  // times the peer's did
  // Connection time by what it was limited by; the parts add up to the time that connections were open and active.
  std::array<uint64_t, kTcpLimits> limited_ns{};

  uint64_t RetransmitTotal() const { return std::accumulate(retransmits.begin(), retransmits.end(), uint64_t{0}); }
};

struct TcpCounters {
  uint64_t packets = 0;       // segments received by connections known, as of their last reports
  uint64_t samples = 0;       // RTT values recorded
  uint64_t folded = 0;        // updates that went to the fold key
  uint64_t lost = 0;          // updates recorded nowhere
  uint64_t storage_lost = 0;  // packets of sockets that could not be given storage
  uint64_t found = 0;         // connections older than the probe that the iterator took in
  uint64_t polls = 0;         // kPoll: passes over the sockets
  uint64_t poll_cpu_ns = 0;   // and what they took
};

// Where RTT, bytes, limits and windows come from; see above.
enum class TcpSource : uint8_t { kAuto, kPoll, kTcpProbe };
std::string_view TcpSourceName(TcpSource source);  // "auto", "poll", "tcp_probe"

class TcpLatency {
 public:
  struct Options {
    TcpSource source = TcpSource::kAuto;
    uint32_t poll_interval_ms = 20;   // kPoll: at least
    uint32_t busy_packets = 25'000;   // kAuto: received per second, beyond which it polls,
    uint32_t calm_ms = 10'000;        // until for so long it were fewer than 2/5 of that
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
  // Why connections older than the probe are only seen at their first packet; OK when they are all known.
  virtual Status ScanStatus() const = 0;
  // kPoll or kTcpProbe: what is in use now. Any thread.
  virtual TcpSource Source() const = 0;
  // Why kAuto cannot change over; OK when it can, or need not.
  virtual Status SourceStatus() const = 0;
};

}  // namespace pyrometer::kernel

// Maps of the probe tcp_latency (bpf/probes/tcp_latency.bpf.c).
#pragma once

#include "bpf/abi/histogram.h"
#include "bpf/abi/types.h"

#define PYRO_TCP_FAMILY_IPV4 4
#define PYRO_TCP_FAMILY_IPV6 6

enum pyro_tcp_direction {
  PYRO_TCP_OUT = 0,    // we connected: peer_port names the service
  PYRO_TCP_IN = 1,     // we accepted: local_port names the service, peer_port is 0
  PYRO_TCP_OTHER = 2,  // fold: flows that found no room of their own
};

// One flow: a container's traffic with one peer. Kept dense: it is hashed per packet.
struct pyro_tcp_key {
  struct pyro_owner owner;  // of the socket, not of whoever was interrupted
  __u8 peer[16];            // network order; IPv4 in the first 4 bytes, the rest 0. IPv4-mapped IPv6 is IPv4
  __u16 peer_port;          // host order; 0 for incoming
  __u16 local_port;         // host order; 0 for outgoing
  __u8 family;              // PYRO_TCP_FAMILY_*
  __u8 direction;           // enum pyro_tcp_direction
  __u16 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_key) == 40, "pyro_tcp_key");

// Why a segment was sent again, as the sender's own state machine has it at that moment.
enum pyro_tcp_retransmit {
  PYRO_TCP_RETRANSMIT_RTO = 0,        // timer ran out: the first segment and those that follow it in slow start
  PYRO_TCP_RETRANSMIT_FAST = 1,       // the peer's acknowledgements named a hole (TCP_CA_Recovery)
  PYRO_TCP_RETRANSMIT_TLP = 2,        // tail loss probe
  PYRO_TCP_RETRANSMIT_HANDSHAKE = 3,  // SYN or SYN-ACK
  PYRO_TCP_RETRANSMIT_OTHER = 4,      // in no state that names a cause
  PYRO_TCP_RETRANSMIT_CAUSES = 5,
};

// What kept a connection from sending more; the parts add up to the connection's time.
enum pyro_tcp_limit {
  PYRO_TCP_LIMIT_APPLICATION = 0,  // nothing to send: idle, or the peer's turn
  PYRO_TCP_LIMIT_NETWORK = 1,      // data in flight, congestion window or path
  PYRO_TCP_LIMIT_RECEIVER = 2,     // peer's receive window
  PYRO_TCP_LIMIT_SEND_BUFFER = 3,  // own send buffer too small
  PYRO_TCP_LIMITS = 4,
};

#define PYRO_TCP_SENT 0
#define PYRO_TCP_RECEIVED 1

// Value of pyro_tcp_flows; every member only grows, updated atomically.
struct pyro_tcp_flow {
  __u64 id;                                       // never reused; names the flow in struct pyro_tcp_octave_key
  __u64 bytes_sent;                               // acknowledged by the peer; SYN and FIN are no bytes
  __u64 bytes_received;                           // in order, from the peer
  __u64 opened;                                   // connections that reached ESTABLISHED
  __u64 found;                                    // connections that were open when the probe began
  __u64 closed;                                   // of both, those that ended
  __u64 failed;                                   // outgoing connections that ended before (refused, timed out)
  __u64 retransmits[PYRO_TCP_RETRANSMIT_CAUSES];  // segments, as the kernel counts them (total_retrans)
  __u64 resets[2];                                // RST sent; received
  __u64 zero_windows[2];                          // times our; the peer's receive window was seen to be closed
  __u64 limited_ticks[PYRO_TCP_LIMITS];           // kernel ticks (1/CONFIG_HZ s)
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_flow) == 160, "pyro_tcp_flow");

enum pyro_tcp_histogram {
  PYRO_TCP_SRTT = 0,     // smoothed round-trip time, ns
  PYRO_TCP_MIN_RTT = 1,  // the socket's minimum RTT over its window, ns
  PYRO_TCP_CONNECT = 2,  // SYN sent to ESTABLISHED, outgoing, ns
  PYRO_TCP_RTT_VAR = 3,  // mean deviation of the RTT, ns
  PYRO_TCP_HISTOGRAMS = 4,
};

// Key of pyro_tcp_octaves -> per-CPU struct pyro_octave.
struct pyro_tcp_octave_key {
  __u64 flow_id;
  __u32 histogram;  // enum pyro_tcp_histogram
  __u32 octave;     // bucket index / PYRO_SUB_BUCKETS
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_octave_key) == 16, "pyro_tcp_octave_key");

// Per socket (sk_storage, goes with the socket).
struct pyro_tcp_socket {
  // Read for each packet; the kernel's own header of the storage shares their cache line.
  __u64 last_us;      // socket's own clock (tcp_mstamp) at the last report
  __u32 last_srtt;    // srtt_us at the last report
  __u8 direction;     // enum pyro_tcp_direction, once `directed`
  __u8 known;         // 1: an open connection whose baselines are set
  __u8 directed;      // 1: direction was seen, or guessed; stays when the connection closes
  __u8 zero_windows;  // bit PYRO_TCP_SENT, PYRO_TCP_RECEIVED: that window is closed at present
  // The rest only for reports.
  __u64 cgroup_v1_id;    // of the task that called connect() or listen(); inherited by accepted sockets
  __u64 bytes_sent;      // already reported
  __u64 bytes_received;  // already reported
  __u64 connect_ns;      // when SYN was sent; 0: not seen
  __u32 segments;        // segs_in, as of the last report
  __u32 retransmitted;   // total_retrans, already reported
  __u32 last_min_us;     // tcp_mstamp when the minimum RTT was last recorded
  __u32 last_tick;       // tick of the last report
  __u32 limited[3];      // chrono_stat as of the last report: busy, receive window, send buffer
  __u32 reporting;       // 1: somebody is at last_tick and limited
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_socket) == 80, "pyro_tcp_socket");

// Key of pyro_tcp_listeners: a port that somebody listened on when the probe began.
struct pyro_tcp_listener {
  __u32 netns;  // inode number
  __u16 port;   // host order
  __u16 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_listener) == 8, "pyro_tcp_listener");

// What the iterator over open files does in one pass.
enum pyro_tcp_scan {
  PYRO_TCP_SCAN_LISTENERS = 0,    // note listening ports and the owners of listening sockets
  PYRO_TCP_SCAN_CONNECTIONS = 1,  // take in open connections; report bytes of known ones
};

// What one pass over the known sockets does.
enum pyro_tcp_poll {
  PYRO_TCP_POLL_ACTIVE = 0,  // reports those that received anything since the last pass
  PYRO_TCP_POLL_ALL = 1,     // also bytes that such a pass could not see, and what blocks those that receive nothing
};

// Per-CPU counters.
struct pyro_tcp_counters {
  __u64 packets;       // segments received by known connections, as of their last reports
  __u64 samples;       // RTT samples recorded
  __u64 folded;        // updates that went to the fold flow: flow map full
  __u64 lost;          // updates recorded nowhere
  __u64 storage_lost;  // sockets whose storage could not be had
  __u64 found;         // connections older than the probe that the iterator took in
  __u64 pad[2];
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_counters) == 64, "pyro_tcp_counters");

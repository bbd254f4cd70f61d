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

// Value of pyro_tcp_flows; every member only grows, updated atomically.
struct pyro_tcp_flow {
  __u64 id;              // never reused; names the flow in struct pyro_tcp_octave_key
  __u64 bytes_sent;      // acknowledged by the peer
  __u64 bytes_received;  // in order, from the peer
  __u64 segments_retransmitted;
  __u64 opened;  // connections that reached ESTABLISHED
  __u64 closed;  // connections that ended after that
  __u64 failed;  // outgoing connections that ended before (refused, timed out)
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_flow) == 56, "pyro_tcp_flow");

enum pyro_tcp_histogram {
  PYRO_TCP_SRTT = 0,     // smoothed round-trip time, ns
  PYRO_TCP_MIN_RTT = 1,  // the socket's minimum RTT over its window, ns
  PYRO_TCP_CONNECT = 2,  // SYN sent to ESTABLISHED, outgoing, ns
  PYRO_TCP_HISTOGRAMS = 3,
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
  __u64 connect_ns;      // when SYN was sent; 0: not seen
  __u64 cgroup_v1_id;    // of the task that called connect() or listen(); inherited by accepted sockets
  __u64 bytes_sent;      // already reported
  __u64 bytes_received;  // already reported
  __u64 last_us;         // socket's own clock (tcp_mstamp) at the last report
  __u32 last_srtt;       // srtt_us at the last report
  __u8 direction;        // enum pyro_tcp_direction, once `known`
  __u8 known;            // 1: direction was seen (or guessed from the port range), byte baselines are set
  __u8 established;      // 1: counted as opened
  __u8 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_socket) == 48, "pyro_tcp_socket");

// Per-CPU counters.
struct pyro_tcp_counters {
  __u64 packets;       // tcp_probe runs
  __u64 samples;       // RTT samples recorded
  __u64 folded;        // updates that went to the fold flow: flow map full
  __u64 lost;          // updates recorded nowhere
  __u64 storage_lost;  // sockets whose storage could not be had
  __u64 pad[3];
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_tcp_counters) == 64, "pyro_tcp_counters");

// RTT, connect time, retransmits by cause, resets, closed windows, what limits and bytes per (socket's cgroup, peer).
//
// What a socket knows by itself is read from it by one of two programs; user space attaches one of them only:
// pyro_tcp_poll walks the sockets known, some tens of times a second, and costs a packet nothing; pyro_tcp_probe looks
// at each packet that an established connection receives.
//
// The tracepoints fire mostly in softirq, where "current" is whoever was interrupted: the owner is read from the
// socket. Process context and softirq may interrupt one another between these programs, hence atomic additions to
// flows. What is kept per socket needs fewer: tracepoints run under the socket's lock. The iterators do not, and race
// with them: they claim bytes by compare and exchange, take `reporting` for the limits, and of a race about RTTs
// nothing worse comes than one value twice.
#include "bpf/abi/tcp_latency.h"
#include "bpf/lib/octave.h"
#include "bpf/lib/owner.h"
#include "bpf/lib/program.h"

const volatile __u32 pyro_min_interval_us = 1000;  // at most one RTT value per socket in this time
const volatile __u16 pyro_ephemeral_low = 32768;   // net.ipv4.ip_local_port_range of the initial namespace:
const volatile __u16 pyro_ephemeral_high = 60999;  // direction guess for connections older than we are

// A socket whose smoothed RTT does not move still gives a value this often, so that a steady link is not
// invisible beside a jittery one.
#define PYRO_STEADY_INTERVAL_US 100000

// A packet's processing ends within this time.
#define PYRO_QUIET_US 1000

#define PYRO_AF_INET 2
#define PYRO_AF_INET6 10
#define PYRO_IPPROTO_TCP 6
#define PYRO_TCP_ESTABLISHED 1
#define PYRO_TCP_SYN_SENT 2
#define PYRO_TCP_SYN_RECV 3
#define PYRO_TCP_FIN_WAIT1 4
#define PYRO_TCP_FIN_WAIT2 5
#define PYRO_TCP_CLOSE 7
#define PYRO_TCP_CLOSE_WAIT 8
#define PYRO_TCP_LAST_ACK 9
#define PYRO_TCP_LISTEN 10
#define PYRO_TCP_CLOSING 11
#define PYRO_STATE_BIT(state) (1u << (state))
// An open connection, one side of which may have ended sending.
#define PYRO_TCP_OPEN_STATES                                                                                        \
  (PYRO_STATE_BIT(PYRO_TCP_ESTABLISHED) | PYRO_STATE_BIT(PYRO_TCP_FIN_WAIT1) | PYRO_STATE_BIT(PYRO_TCP_FIN_WAIT2) | \
   PYRO_STATE_BIT(PYRO_TCP_CLOSE_WAIT) | PYRO_STATE_BIT(PYRO_TCP_LAST_ACK) | PYRO_STATE_BIT(PYRO_TCP_CLOSING))
// Our FIN is in write_seq.
#define PYRO_TCP_FIN_SENT_STATES                                                                                 \
  (PYRO_STATE_BIT(PYRO_TCP_FIN_WAIT1) | PYRO_STATE_BIT(PYRO_TCP_FIN_WAIT2) | PYRO_STATE_BIT(PYRO_TCP_LAST_ACK) | \
   PYRO_STATE_BIT(PYRO_TCP_CLOSING))
#define PYRO_ICSK_TIME_LOSS_PROBE 5

// Number of the current window; user space raises it when it drains.
__u32 pyro_epoch = 1;
// enum pyro_tcp_scan: what pyro_tcp_scan does; user space sets it before each pass.
__u32 pyro_scan_pass = PYRO_TCP_SCAN_LISTENERS;
// enum pyro_tcp_poll: what pyro_tcp_poll does; user space sets it before each pass.
__u32 pyro_poll_pass = PYRO_TCP_POLL_ACTIVE;
// Sockets that reported something in the passes so far. Only pyro_tcp_poll writes it, one pass at a time.
__u32 pyro_polled = 0;
// Next struct pyro_tcp_flow::id. 1 is the fold flow's.
__u64 pyro_next_flow = 2;

// State of each socket we saw. BPF_F_CLONE: accepted sockets inherit their listener's cgroup_v1_id.
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
  __type(key, int);
  __type(value, struct pyro_tcp_socket);
} pyro_tcp_sockets SEC(".maps");

// Flows. Made here, the fold flow by user space; deleted by user space when long idle.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 8192);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_tcp_key);
  __type(value, struct pyro_tcp_flow);
} pyro_tcp_flows SEC(".maps");

// Histograms of flows. Made here, the fold flow's by user space; deleted with their flow.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 32768);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_tcp_octave_key);
  __type(value, struct pyro_octave);
} pyro_tcp_octaves SEC(".maps");

// Ports listened on when the probe began: a connection found open on one of them was accepted. Written by the
// iterator's first pass, 8 + 1 bytes each; a port that finds no room is guessed by its number.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_tcp_listener);
  __type(value, __u8);
} pyro_tcp_listeners SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_tcp_counters);
} pyro_counters SEC(".maps");

#define PYRO_TCP_COUNT_N(member, n)                                                    \
  do {                                                                                 \
    __u32 zero_ = 0;                                                                   \
    struct pyro_tcp_counters* counters_ = bpf_map_lookup_elem(&pyro_counters, &zero_); \
    if (counters_) __sync_fetch_and_add(&counters_->member, (n));                      \
  } while (0)
#define PYRO_TCP_COUNT(member) PYRO_TCP_COUNT_N(member, 1)

PYRO_INLINE __u16 pyro_swap16(__u16 v) { return (__u16)(v << 8 | v >> 8); }

// The port stays in inet_sport until the end; skc_num is already 0 when a socket closes.
PYRO_INLINE __u16 pyro_local_port(struct tcp_sock* tcp) { return pyro_swap16(tcp->inet_conn.icsk_inet.inet_sport); }

PYRO_INLINE __u8 pyro_guess_direction(const struct sock* sk, struct tcp_sock* tcp) {
  __u16 port = pyro_local_port(tcp);
  struct pyro_tcp_listener listener = {.netns = sk->__sk_common.skc_net.net->ns.inum, .port = port};
  if (bpf_map_lookup_elem(&pyro_tcp_listeners, &listener)) return PYRO_TCP_IN;
  return port >= pyro_ephemeral_low && port <= pyro_ephemeral_high ? PYRO_TCP_OUT : PYRO_TCP_IN;
}

PYRO_INLINE void pyro_tcp_set_peer(const struct sock_common* common, struct pyro_tcp_key* key) {
  __u32* peer = (__u32*)key->peer;
  if (common->skc_family == PYRO_AF_INET6) {
    const __be32* address = common->skc_v6_daddr.in6_u.u6_addr32;
    __u32 a = address[0], b = address[1], c = address[2], d = address[3];
    if (a == 0 && b == 0 && c == 0xffff0000u) {  // ::ffff:a.b.c.d, network order
      key->family = PYRO_TCP_FAMILY_IPV4;
      peer[0] = d;
    } else {
      key->family = PYRO_TCP_FAMILY_IPV6;
      peer[0] = a;
      peer[1] = b;
      peer[2] = c;
      peer[3] = d;
    }
  } else {
    key->family = PYRO_TCP_FAMILY_IPV4;
    peer[0] = common->skc_daddr;
  }
}

PYRO_NOINLINE struct pyro_tcp_flow* pyro_flow_by_key(const struct pyro_tcp_key* key) {
  struct pyro_tcp_flow* flow = bpf_map_lookup_elem(&pyro_tcp_flows, key);
  if (flow) return flow;
  struct pyro_tcp_flow fresh = {.id = __sync_fetch_and_add(&pyro_next_flow, 1)};
  bpf_map_update_elem(&pyro_tcp_flows, key, &fresh, BPF_NOEXIST);
  flow = bpf_map_lookup_elem(&pyro_tcp_flows, key);
  if (flow) return flow;
  PYRO_TCP_COUNT(folded);
  struct pyro_tcp_key fold = {.direction = PYRO_TCP_OTHER};
  flow = bpf_map_lookup_elem(&pyro_tcp_flows, &fold);
  if (!flow) PYRO_TCP_COUNT(lost);
  return flow;
}

PYRO_INLINE struct pyro_tcp_flow* pyro_flow_of(const struct sock* sk, struct tcp_sock* tcp, __u64 cgroup_v1_id,
                                               __u8 direction) {
  struct pyro_tcp_key key = {};
  key.owner.cgroup_id = sk->sk_cgrp_data.cgroup->kn->id;
  key.owner.cgroup_v1_id = cgroup_v1_id;
  key.direction = direction;
  pyro_tcp_set_peer(&sk->__sk_common, &key);
  if (direction == PYRO_TCP_OUT) {
    key.peer_port = pyro_swap16(sk->__sk_common.skc_dport);
  } else {
    key.local_port = pyro_local_port(tcp);
  }
  return pyro_flow_by_key(&key);
}

PYRO_NOINLINE int pyro_tcp_record(__u64 flow_id, __u32 histogram, __u64 value) {
  struct pyro_tcp_octave_key key = {.flow_id = flow_id, .histogram = histogram};
  __u32 sub;
  if (value > PYRO_MAX_LATENCY_NS) value = PYRO_MAX_LATENCY_NS;
  pyro_bucket(value, &key.octave, &sub);
  struct pyro_octave* octave = bpf_map_lookup_elem(&pyro_tcp_octaves, &key);
  if (!octave) {
    struct pyro_octave fresh = {};
    bpf_map_update_elem(&pyro_tcp_octaves, &key, &fresh, BPF_NOEXIST);
    octave = bpf_map_lookup_elem(&pyro_tcp_octaves, &key);
  }
  if (!octave) {
    key.flow_id = 1;
    octave = bpf_map_lookup_elem(&pyro_tcp_octaves, &key);
    PYRO_TCP_COUNT(folded);
    if (!octave) {
      PYRO_TCP_COUNT(lost);
      return 0;
    }
  }
  pyro_octave_add_atomic(octave, sub, value, pyro_epoch);
  return 0;
}

// What `now` is beyond what was reported, marked as reported. The iterator and a packet may both try: one of them wins,
// and what it did not see is in the next claim. Only the claim at the end has none after it: see pyro_tcp_closed.
PYRO_INLINE __u64 pyro_tcp_claim(__u64* reported, __u64 now) {
  __u64 before = *reported;
  if (now <= before || __sync_val_compare_and_swap(reported, before, now) != before) return 0;
  return now - before;
}

PYRO_INLINE void pyro_tcp_claim_bytes(struct pyro_tcp_socket* socket, struct pyro_tcp_flow* flow, __u64 sent,
                                      __u64 received) {
  sent = pyro_tcp_claim(&socket->bytes_sent, sent);
  received = pyro_tcp_claim(&socket->bytes_received, received);
  if (sent) __sync_fetch_and_add(&flow->bytes_sent, sent);
  if (received) __sync_fetch_and_add(&flow->bytes_received, received);
}

PYRO_INLINE int pyro_tcp_fin_received(const struct sock* sk) {
  return (sk->__sk_common.skc_flags & (1ul << bpf_core_enum_value(enum sock_flags, SOCK_DONE))) != 0;
}

// bytes_acked and bytes_received count a FIN as a byte. Under the socket's lock.
PYRO_INLINE void pyro_tcp_report_bytes(const struct sock* sk, struct tcp_sock* tcp, struct pyro_tcp_socket* socket,
                                       struct pyro_tcp_flow* flow) {
  __u64 sent = tcp->bytes_acked, received = tcp->bytes_received;
  __u32 state = sk->__sk_common.skc_state & 31;
  if ((PYRO_STATE_BIT(state) & PYRO_TCP_FIN_SENT_STATES) && tcp->snd_una == tcp->write_seq) --sent;
  if (pyro_tcp_fin_received(sk)) --received;
  pyro_tcp_claim_bytes(socket, flow, sent, received);
}

// The same without the lock: what may be a FIN is left to the next report. A state that sends no FIN yet, read after
// the count, says that none is in it. A FIN received is counted an instant before it is marked.
PYRO_INLINE void pyro_tcp_peek_bytes(const struct sock* sk, struct tcp_sock* tcp, struct pyro_tcp_socket* socket,
                                     struct pyro_tcp_flow* flow) {
  __u64 sent = tcp->bytes_acked, received = tcp->bytes_received;
  asm volatile("" ::: "memory");  // x86 keeps the order of loads
  __u32 state = sk->__sk_common.skc_state & 31;
  if (state != PYRO_TCP_ESTABLISHED && state != PYRO_TCP_CLOSE_WAIT && sent != 0) --sent;
  __s64 silent_us = (__s64)(bpf_ktime_get_ns() / 1000 - tcp->tcp_mstamp);  // the packet may be younger than our look
  if (received != 0 && (pyro_tcp_fin_received(sk) || silent_us < PYRO_QUIET_US)) --received;
  pyro_tcp_claim_bytes(socket, flow, sent, received);
}

PYRO_INLINE void pyro_tcp_read_limits(struct tcp_sock* tcp, __u32 tick, __u32 limits[3]) {
  limits[0] = tcp->chrono_stat[0];
  limits[1] = tcp->chrono_stat[1];
  limits[2] = tcp->chrono_stat[2];
  __u32 running = tick - tcp->chrono_start;  // of the state that the socket is in now
  switch (BPF_CORE_READ_BITFIELD(tcp, chrono_type)) {
    case 1:
      limits[0] += running;
      break;
    case 2:
      limits[1] += running;
      break;
    case 3:
      limits[2] += running;
      break;
  }
}

// The kernel's own account of what a sender waits for ("busy", "rwnd_limited", "sndbuf_limited" of `ss -ti`); the rest
// of the time it had nothing to send.
PYRO_INLINE void pyro_tcp_report_limits(struct tcp_sock* tcp, struct pyro_tcp_socket* socket,
                                        struct pyro_tcp_flow* flow) {
  __u32 tick = (__u32)bpf_jiffies64();
  if (tick == socket->last_tick || __sync_val_compare_and_swap(&socket->reporting, 0, 1) != 0) return;
  __u32 elapsed = tick - socket->last_tick;
  __u32 limits[3];
  pyro_tcp_read_limits(tcp, tick, limits);
  __u32 network = limits[0] - socket->limited[0];
  __u32 receiver = limits[1] - socket->limited[1];
  __u32 buffer = limits[2] - socket->limited[2];
  // More than the time itself: read without the socket's lock while the kernel changed it. The next report has it.
  if (network <= elapsed && receiver <= elapsed - network && buffer <= elapsed - network - receiver) {
    __u32 application = elapsed - network - receiver - buffer;
    if (network) __sync_fetch_and_add(&flow->limited_ticks[PYRO_TCP_LIMIT_NETWORK], network);
    if (receiver) __sync_fetch_and_add(&flow->limited_ticks[PYRO_TCP_LIMIT_RECEIVER], receiver);
    if (buffer) __sync_fetch_and_add(&flow->limited_ticks[PYRO_TCP_LIMIT_SEND_BUFFER], buffer);
    if (application) __sync_fetch_and_add(&flow->limited_ticks[PYRO_TCP_LIMIT_APPLICATION], application);
    socket->last_tick = tick;
    socket->limited[0] = limits[0];
    socket->limited[1] = limits[1];
    socket->limited[2] = limits[2];
  }
  *(volatile __u32*)&socket->reporting = 0;
}

// The socket's RTT as it is now. False: none was measured yet.
PYRO_INLINE int pyro_tcp_report_rtt(struct tcp_sock* tcp, struct pyro_tcp_socket* socket, struct pyro_tcp_flow* flow) {
  __u32 srtt = tcp->srtt_us;
  if (srtt == 0) return 0;
  socket->last_srtt = srtt;
  pyro_tcp_record(flow->id, PYRO_TCP_SRTT, (__u64)srtt * 125);  // eighths of a microsecond
  pyro_tcp_record(flow->id, PYRO_TCP_RTT_VAR, (__u64)tcp->mdev_us * 250);
  PYRO_TCP_COUNT(samples);
  // The minimum hardly moves: recorded less often, it pays for the variation.
  __u32 now_us = (__u32)tcp->tcp_mstamp;
  if (socket->last_min_us != 0 && now_us - socket->last_min_us < PYRO_STEADY_INTERVAL_US) return 1;
  __u32 minimum = tcp->rtt_min.s[0].v;
  if (minimum == 0xffffffff) return 1;
  pyro_tcp_record(flow->id, PYRO_TCP_MIN_RTT, (__u64)minimum * 1000);
  socket->last_min_us = now_us | 1;
  return 1;
}

PYRO_INLINE void pyro_tcp_report_segments(struct tcp_sock* tcp, struct pyro_tcp_socket* socket) {
  __u32 before = socket->segments, now = tcp->segs_in;
  if ((__s32)(now - before) <= 0 || __sync_val_compare_and_swap(&socket->segments, before, now) != before) return;
  PYRO_TCP_COUNT_N(packets, now - before);
}

// Reports what the socket has not reported yet.
PYRO_INLINE void pyro_tcp_report(const struct sock* sk, struct tcp_sock* tcp, struct pyro_tcp_socket* socket,
                                 struct pyro_tcp_flow* flow) {
  pyro_tcp_report_segments(tcp, socket);
  pyro_tcp_report_bytes(sk, tcp, socket, flow);
  pyro_tcp_report_limits(tcp, socket, flow);
  pyro_tcp_report_rtt(tcp, socket, flow);
}

// What the socket did so far is not to be reported: it was the handshake, or before our time.
PYRO_INLINE void pyro_tcp_begin(struct tcp_sock* tcp, struct pyro_tcp_socket* socket, __u8 direction) {
  socket->direction = direction;
  socket->directed = 1;
  socket->connect_ns = 0;
  socket->last_us = 0;
  socket->last_srtt = 0;
  socket->last_min_us = 0;
  socket->zero_windows = 0;
  socket->bytes_sent = tcp->bytes_acked;
  socket->bytes_received = tcp->bytes_received;
  socket->segments = tcp->segs_in;
  socket->retransmitted = tcp->total_retrans;
  socket->last_tick = (__u32)bpf_jiffies64();
  pyro_tcp_read_limits(tcp, socket->last_tick, socket->limited);
  socket->known = 1;
}

// First sight of a connection that was made before we were attached.
PYRO_NOINLINE int pyro_tcp_adopt(struct sock* sk, struct pyro_tcp_socket* socket) {
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp || !socket) return 0;
  pyro_tcp_begin(tcp, socket, socket->directed ? socket->direction : pyro_guess_direction(sk, tcp));
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (flow) __sync_fetch_and_add(&flow->found, 1);
  return 0;
}

// A receive window was seen to be closed or open; the closings are counted. tcp_probe comes before its packet is looked
// at, so a closing shows at the next packet; there is one, because the window's opening or the sender's asking for it
// is one. The iterator sees what is closed when it comes by.
PYRO_INLINE void pyro_tcp_windows(const struct sock* sk, struct tcp_sock* tcp, struct pyro_tcp_socket* socket,
                                  __u8 closed) {
  __u8 fresh = closed & ~socket->zero_windows;
  socket->zero_windows = closed;
  if (!fresh) return;
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return;
  if (fresh & (1 << PYRO_TCP_SENT)) __sync_fetch_and_add(&flow->zero_windows[PYRO_TCP_SENT], 1);
  if (fresh & (1 << PYRO_TCP_RECEIVED)) __sync_fetch_and_add(&flow->zero_windows[PYRO_TCP_RECEIVED], 1);
}

PYRO_INLINE __u8 pyro_tcp_closed_windows(struct tcp_sock* tcp) {
  return (tcp->rcv_wnd == 0) << PYRO_TCP_SENT | (tcp->snd_wnd == 0) << PYRO_TCP_RECEIVED;
}

// One load that is enough for most packets. The low half of what the kernel predicts of the next header is the peer's
// window; with our own window closed it predicts nothing. 0 for other reasons too: then the windows themselves tell.
PYRO_INLINE int pyro_tcp_may_be_closed(struct tcp_sock* tcp) {
  return (tcp->pred_flags & 0xffff0000u) == 0;  // network order
}

SEC("tp_btf/tcp_probe")
int BPF_PROG(pyro_tcp_probe, struct sock* sk) {
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return 0;
  }
  if (!socket->known) pyro_tcp_adopt(sk, socket);
  if (socket->zero_windows || pyro_tcp_may_be_closed(tcp)) {
    __u8 closed = pyro_tcp_closed_windows(tcp);
    if (closed != socket->zero_windows) pyro_tcp_windows(sk, tcp, socket, closed);
  }
  __u64 now_us = tcp->tcp_mstamp;  // the connection's own clock: free, where bpf_ktime_get_ns costs 45 ns
  __u64 since_us = now_us - socket->last_us;
  if (socket->last_us != 0) {
    if (since_us < pyro_min_interval_us) return 0;
    if (tcp->srtt_us == socket->last_srtt && since_us < PYRO_STEADY_INTERVAL_US) return 0;
  }
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return 0;
  if (tcp->srtt_us != 0) socket->last_us = now_us;
  pyro_tcp_report(sk, tcp, socket, flow);
  return 0;
}

PYRO_INLINE __u32 pyro_tcp_cause(const struct sock* sk, struct tcp_sock* tcp) {
  __u8 state = sk->__sk_common.skc_state;
  if (state == PYRO_TCP_SYN_SENT || state == PYRO_TCP_SYN_RECV) return PYRO_TCP_RETRANSMIT_HANDSHAKE;
  __u32 congestion = (__u32)BPF_CORE_READ_BITFIELD(&tcp->inet_conn, icsk_ca_state);
  if (congestion == bpf_core_enum_value(enum tcp_ca_state, TCP_CA_Loss)) return PYRO_TCP_RETRANSMIT_RTO;
  if (congestion == bpf_core_enum_value(enum tcp_ca_state, TCP_CA_Recovery)) return PYRO_TCP_RETRANSMIT_FAST;
  // The timer whose handler runs now is still marked as pending.
  if (tcp->inet_conn.icsk_pending == PYRO_ICSK_TIME_LOSS_PROBE) return PYRO_TCP_RETRANSMIT_TLP;
  return PYRO_TCP_RETRANSMIT_OTHER;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(pyro_tcp_retransmit, struct sock* sk) {
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return 0;
  }
  __u32 cause = pyro_tcp_cause(sk, tcp);
  if (!socket->known && cause != PYRO_TCP_RETRANSMIT_HANDSHAKE) {
    pyro_tcp_adopt(sk, socket);
    if (socket->retransmitted != 0) socket->retransmitted--;  // this one is ours
  }
  // The socket's own count, because one event may be several segments.
  __u32 segments = tcp->total_retrans - socket->retransmitted;
  socket->retransmitted = tcp->total_retrans;
  if (segments == 0) return 0;
  struct pyro_tcp_flow* flow =
      pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->directed ? socket->direction : PYRO_TCP_OUT);
  if (flow && cause < PYRO_TCP_RETRANSMIT_CAUSES) __sync_fetch_and_add(&flow->retransmits[cause], segments);
  return 0;
}

// The connection is no socket yet: it belongs to its listener.
SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(pyro_tcp_retransmit_synack, struct sock* sk, const struct request_sock* request) {
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, 0);
  struct pyro_tcp_key key = {.direction = PYRO_TCP_IN};
  key.owner.cgroup_id = sk->sk_cgrp_data.cgroup->kn->id;
  key.owner.cgroup_v1_id = socket ? socket->cgroup_v1_id : 0;
  key.local_port = pyro_local_port(tcp);
  pyro_tcp_set_peer(&request->__req_common, &key);
  struct pyro_tcp_flow* flow = pyro_flow_by_key(&key);
  if (flow) __sync_fetch_and_add(&flow->retransmits[PYRO_TCP_RETRANSMIT_HANDSHAKE], 1);
  return 0;
}

PYRO_INLINE void pyro_tcp_reset(struct sock* sk, __u32 way) {
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return;
  // A listener has no peer: what it refuses belongs to nobody's flow.
  if (sk->__sk_common.skc_state == PYRO_TCP_LISTEN) return;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, 0);
  __u8 direction = socket && socket->directed ? socket->direction : pyro_guess_direction(sk, tcp);
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket ? socket->cgroup_v1_id : 0, direction);
  if (flow) __sync_fetch_and_add(&flow->resets[way & 1], 1);
}

// No socket: the answer to a packet for a port where nobody listens.
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(pyro_tcp_send_reset, struct sock* sk) {
  if (sk) pyro_tcp_reset(sk, PYRO_TCP_SENT);
  return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(pyro_tcp_receive_reset, struct sock* sk) {
  pyro_tcp_reset(sk, PYRO_TCP_RECEIVED);
  return 0;
}

PYRO_INLINE void pyro_tcp_established(struct sock* sk, struct tcp_sock* tcp, int old_state) {
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return;
  }
  __u64 connect_ns = socket->connect_ns;
  // The handshake's SYN is already in the byte counts; it is not a byte of anybody's.
  pyro_tcp_begin(tcp, socket, old_state == PYRO_TCP_SYN_SENT ? PYRO_TCP_OUT : PYRO_TCP_IN);
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return;
  __sync_fetch_and_add(&flow->opened, 1);
  if (old_state == PYRO_TCP_SYN_SENT && connect_ns) {
    pyro_tcp_record(flow->id, PYRO_TCP_CONNECT, bpf_ktime_get_ns() - connect_ns);
  }
}

PYRO_INLINE void pyro_tcp_closed(struct sock* sk, struct tcp_sock* tcp, int old_state) {
  if (old_state == PYRO_TCP_LISTEN || old_state == PYRO_TCP_CLOSE) return;
  if (old_state == PYRO_TCP_SYN_RECV) return;  // never established
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return;
  }
  if (old_state == PYRO_TCP_SYN_SENT) {
    struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, PYRO_TCP_OUT);
    if (flow) __sync_fetch_and_add(&flow->failed, 1);
    socket->connect_ns = 0;
    return;
  }
  if (!socket->known) pyro_tcp_adopt(sk, socket);
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return;
  __sync_fetch_and_add(&flow->closed, 1);
  pyro_tcp_report(sk, tcp, socket, flow);
  // Once more, should the iterator have claimed a part between.
  pyro_tcp_report_bytes(sk, tcp, socket, flow);
  __u32 uncounted = tcp->total_retrans - socket->retransmitted;  // segments that could not even be sent
  if (uncounted) __sync_fetch_and_add(&flow->retransmits[PYRO_TCP_RETRANSMIT_OTHER], uncounted);
  socket->known = 0;
  socket->last_us = 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(pyro_tcp_state, struct sock* sk, int old_state, int new_state) {
  if (sk->sk_protocol != PYRO_IPPROTO_TCP) return 0;
  if (new_state != PYRO_TCP_SYN_SENT && new_state != PYRO_TCP_LISTEN && new_state != PYRO_TCP_ESTABLISHED &&
      new_state != PYRO_TCP_CLOSE) {
    return 0;
  }
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  if (new_state == PYRO_TCP_ESTABLISHED) {
    pyro_tcp_established(sk, tcp, old_state);
  } else if (new_state == PYRO_TCP_CLOSE) {
    pyro_tcp_closed(sk, tcp, old_state);
  } else {
    // In connect() or listen(): "current" is the owner.
    struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!socket) {
      PYRO_TCP_COUNT(storage_lost);
      return 0;
    }
    socket->cgroup_v1_id = pyro_v1_id(bpf_get_current_task_btf());
    socket->connect_ns = new_state == PYRO_TCP_SYN_SENT ? bpf_ktime_get_ns() : 0;
    socket->direction = new_state == PYRO_TCP_SYN_SENT ? PYRO_TCP_OUT : PYRO_TCP_IN;
    socket->directed = 1;
    socket->known = 0;
    socket->retransmitted = tcp->total_retrans;
  }
  return 0;
}

// Visits every socket that has storage, which is each that inet_sock_set_state or the scan has seen, in all network
// namespaces; holds no lock of the socket.
SEC("iter/bpf_sk_storage_map")
int pyro_tcp_poll(struct bpf_iter__bpf_sk_storage_map* ctx) {
  struct sock* sk = ctx->sk;
  const struct pyro_tcp_socket* seen = ctx->value;
  if (!sk || !seen || !seen->known) return 0;
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  __u32 state = sk->__sk_common.skc_state & 31;
  if (!(PYRO_STATE_BIT(state) & PYRO_TCP_OPEN_STATES)) return 0;
  __u8 closed = pyro_tcp_closed_windows(tcp);
  int active = tcp->segs_in != seen->segments;
  int all = pyro_poll_pass == PYRO_TCP_POLL_ALL;
  if (!active && !all && closed == seen->zero_windows) return 0;
  // Not `seen`: the verifier lets nobody hand it on.
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, 0);
  if (!socket || !socket->known) return 0;
  if (closed != socket->zero_windows) pyro_tcp_windows(sk, tcp, socket, closed);
  // Who receives nothing has no new RTT and, but for a segment that waits for the socket's lock, no new bytes. Its time
  // is the application's, to be reported with what comes next, unless it waits for something.
  int waits = all && BPF_CORE_READ_BITFIELD(tcp, chrono_type) != 0;
  if (!active && !waits && tcp->bytes_acked <= socket->bytes_sent && tcp->bytes_received <= socket->bytes_received) {
    return 0;
  }
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return 0;
  pyro_polled++;
  pyro_tcp_peek_bytes(sk, tcp, socket, flow);
  if (!active && !waits) return 0;
  pyro_tcp_report_limits(tcp, socket, flow);
  if (!active) return 0;
  pyro_tcp_report_segments(tcp, socket);
  __u64 now_us = tcp->tcp_mstamp;
  __u64 since_us = now_us - socket->last_us;
  if (socket->last_us != 0 &&
      (since_us < pyro_min_interval_us || (tcp->srtt_us == socket->last_srtt && since_us < PYRO_STEADY_INTERVAL_US))) {
    return 0;
  }
  if (pyro_tcp_report_rtt(tcp, socket, flow)) socket->last_us = now_us;
  return 0;
}

// Visits every open file of every process, and so the sockets of all network namespaces together with a process that
// holds them, which iter/tcp does not: it walks one namespace and knows no process.
SEC("iter/task_file")
int pyro_tcp_scan(struct bpf_iter__task_file* ctx) {
  struct file* file = ctx->file;
  struct task_struct* task = ctx->task;
  if (!file || !task) return 0;
  struct socket* opened = bpf_sock_from_file(file);
  if (!opened) return 0;
  struct sock* sk = opened->sk;
  if (!sk) return 0;
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  __u32 state = sk->__sk_common.skc_state & 31;
  __u32 wanted = pyro_scan_pass == PYRO_TCP_SCAN_LISTENERS ? PYRO_STATE_BIT(PYRO_TCP_LISTEN)
                                                           : PYRO_TCP_OPEN_STATES | PYRO_STATE_BIT(PYRO_TCP_SYN_SENT);
  if (!(PYRO_STATE_BIT(state) & wanted)) return 0;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return 0;
  }
  if (socket->known) {
    struct pyro_tcp_flow* flow;
    if (tcp->bytes_acked <= socket->bytes_sent && tcp->bytes_received <= socket->bytes_received) return 0;
    flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
    if (flow) pyro_tcp_peek_bytes(sk, tcp, socket, flow);
    return 0;
  }
  if (socket->cgroup_v1_id == 0) socket->cgroup_v1_id = pyro_v1_id(task);
  if (state == PYRO_TCP_LISTEN) {
    struct pyro_tcp_listener listener = {.netns = sk->__sk_common.skc_net.net->ns.inum, .port = pyro_local_port(tcp)};
    __u8 yes = 1;
    bpf_map_update_elem(&pyro_tcp_listeners, &listener, &yes, BPF_ANY);
    socket->direction = PYRO_TCP_IN;
    socket->directed = 1;
  } else if (state == PYRO_TCP_SYN_SENT) {
    if (!socket->directed) socket->retransmitted = tcp->total_retrans;
    socket->direction = PYRO_TCP_OUT;
    socket->directed = 1;
  } else {
    pyro_tcp_adopt(sk, socket);
    PYRO_TCP_COUNT(found);
  }
  return 0;
}

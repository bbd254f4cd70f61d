// RTT, connect time, retransmits and bytes per (socket's cgroup, peer).
//
// tcp_probe fires for each packet received by an established connection, mostly in softirq, where
// "current" is whoever was interrupted: the owner is read from the socket. Process context and softirq may
// interrupt one another between these programs, hence atomic additions.
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

#define PYRO_AF_INET 2
#define PYRO_AF_INET6 10
#define PYRO_IPPROTO_TCP 6
#define PYRO_TCP_ESTABLISHED 1
#define PYRO_TCP_SYN_SENT 2
#define PYRO_TCP_SYN_RECV 3
#define PYRO_TCP_CLOSE 7
#define PYRO_TCP_LISTEN 10

// Number of the current window; user space raises it when it drains.
__u32 pyro_epoch = 1;
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

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_tcp_counters);
} pyro_counters SEC(".maps");

#define PYRO_TCP_COUNT(member)                                                         \
  do {                                                                                 \
    __u32 zero_ = 0;                                                                   \
    struct pyro_tcp_counters* counters_ = bpf_map_lookup_elem(&pyro_counters, &zero_); \
    if (counters_) __sync_fetch_and_add(&counters_->member, 1);                        \
  } while (0)

PYRO_INLINE __u16 pyro_swap16(__u16 v) { return (__u16)(v << 8 | v >> 8); }

// The port stays in inet_sport until the end; skc_num is already 0 when a socket closes.
PYRO_INLINE __u16 pyro_local_port(struct tcp_sock* tcp) { return pyro_swap16(tcp->inet_conn.icsk_inet.inet_sport); }

PYRO_INLINE __u8 pyro_guess_direction(struct tcp_sock* tcp) {
  __u16 port = pyro_local_port(tcp);
  return port >= pyro_ephemeral_low && port <= pyro_ephemeral_high ? PYRO_TCP_OUT : PYRO_TCP_IN;
}

PYRO_INLINE void pyro_tcp_key_of(const struct sock* sk, struct tcp_sock* tcp, __u64 cgroup_v1_id, __u8 direction,
                                 struct pyro_tcp_key* key) {
  key->owner.cgroup_id = sk->sk_cgrp_data.cgroup->kn->id;
  key->owner.cgroup_v1_id = cgroup_v1_id;
  key->direction = direction;
  __u32* peer = (__u32*)key->peer;
  if (sk->__sk_common.skc_family == PYRO_AF_INET6) {
    const __be32* address = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32;
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
    peer[0] = sk->__sk_common.skc_daddr;
  }
  if (direction == PYRO_TCP_OUT) {
    key->peer_port = pyro_swap16(sk->__sk_common.skc_dport);
  } else {
    key->local_port = pyro_local_port(tcp);
  }
}

PYRO_INLINE struct pyro_tcp_flow* pyro_flow_of(const struct sock* sk, struct tcp_sock* tcp, __u64 cgroup_v1_id,
                                               __u8 direction) {
  struct pyro_tcp_key key = {};
  pyro_tcp_key_of(sk, tcp, cgroup_v1_id, direction, &key);
  struct pyro_tcp_flow* flow = bpf_map_lookup_elem(&pyro_tcp_flows, &key);
  if (flow) return flow;
  struct pyro_tcp_flow fresh = {.id = __sync_fetch_and_add(&pyro_next_flow, 1)};
  bpf_map_update_elem(&pyro_tcp_flows, &key, &fresh, BPF_NOEXIST);
  flow = bpf_map_lookup_elem(&pyro_tcp_flows, &key);
  if (flow) return flow;
  PYRO_TCP_COUNT(folded);
  struct pyro_tcp_key fold = {.direction = PYRO_TCP_OTHER};
  flow = bpf_map_lookup_elem(&pyro_tcp_flows, &fold);
  if (!flow) PYRO_TCP_COUNT(lost);
  return flow;
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

// Reports what the socket has not reported yet.
PYRO_INLINE void pyro_tcp_report(struct tcp_sock* tcp, struct pyro_tcp_socket* socket, struct pyro_tcp_flow* flow) {
  __u64 sent = tcp->bytes_acked, received = tcp->bytes_received;
  if (sent > socket->bytes_sent) __sync_fetch_and_add(&flow->bytes_sent, sent - socket->bytes_sent);
  if (received > socket->bytes_received) {
    __sync_fetch_and_add(&flow->bytes_received, received - socket->bytes_received);
  }
  socket->bytes_sent = sent;
  socket->bytes_received = received;
  __u32 srtt = tcp->srtt_us;
  if (srtt == 0) return;  // nothing measured yet
  socket->last_srtt = srtt;
  pyro_tcp_record(flow->id, PYRO_TCP_SRTT, (__u64)srtt * 125);  // eighths of a microsecond
  __u32 minimum = tcp->rtt_min.s[0].v;
  if (minimum != 0xffffffff) pyro_tcp_record(flow->id, PYRO_TCP_MIN_RTT, (__u64)minimum * 1000);
  PYRO_TCP_COUNT(samples);
}

// First sight of a connection that was made before we were attached: what it did so far is not ours.
PYRO_INLINE void pyro_tcp_adopt(struct tcp_sock* tcp, struct pyro_tcp_socket* socket) {
  socket->direction = pyro_guess_direction(tcp);
  socket->known = 1;
  socket->established = 1;
  socket->bytes_sent = tcp->bytes_acked;
  socket->bytes_received = tcp->bytes_received;
}

SEC("tp_btf/tcp_probe")
int BPF_PROG(pyro_tcp_probe, struct sock* sk) {
  PYRO_TCP_COUNT(packets);
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp) return 0;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return 0;
  }
  if (!socket->known) pyro_tcp_adopt(tcp, socket);
  __u64 now_us = tcp->tcp_mstamp;  // the connection's own clock: free, where bpf_ktime_get_ns costs 45 ns
  __u64 since_us = now_us - socket->last_us;
  if (socket->last_us != 0) {
    if (since_us < pyro_min_interval_us) return 0;
    if (tcp->srtt_us == socket->last_srtt && since_us < PYRO_STEADY_INTERVAL_US) return 0;
  }
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return 0;
  if (tcp->srtt_us != 0) socket->last_us = now_us;
  pyro_tcp_report(tcp, socket, flow);
  return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(pyro_tcp_retransmit, const struct sock* sk) {
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock((void*)sk);
  if (!tcp) return 0;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, (void*)sk, 0, 0);
  __u8 direction = PYRO_TCP_OUT;
  __u64 v1_id = socket ? socket->cgroup_v1_id : 0;
  if (socket && socket->known) {
    direction = socket->direction;
  } else if (sk->__sk_common.skc_state != PYRO_TCP_SYN_SENT) {
    direction = pyro_guess_direction(tcp);
  }
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, v1_id, direction);
  if (flow) __sync_fetch_and_add(&flow->segments_retransmitted, 1);
  return 0;
}

PYRO_INLINE void pyro_tcp_established(const struct sock* sk, struct tcp_sock* tcp, int old_state) {
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, (void*)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!socket) {
    PYRO_TCP_COUNT(storage_lost);
    return;
  }
  __u64 connect_ns = socket->connect_ns;
  socket->direction = old_state == PYRO_TCP_SYN_SENT ? PYRO_TCP_OUT : PYRO_TCP_IN;
  socket->known = 1;
  socket->established = 1;
  socket->connect_ns = 0;
  socket->last_us = 0;
  socket->last_srtt = 0;
  // The handshake's SYN is already in these counts; it is not a byte of anybody's.
  socket->bytes_sent = tcp->bytes_acked;
  socket->bytes_received = tcp->bytes_received;
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket->cgroup_v1_id, socket->direction);
  if (!flow) return;
  __sync_fetch_and_add(&flow->opened, 1);
  if (old_state == PYRO_TCP_SYN_SENT && connect_ns) {
    pyro_tcp_record(flow->id, PYRO_TCP_CONNECT, bpf_ktime_get_ns() - connect_ns);
  }
}

PYRO_INLINE void pyro_tcp_closed(const struct sock* sk, struct tcp_sock* tcp, int old_state) {
  if (old_state == PYRO_TCP_LISTEN || old_state == PYRO_TCP_CLOSE) return;
  struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, (void*)sk, 0, 0);
  if (old_state == PYRO_TCP_SYN_SENT) {
    struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket ? socket->cgroup_v1_id : 0, PYRO_TCP_OUT);
    if (flow) __sync_fetch_and_add(&flow->failed, 1);
    if (socket) socket->connect_ns = 0;
    return;
  }
  if (old_state == PYRO_TCP_SYN_RECV) return;  // never established
  __u8 direction = socket && socket->known ? socket->direction : pyro_guess_direction(tcp);
  struct pyro_tcp_flow* flow = pyro_flow_of(sk, tcp, socket ? socket->cgroup_v1_id : 0, direction);
  if (!flow) return;
  __sync_fetch_and_add(&flow->closed, 1);
  if (socket && socket->established) {
    pyro_tcp_report(tcp, socket, flow);
    socket->established = 0;
    socket->known = 0;
    socket->last_us = 0;
  }
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(pyro_tcp_state, const struct sock* sk, int old_state, int new_state) {
  if (sk->sk_protocol != PYRO_IPPROTO_TCP) return 0;
  if (new_state == PYRO_TCP_SYN_SENT || new_state == PYRO_TCP_LISTEN) {
    // In connect() or listen(): "current" is the owner.
    struct pyro_tcp_socket* socket = bpf_sk_storage_get(&pyro_tcp_sockets, (void*)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!socket) {
      PYRO_TCP_COUNT(storage_lost);
      return 0;
    }
    socket->cgroup_v1_id = pyro_v1_id(bpf_get_current_task_btf());
    socket->connect_ns = new_state == PYRO_TCP_SYN_SENT ? bpf_ktime_get_ns() : 0;
    return 0;
  }
  if (new_state != PYRO_TCP_ESTABLISHED && new_state != PYRO_TCP_CLOSE) return 0;
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock((void*)sk);
  if (!tcp) return 0;
  if (new_state == PYRO_TCP_ESTABLISHED) {
    pyro_tcp_established(sk, tcp, old_state);
  } else {
    pyro_tcp_closed(sk, tcp, old_state);
  }
  return 0;
}

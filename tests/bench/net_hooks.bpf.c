// What a hook costs before it does anything: programs that net_cost --hooks puts beside the probe. One per object, by
// HOOK:
//
//   0  tp_btf/tcp_probe, empty
//   1  sock_ops, called for RTT_CB, empty
//   2  sock_ops, and the socket's storage looked up
//   3  sock_ops, and its clock compared with that of its last value, one a millisecond
#include "bpf/lib/program.h"

#if HOOK == 0
SEC("tp_btf/tcp_probe")
int BPF_PROG(pyro_hook_tcp_probe, struct sock* sk) { return 0; }
#else
struct last {
  __u64 us;
  __u64 values;
};
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct last);
} pyro_hook_sockets SEC(".maps");

PYRO_INLINE void pyro_hook_measured(struct bpf_sock_ops* ops) {
#if HOOK > 1
  struct bpf_sock* sk = ops->sk;
  if (!sk) return;
  struct last* last = bpf_sk_storage_get(&pyro_hook_sockets, sk, 0, 0);
  if (!last) return;
#if HOOK > 2
  struct tcp_sock* tcp = bpf_skc_to_tcp_sock(sk);
  if (!tcp || tcp->tcp_mstamp - last->us < 1000) return;
  last->us = tcp->tcp_mstamp;
#endif
  last->values++;
#endif
}

SEC("sockops")
int pyro_hook_sock_ops(struct bpf_sock_ops* ops) {
  if (ops->op == BPF_SOCK_OPS_RTT_CB) {
    pyro_hook_measured(ops);
  } else if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
    struct bpf_sock* sk = ops->sk;
    if (sk) bpf_sk_storage_get(&pyro_hook_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
  }
  return 1;
}
#endif

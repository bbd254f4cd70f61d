// Where the octave of a key is counted without a hash look-up, if one of the places of its set is its own.
//
// Compiles for BPF and natively.
#pragma once

#include "bpf/abi/syscall_latency.h"
#include "bpf/lib/inline.h"

// Multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4): a product with the golden ratio, never 0,
// whose upper bits tell the set. `shift` is 64 less the binary logarithm of the number of sets. Keys with the same tag
// and sets that are full cost a look-up, no count.
PYRO_INLINE __u64 pyro_hot_tag(const struct pyro_syscall_octave_key* key) {
  __u64 call = (__u64)(__u32)key->call.nr << 8 | (__u64)key->call.flags << 40 | key->octave;
  __u64 owner =
      key->call.owner.cgroup_id * 0xff51afd7ed558ccdull ^ key->call.owner.cgroup_v1_id * 0xc4ceb9fe1a85ec53ull;
  return (owner ^ call) * 0x9e3779b97f4a7c15ull | 1;
}

PYRO_INLINE __u32 pyro_hot_set_of(__u64 tag, __u32 shift) { return (__u32)(tag >> (shift & 63)); }

PYRO_INLINE int pyro_same_octave_key(const struct pyro_syscall_octave_key* a, const struct pyro_syscall_octave_key* b) {
  return a->call.owner.cgroup_id == b->call.owner.cgroup_id &&
         a->call.owner.cgroup_v1_id == b->call.owner.cgroup_v1_id && a->call.nr == b->call.nr &&
         a->call.flags == b->call.flags && a->octave == b->octave;
}

// Fixed-width types and assertions for records shared by BPF programs and user space.
//
// Headers in bpf/abi are the only ones that both worlds include. Rules: fixed-width members only,
// padding spelled out, every struct's size asserted here by clang (BPF) and g++ (user space),
// PYRO_ABI_VERSION raised with any change of layout or meaning. Programs carry the version in
// their read-only data; the loader refuses an object built from other headers.
#pragma once

#ifdef __bpf__
#include "bpf/lib/kernel_types.h"
#else
#include <linux/types.h>
#endif

#ifdef __cplusplus
#define PYRO_STATIC_ASSERT(condition, why) static_assert(condition, why)
#else
#define PYRO_STATIC_ASSERT(condition, why) _Static_assert(condition, why)
#endif

#define PYRO_ABI_VERSION 3

#define PYRO_COMM_BYTES 16  // TASK_COMM_LEN of the kernel

// Whose work it is: cgroup ids as seen by bpf_get_current_cgroup_id() (cgroup2) and the kernfs id
// of the same task's cgroup in one cgroup1 hierarchy (0 when there is none). Both are inode
// numbers of the cgroup's directory, but of different file systems: never compare one with the other.
struct pyro_owner {
  __u64 cgroup_id;     // cgroup2; 1 is the root
  __u64 cgroup_v1_id;  // chosen cgroup1 controller; 0: none mounted
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_owner) == 16, "pyro_owner");

// The cgroup1 controllers that cgroup_v1_id can come from, in the order in which they are preferred: container
// runtimes give each container a directory of its own in all of these.
enum pyro_v1_controller {
  PYRO_V1_NONE = 0,
  PYRO_V1_MEMORY = 1,
  PYRO_V1_CPU = 2,
  PYRO_V1_CPUACCT = 3,
  PYRO_V1_PIDS = 4,
  PYRO_V1_FREEZER = 5,
  PYRO_V1_DEVICES = 6,
};

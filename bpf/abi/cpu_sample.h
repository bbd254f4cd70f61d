// Records of the probe cpu_sampler (bpf/probes/cpu_sampler.bpf.c).
#pragma once

#include "bpf/abi/stack.h"
#include "bpf/abi/types.h"
#include "bpf/abi/unwind.h"

// One sample on the ring: this header, then user_frames and kernel_frames addresses (u64 each, leaf first); with
// raw_bytes, then struct pyro_raw_registers and raw_bytes bytes of stack. Nothing else.
struct pyro_cpu_sample {
  __u64 time_ns;            // CLOCK_MONOTONIC
  __u64 start_time_ns;      // group leader's start, CLOCK_BOOTTIME
  struct pyro_owner owner;  // of the running task
  __u32 tgid;               // process
  __u32 tid;                // thread
  __u32 cpu;                // processor the sample was taken on
  __u32 raw_bytes;          // of stack, a multiple of 8, at most PYRO_MAX_RAW_STACK_BYTES; 0: no copy
  __u16 user_frames;        // addresses that follow, at most PYRO_MAX_USER_FRAMES
  __u8 kernel_frames;       // addresses after the user's, at most PYRO_MAX_KERNEL_FRAMES
  __u8 kernel_stop;         // enum pyro_stop_reason
  __u8 user_stop;           // enum pyro_stop_reason
  __u8 means;               // bits of enum pyro_walk_means
  __u8 pad[2];
  char comm[PYRO_COMM_BYTES];          // thread name, NUL-padded
  char process_comm[PYRO_COMM_BYTES];  // group leader's name, NUL-padded
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_cpu_sample) == 88, "pyro_cpu_sample");

// Per-CPU counters; user space sums over CPUs. Every perf interrupt adds one to exactly one of idle,
// filtered and taken; every taken sample to exactly one of submitted, the dropped_ counters and deferred; every
// deferred one, when its task goes on, to exactly one of deferred_submitted and deferred_dropped.
struct pyro_cpu_counters {
  __u64 idle;                           // hit the idle task
  __u64 filtered;                       // outside of the session's target
  __u64 taken;                          // samples of the target
  __u64 submitted;                      // written to the ring
  __u64 dropped_ring_full;              // ring had no room
  __u64 dropped_scratch;                // per-CPU scratch record absent (a bug if ever seen)
  __u64 deferred;                       // left to task work, which counts them below
  __u64 deferred_submitted;             // written to the ring
  __u64 deferred_dropped;               // ring had no room
  __u64 raw_copies;                     // submitted samples that carry a copy of the stack
  __u64 raw_refused;                    // samples that wanted one when the ring was half full
  __u64 kernel_stops[PYRO_STOP_COUNT];  // by enum pyro_stop_reason
  __u64 user_stops[PYRO_STOP_COUNT];
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_cpu_counters) == 88 + 16 * PYRO_STOP_COUNT, "pyro_cpu_counters");

enum pyro_filter_mode {
  PYRO_FILTER_ALL = 0,        // every task
  PYRO_FILTER_PROCESSES = 1,  // tgids in the map `pyro_target_tgids`, descendants added at fork
  PYRO_FILTER_CGROUPS = 2,    // cgroups in the map `pyro_target_cgroups`, and those below them
};

// Key of pyro_target_cgroups.
struct pyro_cgroup_key {
  __u64 id;
  __u32 v1;  // 1: id belongs to the cgroup1 hierarchy
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_cgroup_key) == 16, "pyro_cgroup_key");

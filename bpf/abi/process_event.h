// Records of the probe process_events (bpf/probes/process_events.bpf.c).
#pragma once

#include "bpf/abi/types.h"

#define PYRO_PATH_BYTES 256  // longest file name carried by an exec record; longer ones are cut

enum pyro_process_event_kind {
  PYRO_PROCESS_FORK = 1,  // a new process (not a thread)
  PYRO_PROCESS_EXEC = 2,  // a process runs a new program
  PYRO_PROCESS_EXIT = 3,  // the last thread of a process ends
};

// On the ring; exec records carry `path`, the others end before it.
struct pyro_process_event {
  __u64 time_ns;               // CLOCK_MONOTONIC
  __u64 start_time_ns;         // of the process (group leader), CLOCK_BOOTTIME
  __u64 parent_start_time_ns;  // of the parent process; fork only, else 0
  struct pyro_owner owner;
  __u32 kind;  // enum pyro_process_event_kind
  __u32 tgid;
  __u32 tid;  // thread that did it
  __u32 parent_tgid;
  __s32 exit_code;   // as in wait(2); exit only
  __u32 path_bytes;  // with the NUL; 0: none
  char comm[PYRO_COMM_BYTES];
  char path[PYRO_PATH_BYTES];
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_process_event) == 80 + PYRO_PATH_BYTES, "pyro_process_event");

// Per-CPU counters: taken = submitted + dropped_ring_full.
struct pyro_process_counters {
  __u64 taken;
  __u64 submitted;
  __u64 dropped_ring_full;
  __u64 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_process_counters) == 32, "pyro_process_counters");

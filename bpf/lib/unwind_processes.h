// Which mappings each process has, for the stack walk.
//
// The map belongs to user space (userspace/kernel/unwind_maps.h), which puts it into every object that wants it.
#pragma once

#include "bpf/abi/unwind.h"
#include "bpf/lib/program.h"

// tgid -> where its mappings are. Written by user space; copied at fork, made void at exec, removed at exit by the
// probe process_events. 32 bytes and a hash entry (about 64 bytes) per process; size and flags are set before load.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_unwind_process);
} pyro_unwind_processes SEC(".maps");

// What each thread is doing, kept in the kernel's own storage of the task: one look-up without a hash, freed by the
// kernel with the task.
//
// The map belongs to syscall_latency; user space puts it into off_cpu too when both run (bpf/abi/off_cpu.h). A task's
// value is written by programs that run on its own behalf, or, while it does not run, by the switch that takes it off a
// CPU or brings it back and by its wake-up: one at a time, in the order in which the scheduler calls them.
#pragma once

#include "bpf/abi/off_cpu.h"
#include "bpf/lib/program.h"

struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct pyro_task_state);
} pyro_task_states SEC(".maps");

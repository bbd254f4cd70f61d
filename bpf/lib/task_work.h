// What programs need to hang work on a task (6.18).
#pragma once

#include "bpf/lib/program.h"

// The kernel's own type, opaque: a piece of task work inside a map's value.
struct bpf_task_work {
  __u64 __opaque;
} __attribute__((aligned(8)));

// Complete, for libbpf compares kinds: a declaration alone is no struct to it.
struct bpf_map {
  __u32 id;
} PYRO_KERNEL_TYPE;

// Absent before 6.18: only programs that are loaded where it exists may call it.
extern int bpf_task_work_schedule_resume_impl(struct task_struct* task, struct bpf_task_work* work, void* map,
                                              int (*callback)(struct bpf_map*, void*, void*),
                                              void* unused) __ksym __weak;

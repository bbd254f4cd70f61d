// Finishes, on the thread's way back to user mode, a walk that met a page that was not in memory.
//
// In an interrupt nothing may be faulted in, so a stack page that the kernel has taken away meanwhile (reclaim,
// migration; the file behind a coroutine's stack) ends the walk. Since Linux 6.18 a program can hang work on a task: it
// runs in the task's own context, where it may sleep, before the task executes another user instruction, so that its
// registers and its stack are still what they were. There the page is faulted in and the walk repeated.
//
// Only such samples take this way, a few in 10,000; for all others the interrupt is the cheaper place.
//
// A slot holds what the sample is made of meanwhile. What finds no free slot, or whose task takes no work (it is
// ending), is sent as it is.
#pragma once

#include "bpf/abi/cpu_sample.h"
#include "bpf/lib/task_work.h"
#include "bpf/lib/user_stack.h"

#define PYRO_DEFERRED_SLOTS 64u
#define PYRO_DEFERRED_TRIES 4   // slots looked at
#define PYRO_DEFERRED_FAULTS 8  // pages faulted in for one walk

struct pyro_deferred_sample {
  struct bpf_task_work work;
  __u32 taken;         // 1: in use
  __u32 kernel_bytes;  // of kernel_frames
  __u64 kernel_frames[PYRO_MAX_KERNEL_FRAMES + 1];
  struct pyro_user_regs regs;
  struct pyro_walk walk;  // with the sample's header
  __u64 tail[PYRO_MAX_KERNEL_FRAMES + 1];
};

// Number -> slot. 8.6 KiB each; sized 1 before load where it is not used.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, PYRO_DEFERRED_SLOTS);
  __type(key, __u32);
  __type(value, struct pyro_deferred_sample);
} pyro_deferred_samples SEC(".maps");

__u32 pyro_next_deferred = 0;

// A free slot, now taken; NULL: there is none at hand.
PYRO_INLINE struct pyro_deferred_sample* pyro_take_deferred(void) {
#pragma clang loop unroll(disable)
  for (int i = 0; i < PYRO_DEFERRED_TRIES; i++) {
    __u32 number = __sync_fetch_and_add(&pyro_next_deferred, 1) & (PYRO_DEFERRED_SLOTS - 1);
    struct pyro_deferred_sample* slot = bpf_map_lookup_elem(&pyro_deferred_samples, &number);
    if (slot && __sync_val_compare_and_swap(&slot->taken, 0, 1) == 0) return slot;
  }
  return 0;
}

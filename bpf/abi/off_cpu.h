// Maps and records of the probe off_cpu (bpf/probes/off_cpu.bpf.c), and what it shares with syscall_latency.
#pragma once

#include "bpf/abi/stack.h"
#include "bpf/abi/types.h"

// Why a thread is not running. The last two are waits for a processor, all others are blocked.
enum pyro_wait_cause {
  PYRO_WAIT_OTHER = 0,       // a child process, a tracer, a stop signal, or not known
  PYRO_WAIT_LOCK = 1,        // futex, file lock, semaphore, or a sleeping lock of the kernel
  PYRO_WAIT_BLOCK_IO = 2,    // a disk
  PYRO_WAIT_NETWORK = 3,     // a socket to elsewhere (any family but Unix and netlink)
  PYRO_WAIT_TIMER = 4,       // asked to sleep
  PYRO_WAIT_PAGE_FAULT = 5,  // memory that has to be read first
  PYRO_WAIT_POLL = 6,        // pipe, Unix socket, terminal, event descriptor, poll, a signal
  PYRO_WAIT_RUNNABLE = 7,    // ready to run; processors were busy
  PYRO_WAIT_THROTTLED = 8,   // ready to run; its cgroup's CPU quota was used up
  PYRO_WAIT_CAUSES = 9,
};

// The thread has entered no call since the probes were attached: if it is in one, that is older.
#define PYRO_NR_NONE_SEEN (-2)

// What one thread is doing: the open system call, and the wait it is in. Written by syscall_latency (the first four
// members at entry, all but the wait at exit) and by off_cpu, which runs when the thread does not.
struct pyro_task_state {
  __u64 call_ns;  // entry of the open system call, CLOCK_MONOTONIC; 0: none is open
  __s32 nr;       // of the open call, or the last one; PYRO_NR_NONE_SEEN
  __u32 flags;    // PYRO_SYSCALL_*
  __u64 off_ns;   // when it left its CPU; 0: it runs, or was never seen leaving
  __u64 wake_ns;  // when it became ready to run; 0: blocked
  __u64 lock;     // sleeping lock of the kernel that it waits for; 0: none
  __u8 cause;     // enum pyro_wait_cause of the blocked part
  __u8 queue;     // PYRO_WAIT_RUNNABLE or PYRO_WAIT_THROTTLED
  __u8 blocked;   // 0: it left its CPU ready to run
  __u8 waited;    // some waited_ns is not 0
  __u32 generation;  // pyro_generation when the open call was entered: what is older counts for nothing
  __u64 waited_ns[PYRO_WAIT_CAUSES];  // of the open call, by cause
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_task_state) == 48 + 8 * PYRO_WAIT_CAUSES, "pyro_task_state");

// pyro_call_causes: cause of a blocked call by its number; with this bit, the cause by the kind of its first argument,
// a file descriptor.
#define PYRO_CAUSE_BY_FD 0x80u
#define PYRO_CALL_CAUSES 512u  // x86-64 numbers end below

// Key of pyro_wait_totals -> per-CPU struct pyro_wait_total.
struct pyro_wait_key {
  struct pyro_owner owner;
  __u32 cause;   // enum pyro_wait_cause
  __u32 folded;  // 1: all owners that found no room; owner is 0
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_wait_key) == 24, "pyro_wait_key");

struct pyro_wait_total {
  __u64 count;
  __u64 ns;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_wait_total) == 16, "pyro_wait_total");

// Key of pyro_queue_octaves -> per-CPU struct pyro_octave: waits for a processor in ns, both causes.
struct pyro_queue_key {
  struct pyro_owner owner;
  __u32 octave;
  __u32 folded;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_queue_key) == 24, "pyro_queue_key");

enum pyro_waker_kind {
  PYRO_WAKER_NONE = 0,       // not a wake-up: a wait for a processor, or the wake-up was not seen
  PYRO_WAKER_TASK = 1,       // waker_tgid … tell who
  PYRO_WAKER_INTERRUPT = 2,  // a timer, a device; only its kernel stack means anything
};

#define PYRO_MAX_WAKER_FRAMES 127  // of its kernel stack, and of its user stack

// One sampled wait, on the ring: this header, then four stacks of addresses (u64, leaf first): user and kernel of the
// thread that waited, kernel and user of the one that woke it.
struct pyro_wait_sample {
  __u64 time_ns;              // end of the wait, CLOCK_MONOTONIC
  __u64 wait_ns;              // its length
  __u64 period_ns;            // the T of its draw: it was taken with probability min(1, wait_ns / T)
  __u64 start_time_ns;        // group leader's start, CLOCK_BOOTTIME
  __u64 waker_start_time_ns;  // the same of the waker; 0: no thread
  struct pyro_owner owner;
  __u32 tgid;
  __u32 tid;
  __u32 waker_tgid;
  __u32 waker_tid;
  __s32 nr;                  // system call in flight; -1: none (user code that faulted or was preempted)
  __u16 user_frames;         // at most PYRO_MAX_USER_FRAMES
  __u8 kernel_frames;        // at most PYRO_MAX_KERNEL_FRAMES
  __u8 waker_kernel_frames;  // at most PYRO_MAX_WAKER_FRAMES
  __u8 waker_user_frames;    // at most PYRO_MAX_WAKER_FRAMES
  __u8 user_stop;            // enum pyro_stop_reason
  __u8 waker_user_stop;      // enum pyro_stop_reason
  __u8 means;                // bits of enum pyro_walk_means
  __u8 cause;                // enum pyro_wait_cause
  __u8 waker;                // enum pyro_waker_kind
  __u8 compat;               // 1: a 32-bit call
  __u8 pad[5];
  char comm[PYRO_COMM_BYTES];
  char waker_comm[PYRO_COMM_BYTES];
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_wait_sample) == 128, "pyro_wait_sample");

// Per-CPU counters. Every sample taken adds to exactly one of sent and the dropped_ counters, or waits in a slot for
// its thread to return to user mode.
struct pyro_off_cpu_counters {
  __u64 taken;          // waits chosen
  __u64 sent;           // written to the ring
  __u64 dropped_slots;  // no free slot
  __u64 dropped_ring;   // ring full
  __u64 without_user;   // sent, but the thread took no work (it is ending, or the kernel has no task work)
  __u64 folded;         // waits counted under the fold key: no room for another owner
  __u64 lost;           // waits counted nowhere (the fold entry was missing)
  __u64 storage_lost;   // switches whose thread could not be remembered
  __u64 missed;         // waits left out: the kernel told of the thread's leaving its CPU, but not of its return
  __u64 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_off_cpu_counters) == 80, "pyro_off_cpu_counters");

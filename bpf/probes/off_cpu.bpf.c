// Why threads do not run: for how long, for which cause, and, of a sample of the waits, where and who ended it.
//
// A wait begins when the scheduler takes a thread off its CPU and ends when it brings it back. If the thread was
// blocked, the wake-up cuts it in two: the blocked part, with a cause, and the wait for a processor. Both add up in
// per-CPU maps by cgroup and cause, exactly; the latter also in a histogram per cgroup, and into the open system call
// of the thread when syscall_latency runs beside (bpf/lib/task_states.h).
//
// The cause is found when the thread leaves its CPU; it is still the current one. In this order:
//   1. a sleeping lock of the kernel (contention_begin without contention_end)               lock
//   2. no system call is in flight (orig_ax): user code faulted; uninterruptible, or in I/O  page fault
//   3. in_iowait: a disk; with handle_mm_fault on its kernel stack, memory                   block I/O, page fault
//   4. by the call: pyro_call_causes, and for calls on a descriptor what that is             timer, lock, network, poll
//   …
//   5. stopped, traced                                                                       other
// A wait for a processor is throttled when its cgroup's run queue was so when the wait began.
//
// Sampling: a part that lasted d is taken with probability min(1, d / T) and stands for max(d, T): the sum over samples
// is unbiased, no wait of T or longer is ever missed, and there are at most (all waiting time) / T samples. The blocked
// part is drawn by the waker, whose stacks are still there then; the wait for a processor when it ends. The user stack
// of the thread that waited cannot be read from elsewhere: a piece of task work walks it in the thread's own context
// before it executes another user instruction, when its registers are still those of the wait.
//
// All but the task work runs with interrupts off (run queue lock, wake-up lock): per-CPU values need no atomics.
//
// Does not promise: a wake-up in the some 100 ns between a thread's decision to block and its switch is recognised by
// its state having changed; where even that comes later, the whole wait counts as blocked. Waits that began before the
// probe was attached are not seen, those that have not ended are not counted yet. Kernel threads do not count. Where
// the kernel does not report a switch (a few in 1,000 on our virtual machine; ftrace lacks the same ones), the wait
// that it would have ended is left out and counted as missed; an open call then seems to have run meanwhile.
#include "bpf/abi/off_cpu.h"

#include "bpf/abi/histogram.h"
#include "bpf/lib/descriptor.h"
#include "bpf/lib/octave.h"
#include "bpf/lib/owner.h"
#include "bpf/lib/program.h"
#include "bpf/lib/task_states.h"
#include "bpf/lib/task_work.h"
#include "bpf/lib/user_stack.h"

const volatile __u32 pyro_switch_has_state = 0;  // sched_switch has a fourth argument (5.18)
const volatile __u32 pyro_task_work = 0;         // the kernel has task work for programs (6.18)
const volatile __u32 pyro_sampling = 1;          // 0: sums only
const volatile __u64 pyro_fault_begin = 0;       // addresses of handle_mm_fault; 0: not known
const volatile __u64 pyro_fault_end = 0;
const volatile __u64 pyro_interrupt_begin = 0;  // entries of device, timer and inter-processor interrupts; 0: not known
const volatile __u64 pyro_interrupt_end = 0;
const volatile __u64 pyro_wake_bytes = 1 << 19;                    // ring fill that wakes the reader
const volatile __u32 pyro_max_user_frames = PYRO_MAX_USER_FRAMES;  // 0 … PYRO_MAX_USER_FRAMES
const volatile __u8 pyro_call_causes[PYRO_CALL_CAUSES] = {};       // by number; PYRO_WAIT_*, PYRO_CAUSE_BY_FD

// T in ns; user space changes it to hold its rate of samples. Below 2^32: see pyro_draw.
__u64 pyro_period_ns = 10000000;
// Number of the current window; user space raises it when it drains.
__u32 pyro_epoch = 1;

#define PYRO_PF_IO_WORKER 0x10u  // task_struct::flags
#define PYRO_PF_EXITING 0x4u
#define PYRO_TASK_STOPPED 0x4u  // task_struct::__state
#define PYRO_TASK_TRACED 0x8u
#define PYRO_TASK_UNINTERRUPTIBLE 0x2u
#define PYRO_TASK_DEAD 0x80u
#define PYRO_LOCK_SPINS 1u  // LCB_F_SPIN of contention_begin

// Totals. Preallocated, as the run queue is locked: 24-byte keys, 16 bytes per CPU. Written here; the entries of the
// fold key are made by user space before attaching, idle ones deleted by it.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 4096);
  __type(key, struct pyro_wait_key);
  __type(value, struct pyro_wait_total);
} pyro_wait_totals SEC(".maps");

// Run-queue latency. As above; 152 bytes per CPU.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 2048);
  __type(key, struct pyro_queue_key);
  __type(value, struct pyro_octave);
} pyro_queue_octaves SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_off_cpu_counters);
} pyro_counters SEC(".maps");

// Samples. Size set before load.
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} pyro_waits SEC(".maps");

#define PYRO_WAIT_SLOTS 256u
#define PYRO_WAIT_SLOT_TRIES 8

// A sample until its thread has returned to user mode.
struct pyro_wait_slot {
  struct bpf_task_work work;
  __u32 taken;  // 1: in use
  __u32 pad;
  __u64 kernel_frames[PYRO_MAX_KERNEL_FRAMES + 1];
  __u64 waker_kernel_frames[PYRO_MAX_WAKER_FRAMES + 1];
  __u64 waker_user_frames[PYRO_MAX_WAKER_FRAMES + 1];
  struct pyro_user_regs regs;
  struct pyro_walk walk;  // with the sample's header
  __u64 tail[PYRO_MAX_KERNEL_FRAMES + 1 + 2 * (PYRO_MAX_WAKER_FRAMES + 1)];
};

// Number -> slot. 13 KiB each; sized 1 before load without sampling.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, PYRO_WAIT_SLOTS);
  __type(key, __u32);
  __type(value, struct pyro_wait_slot);
} pyro_wait_slots SEC(".maps");

__u32 pyro_next_slot = 0;

PYRO_INLINE struct pyro_off_cpu_counters* pyro_counts(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&pyro_counters, &zero);
}

// ---- cause ------------------------------------------------------------------------------------------------

#define PYRO_FAULT_SEARCH_FRAMES 24  // the fault handler is 8 to 16 calls above the scheduler

PYRO_NOINLINE int pyro_in_fault(void* ctx) {
  __u64 frames[PYRO_FAULT_SEARCH_FRAMES];
  if (!pyro_fault_begin) return 0;
  long got = bpf_get_stack(ctx, frames, sizeof(frames), 0);
#pragma clang loop unroll(disable)
  for (int i = 0; i < PYRO_FAULT_SEARCH_FRAMES; i++) {
    if (i * 8 >= got) break;
    if (frames[i] >= pyro_fault_begin && frames[i] < pyro_fault_end) return 1;
  }
  return 0;
}

// By what a descriptor of the current task is.
PYRO_NOINLINE int pyro_cause_of_fd(struct task_struct* task, __u32 fd) {
  struct file* file = pyro_file_of(task, fd);
  if (!file) return PYRO_WAIT_OTHER;
  __u32 kind = BPF_CORE_READ(file, f_inode, i_mode) & PYRO_S_IFMT;
  if (kind == PYRO_S_IFSOCK) {
    struct socket* socket = BPF_CORE_READ(file, private_data);
    __u16 family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);
    return family == PYRO_AF_UNIX || family == PYRO_AF_NETLINK ? PYRO_WAIT_POLL : PYRO_WAIT_NETWORK;
  }
  if (kind == PYRO_S_IFREG || kind == PYRO_S_IFBLK || kind == PYRO_S_IFDIR) return PYRO_WAIT_BLOCK_IO;
  return PYRO_WAIT_POLL;  // pipes, character devices, and the descriptors without a file type: event, timer, epoll
}

// Of the current task, which is about to block in `state`.
PYRO_NOINLINE int pyro_cause_of(void* ctx, struct task_struct* task, const struct pyro_task_state* own, __u64 state) {
  if (own->lock) return PYRO_WAIT_LOCK;
  if (state & (PYRO_TASK_STOPPED | PYRO_TASK_TRACED)) return PYRO_WAIT_OTHER;
  int in_io = BPF_CORE_READ_BITFIELD_PROBED(task, in_iowait);
  if (task->flags & PYRO_PF_IO_WORKER) return in_io ? PYRO_WAIT_BLOCK_IO : PYRO_WAIT_OTHER;  // io_uring's: no user code
  struct pt_regs* regs = (struct pt_regs*)bpf_task_pt_regs(task);
  __s64 nr = (__s64)regs->orig_ax;
  if (nr < 0) return in_io || (state & PYRO_TASK_UNINTERRUPTIBLE) ? PYRO_WAIT_PAGE_FAULT : PYRO_WAIT_OTHER;
  if (in_io) return pyro_in_fault(ctx) ? PYRO_WAIT_PAGE_FAULT : PYRO_WAIT_BLOCK_IO;
  if (task->thread_info.status & PYRO_TS_COMPAT) return PYRO_WAIT_OTHER;  // other numbers
  if (nr >= PYRO_CALL_CAUSES) return PYRO_WAIT_OTHER;
  __u8 cause = pyro_call_causes[nr & (PYRO_CALL_CAUSES - 1)];
  if (cause == PYRO_CAUSE_BY_FD) return pyro_cause_of_fd(task, (__u32)regs->di);
  return cause;
}

// PYRO_WAIT_RUNNABLE or PYRO_WAIT_THROTTLED, as of now.
PYRO_INLINE __u8 pyro_queue_of(struct task_struct* task) {
  if (bpf_core_field_exists(task->throttled) && task->throttled) return PYRO_WAIT_THROTTLED;
  if (bpf_core_field_exists(task->se.cfs_rq) && bpf_core_field_exists(((struct cfs_rq*)0)->throttle_count)) {
    if (BPF_CORE_READ(task, se.cfs_rq, throttle_count) > 0) return PYRO_WAIT_THROTTLED;
  }
  return PYRO_WAIT_RUNNABLE;
}

// ---- sums -------------------------------------------------------------------------------------------------

PYRO_NOINLINE int pyro_add_wait(const struct pyro_owner* owner, __u32 cause, __u64 ns,
                                struct pyro_off_cpu_counters* counters) {
  struct pyro_wait_key key = {.owner = *owner, .cause = cause};
  struct pyro_wait_total* total = bpf_map_lookup_elem(&pyro_wait_totals, &key);
  if (!total) {
    struct pyro_wait_total none = {};
    bpf_map_update_elem(&pyro_wait_totals, &key, &none, BPF_NOEXIST);
    total = bpf_map_lookup_elem(&pyro_wait_totals, &key);
  }
  if (!total) {
    struct pyro_wait_key fold = {.cause = cause, .folded = 1};
    total = bpf_map_lookup_elem(&pyro_wait_totals, &fold);
    counters->folded++;
  }
  if (!total) {
    counters->lost++;
    return 0;
  }
  total->count++;
  total->ns += ns;
  return 0;
}

PYRO_NOINLINE int pyro_add_queue(const struct pyro_owner* owner, __u64 ns) {
  struct pyro_queue_key key = {.owner = *owner};
  __u32 sub;
  if (ns > PYRO_MAX_LATENCY_NS) ns = PYRO_MAX_LATENCY_NS;
  pyro_bucket(ns, &key.octave, &sub);
  struct pyro_octave* octave = bpf_map_lookup_elem(&pyro_queue_octaves, &key);
  if (!octave) {
    struct pyro_octave fresh = {};
    bpf_map_update_elem(&pyro_queue_octaves, &key, &fresh, BPF_NOEXIST);
    octave = bpf_map_lookup_elem(&pyro_queue_octaves, &key);
  }
  if (!octave) {
    struct pyro_queue_key fold = {.octave = key.octave, .folded = 1};
    octave = bpf_map_lookup_elem(&pyro_queue_octaves, &fold);
  }
  if (octave) pyro_octave_add(octave, sub, ns, pyro_epoch);
  return 0;
}

// ---- samples ----------------------------------------------------------------------------------------------

// With probability min(1, ns / period), for periods below 2^32.
PYRO_INLINE int pyro_draw(__u64 ns, __u64 period) {
  if (ns >= period) return 1;
  return ((__u64)bpf_get_prandom_u32() * period) >> 32 < ns;
}

// Who waited for what, for the functions below: BPF passes five arguments.
struct pyro_wait {
  __u64 end_ns;
  __u64 ns;
  __u64 period_ns;
  __u32 cause;
  __u32 waker;  // enum pyro_waker_kind
};

PYRO_INLINE struct pyro_wait_slot* pyro_take_slot(void) {
#pragma clang loop unroll(disable)
  for (int i = 0; i < PYRO_WAIT_SLOT_TRIES; i++) {
    __u32 number = __sync_fetch_and_add(&pyro_next_slot, 1) & (PYRO_WAIT_SLOTS - 1);
    struct pyro_wait_slot* slot = bpf_map_lookup_elem(&pyro_wait_slots, &number);
    if (slot && __sync_val_compare_and_swap(&slot->taken, 0, 1) == 0) return slot;
  }
  return 0;
}

// Frames behind the `at` frames that the record has; how many it has then. Bytes are masked before each use: the
// verifier does not remember a relation between two members.
PYRO_INLINE __u32 pyro_append_frames(struct pyro_wait_slot* slot, __u32 at, const __u64* from, __u32 count) {
  __u32 bytes = (count * 8) & 0x3f8;
  if (at > PYRO_MAX_USER_FRAMES + 2 * 127) return at;
  bpf_probe_read_kernel((char*)slot->walk.frames + at * 8, bytes, from);
  return at + bytes / 8;
}

// Writes the record and frees the slot. May be preempted: atomic counts.
PYRO_NOINLINE int pyro_send_wait(struct pyro_wait_slot* slot, __u32 user_frames) {
  struct pyro_off_cpu_counters* counters = pyro_counts();
  if (!slot || !counters) return 0;
  struct pyro_wait_sample* sample = PYRO_HEADER_OF(&slot->walk, struct pyro_wait_sample);
  if (user_frames > PYRO_MAX_USER_FRAMES) user_frames = PYRO_MAX_USER_FRAMES;
  sample->user_frames = user_frames;
  __u32 at = user_frames;
  at = pyro_append_frames(slot, at, slot->kernel_frames, sample->kernel_frames);
  at = pyro_append_frames(slot, at, slot->waker_kernel_frames, sample->waker_kernel_frames);
  at = pyro_append_frames(slot, at, slot->waker_user_frames, sample->waker_user_frames);
  __u32 bytes = sizeof(*sample) + at * 8;
  PYRO_OPAQUE(bytes);
  if (bytes > sizeof(*sample) + (PYRO_MAX_USER_FRAMES + 3 * 127) * 8) bytes = sizeof(*sample);  // never
  if (bpf_ringbuf_output(&pyro_waits, sample, bytes, pyro_ring_flags(&pyro_waits, pyro_wake_bytes, bytes))) {
    __sync_fetch_and_add(&counters->dropped_ring, 1);
  } else {
    __sync_fetch_and_add(&counters->sent, 1);
  }
  __sync_lock_test_and_set(&slot->taken, 0);
  return 0;
}

#define PYRO_WAIT_FAULTS 4  // stack pages faulted in for one walk

// In the context of the thread that waited, on its way back to user mode; may sleep.
static int pyro_finish_wait(struct bpf_map* map, void* key, void* value) {
  struct pyro_wait_slot* slot = value;
  struct task_struct* task = bpf_get_current_task_btf();
  struct pyro_walk* walk = &slot->walk;
  struct pyro_wait_sample* sample = PYRO_HEADER_OF(walk, struct pyro_wait_sample);
  __u64 word;
  walk->count = walk->means = 0;
  walk->stop = PYRO_STOP_NO_USER_STACK;
  if (pyro_saved_registers(task, &slot->regs)) {
    slot->regs.compat = sample->compat;
#pragma clang loop unroll(disable)
    for (int i = 0; i < PYRO_WAIT_FAULTS; i++) {
      pyro_take_user_stack(walk, &slot->regs, pyro_max_user_frames, task);
      if (walk->stop != PYRO_STOP_UNREADABLE) break;
      if (bpf_copy_from_user(&word, sizeof(word), (const void*)walk->missing)) break;
    }
  }
  sample->user_stop = walk->stop;
  sample->means = walk->means;
  return pyro_send_wait(slot, *(volatile __u32*)&walk->count);
}

// Whether an interrupt borrowed the current task. There is no other way to ask that all kernels have; a soft interrupt
// that the task runs at the end of its own work (loopback) is its own doing.
PYRO_NOINLINE int pyro_in_interrupt(const struct pyro_wait_slot* slot, __u32 frames) {
#pragma clang loop unroll(disable)
  for (__u32 i = 0; i < PYRO_MAX_WAKER_FRAMES; i++) {
    if (i >= frames) break;
    __u64 address = slot->waker_kernel_frames[i];
    if (address >= pyro_interrupt_begin && address < pyro_interrupt_end) return 1;
  }
  return 0;
}

// The stacks of the thread that wakes another.
PYRO_NOINLINE int pyro_take_waker(void* ctx, struct pyro_wait_slot* slot) {
  struct task_struct* self = bpf_get_current_task_btf();
  struct pyro_wait_sample* sample = PYRO_HEADER_OF(&slot->walk, struct pyro_wait_sample);
  long got = bpf_get_stack(ctx, slot->waker_kernel_frames, PYRO_MAX_WAKER_FRAMES * 8, 0);
  if (got > 0) sample->waker_kernel_frames = (got >> 3) & 127;
  if (sample->waker == PYRO_WAKER_TASK && pyro_in_interrupt(slot, sample->waker_kernel_frames)) {
    sample->waker = PYRO_WAKER_INTERRUPT;
  }
  if (sample->waker != PYRO_WAKER_TASK) return 0;
  sample->waker_tgid = self->tgid;
  sample->waker_tid = self->pid;
  sample->waker_start_time_ns = self->group_leader->start_boottime;
  bpf_get_current_comm(sample->waker_comm, sizeof(sample->waker_comm));
  struct pyro_stack_record* scratch = pyro_own_stack_record();
  if (!scratch) return 0;
  struct pyro_walk* walk = &scratch->walk;
  sample->waker_user_stop = PYRO_STOP_NO_USER_STACK;
  if (!pyro_saved_registers(self, &scratch->regs)) return 0;
  pyro_take_user_stack(walk, &scratch->regs, PYRO_MAX_WAKER_FRAMES, self);
  sample->waker_user_stop = walk->stop;
  __u32 frames = *(volatile __u32*)&walk->count;
  if (frames > PYRO_MAX_WAKER_FRAMES) frames = PYRO_MAX_WAKER_FRAMES;
  sample->waker_user_frames = frames;
  bpf_probe_read_kernel(slot->waker_user_frames, (frames * 8) & 0x3f8, walk->frames);
  return 0;
}

// Fills a slot for `task`, which does not run, and leaves the rest to it.
PYRO_NOINLINE int pyro_sample_wait(void* ctx, struct task_struct* task, const struct pyro_wait* wait) {
  struct pyro_off_cpu_counters* counters = pyro_counts();
  if (!counters) return 0;
  counters->taken++;
  struct pyro_wait_slot* slot = pyro_take_slot();
  if (!slot) {
    counters->dropped_slots++;
    return 0;
  }
  struct pyro_wait_sample* sample = PYRO_HEADER_OF(&slot->walk, struct pyro_wait_sample);
  struct pt_regs* regs = (struct pt_regs*)bpf_task_pt_regs(task);
  sample->time_ns = wait->end_ns;
  sample->wait_ns = wait->ns;
  sample->period_ns = wait->period_ns;
  sample->cause = wait->cause;
  sample->waker = wait->waker;
  sample->start_time_ns = task->group_leader->start_boottime;
  sample->waker_start_time_ns = 0;
  sample->tgid = task->tgid;
  sample->tid = task->pid;
  sample->waker_tgid = sample->waker_tid = 0;
  sample->nr = (__s32)regs->orig_ax < 0 ? -1 : (__s32)regs->orig_ax;
  sample->compat = (task->thread_info.status & PYRO_TS_COMPAT) != 0;
  sample->kernel_frames = sample->waker_kernel_frames = sample->waker_user_frames = 0;
  sample->user_stop = PYRO_STOP_NOT_TAKEN;
  sample->waker_user_stop = PYRO_STOP_NOT_TAKEN;
  sample->means = 0;
  __builtin_memset(sample->pad, 0, sizeof(sample->pad));
  pyro_owner_of(task, &sample->owner);
  bpf_probe_read_kernel(sample->comm, sizeof(sample->comm), task->comm);
  __builtin_memset(sample->waker_comm, 0, sizeof(sample->waker_comm));
  long got = bpf_get_task_stack(task, slot->kernel_frames, PYRO_MAX_KERNEL_FRAMES * 8, 0);
  if (got > 0) sample->kernel_frames = (got >> 3) & 127;
  if (wait->waker != PYRO_WAKER_NONE) pyro_take_waker(ctx, slot);

  // What ends takes no more work, which the kernel finds out only after it has said yes: the slot would never be free.
  if (pyro_task_work && !(task->flags & PYRO_PF_EXITING)) {
    if (!bpf_task_work_schedule_resume_impl(task, &slot->work, &pyro_wait_slots, pyro_finish_wait, 0)) return 0;
  }
  counters->without_user++;
  return pyro_send_wait(slot, 0);
}

// ---- hooks ------------------------------------------------------------------------------------------------

// Only threads that programs own wait for something of interest: idle kernel threads wait for work.
PYRO_INLINE int pyro_counts_task(struct task_struct* task) { return task->pid && !(task->flags & PYRO_PF_KTHREAD); }

PYRO_INLINE void pyro_switched_out(void* ctx, struct task_struct* task, int preempted, __u64 state, __u64 now) {
  if (!preempted && (state & PYRO_TASK_DEAD)) return;
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, task, 0, 0);
  if (!own) {
    own = bpf_task_storage_get(&pyro_task_states, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!own) {
      struct pyro_off_cpu_counters* counters = pyro_counts();
      if (counters) counters->storage_lost++;
      return;
    }
    own->nr = PYRO_NR_NONE_SEEN;
  }
  if (own->off_ns) {
    struct pyro_off_cpu_counters* counters = pyro_counts();
    if (counters) counters->missed++;
  }
  int blocked = !preempted && state;
  own->blocked = blocked;
  own->queue = pyro_queue_of(task);
  own->wake_ns = now;
  if (blocked) {
    own->cause = pyro_cause_of(ctx, task, own, state);
    // Else it was woken between its decision and now: it blocked for no time.
    if (task->__state == state) own->wake_ns = 0;
  }
  // Last: from here on a waker on another CPU may add to it.
  *(volatile __u64*)&own->off_ns = now;
}

PYRO_INLINE void pyro_add_waited(struct pyro_task_state* own, __u64 cause, __u64 ns) {
  PYRO_OPAQUE(cause);
  if (cause < PYRO_WAIT_CAUSES) own->waited_ns[cause] += ns;
}

PYRO_INLINE void pyro_switched_in(void* ctx, struct task_struct* task, __u64 now) {
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, task, 0, 0);
  if (!own || !own->off_ns) return;
  struct pyro_off_cpu_counters* counters = pyro_counts();
  if (!counters) return;
  __u64 off = own->off_ns, wake = own->wake_ns;
  own->off_ns = 0;
  if (wake < off || wake > now) wake = own->blocked ? now : off;  // the wake-up was not seen
  struct pyro_wait wait = {.end_ns = now, .period_ns = pyro_period_ns};
  struct pyro_owner owner;
  pyro_owner_of(task, &owner);
  __u64 queued = now - wake;
  __u32 cause = own->cause, queue = own->queue;
  if (cause >= PYRO_WAIT_CAUSES || queue >= PYRO_WAIT_CAUSES) return;  // never: the verifier's doubt
  if (own->blocked) pyro_add_wait(&owner, cause, wake - off, counters);
  pyro_add_wait(&owner, queue, queued, counters);
  pyro_add_queue(&owner, queued);
  if (own->call_ns) {
    own->waited = 1;
    if (own->blocked) pyro_add_waited(own, cause, wake - off);
    pyro_add_waited(own, queue, queued);
  }
  if (!pyro_sampling) return;
  if (own->blocked && !own->wake_ns && pyro_draw(wake - off, wait.period_ns)) {
    wait.ns = wake - off;
    wait.cause = cause;
    pyro_sample_wait(ctx, task, &wait);
  }
  if (pyro_draw(queued, wait.period_ns)) {
    wait.ns = queued;
    wait.cause = queue;
    pyro_sample_wait(ctx, task, &wait);
  }
}

SEC("tp_btf/sched_switch")
int BPF_PROG(pyro_switch, _Bool preempted, struct task_struct* prev, struct task_struct* next) {
  __u64 now = bpf_ktime_get_ns();
  if (pyro_counts_task(prev)) {
    __u64 state = pyro_switch_has_state ? (__u32)ctx[3] : prev->__state;
    pyro_switched_out(ctx, prev, preempted, state, now);
  }
  if (pyro_counts_task(next)) pyro_switched_in(ctx, next, now);
  return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(pyro_waking, struct task_struct* task) {
  if (!pyro_counts_task(task)) return 0;
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, task, 0, 0);
  if (!own || !own->off_ns || !own->blocked || own->wake_ns) return 0;
  __u64 now = bpf_ktime_get_ns();
  if (now <= own->off_ns) now = own->off_ns + 1;
  own->wake_ns = now;
  own->queue = pyro_queue_of(task);
  if (!pyro_sampling) return 0;
  struct pyro_wait wait = {.end_ns = now, .ns = now - own->off_ns, .period_ns = pyro_period_ns, .cause = own->cause};
  if (!pyro_draw(wait.ns, wait.period_ns)) return 0;
  wait.waker = bpf_get_current_pid_tgid() ? PYRO_WAKER_TASK : PYRO_WAKER_INTERRUPT;
  return pyro_sample_wait(ctx, task, &wait);
}

// A new thread waits for its first processor.
SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(pyro_waking_new, struct task_struct* task) {
  if (!pyro_counts_task(task)) return 0;
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (!own) return 0;
  own->blocked = 0;
  own->queue = pyro_queue_of(task);
  own->wake_ns = own->off_ns = bpf_ktime_get_ns();
  return 0;
}

// Optional: attached where the kernel has them (5.19).
SEC("tp_btf/contention_begin")
int BPF_PROG(pyro_lock_begin, void* lock, unsigned int flags) {
  if (flags & PYRO_LOCK_SPINS) return 0;
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, bpf_get_current_task_btf(), 0, 0);
  if (own) own->lock = (__u64)lock;
  return 0;
}

SEC("tp_btf/contention_end")
int BPF_PROG(pyro_lock_end, void* lock, int result) {
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, bpf_get_current_task_btf(), 0, 0);
  // A spinning lock may be contended while it waits for a sleeping one.
  if (own && own->lock == (__u64)lock) own->lock = 0;
  return 0;
}

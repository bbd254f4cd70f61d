// Samples what runs on a CPU, at each overflow of a perf event. Runs in a hard interrupt (cpu-clock) or an
// NMI (hardware cycles): no map updates, no locks, everything in per-CPU records.
#include "bpf/abi/cpu_sample.h"
#include "bpf/lib/deferred_walk.h"
#include "bpf/lib/owner.h"
#include "bpf/lib/program.h"
#include "bpf/lib/user_stack.h"

const volatile __u32 pyro_filter = PYRO_FILTER_ALL;                // enum pyro_filter_mode
const volatile __u32 pyro_max_user_frames = PYRO_MAX_USER_FRAMES;  // 0 … PYRO_MAX_USER_FRAMES
const volatile __u32 pyro_kernel_stacks = 1;                       // 0: never take kernel stacks
const volatile __u64 pyro_wake_bytes = 1 << 20;                    // ring fill that wakes the reader
const volatile __u64 pyro_raw_ring_bytes = 2 << 20;  // ring fill above which stacks are not copied any more

// How far below a target cgroup a task may be. Kubernetes nests 4 deep, systemd inside a container 3 more.
#define PYRO_CGROUP_DEPTH 16

// Key 0 -> counters. Written here, summed by user space.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_cpu_counters);
} pyro_counters SEC(".maps");

// Records of variable length. Size is set before load.
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} pyro_samples SEC(".maps");

// Target processes -> 1. Seeded by user space, children added at fork, entries removed when the process ends.
// 65,536 processes are twice the default pid_max. Preallocated (kernels before 6.1 refuse anything else in
// perf_event programs), 5 MiB; sized 1 before load when the target is no set of processes.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __type(key, __u32);
  __type(value, __u8);
} pyro_target_tgids SEC(".maps");

// Target cgroups -> 1. Written by user space only.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __type(key, struct pyro_cgroup_key);
  __type(value, __u8);
} pyro_target_cgroups SEC(".maps");

PYRO_INLINE int pyro_cgroup_or_parent_is_target(struct cgroup* cgroup, __u32 v1) {
  struct pyro_cgroup_key key = {.v1 = v1};
#pragma clang loop unroll(disable)
  for (int i = 0; i < PYRO_CGROUP_DEPTH && cgroup; i++) {
    key.id = BPF_CORE_READ(cgroup, kn, id);
    if (bpf_map_lookup_elem(&pyro_target_cgroups, &key)) return 1;
    struct cgroup_subsys_state* parent = BPF_CORE_READ(cgroup, self.parent);
    cgroup = parent ? BPF_CORE_READ(parent, cgroup) : 0;
  }
  return 0;
}

PYRO_INLINE int pyro_is_target(struct task_struct* task, __u32 tgid) {
  if (pyro_filter == PYRO_FILTER_PROCESSES) return bpf_map_lookup_elem(&pyro_target_tgids, &tgid) != 0;
  if (pyro_filter == PYRO_FILTER_CGROUPS) {
    return pyro_cgroup_or_parent_is_target(pyro_v2_cgroup(task), 0) ||
           pyro_cgroup_or_parent_is_target(pyro_v1_cgroup(task), 1);
  }
  return 1;
}

// Registers of the user code that runs or that entered the kernel; 0: there is none.
PYRO_INLINE int pyro_user_registers(struct pyro_perf_context* ctx, struct task_struct* task,
                                    struct pyro_user_regs* regs) {
  if ((ctx->cs & PYRO_CS_USER_MASK) != PYRO_CS_USER_MASK) return pyro_saved_registers(task, regs);
  regs->raw.reg[0] = ctx->ax;
  regs->raw.reg[1] = ctx->dx;
  regs->raw.reg[2] = ctx->cx;
  regs->raw.reg[3] = ctx->bx;
  regs->raw.reg[4] = ctx->si;
  regs->raw.reg[5] = ctx->di;
  regs->raw.reg[6] = ctx->bp;
  regs->raw.reg[7] = ctx->sp;
  regs->raw.reg[8] = ctx->r8;
  regs->raw.reg[9] = ctx->r9;
  regs->raw.reg[10] = ctx->r10;
  regs->raw.reg[11] = ctx->r11;
  regs->raw.reg[12] = ctx->r12;
  regs->raw.reg[13] = ctx->r13;
  regs->raw.reg[14] = ctx->r14;
  regs->raw.reg[15] = ctx->r15;
  regs->raw.ip = ctx->ip;
  pyro_note_stack_end(task, regs);
  regs->compat = ctx->cs == PYRO_CS_USER32;
  return 1;
}

// Runs in the context of the sampled task, before it goes on in user mode; may sleep.
static int pyro_finish_deferred(struct bpf_map* map, void* key, void* value) {
  struct pyro_deferred_sample* slot = value;
  struct pyro_walk* walk = &slot->walk;
  struct task_struct* task = bpf_get_current_task_btf();
  __u32 zero = 0;
  __u64 word;

#pragma clang loop unroll(disable)
  for (int i = 0; i < PYRO_DEFERRED_FAULTS; i++) {
    if (bpf_copy_from_user(&word, sizeof(word), (const void*)walk->missing)) break;
    pyro_take_user_stack(walk, &slot->regs, pyro_max_user_frames, task);
    if (walk->stop != PYRO_STOP_UNREADABLE) break;
  }
  struct pyro_cpu_sample* sample = PYRO_HEADER_OF(walk, struct pyro_cpu_sample);
  __u32 user_frames = *(volatile __u32*)&walk->count;
  if (user_frames > PYRO_MAX_USER_FRAMES) user_frames = PYRO_MAX_USER_FRAMES;
  sample->user_frames = user_frames;
  sample->user_stop = walk->stop;
  sample->means = walk->means | PYRO_BY_DEFERRED;
  __u32 kernel_bytes = slot->kernel_bytes & 0x3f8;
  bpf_probe_read_kernel(&walk->frames[user_frames], kernel_bytes, slot->kernel_frames);

  struct pyro_cpu_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
  __u32 user_stop = *(volatile __u8*)&sample->user_stop;
  __u32 bytes = sizeof(*sample) + user_frames * 8 + kernel_bytes;
  long failed =
      bpf_ringbuf_output(&pyro_samples, sample, bytes, pyro_ring_flags(&pyro_samples, pyro_wake_bytes, bytes));
  // Other tasks and interrupts count on this CPU too.
  if (counters) {
    if (user_stop < PYRO_STOP_COUNT) __sync_fetch_and_add(&counters->user_stops[user_stop], 1);
    if (failed) {
      __sync_fetch_and_add(&counters->deferred_dropped, 1);
    } else {
      __sync_fetch_and_add(&counters->deferred_submitted, 1);
    }
  }
  __sync_lock_test_and_set(&slot->taken, 0);
  return 0;
}

// True when the sample will be sent by pyro_finish_deferred.
PYRO_NOINLINE int pyro_defer(struct pyro_stack_record* scratch, __u32 user_frames, __u32 kernel_bytes) {
  struct pyro_deferred_sample* slot = pyro_take_deferred();
  if (!slot) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  __builtin_memcpy(&slot->regs, &scratch->regs, sizeof(slot->regs));
  __builtin_memcpy(slot->walk.header, scratch->walk.header, sizeof(slot->walk.header));
  slot->walk.missing = scratch->walk.missing;
  slot->walk.count = 0;
  slot->walk.stop = PYRO_STOP_UNREADABLE;
  if (user_frames > PYRO_MAX_USER_FRAMES) user_frames = PYRO_MAX_USER_FRAMES;
  kernel_bytes &= 0x3f8;
  slot->kernel_bytes = kernel_bytes;
  bpf_probe_read_kernel(slot->kernel_frames, kernel_bytes, &scratch->walk.frames[user_frames]);
  if (!bpf_task_work_schedule_resume_impl(task, &slot->work, &pyro_deferred_samples, pyro_finish_deferred, 0)) return 1;
  __sync_lock_test_and_set(&slot->taken, 0);
  return 0;
}

PYRO_INLINE int pyro_take_sample(struct pyro_perf_context* ctx, int may_defer) {
  __u32 zero = 0;
  struct pyro_cpu_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
  struct pyro_stack_record* scratch = pyro_own_stack_record();
  if (!counters) return 0;

  __u64 id = bpf_get_current_pid_tgid();
  __u32 tgid = id >> 32;
  if (id == 0) {
    counters->idle++;
    return 0;
  }
  struct task_struct* task = bpf_get_current_task_btf();
  if (pyro_filter != PYRO_FILTER_ALL && !pyro_is_target(task, tgid)) {
    counters->filtered++;
    return 0;
  }
  counters->taken++;
  if (!scratch) {
    counters->dropped_scratch++;
    return 0;
  }

  struct pyro_walk* walk = &scratch->walk;
  struct pyro_cpu_sample* sample = PYRO_HEADER_OF(walk, struct pyro_cpu_sample);
  struct task_struct* leader = task->group_leader;
  sample->time_ns = bpf_ktime_get_ns();
  sample->start_time_ns = leader->start_boottime;
  pyro_owner_of(task, &sample->owner);
  sample->tgid = tgid;
  sample->tid = (__u32)id;
  sample->cpu = bpf_get_smp_processor_id();
  sample->raw_bytes = 0;
  sample->pad[0] = sample->pad[1] = 0;
  bpf_get_current_comm(sample->comm, sizeof(sample->comm));
  if (tgid == (__u32)id) {
    __builtin_memcpy(sample->process_comm, sample->comm, sizeof(sample->comm));
  } else {
    bpf_probe_read_kernel(sample->process_comm, sizeof(sample->process_comm), leader->comm);
  }

  int user = pyro_user_registers(ctx, task, &scratch->regs);
  if (user) {
    pyro_take_user_stack(walk, &scratch->regs, pyro_max_user_frames, task);
  } else {
    walk->count = 0;
    walk->means = 0;
    walk->stop = PYRO_STOP_NO_USER_STACK;
  }

  // Read back from the record: the verifier then knows a range instead of a hundred values to try one by one.
  __u32 user_frames = *(volatile __u32*)&walk->count;
  if (user_frames > PYRO_MAX_USER_FRAMES) user_frames = PYRO_MAX_USER_FRAMES;
  sample->user_frames = user_frames;
  sample->user_stop = walk->stop;
  sample->means = walk->means;
  __u32 kernel_bytes = 0;
  sample->kernel_stop = PYRO_STOP_NOT_TAKEN;
  sample->kernel_frames = 0;
  if (pyro_kernel_stacks && (ctx->cs & PYRO_CS_USER_MASK) != PYRO_CS_USER_MASK) {
    long got = bpf_get_stack(ctx, &walk->frames[user_frames], PYRO_MAX_KERNEL_FRAMES * 8, 0);
    if (got < 0) {
      sample->kernel_stop = PYRO_STOP_HELPER_ERROR;
    } else {
      kernel_bytes = got & 0x3f8;
      sample->kernel_frames = kernel_bytes >> 3;
      sample->kernel_stop = kernel_bytes == PYRO_MAX_KERNEL_FRAMES * 8 ? PYRO_STOP_TRUNCATED : PYRO_STOP_END;
    }
  }
  __u32 kernel_stop = sample->kernel_stop, user_stop = *(volatile __u8*)&sample->user_stop;
  if (kernel_stop < PYRO_STOP_COUNT) counters->kernel_stops[kernel_stop]++;
  if (may_defer && user_stop == PYRO_STOP_UNREADABLE && pyro_defer(scratch, user_frames, kernel_bytes)) {
    counters->deferred++;
    return 0;
  }
  if (user_stop < PYRO_STOP_COUNT) __sync_fetch_and_add(&counters->user_stops[user_stop], 1);

  __u32 bytes = user_frames * 8 + kernel_bytes;
  if (user && pyro_wants_copy(walk)) {
    if (bpf_ringbuf_query(&pyro_samples, BPF_RB_AVAIL_DATA) > pyro_raw_ring_bytes) {
      counters->raw_refused++;
    } else {
      __u32 raw = pyro_append_stack_copy(scratch, bytes);
      if (raw) {
        sample->raw_bytes = raw;
        bytes += sizeof(struct pyro_raw_registers) + raw;
        counters->raw_copies++;
      }
    }
  }
  bytes += sizeof(*sample);
  PYRO_OPAQUE(bytes);
  // The verifier's doubt, not ours.
  if (bytes > sizeof(*sample) + PYRO_MAX_USER_FRAMES * 8 + PYRO_TAIL_BYTES) {
    counters->dropped_scratch++;
    return 0;
  }
  if (bpf_ringbuf_output(&pyro_samples, sample, bytes, pyro_ring_flags(&pyro_samples, pyro_wake_bytes, bytes))) {
    counters->dropped_ring_full++;
  } else {
    counters->submitted++;
  }
  return 0;
}

// One of the two is loaded: the second where the kernel has task work.
SEC("perf_event")
int pyro_cpu_sample(struct pyro_perf_context* ctx) { return pyro_take_sample(ctx, 0); }

SEC("perf_event")
int pyro_cpu_sample_deferring(struct pyro_perf_context* ctx) { return pyro_take_sample(ctx, 1); }

// Loaded only for PYRO_FILTER_PROCESSES: the target's children become targets.
SEC("tp_btf/sched_process_fork")
int BPF_PROG(pyro_follow_fork, struct task_struct* parent, struct task_struct* child) {
  __u32 from = parent->tgid, to = child->tgid;
  __u8 one = 1;
  if (from == to || !bpf_map_lookup_elem(&pyro_target_tgids, &from)) return 0;
  bpf_map_update_elem(&pyro_target_tgids, &to, &one, BPF_ANY);
  return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(pyro_follow_exit, struct task_struct* task) {
  __u32 tgid = task->tgid;
  if (task->signal->live.counter == 0) bpf_map_delete_elem(&pyro_target_tgids, &tgid);
  return 0;
}

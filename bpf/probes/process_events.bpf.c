// Exec, fork and exit of processes. Threads are not reported.
#include "bpf/abi/process_event.h"
#include "bpf/lib/owner.h"
#include "bpf/lib/program.h"
#include "bpf/lib/unwind_processes.h"

const volatile __u64 pyro_wake_bytes = 1 << 19;        // ring fill that wakes the reader
const volatile __u64 pyro_wake_interval_ns = 2000000;  // an exec wakes the reader, but at most this often

// When an exec last woke the reader; CPUs may race for it, which costs a wake-up more.
__u64 pyro_last_wake_ns = 0;

// Key 0 -> the record under construction (used by exec only, the others fit on the stack). 336 bytes per CPU.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_process_event);
} pyro_scratch_map SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_process_counters);
} pyro_counters SEC(".maps");

// Records. Size set before load.
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} pyro_events SEC(".maps");

PYRO_INLINE void pyro_send(struct pyro_process_event* event, __u32 bytes, __u64 flags) {
  __u32 zero = 0;
  struct pyro_process_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
  if (!counters) return;
  counters->taken++;
  if (bpf_ringbuf_output(&pyro_events, event, bytes, flags)) {
    counters->dropped_ring_full++;
  } else {
    counters->submitted++;
  }
}

#define PYRO_EVENT_HEAD_BYTES __builtin_offsetof(struct pyro_process_event, path)

PYRO_INLINE struct pyro_process_event* pyro_scratch(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&pyro_scratch_map, &zero);
}

PYRO_INLINE void pyro_describe(struct pyro_process_event* event, struct task_struct* task, __u32 kind) {
  event->time_ns = bpf_ktime_get_ns();
  event->start_time_ns = task->group_leader->start_boottime;
  pyro_owner_of(task, &event->owner);
  event->kind = kind;
  event->tgid = task->tgid;
  event->tid = task->pid;
  event->parent_start_time_ns = 0;
  event->exit_code = 0;
  event->path_bytes = 0;
  bpf_probe_read_kernel(event->comm, sizeof(event->comm), task->comm);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(pyro_exec, struct task_struct* task, pyro_pid old_pid, struct linux_binprm* binary) {
  // The old image's mappings are gone; the new ones' come from user space.
  __u32 tgid = task->tgid;
  struct pyro_unwind_process none = {.start_time_ns = task->group_leader->start_boottime,
                                     .exec_ns = bpf_ktime_get_ns()};
  bpf_map_update_elem(&pyro_unwind_processes, &tgid, &none, BPF_ANY);
  struct pyro_process_event* event = pyro_scratch();
  if (!event) return 0;
  pyro_describe(event, task, PYRO_PROCESS_EXEC);
  event->parent_tgid = task->real_parent->tgid;
  long got = bpf_probe_read_kernel_str(event->path, sizeof(event->path), binary->filename);
  __u32 path_bytes = got > 0 && got <= PYRO_PATH_BYTES ? (__u32)got : 0;
  event->path_bytes = path_bytes;
  __u64 flags = pyro_ring_flags(&pyro_events, pyro_wake_bytes, sizeof(*event));
  if (event->time_ns - pyro_last_wake_ns >= pyro_wake_interval_ns) {
    pyro_last_wake_ns = event->time_ns;
    flags = BPF_RB_FORCE_WAKEUP;
  }
  if (path_bytes > PYRO_PATH_BYTES) return 0;
  pyro_send(event, PYRO_EVENT_HEAD_BYTES + path_bytes, flags);
  return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(pyro_fork, struct task_struct* parent, struct task_struct* child) {
  __u32 from = parent->tgid, to = child->tgid;
  if (child->pid != child->tgid) return 0;  // a thread
  // The child begins with its parent's mappings, before user space has heard of it.
  struct pyro_unwind_process* mappings = bpf_map_lookup_elem(&pyro_unwind_processes, &from);
  if (mappings) {
    struct pyro_unwind_process copy = *mappings;
    copy.start_time_ns = child->start_boottime;
    bpf_map_update_elem(&pyro_unwind_processes, &to, &copy, BPF_ANY);
  }
  struct pyro_process_event* event = pyro_scratch();
  if (!event) return 0;
  pyro_describe(event, child, PYRO_PROCESS_FORK);
  event->parent_tgid = parent->tgid;
  event->parent_start_time_ns = parent->group_leader->start_boottime;
  pyro_send(event, PYRO_EVENT_HEAD_BYTES, pyro_ring_flags(&pyro_events, pyro_wake_bytes, PYRO_EVENT_HEAD_BYTES));
  return 0;
}

// `live` is already without this thread: 0 means that it was the last. Two threads that end at the same
// moment may both see 0; user space drops the second report.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(pyro_exit, struct task_struct* task) {
  if (task->signal->live.counter != 0) return 0;
  __u32 tgid = task->tgid;
  bpf_map_delete_elem(&pyro_unwind_processes, &tgid);
  struct pyro_process_event* event = pyro_scratch();
  if (!event) return 0;
  pyro_describe(event, task, PYRO_PROCESS_EXIT);
  event->parent_tgid = task->real_parent->tgid;
  event->exit_code = task->exit_code;
  pyro_send(event, PYRO_EVENT_HEAD_BYTES, pyro_ring_flags(&pyro_events, pyro_wake_bytes, PYRO_EVENT_HEAD_BYTES));
  return 0;
}

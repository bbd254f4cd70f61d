// The least that timing system calls and round trips can cost: what tests/bench/latency_overhead compares the product
// with. None of them knows containers, errors, causes or examples. A program's name is the prototype's name, then its
// hook; tests/bench/latency_prototypes attaches those of one prototype.
//
//   clocks    two clock reads, added up: no tool that tells how long a call took does less
//   array     start times in an array by thread id, buckets in a per-CPU array by call
//   storage   start times in task storage, buckets in a per-CPU array by call
#include "bpf/lib/histogram.h"
#include "bpf/lib/program.h"

#define CALLS 512
#define THREADS 65536

struct start {
  __u64 ns;
  __s64 nr;
};

struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct start);
} task_starts SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, THREADS);
  __type(key, __u32);
  __type(value, struct start);
} thread_starts SEC(".maps");

struct buckets {
  __u64 counts[64];  // powers of two
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, CALLS);
  __type(key, __u32);
  __type(value, struct buckets);
} calls SEC(".maps");

PYRO_INLINE void count(__s64 nr, __u64 ns) {
  __u32 call = (__u32)nr & (CALLS - 1);
  struct buckets* buckets = bpf_map_lookup_elem(&calls, &call);
  __u32 bucket = pyro_msb(ns);
  PYRO_OPAQUE(bucket);
  if (buckets) buckets->counts[bucket & 63]++;
}

PYRO_INLINE void add_clock(void) {
  __u32 zero = 0;
  struct buckets* buckets = bpf_map_lookup_elem(&calls, &zero);
  if (buckets) buckets->counts[0] += bpf_ktime_get_ns();
}

SEC("tp_btf/sys_enter")
int BPF_PROG(clocks_enter, struct pt_regs* regs, long nr) {
  add_clock();
  return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(clocks_exit, struct pt_regs* regs, long result) {
  add_clock();
  return 0;
}

PYRO_INLINE struct start* of_thread(void) {
  __u32 tid = (__u32)bpf_get_current_pid_tgid() & (THREADS - 1);
  return bpf_map_lookup_elem(&thread_starts, &tid);
}

PYRO_INLINE void enter(struct start* start, long nr) {
  if (!start) return;
  start->nr = nr;
  start->ns = bpf_ktime_get_ns();
}

PYRO_INLINE void leave(struct start* start) {
  if (!start || !start->ns) return;
  count(start->nr, bpf_ktime_get_ns() - start->ns);
  start->ns = 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(array_enter, struct pt_regs* regs, long nr) {
  enter(of_thread(), nr);
  return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(array_exit, struct pt_regs* regs, long result) {
  leave(of_thread());
  return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(storage_enter, struct pt_regs* regs, long nr) {
  enter(bpf_task_storage_get(&task_starts, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE), nr);
  return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(storage_exit, struct pt_regs* regs, long result) {
  leave(bpf_task_storage_get(&task_starts, bpf_get_current_task_btf(), 0, 0));
  return 0;
}

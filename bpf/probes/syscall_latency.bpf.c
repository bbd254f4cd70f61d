// Latency of every system call, counted per (cgroup, call) in per-CPU histograms.
//
// Hot path, per call: one task storage look-up and a clock read at entry; the same and a few additions at exit, in an
// array, or behind a hash look-up for keys that share their place there with one that came first (hot_octaves.h).
// Tracepoints run with preemption off and system calls do not nest, so per-CPU values need no atomic operations: counts
// are exact.
//
// Exemplars are of two kinds. Slow ones: abi/syscall_latency.h, pyro_syscall_slow. Drawn ones: each call of a key with
// the chance 1 / period, by a countdown in the entry that the call is counted in; a sum over those drawn, each times
// its period, has the sum over all calls as its expectation, whatever is summed (Horvitz and Thompson 1952), because
// the period is settled before the call. Passing over a call costs a test and a subtraction. Periods follow the last
// window's calls, and are doubled after each four draws of an octave on a CPU.
//
// With off_cpu attached beside (pyro_split), what each call waited for is in its task's storage when it ends, written
// while the task did not run. A call that did not wait, and any call without off_cpu, pays nothing for it.
#include "bpf/abi/syscall_latency.h"
#include "bpf/lib/descriptor.h"
#include "bpf/lib/hot_octaves.h"
#include "bpf/lib/octave.h"
#include "bpf/lib/owner.h"
#include "bpf/lib/program.h"
#include "bpf/lib/task_states.h"
#include "bpf/lib/user_stack.h"

const volatile __u64 pyro_exemplar_min_ns = 1000000;               // faster calls are never exemplars
const volatile __u32 pyro_max_user_frames = PYRO_MAX_USER_FRAMES;  // of exemplars; 0 … PYRO_MAX_USER_FRAMES
const volatile __u64 pyro_wake_bytes = 1 << 19;                    // ring fill that wakes the reader

const volatile __u8 pyro_call_descriptors[PYRO_CALL_CAUSES] = {};  // by number: abi/syscall_latency.h

// 64 less the binary logarithm of the number of sets in pyro_hot_keys; 0: none is used.
const volatile __u32 pyro_hot_shift = 0;

// To draw gaps (pyro_gap). Written by user space: log2(1 + i / 64) and, by log2 of the period, -ln 2 / ln(1 - 1 /
// period).
const volatile __u32 pyro_log2_table[65] = {};  // in 2^-16
const volatile __u64 pyro_gap_scale[32] = {};   // in 2^-20

const volatile __u32 pyro_split = 0;  // 1: pyro_task_states is off_cpu's too

// Number of the current window; user space raises it when it drains.
__u32 pyro_epoch = 1;
// Calls are counted that are entered while pyro_counting is 1 and end before user space raises pyro_generation: exact
// instants, where attaching and detaching takes milliseconds.
__u32 pyro_counting = 1;
__u32 pyro_generation = 1;
// When the probe was attached, CLOCK_MONOTONIC; written by user space just before.
__u64 pyro_attached_ns = 0;

#define PYRO_PF_IO_WORKER 0x10u      // task_struct::flags: a thread of io_uring's
#define PYRO_PF_USER_WORKER 0x4000u  // a thread that a driver runs in the name of a process
#define PYRO_TASK_BLOCKED 3u         // task_struct::__state: interruptible, uninterruptible; not stopped, not traced

// Who counts in which place of pyro_hot_octaves. Free places are taken here; user space closes those that are idle or
// that keep out a busier key, and frees them a window later, when no CPU can be counting in them. Sizes set before
// load.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct pyro_hot_set);
} pyro_hot_keys SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_octave);
} pyro_hot_octaves SEC(".maps");

// All other histograms. Entries made here when first needed, deleted by user space when long idle. The entries
// of the fold key are made by user space before attaching. Size set before load; allocated when used.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 16384);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_syscall_octave_key);
  __type(value, struct pyro_octave);
} pyro_syscall_octaves SEC(".maps");

// Failures. Made here, deleted by user space together with the key's octaves.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 8192);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_syscall_error_key);
  __type(value, __u64);
} pyro_syscall_errors SEC(".maps");

// What calls waited for. Made here at a key's first wait, deleted by user space together with the key's octaves. The
// fold key's entry is made by user space before attaching. Sized 1 before load without pyro_split.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
  __uint(max_entries, 8192);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_syscall_key);
  __type(value, struct pyro_syscall_waits);
} pyro_syscall_waits SEC(".maps");

// Exemplar thresholds, written by user space after each window; budget taken here. The fold key's entry
// serves keys without one.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 8192);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_syscall_key);
  __type(value, struct pyro_syscall_slow);
} pyro_syscall_slow SEC(".maps");

// log2 of how many calls one is drawn of, written by user space after each window. The fold key's entry serves keys
// without one.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 8192);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct pyro_syscall_key);
  __type(value, __u32);
} pyro_syscall_periods SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_syscall_counters);
} pyro_counters SEC(".maps");

// Exemplars. Size set before load.
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} pyro_exemplars SEC(".maps");

// x86: exit and exit_group, 64-bit and i386.
PYRO_INLINE int pyro_never_returns(__s32 nr, __u32 compat) {
  return compat ? nr == 1 || nr == 252 : nr == 60 || nr == 231;
}

PYRO_INLINE void pyro_clear_waits(struct pyro_task_state* state) {
  if (!pyro_split || !state->waited) return;
  state->waited = 0;
  for (__u32 i = 0; i < PYRO_WAIT_CAUSES; i++) state->waited_ns[i] = 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(pyro_sys_enter, struct pt_regs* regs, long nr) {
  struct task_struct* task = bpf_get_current_task_btf();
  __u32 flags = task->thread_info.status & PYRO_TS_COMPAT ? PYRO_SYSCALL_COMPAT : 0;
  __u32 zero = 0;

  if (!*(volatile __u32*)&pyro_counting) return 0;
  if (pyro_never_returns((__s32)nr, flags)) {
    struct pyro_syscall_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
    if (counters) counters->never_returns++;
    return 0;
  }
  struct pyro_task_state* start = bpf_task_storage_get(&pyro_task_states, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (!start) {
    struct pyro_syscall_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
    if (counters) counters->start_lost++;
    return 0;
  }
  __u32 generation = *(volatile __u32*)&pyro_generation;
  if (start->generation != generation) {
    pyro_clear_waits(start);  // of a call whose end was not seen
    start->generation = generation;
  }
  start->nr = (__s32)nr;
  start->flags = flags;
  start->call_ns = bpf_ktime_get_ns();
  return 0;
}

PYRO_INLINE struct pyro_octave* pyro_hot_octave_of(const struct pyro_syscall_octave_key* key) {
  if (!pyro_hot_shift) return 0;
  __u64 tag = pyro_hot_tag(key);
  __u32 place = pyro_hot_set_of(tag, pyro_hot_shift);
  struct pyro_hot_set* set = bpf_map_lookup_elem(&pyro_hot_keys, &place);
  if (!set) return 0;
  place *= PYRO_HOT_WAYS;
#pragma unroll
  for (__u32 way = 0; way < PYRO_HOT_WAYS; way++, place++) {
    struct pyro_hot_key* hot = &set->ways[way];
    __u64 whose = *(volatile __u64*)&set->tags[way];
    if (whose == tag) {
      if (*(volatile __u32*)&hot->state == PYRO_HOT_USED && pyro_same_octave_key(&hot->key, key)) {
        return bpf_map_lookup_elem(&pyro_hot_octaves, &place);
      }
    } else if (!whose) {
      if (__sync_val_compare_and_swap(&set->tags[way], 0, tag)) return 0;
      hot->key = *key;
      *(volatile __u32*)&hot->state = PYRO_HOT_USED;  // after the key: x86 and the JIT keep the order of stores
      return bpf_map_lookup_elem(&pyro_hot_octaves, &place);
    }
  }
  return 0;
}

PYRO_INLINE struct pyro_octave* pyro_octave_of(struct pyro_syscall_octave_key* key, int* folded) {
  *folded = 0;
  struct pyro_octave* octave = pyro_hot_octave_of(key);
  if (octave) return octave;
  octave = bpf_map_lookup_elem(&pyro_syscall_octaves, key);
  if (octave) return octave;
  struct pyro_octave fresh = {};
  bpf_map_update_elem(&pyro_syscall_octaves, key, &fresh, BPF_NOEXIST);
  octave = bpf_map_lookup_elem(&pyro_syscall_octaves, key);
  if (octave) return octave;
  // Full: count under the fold key, whose entries exist since before we were attached.
  *folded = 1;
  struct pyro_syscall_octave_key fold = {.call = {.flags = PYRO_SYSCALL_FOLDED}, .octave = key->octave};
  return bpf_map_lookup_elem(&pyro_syscall_octaves, &fold);
}

PYRO_INLINE void pyro_count_error(const struct pyro_syscall_key* call, __u32 error,
                                  struct pyro_syscall_counters* counters) {
  struct pyro_syscall_error_key key = {.call = *call, .error = error};
  __u64* count = bpf_map_lookup_elem(&pyro_syscall_errors, &key);
  if (!count) {
    __u64 none = 0;
    bpf_map_update_elem(&pyro_syscall_errors, &key, &none, BPF_NOEXIST);
    count = bpf_map_lookup_elem(&pyro_syscall_errors, &key);
  }
  if (count) {
    (*count)++;
  } else {
    counters->errors_lost++;
  }
}

// The waits go where the call's latency went, so that they never exceed the histogram's sum.
PYRO_INLINE void pyro_add_waits(const struct pyro_syscall_key* call, int folded, const struct pyro_task_state* state,
                                struct pyro_syscall_counters* counters) {
  struct pyro_syscall_key fold = {.flags = PYRO_SYSCALL_FOLDED};
  struct pyro_syscall_waits* waits = 0;
  if (!folded) {
    waits = bpf_map_lookup_elem(&pyro_syscall_waits, call);
    if (!waits) {
      struct pyro_syscall_waits none = {};
      bpf_map_update_elem(&pyro_syscall_waits, call, &none, BPF_NOEXIST);
      waits = bpf_map_lookup_elem(&pyro_syscall_waits, call);
    }
  } else {
    waits = bpf_map_lookup_elem(&pyro_syscall_waits, &fold);
  }
  if (!waits) {
    counters->waits_lost++;
    return;
  }
  waits->calls++;
  for (__u32 i = 0; i < PYRO_WAIT_CAUSES; i++) waits->ns[i] += state->waited_ns[i];
}

PYRO_INLINE __u32 pyro_microseconds(__u64 ns) {
  __u64 us = ns / 1000;
  return us > 0xffffffffull ? 0xffffffffu : (__u32)us;
}

PYRO_NOINLINE int pyro_describe(struct task_struct* task, __s32 fd, struct pyro_descriptor* descriptor) {
  if (fd < 0) return 0;
  struct file* file = pyro_file_of(task, fd);
  if (!file) return 0;
  descriptor->fd = fd;
  descriptor->kind = PYRO_DESCRIPTOR_FILE;
  descriptor->inode = BPF_CORE_READ(file, f_inode, i_ino);
  if ((BPF_CORE_READ(file, f_inode, i_mode) & PYRO_S_IFMT) != PYRO_S_IFSOCK) return 0;
  struct socket* socket = BPF_CORE_READ(file, private_data);
  struct sock* sock = BPF_CORE_READ(socket, sk);
  if (!sock) return 0;
  descriptor->kind = PYRO_DESCRIPTOR_SOCKET;
  descriptor->family = BPF_CORE_READ(sock, __sk_common.skc_family);
  if (descriptor->family != PYRO_AF_INET && descriptor->family != PYRO_AF_INET6) return 0;
  __u16 port = BPF_CORE_READ(sock, __sk_common.skc_dport);
  descriptor->port = (__u16)(port << 8 | port >> 8);
  if (descriptor->family == PYRO_AF_INET) {
    __u32 address = BPF_CORE_READ(sock, __sk_common.skc_daddr);
    __builtin_memcpy(descriptor->peer, &address, sizeof(address));
  } else {
    BPF_CORE_READ_INTO(descriptor->peer, sock, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
  }
  return 0;
}

// Which call it was: arguments, and what its descriptors are. Of 64-bit calls.
PYRO_NOINLINE int pyro_take_arguments(struct task_struct* task, struct pyro_syscall_exemplar* exemplar) {
  __builtin_memset(exemplar->arguments, 0, sizeof(exemplar->arguments));
  __builtin_memset(&exemplar->descriptor, 0, sizeof(exemplar->descriptor));
  __builtin_memset(&exemplar->second_descriptor, 0, sizeof(exemplar->second_descriptor));
  __u32 nr = exemplar->call.nr;
  if (exemplar->call.flags || nr >= PYRO_CALL_CAUSES) return 0;
  struct pt_regs* regs = (struct pt_regs*)bpf_task_pt_regs(task);
  __u64 first = regs->di, second = regs->si, third = regs->dx, fourth = regs->r10, fifth = regs->r8, sixth = regs->r9;
  __s64 returned = exemplar->result;
  // Values from here on: the verifier wants no load through one of several pointers.
  PYRO_OPAQUE(first);
  PYRO_OPAQUE(second);
  PYRO_OPAQUE(third);
  PYRO_OPAQUE(fourth);
  PYRO_OPAQUE(fifth);
  PYRO_OPAQUE(sixth);
  PYRO_OPAQUE(returned);
  exemplar->arguments[0] = first;
  exemplar->arguments[1] = second;
  exemplar->arguments[2] = third;
  exemplar->arguments[3] = fourth;
  exemplar->arguments[4] = fifth;
  exemplar->arguments[5] = sixth;
  __u8 both = pyro_call_descriptors[nr & (PYRO_CALL_CAUSES - 1)];
  __u8 which = both & 15, other = both >> 4;
  __s32 fd = which == 1                          ? (__s32)first
             : which == 2                        ? (__s32)second
             : which == 3                        ? (__s32)third
             : which == 4                        ? (__s32)fourth
             : which == 5                        ? (__s32)fifth
             : which == 6                        ? (__s32)sixth
             : which == PYRO_DESCRIPTOR_RETURNED ? (__s32)returned
                                                 : -1;
  pyro_describe(task, fd, &exemplar->descriptor);
  // Of the calls that have two, the other is the second or third argument.
  if (other) pyro_describe(task, other == 2 ? (__s32)second : (__s32)third, &exemplar->second_descriptor);
  return 0;
}

// How a call ended, and why it is an exemplar: BPF passes five arguments.
struct pyro_ending {
  __u64 end_ns;
  __u64 latency_ns;
  __s64 result;
  __u32 slow;
  __u32 drawn;  // pyro_syscall_exemplar::drawn
};

PYRO_NOINLINE int pyro_send_exemplar(const struct pyro_syscall_key* call, const struct pyro_task_state* state,
                                     const struct pyro_ending* ending) {
  struct task_struct* task = bpf_get_current_task_btf();
  __u32 zero = 0;
  struct pyro_stack_record* scratch = pyro_own_stack_record();
  struct pyro_syscall_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
  if (!scratch || !counters) return 0;
  struct pyro_walk* walk = &scratch->walk;
  struct pyro_syscall_exemplar* exemplar = PYRO_HEADER_OF(walk, struct pyro_syscall_exemplar);
  exemplar->time_ns = ending->end_ns;
  exemplar->latency_ns = ending->latency_ns;
  exemplar->slow = ending->slow != 0;
  exemplar->drawn = ending->drawn;
  exemplar->start_time_ns = task->group_leader->start_boottime;
  exemplar->call = *call;
  exemplar->result = ending->result;
  exemplar->tgid = task->tgid;
  exemplar->tid = task->pid;
  bpf_get_current_comm(exemplar->comm, sizeof(exemplar->comm));
  for (__u32 i = 0; i < PYRO_WAIT_CAUSES; i++) {
    exemplar->waited_us[i] = pyro_split ? pyro_microseconds(state->waited_ns[i]) : 0;
  }
  exemplar->pad = 0;
  pyro_take_arguments(task, exemplar);

  walk->count = walk->means = 0;
  walk->stop = PYRO_STOP_NO_USER_STACK;
  if (pyro_saved_registers(task, &scratch->regs)) {
    scratch->regs.compat = (call->flags & PYRO_SYSCALL_COMPAT) != 0;
    pyro_take_user_stack(walk, &scratch->regs, pyro_max_user_frames, task);
  }
  __u32 frames = *(volatile __u32*)&walk->count;
  if (frames > PYRO_MAX_USER_FRAMES) frames = PYRO_MAX_USER_FRAMES;
  exemplar->user_frames = frames;
  exemplar->user_stop = walk->stop;
  exemplar->means = walk->means;
  exemplar->raw_bytes = 0;
  __u32 bytes = frames * 8;
  if (pyro_wants_copy(walk)) {
    __u32 raw = pyro_append_stack_copy(scratch, bytes);
    if (raw) {
      exemplar->raw_bytes = raw;
      bytes += sizeof(struct pyro_raw_registers) + raw;
    }
  }
  bytes += sizeof(*exemplar);
  PYRO_OPAQUE(bytes);
  if (bytes > sizeof(*exemplar) + PYRO_MAX_USER_FRAMES * 8 + PYRO_TAIL_BYTES) bytes = sizeof(*exemplar);  // never
  __u64 flags = pyro_ring_flags(&pyro_exemplars, pyro_wake_bytes, bytes);
  if (bpf_ringbuf_output(&pyro_exemplars, exemplar, bytes, flags)) {
    counters->exemplars_dropped++;
  } else {
    counters->exemplars_sent++;
  }
  return 0;
}

// How many calls to pass over before the next draw: geometric, by inversion. 0 … 22.2 periods, relative error of its
// mean below 10^-4 (64 chords of the logarithm).
PYRO_NOINLINE int pyro_gap(__u32 log2_period) {
  __u32 random = bpf_get_prandom_u32() | 1;
  __u32 top = 0, rest = random;
  if (rest >> 16) top += 16, rest >>= 16;
  if (rest >> 8) top += 8, rest >>= 8;
  if (rest >> 4) top += 4, rest >>= 4;
  if (rest >> 2) top += 2, rest >>= 2;
  if (rest >> 1) top += 1;
  __u32 mantissa = random << ((31 - top) & 31);  // its highest bit is set
  __u32 chord = mantissa >> 25 & 63;
  PYRO_OPAQUE(chord);
  chord &= 63;
  __u64 low = pyro_log2_table[chord], high = pyro_log2_table[chord + 1];
  __u64 log2 = ((__u64)top << 16) + low + ((high - low) * (mantissa >> 9 & 0xffff) >> 16);
  __u64 gap = ((32ull << 16) - log2) * pyro_gap_scale[log2_period & 31] >> 36;
  return gap > PYRO_DRAW_LEFT ? PYRO_DRAW_LEFT : (int)gap;
}

// At a call before which nothing is left to pass over: 1 + log2 of the period with which it is drawn, or 0 when a
// window has only begun and it is to be passed over. Gaps have no memory, so that one may be replaced by a new one.
PYRO_NOINLINE int pyro_draw_call(struct pyro_octave* octave, const struct pyro_syscall_key* call) {
  if (!octave) return 0;
  __u32 state = octave->draw;
  __u32 drawn = state >> PYRO_DRAW_PERIOD_SHIFT, draws = state >> PYRO_DRAWS_SHIFT & PYRO_DRAWS_MASK;
  if (drawn == 0 || drawn > PYRO_MAX_DRAW_PERIOD + 1) {
    __u32* period = bpf_map_lookup_elem(&pyro_syscall_periods, call);
    if (!period) {
      struct pyro_syscall_key any = {.flags = PYRO_SYSCALL_FOLDED};
      period = bpf_map_lookup_elem(&pyro_syscall_periods, &any);
    }
    if (!period || *period > PYRO_MAX_DRAW_PERIOD) {
      octave->draw = (PYRO_DRAW_NEVER + 1) << PYRO_DRAW_PERIOD_SHIFT | PYRO_DRAW_LEFT;
      return 0;
    }
    drawn = *period + 1;
    draws = 0;
    __u32 gap = pyro_gap(*period);
    if (gap) {
      octave->draw = drawn << PYRO_DRAW_PERIOD_SHIFT | (gap - 1);
      return 0;
    }
  }
  __u32 next = drawn;
  if (draws == PYRO_DRAWS_MASK) {
    draws = 0;
    if (next <= PYRO_MAX_DRAW_PERIOD) next++;
  } else {
    draws++;
  }
  octave->draw = next << PYRO_DRAW_PERIOD_SHIFT | draws << PYRO_DRAWS_SHIFT | (__u32)pyro_gap(next - 1);
  return drawn;
}

// Whether this slow call is to leave an exemplar; takes one from the key's budget if so.
PYRO_INLINE int pyro_wants_exemplar(const struct pyro_syscall_key* call, __u64 latency_ns,
                                    struct pyro_syscall_counters* counters) {
  struct pyro_syscall_slow* slow = bpf_map_lookup_elem(&pyro_syscall_slow, call);
  if (!slow) {
    struct pyro_syscall_key any = {.flags = PYRO_SYSCALL_FOLDED};
    slow = bpf_map_lookup_elem(&pyro_syscall_slow, &any);
    if (!slow) return 0;
  }
  if (latency_ns < slow->threshold_ns) return 0;
  // Drawn, so that those of a whole window are alike in chance: the first ones would tell of its beginning only.
  if (latency_ns < slow->sure_ns && bpf_get_prandom_u32() >= slow->draw) {
    counters->exemplars_limited++;
    return 0;
  }
  // Read first: a spent budget is then not written by every CPU at every slow call.
  if (slow->budget <= 0 || __sync_fetch_and_add(&slow->budget, -1) <= 0) {
    counters->exemplars_limited++;
    return 0;
  }
  return 1;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(pyro_sys_exit, struct pt_regs* regs, long result) {
  struct task_struct* task = bpf_get_current_task_btf();
  __u32 zero = 0;
  struct pyro_syscall_counters* counters = bpf_map_lookup_elem(&pyro_counters, &zero);
  if (!counters) return 0;
  struct pyro_task_state* start = bpf_task_storage_get(&pyro_task_states, task, 0, 0);
  if (!start || start->call_ns == 0 || start->generation != *(volatile __u32*)&pyro_generation) {
    if (!*(volatile __u32*)&pyro_counting || (start && start->call_ns)) {
      counters->paused++;
    } else {
      counters->no_entry++;
    }
    if (start) {
      start->nr = -1;  // an older call is over
      start->call_ns = 0;
    }
    return 0;
  }
  __u64 now = bpf_ktime_get_ns();
  __u64 latency = now - start->call_ns;
  start->call_ns = 0;
  if (latency > PYRO_MAX_LATENCY_NS) latency = PYRO_MAX_LATENCY_NS;

  struct pyro_syscall_octave_key key = {};
  key.call.nr = start->nr;
  key.call.flags = start->flags;
  pyro_owner_of(task, &key.call.owner);
  __u32 sub;
  pyro_bucket(latency, &key.octave, &sub);

  int folded;
  struct pyro_octave* octave = pyro_octave_of(&key, &folded);
  if (!octave) {
    counters->lost++;
    pyro_clear_waits(start);
    return 0;
  }
  pyro_octave_add(octave, sub, latency, pyro_epoch);
  if (folded) {
    counters->folded++;
  } else {
    counters->recorded++;
  }
  if (pyro_split && start->waited) pyro_add_waits(&key.call, folded, start, counters);
  // The kernel's own range of errors (IS_ERR_VALUE): mmap returns addresses above LONG_MAX on no machine.
  if (result < 0 && result >= -4095) pyro_count_error(&key.call, (__u32)-result, counters);
  struct pyro_ending ending = {.end_ns = now, .latency_ns = latency, .result = result};
  if (octave->draw & PYRO_DRAW_LEFT) {
    octave->draw--;
  } else if (!folded) {
    ending.drawn = pyro_draw_call(octave, &key.call);
  }
  if (latency >= pyro_exemplar_min_ns) ending.slow = pyro_wants_exemplar(&key.call, latency, counters);
  if (ending.slow | ending.drawn) {
    counters->exemplars_taken++;
    pyro_send_exemplar(&key.call, start, &ending);
  }
  pyro_clear_waits(start);
  return 0;
}

// ---- what has not returned --------------------------------------------------------------------------------

SEC("iter/task")
int pyro_open_calls(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  struct seq_file* seq = ctx->meta->seq;
  if (!task || (task->flags & (PYRO_PF_KTHREAD | PYRO_PF_IO_WORKER | PYRO_PF_USER_WORKER))) return 0;
  struct pyro_open_call call = {};
  struct pyro_task_state* own = bpf_task_storage_get(&pyro_task_states, task, 0, 0);
  int seen = own && own->generation == *(volatile __u32*)&pyro_generation;
  if (own) {
    call.off_ns = own->off_ns;
    call.cause = own->blocked && !own->wake_ns ? own->cause : own->queue;
  }
  if (own && seen) {
    call.call_ns = *(volatile __u64*)&own->call_ns;
    call.nr = own->nr;
    call.flags = own->flags;
    // It may run meanwhile, return and enter another: an old age must not meet a new number.
    if (*(volatile __u64*)&own->call_ns != call.call_ns) return 0;
  }
  call.blocked = (task->__state & PYRO_TASK_BLOCKED) != 0;
  if (!call.call_ns) {
    if (seen && call.nr != PYRO_NR_NONE_SEEN) return 0;
    if (!call.blocked) return 0;
    struct pt_regs* regs = (struct pt_regs*)bpf_task_pt_regs(task);
    __s64 nr = (__s64)regs->orig_ax;
    call.flags = task->thread_info.status & PYRO_TS_COMPAT ? PYRO_SYSCALL_COMPAT : 0;
    if (nr < 0 || pyro_never_returns((__s32)nr, call.flags)) return 0;
    call.nr = (__s32)nr;
    call.call_ns = pyro_attached_ns;
    call.older = 1;
  }
  pyro_owner_of(task, &call.owner);
  call.start_time_ns = task->group_leader->start_boottime;
  call.tgid = task->tgid;
  call.tid = task->pid;
  bpf_probe_read_kernel(call.comm, sizeof(call.comm), task->comm);
  bpf_seq_write(seq, &call, sizeof(call));
  return 0;
}

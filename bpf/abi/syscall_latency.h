// Maps and records of the probe syscall_latency (bpf/probes/syscall_latency.bpf.c).
#pragma once

#include "bpf/abi/histogram.h"
#include "bpf/abi/off_cpu.h"
#include "bpf/abi/stack.h"
#include "bpf/abi/types.h"
#include "bpf/abi/unwind.h"

// 32-bit calls (int 0x80, 32-bit SYSENTER/SYSCALL) have their own number space.
#define PYRO_SYSCALL_COMPAT 1u
// The key stands for all keys that found no room; its other members are 0.
#define PYRO_SYSCALL_FOLDED 2u

// Who called what.
struct pyro_syscall_key {
  struct pyro_owner owner;
  __s32 nr;     // as seen at entry; -1 when a tracer or seccomp cancelled the call
  __u32 flags;  // PYRO_SYSCALL_*
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_key) == 24, "pyro_syscall_key");

// Key of pyro_syscall_octaves -> per-CPU struct pyro_octave of latencies in ns.
struct pyro_syscall_octave_key {
  struct pyro_syscall_key call;
  __u32 octave;  // bucket index / PYRO_SUB_BUCKETS
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_octave_key) == 32, "pyro_syscall_octave_key");

// Places for the octaves that are counted most: pyro_hot_octaves, a per-CPU array of struct pyro_octave, and
// pyro_hot_keys, who has which: bpf/lib/hot_octaves.h gives a key a set of PYRO_HOT_WAYS neighbouring places. A key
// whose places are others' counts in the hash. A key may have counts in both: its window is their sum.
#define PYRO_HOT_WAYS 4

enum pyro_hot_state {
  PYRO_HOT_FREE = 0,     // nobody's, or a CPU that has set the tag is writing its key
  PYRO_HOT_USED = 1,     // counted in, by who compares equal
  PYRO_HOT_CLOSING = 2,  // by user space: nobody begins to count in it any more
};

struct pyro_hot_key {
  struct pyro_syscall_octave_key key;
  __u32 state;  // enum pyro_hot_state
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_hot_key) == 40, "pyro_hot_key");

// Value of pyro_hot_keys, by set; way w of set s counts in entry s * PYRO_HOT_WAYS + w of pyro_hot_octaves.
struct pyro_hot_set {
  __u64 tags[PYRO_HOT_WAYS];  // hash of the way's key; 0: the next key that comes by takes it
  struct pyro_hot_key ways[PYRO_HOT_WAYS];
};

// Key of pyro_syscall_errors -> per-CPU __u64 count.
struct pyro_syscall_error_key {
  struct pyro_syscall_key call;
  __u32 error;  // errno; 512..530 are kernel-internal (ERESTARTSYS …): the call is restarted or becomes EINTR
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_error_key) == 32, "pyro_syscall_error_key");

// Value of pyro_syscall_waits, key struct pyro_syscall_key: what its calls waited for. Filled only when the probe
// off_cpu runs beside. The rest of a key's time, which is the sum of its histogram, it ran.
struct pyro_syscall_waits {
  __u64 calls;                 // that waited at all
  __u64 ns[PYRO_WAIT_CAUSES];  // by enum pyro_wait_cause
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_waits) == 8 + 8 * PYRO_WAIT_CAUSES, "pyro_syscall_waits");

// Value of pyro_syscall_slow: when a call of this key is slow enough for an exemplar.
struct pyro_syscall_slow {
  __u64 threshold_ns;
  __s64 budget;   // exemplars left in this window; user space refills, the probe takes one each
  __u64 sure_ns;  // a call that lasted this long is taken without a draw
  __u64 draw;     // others with probability draw / 2^32
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_slow) == 32, "pyro_syscall_slow");

// Draws among all calls. pyro_octave::draw holds, from below: how many calls of this key, octave and CPU are passed
// over yet before one is drawn; how many were drawn since the period was last doubled; 1 + log2 of the period. A call
// is drawn with the chance 1 / period, which is settled before the call is made.
#define PYRO_DRAW_LEFT 0x01ffffffu
#define PYRO_DRAWS_SHIFT 25
#define PYRO_DRAWS_MASK \
  3u  // after so many and one more the period is doubled: however many calls there are, draws are few
#define PYRO_DRAW_PERIOD_SHIFT 27
#define PYRO_MAX_DRAW_PERIOD 20u  // log2: the longest gap, 22.2 periods, fits
#define PYRO_DRAW_NEVER 30u       // in place of log2

// pyro_call_descriptors: which arguments of a call are descriptors worth naming, by number, the first one in the lower
// half: 0 none, 1 … 6 the first to sixth, PYRO_DESCRIPTOR_RETURNED what the call returned.
#define PYRO_DESCRIPTOR_RETURNED 7u

enum pyro_descriptor_kind {
  PYRO_DESCRIPTOR_NONE = 0,    // the call has none, or it was closed
  PYRO_DESCRIPTOR_FILE = 1,    // inode tells which, /proc the name
  PYRO_DESCRIPTOR_SOCKET = 2,  // peer
};

// What is behind the descriptor of a call, at its end.
struct pyro_descriptor {
  __s32 fd;       // meaningless with PYRO_DESCRIPTOR_NONE
  __u8 kind;      // enum pyro_descriptor_kind
  __u8 family;    // AF_* of a socket
  __u16 port;     // of an internet socket's peer, host order; 0: it has none
  __u64 inode;    // of a file
  __u8 peer[16];  // address, network order; of AF_INET the first 4 bytes
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_descriptor) == 32, "pyro_descriptor");

// One single call, slow or drawn or both, on the ring: this header, then user_frames addresses (u64, leaf first); with
// raw_bytes, then registers and stack as behind struct pyro_cpu_sample.
struct pyro_syscall_exemplar {
  __u64 time_ns;  // end of the call, CLOCK_MONOTONIC
  __u64 latency_ns;
  __u64 start_time_ns;  // group leader's start, CLOCK_BOOTTIME
  struct pyro_syscall_key call;
  __s64 result;  // return value; negative errno on failure
  __u32 tgid;
  __u32 tid;
  __u32 raw_bytes;    // of stack
  __u16 user_frames;  // at most PYRO_MAX_USER_FRAMES
  __u8 user_stop;     // enum pyro_stop_reason
  __u8 means;         // bits of enum pyro_walk_means
  char comm[PYRO_COMM_BYTES];
  __u32 waited_us[PYRO_WAIT_CAUSES];  // of the latency, by cause; all 0 without off_cpu
  __u8 slow;                          // 1: one of the slowest
  __u8 drawn;                         // among all calls: 1 + log2 of the period; 0: not drawn
  __u16 pad;
  __u64 arguments[6];  // of a 64-bit call, as passed in registers: what they point to is never read
  struct pyro_descriptor descriptor;
  struct pyro_descriptor second_descriptor;  // of calls that have two
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_exemplar) == 240, "pyro_syscall_exemplar");

// One call that has not returned, as the iterator pyro_open_calls writes them one behind the other.
struct pyro_open_call {
  struct pyro_owner owner;
  __u64 start_time_ns;  // group leader's start, CLOCK_BOOTTIME
  __u64 call_ns;        // entry of the call, CLOCK_MONOTONIC; of an older one, when the probe was attached
  __u64 off_ns;         // when the thread left its CPU; 0: it runs, or off_cpu does not
  __u32 tgid;
  __u32 tid;
  __s32 nr;
  __u32 flags;   // PYRO_SYSCALL_*
  __u8 cause;    // enum pyro_wait_cause: of the blocked part, or how it queues; meaningless without off_ns
  __u8 older;    // 1: entered before the probe was attached, seen because its thread is blocked
  __u8 blocked;  // 1: its thread is blocked, whether or not off_ns tells since when
  __u8 pad[5];
  char comm[PYRO_COMM_BYTES];
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_open_call) == 80, "pyro_open_call");

// Per-CPU counters. Every sys_exit adds to exactly one of recorded, folded, lost, no_entry and
// paused.
struct pyro_syscall_counters {
  __u64 recorded;           // in a histogram under its own key
  __u64 folded;             // in the histogram of the fold key: no room for another key
  __u64 lost;               // not recorded at all (the fold entry was missing)
  __u64 no_entry;           // exit without a seen entry: attached in mid-call, or a new child returning from fork
  __u64 start_lost;         // entry could not be remembered (task storage busy or out of memory)
  __u64 never_returns;      // exit and exit_group seen at entry
  __u64 errors_lost;        // failed calls whose errno could not be counted (map full)
  __u64 exemplars_taken;    // calls chosen: slow ones, and drawn ones
  __u64 exemplars_sent;     // of those: written to the ring
  __u64 exemplars_dropped;  // of those: ring full
  __u64 exemplars_limited;  // slow calls not chosen: budget of the window spent
  __u64 waits_lost;         // calls whose waits were added nowhere (the fold entry was missing)
  __u64 paused;             // exits of calls that were entered, or ended, while user space wanted none counted
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_syscall_counters) == 104, "pyro_syscall_counters");

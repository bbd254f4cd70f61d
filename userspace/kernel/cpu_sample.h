// One CPU sample, whichever sampler took it, and the accounting that goes with samples.
//
// Accounting invariant, at any moment when sampling is stopped:
//   taken == delivered + pending + sum of drops
// (`pending`: written to the ring, not yet read by Poll; 0 after a Poll that followed Stop.)
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "bpf/abi/stack.h"
#include "bpf/abi/unwind.h"
#include "userspace/base/types.h"

namespace pyrometer::kernel {

// Why a stack walk ended; values and meanings: bpf/abi/stack.h.
using StopReason = ::pyro_stop_reason;
inline constexpr size_t kStopReasons = PYRO_STOP_COUNT;
// "end", "truncated", "unreadable", … ; "unknown" for a value of a newer probe.
std::string_view StopReasonName(StopReason reason);
// The stack has all its frames: it reached the outermost one, or there was none.
bool IsWhole(StopReason reason);
// The same by name, for counts that come from elsewhere.
bool IsWholeStop(std::string_view reason_name);
// Walk means that say something about quality, one name a bit: "frame pointers: no unwind information", …
// `bit` is one of pyro_walk_means.
std::string_view WalkMeansName(uint8_t bit);
// The name of the least trustworthy of several means: a stack of which one step was guessed is a guess.
std::string_view LeastMeansName(uint8_t means);

// Views are valid during the callback only.
struct CpuSample {
  uint64_t time_ns = 0;           // CLOCK_MONOTONIC
  uint32_t cpu = 0;               // processor it was taken on
  ProcessKey process;             // tgid and start time; start_time_ns 0 when the source cannot know (unprivileged)
  uint32_t tid = 0;               // thread
  uint64_t cgroup_id = 0;         // cgroup2 id; 1 is the root, 0 = not known (unprivileged)
  uint64_t cgroup_v1_id = 0;      // directory inode in the cgroup1 controller V1Controller() names; 0 = none
  std::string_view comm;          // thread name, at most 15 bytes, any bytes
  std::string_view process_comm;  // name of the main thread; empty = not known
  std::span<const uint64_t> kernel_frames;  // virtual addresses, leaf first; empty when user code was hit
  // Virtual addresses, leaf first. [0], and those with PYRO_FRAME_EXACT set, are instruction addresses; the others are
  // return addresses (look up address - 1). With kernel_frames, [0] is where user code entered the kernel.
  std::span<const uint64_t> user_frames;
  StopReason kernel_stop = PYRO_STOP_NOT_TAKEN;
  StopReason user_stop = PYRO_STOP_NOT_TAKEN;
  uint8_t means = 0;  // bits of pyro_walk_means: how user_frames were found
  // A copy of the stack, for samples whose walk came before what it needed was known: from
  // raw_registers->stack_start on. Null and empty for all others.
  const pyro_raw_registers* raw_registers = nullptr;
  std::string_view raw_stack;
  uint64_t period_ns = 0;  // CPU time this sample stands for: 1e9 / frequency
};

struct SampleCounters {
  uint64_t taken = 0;      // samples of the target
  uint64_t delivered = 0;  // given to Poll's callback
  uint64_t pending = 0;    // in the ring, not read yet
  // Drops, one member per reason.
  uint64_t dropped_ring_full = 0;  // the reader was too slow or the ring too small
  uint64_t dropped_scratch = 0;    // no per-CPU scratch record; not seen yet
  uint64_t dropped_malformed = 0;  // record that did not decode; not seen yet
  uint64_t dropped_lost = 0;       // the kernel's own count of lost records (unprivileged sampler); walks left to tasks
                                   // that did not go on before sampling ended
  // Not samples of the target, counted beside.
  uint64_t deferred = 0;                              // whose walk was left to task work: a page was not in memory
  uint64_t raw_copies = 0;                            // delivered or dropped samples that carry a stack
  uint64_t raw_refused = 0;                           // that should have, but the ring was half full
  uint64_t idle = 0;                                  // interrupts that hit an idle CPU
  uint64_t filtered = 0;                              // interrupts that hit something outside of the target
  std::array<uint64_t, kStopReasons> kernel_stops{};  // of taken samples, by StopReason
  std::array<uint64_t, kStopReasons> user_stops{};

  // Adds all but `pending`, which is a state.
  SampleCounters& operator+=(const SampleCounters& other) {
    taken += other.taken;
    delivered += other.delivered;
    dropped_ring_full += other.dropped_ring_full;
    dropped_scratch += other.dropped_scratch;
    dropped_malformed += other.dropped_malformed;
    dropped_lost += other.dropped_lost;
    deferred += other.deferred;
    raw_copies += other.raw_copies;
    raw_refused += other.raw_refused;
    idle += other.idle;
    filtered += other.filtered;
    for (size_t i = 0; i < kStopReasons; ++i) {
      kernel_stops[i] += other.kernel_stops[i];
      user_stops[i] += other.user_stops[i];
    }
    return *this;
  }
  uint64_t DroppedTotal() const { return dropped_ring_full + dropped_scratch + dropped_malformed + dropped_lost; }
};

}  // namespace pyrometer::kernel

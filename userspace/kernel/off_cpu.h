// Why threads do not run, per cgroup: for how long and for which cause, exactly; and, of an unbiased sample of the
// waits, with which stack and woken by whom.
//
//   ASSIGN_OR_RETURN(auto probe, OffCpu::Start({.unwind = maps}));
//   often:     RETURN_IF_ERROR(probe->PollSamples([&](const WaitSample& s) { … s.weight_ns … }));
//   each 10 s: RETURN_IF_ERROR(probe->Drain([&](const WaitWindow& w) { … }));
//
// A wait that lasted d is sampled with probability min(1, d / T), and a sample stands for weight_ns = max(d, T): sums
// of weights have the true sums as their expectation, whatever T was meanwhile, and waits of T and longer are all
// there. T follows the load: PollSamples sets it once a second so that about `samples_per_second` are taken, within
// min_period_ns and kMaxPeriodNs.
//
// Threads: PollSamples and Drain from one thread each (they may differ). Cost: about 1 µs per switch of a thread and
// its wake-up (tests/bench/latency_probes), some 10 µs per sample; nothing on system calls that do not wait. 4 MiB of
// kernel memory and 16 bytes per CPU, cgroup and cause.
//
// Does not promise: threads that do not wake up before the end; kernel threads; a user stack before Linux 6.18
// (user_stop PYRO_STOP_NOT_TAKEN), where there is no way to read it without a cost for every system call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/kernel/latency_histogram.h"
#include "userspace/kernel/wait_causes.h"

namespace pyrometer::kernel {

class UnwindMaps;

// Views are valid during the callback only.
struct WaitSample {
  uint64_t time_ns = 0;    // end of the wait, CLOCK_MONOTONIC
  uint64_t wait_ns = 0;    // its length
  uint64_t weight_ns = 0;  // waiting time that it stands for
  WaitCause cause = PYRO_WAIT_OTHER;
  ProcessKey process;
  uint32_t tid = 0;
  uint64_t cgroup_id = 0;     // as in CpuSample
  uint64_t cgroup_v1_id = 0;  // as in CpuSample
  int32_t nr = -1;            // system call in flight, -1: none
  bool compat = false;        // a 32-bit call
  std::string_view comm;
  std::span<const uint64_t> user_frames;    // of the thread that waited, as in CpuSample
  std::span<const uint64_t> kernel_frames;  // of the thread that waited
  StopReason user_stop = PYRO_STOP_NOT_TAKEN;
  uint8_t means = 0;
  // Who ended it. With PYRO_WAKER_INTERRUPT there are only kernel frames.
  pyro_waker_kind waker = PYRO_WAKER_NONE;
  ProcessKey waker_process;
  uint32_t waker_tid = 0;
  std::string_view waker_comm;
  std::span<const uint64_t> waker_kernel_frames;
  std::span<const uint64_t> waker_user_frames;
  StopReason waker_user_stop = PYRO_STOP_NOT_TAKEN;
};

struct WaitTotal {
  uint64_t count = 0;
  uint64_t ns = 0;
};

// What one cgroup waited since the last Drain.
struct WaitWindow {
  uint64_t cgroup_id = 0;
  uint64_t cgroup_v1_id = 0;
  bool folded = false;  // all cgroups that found no room
  std::array<WaitTotal, kWaitCauses> totals{};
  LatencyHistogram queue;  // waits for a processor, both causes
};

struct OffCpuCounters {
  uint64_t taken = 0;  // = delivered + dropped_* + pending
  uint64_t delivered = 0;
  uint64_t dropped_slots = 0;  // more than 256 at once on their way
  uint64_t dropped_ring = 0;
  uint64_t dropped_malformed = 0;  // not seen yet
  uint64_t pending = 0;            // the thread has not returned to user mode yet, or not read
  uint64_t without_user = 0;       // delivered or in the ring, without a user stack
  uint64_t folded = 0;             // waits counted in the folded window
  uint64_t lost = 0;               // waits counted nowhere; not seen yet
  uint64_t storage_lost = 0;       // switches that could not be remembered
  uint64_t missed = 0;             // waits whose end the kernel did not report: in no sum
};

class OffCpu {
 public:
  static constexpr uint64_t kMaxPeriodNs = 4'000'000'000;  // below 2^32: bpf/probes/off_cpu.bpf.c
  struct Options {
    bool sampling = true;                // false: sums only
    uint64_t period_ns = 10'000'000;     // T at the start; lower: more samples
    uint64_t min_period_ns = 1'000'000;  // T never goes below
    uint32_t samples_per_second = 500;   // 0: T stays as it is
    uint32_t ring_bytes = 2 << 20;
    uint32_t max_user_frames = PYRO_MAX_USER_FRAMES;
    std::shared_ptr<UnwindMaps> unwind;          // as for CpuSampler
    int task_states = -1;                        // SyscallLatency::TaskStates(), whose calls get their split from here
    uint32_t idle_windows_before_eviction = 30;  // as for SyscallLatency
  };
  static StatusOr<std::unique_ptr<OffCpu>> Start(const Options& options);
  virtual ~OffCpu() = default;

  virtual Status PollSamples(const std::function<void(const WaitSample&)>& callback) = 0;
  virtual Status Drain(const std::function<void(const WaitWindow&)>& callback) = 0;
  // Detaches; what was counted and sampled stays to be read.
  virtual Status Stop() = 0;
  virtual OffCpuCounters Counters() const = 0;
  virtual uint64_t period_ns() const = 0;
};

}  // namespace pyrometer::kernel

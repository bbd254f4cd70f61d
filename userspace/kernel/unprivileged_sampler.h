// Samples one's own processes without BPF: plain perf events, as far as perf_event_paranoid allows.
//
//   ASSIGN_OR_RETURN(auto sampler, UnprivilegedSampler::Start({.pid = child_pid, .enable_on_exec = true}));
//   … let the child exec; loop: sampler->Poll(50ms, on_sample, on_event); until it ended;
//
// The fallback of `record -- CMD` for users without CAP_BPF. Follows children made after Start.
// Gives the same CpuSample and ProcessEvent as the privileged probes, with less in them: no cgroup
// ids, process.start_time_ns 0, user frames by the kernel's frame pointer walk (user_stop is "end" or "truncated":
// the kernel does not say more), no kernel frames when perf_event_paranoid >= 2.
//
// Threads: one. Cost: ring_pages × 4 KiB per CPU (the kernel allows kernel.perf_event_mlock_kb
// per CPU and user), one file descriptor per CPU.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "userspace/base/status.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/kernel/process_events.h"

namespace pyrometer::kernel {

class UnprivilegedSampler {
 public:
  struct Options {
    pid_t pid = 0;               // process to follow: one's own child or self
    uint32_t frequency_hz = 99;  // of CPU time of each thread
    // Samples carry registers and a piece of the stack, so that unwind tables can be used on them (the walk itself is
    // the caller's: CpuSample::raw_registers). False: the kernel's walk by frame pointers is all there is.
    bool copy_stacks = false;
    bool enable_on_exec = false;  // true: samples from the next exec of `pid` on; else at once
    // Per CPU, a power of two. 128 is what kernel.perf_event_mlock_kb grants a user by default (516 KiB).
    uint32_t ring_pages = 128;
    // At most kernel.perf_event_max_stack (127 by default), which holds for kernel and user frames together; more is
    // lowered to that.
    uint32_t max_user_frames = PYRO_MAX_USER_FRAMES;
  };
  using SampleCallback = std::function<void(const CpuSample&)>;
  using EventCallback = std::function<void(ProcessEvent&&)>;

  // PERMISSION_DENIED names the sysctl and the value that would allow it.
  static StatusOr<std::unique_ptr<UnprivilegedSampler>> Start(const Options& options);
  virtual ~UnprivilegedSampler() = default;

  // Waits at most `timeout`, then delivers what there is, merged by time: events before the samples that
  // need them.
  virtual Status Poll(std::chrono::milliseconds timeout, const SampleCallback& on_sample,
                      const EventCallback& on_event) = 0;
  virtual Status Stop() = 0;
  virtual SampleCounters Counters() const = 0;
  // False when perf_event_paranoid limits to user mode.
  virtual bool samples_kernel() const = 0;
};

}  // namespace pyrometer::kernel

// Times system calls part of the time only, when timing all of them would cost too much, and estimates the rest.
//
//   DutyCycle duty(syscalls, {.budget_cores = 0.1, .window_ns = 10 * kNsPerSecond});
//   each window: ASSIGN_OR_RETURN(const auto measured, duty.EndWindow());   // before Drain
//                Drain(…, [&](SyscallWindow w) { if (measured) calls += duty.Scale(*measured, w); … });
//                duty.BeginWindow(calls);
//
// Plan. A window whose calls would cost more than the budget is followed by one of which the probe is attached for a
// share s of the time: one slice at a place drawn uniformly, around the window's end to its beginning if need be, so
// that each instant has the same chance. Estimate. A call of length d is counted if it begins in the measure m(d) of
// instants from which it ends in the same slice; so it stands for window / m(d) calls (Horvitz and Thompson, JASA 47,
// 1952), rounded up or down at random so that the mean is kept. The middle of its bucket stands for d. Calls for which
// m(d) is below a tenth of the slices are left out, and counted: `pyrometer syscalls` shows those while they are in
// flight. The last kGuardNs of a window are never measured: the probe is off when its counts are read.
//
// Threads: a thread of its own attaches and detaches; all methods from one other thread. EndWindow waits for at most
// kTailNs and a detach. Errors: those of attaching.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::agent {

inline constexpr uint64_t kTailNs = 100'000'000;   // for calls that are open when a slice ends
inline constexpr uint64_t kGuardNs = 300'000'000;  // before the end of a window
inline constexpr double kLeastShare = 0.02;
// CPU time that counting one call costs: tests/bench/latency_probes.
inline constexpr double kCallCostNs = 350;

struct MeasuredSlices {
  std::vector<kernel::SyscallSlice> slices;
  uint64_t window_ns = 0;

  // Of instants in which a call of this length could begin and be counted.
  uint64_t MeasureNs(uint64_t length_ns) const;
};

// Offsets from the window's beginning: `on_ns` of `window_ns` from `at_ns` on, the part beyond its end at its
// beginning.
std::vector<std::pair<uint64_t, uint64_t>> PlanSlices(uint64_t window_ns, uint64_t on_ns, uint64_t at_ns);

// Makes the counts of slices those of the window; `random` rounds. What it returns are calls left out.
uint64_t ScaleToWindow(const MeasuredSlices& measured, std::mt19937_64& random, kernel::SyscallWindow& window);

class DutyCycle {
 public:
  struct Options {
    double budget_cores = 0;
    uint64_t window_ns = 0;
    uint64_t seed = 0;  // 0: a random one
  };
  // `probe` counts, and must outlive this.
  DutyCycle(kernel::SyscallLatency* probe, const Options& options);
  ~DutyCycle();

  // Ends plan and thread; the probe is left as it is, EndWindow has what was measured. Any thread. Idempotent.
  void Stop();
  // Ends the window that BeginWindow began; nullopt: all of it was measured.
  StatusOr<std::optional<MeasuredSlices>> EndWindow();
  // `calls`: of the last window, after scaling. Returns the share of the time that the next one is measured.
  double BeginWindow(uint64_t calls);
  uint64_t Scale(const MeasuredSlices& measured, kernel::SyscallWindow& window) {
    return ScaleToWindow(measured, random_, window);
  }

 private:
  void Run();

  kernel::SyscallLatency* const probe_;
  const Options options_;
  std::mt19937_64 random_;
  bool attached_ = true;  // the thread's while a plan runs, else the caller's
  double share_ = 1;
  uint64_t window_begin_ns_;
  uint64_t last_window_ns_ = 0;
  uint64_t resumed_ns_ = 0;  // a window that is measured to its end, from here; 0: from its beginning

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::vector<std::pair<uint64_t, uint64_t>> plan_;  // not begun, monotonic begin and end
  std::vector<kernel::SyscallSlice> slices_;
  Status failure_;
  bool busy_ = false;    // the thread works on the plan
  bool cancel_ = false;  // it shall end the slice and forget the rest
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace pyrometer::agent

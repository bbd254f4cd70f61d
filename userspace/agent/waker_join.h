// Finds, for single calls that are kept as examples, who ended the longest of their waits: from the sampled waits,
// which have the waker's stack.
//
//   join.AddCall(call, key);          // its exemplar is in its window
//   join.AddWait(wait);
//   join.Join(window_of, &resolver);  // after each round of both
//
// A call and its waits come from different rings, in either order, a moment apart: both are kept for kRounds rounds.
// The waits of the slowest calls are nearly always there: whatever lasts longer than the sampling period is.
//
// Threads: none shared (the collector's polling thread). Cost: a copy of each sampled wait's waker, 500 a second.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/agent/raw_window.h"
#include "userspace/agent/sample_resolver.h"
#include "userspace/kernel/off_cpu.h"
#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::agent {

class WakerJoin {
 public:
  static constexpr int kRounds = 2;

  void AddCall(const kernel::SlowCall& call, const RawWindow::CallKey& key);
  // Waits whose end nobody's doing was seen are ignored.
  void AddWait(const kernel::WaitSample& wait);
  // Completes the exemplars of calls that a wait belongs to; ends the round. `window_of`: the open window of a
  // CLOCK_MONOTONIC time; an exemplar that is not in it any more stays as it is.
  void Join(const std::function<RawWindow&(uint64_t)>& window_of, SampleResolver* resolver);

 private:
  struct Call {
    ProcessKey process;
    uint64_t begin_ns = 0, end_ns = 0;
    RawWindow::CallKey key;
    int rounds = 0;  // that it has seen
  };
  struct Wait {
    ProcessKey process;
    uint32_t tid = 0;
    uint64_t begin_ns = 0, end_ns = 0;
    kernel::WaitCause cause = PYRO_WAIT_OTHER;
    bool interrupt = false;
    ProcessKey waker_process;
    uint32_t waker_tid = 0;
    std::string waker_comm;
    std::vector<uint64_t> kernel_frames, user_frames;
    kernel::StopReason user_stop = PYRO_STOP_NOT_TAKEN;
    int rounds = 0;
  };

  std::unordered_map<uint32_t, std::vector<Call>> calls_;  // by tid
  std::vector<Wait> waits_;
};

}  // namespace pyrometer::agent

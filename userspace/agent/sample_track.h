// One sampler and the windows its samples fall into: the always-on profile, a session, a recording.
//
//   track.Collect();                  // ring -> pending, addresses as they are
//   events->Poll(…);                  // the process table learns what was mapped meanwhile
//   track.Fold();                     // pending -> windows, addresses resolved
//   for (RawWindow& w : track.TakeClosed(now)) …
//
// Two steps, because a sample may be older than the report of the mapping it hit; resolving after
// the next look at the process events finds it. A sample that came with a copy of its stack waits in between for the
// unwind tables that it needs, at most kTableWaitNs.
//
// Threads: Collect, Fold, Take… from one thread; counters() from any.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "userspace/agent/raw_window.h"
#include "userspace/agent/sample_resolver.h"
#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/kernel/cpu_sampler.h"

namespace pyrometer::agent {

class SampleTrack {
 public:
  // Windows start at multiples of `window_ns` of Unix time; 0: one window over everything.
  SampleTrack(SampleResolver* resolver, uint64_t window_ns);

  // Copies a sample for the next Fold. Called by the sampler's Poll.
  void Collect(const kernel::CpuSample& sample);
  // Resolves what was collected. `monotonic_to_unix_ns`: MonotonicToUnixOffsetNs(). Samples after `known_until_ns`
  // (Node::known_until_ns) wait: the exec or mapping that they hit may not be known. `last`: nothing may wait any
  // longer.
  void Fold(int64_t monotonic_to_unix_ns, uint64_t known_until_ns, bool last = false);
  // Samples that wait.
  size_t waiting() const { return pending_.size(); }

  // The window that `unix_ns` belongs to, made if needed. Late stamps go to the oldest open window.
  RawWindow& WindowAt(int64_t unix_ns);
  // Windows that ended at least `grace_ns` before `unix_now_ns`, oldest first. A window that holds
  // nothing is not among them.
  std::vector<RawWindow> TakeClosed(int64_t unix_now_ns, uint64_t grace_ns);
  // All windows; the track is empty then. The last one's duration ends at `unix_now_ns`.
  std::vector<RawWindow> TakeAll(int64_t unix_now_ns);

  // Samples folded so far.
  uint64_t samples() const { return samples_; }

 private:
  struct Pending {
    uint64_t time_ns;
    ProcessKey process;
    uint32_t tid;
    RawGroup group;
    uint32_t kernel_begin, user_begin, end;  // into addresses_
    kernel::StopReason kernel_stop, user_stop;
    uint8_t means;
    uint64_t period_ns;
    uint64_t collected_ns;                          // when it came; of those with a copy
    std::unique_ptr<pyro_raw_registers> registers;  // with a copy of the stack
    std::string stack;
  };

  // True when the sample is in a window.
  bool FoldOne(Pending& pending, std::span<const uint64_t> addresses, int64_t monotonic_to_unix_ns,
               uint64_t known_until_ns, bool last);

  SampleResolver& resolver_;
  const uint64_t window_ns_;
  const int64_t created_ns_;
  int64_t closed_until_ns_ = INT64_MIN;  // windows before this are gone
  std::vector<Pending> pending_;
  std::vector<uint64_t> addresses_;
  std::map<int64_t, RawWindow> windows_;  // by start
  uint64_t samples_ = 0;
};

}  // namespace pyrometer::agent

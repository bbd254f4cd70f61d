// The off-CPU probe and what becomes of its waits: stacks in the windows of the always-on profile, sums in the batch.
//
//   ASSIGN_OR_RETURN(auto waits, WaitTrack::Start(&node, &resolver, syscalls->TaskStates(), target));
//   waits->Poll(offset_ns, window_at);                                   // often
//   syscalls->Drain([&](const auto& w) { waits->AddCall(labels, w); });  // at the end of a window
//   waits->AddSums(start_ns, duration_ns, builder);
//
// Threads: Poll on the thread that owns the resolver; AddCall, AddSums on the one that makes batches; Counters on any.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "userspace/agent/batch_builder.h"
#include "userspace/agent/node.h"
#include "userspace/agent/raw_window.h"
#include "userspace/agent/sample_resolver.h"
#include "userspace/agent/target_filter.h"
#include "userspace/agent/waker_join.h"
#include "userspace/kernel/off_cpu.h"
#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::agent {

class WaitTrack {
 public:
  // Both must outlive it. `task_states`: see OffCpu::Options. Samples of others than `target` are left out; sums are of
  // all containers.
  static StatusOr<std::unique_ptr<WaitTrack>> Start(Node* node, SampleResolver* resolver, int task_states,
                                                    const kernel::SampleTarget& target);

  // Sampled waits -> windows. `window_at`: the window of a Unix time. The leaf of each stack is its cause. Exemplars of
  // NoteCall get who ended their longest wait.
  Status Poll(int64_t monotonic_to_unix_ns, const std::function<RawWindow&(int64_t)>& window_at);

  // The stack of a slow call with what took most of its time on top, as the stacks of waits have it: "[lock]",
  // "[running]".
  static profile::StackId WithCause(const kernel::SlowCall& call, profile::StackId stack, RawWindow& window);

  // What a call's time went to, largest first; whole microseconds.
  static std::vector<profile::TimePart> SplitOf(const kernel::SlowCall& call);
  // A call whose exemplar has been added to its window under `key`: the next Polls look for who woke it.
  void NoteCall(const kernel::SlowCall& call, const RawWindow::CallKey& key) { wakers_.AddCall(call, key); }

  // What a call in flight waits for now: "running" if its thread is not blocked, "" if that began unseen.
  static std::string CauseOf(const kernel::OpenCall& call);

  // Notes the split of a call's time for the next AddSums.
  void AddCall(const profile::LabelSet& labels, const kernel::SyscallWindow& window);
  // Adds exact sums by cause, run-queue latency, and the split of the calls noted.
  Status AddSums(int64_t start_ns, uint64_t duration_ns, BatchBuilder& builder);

  Status Stop() { return probe_->Stop(); }
  kernel::OffCpuCounters Counters() const { return probe_->Counters(); }
  uint64_t samples() const { return samples_; }  // of the target, so far; on Poll's thread

 private:
  // What a call's time went to. `running` may be short of zero for a window: the probe's sums are read one after the
  // other, and a wait read before its call's latency is a debt of the next window.
  struct Split {
    int64_t running_ns = 0;
    kernel::WaitTimes waited_ns{};
  };

  WaitTrack(Node* node, SampleResolver* resolver, std::unique_ptr<kernel::OffCpu> probe,
            const kernel::SampleTarget& target);

  Node& node_;
  SampleResolver& resolver_;
  std::unique_ptr<kernel::OffCpu> probe_;
  TargetFilter filter_;
  uint64_t samples_ = 0;
  WakerJoin wakers_;
  std::map<profile::LabelSet, Split> calls_;
};

}  // namespace pyrometer::agent

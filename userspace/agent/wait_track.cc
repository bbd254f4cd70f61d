#include "userspace/agent/wait_track.h"

#include <algorithm>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::agent {

StatusOr<std::unique_ptr<WaitTrack>> WaitTrack::Start(Node* node, SampleResolver* resolver, int task_states,
                                                      const kernel::SampleTarget& target) {
  kernel::OffCpu::Options options;
  options.unwind = node->unwind_maps();
  options.task_states = task_states;
  ASSIGN_OR_RETURN(auto probe, kernel::OffCpu::Start(options));
  return std::unique_ptr<WaitTrack>(new WaitTrack(node, resolver, std::move(probe), target));
}

WaitTrack::WaitTrack(Node* node, SampleResolver* resolver, std::unique_ptr<kernel::OffCpu> probe,
                     const kernel::SampleTarget& target)
    : node_(*node),
      resolver_(*resolver),
      probe_(std::move(probe)),
      filter_(target, [node](uint64_t cgroup_id, uint64_t cgroup_v1_id) {
        return std::string(node->LabelsOf(cgroup_id, cgroup_v1_id, "").Get(profile::kLabelContainerId));
      }) {}

Status WaitTrack::Poll(int64_t monotonic_to_unix_ns, const std::function<RawWindow&(int64_t)>& window_at) {
  const Status status = probe_->PollSamples([&](const kernel::WaitSample& wait) {
    if (!filter_.Contains(wait.process, wait.cgroup_id, wait.cgroup_v1_id)) return;
    wakers_.AddWait(wait);
    RawWindow& window = window_at(static_cast<int64_t>(wait.time_ns) + monotonic_to_unix_ns);
    const std::string cause(kernel::WaitCauseName(wait.cause));
    const auto synthetic = [&](const std::string& name) {
      return RawFrame{.kind = profile::FrameKind::kSynthetic, .reason = window.ReasonOf(name)};
    };
    const auto intern = [&](const ProcessKey& process, uint32_t tid, std::span<const uint64_t> kernel_frames,
                            std::span<const uint64_t> user_frames, kernel::StopReason stop) {
      return resolver_.Intern({.process = process,
                               .tid = tid,
                               .time_ns = wait.time_ns,
                               .kernel_frames = kernel_frames,
                               .user_frames = user_frames,
                               .user_stop = stop},
                              window);
    };
    const RawGroup group{wait.cgroup_id, wait.cgroup_v1_id, std::string(wait.comm), std::string(profile::kTypeOffCpu),
                         cause};
    profile::StackId stack = intern(wait.process, wait.tid, wait.kernel_frames, wait.user_frames, wait.user_stop);
    stack = window.InternStack(stack, synthetic(StrFormat("[%s]", cause)));
    window.AddSample(group, stack, 1, wait.weight_ns);
    window.CountStop(kernel::StopReasonName(wait.user_stop));
    ++samples_;
    if (wait.waker == PYRO_WAKER_NONE) return;
    stack = window.InternStack(
        stack, synthetic(wait.waker == PYRO_WAKER_INTERRUPT ? "[woken by an interrupt]"
                                                            : StrFormat("[woken by %s]", wait.waker_comm)));
    // Upside down: what ended the wait stands on the wait, its caller further up.
    profile::StackId waker = intern(wait.waker_process, wait.waker_tid, wait.waker_kernel_frames,
                                    wait.waker_user_frames, wait.waker_user_stop);
    for (; waker != profile::kEmptyStack; waker = window.stacks()[waker].parent) {
      RawFrame frame = window.frames()[window.stacks()[waker].frame];
      frame.upside_down = true;
      stack = window.InternStack(stack, frame);
    }
    RawGroup with_waker = group;
    with_waker.type = profile::kTypeOffCpuWakers;
    window.AddSample(with_waker, stack, 1, wait.weight_ns);
  });
  wakers_.Join(
      [&](uint64_t time_ns) -> RawWindow& { return window_at(static_cast<int64_t>(time_ns) + monotonic_to_unix_ns); },
      &resolver_);
  return status;
}

std::vector<profile::TimePart> WaitTrack::SplitOf(const kernel::SlowCall& call) {
  std::vector<profile::TimePart> parts;
  uint64_t waited_ns = 0;
  for (size_t i = 0; i < kernel::kWaitCauses; ++i) {
    waited_ns += call.waited_ns[i];
    if (call.waited_ns[i] == 0) continue;
    parts.push_back({std::string(kernel::WaitCauseName(static_cast<kernel::WaitCause>(i))), call.waited_ns[i]});
  }
  // Parts are cut to whole microseconds: a call that only waited has a rest, and no more than that.
  if (waited_ns < call.latency_ns) parts.push_back({"running", call.latency_ns - waited_ns});
  std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.ns > b.ns; });
  return parts;
}

profile::StackId WaitTrack::WithCause(const kernel::SlowCall& call, profile::StackId stack, RawWindow& window) {
  const std::vector<profile::TimePart> parts = SplitOf(call);
  const std::string most = parts.empty() ? "running" : parts.front().cause;
  return window.InternStack(
      stack, RawFrame{.kind = profile::FrameKind::kSynthetic, .reason = window.ReasonOf(StrFormat("[%s]", most))});
}

std::string WaitTrack::CauseOf(const kernel::OpenCall& call) {
  if (call.waits) return std::string(kernel::WaitCauseName(call.cause));
  return call.blocked ? "" : "running";
}

void WaitTrack::AddCall(const profile::LabelSet& labels, const kernel::SyscallWindow& window) {
  Split& split = calls_[labels];
  split.running_ns += static_cast<int64_t>(window.latency.sum_ns);
  for (size_t i = 0; i < kernel::kWaitCauses; ++i) {
    split.waited_ns[i] += window.waited_ns[i];
    split.running_ns -= static_cast<int64_t>(window.waited_ns[i]);
  }
}

Status WaitTrack::AddSums(int64_t start_ns, uint64_t duration_ns, BatchBuilder& builder) {
  const auto add = [&](std::string_view type, const profile::LabelSet& labels, std::string_view cause, uint64_t value) {
    builder.Counter(type, labels.With(profile::kLabelCause, cause), start_ns, duration_ns, value);
  };
  for (auto entry = calls_.begin(); entry != calls_.end();) {
    auto& [labels, split] = *entry;
    for (size_t i = 0; i < kernel::kWaitCauses; ++i) {
      add(profile::kTypeSyscallTime, labels, kernel::WaitCauseName(static_cast<kernel::WaitCause>(i)),
          split.waited_ns[i]);
    }
    if (split.running_ns >= 0) {
      add(profile::kTypeSyscallTime, labels, "running", static_cast<uint64_t>(split.running_ns));
      entry = calls_.erase(entry);
    } else {
      split.waited_ns = {};
      ++entry;
    }
  }
  struct Sums {
    std::array<kernel::WaitTotal, kernel::kWaitCauses> totals{};
    profile::Histogram queue;
  };
  std::map<profile::LabelSet, Sums> sums;
  RETURN_IF_ERROR(probe_->Drain([&](const kernel::WaitWindow& window) {
    const profile::LabelSet labels =
        window.folded
            ? profile::LabelSet().With(profile::kLabelNode, node_.name()).With(profile::kLabelService, "[folded]")
            : node_.LabelsOf(window.cgroup_id, window.cgroup_v1_id, "");
    Sums& sum = sums[labels];
    for (size_t i = 0; i < kernel::kWaitCauses; ++i) {
      sum.totals[i].count += window.totals[i].count;
      sum.totals[i].ns += window.totals[i].ns;
    }
    sum.queue.Merge(FromKernel(window.queue));
  }));
  for (const auto& [labels, sum] : sums) {
    for (size_t i = 0; i < kernel::kWaitCauses; ++i) {
      const std::string_view cause = kernel::WaitCauseName(static_cast<kernel::WaitCause>(i));
      add(profile::kTypeWaitTime, labels, cause, sum.totals[i].ns);
      add(profile::kTypeWaits, labels, cause, sum.totals[i].count);
    }
    if (sum.queue.empty()) continue;
    builder.Histogram(profile::kTypeRunQueue, labels, start_ns, duration_ns).histogram.Merge(sum.queue);
  }
  return OkStatus();
}

}  // namespace pyrometer::agent

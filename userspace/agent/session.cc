#include "userspace/agent/session.h"

#include <unistd.h>

#include <chrono>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {

StatusOr<kernel::SampleTarget> ResolveTarget(const TargetSpec& spec, Node& node) {
  kernel::SampleTarget target;
  if (spec.pid != 0) {
    if (::access(StrFormat("/proc/%d", spec.pid).c_str(), F_OK) != 0) {
      return NotFoundError(StrFormat("no process %d runs here; `ps -e` lists those that do", spec.pid));
    }
    target.kind = kernel::SampleTarget::Kind::kProcesses;
    target.tgids = {spec.pid};
    return target;
  }
  if (!spec.container.empty()) {
    target.kind = kernel::SampleTarget::Kind::kCgroups;
    RETURN_IF_ERROR(node.FindContainer(spec.container, &target));
    return target;
  }
  if (!spec.cgroup.empty()) {
    target.kind = kernel::SampleTarget::Kind::kCgroups;
    RETURN_IF_ERROR(node.FindCgroup(spec.cgroup, &target));
    return target;
  }
  return target;
}

StatusOr<std::unique_ptr<Session>> Session::Start(const SessionSpec& spec, const Options& options, Node* node,
                                                  SampleResolver* resolver) {
  ASSIGN_OR_RETURN(kernel::SampleTarget target, ResolveTarget(spec.target, *node));
  std::unique_ptr<WaitTrack> waits;
  if (spec.waits) {
    ASSIGN_OR_RETURN(waits, WaitTrack::Start(node, resolver, -1, target));
  }
  std::unique_ptr<kernel::CpuSampler> sampler;
  if (spec.cpu) {
    kernel::CpuSampler::Options sampling;
    sampling.frequency_hz = spec.frequency_hz == 0 ? options.frequency_hz : spec.frequency_hz;
    sampling.target = std::move(target);
    sampling.unwind = node->unwind_maps();
    ASSIGN_OR_RETURN(sampler, kernel::CpuSampler::Start(sampling));
  }
  return std::make_unique<Session>(spec, std::move(sampler), std::move(waits), resolver, options.window_ns);
}

Session::Session(SessionSpec spec, std::unique_ptr<kernel::CpuSampler> sampler, std::unique_ptr<WaitTrack> waits,
                 SampleResolver* resolver, uint64_t window_ns)
    : spec_(std::move(spec)),
      sampler_(std::move(sampler)),
      waits_(std::move(waits)),
      track_(resolver, window_ns),
      started_ns_(UnixNowNs()),
      until_monotonic_ns_(MonotonicNowNs() + spec_.duration_ns) {}

void Session::Note(std::string_view probe, const Status& status) {
  if (problem_.ok()) problem_ = WithContext(status, StrFormat("the session ended early, its probe %s failed", probe));
}

void Session::Poll(int64_t monotonic_to_unix_ns) {
  if (sampler_ != nullptr) {
    Note("cpu_sampler", sampler_->Poll(std::chrono::milliseconds(0),
                                       [this](const kernel::CpuSample& sample) { track_.Collect(sample); }));
  }
  if (waits_ != nullptr) {
    Note("off_cpu", waits_->Poll(monotonic_to_unix_ns,
                                 [this](int64_t unix_ns) -> RawWindow& { return track_.WindowAt(unix_ns); }));
  }
}

void Session::StopProbes() {
  if (sampler_ != nullptr) Note("cpu_sampler", sampler_->Stop());
  if (waits_ != nullptr) Note("off_cpu", waits_->Stop());
}

void Session::Step(uint64_t monotonic_ns, int64_t monotonic_to_unix_ns) {
  if (ended_) return;
  const bool over = stop_ || monotonic_ns >= until_monotonic_ns_;
  if (over) StopProbes();
  Poll(monotonic_to_unix_ns);
  // The other probe may still be read.
  if (!over && !problem_.ok()) {
    StopProbes();
    Poll(monotonic_to_unix_ns);
  }
  ended_ = over || !problem_.ok();
}

SessionReport Session::Report() const {
  SessionReport report;
  report.id = spec_.id;
  report.state = !ended_          ? SessionState::kRunning
                 : !problem_.ok() ? SessionState::kFailed
                 : stop_          ? SessionState::kStopped
                                  : SessionState::kDone;
  report.error = std::string(Message(problem_));
  report.samples = track_.samples() + (waits_ == nullptr ? 0 : waits_->samples());
  report.started_ns = started_ns_;
  return report;
}

}  // namespace pyrometer::agent

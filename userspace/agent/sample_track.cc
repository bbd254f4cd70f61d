#include "userspace/agent/sample_track.h"

#include <algorithm>
#include <utility>

namespace pyrometer::agent {

SampleTrack::SampleTrack(SampleResolver* resolver, uint64_t window_ns)
    : resolver_(*resolver), window_ns_(window_ns), created_ns_(UnixNowNs()) {}

void SampleTrack::Collect(const kernel::CpuSample& sample) {
  Pending pending;
  pending.time_ns = sample.time_ns;
  pending.process = sample.process;
  pending.tid = sample.tid;
  pending.group = {sample.cgroup_id, sample.cgroup_v1_id,
                   std::string(sample.process_comm.empty() ? sample.comm : sample.process_comm)};
  pending.kernel_begin = static_cast<uint32_t>(addresses_.size());
  addresses_.insert(addresses_.end(), sample.kernel_frames.begin(), sample.kernel_frames.end());
  pending.user_begin = static_cast<uint32_t>(addresses_.size());
  addresses_.insert(addresses_.end(), sample.user_frames.begin(), sample.user_frames.end());
  pending.end = static_cast<uint32_t>(addresses_.size());
  pending.kernel_stop = sample.kernel_stop;
  pending.user_stop = sample.user_stop;
  pending.means = sample.means;
  pending.period_ns = sample.period_ns;
  pending.collected_ns = 0;
  if (sample.raw_registers != nullptr) {
    pending.collected_ns = MonotonicNowNs();
    pending.registers = std::make_unique<pyro_raw_registers>(*sample.raw_registers);
    pending.stack = sample.raw_stack;
  }
  pending_.push_back(std::move(pending));
}

bool SampleTrack::FoldOne(Pending& pending, std::span<const uint64_t> addresses, int64_t monotonic_to_unix_ns,
                          uint64_t known_until_ns, bool last) {
  if (pending.time_ns > known_until_ns && !last) return false;
  SampleResolver::Stack stack{
      .process = pending.process,
      .tid = pending.tid,
      .time_ns = pending.time_ns,
      .kernel_frames = addresses.subspan(pending.kernel_begin, pending.user_begin - pending.kernel_begin),
      .user_frames = addresses.subspan(pending.user_begin, pending.end - pending.user_begin),
      .user_stop = pending.user_stop,
      .kernel_stop = pending.kernel_stop};
  uint8_t means = pending.means;
  if (resolver_.Rewalk(stack, means, pending.registers.get(), pending.stack) && !last &&
      MonotonicNowNs() - pending.collected_ns < kTableWaitNs) {
    return false;
  }
  const int64_t unix_ns = static_cast<int64_t>(pending.time_ns) + monotonic_to_unix_ns;
  RawWindow& window = WindowAt(unix_ns);
  window.AddSampleAt(pending.group, resolver_.Intern(stack, window), pending.period_ns, unix_ns);
  window.CountStop(kernel::StopReasonName(stack.user_stop));
  if (stack.user_stop != PYRO_STOP_NOT_TAKEN) window.CountMeans(kernel::LeastMeansName(means));
  ++samples_;
  return true;
}

void SampleTrack::Fold(int64_t monotonic_to_unix_ns, uint64_t known_until_ns, bool last) {
  std::vector<Pending> all = std::exchange(pending_, {});
  const std::vector<uint64_t> addresses = std::exchange(addresses_, {});
  for (Pending& pending : all) {
    if (FoldOne(pending, addresses, monotonic_to_unix_ns, known_until_ns, last)) continue;
    // The few that wait keep their addresses.
    const uint32_t begin = pending.kernel_begin;
    const auto moved = static_cast<uint32_t>(addresses_.size());
    addresses_.insert(addresses_.end(), addresses.begin() + begin, addresses.begin() + pending.end);
    pending.kernel_begin = moved;
    pending.user_begin = moved + (pending.user_begin - begin);
    pending.end = moved + (pending.end - begin);
    pending_.push_back(std::move(pending));
  }
}

RawWindow& SampleTrack::WindowAt(int64_t unix_ns) {
  int64_t start = created_ns_;
  uint64_t duration = 0;
  if (window_ns_ > 0) {
    const auto step = static_cast<int64_t>(window_ns_);
    start = std::max(unix_ns - unix_ns % step, closed_until_ns_);
    duration = window_ns_;
  }
  return windows_.try_emplace(start, start, duration).first->second;
}

std::vector<RawWindow> SampleTrack::TakeClosed(int64_t unix_now_ns, uint64_t grace_ns) {
  std::vector<RawWindow> closed;
  if (window_ns_ == 0) return closed;
  const auto step = static_cast<int64_t>(window_ns_);
  const int64_t until = (unix_now_ns - static_cast<int64_t>(grace_ns)) / step * step;
  while (!windows_.empty() && windows_.begin()->first < until) {
    closed.push_back(std::move(windows_.begin()->second));
    closed.back().ForgetRecentCallers();
    windows_.erase(windows_.begin());
  }
  closed_until_ns_ = std::max(closed_until_ns_, until);
  return closed;
}

std::vector<RawWindow> SampleTrack::TakeAll(int64_t unix_now_ns) {
  std::vector<RawWindow> all;
  for (auto& [start, window] : windows_) {
    window.ForgetRecentCallers();
    all.push_back(std::move(window));
  }
  windows_.clear();
  if (!all.empty()) {
    RawWindow& last = all.back();
    const int64_t lasted = std::max<int64_t>(unix_now_ns - last.start_ns(), 1);
    if (window_ns_ == 0 || static_cast<uint64_t>(lasted) < window_ns_)
      last.set_duration_ns(static_cast<uint64_t>(lasted));
  }
  return all;
}

}  // namespace pyrometer::agent

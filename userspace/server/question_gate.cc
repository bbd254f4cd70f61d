#include "userspace/server/question_gate.h"

#include <algorithm>
#include <chrono>

#include "userspace/base/strings.h"

namespace pyrometer::server {

QuestionGate::Pass::Pass(QuestionGate* gate, uint64_t timeout_ns)
    : gate_(*gate),
      budget_({.timeout_ns = timeout_ns,
               .memory_bytes = gate->options_.memory_bytes / 2,
               .pool = &gate->used_bytes_,
               .pool_bytes = gate->options_.memory_bytes}) {}

QuestionGate::Pass::~Pass() {
  {
    const std::lock_guard lock(gate_.mutex_);
    --gate_.running_;
  }
  gate_.changed_.notify_one();
}

StatusOr<std::unique_ptr<QuestionGate::Pass>> QuestionGate::Enter() {
  const uint64_t before = MonotonicNowNs();
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, std::chrono::nanoseconds(options_.timeout_ns),
                         [this] { return running_ < options_.max_running; })) {
    return ResourceExhaustedError(
        StrFormat("%d questions run already, as many as may, and none ended within %s: ask later", running_,
                  FormatDurationNs(options_.timeout_ns)));
  }
  ++running_;
  const uint64_t waited = MonotonicNowNs() - before;
  return std::make_unique<Pass>(
      this, std::max<uint64_t>(kNsPerMs, options_.timeout_ns - std::min(waited, options_.timeout_ns)));
}

}  // namespace pyrometer::server

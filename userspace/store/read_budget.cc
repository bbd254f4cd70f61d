#include "userspace/store/read_budget.h"

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::store {

ReadBudget::ReadBudget(Limits limits) : limits_(std::move(limits)) {
  if (limits_.timeout_ns != 0) deadline_ns_ = MonotonicNowNs() + limits_.timeout_ns;
}

Status ReadBudget::Check() {
  if (limits_.gone && limits_.gone()) return CancelledError("nobody waits for this answer any more");
  if (deadline_ns_ != 0 && MonotonicNowNs() > deadline_ns_) {
    return DeadlineExceededError(
        StrFormat("the question took longer than %s and was cut off: ask for a shorter range or fewer series, or raise "
                  "--query-timeout",
                  FormatDurationNs(limits_.timeout_ns)));
  }
  return OkStatus();
}

ReadBudget::~ReadBudget() {
  if (limits_.pool != nullptr) limits_.pool->fetch_sub(charged_.load());
}

void ReadBudget::Release(uint64_t bytes) {
  charged_.fetch_sub(bytes, std::memory_order_relaxed);
  if (limits_.pool != nullptr) limits_.pool->fetch_sub(bytes);
}

Status ReadBudget::Charge(uint64_t bytes) {
  const uint64_t charged = charged_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  uint64_t together = charged;
  if (limits_.pool != nullptr) together = limits_.pool->fetch_add(bytes) + bytes;
  if (limits_.memory_bytes != 0 && charged > limits_.memory_bytes) {
    return ResourceExhaustedError(StrFormat(
        "the question needs %s of memory or more, the limit of one is %s: ask for a shorter range, fewer series "
        "or fewer labels in `by`, or raise --query-memory",
        FormatBytes(charged), FormatBytes(limits_.memory_bytes)));
  }
  if (limits_.pool != nullptr && together > limits_.pool_bytes) {
    return ResourceExhaustedError(StrFormat(
        "all questions together need %s of memory, their limit is %s: ask again later, or raise --query-memory",
        FormatBytes(together), FormatBytes(limits_.pool_bytes)));
  }
  return OkStatus();
}

}  // namespace pyrometer::store

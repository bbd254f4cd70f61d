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

Status ReadBudget::Charge(uint64_t bytes) {
  const uint64_t charged = charged_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (limits_.memory_bytes == 0 || charged <= limits_.memory_bytes) return OkStatus();
  return ResourceExhaustedError(
      StrFormat("the question needs more than %s of memory (%s so far) and was cut off: ask for a shorter range, fewer "
                "series or fewer labels in `by`, or raise --query-memory",
                FormatBytes(limits_.memory_bytes), FormatBytes(charged)));
}

}  // namespace pyrometer::store

#include "userspace/agent/accounting.h"

#include <algorithm>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::agent {

void Accounting::Add(const Window& window, std::string_view type, std::string_view reason, uint64_t value) const {
  window.builder.Counter(type, reason.empty() ? node_ : node_.With(profile::kLabelReason, reason), window.start_ns,
                         window.duration_ns, value);
}

uint64_t Accounting::Increase(std::string_view type, std::string_view reason, uint64_t total) {
  uint64_t& before = reported_[StrFormat("%s %s", type, reason)];
  // A total that shrank (a counter read while it is being replaced) has not risen.
  return total - std::min(total, std::exchange(before, std::max(before, total)));
}

void Accounting::LostTotals(const std::map<std::string, uint64_t>& totals) {
  for (const auto& [reason, total] : totals) lost_[reason] += Increase(profile::kTypeSamplesDropped, reason, total);
}

void Accounting::AddSamples(const Window& window, const kernel::SampleCounters& totals, const Samples& samples) {
  const std::pair<const char*, uint64_t> drops[] = {{"ring full", totals.dropped_ring_full},
                                                    {"no scratch record", totals.dropped_scratch},
                                                    {"malformed record", totals.dropped_malformed},
                                                    {"lost by the kernel", totals.dropped_lost}};
  for (const auto& [reason, total] : drops) lost_[reason] += Increase(profile::kTypeSamplesDropped, reason, total);
  uint64_t taken = samples.delivered;
  for (const auto& [reason, count] : lost_) {
    Add(window, profile::kTypeSamplesDropped, reason, count);
    taken += count;
  }
  lost_.clear();
  Add(window, profile::kTypeSamplesTaken, "", taken);
  Add(window, profile::kTypeSamplesDelivered, "", samples.delivered);
  if (samples.expected) Add(window, profile::kTypeSamplesExpected, "", *samples.expected);
}

void Accounting::AddSyscalls(const Window& window, const kernel::SyscallCounters& totals, uint64_t too_long) {
  const auto uncounted = [&](std::string_view reason, uint64_t total) {
    AddIncrease(window, "pyrometer_syscalls_uncounted", reason, total);
  };
  uncounted("lost", totals.lost);
  uncounted("no entry seen", totals.no_entry);
  uncounted("entry not remembered", totals.start_lost);
  uncounted("never returns", totals.never_returns);
  uncounted("outside of slices", totals.paused);
  uncounted("too long for a slice", too_long);
  AddIncrease(window, "pyrometer_syscalls_folded", "", totals.folded);
}

void Accounting::AddIoUring(const Window& window, const kernel::IoUringCounters& totals) {
  const auto unmeasured = [&](std::string_view reason, uint64_t total) {
    AddIncrease(window, "pyrometer_io_uring_unmeasured", reason, total);
  };
  unmeasured("asked for no completion", totals.silent);
  unmeasured("too many in flight", totals.untracked);
  unmeasured("end not seen", totals.unseen);
  unmeasured("submission not seen", totals.no_submission);
  unmeasured("completion of no known request", totals.further_unmatched);
  unmeasured("lost", totals.lost);
  AddIncrease(window, "pyrometer_io_uring_folded", "", totals.folded);
}

void Accounting::AddTcp(const Window& window, const kernel::TcpCounters& totals) {
  AddIncrease(window, "pyrometer_tcp_updates_lost", "", totals.lost + totals.storage_lost + totals.missed);
  AddIncrease(window, "pyrometer_tcp_updates_folded", "", totals.folded);
  // Says which source was in use: one a window but where many packets come.
  AddIncrease(window, "pyrometer_tcp_polls", "", totals.polls);
}

void Accounting::AddWaits(const Window& window, const kernel::OffCpuCounters& totals) {
  AddIncrease(window, "pyrometer_waits_sampled", "", totals.delivered);
  const auto left_out = [&](std::string_view reason, uint64_t total) {
    AddIncrease(window, "pyrometer_waits_lost", reason, total);
  };
  left_out("no slot", totals.dropped_slots);
  left_out("ring full", totals.dropped_ring);
  left_out("malformed record", totals.dropped_malformed);
  left_out("not counted", totals.lost);
  left_out("thread not remembered", totals.storage_lost);
  left_out("end not reported", totals.missed);
}

void Accounting::AddAgent(const Window& window, uint64_t process_events_lost, uint64_t cpu_ns,
                          uint64_t resident_bytes) {
  AddIncrease(window, "pyrometer_process_events_lost", "", process_events_lost);
  AddIncrease(window, profile::kTypeAgentCpu, "", cpu_ns);
  Add(window, profile::kTypeAgentRss, "", resident_bytes);
}

}  // namespace pyrometer::agent

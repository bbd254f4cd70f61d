// What was sampled, lost and left out, and what the agent itself cost: counters of a window, each the increase of a
// total since it was last added. Internal to agent/.
//
//   accounting.Lost("spool not writable", batch.SampleTotal());
//   const Accounting::Window window = {builder, start_ns, duration_ns};
//   accounting.AddSamples(window, sampler_totals, {.delivered = …});
//   accounting.AddSyscalls(window, probe.Counters(), …);
//
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "userspace/agent/batch_builder.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/kernel/io_uring_latency.h"
#include "userspace/kernel/off_cpu.h"
#include "userspace/kernel/syscall_latency.h"
#include "userspace/kernel/tcp_latency.h"

namespace pyrometer::agent {

class Accounting {
 public:
  struct Window {
    BatchBuilder& builder;
    int64_t start_ns = 0;
    uint64_t duration_ns = 0;
  };
  // `node`: its label, which all counters have.
  explicit Accounting(profile::LabelSet node) : node_(std::move(node)) {}

  // Samples that the kernel delivered and no batch could carry. The next window tells.
  void Lost(const std::string& reason, uint64_t samples) { lost_[reason] += samples; }
  // The same, as totals by reason since the start.
  void LostTotals(const std::map<std::string, uint64_t>& totals);

  struct Samples {
    uint64_t delivered = 0;            // in this window's batch
    std::optional<uint64_t> expected;  // by the machine's CPU time
  };
  // `totals`: of all samplers since the start. Taken is what was delivered here or lost: what is still in a ring or an
  // open window counts in the window that delivers it.
  void AddSamples(const Window& window, const kernel::SampleCounters& totals, const Samples& samples);
  // `too_long`: calls that were left out since they went beyond the slice that timed them, since the start.
  void AddSyscalls(const Window& window, const kernel::SyscallCounters& totals, uint64_t too_long);
  void AddIoUring(const Window& window, const kernel::IoUringCounters& totals);
  void AddTcp(const Window& window, const kernel::TcpCounters& totals);
  void AddWaits(const Window& window, const kernel::OffCpuCounters& totals);
  // `resident_bytes` is a state, no total.
  void AddAgent(const Window& window, uint64_t process_events_lost, uint64_t cpu_ns, uint64_t resident_bytes);

  // A counter of the node; `reason` may be empty.
  void Add(const Window& window, std::string_view type, std::string_view reason, uint64_t value) const;

 private:
  // Of a total since the last call for this type and reason.
  uint64_t Increase(std::string_view type, std::string_view reason, uint64_t total);
  void AddIncrease(const Window& window, std::string_view type, std::string_view reason, uint64_t total) {
    Add(window, type, reason, Increase(type, reason, total));
  }

  const profile::LabelSet node_;
  std::map<std::string, uint64_t> reported_;  // by type and reason
  std::map<std::string, uint64_t> lost_;      // by reason, not told yet
};

}  // namespace pyrometer::agent

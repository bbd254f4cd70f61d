// Recordings on this machine, from start to profile, without a store: what `pyrometer record` does.
//
//   Recorder recorder(DefaultCacheFolder());
//   ASSIGN_OR_RETURN(Recording r, recorder.Record({.target = {.container = "shop"}, .duration_ns = kNsPerSecond}));
//   formats::WriteProfile(r.profile, …);
//
// With BPF rights it runs the collector of the daemon on the target. Without them it falls back to
// plain perf events on the command or process it was given (Recording::how says so); the whole
// machine or a container cannot be recorded then, and the error names what is missing.
//
// A command is started stopped, and released when sampling runs: its first instruction is seen.
//
// Threads: one; Record blocks; `stop` may be set from a signal handler.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "userspace/agent/collector.h"
#include "userspace/agent/node.h"
#include "userspace/base/status.h"
#include "userspace/profile/histogram.h"
#include "userspace/profile/profile.h"

namespace pyrometer::agent {

class ChildProcess;

struct RecordOptions {
  TargetSpec target;                 // ignored with a command
  std::vector<std::string> command;  // program and arguments; empty = none
  uint64_t duration_ns = 0;          // 0 = until the command ends or `stop` is set
  uint32_t frequency_hz = 99;
  // For plain perf events, whose samples carry a copy of the stack each; 0 = the same.
  uint32_t frequency_without_bpf_hz = 0;
  bool cpu = true;
  bool syscalls = false;
  bool tcp = false;
  bool instructions = false;  // of a command; nothing where the machine has no counter of them
  bool waits = false;         // of the target too: adds the value types waits and off_cpu to the profile
  const std::atomic<bool>* stop = nullptr;
  // Called about four times a second with elapsed and planned (0 = open) nanoseconds.
  std::function<void(uint64_t elapsed_ns, uint64_t planned_ns)> on_progress;
};

// Latency of one (labels, call or peer) over the recording.
struct LatencyRow {
  profile::LabelSet labels;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;
};

struct Recording {
  profile::Profile profile;          // samples carry container, service and comm labels
  std::vector<LatencyRow> syscalls;  // largest sum first
  std::vector<LatencyRow> tcp_rtt;
  std::string how;                    // "BPF, cpu-clock, 99 Hz" …
  uint32_t frequency_hz = 0;          // that it was made with
  std::vector<std::string> notes;     // what could not be measured, and why
  std::optional<int> command_status;  // wait status of the command
  // Of the command and all it started, in user mode; or why they are not known (kernel/instruction_counter.h).
  StatusOr<uint64_t> instructions = FailedPreconditionError("nobody asked for instructions");
};

// Makes one recording after the other. What the first has to find out (processes, names of the kernel, unwind tables)
// is there for the next ones.
class Recorder {
 public:
  // `cache_folder`: for unwind tables; "" = none are kept beyond this object.
  explicit Recorder(std::string cache_folder) : cache_folder_(std::move(cache_folder)) {}

  // NOT_FOUND: no such command or target; PERMISSION_DENIED names the remedy.
  StatusOr<Recording> Record(const RecordOptions& options);

 private:
  StatusOr<Recording> RecordAnyhow(const RecordOptions& options, ChildProcess* command);
  StatusOr<Recording> RecordPrivileged(const RecordOptions& options, ChildProcess* child);
  StatusOr<Recording> RecordUnprivileged(const RecordOptions& asked, ChildProcess* child, const Status& why) const;

  const std::string cache_folder_;
  std::unique_ptr<Node> node_;  // of privileged recordings
};

}  // namespace pyrometer::agent

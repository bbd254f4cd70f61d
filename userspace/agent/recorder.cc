#include "userspace/agent/recorder.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "userspace/agent/agent.h"
#include "userspace/agent/child_process.h"
#include "userspace/agent/cpu_time.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/features.h"
#include "userspace/kernel/instruction_counter.h"
#include "userspace/kernel/unprivileged_sampler.h"

namespace pyrometer::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{20};
constexpr uint64_t kProgressNs = kNsPerSecond / 4;
// The longest that a recording waits for the unwind tables of its target [libLLVM: 50 ms].
constexpr uint64_t kPrepareNs = kNsPerSecond;
constexpr milliseconds kLongestSleep{100};  // the end of a process ends it at once
// A command that ignores SIGTERM is killed this long after the recording ended.
constexpr uint64_t kTerminateGraceNs = 2 * kNsPerSecond;

void SetUpProfile(const RecordOptions& options, profile::Profile* profile) {
  profile->value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  if (options.waits) {
    profile->value_types.push_back({"waits", "count"});
    profile->value_types.push_back({"off_cpu", "nanoseconds"});
  }
  profile->default_value = options.cpu || !options.waits ? 1 : 3;
  profile->period_type = {"cpu", "nanoseconds"};
  profile->period = static_cast<int64_t>(kNsPerSecond / std::max(1u, options.frequency_hz));
}

// Folds the batches of a collector into one recording.
class RecordingSink {
 public:
  explicit RecordingSink(Recording* recording) : recording_(*recording) {}

  StatusOr<uint64_t> Take(const profile::Batch& batch) {
    profile::Profile& profile = recording_.profile;
    profile::DictionaryMapper mapper(batch.dictionary, &profile.dictionary);
    for (const profile::ProfilePoint& point : batch.profiles) {
      const profile::SeriesKey& key = batch.series[point.series];
      const bool cpu = key.type == profile::kTypeCpu;
      // The stacks of who ended a wait would count its time twice.
      if (!cpu && key.type != profile::kTypeOffCpu) continue;
      const auto labels = profile.dictionary.InternLabelSet(key.labels);
      std::vector<int64_t> values(profile.value_types.size(), 0);
      const size_t first = cpu ? 0 : 2;
      for (const auto& sample : point.samples) {
        values[first] = static_cast<int64_t>(sample.count);
        values[first + 1] = static_cast<int64_t>(sample.value);
        profile.Add(labels, mapper.Stack(sample.stack), values);
      }
    }
    for (const profile::HistogramPoint& point : batch.histograms) {
      const profile::SeriesKey& key = batch.series[point.series];
      if (key.type == profile::kTypeSyscallLatency) Merge(point, key.labels, &syscalls_);
      if (key.type == profile::kTypeTcpRtt) Merge(point, key.labels, &tcp_rtt_);
    }
    for (const profile::CounterPoint& point : batch.counters) {
      const profile::SeriesKey& key = batch.series[point.series];
      profile::Accounting& accounting = profile.accounting;
      const std::string reason(key.labels.Get(profile::kLabelReason));
      if (key.type == profile::kTypeSamplesTaken) accounting.taken += point.value;
      if (key.type == profile::kTypeSamplesDelivered) accounting.delivered += point.value;
      if (key.type == profile::kTypeSamplesDropped) accounting.dropped[reason] += point.value;
      if (key.type == profile::kTypeStackStops) accounting.stop_reasons[reason] += point.value;
      if (key.type == profile::kTypeSymbolMisses) accounting.miss_reasons[reason] += point.value;
      if (key.type == profile::kTypeStackMeans) accounting.means[reason] += point.value;
      if (key.type == profile::kTypeSamplesExpected) accounting.expected += point.value;
      if (key.type == profile::kTypeFrames) accounting.frames += point.value;
    }
    return ++sequence_;
  }

  void Finish() {
    recording_.syscalls = Sorted(&syscalls_);
    recording_.tcp_rtt = Sorted(&tcp_rtt_);
  }

 private:
  using Rows = std::map<profile::LabelSet, LatencyRow>;

  static void Merge(const profile::HistogramPoint& point, const profile::LabelSet& labels, Rows* rows) {
    if (point.histogram.empty()) return;
    LatencyRow& row = (*rows)[labels];
    row.labels = labels;
    row.histogram.Merge(point.histogram);
    for (const auto& [error, count] : point.errors) row.errors[error] += count;
  }
  static std::vector<LatencyRow> Sorted(Rows* rows) {
    std::vector<LatencyRow> sorted;
    for (auto& [labels, row] : *rows) sorted.push_back(std::move(row));
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const LatencyRow& a, const LatencyRow& b) { return a.histogram.sum() > b.histogram.sum(); });
    return sorted;
  }

  Recording& recording_;
  uint64_t sequence_ = 0;
  Rows syscalls_, tcp_rtt_;
};

// Waits for the end of a recording: its time is up, the command or target ended, or somebody said stop.
class Wait {
 public:
  Wait(const RecordOptions& options, ChildProcess* child)
      : options_(options), child_(child), started_ns_(MonotonicNowNs()) {
    const pid_t pid = child != nullptr ? child->pid() : static_cast<pid_t>(options.target.pid);
    // Readable once the process has ended. Without one (kernels that refuse it) its end is seen a moment later.
    if (pid != 0) process_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  }

  // Until a signal comes, the command or target ends, or it is time to look.
  void Sleep() {
    auto time = kLongestSleep;
    if (options_.duration_ns > 0) {
      const uint64_t left = options_.duration_ns - std::min(options_.duration_ns, MonotonicNowNs() - started_ns_);
      time = std::min(time, std::chrono::ceil<milliseconds>(std::chrono::nanoseconds(left)));
    }
    pollfd process{process_.get(), POLLIN, 0};  // poll(2) passes over a negative one
    process_ended_ = ::poll(&process, 1, static_cast<int>(time.count())) == 1;
  }

  // True while the recording goes on; `work` sleeps, or takes the time of a tick.
  bool Next(const std::function<void()>& work) {
    work();
    const uint64_t elapsed_ns = MonotonicNowNs() - started_ns_;
    if (options_.on_progress && elapsed_ns - progress_ns_ >= kProgressNs) {
      options_.on_progress(elapsed_ns, options_.duration_ns);
      progress_ns_ = elapsed_ns;
    }
    if (options_.stop != nullptr && options_.stop->load()) return false;
    if (options_.duration_ns > 0 && elapsed_ns >= options_.duration_ns) return false;
    if (child_ != nullptr) return !child_->Poll();
    // One that nobody has waited for yet can still be sent signals.
    target_ended_ = options_.target.pid != 0 &&
                    (process_ended_ || (::kill(static_cast<pid_t>(options_.target.pid), 0) != 0 && errno == ESRCH));
    return !target_ended_;
  }
  bool target_ended() const { return target_ended_; }

 private:
  const RecordOptions& options_;
  ChildProcess* child_;
  const uint64_t started_ns_;
  uint64_t progress_ns_ = 0;
  UniqueFd process_;
  bool process_ended_ = false;
  bool target_ended_ = false;
};

// CPU time of a command or process, and of what they started, while it was recorded.
class TargetCpuTime {
 public:
  TargetCpuTime(const RecordOptions& options, const ChildProcess* child)
      : pid_(child != nullptr ? child->pid() : static_cast<pid_t>(options.target.pid)), command_(child != nullptr) {
    if (pid_ != 0) begin_ns_ = end_ns_ = ProcessTreeCpuTimeNs(pid_);
    ended_children_ns_ = EndedChildrenCpuTimeNs();
  }
  // A process takes its account with it, so the last look counts. A command leaves its to us.
  void Look() {
    if (!command_ && pid_ != 0) LookAtTree();
  }
  void LookAtTree() { end_ns_ = std::max(end_ns_, ProcessTreeCpuTimeNs(pid_)); }
  bool known() const { return command_ || end_ns_ > 0; }
  // Of a command, after it was waited for: exact, unless it was ended before its own children were.
  uint64_t used_ns() const {
    const uint64_t seen_ns = end_ns_ - begin_ns_;
    return command_ ? std::max(seen_ns, EndedChildrenCpuTimeNs() - ended_children_ns_) : seen_ns;
  }

 private:
  const pid_t pid_;
  const bool command_;
  uint64_t begin_ns_ = 0, end_ns_ = 0, ended_children_ns_ = 0;
};

void EndCommand(ChildProcess* child, TargetCpuTime* cpu_time, Recording* recording) {
  if (child == nullptr) return;
  if (!child->Poll()) {
    cpu_time->LookAtTree();
    child->Terminate();
    const uint64_t until = MonotonicNowNs() + kTerminateGraceNs;
    while (!child->AllEnded() && MonotonicNowNs() < until) std::this_thread::sleep_for(kTick);
  }
  recording->command_status = child->Poll();
}

}  // namespace

StatusOr<Recording> Recorder::RecordPrivileged(const RecordOptions& options, ChildProcess* child) {
  Recording recording;
  SetUpProfile(options, &recording.profile);
  if (node_ == nullptr) {
    ASSIGN_OR_RETURN(node_, Node::Start({.cache_folder = cache_folder_}));
  }
  Node* const node = node_.get();
  RecordingSink sink(&recording);

  Collector::Options collecting;
  collecting.frequency_hz = options.frequency_hz;
  collecting.cpu = options.cpu;
  collecting.syscalls = options.syscalls;
  collecting.tcp = options.tcp;
  collecting.waits = options.waits;
  collecting.cpu_budget_cores = 0;
  TargetSpec target = options.target;
  if (child != nullptr) target = {.pid = static_cast<uint32_t>(child->pid()), .container = "", .cgroup = ""};
  ASSIGN_OR_RETURN(collecting.target, ResolveTarget(target, *node));
  if (options.target.pid != 0 && node->unwinding() != nullptr) {
    for (const ProcessKey& process : node->processes().Running()) {
      if (process.tgid == options.target.pid) node->unwinding()->Prepare(process, kPrepareNs);
    }
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Collector> collector,
                   Collector::Start(
                       collecting, node, [&](profile::Batch& batch) { return sink.Take(batch); }, nullptr));
  for (const ProbeReport& probe : collector->Probes()) {
    if (!probe.Limited()) continue;
    if (probe.state == "off" && probe.name == "cpu_sampler") return PermissionDeniedError(probe.reason);
    recording.notes.push_back(StrFormat("%s is %s: %s", probe.name, probe.state, probe.reason));
  }
  recording.profile.time_ns = UnixNowNs();
  TargetCpuTime cpu_time(options, child);
  if (child != nullptr) RETURN_IF_ERROR(child->Release());

  Wait wait(options, child);
  while (wait.Next([&] {
    wait.Sleep();
    cpu_time.Look();
  })) {
  }
  EndCommand(child, &cpu_time, &recording);
  recording.profile.duration_ns = static_cast<uint64_t>(UnixNowNs() - recording.profile.time_ns);
  collector->Stop();  // which still makes tables and names
  sink.Finish();
  if (cpu_time.known()) {
    recording.profile.accounting.expected = ExpectedSamples(cpu_time.used_ns(), options.frequency_hz);
  }
  recording.how = StrFormat("BPF, %d Hz", options.frequency_hz);
  recording.frequency_hz = options.frequency_hz;
  if (wait.target_ended()) recording.notes.push_back(StrFormat("process %d ended", options.target.pid));
  return recording;
}

StatusOr<Recording> Recorder::RecordUnprivileged(const RecordOptions& asked, ChildProcess* child,
                                                 const Status& why) const {
  if (child == nullptr && asked.target.pid == 0) return why;
  Recording recording;
  RecordOptions options = asked;
  if (options.frequency_without_bpf_hz != 0) options.frequency_hz = options.frequency_without_bpf_hz;
  recording.frequency_hz = options.frequency_hz;
  RecordOptions cpu_only = options;
  cpu_only.waits = false;
  SetUpProfile(cpu_only, &recording.profile);
  ASSIGN_OR_RETURN(const std::unique_ptr<Node> node,
                   Node::Start({.name = "", .process_events = false, .cache_folder = cache_folder_}));
  SampleResolver resolver(&node->processes(), node->unwinding());
  SampleTrack track(&resolver, /*window_ns=*/0);

  kernel::UnprivilegedSampler::Options sampling;
  sampling.pid = child != nullptr ? child->pid() : static_cast<pid_t>(options.target.pid);
  sampling.frequency_hz = options.frequency_hz;
  sampling.enable_on_exec = child != nullptr;
  sampling.copy_stacks = node->unwinding() != nullptr;
  ASSIGN_OR_RETURN(const auto sampler, kernel::UnprivilegedSampler::Start(sampling));
  recording.profile.time_ns = UnixNowNs();
  TargetCpuTime cpu_time(options, child);
  if (child != nullptr) RETURN_IF_ERROR(child->Release());

  Status problem;
  const auto poll = [&](milliseconds timeout, bool last) {
    const Status status = sampler->Poll(
        timeout, [&](const kernel::CpuSample& sample) { track.Collect(sample); },
        [&](kernel::ProcessEvent&& event) { node->Apply(std::move(event)); });
    if (!status.ok() && problem.ok()) problem = status;
    if (node->unwinding() != nullptr) node->unwinding()->Sync(MonotonicNowNs());
    track.Fold(MonotonicToUnixOffsetNs(), node->known_until_ns(), last);
    for (const ProcessKey& process : resolver.TakeJitProcesses()) node->naming().PrepareJit(process);
  };
  Wait wait(options, child);
  while (problem.ok() && wait.Next([&] {
    poll(kTick, false);
    cpu_time.Look();
  })) {
  }
  EndCommand(child, &cpu_time, &recording);
  RETURN_IF_ERROR(sampler->Stop());
  recording.profile.duration_ns = static_cast<uint64_t>(UnixNowNs() - recording.profile.time_ns);
  // What still needs an unwind table may have it made.
  for (const uint64_t until = MonotonicNowNs() + kTableWaitNs; MonotonicNowNs() < until;) {
    poll(milliseconds(0), false);
    if (track.waiting() == 0 || node->unwinding() == nullptr) break;
    node->unwinding()->Finish(until - MonotonicNowNs());
  }
  poll(milliseconds(0), true);
  RETURN_IF_ERROR(problem);

  profile::Profile& profile = recording.profile;
  const int64_t now_ns = UnixNowNs();
  NamingCounts names;
  for (const RawWindow& window : track.TakeAll(now_ns)) {
    const auto stacks = node->naming().Name(window, &profile.dictionary, &names);
    for (const auto& [group, sums_by_stack] : window.samples()) {
      const auto labels = profile.dictionary.InternLabelSet(node->LabelsOf(0, 0, group.comm));
      for (const auto& [stack, sums] : sums_by_stack) {
        profile.Add(labels, stacks[stack], {static_cast<int64_t>(sums.count), static_cast<int64_t>(sums.value)});
      }
    }
    for (const auto& [reason, count] : window.stops()) profile.accounting.stop_reasons[reason] += count;
    for (const auto& [name, count] : window.means()) profile.accounting.means[name] += count;
  }
  profile.accounting.miss_reasons = std::move(names.misses);
  profile.accounting.frames = names.frames;
  const kernel::SampleCounters counters = sampler->Counters();
  if (cpu_time.known()) profile.accounting.expected = ExpectedSamples(cpu_time.used_ns(), options.frequency_hz);
  profile.accounting.taken = counters.taken;
  profile.accounting.delivered = counters.delivered;
  profile.accounting.dropped = {{"ring full", counters.dropped_ring_full},
                                {"malformed record", counters.dropped_malformed},
                                {"lost by the kernel", counters.dropped_lost}};
  std::erase_if(profile.accounting.dropped, [](const auto& entry) { return entry.second == 0; });
  recording.how = StrFormat("unprivileged perf events, %d Hz%s", options.frequency_hz,
                            sampler->samples_kernel() ? "" : ", user mode only");
  recording.notes.push_back(StrFormat("without BPF: %s", Message(why)));
  if (options.syscalls || options.tcp || options.waits) {
    recording.notes.push_back("system calls, TCP and waits were not measured: they need BPF");
  }
  return recording;
}

StatusOr<Recording> Recorder::Record(const RecordOptions& options) {
  std::optional<ChildProcess> child;
  if (!options.command.empty()) {
    ASSIGN_OR_RETURN(ChildProcess prepared, ChildProcess::Prepare(options.command));
    child.emplace(std::move(prepared));
  }
  ChildProcess* command = child ? &*child : nullptr;
  if (!options.instructions || command == nullptr) return RecordAnyhow(options, command);
  const auto counter = kernel::InstructionCounter::Open(command->pid());
  ASSIGN_OR_RETURN(Recording recording, RecordAnyhow(options, command));
  recording.instructions = counter.ok() ? counter->Read() : counter.status();
  return recording;
}

StatusOr<Recording> Recorder::RecordAnyhow(const RecordOptions& options, ChildProcess* command) {
  const std::vector<std::string> missing = kernel::MissingCapabilities();
  const bool may_use_bpf = std::none_of(missing.begin(), missing.end(), [](const std::string& name) {
    return name == "CAP_BPF" || name == "CAP_PERFMON";
  });
  if (!may_use_bpf) {
    return RecordUnprivileged(
        options, command,
        PermissionDeniedError(StrFormat("%s missing; run as root, or see `pyrometer doctor`", Join(missing, ", "))));
  }
  auto recording = RecordPrivileged(options, command);
  // Rights alone do not make BPF work (lockdown, seccomp, no BTF): own children can still be sampled.
  const StatusCode code = recording.status().code();
  const bool refused = code == StatusCode::kPermissionDenied || code == StatusCode::kFailedPrecondition;
  if (!recording.ok() && refused && command != nullptr && !command->released()) {
    return RecordUnprivileged(options, command, recording.status());
  }
  return recording;
}

}  // namespace pyrometer::agent

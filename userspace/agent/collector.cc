#include "userspace/agent/collector.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/agent/batch_builder.h"
#include "userspace/agent/cpu_time.h"
#include "userspace/agent/descriptor_name.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/base/thread.h"
#include "userspace/kernel/call_arguments.h"

namespace pyrometer::agent {
namespace {

using std::chrono::milliseconds;

// How long the collecting thread waits for process events before it looks at the rings again. The sample ring
// (4 MiB) holds seconds of samples; perf maps of short processes want to be read soon.
constexpr milliseconds kPollInterval{50};
// Samples reach a window up to two poll intervals after they were taken; a busy machine adds to that.
constexpr uint64_t kWindowGraceNs = 300 * kNsPerMs;
constexpr uint32_t kLeastFrequencyHz = 9;
constexpr int kWindowsOverBudget = 3;
constexpr int kNamingNice = 10;

uint64_t ProcessCpuNs() {
  timespec now;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t ResidentBytes() {
  auto statm = ReadFile("/proc/self/statm", 4096);
  if (!statm.ok()) return 0;
  const auto fields = Split(*statm, ' ');
  const auto pages = fields.size() > 1 ? ParseUint64(fields[1]) : std::nullopt;
  return pages.value_or(0) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// The name of a file is in /proc only, and for as long as it is open.
std::string TextOf(const kernel::SlowCall& call) {
  const auto name = [&](const kernel::CallDescriptor& descriptor) {
    if (descriptor.kind != PYRO_DESCRIPTOR_FILE) return std::string();
    return DescriptorName(call.process.tgid, call.tid, descriptor.fd, descriptor.inode);
  };
  return kernel::CallText(call, name(call.descriptor), name(call.second_descriptor));
}

// Label sets equal after naming (two comms of one cgroup may map to one service) must give one point.
using SamplesBySeries = std::map<profile::SeriesKey, std::map<profile::StackId, RawWindow::Sums>>;

void AddProfilePoints(const RawWindow& window, const SamplesBySeries& samples, BatchBuilder& builder,
                      profile::Batch* batch) {
  for (const auto& [series, stacks] : samples) {
    const bool cpu = series.type == profile::kTypeCpu;
    profile::ProfilePoint point;
    point.series = builder.Series(series.type, series.labels);
    point.time_ns = window.start_ns();
    point.duration_ns = window.duration_ns();
    bool timed = true;  // all or none
    for (const auto& [stack, sums] : stacks) {
      point.samples.push_back({stack, sums.count, sums.value});
      // Waits have no common period: their weights differ.
      if (cpu && point.period_ns == 0 && sums.count > 0) point.period_ns = sums.value / sums.count;
      timed = timed && sums.offsets_ms.size() == sums.count;
      const size_t before = point.offsets_ms.size();
      point.offsets_ms.insert(point.offsets_ms.end(), sums.offsets_ms.begin(), sums.offsets_ms.end());
      std::sort(point.offsets_ms.begin() + static_cast<std::ptrdiff_t>(before), point.offsets_ms.end());
    }
    if (!timed) point.offsets_ms.clear();
    batch->profiles.push_back(std::move(point));
  }
}

}  // namespace

StatusOr<std::unique_ptr<Collector>> Collector::Start(const Options& options, Node* node, Sink sink,
                                                      SessionListener on_session) {
  std::unique_ptr<Collector> collector(new Collector(options, node, std::move(sink), std::move(on_session)));
  RETURN_IF_ERROR(collector->StartProbes());
  collector->collect_thread_ = std::thread([c = collector.get()] {
    NameThisThread("pyro-collect");
    c->CollectLoop();
  });
  collector->name_thread_ = std::thread([c = collector.get()] {
    NameThisThread("pyro-name", kNamingNice);
    c->NameLoop();
  });
  return collector;
}

Collector::Collector(const Options& options, Node* node, Sink sink, SessionListener on_session)
    : options_(options),
      node_(*node),
      sink_(std::move(sink)),
      on_session_(std::move(on_session)),
      resolver_(&node->processes(), node->unwinding()),
      frequency_hz_(options.frequency_hz) {}

Collector::~Collector() { Stop(); }

void Collector::ReportProblem(const std::string& probe, const Status& status) {
  const std::lock_guard lock(mutex_);
  probes_[probe] = {probe, "off", std::string(Message(status))};
}

Status Collector::StartProbes() {
  const int64_t now_ns = UnixNowNs();
  window_start_ns_ = now_ns - now_ns % static_cast<int64_t>(options_.window_ns);
  track_ = std::make_unique<SampleTrack>(&resolver_, options_.window_ns);
  last_cpu_ns_ = ProcessCpuNs();

  Status first_problem;
  bool any = false;
  const auto note = [&](const std::string& name, const Status& status, std::string degraded = "") {
    if (status.ok()) {
      any = true;
      probes_[name] = {name, degraded.empty() ? "ok" : "degraded", std::move(degraded)};
      return;
    }
    if (first_problem.ok()) first_problem = status;
    probes_[name] = {name, "off", std::string(Message(status))};
  };
  const auto unused = [&](const std::string& name) { probes_[name] = {name, "unused", ""}; };

  if (options_.cpu) {
    kernel::CpuSampler::Options sampling;
    sampling.frequency_hz = options_.frequency_hz;
    sampling.target = options_.target;
    sampling.unwind = node_.unwind_maps();
    auto sampler = kernel::CpuSampler::Start(sampling);
    if (sampler.ok()) sampler_ = *std::move(sampler);
    note("cpu_sampler", sampler.status());
    if (options_.target.kind == kernel::SampleTarget::Kind::kAll) {
      if (const auto cpu_ns = MachineCpuTimeNs(); cpu_ns.ok()) machine_cpu_ns_ = *cpu_ns;
    }
  } else {
    unused("cpu_sampler");
  }
  if (options_.syscalls) {
    auto probe = kernel::SyscallLatency::Start({.unwind = node_.unwind_maps(), .split = options_.waits});
    const Status open_calls = probe.ok() ? (*probe)->OpenCallsStatus() : OkStatus();
    note("syscall_latency", probe.status(), std::string(Message(open_calls)));
    if (probe.ok()) {
      syscalls_ = *std::move(probe);
      whole_syscalls_ = probes_["syscall_latency"];
      if (options_.syscall_budget_cores > 0) {
        duty_ = std::make_unique<DutyCycle>(
            syscalls_.get(),
            DutyCycle::Options{.budget_cores = options_.syscall_budget_cores, .window_ns = options_.window_ns});
      }
    }
    auto operations = kernel::IoUringLatency::Start({});
    note("io_uring_latency", operations.status());
    if (operations.ok()) io_uring_ = *std::move(operations);
  } else {
    unused("syscall_latency");
    unused("io_uring_latency");
  }
  if (options_.waits) {
    auto waits =
        WaitTrack::Start(&node_, &resolver_, syscalls_ == nullptr ? -1 : syscalls_->TaskStates(), options_.target);
    if (waits.ok()) waits_ = *std::move(waits);
    note("off_cpu", waits.status());
  } else {
    unused("off_cpu");
  }
  if (options_.tcp) {
    auto probe = kernel::TcpLatency::Start({});
    std::string degraded;
    if (probe.ok()) {
      if (const Status scan = (*probe)->ScanStatus(); !scan.ok()) {
        degraded = StrFormat("connections older than the agent are seen at their first packet: %s", Message(scan));
      } else if (const Status source = (*probe)->SourceStatus(); !source.ok()) {
        degraded = StrFormat("whatever the traffic, round-trip times come from %s: %s",
                             (*probe)->Source() == kernel::TcpSource::kPoll ? "polls" : "each packet", Message(source));
      }
    }
    note("tcp_latency", probe.status(), std::move(degraded));
    if (probe.ok()) tcp_ = *std::move(probe);
  } else {
    unused("tcp_latency");
  }
  const Status& events = node_.process_events_status();
  probes_["process_events"] = {"process_events", events.ok() ? "ok" : "degraded", std::string(Message(events))};
  if (!any && !first_problem.ok()) return first_problem;
  return OkStatus();
}

std::vector<ProbeReport> Collector::Probes() const {
  const std::lock_guard lock(mutex_);
  std::vector<ProbeReport> reports;
  for (const auto& [name, report] : probes_) reports.push_back(report);
  return reports;
}

Status Collector::StartSession(const SessionSpec& spec) {
  ASSIGN_OR_RETURN(auto session,
                   Session::Start(spec, {.frequency_hz = options_.frequency_hz, .window_ns = options_.window_ns},
                                  &node_, &resolver_));
  const std::lock_guard lock(mutex_);
  new_sessions_.push_back(std::move(session));
  return OkStatus();
}

Status Collector::StopSession(const std::string& id) {
  const std::lock_guard lock(mutex_);
  for (auto& session : new_sessions_) {
    if (session->id() == id) return session->RequestStop(), OkStatus();
  }
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return NotFoundError(StrFormat("no session '%s' runs on this node", id));
  found->second->RequestStop();
  return OkStatus();
}

void Collector::CollectLoop() {
  while (!stopping_.load()) {
    if (lower_frequency_.exchange(false) && sampler_ != nullptr) {
      kernel::CpuSampler::Options sampling;
      sampling.frequency_hz = frequency_hz_.load();
      sampling.target = options_.target;
      sampling.unwind = node_.unwind_maps();
      auto slower = kernel::CpuSampler::Start(sampling);
      if (slower.ok()) {
        (void)sampler_->Stop();
        (void)sampler_->Poll(milliseconds(0), [&](const kernel::CpuSample& sample) { track_->Collect(sample); });
        const std::lock_guard lock(sampler_mutex_);
        const kernel::SampleCounters ended = sampler_->Counters();
        sampler_base_.taken += ended.taken;
        sampler_base_.delivered += ended.delivered;
        sampler_base_.dropped_ring_full += ended.dropped_ring_full;
        sampler_base_.dropped_scratch += ended.dropped_scratch;
        sampler_base_.dropped_malformed += ended.dropped_malformed;
        sampler_base_.dropped_lost += ended.dropped_lost;
        sampler_ = *std::move(slower);
      } else {
        ReportProblem("cpu_sampler", slower.status());
      }
    }
    if (sampler_ != nullptr) {
      const Status status =
          sampler_->Poll(milliseconds(0), [&](const kernel::CpuSample& sample) { track_->Collect(sample); });
      if (!status.ok()) ReportProblem("cpu_sampler", status);
    }
    {
      const std::lock_guard lock(mutex_);
      for (auto& session : new_sessions_) sessions_[session->id()] = std::move(session);
      new_sessions_.clear();
      const uint64_t now = MonotonicNowNs();
      for (auto& [id, session] : sessions_) session->Step(now, MonotonicToUnixOffsetNs());
    }
    if (const Status status = node_.PollEvents(kPollInterval); !status.ok()) ReportProblem("process_events", status);
    const int64_t offset_ns = MonotonicToUnixOffsetNs();
    track_->Fold(offset_ns, node_.known_until_ns());
    {
      const std::lock_guard lock(mutex_);
      // Nothing of a session that has ended may wait for a later round: there is none.
      for (auto& [id, session] : sessions_) {
        session->track().Fold(offset_ns, node_.known_until_ns(), /*last=*/session->ended());
      }
    }
    PollSlowCalls(offset_ns);
    PollWaits(offset_ns);
    for (const ProcessKey& process : resolver_.TakeJitProcesses()) node_.naming().PrepareJit(process);
    CutWindows(UnixNowNs());
  }

  // Last round: end the probes, read what is left, hand everything over.
  if (sampler_ != nullptr) {
    (void)sampler_->Stop();
    (void)sampler_->Poll(milliseconds(0), [&](const kernel::CpuSample& sample) { track_->Collect(sample); });
  }
  Work ending;
  ending.open_calls = TakeOpenCalls();  // while the probe still sees what returns
  // Off-CPU first: it writes what system calls read.
  if (waits_ != nullptr) (void)waits_->Stop();
  if (duty_ != nullptr) duty_->Stop();
  if (syscalls_ != nullptr) (void)syscalls_->Stop();
  if (io_uring_ != nullptr) (void)io_uring_->Stop();
  if (tcp_ != nullptr) (void)tcp_->Stop();
  // Of the time that was sampled; making tables and names takes a while yet.
  const int64_t ended_ns = UnixNowNs();
  ending.expected = TakeExpected();
  {
    const std::lock_guard lock(mutex_);
    for (auto& session : new_sessions_) sessions_[session->id()] = std::move(session);
    new_sessions_.clear();
    for (auto& [id, session] : sessions_) {
      session->RequestStop();
      session->Step(MonotonicNowNs(), MonotonicToUnixOffsetNs());
    }
  }
  (void)node_.PollEvents(milliseconds(5));
  const int64_t offset_ns = MonotonicToUnixOffsetNs();
  {
    const std::lock_guard lock(mutex_);
    const auto fold = [&](bool last) {
      track_->Fold(offset_ns, node_.known_until_ns(), last);
      size_t waiting = track_->waiting();
      for (auto& [id, session] : sessions_) {
        session->track().Fold(offset_ns, node_.known_until_ns(), last);
        waiting += session->track().waiting();
      }
      return waiting;
    };
    // What still needs an unwind table may have it made.
    for (const uint64_t until = MonotonicNowNs() + kTableWaitNs; fold(false) > 0 && MonotonicNowNs() < until;) {
      if (node_.unwinding() != nullptr) node_.unwinding()->Finish(until - MonotonicNowNs());
      (void)node_.PollEvents(milliseconds(2));
    }
    fold(true);
  }
  PollSlowCalls(offset_ns);
  PollWaits(offset_ns);
  CutLastWindows(ended_ns, std::move(ending));
  const std::lock_guard lock(queue_mutex_);
  queue_closed_ = true;
  queue_changed_.notify_all();
}

void Collector::PollSlowCalls(int64_t offset_ns) {
  if (syscalls_ == nullptr) return;
  const Status status = syscalls_->PollExemplars([&](const kernel::SlowCall& call) {
    RawWindow& window = track_->WindowAt(static_cast<int64_t>(call.time_ns) + offset_ns);
    SampleResolver::Stack stack{.process = call.process,
                                .tid = call.tid,
                                .time_ns = call.time_ns,
                                .kernel_frames = {},
                                .user_frames = call.user_frames,
                                .user_stop = call.user_stop};
    uint8_t means = call.means;
    (void)resolver_.Rewalk(stack, means, call.raw_registers, call.raw_stack);
    profile::StackId id = resolver_.Intern(stack, window);
    if (waits_ != nullptr) id = WaitTrack::WithCause(call, id, window);
    const RawWindow::CallKey key = {call.key.cgroup_id, call.key.cgroup_v1_id, kernel::SyscallName(call.key)};
    RawExemplar exemplar = {call.time_ns, call.latency_ns, id, std::string(call.comm), call.tid, TextOf(call)};
    exemplar.weight = call.weight;
    exemplar.typical = !call.slow;
    if (waits_ != nullptr) exemplar.split = WaitTrack::SplitOf(call);
    window.AddExemplar(key, std::move(exemplar));
    if (waits_ != nullptr) waits_->NoteCall(call, key);
  });
  if (!status.ok()) ReportProblem("syscall_latency", status);
}

void Collector::PollWaits(int64_t offset_ns) {
  if (waits_ == nullptr) return;
  const Status status =
      waits_->Poll(offset_ns, [&](int64_t unix_ns) -> RawWindow& { return track_->WindowAt(unix_ns); });
  if (!status.ok()) ReportProblem("off_cpu", status);
}

void Collector::PollSessions(Work* work) {
  const int64_t now_ns = UnixNowNs();
  const std::lock_guard lock(mutex_);
  for (auto entry = sessions_.begin(); entry != sessions_.end();) {
    Session& session = *entry->second;
    const bool ended = session.ended();
    auto windows = ended ? session.track().TakeAll(now_ns) : session.track().TakeClosed(now_ns, kWindowGraceNs);
    for (RawWindow& window : windows) work->session_windows.emplace_back(session.id(), std::move(window));
    if (!ended) {
      ++entry;
      continue;
    }
    work->finished.push_back(session.Report());
    entry = sessions_.erase(entry);
  }
}

std::optional<uint64_t> Collector::TakeExpected() {
  if (!machine_cpu_ns_) return std::nullopt;
  const auto cpu_ns = MachineCpuTimeNs();
  if (!cpu_ns.ok() || *cpu_ns < *machine_cpu_ns_) return std::nullopt;
  const uint64_t used_ns = *cpu_ns - *machine_cpu_ns_;
  machine_cpu_ns_ = *cpu_ns;
  return ExpectedSamples(used_ns, frequency_hz_.load());
}

Collector::OpenCalls Collector::TakeOpenCalls() {
  OpenCalls ages;
  // Where this kernel does not let us, the probe's state has said so since the start.
  if (syscalls_ != nullptr && syscalls_->OpenCallsStatus().ok()) {
    const Status status = syscalls_->ReadOpenCalls([&](const kernel::OpenCall& call) {
      const std::string cause = waits_ == nullptr ? "" : WaitTrack::CauseOf(call);
      ages[{call.key.cgroup_id, call.key.cgroup_v1_id, kernel::SyscallName(call.key), cause}].Record(call.age_ns);
    });
    if (!status.ok()) ReportProblem("syscall_latency", status);
  }
  if (io_uring_ != nullptr) {
    const Status status = io_uring_->ReadOpen([&](const kernel::IoUringKey& key, uint64_t age_ns) {
      ages[{key.cgroup_id, key.cgroup_v1_id, kernel::IoUringOperationName(key), ""}].Record(age_ns);
    });
    if (!status.ok()) ReportProblem("io_uring_latency", status);
  }
  return ages;
}

void Collector::CutWindows(int64_t now_ns) {
  const auto window_ns = static_cast<int64_t>(options_.window_ns);
  Work work;
  PollSessions(&work);
  if (now_ns >= window_start_ns_ + window_ns + static_cast<int64_t>(kWindowGraceNs)) {
    work.windows = track_->TakeClosed(now_ns, kWindowGraceNs);
    work.drain = true;
    work.start_ns = window_start_ns_;
    window_start_ns_ = now_ns - now_ns % window_ns;
    work.duration_ns = static_cast<uint64_t>(window_start_ns_ - work.start_ns);
    work.expected = TakeExpected();
    work.open_calls = TakeOpenCalls();
  }
  if (work.drain || !work.session_windows.empty() || !work.finished.empty()) Queue(std::move(work));
}

void Collector::CutLastWindows(int64_t ended_ns, Work work) {
  PollSessions(&work);
  work.windows = track_->TakeAll(ended_ns);
  work.drain = true;
  work.start_ns = window_start_ns_;
  work.duration_ns = static_cast<uint64_t>(std::max<int64_t>(1, ended_ns - window_start_ns_));
  Queue(std::move(work));
}

void Collector::Queue(Work work) {
  const std::lock_guard lock(queue_mutex_);
  queue_.push_back(std::move(work));
  queue_changed_.notify_all();
}

void Collector::NameLoop() {
  while (true) {
    std::unique_lock lock(queue_mutex_);
    queue_changed_.wait(lock, [&] { return !queue_.empty() || queue_closed_; });
    if (queue_.empty()) return;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Process(std::move(work));
  }
}

void Collector::Process(Work work) {
  profile::Batch batch;
  batch.node = node_.name();
  BatchBuilder builder(&batch);
  std::map<std::string, uint64_t> stops, means;
  NamingCounts names;

  const auto add_window = [&](const RawWindow& window, const std::string& session) {
    const std::vector<profile::StackId> stacks = node_.naming().Name(window, &batch.dictionary, &names);
    SamplesBySeries samples;
    for (const auto& [group, sums_by_stack] : window.samples()) {
      profile::LabelSet labels = node_.LabelsOf(group.cgroup_id, group.cgroup_v1_id, group.comm);
      if (!session.empty()) labels = labels.With(profile::kLabelSession, session);
      if (!group.cause.empty()) labels = labels.With(profile::kLabelCause, group.cause);
      const std::string type(group.type.empty() ? profile::kTypeCpu : group.type);
      auto& into = samples[profile::SeriesKey{type, std::move(labels)}];
      for (const auto& [stack, sums] : sums_by_stack) {
        into[stacks[stack]].Add(sums);
      }
    }
    AddProfilePoints(window, samples, builder, &batch);
    for (const auto& [reason, count] : window.stops()) stops[reason] += count;
    for (const auto& [name, count] : window.means()) means[name] += count;

    // Exemplars stand in points of their own: their histogram comes with the sums.
    const int64_t offset_ns = MonotonicToUnixOffsetNs();
    for (const auto& [key, exemplars] : window.exemplars()) {
      profile::HistogramPoint point;
      point.series =
          builder.Series(profile::kTypeSyscallLatency,
                         node_.LabelsOf(key.cgroup_id, key.cgroup_v1_id, "").With(profile::kLabelSyscall, key.call));
      point.time_ns = window.start_ns();
      point.duration_ns = window.duration_ns();
      for (const RawExemplar& exemplar : exemplars) {
        profile::Exemplar& to = point.exemplars.emplace_back();
        to = {static_cast<int64_t>(exemplar.time_ns) + offset_ns,
              exemplar.value,
              stacks[exemplar.stack],
              ToUtf8(exemplar.comm),
              exemplar.tid,
              exemplar.call,
              exemplar.weight,
              exemplar.typical,
              exemplar.split,
              exemplar.waker};
        to.waker.stack = stacks[exemplar.waker.stack];
        to.waker.comm = ToUtf8(exemplar.waker.comm);
      }
      batch.histograms.push_back(std::move(point));
    }
  };
  if (node_.unwinding() != nullptr) {
    for (const RawWindow& window : work.windows) node_.unwinding()->Used(window.binaries());
    for (const auto& [session, window] : work.session_windows) node_.unwinding()->Used(window.binaries());
  }
  for (const RawWindow& window : work.windows) add_window(window, "");
  for (const auto& [session, window] : work.session_windows) add_window(window, session);

  if (work.drain) {
    AddSums(work, &batch);
    AddAccounting(work, &batch);
    BatchBuilder counters(&batch);
    const profile::LabelSet node = profile::LabelSet().With(profile::kLabelNode, node_.name());
    for (const auto& [reason, count] : stops) {
      counters.Counter(profile::kTypeStackStops, node.With(profile::kLabelReason, reason), work.start_ns,
                       work.duration_ns, count);
    }
    for (const auto& [name, count] : means) {
      counters.Counter(profile::kTypeStackMeans, node.With(profile::kLabelReason, name), work.start_ns,
                       work.duration_ns, count);
    }
    counters.Counter(profile::kTypeFrames, node, work.start_ns, work.duration_ns, names.frames);
    for (const auto& [reason, count] : names.misses) {
      counters.Counter(profile::kTypeSymbolMisses, node.With(profile::kLabelReason, reason), work.start_ns,
                       work.duration_ns, count);
    }
    WatchBudget();
  }
  Deliver(std::move(batch), std::move(work.finished));
}

void Collector::Deliver(profile::Batch batch, std::vector<SessionReport> finished) {
  waiting_.push_back({std::move(batch), std::move(finished)});
  while (!waiting_.empty()) {
    const StatusOr<uint64_t> sequence = sink_(waiting_.front().batch);
    if (!sequence.ok()) {
      ReportProblem("spool", sequence.status());
      break;
    }
    {
      const std::lock_guard lock(mutex_);
      probes_.erase("spool");
    }
    for (SessionReport& report : waiting_.front().finished) {
      report.last_sequence = *sequence;
      if (on_session_) on_session_(report);
    }
    waiting_.pop_front();
  }
  while (waiting_.size() > kMaxWaitingBatches) {
    lost_batches_["spool not writable"] += waiting_.front().batch.SampleTotal();
    for (SessionReport& report : waiting_.front().finished) {
      report.state = SessionState::kFailed;
      if (!report.error.empty()) report.error += "; ";
      report.error += "the spool cannot be written, see the probe 'spool'";
      if (on_session_) on_session_(report);
    }
    waiting_.pop_front();
  }
}

Status Collector::AddSystemCalls(const AddCall& add) {
  std::optional<MeasuredSlices> measured;
  if (duty_ != nullptr) {
    ASSIGN_OR_RETURN(measured, duty_->EndWindow());
  }
  uint64_t calls = 0;
  RETURN_IF_ERROR(syscalls_->Drain([&](const kernel::SyscallWindow& drained) {
    kernel::SyscallWindow window = drained;
    if (measured) calls_too_long_ += duty_->Scale(*measured, window);
    calls += window.latency.count;
    const profile::LabelSet labels =
        node_.LabelsOf(window.key.cgroup_id, window.key.cgroup_v1_id, "")
            .With(profile::kLabelSyscall, window.key.folded ? "[folded]" : kernel::SyscallName(window.key));
    add(labels, window.latency, window.errors);
    if (waits_ != nullptr) waits_->AddCall(labels, window);
  }));
  if (duty_ == nullptr) return OkStatus();
  const double share = duty_->BeginWindow(calls);
  const std::lock_guard lock(mutex_);
  ProbeReport& report = probes_["syscall_latency"];
  if (share >= 1) {
    report = whole_syscalls_;
  } else {
    report = {
        "syscall_latency", "degraded",
        StrFormat("system calls are timed %.0f %% of the time and their counts estimated from it: timing all %.0f a "
                  "second takes %.2f cores, the budget is %.2f (--syscall-budget)",
                  share * 100, static_cast<double>(calls) * 1e9 / static_cast<double>(options_.window_ns),
                  static_cast<double>(calls) * kCallCostNs / static_cast<double>(options_.window_ns),
                  options_.syscall_budget_cores)};
  }
  return OkStatus();
}

void Collector::AddSums(const Work& work, profile::Batch* batch) {
  BatchBuilder builder(batch);
  std::map<profile::LabelSet, profile::HistogramPoint> points;
  const auto add_call = [&](const profile::LabelSet& labels, const kernel::LatencyHistogram& latency,
                            const std::vector<kernel::SyscallError>& errors) {
    profile::HistogramPoint& point = points[labels];
    point.histogram.Merge(FromKernel(latency));
    for (const kernel::SyscallError& error : errors) point.errors[error.error] += error.count;
  };
  if (syscalls_ != nullptr) {
    const Status status = AddSystemCalls(add_call);
    if (!status.ok()) ReportProblem("syscall_latency", status);
  }
  if (io_uring_ != nullptr) {
    const Status status = io_uring_->Drain([&](const kernel::IoUringWindow& window) {
      add_call(node_.LabelsOf(window.key.cgroup_id, window.key.cgroup_v1_id, "")
                   .With(profile::kLabelSyscall, kernel::IoUringOperationName(window.key)),
               window.latency, window.errors);
    });
    if (!status.ok()) ReportProblem("io_uring_latency", status);
  }
  for (auto& [labels, point] : points) {
    point.series = builder.Series(profile::kTypeSyscallLatency, labels);
    point.time_ns = work.start_ns;
    point.duration_ns = work.duration_ns;
    // Slow calls of this window have a point already (see Process): one series, one window, one point.
    const auto same = std::find_if(batch->histograms.begin(), batch->histograms.end(), [&](const auto& other) {
      return other.series == point.series && other.time_ns == point.time_ns;
    });
    if (same == batch->histograms.end()) {
      batch->histograms.push_back(std::move(point));
    } else {
      same->histogram.Merge(point.histogram);
      for (const auto& [error, count] : point.errors) same->errors[error] += count;
    }
  }
  // Keys that differ in what labels do not show (the v1 cgroup id) are one series.
  std::map<profile::LabelSet, profile::Histogram> open_calls;
  for (const auto& [key, ages] : work.open_calls) {
    const auto& [cgroup_id, cgroup_v1_id, name, cause] = key;
    profile::LabelSet labels = node_.LabelsOf(cgroup_id, cgroup_v1_id, "").With(profile::kLabelSyscall, name);
    if (!cause.empty()) labels = labels.With(profile::kLabelCause, cause);
    open_calls[labels].Merge(ages);
  }
  for (auto& [labels, ages] : open_calls) {
    profile::HistogramPoint point;
    point.series = builder.Series(profile::kTypeSyscallOpen, labels);
    point.time_ns = work.start_ns;
    point.duration_ns = work.duration_ns;
    point.histogram = std::move(ages);
    batch->histograms.push_back(std::move(point));
  }
  if (waits_ != nullptr) {
    const Status status = waits_->AddSums(work.start_ns, work.duration_ns, builder, batch);
    if (!status.ok()) ReportProblem("off_cpu", status);
  }
  if (tcp_ != nullptr) {
    const auto add_histogram = [&](std::string_view type, const profile::LabelSet& labels,
                                   const kernel::LatencyHistogram& latency) {
      if (latency.empty()) return;
      profile::HistogramPoint point;
      point.series = builder.Series(type, labels);
      point.time_ns = work.start_ns;
      point.duration_ns = work.duration_ns;
      point.histogram = FromKernel(latency);
      // Two flows may differ only in what labels do not show (the v1 cgroup id).
      for (profile::HistogramPoint& other : batch->histograms) {
        if (other.series == point.series && other.time_ns == point.time_ns) {
          other.histogram.Merge(point.histogram);
          return;
        }
      }
      batch->histograms.push_back(std::move(point));
    };
    const Status status = tcp_->Drain([&](const kernel::TcpWindow& window) {
      const bool other = window.key.direction == kernel::TcpDirection::kOther;
      const bool incoming = window.key.direction == kernel::TcpDirection::kIn;
      const std::string address = kernel::PeerAddress(window.key);
      std::string peer = address;
      if (!other && !incoming) {
        peer = window.key.family == 6 ? StrFormat("[%s]:%d", address, window.key.peer_port)
                                      : StrFormat("%s:%d", address, window.key.peer_port);
      }
      profile::LabelSet labels = node_.LabelsOf(window.key.cgroup_id, window.key.cgroup_v1_id, "")
                                     .With(profile::kLabelPeer, peer)
                                     .With(profile::kLabelDirection, other      ? "other"
                                                                     : incoming ? "in"
                                                                                : "out");
      if (incoming) labels = labels.With(profile::kLabelLocalPort, StrFormat("%d", window.key.local_port));
      add_histogram(profile::kTypeTcpRtt, labels, window.srtt);
      add_histogram(profile::kTypeTcpMinRtt, labels, window.min_rtt);
      add_histogram(profile::kTypeTcpRttVariation, labels, window.rtt_variation);
      add_histogram(profile::kTypeTcpConnect, labels, window.connect);
      const auto add_counter = [&](std::string_view type, uint64_t value) {
        builder.Counter(type, labels, work.start_ns, work.duration_ns, value);
      };
      const auto add_cause = [&](std::string_view type, std::string_view cause, uint64_t value) {
        if (value == 0) return;
        builder.Counter(type, labels.With(profile::kLabelCause, cause), work.start_ns, work.duration_ns, value);
      };
      for (size_t i = 0; i < kernel::kRetransmitCauses; ++i) {
        add_cause(profile::kTypeTcpRetransmits, RetransmitCauseName(static_cast<kernel::RetransmitCause>(i)),
                  window.retransmits[i]);
      }
      add_cause(profile::kTypeTcpResets, "sent", window.resets_sent);
      add_cause(profile::kTypeTcpResets, "received", window.resets_received);
      add_cause(profile::kTypeTcpZeroWindows, "sent", window.zero_windows_sent);
      add_cause(profile::kTypeTcpZeroWindows, "received", window.zero_windows_received);
      for (size_t i = 0; i < kernel::kTcpLimits; ++i) {
        add_cause(profile::kTypeTcpLimited, TcpLimitName(static_cast<kernel::TcpLimit>(i)), window.limited_ns[i]);
      }
      add_counter(profile::kTypeTcpBytesSent, window.bytes_sent);
      add_counter(profile::kTypeTcpBytesReceived, window.bytes_received);
      add_counter(profile::kTypeTcpConnections, window.opened);
      add_counter(profile::kTypeTcpConnectionsFound, window.found);
      add_counter(profile::kTypeTcpConnectionsClosed, window.closed);
      add_counter(profile::kTypeTcpConnectFailures, window.failed);
    });
    if (!status.ok()) ReportProblem("tcp_latency", status);
  }
}

void Collector::AddAccounting(const Work& work, profile::Batch* batch) {
  BatchBuilder builder(batch);
  const profile::LabelSet node = profile::LabelSet().With(profile::kLabelNode, node_.name());
  const auto add = [&](std::string_view type, const profile::LabelSet& labels, uint64_t value) {
    builder.Counter(type, labels, work.start_ns, work.duration_ns, value);
  };
  // The increase of a total since it was last reported.
  const auto increase = [&](const std::string& what, uint64_t total) {
    uint64_t& before = reported_other_[what];
    return total - std::exchange(before, std::max(before, total));
  };

  kernel::SampleCounters counters;
  {
    const std::lock_guard lock(sampler_mutex_);
    if (sampler_ != nullptr) counters = sampler_->Counters();
    counters.taken += sampler_base_.taken;
    counters.delivered += sampler_base_.delivered;
    counters.dropped_ring_full += sampler_base_.dropped_ring_full;
    counters.dropped_scratch += sampler_base_.dropped_scratch;
    counters.dropped_malformed += sampler_base_.dropped_malformed;
    counters.dropped_lost += sampler_base_.dropped_lost;
  }
  // Delivered here means: in a batch. What the kernel delivered but no batch could carry is a drop of ours, and
  // what is still in a ring or an open window is counted as taken in the window that delivers it.
  const uint64_t ring_full = increase("ring full", counters.dropped_ring_full);
  const uint64_t scratch = increase("no scratch record", counters.dropped_scratch);
  const uint64_t malformed = increase("malformed record", counters.dropped_malformed);
  const uint64_t lost = increase("lost by the kernel", counters.dropped_lost);
  uint64_t delivered = 0;
  for (const RawWindow& window : work.windows) delivered += window.sample_count();
  if (options_.lost_samples) {
    for (const auto& [reason, total] : options_.lost_samples()) lost_batches_[reason] += increase(reason, total);
  }
  uint64_t not_sent = 0;
  for (const auto& [reason, count] : lost_batches_) not_sent += count;
  add(profile::kTypeSamplesTaken, node, delivered + ring_full + scratch + malformed + lost + not_sent);
  add(profile::kTypeSamplesDelivered, node, delivered);
  if (work.expected) add(profile::kTypeSamplesExpected, node, *work.expected);
  const auto dropped = [&](std::string_view reason, uint64_t count) {
    add(profile::kTypeSamplesDropped, node.With(profile::kLabelReason, reason), count);
  };
  dropped("ring full", ring_full);
  dropped("no scratch record", scratch);
  dropped("malformed record", malformed);
  dropped("lost by the kernel", lost);
  for (const auto& [reason, count] : lost_batches_) dropped(reason, count);
  lost_batches_.clear();

  const auto by_reason = [&](const char* type, const char* what) {
    return [&, type, what](std::string_view reason, uint64_t total) {
      add(type, node.With(profile::kLabelReason, reason), increase(StrFormat("%s %s", what, reason), total));
    };
  };
  if (syscalls_ != nullptr) {
    const kernel::SyscallCounters calls = syscalls_->Counters();
    const auto uncounted = by_reason("pyrometer_syscalls_uncounted", "syscalls");
    uncounted("lost", calls.lost);
    uncounted("no entry seen", calls.no_entry);
    uncounted("entry not remembered", calls.start_lost);
    uncounted("never returns", calls.never_returns);
    uncounted("outside of slices", calls.paused);
    uncounted("too long for a slice", calls_too_long_);
    add("pyrometer_syscalls_folded", node, increase("syscalls folded", calls.folded));
  }
  if (io_uring_ != nullptr) {
    const kernel::IoUringCounters requests = io_uring_->Counters();
    const auto unmeasured = by_reason("pyrometer_io_uring_unmeasured", "io_uring");
    unmeasured("asked for no completion", requests.silent);
    unmeasured("too many in flight", requests.untracked);
    unmeasured("end not seen", requests.unseen);
    unmeasured("submission not seen", requests.no_submission);
    unmeasured("completion of no known request", requests.further_unmatched);
    unmeasured("lost", requests.lost);
    add("pyrometer_io_uring_folded", node, increase("io_uring folded", requests.folded));
  }
  if (tcp_ != nullptr) {
    const kernel::TcpCounters packets = tcp_->Counters();
    add("pyrometer_tcp_updates_lost", node, increase("tcp lost", packets.lost + packets.storage_lost + packets.missed));
    add("pyrometer_tcp_updates_folded", node, increase("tcp folded", packets.folded));
    // Says which source was in use: one a window but where many packets come.
    add("pyrometer_tcp_polls", node, increase("tcp polls", packets.polls));
  }
  if (waits_ != nullptr) {
    const kernel::OffCpuCounters waits = waits_->Counters();
    add("pyrometer_waits_sampled", node, increase("waits sampled", waits.delivered));
    const auto left_out = by_reason("pyrometer_waits_lost", "waits");
    left_out("no slot", waits.dropped_slots);
    left_out("ring full", waits.dropped_ring);
    left_out("malformed record", waits.dropped_malformed);
    left_out("not counted", waits.lost);
    left_out("thread not remembered", waits.storage_lost);
    left_out("end not reported", waits.missed);
  }
  add("pyrometer_process_events_lost", node, increase("process events", node_.process_event_counters().lost));
  add(profile::kTypeAgentCpu, node, increase("agent cpu", ProcessCpuNs()));
  add(profile::kTypeAgentRss, node, ResidentBytes());
}

void Collector::WatchBudget() {
  const uint64_t cpu_ns = ProcessCpuNs();
  const double cores =
      static_cast<double>(cpu_ns - std::exchange(last_cpu_ns_, cpu_ns)) / static_cast<double>(options_.window_ns);
  if (options_.cpu_budget_cores <= 0 || sampler_ == nullptr) return;
  windows_over_budget_ = cores > options_.cpu_budget_cores ? windows_over_budget_ + 1 : 0;
  const uint32_t frequency = frequency_hz_.load();
  if (windows_over_budget_ < kWindowsOverBudget || frequency <= kLeastFrequencyHz) return;
  windows_over_budget_ = 0;
  frequency_hz_ = std::max(kLeastFrequencyHz, frequency / 2);
  lower_frequency_ = true;
  const std::lock_guard lock(mutex_);
  probes_["cpu_sampler"] = {
      "cpu_sampler", "degraded",
      StrFormat("frequency lowered from %d to %d Hz: the agent used %.2f cores, its budget is %.2f (--cpu-budget)",
                options_.frequency_hz, frequency_hz_.load(), cores, options_.cpu_budget_cores)};
}

void Collector::Stop() {
  if (!collect_thread_.joinable()) return;
  stopping_ = true;
  collect_thread_.join();
  name_thread_.join();
}

}  // namespace pyrometer::agent

#include "userspace/agent/collector.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/agent/batch_builder.h"
#include "userspace/agent/cpu_time.h"
#include "userspace/agent/descriptor_name.h"
#include "userspace/agent/tcp_sums.h"
#include "userspace/base/process_usage.h"
#include "userspace/base/strings.h"
#include "userspace/base/thread.h"
#include "userspace/kernel/call_arguments.h"
#include "userspace/kernel/cpus.h"

namespace pyrometer::agent {
namespace {

using std::chrono::milliseconds;

// How long the collecting thread waits for process events before it looks at the rings again. The sample ring
// holds two such intervals at least (SamplerOptions); perf maps of short processes want to be read soon.
constexpr milliseconds kPollInterval{50};
constexpr uint64_t kSampleBytes = 512;  // of 60 frames
constexpr uint64_t kMostRingBytes = 64 << 20;
// Samples reach a window up to two poll intervals after they were taken; a busy machine adds to that.
constexpr uint64_t kWindowGraceNs = 300 * kNsPerMs;
constexpr uint32_t kLeastFrequencyHz = 9;
constexpr int kWindowsOverBudget = 3;
constexpr int kNamingNice = 10;

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
      frequency_hz_(options.frequency_hz),
      accounting_(profile::LabelSet().With(profile::kLabelNode, node->name())) {}

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
    auto sampler = kernel::CpuSampler::Start(SamplerOptions(options_.frequency_hz));
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

kernel::CpuSampler::Options Collector::SamplerOptions(uint32_t frequency_hz) const {
  kernel::CpuSampler::Options sampling;
  sampling.frequency_hz = frequency_hz;
  sampling.target = options_.target;
  sampling.unwind = node_.unwind_maps();
  // On many CPUs at thousands of samples a second the usual ring would not last from one poll to the next.
  const auto cpus = kernel::OnlineCpus();
  const uint64_t between_polls = uint64_t{frequency_hz} * (cpus.ok() ? cpus->size() : 1) * kPollInterval.count() / 1000;
  sampling.ring_bytes = static_cast<uint32_t>(
      std::clamp<uint64_t>(2 * between_polls * kSampleBytes, sampling.ring_bytes, kMostRingBytes));
  return sampling;
}

void Collector::CollectLoop() {
  while (!stopping_.load()) {
    if (lower_frequency_.exchange(false) && sampler_ != nullptr) {
      auto slower = kernel::CpuSampler::Start(SamplerOptions(frequency_hz_.load()));
      if (slower.ok()) {
        (void)sampler_->Stop();
        (void)sampler_->Poll(milliseconds(0), [&](const kernel::CpuSample& sample) { track_->Collect(sample); });
        const std::lock_guard lock(sampler_mutex_);
        sampler_base_ += sampler_->Counters();
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
  Named named;
  if (node_.unwinding() != nullptr) {
    for (const RawWindow& window : work.windows) node_.unwinding()->Used(window.binaries());
    for (const auto& [session, window] : work.session_windows) node_.unwinding()->Used(window.binaries());
  }
  for (const RawWindow& window : work.windows) AddWindow(window, "", &named, builder, &batch);
  for (const auto& [session, window] : work.session_windows) AddWindow(window, session, &named, builder, &batch);
  if (work.drain) {
    AddSums(work, builder);
    AddAccounting(work, named, builder);
    WatchBudget();
  }
  Deliver(std::move(batch), std::move(work.finished));
}

void Collector::AddWindow(const RawWindow& window, const std::string& session, Named* named, BatchBuilder& builder,
                          profile::Batch* batch) {
  const std::vector<profile::StackId> stacks = node_.naming().Name(window, &batch->dictionary, &named->names);
  SamplesBySeries samples;
  for (const auto& [group, sums_by_stack] : window.samples()) {
    profile::LabelSet labels = node_.LabelsOf(group.cgroup_id, group.cgroup_v1_id, group.comm);
    if (!session.empty()) labels = labels.With(profile::kLabelSession, session);
    if (!group.cause.empty()) labels = labels.With(profile::kLabelCause, group.cause);
    const std::string type(group.type.empty() ? profile::kTypeCpu : group.type);
    auto& into = samples[profile::SeriesKey{type, std::move(labels)}];
    for (const auto& [stack, sums] : sums_by_stack) into[stacks[stack]].Add(sums);
  }
  AddProfilePoints(window, samples, builder, batch);
  for (const auto& [reason, count] : window.stops()) named->stops[reason] += count;
  for (const auto& [name, count] : window.means()) named->means[name] += count;

  // Their histogram comes with the sums.
  const int64_t offset_ns = MonotonicToUnixOffsetNs();
  for (const auto& [key, exemplars] : window.exemplars()) {
    profile::HistogramPoint& point =
        builder.Histogram(profile::kTypeSyscallLatency,
                          node_.LabelsOf(key.cgroup_id, key.cgroup_v1_id, "").With(profile::kLabelSyscall, key.call),
                          window.start_ns(), window.duration_ns());
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
  }
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
    accounting_.Lost("spool not writable", waiting_.front().batch.SampleTotal());
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

void Collector::AddSums(const Work& work, BatchBuilder& builder) {
  const auto add_call = [&](const profile::LabelSet& labels, const kernel::LatencyHistogram& latency,
                            const std::vector<kernel::SyscallError>& errors) {
    profile::HistogramPoint& point =
        builder.Histogram(profile::kTypeSyscallLatency, labels, work.start_ns, work.duration_ns);
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
  for (const auto& [key, ages] : work.open_calls) {
    const auto& [cgroup_id, cgroup_v1_id, name, cause] = key;
    profile::LabelSet labels = node_.LabelsOf(cgroup_id, cgroup_v1_id, "").With(profile::kLabelSyscall, name);
    if (!cause.empty()) labels = labels.With(profile::kLabelCause, cause);
    builder.Histogram(profile::kTypeSyscallOpen, labels, work.start_ns, work.duration_ns).histogram.Merge(ages);
  }
  if (waits_ != nullptr) {
    const Status status = waits_->AddSums(work.start_ns, work.duration_ns, builder);
    if (!status.ok()) ReportProblem("off_cpu", status);
  }
  if (tcp_ != nullptr) {
    const Status status = AddTcpSums(*tcp_, node_, work.start_ns, work.duration_ns, builder);
    if (!status.ok()) ReportProblem("tcp_latency", status);
  }
}

void Collector::AddAccounting(const Work& work, const Named& named, BatchBuilder& builder) {
  const Accounting::Window window = {builder, work.start_ns, work.duration_ns};
  kernel::SampleCounters samplers;
  {
    const std::lock_guard lock(sampler_mutex_);
    samplers = sampler_base_;
    if (sampler_ != nullptr) samplers += sampler_->Counters();
  }
  uint64_t delivered = 0;
  for (const RawWindow& sampled : work.windows) delivered += sampled.sample_count();
  if (options_.lost_samples) accounting_.LostTotals(options_.lost_samples());
  accounting_.AddSamples(window, samplers, {.delivered = delivered, .expected = work.expected});
  if (syscalls_ != nullptr) accounting_.AddSyscalls(window, syscalls_->Counters(), calls_too_long_);
  if (io_uring_ != nullptr) accounting_.AddIoUring(window, io_uring_->Counters());
  if (tcp_ != nullptr) accounting_.AddTcp(window, tcp_->Counters());
  if (waits_ != nullptr) accounting_.AddWaits(window, waits_->Counters());
  accounting_.AddAgent(window, node_.process_event_counters().lost, ProcessCpuNs(), ResidentBytes());
  for (const auto& [reason, count] : named.stops) accounting_.Add(window, profile::kTypeStackStops, reason, count);
  for (const auto& [name, count] : named.means) accounting_.Add(window, profile::kTypeStackMeans, name, count);
  accounting_.Add(window, profile::kTypeFrames, "", named.names.frames);
  for (const auto& [reason, count] : named.names.misses) {
    accounting_.Add(window, profile::kTypeSymbolMisses, reason, count);
  }
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

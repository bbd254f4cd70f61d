// Collects every signal of this machine in windows of 10 s and hands each finished window, named, to
// a sink: the life of a sample from ring buffer to batch (ARCHITECTURE.md, steps 3 to 5).
//
//   ASSIGN_OR_RETURN(auto collector, Collector::Start(options, node, sink));
//   collector->StartSession(spec);   // an own sampler beside the always-on one
//   collector->Stop();               // flushes what is open
//
// Threads:
//   "pyro-collect"  polls rings: samples, process events, slow calls; resolves addresses. Never blocks on
//                   files or names, so that no ring overflows while a large binary is read.
//   "pyro-name"     takes closed windows, drains the sums of system calls and TCP, names frames and
//                   calls the sink. At nice 10: it must not compete with what it measures.
//   (and those of the probes: "pyro-tcp" of tcp_latency.h)
// Others talk to them through the methods here. The sink is called from pyro-name only.
//
// A probe that this kernel refuses is left out with its reason in Probes(); the others go on. Only
// when none runs does Start fail.
//
// Budget: when this process's own CPU time stays above `cpu_budget_cores` for three windows, the always-on
// frequency is halved (never below 9 Hz), and Probes() says so; it does not rise again by itself. What timing system
// calls costs those who make them has a budget of its own, `syscall_budget_cores`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "userspace/agent/accounting.h"
#include "userspace/agent/batch_builder.h"
#include "userspace/agent/duty_cycle.h"
#include "userspace/agent/node.h"
#include "userspace/agent/sample_track.h"
#include "userspace/agent/session.h"
#include "userspace/agent/wait_track.h"
#include "userspace/kernel/cpu_sampler.h"
#include "userspace/kernel/io_uring_latency.h"
#include "userspace/kernel/syscall_latency.h"
#include "userspace/kernel/tcp_latency.h"
#include "userspace/profile/batch.h"

namespace pyrometer::agent {

struct ProbeReport {
  std::string name;   // "cpu_sampler", "syscall_latency", "io_uring_latency", "tcp_latency", "off_cpu", …
  std::string state;  // "ok", "degraded", "off": it should run and does not, "unused": nobody asked for it
  std::string reason;
  // It should work and does not, or not wholly.
  bool Limited() const { return state == "degraded" || state == "off"; }
};

// Windows kept in memory while the sink fails; then the oldest is dropped and its samples counted.
inline constexpr size_t kMaxWaitingBatches = 12;

class Collector {
 public:
  struct Options {
    uint32_t frequency_hz = 99;
    bool cpu = true;
    bool syscalls = true;
    bool tcp = true;
    bool waits = false;  // off-CPU time and the split of system calls: costs about 1 µs per switch of a thread
    kernel::SampleTarget target;  // of the always-on sampler; default: everything
    uint64_t window_ns = 10 * kNsPerSecond;
    // Samples lost behind the sink since the start, by reason (a full spool, a refused batch): they are reported
    // as drops. May be null.
    std::function<std::map<std::string, uint64_t>()> lost_samples;
    double cpu_budget_cores = 0.25;  // 0 = no budget; measured at 99 Hz: tests/bench/overhead
    // CPU time that timing system calls may cost the calling threads, all CPUs together; beyond it they are timed part
    // of the time and the rest is estimated (duty_cycle.h). 0: all are counted, whatever it costs.
    double syscall_budget_cores = 0;
  };
  // Takes a finished window, gives it agent_id and sequence, and returns the latter. On failure (disk
  // full) the batch is kept and offered again with the next window, at most kMaxWaitingBatches of them.
  using Sink = std::function<StatusOr<uint64_t>(profile::Batch&)>;
  using SessionListener = std::function<void(const SessionReport&)>;

  // `node` must outlive the collector. `on_session` may be null; called from pyro-name.
  static StatusOr<std::unique_ptr<Collector>> Start(const Options& options, Node* node, Sink sink,
                                                    SessionListener on_session);
  ~Collector();

  // Starts at once; the result comes by the listener, with the reason when it failed.
  Status StartSession(const SessionSpec& spec);
  // NOT_FOUND when it does not run.
  Status StopSession(const std::string& id);

  // Ends probes and flushes open windows and sessions to the sink. Idempotent.
  void Stop();

  std::vector<ProbeReport> Probes() const;
  uint32_t frequency_hz() const { return frequency_hz_.load(); }

 private:
  // Ages of what has not returned, by cgroup (id, v1 id), name, and what it waits for so far (WaitTrack::CauseOf).
  using OpenCalls = std::map<std::tuple<uint64_t, uint64_t, std::string, std::string>, profile::Histogram>;

  // Work for pyro-name: the windows of one moment, to be sent as one batch.
  struct Work {
    std::vector<RawWindow> windows;                                  // always-on
    std::vector<std::pair<std::string, RawWindow>> session_windows;  // (session id, window)
    std::vector<SessionReport> finished;
    bool drain = false;    // also take the sums of system calls and TCP
    int64_t start_ns = 0;  // of the window that the sums belong to
    uint64_t duration_ns = 0;
    std::optional<uint64_t> expected;  // samples, by the machine's CPU time; unset when only a part is sampled
    OpenCalls open_calls;              // their ages when the windows ended
  };
  // How the stacks of one Work were unwound and named.
  struct Named {
    std::map<std::string, uint64_t> stops, means;  // by reason
    NamingCounts names;
  };

  Collector(const Options& options, Node* node, Sink sink, SessionListener on_session);
  Status StartProbes();
  kernel::CpuSampler::Options SamplerOptions(uint32_t frequency_hz) const;
  void CollectLoop();
  void NameLoop();
  void PollSlowCalls(int64_t offset_ns);
  void PollWaits(int64_t offset_ns);
  std::optional<uint64_t> TakeExpected();
  OpenCalls TakeOpenCalls();
  void CutWindows(int64_t now_ns);
  void CutLastWindows(int64_t ended_ns, Work work);
  void Queue(Work work);
  void PollSessions(Work* work);
  void Process(Work work);
  void Deliver(profile::Batch batch, std::vector<SessionReport> finished);
  void AddWindow(const RawWindow& window, const std::string& session, Named* named, BatchBuilder& builder,
                 profile::Batch* batch);
  void AddSums(const Work& work, BatchBuilder& builder);
  void AddAccounting(const Work& work, const Named& named, BatchBuilder& builder);
  void WatchBudget();
  using AddCall = std::function<void(const profile::LabelSet&, const kernel::LatencyHistogram&,
                                     const std::vector<kernel::SyscallError>&)>;
  Status AddSystemCalls(const AddCall& add);
  void ReportProblem(const std::string& probe, const Status& status);

  const Options options_;
  Node& node_;
  const Sink sink_;
  const SessionListener on_session_;
  SampleResolver resolver_;

  mutable std::mutex mutex_;  // guards the next block
  std::map<std::string, ProbeReport> probes_;
  std::map<std::string, std::unique_ptr<Session>> sessions_;
  std::vector<std::unique_ptr<Session>> new_sessions_;

  std::atomic<uint32_t> frequency_hz_;
  std::atomic<bool> lower_frequency_{false};

  // pyro-collect's, after Start.
  std::unique_ptr<kernel::CpuSampler> sampler_;
  std::unique_ptr<SampleTrack> track_;
  std::unique_ptr<kernel::TcpLatency> tcp_;
  std::unique_ptr<kernel::SyscallLatency> syscalls_;  // PollExemplars and ReadOpenCalls there, Drain on pyro-name
  std::unique_ptr<DutyCycle> duty_;                   // null: all calls are timed; pyro-name's, but for its Stop
  std::unique_ptr<kernel::IoUringLatency> io_uring_;  // ReadOpen there, Drain on pyro-name
  std::unique_ptr<WaitTrack> waits_;                  // Poll there, AddSums on pyro-name
  int64_t window_start_ns_ = 0;
  std::optional<uint64_t> machine_cpu_ns_;  // when samples were last expected; unset when only a part is sampled

  // pyro-name's.
  kernel::SampleCounters sampler_base_;  // of samplers that a lower frequency replaced
  Accounting accounting_;
  struct Waiting {
    profile::Batch batch;
    std::vector<SessionReport> finished;
  };
  std::deque<Waiting> waiting_;
  uint64_t last_cpu_ns_ = 0;
  int windows_over_budget_ = 0;
  ProbeReport whole_syscalls_;   // of syscall_latency, when all calls are timed
  uint64_t calls_too_long_ = 0;  // for the slices that they were in

  std::mutex sampler_mutex_;  // sampler_ and sampler_base_ are replaced by pyro-collect, read by pyro-name
  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Work> queue_;
  bool queue_closed_ = false;

  std::atomic<bool> stopping_{false};
  std::thread collect_thread_;
  std::thread name_thread_;
};

}  // namespace pyrometer::agent

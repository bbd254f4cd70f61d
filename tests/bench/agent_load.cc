#include "tests/bench/agent_load.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "tests/bench/load_stream.h"
#include "userspace/base/strings.h"
#include "userspace/base/thread.h"
#include "userspace/rpc/credentials.h"

namespace pyrometer::bench {
namespace {

constexpr int kMaxConnections = 1000;
// As the agent's uplink does at first.
constexpr uint64_t kReconnectAfterNs = kNsPerSecond;
constexpr uint64_t kStallNs = 60 * kNsPerSecond;
constexpr uint64_t kReportNs = 60 * kNsPerSecond;

}  // namespace

std::string LoadResult::Latency(double share) const {
  if (latencies_ns.empty()) return "-";
  return FormatDurationNs(latencies_ns[static_cast<size_t>(share * static_cast<double>(latencies_ns.size() - 1))]);
}

// Of all workers.
struct AgentLoad::Shared {
  const LoadOptions& options;
  BatchSource& source;
  uint64_t began_ns = 0;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  std::atomic<bool> enough{false};  // no new batches
  std::atomic<uint64_t> batches{0}, samples{0}, reconnects{0};
  std::atomic<int> to_welcome{0}, to_end{0};
  std::atomic<uint64_t> all_welcomed_ns{0};  // a time; 0 = not yet
  std::mutex mutex;                          // guards the rest
  std::condition_variable changed;
  std::vector<uint64_t> latencies_ns;
  Status failed = OkStatus();

  void Fail(const Status& status) {
    const std::lock_guard lock(mutex);
    if (failed.ok()) failed = status;
    changed.notify_all();
  }
};

// Agents of some groups and the thread that sends for them.
class AgentLoad::Worker {
 public:
  explicit Worker(Shared* shared) : shared_(*shared) {}
  void Add(int agent);
  void Run();
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  // Any thread: there is something to do for it.
  void Enqueue(Agent* agent) {
    const std::lock_guard lock(mutex_);
    ready_.push_back(agent);
    changed_.notify_one();
  }
  // Of this worker's own thread.
  void EnqueueAt(uint64_t time_ns, Agent* agent) { later_.emplace(time_ns, agent); }
  Shared& shared() { return shared_; }

 private:
  Shared& shared_;
  std::multimap<uint64_t, Agent*> later_;  // by when
  std::mutex mutex_;                       // guards the three after it
  std::condition_variable changed_;
  std::deque<Agent*> ready_;
  bool stopping_ = false;
  std::vector<std::unique_ptr<Agent>> agents_;  // last: their streams call back until they are gone
};

class AgentLoad::Agent : public LoadStream::Listener {
 public:
  Agent(Worker* worker, int number) : worker_(*worker), shared_(worker->shared()), number_(number) {}

  void Connect() {
    const auto& channels = shared_.channels;
    stream_ = std::make_unique<LoadStream>(channels[static_cast<size_t>(number_) % channels.size()],
                                           shared_.source.Hello(number_), this);
  }

  // What can be done now: one batch, the end, or a new connection. Of the worker's thread.
  void Work() {
    std::unique_lock lock(mutex_);
    queued_ = false;
    if (ended_) {
      lock.unlock();
      AfterEnd();
      return;
    }
    if (!welcomed_ || writing_ || finishing_) return;
    if (next_ > shared_.source.Last() || shared_.enough) {
      if (!on_the_way_.empty()) return;
      finishing_ = true;
      lock.unlock();
      stream_->Finish();
      return;
    }
    if (on_the_way_.size() >= static_cast<size_t>(shared_.options.in_flight)) return;
    if (const uint64_t due_ns = shared_.began_ns + shared_.source.DueNs(next_); due_ns > MonotonicNowNs()) {
      queued_ = true;
      worker_.EnqueueAt(due_ns, this);
      return;
    }
    const uint64_t sequence = next_++;
    writing_ = true;
    lock.unlock();
    const profile::Batch& batch = shared_.source.Get(number_, sequence);
    lock.lock();
    on_the_way_.push_back({sequence, MonotonicNowNs(), batch.SampleTotal()});
    lock.unlock();
    if (const Status sent = stream_->Send(batch); !sent.ok()) shared_.Fail(sent);
  }

  void Welcomed(const rpc::Welcome& welcome) override {
    {
      const std::lock_guard lock(mutex_);
      welcomed_ = true;
      next_ = welcome.last_sequence + 1;
    }
    if (!was_welcomed_.exchange(true) && --shared_.to_welcome == 0) shared_.all_welcomed_ns = MonotonicNowNs();
    Wake();
  }
  void Written() override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
    }
    Wake();
  }
  void Acknowledged(uint64_t sequence) override {
    const uint64_t now = MonotonicNowNs();
    std::vector<uint64_t> latencies;
    {
      const std::lock_guard lock(mutex_);
      for (; !on_the_way_.empty() && on_the_way_.front().sequence <= sequence; on_the_way_.pop_front()) {
        latencies.push_back(now - on_the_way_.front().sent_ns);
        shared_.samples += on_the_way_.front().samples;
      }
    }
    shared_.batches += latencies.size();
    {
      const std::lock_guard lock(shared_.mutex);
      shared_.latencies_ns.insert(shared_.latencies_ns.end(), latencies.begin(), latencies.end());
    }
    Wake();
  }
  void Ended(const Status& status) override {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      end_ = status;
    }
    Wake();
  }

 private:
  struct Sent {
    uint64_t sequence = 0, sent_ns = 0, samples = 0;
  };

  void Wake() {
    {
      const std::lock_guard lock(mutex_);
      if (queued_) return;
      queued_ = true;
    }
    worker_.Enqueue(this);
  }

  void AfterEnd() {
    stream_.reset();
    const StatusCode code = end_.code();
    if (finishing_ && end_.ok()) {
      if (--shared_.to_end == 0) {
        const std::lock_guard lock(shared_.mutex);
        shared_.changed.notify_all();
      }
      return;
    }
    // A real agent would come again too; what is not acknowledged it sends again.
    if (end_.ok() || code == StatusCode::kUnavailable || code == StatusCode::kResourceExhausted) {
      if (reconnecting_) {
        reconnecting_ = false;
        ended_ = welcomed_ = finishing_ = false;
        writing_ = true;
        on_the_way_.clear();
        Connect();
        return;
      }
      if (shared_.reconnects++ == 0) std::fprintf(stderr, "an agent connects again: %s\n", end_.ToString().c_str());
      reconnecting_ = true;
      queued_ = true;
      worker_.EnqueueAt(MonotonicNowNs() + kReconnectAfterNs, this);
      return;
    }
    shared_.Fail(end_);
  }

  Worker& worker_;
  Shared& shared_;
  const int number_;
  bool reconnecting_ = false;  // the worker's
  std::atomic<bool> was_welcomed_{false};
  std::mutex mutex_;  // guards the rest while there is a stream
  bool queued_ = false;
  bool welcomed_ = false;
  bool writing_ = true;  // the Hello at first
  bool finishing_ = false;
  bool ended_ = false;
  Status end_ = OkStatus();
  uint64_t next_ = 1;
  std::deque<Sent> on_the_way_;
  std::unique_ptr<LoadStream> stream_;  // the worker's; last, as it calls back until it is gone
};

void AgentLoad::Worker::Add(int agent) { agents_.push_back(std::make_unique<Agent>(this, agent)); }

void AgentLoad::Worker::Run() {
  NameThisThread("load-worker");
  for (const auto& agent : agents_) agent->Connect();
  for (;;) {
    Agent* agent = nullptr;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(100), [&] { return stopping_ || !ready_.empty(); });
      if (stopping_) return;
      if (!ready_.empty()) {
        agent = ready_.front();
        ready_.pop_front();
      }
    }
    if (agent != nullptr) agent->Work();
    while (!later_.empty() && later_.begin()->first <= MonotonicNowNs()) {
      agent = later_.begin()->second;
      later_.erase(later_.begin());
      agent->Work();
    }
  }
}

AgentLoad::AgentLoad(LoadOptions options, BatchSource* source) : options_(std::move(options)), source_(*source) {}
AgentLoad::~AgentLoad() = default;

StatusOr<LoadResult> AgentLoad::Run(const std::function<void(const LoadResult&)>& every_minute) {
  Shared shared{.options = options_, .source = source_};
  const int connections = options_.connections > 0 ? options_.connections : std::min(options_.agents, kMaxConnections);
  for (int i = 0; i < std::min(connections, options_.agents); ++i) {
    ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, rpc::Dial(options_.target, {}));
    shared.channels.push_back(std::move(channel));
  }
  shared.to_welcome = shared.to_end = options_.agents;
  std::vector<std::unique_ptr<Worker>> workers;
  std::map<int, Worker*> of_group;
  for (int agent = 0; agent < options_.agents; ++agent) {
    Worker*& worker = of_group[source_.Group(agent)];
    if (worker == nullptr) {
      if (workers.size() < static_cast<size_t>(options_.threads)) workers.push_back(std::make_unique<Worker>(&shared));
      worker = workers[(of_group.size() - 1) % static_cast<size_t>(options_.threads)].get();
    }
    worker->Add(agent);
  }
  const uint64_t began = shared.began_ns = MonotonicNowNs();
  std::vector<std::thread> threads;
  for (const auto& worker : workers) threads.emplace_back([&worker] { worker->Run(); });

  std::vector<uint64_t> all_latencies;
  LoadResult before;
  uint64_t moved_ns = began, moved_at = 0;
  uint64_t reported_ns = began;
  const auto snapshot = [&](LoadResult* result) {
    result->batches = shared.batches;
    result->samples = shared.samples;
    result->reconnects = shared.reconnects;
    result->seconds = static_cast<double>(MonotonicNowNs() - began) / 1e9;
    const uint64_t welcomed = shared.all_welcomed_ns;
    result->welcomed_ns = welcomed == 0 ? 0 : welcomed - began;
  };
  const auto report = [&](bool tell) {
    LoadResult now;
    snapshot(&now);
    LoadResult minute = now;
    minute.batches -= before.batches;
    minute.samples -= before.samples;
    minute.reconnects -= before.reconnects;
    minute.seconds -= before.seconds;
    {
      const std::lock_guard lock(shared.mutex);
      minute.latencies_ns = std::move(shared.latencies_ns);
      shared.latencies_ns.clear();
    }
    all_latencies.insert(all_latencies.end(), minute.latencies_ns.begin(), minute.latencies_ns.end());
    std::sort(minute.latencies_ns.begin(), minute.latencies_ns.end());
    if (tell && every_minute) every_minute(minute);
    before = std::move(now);
  };
  Status failed = OkStatus();
  // Who replays at a certain speed may have nothing to send for long.
  const uint64_t patience_ns = kStallNs + (source_.Last() == UINT64_MAX ? 0 : source_.DueNs(source_.Last()));
  for (;;) {
    {
      std::unique_lock lock(shared.mutex);
      shared.changed.wait_for(lock, std::chrono::milliseconds(100),
                              [&] { return shared.to_end == 0 || !shared.failed.ok(); });
      failed = shared.failed;
    }
    if (!failed.ok() || shared.to_end == 0) break;
    const uint64_t now = MonotonicNowNs();
    if (options_.seconds > 0 && now - began > options_.seconds * kNsPerSecond) shared.enough = true;
    if (now - reported_ns >= kReportNs) {
      reported_ns += kReportNs;
      report(true);
    }
    // The number of agents that still run is part of it: closing is progress too.
    const uint64_t at = shared.batches + static_cast<uint64_t>(2 * options_.agents - shared.to_end - shared.to_welcome);
    if (at != moved_at) {
      moved_at = at;
      moved_ns = now;
    }
    if (now - moved_ns > patience_ns) {
      failed = DeadlineExceededError(StrFormat(
          "nothing moved for %s: %d batches are acknowledged; of %d agents %d never were welcomed, %d have not "
          "ended",
          FormatDurationNs(patience_ns), shared.batches.load(), options_.agents, shared.to_welcome.load(),
          shared.to_end.load()));
      break;
    }
  }
  for (const auto& worker : workers) worker->Stop();
  for (std::thread& thread : threads) thread.join();
  if (!failed.ok()) return failed;
  report(false);
  LoadResult result;
  snapshot(&result);
  result.latencies_ns = std::move(all_latencies);
  std::sort(result.latencies_ns.begin(), result.latencies_ns.end());
  return result;
}

}  // namespace pyrometer::bench

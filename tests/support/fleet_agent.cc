// A node of the generator's fleet (fleet.h) as a process that can be killed: its windows go through the agent's own
// spool and uplink to a real store.
//
//   fleet_agent run --store HOST:PORT --spool DIR --node 3 [FLEET] [--windows N] [--pace MS] [--stop FILE]
//     Makes the windows of its node from where its spool says it is, each on disk before the next is made. Ends when
//     there are N of them, or once FILE exists, and everything is acknowledged; prints "windows N samples S". Killed
//     and started again it goes on: the same windows with the same numbers.
//   fleet_agent expect --node 3 --windows N [FLEET]
//     What those windows hold: lines "service pod start-ms samples value".
//   fleet_agent flood --store HOST:PORT --stacks N [--tenant T] [--seed S] [--depth 20]
//     N stacks of random frames, none of them twice, as fast as the store takes them; prints "stacks N seconds S".
//   fleet_agent probe --store HOST:PORT [FLEET] [--seconds S]
//     One small window after another, each waited for: prints "acks N p50 NS p95 NS p99 NS".
//
// FLEET: --services --pods --nodes --samples --stacks-per-service --window-ms --start-ms --seed --tenant
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fleet.h"
#include "userspace/agent/spool.h"
#include "userspace/agent/uplink.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"
#include "userspace/rpc/ingest_client.h"

namespace pyrometer {
namespace {

// Enough to bridge a killed store; more would only be made for nothing.
constexpr uint64_t kMaxPending = 64;

struct Arguments {
  std::string mode, store, spool, stop;
  int node = 0;
  uint64_t windows = UINT64_MAX;
  uint64_t pace_ms = 0;
  uint64_t stacks = 0;
  uint64_t depth = 20;
  uint64_t seconds = 10;
  testing::FleetOptions fleet;
};

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "fleet_agent: %s\n", message.c_str());
  std::exit(2);
}

void Must(const Status& status) {
  if (!status.ok()) Die(status.ToString());
}

Arguments Parse(int argc, char** argv) {
  if (argc < 2) Die("which mode? See the head of tests/support/fleet_agent.cc");
  Arguments a;
  a.mode = argv[1];
  const std::map<std::string_view, std::string*> texts = {
      {"--store", &a.store}, {"--spool", &a.spool}, {"--stop", &a.stop}, {"--tenant", &a.fleet.tenant}};
  const std::map<std::string_view, int*> numbers = {
      {"--node", &a.node},         {"--services", &a.fleet.services}, {"--pods", &a.fleet.pods},
      {"--nodes", &a.fleet.nodes}, {"--samples", &a.fleet.samples},   {"--stacks-per-service", &a.fleet.stacks}};
  const std::map<std::string_view, uint64_t*> large = {{"--windows", &a.windows}, {"--pace", &a.pace_ms},
                                                       {"--stacks", &a.stacks},   {"--depth", &a.depth},
                                                       {"--seconds", &a.seconds}, {"--seed", &a.fleet.seed}};
  for (int i = 2; i < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (i + 1 == argc) Die(std::string(flag) + " wants a value");
    if (const auto text = texts.find(flag); text != texts.end()) {
      *text->second = argv[i + 1];
      continue;
    }
    const std::optional<uint64_t> number = ParseUint64(argv[i + 1]);
    if (!number) Die(StrFormat("%s: '%s' is not a number", flag, argv[i + 1]));
    if (const auto entry = numbers.find(flag); entry != numbers.end()) {
      *entry->second = static_cast<int>(*number);
    } else if (const auto more = large.find(flag); more != large.end()) {
      *more->second = *number;
    } else if (flag == "--window-ms") {
      a.fleet.window_ns = *number * kNsPerMs;
    } else if (flag == "--start-ms") {
      a.fleet.start_ns = static_cast<int64_t>(*number * kNsPerMs);
    } else {
      Die(StrFormat("unknown flag %s", flag));
    }
  }
  return a;
}

int Run(const Arguments& a) {
  const testing::Fleet fleet(a.fleet);
  auto opened = agent::Spool::Open(a.spool, {});
  Must(opened.status());
  agent::Spool& spool = **opened;
  rpc::Credentials credentials;
  credentials.tenant = a.fleet.tenant;
  const auto uplink = agent::Uplink::Start(
      {.store = a.store, .credentials = credentials, .channel = nullptr, .node = StrFormat("node-%d", a.node)}, &spool,
      {.status = [] { return rpc::NodeStatus{}; },
       .start_session = [](const rpc::SessionSpec&) {},
       .stop_session = [](const std::string&) {},
       .log = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }});
  uint64_t next = spool.next_sequence();
  for (; next <= a.windows && (a.stop.empty() || !std::filesystem::exists(a.stop)); ++next) {
    while (spool.counters().pending_batches >= kMaxPending) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    profile::Batch batch = fleet.Window(a.node, static_cast<int>(next - 1));
    batch.agent_id = spool.agent_id();
    batch.sequence = next;
    auto bytes = rpc::SerializeBatch(batch);
    Must(bytes.status());
    Must(spool.Append(next, *bytes, batch.SampleTotal()));
    uplink->Notify();
    if (a.pace_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(a.pace_ms));
  }
  while (!uplink->Flush(kNsPerSecond)) {
  }
  const agent::Uplink::Counters counters = uplink->counters();
  const agent::Spool::Counters spooled = spool.counters();
  if (counters.rejected_batches != 0 || spooled.dropped_batches != 0 || spooled.corrupt_batches != 0) {
    Die(StrFormat("%d batches refused, %d dropped, %d damaged", counters.rejected_batches, spooled.dropped_batches,
                  spooled.corrupt_batches));
  }
  std::printf("windows %llu samples %llu\n", static_cast<unsigned long long>(next - 1),
              static_cast<unsigned long long>((next - 1) * fleet.SamplesPerBatch(a.node)));
  return 0;
}

int Expect(const Arguments& a) {
  const testing::Fleet fleet(a.fleet);
  for (uint64_t window = 0; window < a.windows; ++window) {
    const profile::Batch batch = fleet.Window(a.node, static_cast<int>(window));
    for (const profile::ProfilePoint& point : batch.profiles) {
      const profile::LabelSet& labels = batch.series[point.series].labels;
      uint64_t samples = 0, value = 0;
      for (const profile::ProfilePoint::Sample& sample : point.samples) {
        samples += sample.count;
        value += sample.value;
      }
      std::printf("%s %s %lld %llu %llu\n", std::string(labels.Get(profile::kLabelService)).c_str(),
                  std::string(labels.Get("pod")).c_str(), static_cast<long long>(point.time_ns) / 1'000'000,
                  static_cast<unsigned long long>(samples), static_cast<unsigned long long>(value));
    }
  }
  return 0;
}

// Sends batches one by one with at most `in_flight` of them unacknowledged.
class Sender {
 public:
  Sender(const Arguments& a, std::string agent_id, size_t in_flight) : in_flight_(in_flight) {
    auto client = rpc::IngestClient::Connect(
        a.store, {}, {.agent_id = std::move(agent_id), .node = "sender", .tenant = a.fleet.tenant},
        {.ack = [this](const rpc::Ack& ack) { Acknowledged(ack.sequence); },
         .reject = [](uint64_t, const std::string& message) { Die("refused: " + message); },
         .closed = [](const Status& status) { Die(status.ToString()); }});
    Must(client.status());
    client_ = *std::move(client);
  }
  void Send(const profile::Batch& batch) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return sent_.size() < in_flight_; });
      sent_.emplace(batch.sequence, MonotonicNowNs());
    }
    Must(client_->Send(batch));
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return sent_.empty(); });
  }
  // Of all that were acknowledged.
  std::vector<uint64_t> LatenciesNs() {
    const std::lock_guard lock(mutex_);
    return latencies_ns_;
  }
  void Close() { client_->Close(); }

 private:
  void Acknowledged(uint64_t sequence) {
    const std::lock_guard lock(mutex_);
    const uint64_t now = MonotonicNowNs();
    while (!sent_.empty() && sent_.begin()->first <= sequence) {
      latencies_ns_.push_back(now - sent_.begin()->second);
      sent_.erase(sent_.begin());
    }
    changed_.notify_all();
  }
  const size_t in_flight_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, uint64_t> sent_;  // sequence -> when
  std::vector<uint64_t> latencies_ns_;
  std::unique_ptr<rpc::IngestClient> client_;
};

int Flood(const Arguments& a) {
  constexpr uint64_t kStacksPerBatch = 5000;
  constexpr uint64_t kFrames = 100'000;
  Sender sender(a, StrFormat("flood-%d", a.fleet.seed), 4);
  std::mt19937_64 random(a.fleet.seed);
  const uint64_t before = MonotonicNowNs();
  for (uint64_t done = 0, sequence = 1; done < a.stacks; done += kStacksPerBatch, ++sequence) {
    profile::Batch batch;
    batch.agent_id = StrFormat("flood-%d", a.fleet.seed);
    batch.node = "sender";
    batch.tenant = a.fleet.tenant;
    batch.sequence = sequence;
    batch.series.push_back(
        {std::string(profile::kTypeCpu), profile::LabelSet::Make({{"node", "sender"}, {"service", "flood"}}).value()});
    profile::Dictionary& d = batch.dictionary;
    const profile::MappingId mapping =
        d.InternMapping({.build_id = d.InternString("f100d"), .file = d.InternString("/bin/flood")});
    profile::ProfilePoint point{.series = 0,
                                .time_ns = a.fleet.start_ns + static_cast<int64_t>(sequence * a.fleet.window_ns),
                                .duration_ns = a.fleet.window_ns,
                                .period_ns = testing::Fleet::kPeriodNs};
    for (uint64_t i = 0; i < std::min(kStacksPerBatch, a.stacks - done); ++i) {
      profile::StackId stack = profile::kEmptyStack;
      for (uint64_t depth = 0; depth < a.depth; ++depth) {
        const uint64_t which = random() % kFrames;
        const profile::FunctionId function = d.InternFunction({.name = d.InternString(StrFormat("random_%d", which))});
        stack = d.InternStack(stack, d.InternFrame({.kind = profile::FrameKind::kNative,
                                                    .mapping = mapping,
                                                    .address = ElfAddress(0x1000 + which * 16),
                                                    .lines = {{.function = function}}}));
      }
      point.samples.push_back({stack, 1, testing::Fleet::kPeriodNs});
    }
    batch.profiles.push_back(std::move(point));
    sender.Send(batch);
  }
  sender.Wait();
  sender.Close();
  std::printf("stacks %llu seconds %.1f\n", static_cast<unsigned long long>(a.stacks),
              static_cast<double>(MonotonicNowNs() - before) / 1e9);
  return 0;
}

int Probe(const Arguments& a) {
  const testing::Fleet fleet(a.fleet);
  const std::string agent_id = StrFormat("probe-%d-%d", a.fleet.seed, UnixNowNs());
  Sender sender(a, agent_id, 1);
  const uint64_t end = MonotonicNowNs() + a.seconds * kNsPerSecond;
  for (int window = 0; MonotonicNowNs() < end; ++window) {
    profile::Batch batch = fleet.Window(a.node, window);
    batch.agent_id = agent_id;
    batch.sequence = static_cast<uint64_t>(window) + 1;
    sender.Send(batch);
    sender.Wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(a.pace_ms));
  }
  sender.Close();
  std::vector<uint64_t> latencies = sender.LatenciesNs();
  if (latencies.empty()) Die("nothing was acknowledged");
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return static_cast<unsigned long long>(
        latencies[static_cast<size_t>(share * static_cast<double>(latencies.size() - 1))]);
  };
  std::printf("acks %zu p50 %llu p95 %llu p99 %llu\n", latencies.size(), at(0.5), at(0.95), at(0.99));
  return 0;
}

}  // namespace
}  // namespace pyrometer

int main(int argc, char** argv) {
  using namespace pyrometer;
  const Arguments a = Parse(argc, argv);
  if (a.mode == "run") return Run(a);
  if (a.mode == "expect") return Expect(a);
  if (a.mode == "flood") return Flood(a);
  if (a.mode == "probe") return Probe(a);
  Die("no mode '" + a.mode + "'");
}

// Load on a store through its real gRPC face: agents of the generator's fleet (tests/support/fleet.h) over the
// loopback, each batch acknowledged when it is synced.
//
//   build/bench/tests/bench/store_load [--agents 8] [--pods 50] [--samples 1000] [--stacks 20000] [--batches 30]
//                                      [--in-flight 4] [--memory MIB] [--data DIR]
//
// Each agent sends --batches windows of --pods pods × --samples raw samples, of one service each, --in-flight of them
// on their way at most. What is sent is made beforehand, so that the clients cost only encoding. Then everything is
// asked back and must agree to the last sample. Prints rates, the acknowledgements' distribution, CPU of process (both
// ends) and memory.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fleet.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/ingest_client.h"
#include "userspace/server/server.h"

namespace pyrometer {
namespace {

struct Arguments {
  int agents = 8;
  int batches = 30;
  int in_flight = 4;
  uint64_t memory_mib = 1024;
  std::string data;
  testing::FleetOptions fleet{.services = 8, .pods = 50, .nodes = 8, .window_ns = 10 * kNsPerSecond};
};

Arguments Parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    const int number = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--agents") {
      a.agents = number;
    } else if (flag == "--pods") {
      a.fleet.pods = number;
    } else if (flag == "--samples") {
      a.fleet.samples = number;
    } else if (flag == "--stacks") {
      a.fleet.stacks = number;
    } else if (flag == "--batches") {
      a.batches = number;
    } else if (flag == "--in-flight") {
      a.in_flight = number;
    } else if (flag == "--memory") {
      a.memory_mib = static_cast<uint64_t>(number);
    } else if (flag == "--data") {
      a.data = argv[i + 1];
    } else {
      std::fprintf(stderr, "unknown argument %s; see the head of tests/bench/store_load.cc\n", argv[i]);
      std::exit(2);
    }
  }
  a.fleet.services = a.fleet.nodes = a.agents;
  return a;
}

void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// One simulated agent.
class Agent {
 public:
  Agent(const Arguments& arguments, std::vector<profile::Batch> batches)
      : arguments_(arguments), batches_(std::move(batches)), sent_ns_(batches_.size() + 2) {}

  void Run(const std::string& target) {
    auto client = rpc::IngestClient::Connect(
        target, {}, {.agent_id = batches_[0].agent_id, .node = batches_[0].node},
        {.ack = [this](const rpc::Ack& ack) { Acknowledged(ack.sequence); },
         .reject = [](uint64_t, const std::string& message) { Must(InvalidArgumentError(message)); },
         .closed = [](const Status& status) { Must(status); }});
    Must(client.status());
    for (const profile::Batch& batch : batches_) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return on_the_way_ < arguments_.in_flight; });
        ++on_the_way_;
        sent_ns_[batch.sequence] = MonotonicNowNs();
      }
      Must((*client)->Send(batch));
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return on_the_way_ == 0; });
    lock.unlock();
    (*client)->Close();
  }
  const std::vector<uint64_t>& latencies_ns() const { return latencies_ns_; }
  uint64_t samples() const {
    uint64_t total = 0;
    for (const profile::Batch& batch : batches_) total += batch.SampleTotal();
    return total;
  }

 private:
  void Acknowledged(uint64_t sequence) {
    const std::lock_guard lock(mutex_);
    latencies_ns_.push_back(MonotonicNowNs() - sent_ns_[sequence]);
    --on_the_way_;
    changed_.notify_one();
  }

  const Arguments& arguments_;
  const std::vector<profile::Batch> batches_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int on_the_way_ = 0;
  std::vector<uint64_t> sent_ns_;  // by sequence
  std::vector<uint64_t> latencies_ns_;
};

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

uint64_t ResidentBytes() {
  const StatusOr<std::string> text = ReadFile("/proc/self/statm", 256);
  unsigned long long pages = 0;
  if (!text.ok() || std::sscanf(text->c_str(), "%*u %llu", &pages) != 1) return 0;
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

int Main(int argc, char** argv) {
  const Arguments a = Parse(argc, argv);
  std::string folder = a.data;
  if (folder.empty()) {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-load-XXXXXX").string();
    folder = mkdtemp(pattern.data());
  }
  std::vector<std::unique_ptr<Agent>> agents;
  {
    const testing::Fleet fleet(a.fleet);
    for (int node = 0; node < a.agents; ++node) {
      std::vector<profile::Batch> batches;
      for (int window = 0; window < a.batches; ++window) batches.push_back(fleet.Window(node, window));
      agents.push_back(std::make_unique<Agent>(a, std::move(batches)));
    }
  }
  uint64_t samples = 0;
  for (const auto& agent : agents) samples += agent->samples();
  const uint64_t resident_before = ResidentBytes();

  store::StoreOptions options;
  options.memory_budget_bytes = (a.memory_mib << 20) * 5 / 8;
  options.limits.retention_ns = 0;
  options.now = [&] { return a.fleet.start_ns + static_cast<int64_t>(a.fleet.window_ns) * (a.batches + 1); };
  auto opened = store::Store::Open(folder, options);
  Must(opened.status());
  const std::unique_ptr<store::Store> store = *std::move(opened);
  const query::Engine engine(store.get());
  auto server = server::Server::Start({.grpc_address = "127.0.0.1:0",
                                       .http_address = "",
                                       .stream_memory_bytes = (a.memory_mib << 20) / 8,
                                       .now = options.now},
                                      store.get(), &engine);
  Must(server.status());

  const double cpu_before = CpuSeconds();
  const uint64_t before = MonotonicNowNs();
  std::vector<std::thread> threads;
  for (const auto& agent : agents) {
    threads.emplace_back([&] { agent->Run((*server)->grpc_address()); });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = static_cast<double>(MonotonicNowNs() - before) / 1e9;
  const double cpu = CpuSeconds() - cpu_before;
  const uint64_t resident = ResidentBytes();

  std::vector<uint64_t> latencies;
  for (const auto& agent : agents) {
    latencies.insert(latencies.end(), agent->latencies_ns().begin(), agent->latencies_ns().end());
  }
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return FormatDurationNs(latencies[static_cast<size_t>(share * static_cast<double>(latencies.size() - 1))]);
  };
  const auto total = engine.Totals(query::ParseSelector("cpu").value(), {});
  Must(total.status());
  const store::StoreStats stats = store->Stats().value();
  std::printf("%d agents, %s batches, %s raw samples in %.2f s: %.2f M raw samples/s, %.0f batches/s, %s syncs\n",
              a.agents, FormatCount(latencies.size()).c_str(), FormatCount(samples).c_str(), seconds,
              static_cast<double>(samples) / seconds / 1e6, static_cast<double>(latencies.size()) / seconds,
              FormatCount(stats.syncs).c_str());
  std::printf("acknowledged after: median %s, p99 %s, longest %s\n", at(0.5).c_str(), at(0.99).c_str(), at(1).c_str());
  std::printf("CPU of both ends: %.2f s, %.2f µs per raw sample\n", cpu, cpu / static_cast<double>(samples) * 1e6);
  std::printf("memory beyond what was made beforehand: %s; the store counts %s of its %s\n",
              FormatBytes(resident - std::min(resident, resident_before)).c_str(),
              FormatBytes(stats.memory_bytes).c_str(), FormatBytes(stats.memory_budget).c_str());
  std::printf("asked back: %s samples%s\n", FormatCount(total->samples).c_str(),
              total->samples == samples ? ", all of them" : "");
  (*server)->Shutdown();
  if (a.data.empty()) std::filesystem::remove_all(folder);
  return total->samples == samples ? 0 : 1;
}

}  // namespace
}  // namespace pyrometer

int main(int argc, char** argv) { return pyrometer::Main(argc, argv); }

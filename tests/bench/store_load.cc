// Load on a store through its real gRPC face: agents of the generator's fleet (tests/support/fleet.h) over the
// loopback, each batch acknowledged when it is synced.
//
//   build/bench/tests/bench/store_load [--agents 8] [--pods 50] [--samples 1000] [--stacks 20000] [--batches 30]
//                                      [--in-flight 4] [--deploy 0] [--offsets] [--connections N] [--threads 8]
//                                      [--memory MIB] [--data DIR] | [--store HOST:PORT [--minutes N] [--start
//                                      SECONDS]]
//
// Each agent sends --batches windows of --pods pods × --samples raw samples, of one service each (50 services at most),
// --in-flight of them on their way at most, over --connections connections (one per agent, a thousand at most). What is
// sent is made beforehand, so that the clients cost only encoding. Then everything is asked back and must agree to the
// last sample. Prints rates, the acknowledgements' distribution, CPU of process (both ends) and memory.
//
// --replay FILE instead of the generator: a recording, a file of `pyrometer ci record` (.pyro, a window per run) or any
// that `pyrometer convert` reads (one window), by each agent as its own: labels node and pod differ. Once, or with
// --batches again and again; as fast as the store takes it, or with --speed N at N times the speed at which it was
// recorded.
//
// --store: a store that runs elsewhere, with an empty folder. --minutes N: windows for that long, made as they are
// sent, with a line per minute; scripts/store-soak does both and watches the store's memory. --deploy N: every pod is
// new every N windows. --start: Unix seconds of the first window.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "tests/bench/agent_load.h"
#include "tests/bench/fleet_source.h"
#include "tests/bench/replay_source.h"
#include "userspace/base/process_usage.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/query_client.h"
#include "userspace/server/server.h"

namespace pyrometer {
namespace {

struct Arguments {
  bench::LoadOptions load;
  uint64_t batches = 0;  // 0 = 30, or all that a recording has
  uint64_t minutes = 0;
  uint64_t memory_mib = 1024;
  std::string data;
  std::string store;   // "" = one in this process
  std::string replay;  // "" = the generator
  uint64_t speed = 0;
  testing::FleetOptions fleet{.pods = 50, .window_ns = 10 * kNsPerSecond};
};

[[noreturn]] void Usage(const std::string& what) {
  std::fprintf(stderr, "store_load: %s; see the head of tests/bench/store_load.cc\n", what.c_str());
  std::exit(2);
}

Arguments Parse(int argc, char** argv) {
  Arguments a;
  const std::map<std::string_view, int*> numbers = {
      {"--agents", &a.load.agents},   {"--pods", &a.fleet.pods},          {"--samples", &a.fleet.samples},
      {"--stacks", &a.fleet.stacks},  {"--in-flight", &a.load.in_flight}, {"--connections", &a.load.connections},
      {"--threads", &a.load.threads}, {"--deploy", &a.fleet.deploy_every}};
  const std::map<std::string_view, uint64_t*> large = {
      {"--batches", &a.batches}, {"--minutes", &a.minutes}, {"--memory", &a.memory_mib}, {"--speed", &a.speed}};
  const std::map<std::string_view, std::string*> texts = {
      {"--data", &a.data}, {"--store", &a.store}, {"--replay", &a.replay}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--offsets") {
      a.fleet.offsets = true;
      continue;
    }
    if (i + 1 == argc) Usage(std::string(flag) + " is unknown or wants a value");
    const std::string_view value = argv[++i];
    if (const auto text = texts.find(flag); text != texts.end()) {
      *text->second = value;
      continue;
    }
    const std::optional<uint64_t> number = ParseUint64(value);
    if (!number || *number == 0) Usage(StrFormat("%s %s: not a number above 0", flag, value));
    if (const auto entry = numbers.find(flag); entry != numbers.end()) {
      *entry->second = static_cast<int>(*number);
    } else if (const auto entry64 = large.find(flag); entry64 != large.end()) {
      *entry64->second = *number;
    } else if (flag == "--start") {
      a.fleet.start_ns = static_cast<int64_t>(*number * kNsPerSecond);
    } else {
      Usage(StrFormat("unknown argument %s", flag));
    }
  }
  if (a.minutes > 0 && a.store.empty()) Usage("--minutes is for a store of its own process: --store HOST:PORT");
  if (a.minutes > 0 && !a.replay.empty()) Usage("--minutes is for the generator; a recording has an end");
  if (a.speed > 0 && a.replay.empty()) Usage("--speed is for --replay");
  a.load.seconds = a.minutes * 60;
  return a;
}

void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

void PrintRate(const bench::LoadResult& result, const char* prefix) {
  std::printf(
      "%s%s batches, %s raw samples in %.2f s: %.2f M raw samples/s, %.0f batches/s; acknowledged after: median "
      "%s, p99 %s, longest %s%s\n",
      prefix, FormatCount(result.batches).c_str(), FormatCount(result.samples).c_str(), result.seconds,
      static_cast<double>(result.samples) / result.seconds / 1e6, static_cast<double>(result.batches) / result.seconds,
      result.Latency(0.5).c_str(), result.Latency(0.99).c_str(), result.Latency(1).c_str(),
      result.reconnects == 0 ? "" : StrFormat("; %s connected again", FormatCount(result.reconnects)).c_str());
  std::fflush(stdout);
}

// Whether the store has what was acknowledged.
int Compare(uint64_t asked, uint64_t samples) {
  std::printf("asked back: %s samples%s\n", FormatCount(asked).c_str(),
              asked == samples ? ", all of them" : StrFormat(" of %d", samples).c_str());
  return asked == samples ? 0 : 1;
}

int OnOther(const Arguments& a, bench::BatchSource* source, int64_t start_ns) {
  bench::LoadOptions load = a.load;
  load.target = a.store;
  int minute = 0;
  const auto result = bench::AgentLoad(load, source).Run([&](const bench::LoadResult& last) {
    if (a.minutes > 0) PrintRate(last, StrFormat("minute %d: ", ++minute).c_str());
  });
  Must(result.status());
  PrintRate(
      *result,
      StrFormat("%d agents, all connected after %s: ", load.agents, FormatDurationNs(result->welcomed_ns)).c_str());
  if (const auto* fleet = dynamic_cast<bench::FleetSource*>(source)) {
    std::printf("generating took %.2f µs of CPU per raw sample\n",
                fleet->GenerationSeconds() / static_cast<double>(result->samples) * 1e6);
  }
  const auto client = rpc::QueryClient::Connect(a.store, {});
  Must(client.status());
  const auto series = (*client)->TimeSeries({.query = "cpu", .from_ns = start_ns, .to_ns = INT64_MAX});
  Must(series.status());
  uint64_t asked = 0;
  for (const rpc::TimeSeriesRow& row : series->series) {
    for (const uint64_t count : row.counts) asked += count;
  }
  return Compare(asked, result->samples);
}

int OnOwn(const Arguments& a, bench::BatchSource* source, int64_t now_ns) {
  std::string folder = a.data;
  if (folder.empty()) {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-load-XXXXXX").string();
    folder = mkdtemp(pattern.data());
  }
  const uint64_t resident_before = ResidentBytes();
  store::StoreOptions options;
  options.memory_budget_bytes = (a.memory_mib << 20) * 5 / 8;
  options.limits.retention_ns = 0;
  options.now = [now_ns] { return now_ns; };
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
  bench::LoadOptions load = a.load;
  load.target = (*server)->grpc_address();
  const uint64_t cpu_before = ProcessCpuNs();
  const auto result = bench::AgentLoad(load, source).Run({});
  Must(result.status());
  const double cpu = static_cast<double>(ProcessCpuNs() - cpu_before) / 1e9;
  const uint64_t resident = ResidentBytes();
  const auto total = engine.Totals(query::ParseSelector("cpu").value(), {});
  Must(total.status());
  const store::StoreStats stats = store->Stats().value();
  PrintRate(*result, StrFormat("%d agents, ", load.agents).c_str());
  std::printf("%s syncs; all agents connected after %s\n", FormatCount(stats.syncs).c_str(),
              FormatDurationNs(result->welcomed_ns).c_str());
  std::printf("CPU of both ends: %.2f s, %.2f µs per raw sample\n", cpu,
              cpu / static_cast<double>(result->samples) * 1e6);
  std::printf("memory beyond what was made beforehand: %s; the store counts %s of its %s\n",
              FormatBytes(resident - std::min(resident, resident_before)).c_str(),
              FormatBytes(stats.memory_bytes).c_str(), FormatBytes(stats.memory_budget).c_str());
  (*server)->Shutdown();
  if (a.data.empty()) std::filesystem::remove_all(folder);
  return Compare(total->samples, result->samples);
}

int Main(int argc, char** argv) {
  const Arguments a = Parse(argc, argv);
  RaiseFileLimit();  // every agent has a connection
  if (!a.replay.empty()) {
    const auto replay = bench::ReplaySource::Read(
        a.replay, {.agents = a.load.agents, .windows = a.batches, .speed = static_cast<double>(a.speed)});
    Must(replay.status());
    std::printf("%s: %d windows, %s each agent sends\n", a.replay.c_str(),
                static_cast<int>((*replay)->windows_in_file()), FormatCount((*replay)->Last()).c_str());
    return a.store.empty() ? OnOwn(a, replay->get(), UnixNowNs()) : OnOther(a, replay->get(), (*replay)->start_ns());
  }
  const uint64_t batches = a.minutes > 0 ? 0 : a.batches > 0 ? a.batches : 30;
  bench::FleetSource source(a.fleet, a.load.agents, batches);
  if (batches > 0) source.MakeAll(a.load.agents);
  const int64_t now_ns =
      a.fleet.start_ns + static_cast<int64_t>(a.fleet.window_ns) * (static_cast<int64_t>(batches) + 1);
  return a.store.empty() ? OnOwn(a, &source, now_ns) : OnOther(a, &source, a.fleet.start_ns);
}

}  // namespace
}  // namespace pyrometer

int main(int argc, char** argv) { return pyrometer::Main(argc, argv); }

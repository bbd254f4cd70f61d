// A whole store on free ports of the loopback, with its data in a temporary folder, and batches to feed it.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/rpc/address.h"
#include "userspace/rpc/ingest_client.h"
#include "userspace/rpc/query_client.h"
#include "userspace/server/server.h"

namespace pyrometer::server {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-server-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class LiveStore {
 public:
  explicit LiveStore(Options options = {}) {
    if (options.grpc_address == rpc::kDefaultGrpcAddress) options.grpc_address = "127.0.0.1:0";
    if (options.http_address == rpc::kDefaultHttpAddress) options.http_address = "127.0.0.1:0";
    options_ = options;
    Open();
  }
  ~LiveStore() { Close(); }

  void Open() {
    store::StoreOptions store_options;
    store_options.min_free_bytes = 0;
    auto opened = store::Store::Open(dir_.path() + "/data", store_options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    engine_ = std::make_unique<query::Engine>(store_.get());
    auto started = Server::Start(options_, store_.get(), engine_.get());
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  void Close() {
    server_.reset();
    engine_.reset();
    store_.reset();
  }

  Server& server() { return *server_; }
  store::Store& store() { return *store_; }
  std::string grpc() const { return server_->grpc_address(); }
  uint16_t http_port() const { return rpc::ParseHostPort(server_->http_address())->port; }
  const std::string& folder() const { return dir_.path(); }

 private:
  TempDir dir_;
  Options options_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<query::Engine> engine_;
  std::unique_ptr<Server> server_;
};

// One agent: sends and remembers what it hears.
class Agent {
 public:
  explicit Agent(std::string node = "n1", std::string id = "") : node_(node), id_(id.empty() ? "agent-" + node : id) {}

  Status Connect(const std::string& target, const rpc::Credentials& credentials = {}) {
    auto client = rpc::IngestClient::Connect(
        target, credentials,
        {.agent_id = id_,
         .node = node_,
         .status = {.cpus = 4,
                    .kernel = "6.1.0",
                    .frequency_hz = 99,
                    .probes = {{"cpu_sampler", "ok", ""}, {"tcp_latency", "off", "no BTF"}}}},
        {.ack = [this](const rpc::Ack& ack) { Change([&] { acks.push_back(ack); }); },
         .reject = [this](uint64_t s, const std::string& m) { Change([&] { rejects.emplace_back(s, m); }); },
         .start_session = [this](const rpc::SessionSpec& spec) { Change([&] { starts.push_back(spec); }); },
         .stop_session = [this](const std::string& stopped) { Change([&] { stops.push_back(stopped); }); },
         .closed = [this](const Status& status) { Change([&] { closed.push_back(status); }); }});
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    return OkStatus();
  }
  rpc::IngestClient& client() { return *client_; }
  void Disconnect() { client_.reset(); }

  template <typename Condition>
  bool Wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), condition);
  }

  const std::string& node() const { return node_; }
  const std::string& id() const { return id_; }

  std::vector<rpc::Ack> acks;
  std::vector<std::pair<uint64_t, std::string>> rejects;
  std::vector<rpc::SessionSpec> starts;
  std::vector<std::string> stops;
  std::vector<Status> closed;

 private:
  template <typename F>
  void Change(F change) {
    {
      std::lock_guard lock(mutex_);
      change();
    }
    changed_.notify_all();
  }
  const std::string node_, id_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<rpc::IngestClient> client_;
};

// One window of a node: CPU of container shop (hot_a 60, hot_b 40 samples) and of the host (10), slow and failed
// reads with two exemplars, TCP to one peer, and the agent's own counters.
inline profile::Batch WindowBatch(const Agent& agent, uint64_t sequence, int64_t time_ns) {
  using profile::LabelSet;
  constexpr uint64_t kWindow = 10 * kNsPerSecond;
  profile::Batch batch;
  batch.agent_id = agent.id();
  batch.node = agent.node();
  batch.sequence = sequence;
  auto& d = batch.dictionary;
  const auto stack = [&](std::initializer_list<const char*> root_first) {
    profile::StackId at = profile::kEmptyStack;
    for (const char* name : root_first) {
      const profile::FunctionId function =
          d.InternFunction({.name = d.InternString(name), .file = d.InternString("shop.cc"), .start_line = 7});
      at = d.InternStack(at, d.InternFrame({.kind = profile::FrameKind::kNative,
                                            .mapping = d.InternMapping({.file = d.InternString("/usr/bin/shop")}),
                                            .address = ElfAddress(std::hash<std::string_view>{}(name)&0xffff),
                                            .lines = {{.function = function, .line = 8}}}));
    }
    return at;
  };
  const auto series = [&](std::string_view type, std::vector<profile::Label> labels) {
    labels.push_back({"node", agent.node()});
    batch.series.push_back({std::string(type), LabelSet::Make(std::move(labels)).value()});
    return static_cast<uint32_t>(batch.series.size() - 1);
  };
  const std::vector<profile::Label> shop = {
      {"container.name", "shop"}, {"container.id", "c0ffee"}, {"service", "shop"}, {"image", "shop:1"}};
  const uint64_t period = 10'101'010;
  const profile::StackId a = stack({"main", "work", "hot_a"}), b = stack({"main", "work", "hot_b"});
  batch.profiles.push_back({.series = series("cpu", shop),
                            .time_ns = time_ns,
                            .duration_ns = kWindow,
                            .period_ns = period,
                            .samples = {{a, 60, 60 * period}, {b, 40, 40 * period}}});
  batch.profiles.push_back({.series = series("cpu", {{"service", "cron.service"}, {"comm", "cron"}}),
                            .time_ns = time_ns,
                            .duration_ns = kWindow,
                            .period_ns = period,
                            .samples = {{stack({"main", "idle"}), 10, 10 * period}}});
  std::vector<profile::Label> read_labels = shop;
  read_labels.push_back({"syscall", "read"});
  profile::HistogramPoint reads{
      .series = series("syscall_latency", read_labels), .time_ns = time_ns, .duration_ns = kWindow};
  reads.histogram.Record(5'000'000, 98);
  reads.histogram.Record(20'000'000, 2);
  reads.errors = {{11, 3}, {512, 1}};
  reads.exemplars = {{time_ns + 1'000'000, 20'000'000, a, "shop", 12}, {time_ns + 2'000'000, 5'000'000, b, "shop", 13}};
  reads.exemplars[1].weight = 49;
  reads.exemplars[1].split = {{"network", 4'000'000}, {"running", 1'000'000}};
  reads.exemplars[1].waker = {.stack = a, .comm = "feeder", .tid = 99, .cause = "network", .wait_ns = 3'000'000};
  batch.histograms.push_back(std::move(reads));
  std::vector<profile::Label> peer_labels = shop;
  peer_labels.push_back({"peer", "10.0.0.2"});
  peer_labels.push_back({"direction", "out"});
  for (const auto& [type, value] :
       {std::pair("tcp_rtt", 10'000'000), {"tcp_min_rtt", 9'000'000}, {"tcp_connect", 11'000'000}}) {
    profile::HistogramPoint point{.series = series(type, peer_labels), .time_ns = time_ns, .duration_ns = kWindow};
    point.histogram.Record(static_cast<uint64_t>(value), 50);
    batch.histograms.push_back(std::move(point));
  }
  const auto counter = [&](std::string_view type, std::vector<profile::Label> labels, uint64_t value) {
    batch.counters.push_back({series(type, std::move(labels)), time_ns, kWindow, value});
  };
  counter("tcp_retransmits", peer_labels, 2);
  counter("tcp_bytes_sent", peer_labels, 1000);
  counter("tcp_bytes_received", peer_labels, 3000);
  counter("tcp_connections", peer_labels, 4);
  counter("pyrometer_samples_taken", {}, 115);
  counter("pyrometer_samples_delivered", {}, 110);
  counter("pyrometer_samples_dropped", {{"reason", "ring full"}}, 5);
  counter("pyrometer_agent_cpu", {}, 100'000'000);
  counter("pyrometer_agent_rss", {}, 50'000'000);
  return batch;
}

// The start of the window of 10 s that lies `windows` before the one in which the first call was made: the same all
// through the test, however slow the machine.
inline int64_t WindowStart(int64_t windows) {
  constexpr int64_t kLength = 10 * static_cast<int64_t>(kNsPerSecond);
  static const int64_t now = UnixNowNs();
  return now - now % kLength - windows * kLength;
}

}  // namespace pyrometer::server

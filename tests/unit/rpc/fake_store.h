// Handlers behind a real gRPC server: records what agents send and answers as the test says.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/rpc/grpc_server.h"

namespace pyrometer::rpc {

// Waits up to 10 s; the loopback answers within milliseconds.
class Waiter {
 public:
  template <typename Condition>
  bool Wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(10), condition);
  }
  void Change(const std::function<void()>& change) {
    {
      std::lock_guard lock(mutex);
      change();
    }
    changed.notify_all();
  }
  std::mutex mutex;
  std::condition_variable changed;
};

class FakeIngest : public IngestHandler {
 public:
  StatusOr<Welcome> Connected(const Hello& hello, std::shared_ptr<AgentConnection> connection) override {
    if (!refuse.ok()) return refuse;
    state.Change([&] {
      last_hello = hello;
      connections.push_back(connection);
    });
    return Welcome{.version = "test", .last_sequence = last_sequence};
  }
  StatusOr<Ack> Received(AgentConnection&, const profile::BatchView& view) override {
    const profile::Batch batch = profile::CopyBatch(view);
    StatusOr<Ack> answer = on_batch ? on_batch(batch) : Ack{.sequence = batch.sequence};
    state.Change([&] { batches.push_back(batch); });
    return answer;
  }
  void Malformed(AgentConnection&, const Status& status) override {
    state.Change([&] { malformed.push_back(status); });
  }
  void SessionUpdated(AgentConnection&, const SessionUpdate& update) override {
    state.Change([&] { updates.push_back(update); });
  }
  void StatusUpdated(AgentConnection&, const NodeStatus& status) override {
    state.Change([&] { statuses.push_back(status); });
  }
  void Disconnected(AgentConnection&) override {
    state.Change([&] { ++disconnected; });
  }

  Status refuse;
  uint64_t last_sequence = 0;
  std::function<StatusOr<Ack>(const profile::Batch&)> on_batch;

  Waiter state;  // guards the rest
  Hello last_hello;
  std::vector<std::shared_ptr<AgentConnection>> connections;
  std::vector<profile::Batch> batches;
  std::vector<Status> malformed;
  std::vector<SessionUpdate> updates;
  std::vector<NodeStatus> statuses;
  int disconnected = 0;
};

class FakeQuery : public QueryApi {
 public:
  StatusOr<StoreStatus> GetStatus() override {
    return StoreStatus{
        .version = "test", .bytes = 1, .series = 2, .stacks = 3, .batches = 4, .samples = 5, .memory_bytes = 6};
  }
  StatusOr<profile::Profile> MergeProfile(const MergeProfileRequest& request) override {
    last_merge = request;
    if (!fail.ok()) return fail;
    return profile;
  }
  StatusOr<profile::Profile> MergeFlame(const MergeFlameRequest& request) override {
    last_flame = request;
    if (!fail.ok()) return fail;
    return profile;
  }
  StatusOr<MergeTopReply> MergeTop(const MergeTopRequest& request) override {
    last_top = request;
    if (!fail.ok()) return fail;
    return top;
  }
  StatusOr<TimeSeriesReply> TimeSeries(const TimeSeriesRequest& request) override {
    last_series = request;
    if (!fail.ok()) return fail;
    return time_series;
  }
  StatusOr<std::vector<LabelledHistogram>> Histograms(const HistogramsRequest& request) override {
    last_histograms = request;
    if (!fail.ok()) return fail;
    return histograms;
  }
  StatusOr<std::vector<CallExample>> Exemplars(const ExemplarsRequest& request) override {
    last_exemplars = request;
    if (!fail.ok()) return fail;
    return exemplars;
  }
  StatusOr<std::vector<NodeInfo>> ListNodes(const std::string&) override { return nodes; }
  StatusOr<std::vector<std::string>> LabelValues(const LabelValuesRequest& request) override {
    last_values = request;
    return std::vector<std::string>{"a", "b"};
  }
  StatusOr<SessionInfo> StartSession(const SessionSpec& spec) override {
    if (!fail.ok()) return fail;
    return SessionInfo{.spec = spec, .state = SessionState::kPending};
  }
  StatusOr<SessionInfo> StopSession(const std::string& id) override {
    return SessionInfo{.spec = {.id = id}, .state = SessionState::kStopped, .started_ns = 7, .samples = 8};
  }
  StatusOr<SessionInfo> GetSession(const std::string& id) override {
    return NotFoundError(StrFormat("no session %s", id));
  }
  StatusOr<std::vector<SessionInfo>> ListSessions(const std::string&) override {
    return std::vector<SessionInfo>{{.spec = {.id = "s1"}, .state = SessionState::kFailed, .error = "why"}};
  }

  StatusOr<SymbolUpload> UploadSymbols(const std::string& name,
                                       const std::function<StatusOr<std::string>()>& next) override {
    std::string all;
    while (true) {
      ASSIGN_OR_RETURN(const std::string piece, next());
      if (piece.empty()) break;
      all += piece;
    }
    if (!fail.ok()) return fail;
    uploaded = all;
    return SymbolUpload{.build_id = name, .bytes = all.size(), .replaced = true, .functions = 5, .has_lines = true};
  }

  std::string uploaded;
  Status fail;
  profile::Profile profile;
  TimeSeriesReply time_series;
  std::vector<LabelledHistogram> histograms;
  std::vector<CallExample> exemplars;
  std::vector<NodeInfo> nodes;
  MergeTopReply top;
  MergeProfileRequest last_merge;
  MergeFlameRequest last_flame;
  MergeTopRequest last_top;
  TimeSeriesRequest last_series;
  HistogramsRequest last_histograms;
  ExemplarsRequest last_exemplars;
  LabelValuesRequest last_values;
};

struct FakeStore {
  explicit FakeStore(GrpcServer::Options options = {}) {
    if (options.address.empty()) options.address = "127.0.0.1:0";
    StatusOr<std::unique_ptr<GrpcServer>> started = GrpcServer::Start(options, &ingest, &query);
    if (started.ok()) {
      server = *std::move(started);
      target = StrFormat("127.0.0.1:%d", server->port());
    } else {
      status = started.status();
    }
  }
  FakeIngest ingest;
  FakeQuery query;
  Status status;
  std::string target;
  std::unique_ptr<GrpcServer> server;  // last: stops before the handlers go
};

}  // namespace pyrometer::rpc

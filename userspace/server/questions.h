// The store's answers as rpc::QueryApi, for gRPC and for callers in this process.
// Threads: all methods from any.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "userspace/query/engine.h"
#include "userspace/query/selector.h"
#include "userspace/rpc/query_api.h"
#include "userspace/server/agent_registry.h"
#include "userspace/server/late_symbols.h"
#include "userspace/server/question_gate.h"
#include "userspace/server/session_manager.h"

namespace pyrometer::server {

class Questions : public rpc::QueryApi {
 public:
  // All must outlive this.
  Questions(const query::Engine* engine, QuestionGate* gate, AgentRegistry* registry, SessionManager* sessions,
            std::function<int64_t()> now)
      : engine_(*engine), gate_(*gate), registry_(*registry), sessions_(*sessions), now_(std::move(now)) {}

  StatusOr<rpc::StoreStatus> GetStatus() override;
  StatusOr<profile::Profile> MergeProfile(const rpc::MergeProfileRequest& request) override;
  StatusOr<profile::Profile> MergeFlame(const rpc::MergeFlameRequest& request) override;
  StatusOr<rpc::MergeTopReply> MergeTop(const rpc::MergeTopRequest& request) override;
  StatusOr<rpc::TimeSeriesReply> TimeSeries(const rpc::TimeSeriesRequest& request) override;
  StatusOr<rpc::SymbolUpload> UploadSymbols(const std::string& name,
                                            const std::function<StatusOr<std::string>()>& next) override;
  StatusOr<std::vector<rpc::LabelledHistogram>> Histograms(const rpc::HistogramsRequest& request) override;
  StatusOr<std::vector<rpc::CallExample>> Exemplars(const rpc::ExemplarsRequest& request) override;
  StatusOr<std::vector<rpc::NodeInfo>> ListNodes(const std::string& tenant) override;
  StatusOr<std::vector<std::string>> LabelValues(const rpc::LabelValuesRequest& request) override;
  StatusOr<rpc::SessionInfo> StartSession(const rpc::SessionSpec& spec) override;
  StatusOr<rpc::SessionInfo> StopSession(const std::string& id) override { return sessions_.Stop(id); }
  StatusOr<rpc::SessionInfo> GetSession(const std::string& id) override { return sessions_.Get(id); }
  StatusOr<std::vector<rpc::SessionInfo>> ListSessions(const std::string& tenant) override {
    return sessions_.List(tenant);
  }

  // Null: no symbols are kept. Set before the first question.
  void set_symbols(LateSymbols* symbols) { symbols_ = symbols; }
  LateSymbols* symbols() const { return symbols_; }

 private:
  // What a merge is asked about, and the engine for it.
  struct Merge {
    query::Selector selector;
    store::TimeRange range;
    std::unique_ptr<QuestionGate::Pass> pass;
    query::Engine engine;
  };
  template <typename Request>
  StatusOr<Merge> Begin(const Request& request);
  StatusOr<store::TimeRange> Range(int64_t from_ns, int64_t to_ns) const;

  LateSymbols* symbols_ = nullptr;
  const query::Engine& engine_;
  QuestionGate& gate_;
  AgentRegistry& registry_;
  SessionManager& sessions_;
  const std::function<int64_t()> now_;
};

// The stacks of a selection, whatever its kind: samples, or the exemplars of a histogram type with
// min_ns <= duration <= max_ns (0 = no upper bound). INVALID_ARGUMENT for counters.
StatusOr<profile::Profile> StacksOf(const query::Engine& engine, const query::Selector& selector,
                                    store::TimeRange range, const std::vector<std::string>& by, uint64_t min_ns,
                                    uint64_t max_ns);

// A selector whose type may be left out: then every type matches. "" = everything.
StatusOr<store::SeriesFilter> ParseFilter(std::string_view text);

}  // namespace pyrometer::server

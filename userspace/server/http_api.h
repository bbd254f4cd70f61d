// The HTTP API of docs/api.md and the page's files: from HttpRequest to HttpReply.
//
//   HttpApi api(context);
//   HttpReply reply = api.Answer(request);
//
// Threads: Answer from any. Calls below /api/ and /metrics ask for the token when there is one; the page's
// files do not (they hold no data).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "userspace/query/engine.h"
#include "userspace/query/selector.h"
#include "userspace/rpc/tokens.h"
#include "userspace/server/agent_registry.h"
#include "userspace/server/counters.h"
#include "userspace/server/http_message.h"
#include "userspace/server/latency_totals.h"
#include "userspace/server/memory_watch.h"
#include "userspace/server/question_gate.h"
#include "userspace/server/questions.h"
#include "userspace/server/session_manager.h"

namespace pyrometer::server {

// What the calls work with. All must outlive the API.
struct ApiContext {
  const query::Engine* engine;  // of the caller's tenant, within what one question may take
  Questions* questions;
  AgentRegistry* registry;
  SessionManager* sessions;
  Counters* counters;
  const LatencyTotals* totals;
  std::function<int64_t()> now;  // Unix nanoseconds
  rpc::TokenTable tokens;        // none = none asked
  std::string mode;              // "up" or "store"
  std::string node;              // with "up"
  int64_t started_ns = 0;
  QuestionGate* gate = nullptr;
  const MemoryWatch* memory_watch = nullptr;
  rpc::Grant grant = rpc::Grant::All();  // of the caller
};

class HttpApi {
 public:
  explicit HttpApi(ApiContext context) : context_(std::move(context)) {}

  HttpReply Answer(const HttpRequest& request) const;

 private:
  HttpReply Dispatch(const HttpRequest& request) const;

  const ApiContext context_;
};

// ---- the calls, by file ---------------------------------------------------------------------------------

using ApiCall = StatusOr<HttpReply>(const ApiContext& context, const HttpRequest& request);

// http_nodes.cc
ApiCall GetStatusCall, GetNodes, GetContainers, GetTypes, GetLabels, GetLabelValues, GetTenants;
ApiCall ListSessionsCall, StartSessionCall, StopSessionCall;
// http_profiles.cc
ApiCall GetSeries, GetFlame, GetTop, GetFunction, GetExport;
// http_latency.cc
ApiCall GetHistograms, GetHeatmap, GetExemplars, GetPeers;
// metrics.cc
ApiCall GetMetrics;

// ---- shared by them -------------------------------------------------------------------------------------

inline constexpr uint64_t kDefaultStepNs = 10 * kNsPerSecond;  // one window of an agent

// `from` and `to`; INVALID_ARGUMENT when the range is reversed.
StatusOr<store::TimeRange> ReadRange(const ApiContext& context, const HttpRequest& request);
// INVALID_ARGUMENT unless the body is said to be JSON.
Status CheckJsonBody(const HttpRequest& request);
// `query`; when it is absent, every series of `default_type`.
StatusOr<query::Selector> ReadSelector(const HttpRequest& request, std::string_view default_type);
OrderedJson LabelsJson(const profile::LabelSet& labels);
// As a JSON number that a double holds exactly.
OrderedJson Number(uint64_t value);
int64_t ToMs(int64_t time_ns);

}  // namespace pyrometer::server

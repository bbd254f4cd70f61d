// Calls about the store, its nodes, containers, labels and sessions.
#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/profile/batch.h"
#include "userspace/server/http_api.h"
#include "userspace/server/profile_types.h"

namespace pyrometer::server {
namespace {

using profile::LabelSet;
using store::TimeRange;
using store::WindowTotal;

// "Now" of the overview: the last minute of a node that has arrived…
constexpr int64_t kRecentNs = 60 * static_cast<int64_t>(kNsPerSecond);
// … unless it is older than this. A window arrives 10 to 20 s after its start; on a node without any idle CPU, or
// after a pause of the store, it may take minutes.
constexpr int64_t kMaxLagNs = 300 * static_cast<int64_t>(kNsPerSecond);
// Points of a little curve.
constexpr uint64_t kSparkPoints = 30;

// The series of a type, sessions left out.
struct TypeSeries {
  std::vector<store::Series> series;
  std::unordered_map<store::SeriesId, const LabelSet*> labels;
  store::Selection all;
};

StatusOr<TypeSeries> FindType(const ApiContext& context, std::string_view type) {
  TypeSeries found;
  const query::Selector selector{.type = std::string(type)};
  store::SeriesFilter filter = selector.Filter();
  filter.tenant = context.engine->tenant();
  ASSIGN_OR_RETURN(found.series, context.engine->reader().FindSeries(filter));
  for (const store::Series& one : found.series) {
    found.labels.emplace(one.id, &one.labels);
    found.all.series.push_back(one.id);
  }
  return found;
}

// Calls `sink` for every window total of a type.
Status ScanType(const ApiContext& context, std::string_view type, TimeRange range,
                const std::function<void(const LabelSet&, const WindowTotal&)>& sink) {
  ASSIGN_OR_RETURN(const TypeSeries found, FindType(context, type));
  return context.engine->reader().ScanTotals(
      found.all, range, false, [&](const WindowTotal& total) { sink(*found.labels.at(total.series), total); },
      context.engine->budget());
}
// The same for whole histograms.
Status ScanHistogramType(const ApiContext& context, std::string_view type, TimeRange range,
                         const std::function<void(const LabelSet&, const store::HistogramWindow&)>& sink) {
  ASSIGN_OR_RETURN(const TypeSeries found, FindType(context, type));
  return context.engine->reader().ScanHistograms(
      found.all, range, false,
      [&](const store::HistogramWindow& window) { sink(*found.labels.at(window.series), window); },
      context.engine->budget());
}

// Per node, the last minute of windows of `type` that have arrived.
class RecentWindows {
 public:
  static StatusOr<RecentWindows> Read(const ApiContext& context, std::string_view type, TimeRange range) {
    RecentWindows recent;
    recent.scan_ = {std::max(range.from_ns, range.to_ns - kMaxLagNs - kRecentNs), range.to_ns};
    RETURN_IF_ERROR(ScanType(context, type, recent.scan_, [&](const LabelSet& labels, const WindowTotal& w) {
      int64_t& end = recent.ends_[std::string(labels.Get(profile::kLabelNode))];
      end = std::max(end, w.time_ns + static_cast<int64_t>(w.duration_ns));
    }));
    std::erase_if(recent.ends_, [&](const auto& node) { return node.second < range.to_ns - kMaxLagNs; });
    return recent;
  }

  // What to scan: holds the last minutes of all nodes.
  TimeRange scan() const { return scan_; }
  // Empty when nothing recent has arrived.
  TimeRange Of(std::string_view node) const {
    const auto found = ends_.find(node);
    if (found == ends_.end()) return {0, 0};
    return {std::max(scan_.from_ns, found->second - kRecentNs), found->second};
  }
  bool Contains(const LabelSet& labels, int64_t time_ns) const {
    return Of(labels.Get(profile::kLabelNode)).Contains(time_ns);
  }
  // End of the newest window of all nodes; 0 when there is none.
  int64_t newest_ns() const {
    int64_t newest = 0;
    for (const auto& [node, end] : ends_) newest = std::max(newest, end);
    return newest;
  }

 private:
  TimeRange scan_;
  std::map<std::string, int64_t, std::less<>> ends_;
};

// What an agent's own counters say about its node.
struct NodeNumbers {
  uint64_t agent_cpu_ns = 0;
  uint64_t agent_cpu_over_ns = 0;  // length of the windows of the former
  uint64_t rss_bytes = 0;          // of the newest window
  int64_t rss_time_ns = 0;
  uint64_t taken = 0, delivered = 0;
  std::map<std::string, uint64_t> dropped;
};

StatusOr<std::map<std::string, NodeNumbers>> ReadNodeNumbers(const ApiContext& context, int64_t now_ns) {
  ASSIGN_OR_RETURN(const RecentWindows recent, RecentWindows::Read(context, profile::kTypeSamplesTaken, {0, now_ns}));
  std::map<std::string, NodeNumbers> nodes;
  const auto add = [&](std::string_view type,
                       const std::function<void(NodeNumbers&, const LabelSet&, const WindowTotal&)>& sink) -> Status {
    return ScanType(context, type, recent.scan(), [&](const LabelSet& labels, const WindowTotal& w) {
      if (!recent.Contains(labels, w.time_ns)) return;
      sink(nodes[std::string(labels.Get(profile::kLabelNode))], labels, w);
    });
  };
  RETURN_IF_ERROR(add(profile::kTypeAgentCpu, [](NodeNumbers& node, const LabelSet&, const WindowTotal& w) {
    node.agent_cpu_ns += w.value;
    node.agent_cpu_over_ns += w.duration_ns;
  }));
  RETURN_IF_ERROR(add(profile::kTypeAgentRss, [](NodeNumbers& node, const LabelSet&, const WindowTotal& w) {
    if (w.time_ns < node.rss_time_ns) return;
    node.rss_bytes = w.value;
    node.rss_time_ns = w.time_ns;
  }));
  RETURN_IF_ERROR(add(profile::kTypeSamplesTaken,
                      [](NodeNumbers& node, const LabelSet&, const WindowTotal& w) { node.taken += w.value; }));
  RETURN_IF_ERROR(add(profile::kTypeSamplesDelivered,
                      [](NodeNumbers& node, const LabelSet&, const WindowTotal& w) { node.delivered += w.value; }));
  RETURN_IF_ERROR(
      add(profile::kTypeSamplesDropped, [](NodeNumbers& node, const LabelSet& labels, const WindowTotal& w) {
        if (w.value != 0) node.dropped[std::string(labels.Get(profile::kLabelReason))] += w.value;
      }));
  return nodes;
}

// Names one container of one node or, outside containers, one service; as Engine::Containers groups.
using Place = std::pair<std::string, std::string>;
Place PlaceOf(std::string_view node, std::string_view id, std::string_view name, std::string_view service) {
  if (!id.empty()) return {std::string(node), "id:" + std::string(id)};
  if (!name.empty()) return {std::string(node), "name:" + std::string(name)};
  return {std::string(node), "service:" + std::string(service)};
}
Place PlaceOf(const LabelSet& labels) {
  return PlaceOf(labels.Get(profile::kLabelNode), labels.Get(profile::kLabelContainerId),
                 labels.Get(profile::kLabelContainerName), labels.Get(profile::kLabelService));
}

// CPU per place, and how much time the nodes' windows cover.
struct CpuNumbers {
  struct Of {
    uint64_t recent_cpu_ns = 0;
    uint64_t recent_samples = 0;
    std::map<int64_t, uint64_t> steps;  // start -> cpu ns
  };
  std::map<Place, Of> places;
  std::map<std::string, std::map<int64_t, uint64_t>> windows;  // node -> start -> length
  int64_t step_ns = 0;

  uint64_t Covered(const std::string& node, TimeRange range) const {
    const auto found = windows.find(node);
    if (found == windows.end()) return 0;
    uint64_t covered = 0;
    for (auto w = found->second.lower_bound(range.from_ns); w != found->second.end() && w->first < range.to_ns; ++w) {
      covered += w->second;
    }
    return covered;
  }
};

StatusOr<CpuNumbers> ReadCpu(const ApiContext& context, TimeRange range, const RecentWindows& recent) {
  CpuNumbers numbers;
  const uint64_t length = static_cast<uint64_t>(range.to_ns - range.from_ns);
  const uint64_t steps = std::max<uint64_t>(1, (length / kSparkPoints + kDefaultStepNs - 1) / kDefaultStepNs);
  numbers.step_ns = static_cast<int64_t>(steps * kDefaultStepNs);
  RETURN_IF_ERROR(ScanType(context, profile::kTypeCpu, range, [&](const LabelSet& labels, const WindowTotal& w) {
    CpuNumbers::Of& place = numbers.places[PlaceOf(labels)];
    place.steps[w.time_ns - w.time_ns % numbers.step_ns] += w.value;
    if (recent.Contains(labels, w.time_ns)) {
      place.recent_cpu_ns += w.value;
      place.recent_samples += w.count;
    }
    numbers.windows[std::string(labels.Get(profile::kLabelNode))][w.time_ns] = w.duration_ns;
  }));
  return numbers;
}

OrderedJson SessionJson(const rpc::SessionInfo& info) {
  return {{"id", info.spec.id},
          {"node", info.spec.node},
          {"target", rpc::TargetText(info.spec.target)},
          {"probes", info.spec.probes.empty() ? std::vector<std::string>{"cpu"} : info.spec.probes},
          {"state", std::string(rpc::SessionStateName(info.state))},
          {"startedMs", ToMs(info.started_ns)},
          {"durationNs", Number(info.spec.duration_ns)},
          {"samples", Number(info.samples)},
          {"error", info.error}};
}

// A whole number in a JSON body; absent gives the default.
StatusOr<uint64_t> JsonUint(const Json& json, const char* name, uint64_t limit) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_null()) return 0;
  if (!found->is_number_unsigned() || found->get<uint64_t>() > limit) {
    return InvalidArgumentError(StrFormat("%s: expected a whole number from 0 to %d", name, limit));
  }
  return found->get<uint64_t>();
}

StatusOr<std::string> JsonText(const Json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_null()) return std::string();
  if (!found->is_string()) return InvalidArgumentError(StrFormat("%s: expected a string", name));
  return found->get<std::string>();
}

Status CheckMembers(const Json& json, std::initializer_list<std::string_view> known, std::string_view where) {
  for (const auto& [name, value] : json.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return InvalidArgumentError(StrFormat("%s: unknown member '%s'", where, ToUtf8(name)));
    }
  }
  return OkStatus();
}

StatusOr<rpc::SessionSpec> ParseSessionSpec(std::string_view body) {
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgumentError("the body is no JSON object");
  RETURN_IF_ERROR(CheckMembers(json, {"node", "target", "durationNs", "frequencyHz", "probes"}, "session"));
  rpc::SessionSpec spec;
  ASSIGN_OR_RETURN(spec.node, JsonText(json, "node"));
  ASSIGN_OR_RETURN(spec.duration_ns, JsonUint(json, "durationNs", kMaxSessionNs));
  ASSIGN_OR_RETURN(const uint64_t frequency, JsonUint(json, "frequencyHz", kMaxSessionHz));
  spec.frequency_hz = static_cast<uint32_t>(frequency);
  if (const auto target = json.find("target"); target != json.end() && !target->is_null()) {
    if (!target->is_object()) return InvalidArgumentError("target: expected an object");
    RETURN_IF_ERROR(CheckMembers(*target, {"pid", "container", "cgroup"}, "target"));
    ASSIGN_OR_RETURN(const uint64_t pid, JsonUint(*target, "pid", UINT32_MAX));
    spec.target.pid = static_cast<uint32_t>(pid);
    ASSIGN_OR_RETURN(spec.target.container, JsonText(*target, "container"));
    ASSIGN_OR_RETURN(spec.target.cgroup, JsonText(*target, "cgroup"));
  }
  if (const auto probes = json.find("probes"); probes != json.end() && !probes->is_null()) {
    if (!probes->is_array() || probes->size() > 16) return InvalidArgumentError("probes: expected a short list");
    for (const Json& probe : *probes) {
      if (!probe.is_string()) return InvalidArgumentError("probes: expected strings");
      spec.probes.push_back(probe.get<std::string>());
    }
  }
  return spec;
}

}  // namespace

StatusOr<HttpReply> GetStatusCall(const ApiContext& context, const HttpRequest&) {
  ASSIGN_OR_RETURN(const rpc::StoreStatus status, context.questions->GetStatus());
  ASSIGN_OR_RETURN(const std::vector<rpc::NodeInfo> nodes, context.questions->ListNodes(context.engine->tenant()));
  return JsonReply({{"version", std::string(kVersion)},
                    {"startedMs", ToMs(context.started_ns)},
                    {"nowMs", ToMs(context.now())},
                    {"mode", context.mode},
                    {"node", context.node.empty() ? OrderedJson(nullptr) : OrderedJson(context.node)},
                    {"authRequired", !context.tokens.empty()},
                    {"store",
                     {{"bytes", Number(status.bytes)},
                      {"series", Number(status.series)},
                      {"stacks", Number(status.stacks)},
                      {"batches", Number(status.batches)},
                      {"samples", Number(status.samples)},
                      {"memoryBytes", Number(status.memory_bytes)}}},
                    {"nodes", nodes.size()}});
}

StatusOr<HttpReply> GetNodes(const ApiContext& context, const HttpRequest&) {
  ASSIGN_OR_RETURN(const std::vector<rpc::NodeInfo> nodes, context.questions->ListNodes(context.engine->tenant()));
  ASSIGN_OR_RETURN(const auto numbers_of, ReadNodeNumbers(context, context.now()));
  OrderedJson list = OrderedJson::array();
  for (const rpc::NodeInfo& info : nodes) {
    const auto found = numbers_of.find(info.node);
    const NodeNumbers numbers = found == numbers_of.end() ? NodeNumbers() : found->second;
    OrderedJson probes = OrderedJson::array();
    for (const rpc::ProbeStatus& probe : info.status.probes) {
      probes.push_back({{"name", probe.name}, {"state", probe.state}, {"reason", probe.reason}});
    }
    OrderedJson dropped = OrderedJson::object();
    for (const auto& [reason, count] : numbers.dropped) dropped[reason] = Number(count);
    const double cpu_ns_per_s = numbers.agent_cpu_over_ns == 0
                                    ? 0
                                    : static_cast<double>(numbers.agent_cpu_ns) * static_cast<double>(kNsPerSecond) /
                                          static_cast<double>(numbers.agent_cpu_over_ns);
    list.push_back({{"node", info.node},
                    {"agentId", info.agent_id},
                    {"version", info.version},
                    {"lastSeenMs", ToMs(info.last_seen_ns)},
                    {"online", info.online},
                    {"cpus", info.status.cpus},
                    {"kernel", info.status.kernel},
                    {"frequencyHz", info.status.frequency_hz},
                    {"probes", std::move(probes)},
                    {"cpuNsPerS", static_cast<uint64_t>(cpu_ns_per_s)},
                    {"rssBytes", Number(numbers.rss_bytes)},
                    {"taken", Number(numbers.taken)},
                    {"delivered", Number(numbers.delivered)},
                    {"dropped", std::move(dropped)}});
  }
  return JsonReply({{"nodes", std::move(list)}});
}

StatusOr<HttpReply> GetContainers(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const RecentWindows recent, RecentWindows::Read(context, profile::kTypeCpu, range));
  ASSIGN_OR_RETURN(const std::vector<query::ContainerSummary> summaries, context.engine->Containers(range));
  ASSIGN_OR_RETURN(const CpuNumbers cpu, ReadCpu(context, range, recent));
  std::map<Place, uint64_t> syscalls;
  RETURN_IF_ERROR(
      ScanType(context, profile::kTypeSyscallLatency, recent.scan(), [&](const LabelSet& labels, const WindowTotal& w) {
        if (recent.Contains(labels, w.time_ns)) syscalls[PlaceOf(labels)] += w.count;
      }));
  std::map<Place, profile::Histogram> rtt;
  RETURN_IF_ERROR(ScanHistogramType(context, profile::kTypeTcpRtt, recent.scan(),
                                    [&](const LabelSet& labels, const store::HistogramWindow& w) {
                                      if (recent.Contains(labels, w.time_ns)) rtt[PlaceOf(labels)].Merge(w.histogram);
                                    }));

  struct Row {
    double cores = 0;
    OrderedJson json;
  };
  std::vector<Row> rows;
  uint64_t window_ns = 0;
  for (const query::ContainerSummary& summary : summaries) {
    const Place place =
        PlaceOf(summary.node, summary.container_id, summary.labels.Get(profile::kLabelContainerName), summary.service);
    const auto numbers = cpu.places.find(place);
    if (numbers == cpu.places.end()) continue;  // came in between the two questions
    const uint64_t covered = cpu.Covered(summary.node, recent.Of(summary.node));
    window_ns = std::max(window_ns, covered);
    const double cores =
        covered == 0 ? 0 : static_cast<double>(numbers->second.recent_cpu_ns) / static_cast<double>(covered);
    OrderedJson spark = OrderedJson::array();
    for (const auto& [start, value] : numbers->second.steps) {
      const uint64_t length = cpu.Covered(summary.node, {start, start + cpu.step_ns});
      if (length == 0) continue;
      spark.push_back({{"t", ToMs(start)}, {"v", static_cast<double>(value) / static_cast<double>(length)}});
    }
    LabelSet labels = summary.labels;
    labels = labels.With(profile::kLabelNode, summary.node).With(profile::kLabelService, summary.service);
    if (!summary.container_id.empty()) labels = labels.With(profile::kLabelContainerId, summary.container_id);
    if (!summary.container_name.empty()) labels = labels.With(profile::kLabelContainerName, summary.container_name);
    const auto calls = syscalls.find(place);
    const auto round_trip = rtt.find(place);
    rows.push_back({cores,
                    {{"labels", LabelsJson(labels)},
                     {"isHost", summary.container_id.empty() && summary.container_name.empty()},
                     {"cores", cores},
                     {"samples", Number(numbers->second.recent_samples)},
                     {"spark", std::move(spark)},
                     {"syscalls", Number(calls == syscalls.end() ? 0 : calls->second)},
                     {"rttP50Ns", round_trip == rtt.end() || round_trip->second.empty()
                                      ? OrderedJson(nullptr)
                                      : Number(round_trip->second.Quantile(0.5))}}});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.cores > b.cores; });
  OrderedJson list = OrderedJson::array();
  for (Row& row : rows) list.push_back(std::move(row.json));
  return JsonReply(
      {{"windowNs", Number(window_ns)}, {"newestMs", ToMs(recent.newest_ns())}, {"containers", std::move(list)}});
}

StatusOr<HttpReply> GetTypes(const ApiContext& context, const HttpRequest&) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   context.engine->reader().ProfileTypes(context.engine->tenant()));
  OrderedJson list = OrderedJson::array();
  for (const std::string& name : names) {
    const ProfileType type = TypeInfo(name);
    list.push_back({{"name", name},
                    {"kind", std::string(KindName(type.kind))},
                    {"unit", std::string(type.unit)},
                    {"help", std::string(type.help)}});
  }
  return JsonReply({{"types", std::move(list)}});
}

StatusOr<HttpReply> GetLabels(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(store::SeriesFilter filter, ParseFilter(request.Param("query")));
  filter.tenant = context.engine->tenant();
  ASSIGN_OR_RETURN(const std::vector<std::string> names, context.engine->reader().LabelNames(filter));
  return JsonReply({{"labels", names}});
}

StatusOr<HttpReply> GetLabelValues(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<std::string> values,
                   context.questions->LabelValues({.label = std::string(request.Param("label")),
                                                   .query = std::string(request.Param("query")),
                                                   .tenant = context.engine->tenant()}));
  return JsonReply({{"values", values}});
}

StatusOr<HttpReply> GetTenants(const ApiContext& context, const HttpRequest&) {
  ASSIGN_OR_RETURN(const std::vector<store::TenantInfo> tenants, context.engine->reader().Tenants());
  OrderedJson list = OrderedJson::array();
  for (const store::TenantInfo& tenant : tenants) {
    if (!context.grant.MaySee(tenant.tenant)) continue;
    list.push_back({{"tenant", tenant.tenant},
                    {"series", Number(tenant.series)},
                    {"stacks", Number(tenant.nodes)},
                    {"bytes", Number(tenant.bytes)},
                    {"samples", Number(tenant.samples)},
                    {"foldedSamples", Number(tenant.folded_samples)},
                    {"foldedPoints", Number(tenant.folded_series)},
                    {"throttled", Number(tenant.throttled)},
                    {"keptSinceMs", ToMs(tenant.kept_since_ns)}});
  }
  return JsonReply({{"tenants", std::move(list)}});
}

StatusOr<HttpReply> ListSessionsCall(const ApiContext& context, const HttpRequest&) {
  OrderedJson list = OrderedJson::array();
  for (const rpc::SessionInfo& info : context.sessions->List(context.engine->tenant()))
    list.push_back(SessionJson(info));
  return JsonReply({{"sessions", std::move(list)}});
}

StatusOr<HttpReply> StartSessionCall(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckJsonBody(request));
  ASSIGN_OR_RETURN(rpc::SessionSpec spec, ParseSessionSpec(request.body));
  spec.tenant = context.engine->tenant();
  ASSIGN_OR_RETURN(const rpc::SessionInfo info, context.questions->StartSession(spec));
  return JsonReply(SessionJson(info));
}

StatusOr<HttpReply> StopSessionCall(const ApiContext& context, const HttpRequest& request) {
  const std::string id = request.path.substr(request.path.rfind('/') + 1);
  ASSIGN_OR_RETURN(const rpc::SessionInfo known, context.sessions->Get(id));
  if (!context.grant.MaySee(known.spec.tenant)) return NotFoundError(StrFormat("no session %s", ToUtf8(id)));
  ASSIGN_OR_RETURN(const rpc::SessionInfo info, context.sessions->Stop(id));
  return JsonReply(SessionJson(info));
}

}  // namespace pyrometer::server

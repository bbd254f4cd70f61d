#include "userspace/server/questions.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/query/flame_merge.h"
#include "userspace/query/selector.h"
#include "userspace/server/profile_types.h"

namespace pyrometer::server {

StatusOr<store::SeriesFilter> ParseFilter(std::string_view text) {
  if (StripWhitespace(text).empty()) return store::SeriesFilter{};
  // The parser wants a type; this one stands for "left out" and is no type of anybody's.
  constexpr std::string_view kAnyType = "pyrometer:any";
  ASSIGN_OR_RETURN(const query::Selector selector, query::ParseSelector(text, kAnyType));
  store::SeriesFilter filter = selector.Filter();
  if (filter.type == kAnyType) filter.type.clear();
  return filter;
}

StatusOr<profile::Profile> StacksOf(const query::Engine& engine, const query::Selector& selector,
                                    store::TimeRange range, const std::vector<std::string>& by, uint64_t min_ns,
                                    uint64_t max_ns) {
  switch (TypeInfo(selector.type).kind) {
    case TypeKind::kProfile:
      return engine.MergeProfile(selector, range, {.group_by = by});
    case TypeKind::kHistogram: {
      ASSIGN_OR_RETURN(
          query::ExemplarResult result,
          engine.ExemplarProfile(selector, range, min_ns, max_ns == 0 ? std::numeric_limits<uint64_t>::max() : max_ns));
      if (by.empty()) return std::move(result.profile);
      // The engine keeps labels with each exemplar, not on the profile's samples.
      profile::Profile labelled = profile::CopyHeader(result.profile);
      labelled.dictionary = std::move(result.profile.dictionary);
      for (const query::ExemplarRow& row : result.exemplars) {
        const profile::LabelSetId labels = labelled.dictionary.InternLabelSet(row.labels.Only(by));
        labelled.Add(labels, row.stack, {1, static_cast<int64_t>(std::min<uint64_t>(row.value, INT64_MAX))});
      }
      return labelled;
    }
    case TypeKind::kCounter:
      break;
  }
  return InvalidArgumentError(
      StrFormat("%s is a counter and has no stacks; ask for its series over time (command "
                "`series`, call /api/v1/series)",
                selector.type));
}

StatusOr<store::TimeRange> Questions::Range(int64_t from_ns, int64_t to_ns) const {
  const store::TimeRange range{from_ns, to_ns == 0 ? now_() : to_ns};
  if (range.from_ns > range.to_ns) return InvalidArgumentError("the range ends before it begins");
  return range;
}

StatusOr<rpc::StoreStatus> Questions::GetStatus() {
  ASSIGN_OR_RETURN(const store::StoreStats stats, engine_.reader().Stats());
  return rpc::StoreStatus{.version = std::string(kVersion),
                          .bytes = stats.disk_bytes,
                          .series = stats.series,
                          .stacks = stats.stacks,
                          .batches = stats.batches,
                          .samples = stats.samples,
                          .memory_bytes = stats.memory_bytes};
}

template <typename Request>
StatusOr<Questions::Merge> Questions::Begin(const Request& request) {
  ASSIGN_OR_RETURN(query::Selector selector, query::ParseSelector(request.query, profile::kTypeCpu));
  ASSIGN_OR_RETURN(const store::TimeRange range, Range(request.from_ns, request.to_ns));
  ASSIGN_OR_RETURN(std::unique_ptr<QuestionGate::Pass> pass, gate_.Enter());
  query::Engine engine = engine_.For(request.tenant, pass->budget());
  engine.set_late_names(symbols_);
  return Merge{std::move(selector), range, std::move(pass), engine};
}

StatusOr<profile::Profile> Questions::MergeProfile(const rpc::MergeProfileRequest& request) {
  ASSIGN_OR_RETURN(const Merge merge, Begin(request));
  ASSIGN_OR_RETURN(profile::Profile profile,
                   StacksOf(merge.engine, merge.selector, merge.range, request.by, request.min_ns, request.max_ns));
  if (symbols_ != nullptr) symbols_->Name(&profile);
  return profile;
}

StatusOr<profile::Profile> Questions::MergeFlame(const rpc::MergeFlameRequest& request) {
  ASSIGN_OR_RETURN(const Merge merge, Begin(request));
  const query::FlameMergeOptions options{.root_labels = request.by, .min_share = request.min_share};
  if (TypeInfo(merge.selector.type).kind != TypeKind::kProfile) {
    // Exemplars: some hundred stacks.
    ASSIGN_OR_RETURN(profile::Profile profile, StacksOf(merge.engine, merge.selector, merge.range, request.by, 0, 0));
    if (symbols_ != nullptr) symbols_->Name(&profile);
    return profile::ToProfile(query::FlameOf(profile, options));
  }
  ASSIGN_OR_RETURN(const profile::FlameGraph flame,
                   query::MergeFlame(merge.engine, merge.selector, merge.range, options));
  if (symbols_ != nullptr) symbols_->Want(flame);
  return profile::ToProfile(flame);
}

StatusOr<rpc::MergeTopReply> Questions::MergeTop(const rpc::MergeTopRequest& request) {
  ASSIGN_OR_RETURN(const Merge merge, Begin(request));
  // The header, with one sample that has the totals.
  const auto totals_of = [](const profile::Profile& header, int64_t samples, int64_t value) {
    profile::Profile totals = profile::CopyHeader(header);
    const int64_t both[] = {samples, value};
    if (samples != 0) totals.Add(0, profile::kEmptyStack, std::span(both, totals.value_types.size()));
    return totals;
  };
  if (TypeInfo(merge.selector.type).kind != TypeKind::kProfile) {
    ASSIGN_OR_RETURN(profile::Profile profile, StacksOf(merge.engine, merge.selector, merge.range, request.by, 0, 0));
    if (symbols_ != nullptr) symbols_->Name(&profile);
    return rpc::MergeTopReply{totals_of(profile, profile.Total(0), profile.Total(1)),
                              query::TopByLabels(profile, request.rows, request.order)};
  }
  ASSIGN_OR_RETURN(query::MergedTop top,
                   query::MergeTop(merge.engine, merge.selector, merge.range,
                                   {.rows = request.rows, .order = request.order, .by = request.by}));
  if (symbols_ != nullptr) symbols_->Want(top.build_ids);
  return rpc::MergeTopReply{totals_of(top.header, top.samples, top.value), std::move(top.tops)};
}

StatusOr<rpc::SymbolUpload> Questions::UploadSymbols(const std::string& name,
                                                     const std::function<StatusOr<std::string>()>& next) {
  if (symbols_ == nullptr) return UnimplementedError("this store keeps no symbols");
  ASSIGN_OR_RETURN(const auto upload, symbols_->Begin(name));
  while (true) {
    ASSIGN_OR_RETURN(const std::string piece, next());
    if (piece.empty()) break;
    RETURN_IF_ERROR(upload->Write(piece));
  }
  ASSIGN_OR_RETURN(const LateSymbols::File file, upload->Finish());
  return rpc::SymbolUpload{.build_id = file.build_id.hex,
                           .bytes = file.bytes,
                           .replaced = file.replaced,
                           .functions = file.functions,
                           .has_lines = file.has_lines};
}

StatusOr<rpc::TimeSeriesReply> Questions::TimeSeries(const rpc::TimeSeriesRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, query::ParseSelector(request.query, profile::kTypeCpu));
  ASSIGN_OR_RETURN(const store::TimeRange range, Range(request.from_ns, request.to_ns));
  ASSIGN_OR_RETURN(const std::unique_ptr<QuestionGate::Pass> pass, gate_.Enter());
  ASSIGN_OR_RETURN(
      const std::vector<query::TimeSeriesRow> rows,
      engine_.For(request.tenant, pass->budget()).TimeSeries(selector, range, request.step_ns, request.by));
  rpc::TimeSeriesReply reply{.unit = std::string(TypeInfo(selector.type).unit)};
  for (const query::TimeSeriesRow& row : rows) {
    rpc::TimeSeriesRow& to = reply.series.emplace_back();
    to.labels = row.labels;
    for (const query::SeriesPoint& point : row.points) {
      to.times_ns.push_back(point.time_ns);
      to.values.push_back(static_cast<double>(point.value));
      to.counts.push_back(point.count);
    }
  }
  return reply;
}

StatusOr<std::vector<rpc::LabelledHistogram>> Questions::Histograms(const rpc::HistogramsRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, query::ParseSelector(request.query, profile::kTypeSyscallLatency));
  ASSIGN_OR_RETURN(const store::TimeRange range, Range(request.from_ns, request.to_ns));
  ASSIGN_OR_RETURN(const std::unique_ptr<QuestionGate::Pass> pass, gate_.Enter());
  const query::Engine engine = engine_.For(request.tenant, pass->budget());
  ASSIGN_OR_RETURN(std::vector<query::HistogramRow> rows, request.latest
                                                              ? engine.LatestHistograms(selector, range, request.by)
                                                              : engine.Histograms(selector, range, request.by));
  std::vector<rpc::LabelledHistogram> histograms;
  for (query::HistogramRow& row : rows) {
    histograms.push_back({std::move(row.labels), std::move(row.histogram), std::move(row.errors)});
  }
  return histograms;
}

StatusOr<std::vector<rpc::CallExample>> Questions::Exemplars(const rpc::ExemplarsRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, query::ParseSelector(request.query, profile::kTypeSyscallLatency));
  if (TypeInfo(selector.type).kind != TypeKind::kHistogram) {
    return InvalidArgumentError(StrFormat("%s is no histogram: it has no single calls", selector.type));
  }
  ASSIGN_OR_RETURN(const store::TimeRange range, Range(request.from_ns, request.to_ns));
  ASSIGN_OR_RETURN(const std::unique_ptr<QuestionGate::Pass> pass, gate_.Enter());
  ASSIGN_OR_RETURN(query::ExemplarResult result,
                   engine_.For(request.tenant, pass->budget())
                       .ExemplarProfile(selector, range, request.min_ns,
                                        request.max_ns == 0 ? std::numeric_limits<uint64_t>::max() : request.max_ns,
                                        request.drawn ? query::ExemplarKind::kDrawn : query::ExemplarKind::kSlow));
  const profile::Dictionary& dictionary = result.profile.dictionary;
  std::vector<rpc::CallExample> examples;
  for (query::ExemplarRow& row : result.exemplars) {
    if (examples.size() == request.limit) break;
    rpc::CallExample& to = examples.emplace_back();
    to.frames = query::StackNames(dictionary, row.stack);
    to.waker_frames = query::StackNames(dictionary, row.waker.stack);
    to.labels = std::move(row.labels);
    to.exemplar = {.time_ns = row.time_ns, .value = row.value, .comm = std::move(row.comm), .tid = row.tid};
    to.exemplar.call = std::move(row.call);
    to.exemplar.weight = row.weight;
    to.exemplar.typical = row.typical;
    to.exemplar.split = std::move(row.split);
    to.exemplar.waker = std::move(row.waker);
    to.exemplar.waker.stack = profile::kEmptyStack;  // of a dictionary that does not travel along
  }
  return examples;
}

StatusOr<std::vector<rpc::NodeInfo>> Questions::ListNodes(const std::string& tenant) {
  ASSIGN_OR_RETURN(const std::vector<store::AgentInfo> stored, engine_.reader().Agents());
  return registry_.List(tenant, stored);
}

StatusOr<std::vector<std::string>> Questions::LabelValues(const rpc::LabelValuesRequest& request) {
  if (request.label.empty()) return InvalidArgumentError("which label? Name one, for example node");
  ASSIGN_OR_RETURN(store::SeriesFilter filter, ParseFilter(request.query));
  filter.tenant = request.tenant;
  return engine_.reader().LabelValues(request.label, filter);
}

StatusOr<rpc::SessionInfo> Questions::StartSession(const rpc::SessionSpec& spec) {
  ASSIGN_OR_RETURN(const std::vector<rpc::NodeInfo> nodes, ListNodes(spec.tenant));
  const auto known = [&] {
    std::vector<std::string> names;
    for (const rpc::NodeInfo& node : nodes) {
      // Some agents share a node name; enough to choose from.
      if (names.size() == 20) {
        names.push_back("…");
        break;
      }
      if (names.empty() || names.back() != node.node) names.push_back(node.node);
    }
    return names.empty() ? std::string("none has connected yet") : Join(names, ", ");
  };
  if (spec.node.empty()) return InvalidArgumentError(StrFormat("which node? Known: %s", known()));
  if (const std::optional<AgentRegistry::Online> agent = registry_.FindNode(spec.tenant, spec.node)) {
    return sessions_.Start(spec, *agent);
  }
  for (const rpc::NodeInfo& node : nodes) {
    if (node.node != spec.node) continue;
    return UnavailableError(
        StrFormat("node %s is offline, last seen %s ago; its agent must run and reach this store", spec.node,
                  FormatDurationNs(static_cast<uint64_t>(std::max<int64_t>(0, now_() - node.last_seen_ns)))));
  }
  return NotFoundError(StrFormat("no node '%s'; known: %s", ToUtf8(spec.node), known()));
}

}  // namespace pyrometer::server

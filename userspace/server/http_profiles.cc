// Calls that answer with values over time, flame graphs, tables and files.
#include <utility>

#include "ui-export/formats/format.h"
#include "ui-export/formats/viewer_json.h"
#include "userspace/base/strings.h"
#include "userspace/base/utc.h"
#include "userspace/profile/batch.h"
#include "userspace/query/flame_merge.h"
#include "userspace/query/function_history.h"
#include "userspace/server/http_api.h"
#include "userspace/server/profile_types.h"
#include "userspace/server/reshape.h"

namespace pyrometer::server {
namespace {

// The page draws 100,000 frames smoothly; more than this is megabytes of JSON that nobody can see.
constexpr uint64_t kDefaultMaxNodes = 200'000;
constexpr uint64_t kMaxMaxNodes = 10'000'000;
constexpr uint64_t kMaxTopRows = 100'000;
constexpr size_t kMaxFocus = 16 << 10;  // deeper stacks are not stored

StatusOr<profile::Profile> ReadStacks(const ApiContext& context, const HttpRequest& request,
                                      const query::Selector& selector, const std::vector<std::string>& by) {
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const uint64_t min_ns, request.Uint("minNs", 0, UINT64_MAX));
  ASSIGN_OR_RETURN(const uint64_t max_ns, request.Uint("maxNs", 0, UINT64_MAX));
  ASSIGN_OR_RETURN(profile::Profile profile, StacksOf(*context.engine, selector, range, by, min_ns, max_ns));
  if (context.questions->symbols() != nullptr) context.questions->symbols()->Name(&profile);
  return profile;
}

// {"focus":["main","work"]}
StatusOr<std::vector<std::string>> FocusOfBody(const HttpRequest& request) {
  RETURN_IF_ERROR(CheckJsonBody(request));
  const Json body = Json::parse(request.body, nullptr, false);
  const auto malformed = [] { return InvalidArgumentError("expected a body of {\"focus\":[\"NAME\",…]}"); };
  if (!body.is_object() || body.size() != 1 || !body.contains("focus") || !body["focus"].is_array()) return malformed();
  std::vector<std::string> focus;
  for (const Json& name : body["focus"]) {
    if (!name.is_string()) return malformed();
    focus.push_back(name.get<std::string>());
  }
  return focus;
}

// Names from the root; one per line, or in a body where an address would be too long for them.
StatusOr<std::vector<std::string>> ReadFocus(const HttpRequest& request) {
  std::vector<std::string> focus;
  if (request.method == "POST") {
    ASSIGN_OR_RETURN(focus, FocusOfBody(request));
  } else if (!request.Param("focus").empty()) {
    for (const std::string_view name : Split(request.Param("focus"), '\n')) focus.emplace_back(name);
  }
  if (focus.size() > kMaxFocus) {
    return InvalidArgumentError(StrFormat("focus: %d names, at most %d are taken", focus.size(), kMaxFocus));
  }
  return focus;
}

struct FileKind {
  formats::Format format;
  std::string_view extension;
  std::string_view content_type;
  bool packed;  // gzip already
};
constexpr FileKind kFileKinds[] = {
    {formats::Format::kPprof, "pb.gz", "application/octet-stream", true},
    {formats::Format::kFolded, "folded", "text/plain; charset=utf-8", false},
    {formats::Format::kSpeedscope, "speedscope.json", "application/json", false},
    {formats::Format::kHtml, "html", "text/html; charset=utf-8", false},
    {formats::Format::kSvg, "svg", "image/svg+xml", false},
    {formats::Format::kJson, "json", "application/json", false},
};

// "pyrometer-cpu-20261123-224000.pb.gz"
std::string FileName(std::string_view type, int64_t time_ns, std::string_view extension) {
  return StrFormat("pyrometer-%s-%s.%s", type, FormatUtc(time_ns, "%Y%m%d-%H%M%S"), extension);
}

}  // namespace

StatusOr<HttpReply> GetSeries(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeCpu));
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const uint64_t step_ns, request.Duration("step", kDefaultStepNs));
  if (step_ns == 0) return InvalidArgumentError("step: expected a duration above 0, for example 10s");
  ASSIGN_OR_RETURN(const std::vector<query::TimeSeriesRow> rows,
                   context.engine->TimeSeries(selector, range, step_ns, request.List("by")));
  const ProfileType type = TypeInfo(selector.type);
  OrderedJson list = OrderedJson::array();
  for (const query::TimeSeriesRow& row : rows) {
    OrderedJson points = OrderedJson::array(), counts = OrderedJson::array();
    for (const query::SeriesPoint& point : row.points) {
      points.push_back({ToMs(point.time_ns), Number(point.value)});
      counts.push_back({ToMs(point.time_ns), Number(point.count)});
    }
    OrderedJson json = {{"labels", LabelsJson(row.labels)}, {"points", std::move(points)}};
    if (type.kind == TypeKind::kHistogram) json["counts"] = std::move(counts);
    list.push_back(std::move(json));
  }
  return JsonReply({{"unit", std::string(type.unit)}, {"stepNs", Number(step_ns)}, {"series", std::move(list)}});
}

StatusOr<HttpReply> GetFlame(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeCpu));
  ASSIGN_OR_RETURN(uint64_t max_nodes, request.Uint("maxNodes", kDefaultMaxNodes, kMaxMaxNodes));
  if (max_nodes == 0) max_nodes = kDefaultMaxNodes;
  const std::vector<std::string> by = request.List("by");
  ASSIGN_OR_RETURN(const std::vector<std::string> focus, ReadFocus(request));
  if (TypeInfo(selector.type).kind == TypeKind::kProfile) {
    ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
    ASSIGN_OR_RETURN(const profile::FlameGraph flame,
                     query::MergeFlame(*context.engine, selector, range,
                                       {.root_labels = by, .max_nodes = max_nodes, .focus = focus}));
    if (context.questions->symbols() != nullptr) context.questions->symbols()->Want(flame);
    return TextReply(200, "application/json", formats::ViewerJson(flame, selector.ToString()));
  }
  if (!focus.empty()) return InvalidArgumentError("focus: only for types of samples");
  ASSIGN_OR_RETURN(profile::Profile profile, ReadStacks(context, request, selector, by));
  if (!by.empty()) profile = RootAtLabels(profile, by);
  profile = LimitNodes(std::move(profile), max_nodes);
  return TextReply(200, "application/json", formats::ViewerJson(profile, selector.ToString()));
}

StatusOr<HttpReply> GetTop(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeCpu));
  ASSIGN_OR_RETURN(const uint64_t limit, request.Uint("limit", 100, kMaxTopRows));
  profile::TopTable table;
  std::string unit;
  if (TypeInfo(selector.type).kind == TypeKind::kProfile) {
    ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
    ASSIGN_OR_RETURN(query::MergedTop top, query::MergeTop(*context.engine, selector, range, {.rows = limit}));
    if (context.questions->symbols() != nullptr) context.questions->symbols()->Want(top.build_ids);
    table = std::move(top.tops.front().table);
    unit = top.header.value_types[top.header.default_value].unit;
  } else {
    ASSIGN_OR_RETURN(const profile::Profile profile, ReadStacks(context, request, selector, {}));
    table = query::TopFunctions(profile, limit);
    unit = profile.value_types[profile.default_value].unit;
  }
  OrderedJson functions = OrderedJson::array();
  for (const profile::FunctionCost& row : table.rows) {
    functions.push_back({{"name", row.name},
                         {"file", row.file},
                         {"module", row.module},
                         {"kind", static_cast<int>(row.kind)},
                         {"self", row.self},
                         {"total", row.total}});
  }
  return JsonReply({{"unit", unit}, {"total", table.total}, {"functions", std::move(functions)}});
}

StatusOr<HttpReply> GetFunction(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeCpu));
  ASSIGN_OR_RETURN(const store::TimeRange range, ReadRange(context, request));
  ASSIGN_OR_RETURN(const std::vector<query::FunctionPoint> points,
                   query::FunctionHistory(*context.engine, selector, request.Param("name"), range));
  OrderedJson list = OrderedJson::array();
  for (const query::FunctionPoint& point : points) {
    list.push_back({ToMs(point.time_ns), Number(point.self), Number(point.total)});
  }
  return JsonReply({{"unit", std::string(TypeInfo(selector.type).unit)}, {"points", std::move(list)}});
}

StatusOr<HttpReply> GetExport(const ApiContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const query::Selector selector, ReadSelector(request, profile::kTypeCpu));
  const std::string_view name = request.Param("format");
  ASSIGN_OR_RETURN(const formats::Format format, formats::FormatFromName(name.empty() ? "pprof" : name));
  // Files keep the container, so that a reader can tell them apart later.
  std::vector<std::string> by = request.List("by");
  if (request.Param("by").empty()) {
    by = {std::string(profile::kLabelNode), std::string(profile::kLabelContainerName),
          std::string(profile::kLabelService)};
  }
  ASSIGN_OR_RETURN(const profile::Profile profile, ReadStacks(context, request, selector, by));
  ASSIGN_OR_RETURN(std::string content, formats::Serialize(profile, format, {.title = selector.ToString()}));
  for (const FileKind& kind : kFileKinds) {
    if (kind.format != format) continue;
    HttpReply reply = TextReply(200, std::string(kind.content_type), std::move(content));
    const int64_t time_ns = profile.time_ns != 0 ? profile.time_ns : context.now();
    reply.headers.emplace_back("Content-Disposition", StrFormat("attachment; filename=\"%s\"",
                                                                FileName(selector.type, time_ns, kind.extension)));
    reply.compressible = !kind.packed;
    return reply;
  }
  return InternalError("a format without a file name");
}

}  // namespace pyrometer::server

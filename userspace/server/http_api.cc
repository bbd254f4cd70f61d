#include "userspace/server/http_api.h"

#include <algorithm>

#include "ui-export/formats/web_assets.h"
#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

struct Route {
  std::string_view method;
  std::string_view path;
  ApiCall* call;
  bool reads_data = true;  // takes its turn among the questions
};

constexpr std::string_view kSessionPrefix = "/api/v1/sessions/";

constexpr Route kRoutes[] = {
    {"GET", "/api/v1/status", GetStatusCall, false},
    {"GET", "/api/v1/nodes", GetNodes},
    {"GET", "/api/v1/containers", GetContainers},
    {"GET", "/api/v1/types", GetTypes},
    {"GET", "/api/v1/labels", GetLabels},
    {"GET", "/api/v1/label-values", GetLabelValues},
    {"GET", "/api/v1/series", GetSeries},
    {"GET", "/api/v1/flame", GetFlame},
    {"POST", "/api/v1/flame", GetFlame},
    {"GET", "/api/v1/top", GetTop},
    {"GET", "/api/v1/function", GetFunction},
    {"GET", "/api/v1/export", GetExport},
    {"GET", "/api/v1/histograms", GetHistograms},
    {"GET", "/api/v1/heatmap", GetHeatmap},
    {"GET", "/api/v1/exemplars", GetExemplars},
    {"GET", "/api/v1/peers", GetPeers},
    {"GET", "/api/v1/tenants", GetTenants, false},
    {"GET", "/api/v1/sessions", ListSessionsCall, false},
    {"POST", "/api/v1/sessions", StartSessionCall, false},
    {"DELETE", kSessionPrefix, StopSessionCall, false},
    {"GET", "/metrics", GetMetrics, false},
};

bool Matches(const Route& route, std::string_view path) {
  return route.path.ends_with('/') ? path.starts_with(route.path) : path == route.path;
}

HttpReply AssetReply(const formats::WebAsset& asset, const HttpRequest& request) {
  HttpReply reply;
  // Names below assets/ change with their content; index.html is looked at again each time.
  const bool immutable = asset.path.starts_with("assets/");
  reply.headers.emplace_back("Cache-Control", immutable ? "public, max-age=31536000, immutable" : "no-cache");
  reply.headers.emplace_back("ETag", std::string(asset.etag));
  const std::string_view known = request.Header("if-none-match");
  if (known == "*" || known.find(asset.etag) != std::string_view::npos) {
    reply.status = 304;
    return reply;
  }
  reply.content_type = std::string(asset.mime_type);
  reply.body = std::make_shared<const std::string>(asset.content);
  // Pictures and fonts are packed already.
  reply.compressible =
      asset.mime_type.starts_with("text/") || asset.mime_type.find("javascript") != std::string::npos ||
      asset.mime_type.find("json") != std::string::npos || asset.mime_type.find("svg") != std::string::npos;
  return reply;
}

HttpReply PageReply(const HttpRequest& request) {
  if (const formats::WebAsset* asset = formats::FindWebAsset(request.path)) return AssetReply(*asset, request);
  const std::string_view path = request.path;
  const std::string_view last = path.substr(path.rfind('/') == std::string_view::npos ? 0 : path.rfind('/') + 1);
  // The page's own addresses have no dot; a file that is not there, or a way out of the folder, must not turn into the
  // page.
  if (last.find('.') == std::string_view::npos && path.find("..") == std::string_view::npos) {
    if (const formats::WebAsset* index = formats::FindWebAsset("index.html")) return AssetReply(*index, request);
    return TextReply(404, "text/plain; charset=utf-8",
                     "This pyrometer was built without its page. The API is at /api/v1/status.\n");
  }
  return ErrorReply(NotFoundError(StrFormat("no file %s", ToUtf8(path))));
}

// Header as Cortex, Mimir and Pyroscope have it, or parameter; the header counts.
StatusOr<std::string> TenantOf(const HttpRequest& request, const rpc::Grant& grant) {
  std::string_view tenant = request.Header("x-scope-orgid");
  if (tenant.empty()) tenant = request.Param("tenant");
  if (!store::IsTenantName(tenant)) {
    return InvalidArgumentError(StrFormat("'%s' is no tenant name", ToUtf8(tenant)));
  }
  return grant.TenantFor(tenant);
}

}  // namespace

StatusOr<store::TimeRange> ReadRange(const ApiContext& context, const HttpRequest& request) {
  // Replies say their range in milliseconds: who asks for it again gets the same windows.
  const int64_t now = context.now() / static_cast<int64_t>(kNsPerMs) * static_cast<int64_t>(kNsPerMs);
  store::TimeRange range;
  ASSIGN_OR_RETURN(range.from_ns, request.Time("from", now, "-15m"));
  ASSIGN_OR_RETURN(range.to_ns, request.Time("to", now, "now"));
  if (range.from_ns > range.to_ns) return InvalidArgumentError("the range ends (to) before it begins (from)");
  return range;
}

Status CheckJsonBody(const HttpRequest& request) {
  // Pages of other sites can send forms and text without asking first, but not JSON.
  std::string_view type = request.Header("content-type");
  type = StripWhitespace(type.substr(0, type.find(';')));
  if (type != "application/json") {
    return InvalidArgumentError("send the body as JSON, with Content-Type: application/json");
  }
  return OkStatus();
}

StatusOr<query::Selector> ReadSelector(const HttpRequest& request, std::string_view default_type) {
  const std::string_view text = request.Param("query");
  if (StripWhitespace(text).empty()) return query::Selector{.type = std::string(default_type)};
  return query::ParseSelector(text, default_type);
}

OrderedJson LabelsJson(const profile::LabelSet& labels) {
  OrderedJson json = OrderedJson::object();
  for (const profile::Label& label : labels.labels()) json[label.name] = label.value;
  return json;
}

OrderedJson Number(uint64_t value) {
  constexpr uint64_t kMaxSafeInteger = (uint64_t{1} << 53) - 1;
  return std::min(value, kMaxSafeInteger);
}

int64_t ToMs(int64_t time_ns) { return time_ns / static_cast<int64_t>(kNsPerMs); }

HttpReply HttpApi::Answer(const HttpRequest& request) const {
  const uint64_t before = MonotonicNowNs();
  HttpReply reply = Dispatch(request);
  context_.counters->http_ns += MonotonicNowNs() - before;
  const size_t hundreds = static_cast<size_t>(reply.status) / 100;
  if (hundreds < context_.counters->http_replies.size()) ++context_.counters->http_replies[hundreds];
  return reply;
}

HttpReply HttpApi::Dispatch(const HttpRequest& request) const {
  const std::string_view path = request.path;
  const std::string_view method = request.method == "HEAD" ? std::string_view("GET") : request.method;
  const bool is_api = path == "/metrics" || path == "/api" || path.starts_with("/api/");
  if (!is_api) {
    if (method == "GET") return PageReply(request);
    return ErrorReply(405, "unimplemented", "the page is read-only");
  }
  std::vector<std::string_view> authorization;
  if (const std::string_view header = request.Header("authorization"); !header.empty()) authorization.push_back(header);
  const StatusOr<rpc::Grant> grant = context_.tokens.Check(authorization);
  if (!grant.ok()) {
    return ErrorReply(UnauthenticatedError(authorization.empty()
                                               ? "this store asks for a token: send it as Authorization: Bearer …"
                                               : "the token is not the store's"));
  }
  std::string allowed;
  for (const Route& route : kRoutes) {
    if (!Matches(route, path)) continue;
    if (route.method != method) {
      allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
      continue;
    }
    const StatusOr<std::string> tenant = TenantOf(request, *grant);
    if (!tenant.ok()) return ErrorReply(tenant.status());
    std::unique_ptr<QuestionGate::Pass> pass;
    if (route.reads_data) {
      StatusOr<std::unique_ptr<QuestionGate::Pass>> entered = context_.gate->Enter();
      if (!entered.ok()) return ErrorReply(entered.status());
      pass = *std::move(entered);
    }
    query::Engine engine = context_.engine->For(*tenant, pass == nullptr ? nullptr : pass->budget());
    engine.set_late_names(context_.questions->symbols());
    ApiContext mine = context_;
    mine.engine = &engine;
    mine.grant = *grant;
    StatusOr<HttpReply> reply = route.call(mine, request);
    return reply.ok() ? *std::move(reply) : ErrorReply(reply.status(), request.Param("query"));
  }
  if (allowed.empty()) return ErrorReply(NotFoundError(StrFormat("no call %s; see docs/api.md", ToUtf8(path))));
  HttpReply reply = ErrorReply(405, "unimplemented", StrFormat("%s takes %s", ToUtf8(path), allowed));
  reply.headers.emplace_back("Allow", allowed);
  return reply;
}

}  // namespace pyrometer::server

#include "userspace/server/http_message.h"

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

struct CodeInfo {
  StatusCode code;
  int http;
  std::string_view name;
};
constexpr CodeInfo kCodes[] = {
    {StatusCode::kInvalidArgument, 400, "invalid_argument"},
    {StatusCode::kOutOfRange, 400, "out_of_range"},
    {StatusCode::kUnauthenticated, 401, "unauthenticated"},
    {StatusCode::kPermissionDenied, 403, "permission_denied"},
    {StatusCode::kNotFound, 404, "not_found"},
    {StatusCode::kAlreadyExists, 409, "already_exists"},
    {StatusCode::kFailedPrecondition, 409, "failed_precondition"},
    {StatusCode::kResourceExhausted, 429, "resource_exhausted"},
    {StatusCode::kUnimplemented, 501, "unimplemented"},
    {StatusCode::kUnavailable, 503, "unavailable"},
    {StatusCode::kDeadlineExceeded, 504, "deadline_exceeded"},
    {StatusCode::kDataLoss, 500, "data_loss"},
};

std::string Dump(const OrderedJson& json) { return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace); }

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

size_t CodePoints(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += !IsContinuation(c);
  return count;
}

}  // namespace

std::string_view HttpRequest::Header(std::string_view name) const {
  const auto found = headers.find(std::string(name));
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

std::string_view HttpRequest::Param(std::string_view name) const {
  const auto found = params.find(std::string(name));
  return found == params.end() ? std::string_view() : std::string_view(found->second);
}

StatusOr<uint64_t> HttpRequest::Uint(std::string_view name, uint64_t fallback, uint64_t limit) const {
  const std::string_view text = Param(name);
  if (text.empty()) return fallback;
  const std::optional<uint64_t> value = ParseUint64(text);
  if (!value || *value > limit) {
    return InvalidArgumentError(StrFormat("%s=%s: expected a whole number from 0 to %d", name, ToUtf8(text), limit));
  }
  return *value;
}

StatusOr<uint64_t> HttpRequest::Duration(std::string_view name, uint64_t fallback_ns) const {
  const std::string_view text = Param(name);
  if (text.empty()) return fallback_ns;
  const StatusOr<uint64_t> value = ParseDuration(text);
  if (!value.ok()) return WithContext(value.status(), name);
  return *value;
}

StatusOr<int64_t> HttpRequest::Time(std::string_view name, int64_t now_ns, std::string_view fallback) const {
  const std::string_view text = Param(name);
  const StatusOr<int64_t> value = ParseTime(text.empty() ? fallback : text, now_ns);
  if (!value.ok()) return WithContext(value.status(), name);
  return *value;
}

std::vector<std::string> HttpRequest::List(std::string_view name) const {
  std::vector<std::string> parts;
  for (const std::string_view part : Split(Param(name), ',')) {
    const std::string_view stripped = StripWhitespace(part);
    if (!stripped.empty()) parts.emplace_back(stripped);
  }
  return parts;
}

HttpReply TextReply(int status, std::string content_type, std::string body) {
  HttpReply reply;
  reply.status = status;
  reply.content_type = std::move(content_type);
  reply.body = std::make_shared<const std::string>(std::move(body));
  return reply;
}

HttpReply JsonReply(const OrderedJson& json, int status) { return TextReply(status, "application/json", Dump(json)); }

HttpReply ErrorReply(int http_status, std::string_view code, std::string_view message) {
  return JsonReply({{"error", {{"code", std::string(code)}, {"message", std::string(message)}}}}, http_status);
}

HttpReply ErrorReply(const Status& status, std::string_view query) {
  int http = 500;
  std::string_view name = "internal";
  for (const CodeInfo& info : kCodes) {
    if (info.code != status.code()) continue;
    http = info.http;
    name = info.name;
  }
  OrderedJson error = {{"code", std::string(name)}, {"message", std::string(Message(status))}};
  if (const std::optional<size_t> position = SelectorErrorPosition(Message(status), query)) {
    error["position"] = *position;
  }
  HttpReply reply = JsonReply({{"error", std::move(error)}}, http);
  if (http == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

std::optional<size_t> SelectorErrorPosition(std::string_view message, std::string_view query) {
  constexpr std::string_view kPrefix = "selector: ";
  constexpr std::string_view kEllipsis = "…";
  if (!message.starts_with(kPrefix)) return std::nullopt;
  const std::vector<std::string_view> lines = Split(message, '\n');
  if (lines.size() < 3 || !lines.back().ends_with('^')) return std::nullopt;
  const std::string_view caret = lines.back();
  std::string_view shown = lines[lines.size() - 2];
  if (!shown.starts_with("  ") || caret.size() < 3) return std::nullopt;
  shown.remove_prefix(2);
  size_t column = caret.size() - 3;
  if (!shown.starts_with(kEllipsis)) return column;
  // A long selector: only a part around the error is shown. Where does that part stand?
  shown.remove_prefix(kEllipsis.size());
  if (shown.ends_with(kEllipsis)) shown.remove_suffix(kEllipsis.size());
  std::string plain(query);
  for (char& c : plain) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  const size_t at = plain.find(shown);
  if (at == std::string::npos || column == 0) return std::nullopt;
  return CodePoints(std::string_view(plain).substr(0, at)) + column - 1;
}

}  // namespace pyrometer::server

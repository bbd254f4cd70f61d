// HTTP requests and replies as plain values, so that the API is written and tested without sockets.
//
//   StatusOr<int64_t> from = request.Time("from", now, "-15m");
//   return JsonReply({{"version", "0.1.0"}});
//
// Threads: values.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "userspace/base/status.h"

namespace pyrometer::server {

using Json = nlohmann::json;
// Keeps the order in which members are added: replies read as docs/api.md shows them.
using OrderedJson = nlohmann::ordered_json;

struct HttpRequest {
  std::string method;  // "GET", "HEAD", "POST", "DELETE"
  std::string path;    // decoded, with leading slash
  std::string body;
  std::map<std::string, std::string> params;   // decoded; of repeated names the first
  std::map<std::string, std::string> headers;  // names in lower case; of repeated names the first

  // "" when absent.
  std::string_view Header(std::string_view lower_case_name) const;
  std::string_view Param(std::string_view name) const;

  // Typed parameters; an absent or empty one gives the default. INVALID_ARGUMENT names the parameter.
  StatusOr<uint64_t> Uint(std::string_view name, uint64_t fallback, uint64_t limit) const;
  StatusOr<uint64_t> Duration(std::string_view name, uint64_t fallback_ns) const;
  StatusOr<int64_t> Time(std::string_view name, int64_t now_ns, std::string_view fallback) const;
  // Separated by commas; no empty parts.
  std::vector<std::string> List(std::string_view name) const;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  // What is sent; shared, so that constant content is not copied.
  std::shared_ptr<const std::string> body = std::make_shared<const std::string>();
  std::vector<std::pair<std::string, std::string>> headers;
  bool compressible = true;
};

HttpReply TextReply(int status, std::string content_type, std::string body);
HttpReply JsonReply(const OrderedJson& json, int status = 200);
// {"error":{…}} with the fitting HTTP status. `query`: the selector that was asked for; gives "position" when
// the error points into it.
HttpReply ErrorReply(const Status& status, std::string_view query = {});
HttpReply ErrorReply(int http_status, std::string_view code, std::string_view message);

// Character of `query` that a selector error points at (its third line holds a caret).
std::optional<size_t> SelectorErrorPosition(std::string_view message, std::string_view query);

}  // namespace pyrometer::server

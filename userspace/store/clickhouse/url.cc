#include "userspace/store/clickhouse/url.h"

#include <algorithm>
#include <optional>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::store::clickhouse {
namespace {

constexpr size_t kMaxServers = 256;
constexpr size_t kMaxNameBytes = 128;

// Names go into SQL and into paths of ZooKeeper as they are.
bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

// %41 is A.
std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const auto byte = HexDecode(text.substr(i + 1, 2));
    if (!byte || byte->size() != 1) return std::nullopt;
    out += *byte;
    i += 2;
  }
  return out;
}

StatusOr<Address> ParseAddress(std::string_view text, uint16_t default_port) {
  Address address{.port = default_port};
  // [::1]:8123
  const size_t bracket = text.starts_with('[') ? text.find(']') : std::string_view::npos;
  const size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  address.host = text.substr(0, colon);
  if (colon != std::string_view::npos) {
    const auto port = ParseUint64(text.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) {
      return InvalidArgumentError(StrFormat("'%s': the port is a number from 1 to 65535", text));
    }
    address.port = static_cast<uint16_t>(*port);
  }
  const bool sound = !address.host.empty() && std::all_of(address.host.begin(), address.host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(".-_[]:").find(c) != std::string_view::npos;
  });
  if (!sound) return InvalidArgumentError(StrFormat("'%s' is no host name", text));
  return address;
}

Status ApplyParameter(std::string_view name, const std::string& value, Url* url) {
  if (name == "cluster") {
    if (!IsPlainName(value)) return InvalidArgumentError("cluster: letters, digits and _ only");
    url->cluster = value;
  } else if (name == "tls") {
    if (value != "0" && value != "1") return InvalidArgumentError("tls is 0 or 1");
    url->tls = value == "1";
  } else if (name == "ca-file") {
    url->ca_file = value;
  } else if (name == "password-file") {
    ASSIGN_OR_RETURN(const std::string content, ReadFile(value));
    url->password = std::string(StripWhitespace(content));
  } else if (name == "quorum") {
    const auto number = ParseUint64(value);
    if (!number || *number > 100) return InvalidArgumentError("quorum is a number of replicas");
    url->quorum = static_cast<uint32_t>(*number);
  } else if (name == "batch" || name == "patience") {
    const auto duration = ParseDuration(value);
    if (!duration.ok()) return WithContext(duration.status(), name);
    (name == "batch" ? url->interval_ns : url->patience_ns) = *duration;
  } else {
    return InvalidArgumentError(StrFormat(
        "unknown parameter '%s'; there are cluster, quorum, batch, patience, tls, ca-file and password-file", name));
  }
  return OkStatus();
}

StatusOr<Url> Parse(std::string_view text) {
  Url url;
  if (!text.starts_with(kScheme)) return InvalidArgumentError("it begins with clickhouse://");
  text.remove_prefix(kScheme.size());
  std::string_view parameters;
  if (const size_t question = text.find('?'); question != std::string_view::npos) {
    parameters = text.substr(question + 1);
    text = text.substr(0, question);
  }
  if (!parameters.empty()) {
    for (const std::string_view parameter : Split(parameters, '&')) {
      const size_t equals = parameter.find('=');
      if (equals == std::string_view::npos) {
        return InvalidArgumentError(StrFormat("'%s' after the ? has no value; write name=value", parameter));
      }
      const auto value = PercentDecode(parameter.substr(equals + 1));
      if (!value) return InvalidArgumentError(StrFormat("'%s' has a malformed %% code", parameter));
      RETURN_IF_ERROR(ApplyParameter(parameter.substr(0, equals), *value, &url));
    }
  }
  const size_t slash = text.find('/');
  url.database = slash == std::string_view::npos ? "" : std::string(text.substr(slash + 1));
  if (!IsPlainName(url.database)) {
    return InvalidArgumentError("after the servers stands the database, as in /pyrometer: letters, digits and _ only");
  }
  std::string_view servers = text.substr(0, slash);
  if (const size_t at = servers.rfind('@'); at != std::string_view::npos) {
    const std::string_view login = servers.substr(0, at);
    servers.remove_prefix(at + 1);
    const size_t colon = login.find(':');
    const auto user = PercentDecode(login.substr(0, colon));
    const auto password = PercentDecode(colon == std::string_view::npos ? "" : login.substr(colon + 1));
    if (!user || user->empty() || !password) return InvalidArgumentError("before the @ stands user or user:password");
    url.user = *user;
    if (colon != std::string_view::npos) url.password = *password;
  }
  for (const std::string_view server : Split(servers, ',')) {
    ASSIGN_OR_RETURN(Address address, ParseAddress(server, url.tls ? 8443 : 8123));
    url.servers.push_back(std::move(address));
  }
  if (url.servers.size() > kMaxServers) return InvalidArgumentError(StrFormat("more than %d servers", kMaxServers));
  if (url.servers.size() > 1 && url.cluster.empty()) {
    return InvalidArgumentError("several servers need ?cluster=NAME, their name in remote_servers");
  }
  return url;
}

}  // namespace

std::string Address::Text() const { return StrFormat("%s:%d", host, port); }

StatusOr<Url> ParseUrl(std::string_view text) {
  StatusOr<Url> url = Parse(text);
  if (!url.ok()) {
    // Never with the URL itself: it may hold a password.
    return WithContext(url.status(), "--backend clickhouse://host:port[,host:port…]/database[?cluster=NAME]");
  }
  return url;
}

}  // namespace pyrometer::store::clickhouse

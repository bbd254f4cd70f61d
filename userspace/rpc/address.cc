#include "userspace/rpc/address.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::rpc {

StatusOr<HostPort> ParseHostPort(std::string_view address) {
  const auto error = [&] {
    return InvalidArgumentError(
        StrFormat("'%s' is no address: give HOST:PORT, for example 127.0.0.1:7071 or [::1]:7071", ToUtf8(address)));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || address.size() > 300) return error();
  std::string_view host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return error();
  }
  for (const char c : host) {
    if (c <= ' ' || c == '/' || c == '@' || c == '[' || c == ']' || c == 0x7f) return error();
  }
  const std::optional<uint64_t> port = ParseUint64(address.substr(colon + 1));
  if (!port || *port > 65535) return error();
  return HostPort{std::string(host), static_cast<uint16_t>(*port)};
}

bool IsLoopbackHost(std::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  if (!host.starts_with("127.")) return false;
  const std::vector<std::string_view> parts = Split(host, '.');
  if (parts.size() != 4) return false;
  for (const std::string_view part : parts) {
    const std::optional<uint64_t> number = ParseUint64(part);
    if (!number || *number > 255) return false;
  }
  return true;
}

std::string AddressText(std::string_view host, uint16_t port) {
  return host.find(':') == std::string_view::npos ? StrFormat("%s:%d", host, port) : StrFormat("[%s]:%d", host, port);
}

Status CheckCanListen(const HostPort& address, std::string_view purpose, std::string_view flag) {
  const std::string text = AddressText(address.host, address.port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* results = nullptr;
  const int error = getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                std::to_string(address.port).c_str(), &hints, &results);
  if (error != 0) {
    return InvalidArgumentError(
        StrFormat("cannot listen on %s for %s (flag %s): %s", text, purpose, flag, gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(results, freeaddrinfo);
  UniqueFd fd(socket(results->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return ErrnoError(errno, "cannot make a socket");
  const int yes = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (bind(fd.get(), results->ai_addr, results->ai_addrlen) == 0) return OkStatus();
  if (errno == EADDRINUSE) {
    return UnavailableError(
        StrFormat("cannot listen on %s for %s: another program uses the port; stop it or pass another address with %s",
                  text, purpose, flag));
  }
  return ErrnoError(errno, StrFormat("cannot listen on %s for %s (flag %s)", text, purpose, flag));
}

}  // namespace pyrometer::rpc

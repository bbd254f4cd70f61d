// Network addresses as people write them on the command line.
//
//   ASSIGN_OR_RETURN(HostPort address, ParseHostPort("127.0.0.1:7071"));
//
// Threads: pure functions; CheckCanListen may ask the resolver.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/base/status.h"

namespace pyrometer::rpc {

struct HostPort {
  std::string host;  // without brackets
  uint16_t port = 0;
};
// "127.0.0.1:7071", "[::1]:0", "store.example:7071", ":7071" (host ""). INVALID_ARGUMENT says the form.
StatusOr<HostPort> ParseHostPort(std::string_view address);
// localhost, 127.0.0.0/8, ::1.
bool IsLoopbackHost(std::string_view host);

// Tries to bind `address` and lets go again: libraries say that listening failed, but not why.
// UNAVAILABLE when the port is taken; messages name the address, `purpose` ("gRPC") and `flag` ("--grpc").
Status CheckCanListen(const HostPort& address, std::string_view purpose, std::string_view flag);
// "127.0.0.1:7071", "[::1]:7071".
std::string AddressText(std::string_view host, uint16_t port);

}  // namespace pyrometer::rpc

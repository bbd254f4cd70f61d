// How a client of the store proves itself and reaches it.
//
//   ASSIGN_OR_RETURN(auto channel, Dial("store.example:7071", {.tls = true, .token = "…"}));
//
// Loopback and unix:PATH speak plain text by default; everything else must use TLS when a token is
// given, so that no token crosses a network readably.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/rpc/address.h"

namespace grpc {
class Channel;
}

namespace pyrometer::rpc {

struct Credentials {
  // TLS; implied by any of the files.
  bool tls = false;
  std::string ca_file;    // PEM; "" = the system's authorities
  std::string cert_file;  // PEM client certificate, for a store that asks for one
  std::string key_file;   // PEM private key of cert_file
  std::string token;      // bearer token; "" = none
  std::string tenant;     // whose data; "" = the default tenant

  bool UsesTls() const { return tls || !ca_file.empty() || !cert_file.empty(); }
};

// A lazy connection with keepalive: a peer that vanished without a word is noticed within 30 s.
// INVALID_ARGUMENT for a malformed address or unreadable files.
StatusOr<std::shared_ptr<grpc::Channel>> Dial(const std::string& target, const Credentials& credentials);

// The token in `path`: one line. PERMISSION_DENIED, NOT_FOUND, INVALID_ARGUMENT (empty or with white space).
StatusOr<std::string> ReadTokenFile(const std::string& path);

}  // namespace pyrometer::rpc

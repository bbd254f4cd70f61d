// Where a ClickHouse backend lives: clickhouse://[user[:password]@]host[:port][,host[:port]…]/database[?name=value&…]
//
//   clickhouse://ch1:8123/pyrometer
//   clickhouse://ch1,ch2,ch3,ch4/pyrometer?cluster=profiles&password-file=/etc/pyrometer/clickhouse
//
// Ports are those of the HTTP interface; 8123 by default, 8443 with tls=1. With tls=1 a server must show a certificate
// for the host name that stands here, signed by an authority of the system's list or of ca-file, and TLS 1.2 or later.
// Threads: a value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"

namespace pyrometer::store::clickhouse {

struct Address {
  std::string host;
  uint16_t port = 0;
  std::string Text() const;
};

struct Url {
  std::vector<Address> servers;
  std::string database;
  std::string user;      // "" = ClickHouse's own default
  std::string password;  // from the URL or the file that password-file names
  std::string cluster;   // its name in remote_servers; "" = one server alone
  bool tls = false;
  std::string ca_file;                       // PEM; these authorities and no others. "" = the system's
  uint32_t quorum = 0;                       // replicas that have an insert before it counts; 0 = one
  uint64_t interval_ns = 1 * kNsPerSecond;   // between the beginnings of two inserts. Name `batch`
  uint64_t patience_ns = 20 * kNsPerSecond;  // with a server that does not take an insert. Name `patience`
};

inline constexpr std::string_view kScheme = "clickhouse://";

// INVALID_ARGUMENT says which part and what is allowed there; reads the password file.
StatusOr<Url> ParseUrl(std::string_view text);

}  // namespace pyrometer::store::clickhouse

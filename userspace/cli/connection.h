// The flags --store, --token-file, --tls… that every command shares which talks to a store.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "userspace/base/status.h"
#include "userspace/rpc/query_client.h"

namespace pyrometer::cli {

struct ConnectionFlags {
  std::string store = std::string(rpc::kDefaultGrpcAddress);
  std::string token_file;
  rpc::Credentials credentials;  // token filled by LoadToken
};

// The flags live as long as the command.
std::shared_ptr<ConnectionFlags> AddConnectionFlags(CLI::App* command);
// Credentials with the token read from --token-file, else from $PYROMETER_TOKEN.
StatusOr<rpc::Credentials> LoadCredentials(const ConnectionFlags& flags);
StatusOr<std::unique_ptr<rpc::QueryClient>> Connect(const ConnectionFlags& flags);

struct RangeFlags {
  std::string from = "-15m";
  std::string to = "now";
};
std::shared_ptr<RangeFlags> AddRangeFlags(CLI::App* command);

struct Range {
  int64_t from_ns = 0;
  int64_t to_ns = 0;
};
StatusOr<Range> ResolveRange(const RangeFlags& flags);

}  // namespace pyrometer::cli

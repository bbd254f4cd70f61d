// Questions to a store over the network, for the command line.
//
//   ASSIGN_OR_RETURN(auto client, QueryClient::Connect("127.0.0.1:7071", {}));
//   ASSIGN_OR_RETURN(profile::Profile p, client->MergeProfile({.query = "cpu", .from_ns = a, .to_ns = b}));
//
// Connect asks for the store's status first, so that a wrong address, a wrong token, the HTTP port by mistake, or
// another protocol version is told at once and with the remedy.
// Threads: all methods from any thread. Each call has its own deadline.
#pragma once

#include <memory>
#include <string>

#include "userspace/base/clock.h"
#include "userspace/rpc/credentials.h"
#include "userspace/rpc/query_api.h"

namespace pyrometer::rpc {

class QueryClient : public QueryApi {
 public:
  struct Options {
    // Of each call; merges over weeks of a large fleet take seconds.
    uint64_t timeout_ns = 60 * kNsPerSecond;
    uint64_t connect_timeout_ns = 10 * kNsPerSecond;
    std::string tenant;  // "" = the default tenant
  };

  static StatusOr<std::unique_ptr<QueryClient>> Connect(const std::string& target, const Credentials& credentials,
                                                        Options options);
  static StatusOr<std::unique_ptr<QueryClient>> Connect(const std::string& target, const Credentials& credentials) {
    return Connect(target, credentials, Options());
  }
  // Over a channel at hand (tests, in-process). `target` is for messages.
  static StatusOr<std::unique_ptr<QueryClient>> Connect(std::shared_ptr<grpc::Channel> channel,
                                                        const std::string& target, const std::string& token,
                                                        Options options);
};

}  // namespace pyrometer::rpc

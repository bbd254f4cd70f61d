// A store's two faces: gRPC for agents and the command line, HTTP for the page, scripts and Prometheus
// (docs/api.md).
//
//   ASSIGN_OR_RETURN(auto store, store::Store::Open(data, {}));
//   query::Engine engine(store.get());
//   ASSIGN_OR_RETURN(auto server, server::Server::Start({}, store.get(), &engine));
//   server->http_url();                       // "http://127.0.0.1:7070"
//   server->InProcessChannel();               // for the agent inside `pyrometer up`
//
// Safe by default: both listen on loopback; another address is refused unless TLS and a token are given. On loopback
// the Host header must name the loopback (DNS rebinding). Threads: own pools, see the limits below.
// Cost: max_http_threads threads; agents that are silent take memory and no thread. Not promised: HTTP/2 for the page,
// TLS 1.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/query/engine.h"
#include "userspace/rpc/query_api.h"
#include "userspace/rpc/tokens.h"
#include "userspace/rpc/types.h"
#include "userspace/store/store.h"

namespace grpc {
class Channel;
}

namespace pyrometer::server {

struct Options {
  std::string grpc_address = std::string(rpc::kDefaultGrpcAddress);  // flag --grpc; port 0 = any free one
  std::string http_address = std::string(rpc::kDefaultHttpAddress);  // flag --http; "" = no HTTP
  std::string tls_cert_file;                                         // PEM, flag --tls-cert; for both faces
  std::string tls_key_file;                                          // PEM, flag --tls-key
  std::string client_ca_file;                   // PEM, flag --tls-client-ca: gRPC clients must show a certificate of it
  std::string token;                            // flag --token-file; every call must carry it. "" = none asked
  std::vector<rpc::TenantToken> tenant_tokens;  // flag --tenant-token; each good for one tenant. Needs `token`
  std::string mode = "store";                   // "up" or "store", told by /api/v1/status
  std::string node;                             // with "up": this host's name
  size_t max_http_threads = 64;                 // requests worked on at a time; threads are made on demand
  size_t max_http_body_bytes = 1u << 20;        // requests; only sessions have a body
  size_t max_sessions = 100;                    // finished ones remembered
  size_t max_running_sessions = 16;             // per node
  std::string symbols_folder;                   // where uploaded debug files are kept; "" = none are taken
  std::vector<std::string> debuginfod;  // servers to ask for debug files (debuginfod.h), flag --debuginfod; none = off
  std::function<void(const std::string&)> log;    // one line per event that somebody should know of; may be empty
  uint64_t query_timeout_ns = 30 * kNsPerSecond;  // flag --query-timeout; of one question
  uint64_t query_memory_bytes = 128u << 20;       // flag --query-memory; of all questions together
  int max_questions = 8;                          // worked on at a time
  uint64_t stream_memory_bytes = 64u << 20;       // tables of the agents' streams; of --memory
  uint64_t memory_bytes = 0;  // flag --memory; of the whole process, see memory_watch.h; 0 = no watch
  // Unix nanoseconds; tests set it.
  std::function<int64_t()> now = [] { return UnixNowNs(); };
};

class Server {
 public:
  // `store` and `engine` must outlive the server. Errors, with the remedy: INVALID_ARGUMENT (malformed address, bad
  // certificate), FAILED_PRECONDITION (off loopback without TLS and token), UNAVAILABLE (port taken).
  static StatusOr<std::unique_ptr<Server>> Start(Options options, store::Store* store, const query::Engine* engine);
  virtual ~Server() = default;  // shuts down

  virtual std::string grpc_address() const = 0;  // as bound: "127.0.0.1:7071"
  virtual std::string http_address() const = 0;  // as bound; "" when off
  virtual std::string http_url() const = 0;      // "http://127.0.0.1:7070"; "" when off
  // For the agent and commands inside this process. Pass the token as everybody does.
  virtual std::shared_ptr<grpc::Channel> InProcessChannel() = 0;
  // The same questions without a network.
  virtual rpc::QueryApi& query_api() = 0;
  // Ends everything and waits; agents keep what is not acknowledged. Idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace pyrometer::server

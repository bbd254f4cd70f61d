// The gRPC side of a store: turns streams and calls into plain C++ on two handlers (implemented in
// server/), so that generated code stays in this room.
//
//   ASSIGN_OR_RETURN(auto server, GrpcServer::Start({.address = "127.0.0.1:0"}, &ingest, &query));
//   server->port();
//   server->Shutdown();
//
// Threads: streams of agents hold none while nothing comes; what came is decoded and stored by `ingest_threads`
// threads, which mostly wait for the disk together. A question holds a thread of gRPC's. Limits: kMaxMessageBytes per
// message, max_streams agents, max_threads threads for questions; more are answered RESOURCE_EXHAUSTED. Tables of all
// streams together: stream_memory_bytes; each agent is told its share and starts new tables before it exceeds it, and
// one that exceeds it by far is sent away (UNAVAILABLE) to start over.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/rpc/credentials.h"
#include "userspace/rpc/query_api.h"
#include "userspace/rpc/tokens.h"
#include "userspace/rpc/types.h"

namespace pyrometer::rpc {

// The store's end of one agent's connection.
class AgentConnection {
 public:
  virtual ~AgentConnection() = default;
  // Any thread. UNAVAILABLE when the connection is over, or the agent has not read for long.
  virtual Status StartSession(const SessionSpec& spec) = 0;
  virtual Status StopSession(const std::string& id) = 0;
  // Ends the stream; the agent sees CANCELLED.
  virtual void Cancel() = 0;

  // What the handler keeps beside the tables of this stream (Received alone touches it); let go when the agent starts
  // new tables. `stream_state_bytes`: what it takes, for the budget.
  std::shared_ptr<void> stream_state;
  uint64_t stream_state_bytes = 0;
};

// All methods from any thread; those of one connection one after the other.
class IngestHandler {
 public:
  virtual ~IngestHandler() = default;
  // First message. An error refuses the agent.
  virtual StatusOr<Welcome> Connected(const Hello& hello, std::shared_ptr<AgentConnection> connection) = 0;
  // INVALID_ARGUMENT: the batch is rejected and the stream goes on. Another error ends the stream,
  // and the agent keeps the batch. OK: durable.
  virtual StatusOr<Ack> Received(AgentConnection& connection, const profile::BatchView& batch) = 0;
  // A batch that could not be decoded; the stream ends afterwards.
  virtual void Malformed(AgentConnection& connection, const Status& status) = 0;
  virtual void SessionUpdated(AgentConnection& connection, const SessionUpdate& update) = 0;
  virtual void StatusUpdated(AgentConnection& connection, const NodeStatus& status) = 0;
  // Once, after everything else, for each connection that Connected accepted.
  virtual void Disconnected(AgentConnection& connection) = 0;
};

class GrpcServer {
 public:
  struct Options {
    std::string address;         // "HOST:PORT", port 0 = any free one; or "unix:/path"
    std::string tls_cert_file;   // PEM; with tls_key_file: TLS
    std::string tls_key_file;    // PEM
    std::string client_ca_file;  // PEM; clients must show a certificate of this authority
    std::string token;           // every call must carry it, or one of tenant_tokens; "" and none there = none asked
    std::vector<TenantToken> tenant_tokens;  // good for one tenant each
    int max_threads = 512;                   // for questions, and gRPC's own
    int max_streams = 20'000;                // agents connected at a time
    int ingest_threads = 32;
    uint64_t stream_memory_bytes = 256u << 20;
  };

  // The handlers must outlive the server. UNAVAILABLE when the port is taken (the message says which).
  static StatusOr<std::unique_ptr<GrpcServer>> Start(const Options& options, IngestHandler* ingest, QueryApi* query);
  virtual ~GrpcServer() = default;

  virtual uint16_t port() const = 0;  // 0 for unix sockets
  // A channel inside this process. The token is asked for as from anybody.
  virtual std::shared_ptr<grpc::Channel> InProcessChannel() = 0;
  // Ends all streams and calls and waits for their handlers. Idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace pyrometer::rpc

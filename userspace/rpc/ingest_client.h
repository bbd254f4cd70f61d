// An agent's connection to a store: batches up; acknowledgements and session commands down.
//
//   ASSIGN_OR_RETURN(auto channel, Dial("127.0.0.1:7071", {}));
//   ASSIGN_OR_RETURN(auto client, IngestClient::Connect(channel, options, hello, callbacks));
//   spool.Acknowledge(client->welcome().last_sequence);
//   RETURN_IF_ERROR(client->Send(batch));          // several may be on their way; acks come by callback
//   client->Close();
//
// Life: Connect succeeds only after the store's Welcome. From then on the connection lives until Close, until the
// store ends it or until it is found dead (keepalive, or a Send that does not get through within `send_timeout_ns`);
// then `closed` is called once with the reason, and every Send returns it. There is no reconnecting here: the agent
// waits and calls Connect again; unacknowledged batches are sent again on the new connection.
//
// Threads: all methods from any thread; Sends are put one after the other. Callbacks come from the
// client's own thread "pyro-ingest", from the moment of the Welcome (so possibly while Connect is still returning: do
// not reach for the client through a variable that Connect's result is assigned to without a lock) and never
// after Close has returned. A callback may call Send* but not Close or the destructor; Close from one thread at a time.
// Cost: two threads, the tables of the encoder.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/rpc/credentials.h"
#include "userspace/rpc/types.h"

namespace pyrometer::rpc {

class IngestClient {
 public:
  struct Options {
    std::string token;                                // bearer token; "" = none
    std::string target = "the store";                 // for messages: "127.0.0.1:7071"
    uint64_t connect_timeout_ns = 10 * kNsPerSecond;  // until Welcome
    uint64_t send_timeout_ns = 60 * kNsPerSecond;     // a Send that is stuck this long ends the connection
  };
  // Any may be left empty.
  struct Callbacks {
    std::function<void(const Ack&)> ack;  // everything up to its sequence is durable
    // The store can never take this batch: drop and count it. `message` says why.
    std::function<void(uint64_t sequence, const std::string& message)> reject;
    std::function<void(const SessionSpec&)> start_session;
    std::function<void(const std::string& id)> stop_session;
    // The connection ended by itself (not by Close); never OK. Last callback.
    std::function<void(const Status&)> closed;
  };

  // Errors: UNAVAILABLE (nobody answers; message with remedy), UNAUTHENTICATED (token),
  // FAILED_PRECONDITION (another protocol version), DEADLINE_EXCEEDED. A second connection of one agent id replaces
  // the first.
  static StatusOr<std::unique_ptr<IngestClient>> Connect(std::shared_ptr<grpc::Channel> channel, Options options,
                                                         const Hello& hello, Callbacks callbacks);
  // Dials first. `credentials.token` is used.
  static StatusOr<std::unique_ptr<IngestClient>> Connect(const std::string& target, const Credentials& credentials,
                                                         const Hello& hello, Callbacks callbacks);
  // As Close.
  ~IngestClient();

  const Welcome& welcome() const;

  // Blocks while the store is busy (flow control). INVALID_ARGUMENT: this batch can never be sent,
  // drop it, the connection goes on. Any other error: the connection is over.
  // Precondition: batch.agent_id is that of Hello; sequences of one connection rise.
  Status Send(const profile::Batch& batch);
  Status SendStatus(const NodeStatus& status);
  Status SendSession(const SessionUpdate& update);

  // OK while the connection lives.
  Status status() const;
  // Ends the connection now; a Send in another thread returns CANCELLED. What was sent and not acknowledged
  // counts as not sent. Idempotent.
  void Close();

 private:
  struct Impl;
  explicit IngestClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pyrometer::rpc

// The streams of agents, by gRPC's callbacks: a stream that is silent takes memory and no thread. Inside this room
// only.
//
// One message of a stream is worked on at a time, by whichever thread of the pool is free; meanwhile the next one is
// not read, so an agent that sends faster than the store writes is held up by HTTP/2's flow control and then by its
// spool.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "userspace/rpc/grpc_server.h"

namespace pyrometer::rpc {

// What a call's token is good for.
class Authorizer {
 public:
  explicit Authorizer(TokenTable tokens) : tokens_(std::move(tokens)) {}
  StatusOr<Grant> Check(grpc::ServerContextBase* context) const;

 private:
  const TokenTable tokens_;
};

class IngestService : public v1::Ingest::CallbackService {
 public:
  IngestService(const Authorizer* authorizer, IngestHandler* handler, const GrpcServer::Options& options);
  ~IngestService() override;

  grpc::ServerBidiReactor<v1::AgentMessage, v1::StoreMessage>* Stream(grpc::CallbackServerContext* context) override;

  // Ends the streams that run and refuses new ones.
  void CancelAll();
  // After the server is down: no stream is left.
  void StopThreads();

 private:
  class AgentStream;
  friend class AgentStream;

  void Enqueue(std::shared_ptr<AgentStream> stream);
  void Work();
  uint64_t TableShare();
  bool Register(AgentStream* stream);
  void Unregister(AgentStream* stream);

  const Authorizer& authorizer_;
  IngestHandler& handler_;
  const int max_streams_;
  const uint64_t stream_memory_bytes_;
  std::atomic<uint64_t> table_bytes_{0};  // of all streams

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::set<AgentStream*> streams_;
  bool closing_ = false;
  std::deque<std::shared_ptr<AgentStream>> ready_;  // have a message to be worked on
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace pyrometer::rpc

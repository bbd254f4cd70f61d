// One simulated agent's stream to a store, by gRPC's callbacks: no thread of its own, so that ten thousand of them fit
// into one process. It says what rpc::IngestClient says.
//
//   LoadStream stream(channel, {.agent_id = "agent-7", .node = "node-7"}, &listener);   // Welcomed comes
//   RETURN_IF_ERROR(stream.Send(batch));                                                // Written, later Acknowledged
//   stream.Finish();                                                                    // Ended
//
// Threads: Send and Finish from one; the listener's methods come from gRPC's, perhaps two at a time, and none after
// Ended. Cost: the encoder's tables and one message.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/rpc/types.h"

namespace grpc {
class Channel;
}

namespace pyrometer::bench {

class LoadStream {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void Welcomed(const rpc::Welcome& welcome) = 0;
    virtual void Written() = 0;  // the Hello, then each batch: the next may be sent, once welcomed
    virtual void Acknowledged(uint64_t sequence) = 0;
    virtual void Ended(const Status& status) = 0;  // OK after Finish
  };

  LoadStream(std::shared_ptr<grpc::Channel> channel, const rpc::Hello& hello, Listener* listener);
  // Ends it, Ended comes before it returns unless it came before.
  ~LoadStream();

  // Preconditions: it was welcomed, and the last batch was written. INVALID_ARGUMENT: this batch can never be sent.
  Status Send(const profile::Batch& batch);
  // Says that there is nothing more.
  void Finish();

 private:
  class Reactor;
  std::unique_ptr<Reactor> reactor_;
};

}  // namespace pyrometer::bench

// Carries batches from the spool to the store, for as long as it takes.
//
// The thread "pyro-uplink" connects, sends what the spool holds in order, drops from it what the store has
// acknowledged, and starts over with growing pauses (1 s … 30 s, jittered) when the store goes
// away. Nothing is lost while it is away: the spool keeps it.
//
// Threads: Notify, SendSession, counters from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "userspace/agent/spool.h"
#include "userspace/base/status.h"
#include "userspace/rpc/credentials.h"
#include "userspace/rpc/ingest_client.h"

namespace grpc {
class Channel;
}

namespace pyrometer::agent {

class Uplink {
 public:
  struct Options {
    std::string store;  // "host:port"; for messages when `channel` is set
    rpc::Credentials credentials;
    std::shared_ptr<grpc::Channel> channel;  // in-process; then `store` is not dialled
    std::string node;
  };
  struct Handlers {
    std::function<rpc::NodeStatus()> status;  // for Hello
    std::function<void(const rpc::SessionSpec&)> start_session;
    std::function<void(const std::string&)> stop_session;
    // What deserves a line in the log: "connected to …", "the store is away: …", batches refused.
    std::function<void(const std::string&)> log;
  };
  struct Counters {
    bool connected = false;
    uint64_t acknowledged_batches = 0;
    uint64_t rejected_batches = 0;  // the store will never take them
    uint64_t rejected_samples = 0;
    std::string last_problem;  // why it is not connected
  };

  // `spool` must outlive the uplink.
  static std::unique_ptr<Uplink> Start(Options options, Spool* spool, Handlers handlers);
  ~Uplink();

  // New batches are in the spool.
  void Notify();
  // Told as soon as connected; kept while the store is away.
  void SendSession(const rpc::SessionUpdate& update);
  void SendStatus();

  // Waits until the spool is empty or `timeout_ns` passed; false then.
  bool Flush(uint64_t timeout_ns);
  void Stop();
  Counters counters() const;

 private:
  Uplink(Options options, Spool* spool, Handlers handlers);
  void Loop();
  Status RunConnection();
  void Reject(uint64_t samples, const std::string& message);
  // What the store folded; with the lock. Comes with every batch while a limit is reached, so not each is logged.
  void Notice(const std::string& notice);
  // Sends the batch; the ack comes later.
  Status SendBatch(rpc::IngestClient& client, uint64_t sequence);

  const Options options_;
  Spool& spool_;
  const Handlers handlers_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool wake_ = false;
  bool status_changed_ = false;
  std::deque<rpc::SessionUpdate> session_updates_;
  Status closed_;  // of the current connection
  Counters counters_;
  uint64_t next_notice_ns_ = 0;
  std::thread thread_;
};

}  // namespace pyrometer::agent

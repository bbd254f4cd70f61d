// The node daemon: collects, spools, sends, and runs sessions that the store asks for.
//
//   ASSIGN_OR_RETURN(auto agent, Agent::Start(options));
//   …
//   agent->Stop();        // flushes open windows to the spool and gives the store a moment to take them
//
// Threads: Start and Stop from one; the rest from any. The daemon's own threads: see collector.h and uplink.h.
#pragma once

#include <functional>
#include <latch>
#include <memory>
#include <string>

#include "userspace/agent/collector.h"
#include "userspace/agent/node.h"
#include "userspace/agent/spool.h"
#include "userspace/agent/uplink.h"

namespace pyrometer::agent {

class Agent {
 public:
  struct Options {
    Collector::Options collecting;
    Node::Options node;
    std::string spool_folder;
    Spool::Options spool;
    std::string store;  // "host:port"
    rpc::Credentials credentials;
    std::shared_ptr<grpc::Channel> channel;       // in-process store; then `store` is only shown
    std::function<void(const std::string&)> log;  // one line per event worth knowing
  };

  // Fails when no probe can run or the spool cannot be used; not when the store is away.
  static StatusOr<std::unique_ptr<Agent>> Start(Options options);
  ~Agent();

  // Idempotent.
  void Stop();

  Node& node() { return *node_; }
  std::vector<ProbeReport> Probes() const { return collector_->Probes(); }
  Uplink::Counters uplink() const { return uplink_->counters(); }
  Spool::Counters spool() const { return spool_->counters(); }

 private:
  explicit Agent(Options options) : options_(std::move(options)) {}
  rpc::NodeStatus DescribeNode() const;
  StatusOr<uint64_t> TakeBatch(profile::Batch& batch);
  void OnStartSession(const rpc::SessionSpec& spec);

  const Options options_;
  std::latch started_{1};  // the collector's threads wait for the uplink to be there
  // Torn down from the last to the first.
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<Uplink> uplink_;
  std::unique_ptr<Collector> collector_;
};

// "/var/lib/pyrometer" for root, else "$XDG_STATE_HOME/pyrometer" or "~/.local/state/pyrometer".
std::string DefaultStateFolder();
// Where symbol indexes are kept: "symbols" in it.
std::string DefaultSymbolsFolder();

}  // namespace pyrometer::agent

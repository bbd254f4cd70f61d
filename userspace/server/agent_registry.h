// Which agents are connected now, and what they said about themselves.
//
//   std::shared_ptr<rpc::AgentConnection> old = registry.Connect(hello, connection, now);
//   registry.FindNode("node-1");
//
// A second connection of an agent id replaces the first: after a broken network an agent is back before the
// store has noticed that the old connection is dead.
// Threads: all methods from any. Nothing is called while its lock is held.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "userspace/rpc/grpc_server.h"
#include "userspace/rpc/types.h"
#include "userspace/store/reader.h"

namespace pyrometer::server {

class AgentRegistry {
 public:
  struct Online {
    std::string agent_id;
    std::string node;
    std::shared_ptr<rpc::AgentConnection> connection;
  };

  // Returns the connection that was replaced, for the caller to cancel; null when there was none.
  std::shared_ptr<rpc::AgentConnection> Connect(const rpc::Hello& hello,
                                                std::shared_ptr<rpc::AgentConnection> connection, int64_t now_ns);
  // The agent of a connection; nullopt when it has been replaced.
  std::optional<Online> Find(const rpc::AgentConnection& connection) const;
  void SetStatus(const rpc::AgentConnection& connection, const rpc::NodeStatus& status, int64_t now_ns);
  void Seen(const rpc::AgentConnection& connection, int64_t now_ns);
  // False when it had been replaced already.
  bool Disconnect(const rpc::AgentConnection& connection, int64_t now_ns);

  // The agent of a node that connected last; nullopt when none is connected.
  std::optional<Online> FindNode(const std::string& node) const;
  size_t online_count() const;
  // What is known of agents connected since the start and of those in `stored`; sorted by node, then agent id.
  std::vector<rpc::NodeInfo> List(const std::vector<store::AgentInfo>& stored) const;

 private:
  struct Agent {
    rpc::NodeInfo info;
    std::shared_ptr<rpc::AgentConnection> connection;  // null = offline
    uint64_t order = 0;                                // of connecting
  };
  Agent* FindLocked(const rpc::AgentConnection& connection);

  mutable std::mutex mutex_;
  std::map<std::string, Agent> agents_;  // by agent id; those that connected since the start
  uint64_t next_order_ = 1;
};

}  // namespace pyrometer::server

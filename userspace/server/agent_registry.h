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
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/rpc/grpc_server.h"
#include "userspace/rpc/types.h"
#include "userspace/store/reader.h"

namespace pyrometer::server {

class AgentRegistry {
 public:
  struct Online {
    // Tenant and agent id: the same id of two tenants is two agents.
    std::string key;
    std::string tenant;
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
  std::optional<Online> FindNode(const std::string& tenant, const std::string& node) const;
  size_t online_count() const;
  // What is known of a tenant's agents, connected since the start or in `stored`; sorted by node, then agent id.
  std::vector<rpc::NodeInfo> List(const std::string& tenant, const std::vector<store::AgentInfo>& stored) const;

  static std::string Key(std::string_view tenant, std::string_view agent_id);

 private:
  struct Agent {
    rpc::NodeInfo info;
    std::shared_ptr<rpc::AgentConnection> connection;  // null = offline
    uint64_t order = 0;                                // of connecting
  };
  Agent* FindLocked(const rpc::AgentConnection& connection);

  mutable std::mutex mutex_;
  std::map<std::string, Agent> agents_;                                // by key; those that connected since the start
  std::unordered_map<const rpc::AgentConnection*, std::string> keys_;  // of agents online
  uint64_t next_order_ = 1;
};

}  // namespace pyrometer::server

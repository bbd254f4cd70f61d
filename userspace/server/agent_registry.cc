#include "userspace/server/agent_registry.h"

#include <algorithm>
#include <utility>

namespace pyrometer::server {
namespace {

// Agents that are offline are remembered up to this many; a stranger inventing ids must not fill the memory.
constexpr size_t kMaxRemembered = 10'000;

}  // namespace

std::string AgentRegistry::Key(std::string_view tenant, std::string_view agent_id) {
  return std::string(tenant) + '\0' + std::string(agent_id);
}

std::shared_ptr<rpc::AgentConnection> AgentRegistry::Connect(const rpc::Hello& hello,
                                                             std::shared_ptr<rpc::AgentConnection> connection,
                                                             int64_t now_ns) {
  std::lock_guard lock(mutex_);
  if (agents_.size() >= kMaxRemembered) {
    std::erase_if(agents_, [](const auto& entry) { return entry.second.connection == nullptr; });
  }
  const std::string key = Key(hello.tenant, hello.agent_id);
  Agent& agent = agents_[key];
  agent.info.tenant = hello.tenant;
  agent.info.node = hello.node;
  agent.info.agent_id = hello.agent_id;
  agent.info.version = hello.version;
  agent.info.online = true;
  agent.info.last_seen_ns = now_ns;
  agent.info.status = hello.status;
  agent.order = next_order_++;
  if (agent.connection != nullptr) keys_.erase(agent.connection.get());
  keys_[connection.get()] = key;
  return std::exchange(agent.connection, std::move(connection));
}

AgentRegistry::Agent* AgentRegistry::FindLocked(const rpc::AgentConnection& connection) {
  const auto key = keys_.find(&connection);
  return key == keys_.end() ? nullptr : &agents_.at(key->second);
}

std::optional<AgentRegistry::Online> AgentRegistry::Find(const rpc::AgentConnection& connection) const {
  std::lock_guard lock(mutex_);
  const auto key = keys_.find(&connection);
  if (key == keys_.end()) return std::nullopt;
  const Agent& agent = agents_.at(key->second);
  return Online{key->second, agent.info.tenant, agent.info.agent_id, agent.info.node, agent.connection};
}

void AgentRegistry::SetStatus(const rpc::AgentConnection& connection, const rpc::NodeStatus& status, int64_t now_ns) {
  std::lock_guard lock(mutex_);
  if (Agent* agent = FindLocked(connection)) {
    agent->info.status = status;
    agent->info.last_seen_ns = now_ns;
  }
}

void AgentRegistry::Seen(const rpc::AgentConnection& connection, int64_t now_ns) {
  std::lock_guard lock(mutex_);
  if (Agent* agent = FindLocked(connection)) agent->info.last_seen_ns = now_ns;
}

bool AgentRegistry::Disconnect(const rpc::AgentConnection& connection, int64_t now_ns) {
  std::lock_guard lock(mutex_);
  Agent* agent = FindLocked(connection);
  if (agent == nullptr) return false;
  keys_.erase(&connection);
  agent->connection = nullptr;
  agent->info.online = false;
  agent->info.last_seen_ns = now_ns;
  return true;
}

std::optional<AgentRegistry::Online> AgentRegistry::FindNode(const std::string& tenant, const std::string& node) const {
  std::lock_guard lock(mutex_);
  const Agent* newest = nullptr;
  for (const auto& [key, agent] : agents_) {
    if (agent.info.tenant != tenant || agent.info.node != node || agent.connection == nullptr) continue;
    if (newest == nullptr || agent.order > newest->order) newest = &agent;
  }
  if (newest == nullptr) return std::nullopt;
  return Online{Key(tenant, newest->info.agent_id), tenant, newest->info.agent_id, newest->info.node,
                newest->connection};
}

size_t AgentRegistry::online_count() const {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(
      std::count_if(agents_.begin(), agents_.end(), [](const auto& entry) { return entry.second.info.online; }));
}

std::vector<rpc::NodeInfo> AgentRegistry::List(const std::string& tenant,
                                               const std::vector<store::AgentInfo>& stored) const {
  std::map<std::string, rpc::NodeInfo> nodes;
  for (const store::AgentInfo& agent : stored) {
    if (agent.tenant != tenant) continue;
    nodes[agent.agent_id] = {.node = agent.node,
                             .agent_id = agent.agent_id,
                             .last_seen_ns = agent.last_seen_ns,
                             .last_sequence = agent.last_sequence};
  }
  {
    std::lock_guard lock(mutex_);
    for (const auto& [key, agent] : agents_) {
      if (agent.info.tenant != tenant) continue;
      rpc::NodeInfo& info = nodes[agent.info.agent_id];
      const uint64_t last_sequence = info.last_sequence;
      const int64_t last_seen_ns = std::max(info.last_seen_ns, agent.info.last_seen_ns);
      info = agent.info;
      info.last_sequence = last_sequence;
      info.last_seen_ns = last_seen_ns;
    }
  }
  std::vector<rpc::NodeInfo> list;
  for (auto& [id, info] : nodes) list.push_back(std::move(info));
  std::stable_sort(list.begin(), list.end(),
                   [](const rpc::NodeInfo& a, const rpc::NodeInfo& b) { return a.node < b.node; });
  return list;
}

}  // namespace pyrometer::server

// Sessions: profiling on demand on one node, started and watched through the store.
//
//   ASSIGN_OR_RETURN(rpc::SessionInfo s, sessions.Start(spec, online));
//   sessions.Get(s.spec.id);
//
// States: pending (sent to the agent) → running (the agent said so) → done or stopped, or failed with the agent's
// reason, but only when the last batch that carries its samples is durable here. It fails for reasons of ours when the
// agent did not answer within kAnswerTimeoutNs, did not finish within its time + kOverrunNs, or disconnected.
// A final state never changes.
//
// Threads: all methods from any. No connection is written to while the lock is held.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/rpc/types.h"
#include "userspace/server/agent_registry.h"

namespace pyrometer::server {

inline constexpr uint64_t kDefaultSessionNs = 30 * kNsPerSecond;
inline constexpr uint64_t kMaxSessionNs = 24 * 3600 * kNsPerSecond;
inline constexpr uint32_t kMaxSessionHz = 10'000;
inline constexpr uint64_t kAnswerTimeoutNs = 30 * kNsPerSecond;
// The last window, its symbols and its way through a spool.
inline constexpr uint64_t kOverrunNs = 120 * kNsPerSecond;

class SessionManager {
 public:
  struct Options {
    size_t max_finished = 100;  // remembered
    size_t max_running_per_node = 16;
    std::function<int64_t()> now;  // Unix nanoseconds
  };
  explicit SessionManager(Options options) : options_(std::move(options)) {}

  // INVALID_ARGUMENT (limits), RESOURCE_EXHAUSTED (too many on this node), UNAVAILABLE (connection over).
  StatusOr<rpc::SessionInfo> Start(rpc::SessionSpec spec, const AgentRegistry::Online& agent);
  // NOT_FOUND. Stopping a finished session changes nothing.
  StatusOr<rpc::SessionInfo> Stop(const std::string& id);
  StatusOr<rpc::SessionInfo> Get(const std::string& id);
  std::vector<rpc::SessionInfo> List(const std::string& tenant = "");  // newest first
  size_t running_count();
  uint64_t started_count();  // since the start, running ones included

  // From the agent. Updates on sessions of other agents are ignored.
  void Update(const std::string& agent_key, const rpc::SessionUpdate& update, uint64_t durable_sequence);
  // Everything of the agent up to `sequence` is durable.
  void Durable(const std::string& agent_key, uint64_t sequence);
  void AgentGone(const std::string& agent_key);

 private:
  struct Session {
    rpc::SessionInfo info;
    std::string agent_key;  // AgentRegistry::Key
    std::shared_ptr<rpc::AgentConnection> connection;
    int64_t created_ns = 0;
    // The agent has finished; waits until this sequence is durable. 0 = not yet.
    uint64_t awaited_sequence = 0;
    rpc::SessionState awaited_state = rpc::SessionState::kUnspecified;
  };
  Status CheckSpec(const rpc::SessionSpec& spec) const;
  void FinishLocked(Session* session, rpc::SessionState state, std::string error);
  void ExpireLocked();
  StatusOr<Session*> FindLocked(const std::string& id);

  const Options options_;
  std::mutex mutex_;
  std::map<std::string, Session> sessions_;
  std::deque<std::string> order_;  // ids, oldest first
  uint64_t started_ = 0;
};

}  // namespace pyrometer::server

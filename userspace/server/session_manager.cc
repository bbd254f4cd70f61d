#include "userspace/server/session_manager.h"

#include <algorithm>
#include <random>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

constexpr size_t kMaxTargetBytes = 1024;

std::string NewId() {
  // Random, so that ids of different stores and of one store's lives never meet in the data.
  static thread_local std::random_device device;
  return StrFormat("s%08x%04x", static_cast<uint32_t>(device()), static_cast<uint32_t>(device()) & 0xFFFF);
}

}  // namespace

Status SessionManager::CheckSpec(const rpc::SessionSpec& spec) const {
  if (spec.duration_ns > kMaxSessionNs) {
    return InvalidArgumentError(StrFormat("a session of %s; the limit is %s", FormatDurationNs(spec.duration_ns),
                                          FormatDurationNs(kMaxSessionNs)));
  }
  if (spec.frequency_hz > kMaxSessionHz) {
    return InvalidArgumentError(StrFormat("%d samples per second; the limit is %d", spec.frequency_hz, kMaxSessionHz));
  }
  const int targets = (spec.target.pid != 0) + !spec.target.container.empty() + !spec.target.cgroup.empty();
  if (targets > 1) return InvalidArgumentError("a session has one target: a process, a container or a cgroup");
  if (spec.target.container.size() + spec.target.cgroup.size() > kMaxTargetBytes) {
    return InvalidArgumentError(StrFormat("the target's name is longer than %d bytes", kMaxTargetBytes));
  }
  for (const std::string& probe : spec.probes) {
    if (probe == "syscalls" || probe == "tcp") {
      return InvalidArgumentError(StrFormat("a session takes no %s: agents measure them all the time", probe));
    }
    if (probe != "cpu" && probe != "waits") {
      return InvalidArgumentError(StrFormat("no probe '%s'; a session has cpu and waits", ToUtf8(probe)));
    }
  }
  return OkStatus();
}

StatusOr<rpc::SessionInfo> SessionManager::Start(rpc::SessionSpec spec, const AgentRegistry::Online& agent) {
  RETURN_IF_ERROR(CheckSpec(spec));
  if (spec.duration_ns == 0) spec.duration_ns = kDefaultSessionNs;
  spec.id = NewId();
  spec.node = agent.node;
  {
    std::lock_guard lock(mutex_);
    ExpireLocked();
    const auto running = std::count_if(sessions_.begin(), sessions_.end(), [&](const auto& entry) {
      return entry.second.agent_key == agent.key && !rpc::IsFinal(entry.second.info.state);
    });
    if (static_cast<size_t>(running) >= options_.max_running_per_node) {
      return ResourceExhaustedError(
          StrFormat("%d sessions run on node %s, as many as may; stop one or wait", running, agent.node));
    }
    // Before it is sent: the answer may be faster than we are.
    Session& session = sessions_[spec.id];
    session.info.spec = spec;
    session.info.state = rpc::SessionState::kPending;
    session.agent_key = agent.key;
    session.connection = agent.connection;
    session.created_ns = options_.now();
    order_.push_back(spec.id);
    ++started_;
  }
  if (const Status sent = agent.connection->StartSession(spec); !sent.ok()) {
    std::lock_guard lock(mutex_);
    sessions_.erase(spec.id);
    std::erase(order_, spec.id);
    --started_;
    return UnavailableError(StrFormat("node %s went offline just now", agent.node));
  }
  return Get(spec.id);
}

StatusOr<SessionManager::Session*> SessionManager::FindLocked(const std::string& id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) {
    return NotFoundError(StrFormat("no session '%s'; the store remembers running ones and the last %d", ToUtf8(id),
                                   options_.max_finished));
  }
  return &found->second;
}

StatusOr<rpc::SessionInfo> SessionManager::Stop(const std::string& id) {
  std::shared_ptr<rpc::AgentConnection> connection;
  {
    std::lock_guard lock(mutex_);
    ExpireLocked();
    ASSIGN_OR_RETURN(Session * session, FindLocked(id));
    if (rpc::IsFinal(session->info.state)) return session->info;
    connection = session->connection;
  }
  if (!connection->StopSession(id).ok()) {
    std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(Session * session, FindLocked(id));
    FinishLocked(session, rpc::SessionState::kFailed, "the node went offline before the session could be stopped");
  }
  return Get(id);
}

StatusOr<rpc::SessionInfo> SessionManager::Get(const std::string& id) {
  std::lock_guard lock(mutex_);
  ExpireLocked();
  ASSIGN_OR_RETURN(Session * session, FindLocked(id));
  return session->info;
}

std::vector<rpc::SessionInfo> SessionManager::List(const std::string& tenant) {
  std::lock_guard lock(mutex_);
  ExpireLocked();
  std::vector<rpc::SessionInfo> list;
  for (auto id = order_.rbegin(); id != order_.rend(); ++id) {
    const rpc::SessionInfo& info = sessions_.at(*id).info;
    if (info.spec.tenant == tenant) list.push_back(info);
  }
  return list;
}

size_t SessionManager::running_count() {
  std::lock_guard lock(mutex_);
  ExpireLocked();
  return static_cast<size_t>(std::count_if(sessions_.begin(), sessions_.end(),
                                           [](const auto& entry) { return !rpc::IsFinal(entry.second.info.state); }));
}

uint64_t SessionManager::started_count() {
  std::lock_guard lock(mutex_);
  return started_;
}

void SessionManager::Update(const std::string& agent_key, const rpc::SessionUpdate& update, uint64_t durable_sequence) {
  std::lock_guard lock(mutex_);
  const auto found = sessions_.find(update.id);
  if (found == sessions_.end() || found->second.agent_key != agent_key) return;
  Session& session = found->second;
  if (rpc::IsFinal(session.info.state)) return;
  session.info.samples = std::max(session.info.samples, update.samples);
  if (update.started_ns != 0) session.info.started_ns = update.started_ns;
  switch (update.state) {
    case rpc::SessionState::kUnspecified:
    case rpc::SessionState::kPending:
      return;
    case rpc::SessionState::kRunning:
      session.info.state = rpc::SessionState::kRunning;
      return;
    case rpc::SessionState::kFailed:
    case rpc::SessionState::kDone:
    case rpc::SessionState::kStopped:
      session.info.error = update.error;
      if (update.state == rpc::SessionState::kFailed && update.error.empty()) {
        session.info.error = "the node gave no reason";
      }
      if (update.last_sequence <= durable_sequence) {
        FinishLocked(&session, update.state, session.info.error);
        return;
      }
      session.info.state = rpc::SessionState::kRunning;
      session.awaited_sequence = update.last_sequence;
      session.awaited_state = update.state;
      return;
  }
}

void SessionManager::Durable(const std::string& agent_key, uint64_t sequence) {
  std::lock_guard lock(mutex_);
  for (const std::string& id : std::deque<std::string>(order_)) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) continue;  // trimmed by FinishLocked of an earlier one
    Session& session = found->second;
    if (session.agent_key == agent_key && session.awaited_sequence != 0 && session.awaited_sequence <= sequence &&
        !rpc::IsFinal(session.info.state)) {
      FinishLocked(&session, session.awaited_state, session.info.error);
    }
  }
}

void SessionManager::AgentGone(const std::string& agent_key) {
  std::lock_guard lock(mutex_);
  for (const std::string& id : std::deque<std::string>(order_)) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) continue;
    Session& session = found->second;
    // A session whose samples lie in the agent's spool only waits for it to come back.
    if (session.agent_key != agent_key || rpc::IsFinal(session.info.state) || session.awaited_sequence != 0) continue;
    FinishLocked(&session, rpc::SessionState::kFailed,
                 StrFormat("node %s disconnected during the session; what it had sent until then is in the store",
                           session.info.spec.node));
  }
}

void SessionManager::FinishLocked(Session* session, rpc::SessionState state, std::string error) {
  session->info.state = state;
  session->info.error = std::move(error);
  session->connection = nullptr;
  session->awaited_sequence = 0;
  // The caller's session is the newest to finish in time, but perhaps the oldest by start: trim the others.
  size_t finished = 0;
  for (const auto& [id, one] : sessions_) finished += rpc::IsFinal(one.info.state);
  for (auto id = order_.begin(); id != order_.end() && finished > options_.max_finished;) {
    Session& one = sessions_.at(*id);
    if (!rpc::IsFinal(one.info.state) || &one == session) {
      ++id;
      continue;
    }
    sessions_.erase(*id);
    id = order_.erase(id);
    --finished;
  }
}

void SessionManager::ExpireLocked() {
  const int64_t now = options_.now();
  for (const std::string& id : std::deque<std::string>(order_)) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) continue;
    Session& session = found->second;
    if (rpc::IsFinal(session.info.state)) continue;
    const auto age_ns = static_cast<uint64_t>(std::max<int64_t>(0, now - session.created_ns));
    if (session.info.state == rpc::SessionState::kPending && age_ns > kAnswerTimeoutNs) {
      FinishLocked(
          &session, rpc::SessionState::kFailed,
          StrFormat("node %s did not answer within %s", session.info.spec.node, FormatDurationNs(kAnswerTimeoutNs)));
    } else if (age_ns > session.info.spec.duration_ns + kOverrunNs) {
      FinishLocked(&session, rpc::SessionState::kFailed,
                   session.awaited_sequence != 0
                       ? StrFormat("%snode %s finished, but its samples have not arrived",
                                   session.info.error.empty() ? "" : session.info.error + "; ", session.info.spec.node)
                       : StrFormat("node %s did not finish in time", session.info.spec.node));
    }
  }
}

}  // namespace pyrometer::server

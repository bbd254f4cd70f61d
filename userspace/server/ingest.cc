#include "userspace/server/ingest.h"

#include "userspace/base/clock.h"
#include "userspace/base/version.h"

namespace pyrometer::server {

StatusOr<rpc::Welcome> Ingest::Connected(const rpc::Hello& hello, std::shared_ptr<rpc::AgentConnection> connection) {
  ASSIGN_OR_RETURN(const uint64_t last_sequence, store_.LastSequence(hello.tenant, hello.agent_id));
  const std::string key = AgentRegistry::Key(hello.tenant, hello.agent_id);
  const std::shared_ptr<rpc::AgentConnection> replaced = registry_.Connect(hello, std::move(connection), now_());
  if (replaced != nullptr) {
    replaced->Cancel();
    sessions_.AgentGone(key);
  }
  // Batches of a session may have become durable on a connection that died before it could say so.
  sessions_.Durable(key, last_sequence);
  ++counters_.agents_connected;
  return rpc::Welcome{.version = std::string(kVersion), .last_sequence = last_sequence};
}

StatusOr<rpc::Ack> Ingest::Received(rpc::AgentConnection& connection, const profile::BatchView& batch) {
  const uint64_t before = MonotonicNowNs();
  if (connection.stream_state == nullptr) connection.stream_state = store_.NewMemo();
  auto* memo = static_cast<store::StreamMemo*>(connection.stream_state.get());
  const StatusOr<store::AppendResult> result = store_.Append(batch, memo);
  connection.stream_state_bytes = memo->bytes();
  counters_.append_ns += MonotonicNowNs() - before;
  if (!result.ok()) {
    ++(result.status().code() == StatusCode::kInvalidArgument ? counters_.batches_rejected : counters_.batches_failed);
    return result.status();
  }
  ++(result->duplicate ? counters_.batches_duplicate : counters_.batches_accepted);
  if (!result->duplicate) totals_.Add(batch);
  registry_.Seen(connection, now_());
  sessions_.Durable(AgentRegistry::Key(batch.tenant, batch.agent_id), result->last_sequence);
  return rpc::Ack{.sequence = batch.sequence, .duplicate = result->duplicate, .notice = result->notice};
}

void Ingest::Malformed(rpc::AgentConnection&, const Status&) { ++counters_.batches_rejected; }

void Ingest::SessionUpdated(rpc::AgentConnection& connection, const rpc::SessionUpdate& update) {
  const std::optional<AgentRegistry::Online> agent = registry_.Find(connection);
  if (!agent) return;
  registry_.Seen(connection, now_());
  const StatusOr<uint64_t> durable = store_.LastSequence(agent->tenant, agent->agent_id);
  sessions_.Update(agent->key, update, durable.ok() ? *durable : 0);
}

void Ingest::StatusUpdated(rpc::AgentConnection& connection, const rpc::NodeStatus& status) {
  registry_.SetStatus(connection, status, now_());
}

void Ingest::Disconnected(rpc::AgentConnection& connection) {
  const std::optional<AgentRegistry::Online> agent = registry_.Find(connection);
  // Replaced by a newer connection: then that one has told the sessions.
  if (!agent || !registry_.Disconnect(connection, now_())) return;
  sessions_.AgentGone(agent->key);
}

}  // namespace pyrometer::server

// What happens to what agents send: batches into the store, the rest into registry and sessions.
//
// Threads: as rpc::IngestHandler; appends run on the agents' own threads, the store groups them.
#pragma once

#include <functional>
#include <memory>

#include "userspace/rpc/grpc_server.h"
#include "userspace/server/agent_registry.h"
#include "userspace/server/counters.h"
#include "userspace/server/latency_totals.h"
#include "userspace/server/session_manager.h"
#include "userspace/store/reader.h"

namespace pyrometer::server {

class Ingest : public rpc::IngestHandler {
 public:
  // All must outlive this.
  Ingest(store::StoreWriter* store, AgentRegistry* registry, SessionManager* sessions, Counters* counters,
         LatencyTotals* totals, std::function<int64_t()> now)
      : store_(*store),
        registry_(*registry),
        sessions_(*sessions),
        counters_(*counters),
        totals_(*totals),
        now_(std::move(now)) {}

  StatusOr<rpc::Welcome> Connected(const rpc::Hello& hello, std::shared_ptr<rpc::AgentConnection> connection) override;
  StatusOr<rpc::Ack> Received(rpc::AgentConnection& connection, const profile::BatchView& batch) override;
  void Malformed(rpc::AgentConnection& connection, const Status& status) override;
  void SessionUpdated(rpc::AgentConnection& connection, const rpc::SessionUpdate& update) override;
  void StatusUpdated(rpc::AgentConnection& connection, const rpc::NodeStatus& status) override;
  void Disconnected(rpc::AgentConnection& connection) override;

 private:
  store::StoreWriter& store_;
  AgentRegistry& registry_;
  SessionManager& sessions_;
  Counters& counters_;
  LatencyTotals& totals_;
  const std::function<int64_t()> now_;
};

}  // namespace pyrometer::server

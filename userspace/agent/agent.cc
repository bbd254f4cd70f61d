#include "userspace/agent/agent.h"

#include <sys/utsname.h>

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/rpc/batch_codec.h"

namespace pyrometer::agent {
namespace {

// How long Stop waits for the store to take the last windows; the spool keeps what it does not.
constexpr uint64_t kFlushNs = 3 * kNsPerSecond;

}  // namespace

StatusOr<std::unique_ptr<Agent>> Agent::Start(Options options) {
  std::unique_ptr<Agent> agent(new Agent(std::move(options)));
  ASSIGN_OR_RETURN(agent->spool_, Spool::Open(agent->options_.spool_folder, agent->options_.spool));
  ASSIGN_OR_RETURN(agent->node_, Node::Start(agent->options_.node));
  Collector::Options collecting = agent->options_.collecting;
  collecting.lost_samples = [a = agent.get()] {
    a->started_.wait();
    return std::map<std::string, uint64_t>{{"spool full", a->spool_->counters().dropped_samples},
                                           {"refused by the store", a->uplink_->counters().rejected_samples}};
  };
  ASSIGN_OR_RETURN(agent->collector_, Collector::Start(
                                          collecting, agent->node_.get(),
                                          [a = agent.get()](profile::Batch& batch) { return a->TakeBatch(batch); },
                                          [a = agent.get()](const SessionReport& report) {
                                            rpc::SessionUpdate update;
                                            update.id = report.id;
                                            update.state =
                                                report.state == SessionState::kDone      ? rpc::SessionState::kDone
                                                : report.state == SessionState::kStopped ? rpc::SessionState::kStopped
                                                : report.state == SessionState::kFailed  ? rpc::SessionState::kFailed
                                                                                         : rpc::SessionState::kRunning;
                                            update.error = report.error;
                                            update.samples = report.samples;
                                            update.last_sequence = report.last_sequence;
                                            update.started_ns = report.started_ns;
                                            a->uplink_->SendSession(update);
                                          }));
  // The first window closes seconds from now, so the sink and sessions find the uplink in place.
  Uplink::Handlers handlers;
  handlers.status = [a = agent.get()] { return a->DescribeNode(); };
  handlers.start_session = [a = agent.get()](const rpc::SessionSpec& spec) { a->OnStartSession(spec); };
  handlers.stop_session = [a = agent.get()](const std::string& id) { (void)a->collector_->StopSession(id); };
  handlers.log = agent->options_.log;
  agent->uplink_ = Uplink::Start({.store = agent->options_.store,
                                  .credentials = agent->options_.credentials,
                                  .channel = agent->options_.channel,
                                  .node = agent->node_->name()},
                                 agent->spool_.get(), std::move(handlers));
  agent->started_.count_down();
  return agent;
}

Agent::~Agent() { Stop(); }

void Agent::Stop() {
  if (collector_ != nullptr) collector_->Stop();
  if (uplink_ != nullptr) {
    uplink_->Notify();
    uplink_->Flush(kFlushNs);
    uplink_->Stop();
  }
}

rpc::NodeStatus Agent::DescribeNode() const {
  rpc::NodeStatus status;
  status.cpus = static_cast<uint32_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  utsname names{};
  if (::uname(&names) == 0) status.kernel = names.release;
  status.frequency_hz = collector_->frequency_hz();
  for (const ProbeReport& probe : collector_->Probes())
    status.probes.push_back({probe.name, probe.state, probe.reason});
  return status;
}

StatusOr<uint64_t> Agent::TakeBatch(profile::Batch& batch) {
  started_.wait();
  const uint64_t sequence = spool_->next_sequence();
  batch.agent_id = spool_->agent_id();
  batch.sequence = sequence;
  ASSIGN_OR_RETURN(const std::string bytes, rpc::SerializeBatch(batch));
  RETURN_IF_ERROR(spool_->Append(sequence, bytes, batch.SampleTotal()));
  uplink_->Notify();
  uplink_->SendStatus();
  return sequence;
}

void Agent::OnStartSession(const rpc::SessionSpec& spec) {
  SessionSpec session;
  session.id = spec.id;
  session.target = {spec.target.pid, spec.target.container, spec.target.cgroup};
  session.duration_ns = spec.duration_ns;
  session.frequency_hz = spec.frequency_hz;
  const auto asked = [&](std::string_view probe) {
    return std::find(spec.probes.begin(), spec.probes.end(), probe) != spec.probes.end();
  };
  session.waits = asked("waits");
  session.cpu = asked("cpu") || spec.probes.empty();
  const Status started = collector_->StartSession(session);
  rpc::SessionUpdate update;
  update.id = spec.id;
  update.started_ns = UnixNowNs();
  update.state = started.ok() ? rpc::SessionState::kRunning : rpc::SessionState::kFailed;
  update.error = std::string(Message(started));
  uplink_->SendSession(update);
}

}  // namespace pyrometer::agent

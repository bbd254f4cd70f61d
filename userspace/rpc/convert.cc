#include "userspace/rpc/convert.h"

#include <utility>

#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

// Names, versions, reasons, queries: nothing that people read is longer.
constexpr size_t kMaxTextBytes = 16u << 10;
// A node has about ten probes.
constexpr int kMaxProbes = 64;

std::string Text(std::string_view text) { return WireText(text, kMaxTextBytes); }

template <typename Repeated>
void WriteTexts(const std::vector<std::string>& texts, Repeated* wire) {
  for (const std::string& text : texts) *wire->Add() = Text(text);
}

SessionState ReadState(v1::SessionState state) {
  switch (state) {
    case v1::SESSION_STATE_PENDING:
      return SessionState::kPending;
    case v1::SESSION_STATE_RUNNING:
      return SessionState::kRunning;
    case v1::SESSION_STATE_DONE:
      return SessionState::kDone;
    case v1::SESSION_STATE_FAILED:
      return SessionState::kFailed;
    case v1::SESSION_STATE_STOPPED:
      return SessionState::kStopped;
    default:
      return SessionState::kUnspecified;
  }
}

v1::SessionState WireState(SessionState state) {
  switch (state) {
    case SessionState::kUnspecified:
      return v1::SESSION_STATE_UNSPECIFIED;
    case SessionState::kPending:
      return v1::SESSION_STATE_PENDING;
    case SessionState::kRunning:
      return v1::SESSION_STATE_RUNNING;
    case SessionState::kDone:
      return v1::SESSION_STATE_DONE;
    case SessionState::kFailed:
      return v1::SESSION_STATE_FAILED;
    case SessionState::kStopped:
      return v1::SESSION_STATE_STOPPED;
  }
  return v1::SESSION_STATE_UNSPECIFIED;
}

}  // namespace

Status CheckStoreProtocol(uint32_t protocol, std::string_view version, std::string_view target) {
  if (protocol == kProtocolVersion) return OkStatus();
  return FailedPreconditionError(
      StrFormat("the store at %s (version %s) speaks protocol %d, this pyrometer (%s) %d: "
                "upgrade %s",
                target, version, protocol, kVersion, kProtocolVersion,
                protocol > kProtocolVersion ? "this pyrometer" : "the store"));
}

Status CheckAgentProtocol(uint32_t protocol, std::string_view version) {
  if (protocol == kProtocolVersion) return OkStatus();
  return FailedPreconditionError(StrFormat("the agent (version %s) speaks protocol %d, this store (%s) %d: upgrade %s",
                                           version, protocol, kVersion, kProtocolVersion,
                                           protocol > kProtocolVersion ? "the store" : "the agent"));
}

void WriteLabels(const profile::LabelSet& labels, v1::Labels* wire) {
  for (const profile::Label& label : labels.labels()) {
    wire->add_names(label.name);
    wire->add_values(label.value);
  }
}

StatusOr<profile::LabelSet> ReadLabels(const v1::Labels& wire) {
  if (wire.names_size() != wire.values_size()) {
    return InvalidArgumentError(
        StrFormat("a label set with %d names and %d values", wire.names_size(), wire.values_size()));
  }
  std::vector<profile::Label> labels;
  for (int i = 0; i < wire.names_size(); ++i) labels.push_back({wire.names(i), wire.values(i)});
  return profile::LabelSet::Make(std::move(labels));
}

void WriteNodeStatus(const NodeStatus& status, v1::NodeStatus* wire) {
  wire->set_cpus(status.cpus);
  wire->set_kernel(Text(status.kernel));
  wire->set_frequency_hz(status.frequency_hz);
  for (const ProbeStatus& probe : status.probes) {
    v1::ProbeStatus* to = wire->add_probes();
    to->set_name(Text(probe.name));
    to->set_state(Text(probe.state));
    to->set_reason(Text(probe.reason));
  }
}

NodeStatus ReadNodeStatus(const v1::NodeStatus& wire) {
  NodeStatus status{.cpus = wire.cpus(), .kernel = Text(wire.kernel()), .frequency_hz = wire.frequency_hz()};
  for (const v1::ProbeStatus& probe : wire.probes()) {
    if (status.probes.size() == kMaxProbes) break;
    status.probes.push_back({Text(probe.name()), Text(probe.state()), Text(probe.reason())});
  }
  return status;
}

void WriteHello(const Hello& hello, v1::Hello* wire) {
  wire->set_protocol(kProtocolVersion);
  wire->set_agent_id(Text(hello.agent_id));
  wire->set_node(Text(hello.node));
  wire->set_version(std::string(kVersion));
  wire->set_tenant(Text(hello.tenant));
  WriteNodeStatus(hello.status, wire->mutable_status());
}

Hello ReadHello(const v1::Hello& wire) {
  return {.agent_id = wire.agent_id(),
          .node = wire.node(),
          .version = Text(wire.version()),
          .status = ReadNodeStatus(wire.status()),
          .tenant = wire.tenant()};
}

void WriteSessionSpec(const SessionSpec& spec, v1::SessionSpec* wire) {
  wire->set_id(Text(spec.id));
  wire->set_node(Text(spec.node));
  v1::Target* target = wire->mutable_target();
  if (spec.target.pid != 0) {
    target->set_pid(spec.target.pid);
  } else if (!spec.target.container.empty()) {
    target->set_container(Text(spec.target.container));
  } else if (!spec.target.cgroup.empty()) {
    target->set_cgroup(Text(spec.target.cgroup));
  } else {
    target->set_all(true);
  }
  wire->set_duration_ns(spec.duration_ns);
  wire->set_frequency_hz(spec.frequency_hz);
  WriteTexts(spec.probes, wire->mutable_probes());
}

SessionSpec ReadSessionSpec(const v1::SessionSpec& wire) {
  SessionSpec spec{.id = Text(wire.id()), .node = Text(wire.node())};
  switch (wire.target().what_case()) {
    case v1::Target::kPid:
      spec.target.pid = wire.target().pid();
      break;
    case v1::Target::kContainer:
      spec.target.container = Text(wire.target().container());
      break;
    case v1::Target::kCgroup:
      spec.target.cgroup = Text(wire.target().cgroup());
      break;
    case v1::Target::kAll:
    case v1::Target::WHAT_NOT_SET:
      break;
  }
  spec.duration_ns = wire.duration_ns();
  spec.frequency_hz = wire.frequency_hz();
  for (const std::string& probe : wire.probes()) {
    if (spec.probes.size() == kMaxProbes) break;
    spec.probes.push_back(Text(probe));
  }
  return spec;
}

void WriteSessionUpdate(const SessionUpdate& update, v1::SessionUpdate* wire) {
  wire->set_id(Text(update.id));
  wire->set_state(WireState(update.state));
  wire->set_error(Text(update.error));
  wire->set_samples(update.samples);
  wire->set_last_sequence(update.last_sequence);
  wire->set_started_ns(update.started_ns);
}

SessionUpdate ReadSessionUpdate(const v1::SessionUpdate& wire) {
  return {.id = Text(wire.id()),
          .state = ReadState(wire.state()),
          .error = Text(wire.error()),
          .samples = wire.samples(),
          .last_sequence = wire.last_sequence(),
          .started_ns = wire.started_ns()};
}

void WriteSessionInfo(const SessionInfo& info, v1::SessionInfo* wire) {
  WriteSessionSpec(info.spec, wire->mutable_spec());
  wire->set_state(WireState(info.state));
  wire->set_error(Text(info.error));
  wire->set_started_ns(info.started_ns);
  wire->set_samples(info.samples);
}

SessionInfo ReadSessionInfo(const v1::SessionInfo& wire) {
  return {.spec = ReadSessionSpec(wire.spec()),
          .state = ReadState(wire.state()),
          .error = Text(wire.error()),
          .started_ns = wire.started_ns(),
          .samples = wire.samples()};
}

void WriteNodeInfo(const NodeInfo& info, v1::NodeInfo* wire) {
  wire->set_node(Text(info.node));
  wire->set_agent_id(Text(info.agent_id));
  wire->set_version(Text(info.version));
  wire->set_online(info.online);
  wire->set_last_seen_ns(info.last_seen_ns);
  wire->set_last_sequence(info.last_sequence);
  WriteNodeStatus(info.status, wire->mutable_status());
}

NodeInfo ReadNodeInfo(const v1::NodeInfo& wire) {
  return {.node = Text(wire.node()),
          .agent_id = Text(wire.agent_id()),
          .version = Text(wire.version()),
          .online = wire.online(),
          .last_seen_ns = wire.last_seen_ns(),
          .last_sequence = wire.last_sequence(),
          .status = ReadNodeStatus(wire.status())};
}

void WriteStoreStatus(const StoreStatus& status, v1::StatusReply* wire) {
  wire->set_protocol(kProtocolVersion);
  wire->set_version(Text(status.version));
  wire->set_bytes(status.bytes);
  wire->set_series(status.series);
  wire->set_stacks(status.stacks);
  wire->set_batches(status.batches);
  wire->set_samples(status.samples);
  wire->set_memory_bytes(status.memory_bytes);
}

StoreStatus ReadStoreStatus(const v1::StatusReply& wire) {
  return {.version = Text(wire.version()),
          .bytes = wire.bytes(),
          .series = wire.series(),
          .stacks = wire.stacks(),
          .batches = wire.batches(),
          .samples = wire.samples(),
          .memory_bytes = wire.memory_bytes()};
}

void WriteMergeProfileRequest(const MergeProfileRequest& request, v1::MergeProfileRequest* wire) {
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
  WriteTexts(request.by, wire->mutable_by());
  wire->set_min_ns(request.min_ns);
  wire->set_max_ns(request.max_ns);
}

MergeProfileRequest ReadMergeProfileRequest(const v1::MergeProfileRequest& wire) {
  return {.query = wire.query(),
          .from_ns = wire.from_ns(),
          .to_ns = wire.to_ns(),
          .by = {wire.by().begin(), wire.by().end()},
          .min_ns = wire.min_ns(),
          .max_ns = wire.max_ns()};
}

void WriteMergeFlameRequest(const MergeFlameRequest& request, v1::MergeFlameRequest* wire) {
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
  WriteTexts(request.by, wire->mutable_by());
  wire->set_min_share(request.min_share);
}

MergeFlameRequest ReadMergeFlameRequest(const v1::MergeFlameRequest& wire) {
  return {.query = wire.query(),
          .from_ns = wire.from_ns(),
          .to_ns = wire.to_ns(),
          .by = {wire.by().begin(), wire.by().end()},
          .min_share = wire.min_share()};
}

void WriteMergeTopRequest(const MergeTopRequest& request, v1::MergeTopRequest* wire) {
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
  WriteTexts(request.by, wire->mutable_by());
  wire->set_rows(request.rows);
  wire->set_by_total(request.order == profile::TopOrder::kTotal);
}

MergeTopRequest ReadMergeTopRequest(const v1::MergeTopRequest& wire) {
  return {.query = wire.query(),
          .from_ns = wire.from_ns(),
          .to_ns = wire.to_ns(),
          .by = {wire.by().begin(), wire.by().end()},
          .rows = wire.rows(),
          .order = wire.by_total() ? profile::TopOrder::kTotal : profile::TopOrder::kSelf};
}

void WriteTimeSeriesRequest(const TimeSeriesRequest& request, v1::TimeSeriesRequest* wire) {
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
  wire->set_step_ns(request.step_ns);
  WriteTexts(request.by, wire->mutable_by());
}

TimeSeriesRequest ReadTimeSeriesRequest(const v1::TimeSeriesRequest& wire) {
  return {.query = wire.query(),
          .from_ns = wire.from_ns(),
          .to_ns = wire.to_ns(),
          .step_ns = wire.step_ns(),
          .by = {wire.by().begin(), wire.by().end()}};
}

void WriteTimeSeriesReply(const TimeSeriesReply& reply, v1::TimeSeriesReply* wire) {
  wire->set_unit(Text(reply.unit));
  for (const TimeSeriesRow& row : reply.series) {
    v1::TimeSeries* to = wire->add_series();
    WriteLabels(row.labels, to->mutable_labels());
    to->mutable_times_ns()->Add(row.times_ns.begin(), row.times_ns.end());
    to->mutable_values()->Add(row.values.begin(), row.values.end());
    to->mutable_counts()->Add(row.counts.begin(), row.counts.end());
  }
}

StatusOr<TimeSeriesReply> ReadTimeSeriesReply(const v1::TimeSeriesReply& wire) {
  TimeSeriesReply reply{.unit = Text(wire.unit())};
  for (const v1::TimeSeries& from : wire.series()) {
    if (from.values_size() != from.times_ns_size() || from.counts_size() != from.times_ns_size()) {
      return DataLossError(StrFormat("the store sent a series with columns of %d times, %d values, %d counts",
                                     from.times_ns_size(), from.values_size(), from.counts_size()));
    }
    TimeSeriesRow row{.times_ns = {from.times_ns().begin(), from.times_ns().end()},
                      .values = {from.values().begin(), from.values().end()},
                      .counts = {from.counts().begin(), from.counts().end()}};
    ASSIGN_OR_RETURN(row.labels, ReadLabels(from.labels()));
    reply.series.push_back(std::move(row));
  }
  return reply;
}

void WriteHistogramsRequest(const HistogramsRequest& request, v1::HistogramsRequest* wire) {
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
  WriteTexts(request.by, wire->mutable_by());
  wire->set_latest(request.latest);
}

HistogramsRequest ReadHistogramsRequest(const v1::HistogramsRequest& wire) {
  return {.query = wire.query(),
          .from_ns = wire.from_ns(),
          .to_ns = wire.to_ns(),
          .by = {wire.by().begin(), wire.by().end()},
          .latest = wire.latest()};
}

void WriteHistogramsReply(const std::vector<LabelledHistogram>& histograms, v1::HistogramsReply* wire) {
  for (const LabelledHistogram& from : histograms) {
    v1::LabelledHistogram* to = wire->add_histograms();
    WriteLabels(from.labels, to->mutable_labels());
    for (const profile::Histogram::Bucket& bucket : from.histogram.buckets()) {
      to->add_buckets(bucket.index);
      to->add_counts(bucket.count);
    }
    to->set_sum(from.histogram.sum());
    to->set_max(from.histogram.max());
    for (const auto& [error, calls] : from.errors) (*to->mutable_errors())[error] = calls;
  }
}

StatusOr<std::vector<LabelledHistogram>> ReadHistogramsReply(const v1::HistogramsReply& wire) {
  std::vector<LabelledHistogram> histograms;
  for (const v1::LabelledHistogram& from : wire.histograms()) {
    LabelledHistogram to;
    ASSIGN_OR_RETURN(to.labels, ReadLabels(from.labels()));
    if (from.buckets_size() != from.counts_size()) {
      return DataLossError("the store sent a histogram with columns of different length");
    }
    for (int i = 0; i < from.buckets_size(); ++i) {
      if (!to.histogram.AddBucket(from.buckets(i), from.counts(i))) {
        return DataLossError(StrFormat("the store sent histogram bucket %d", from.buckets(i)));
      }
    }
    to.histogram.AddSum(from.sum());
    to.histogram.ObserveMax(from.max());
    to.errors = {from.errors().begin(), from.errors().end()};
    histograms.push_back(std::move(to));
  }
  return histograms;
}

void WriteExemplarsRequest(const ExemplarsRequest& request, v1::ExemplarsRequest* wire) {
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
  wire->set_min_ns(request.min_ns);
  wire->set_max_ns(request.max_ns);
  wire->set_drawn(request.drawn);
  wire->set_limit(request.limit);
}

ExemplarsRequest ReadExemplarsRequest(const v1::ExemplarsRequest& wire) {
  return {.query = wire.query(),
          .from_ns = wire.from_ns(),
          .to_ns = wire.to_ns(),
          .min_ns = wire.min_ns(),
          .max_ns = wire.max_ns(),
          .drawn = wire.drawn(),
          .limit = wire.limit()};
}

void WriteExemplarsReply(const std::vector<CallExample>& examples, v1::ExemplarsReply* wire) {
  for (const CallExample& from : examples) {
    const profile::Exemplar& call = from.exemplar;
    v1::CallExample* to = wire->add_exemplars();
    to->set_time_ns(call.time_ns);
    to->set_value(call.value);
    to->set_comm(Text(call.comm));
    to->set_tid(call.tid);
    to->set_call(Text(call.call));
    WriteLabels(from.labels, to->mutable_labels());
    to->set_weight(call.weight);
    to->set_typical(call.typical);
    for (const profile::TimePart& part : call.split) {
      to->add_causes(Text(part.cause));
      to->add_cause_ns(part.ns);
    }
    WriteTexts(from.frames, to->mutable_frames());
    to->set_waker_wait_ns(call.waker.wait_ns);
    to->set_waker_comm(Text(call.waker.comm));
    to->set_waker_tid(call.waker.tid);
    to->set_waker_cause(Text(call.waker.cause));
    WriteTexts(from.waker_frames, to->mutable_waker_frames());
  }
}

StatusOr<std::vector<CallExample>> ReadExemplarsReply(const v1::ExemplarsReply& wire) {
  std::vector<CallExample> examples;
  for (const v1::CallExample& from : wire.exemplars()) {
    CallExample to;
    to.exemplar = {.time_ns = from.time_ns(), .value = from.value(), .comm = Text(from.comm()), .tid = from.tid()};
    to.exemplar.call = Text(from.call());
    to.exemplar.weight = from.weight();
    to.exemplar.typical = from.typical();
    ASSIGN_OR_RETURN(to.labels, ReadLabels(from.labels()));
    if (from.causes_size() != from.cause_ns_size()) {
      return DataLossError("the store sent an example with columns of different length");
    }
    for (int i = 0; i < from.causes_size(); ++i) {
      to.exemplar.split.push_back({Text(from.causes(i)), from.cause_ns(i)});
    }
    for (const std::string& frame : from.frames()) to.frames.push_back(Text(frame));
    to.exemplar.waker.wait_ns = from.waker_wait_ns();
    to.exemplar.waker.comm = Text(from.waker_comm());
    to.exemplar.waker.tid = from.waker_tid();
    to.exemplar.waker.cause = Text(from.waker_cause());
    for (const std::string& frame : from.waker_frames()) to.waker_frames.push_back(Text(frame));
    examples.push_back(std::move(to));
  }
  return examples;
}

void WriteLabelValuesRequest(const LabelValuesRequest& request, v1::LabelValuesRequest* wire) {
  wire->set_label(Text(request.label));
  wire->set_query(ToUtf8(request.query));
  wire->set_from_ns(request.from_ns);
  wire->set_to_ns(request.to_ns);
}

LabelValuesRequest ReadLabelValuesRequest(const v1::LabelValuesRequest& wire) {
  return {.label = wire.label(), .query = wire.query(), .from_ns = wire.from_ns(), .to_ns = wire.to_ns()};
}

}  // namespace pyrometer::rpc

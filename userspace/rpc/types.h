// Plain structs of what agents, stores and clients tell each other; the wire form is
// proto/pyrometer/v1/pyrometer.proto, and only this room knows it.
//
// Threads: values. Compatibility: see the .proto file; kProtocolVersion rises when an old peer would
// misread a new one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "userspace/profile/batch.h"
#include "userspace/profile/function_costs.h"
#include "userspace/profile/histogram.h"
#include "userspace/profile/label_set.h"
#include "userspace/profile/profile.h"

namespace pyrometer::rpc {

inline constexpr uint32_t kProtocolVersion = 1;

// Where `pyrometer up` and `pyrometer store` listen unless told otherwise.
inline constexpr std::string_view kDefaultGrpcAddress = "127.0.0.1:7071";
inline constexpr std::string_view kDefaultHttpAddress = "127.0.0.1:7070";

// Largest message either way. A window of a busy 2-CPU host is about 100 KiB; one of 256 CPUs whose stacks
// are all new stays below 20 MiB.
inline constexpr size_t kMaxMessageBytes = 32u << 20;

// What a session looks at: at most one member is set; none means everything.
struct Target {
  uint32_t pid = 0;       // 0 = not by process
  std::string container;  // name or id prefix
  std::string cgroup;     // path below the cgroup mount
  bool operator==(const Target&) const = default;
};
// "all", "pid=12", "container=shop", "cgroup=/a".
std::string TargetText(const Target& target);

struct SessionSpec {
  std::string id;      // set by the store
  std::string tenant;  // whose node; "" = the default tenant; travels beside the request
  std::string node;
  Target target;
  uint64_t duration_ns = 0;
  uint32_t frequency_hz = 0;        // 0 = the agent's default
  std::vector<std::string> probes;  // "cpu", "waits"; empty = cpu
  bool operator==(const SessionSpec&) const = default;
};

enum class SessionState : uint8_t {
  kUnspecified = 0,
  kPending = 1,  // sent to the agent, which has not answered yet
  kRunning = 2,
  kDone = 3,  // all its batches are durable in the store
  kFailed = 4,
  kStopped = 5,  // ended early on request; what it took is durable
};
std::string_view SessionStateName(SessionState state);  // "pending", …
inline bool IsFinal(SessionState state) { return state >= SessionState::kDone; }

// What an agent reports about one of its sessions.
struct SessionUpdate {
  std::string id;
  SessionState state = SessionState::kUnspecified;
  std::string error;           // with kFailed
  uint64_t samples = 0;        // so far
  uint64_t last_sequence = 0;  // in a final state: last batch that carries its samples
  int64_t started_ns = 0;      // Unix time
};

struct SessionInfo {
  SessionSpec spec;
  SessionState state = SessionState::kUnspecified;
  std::string error;
  int64_t started_ns = 0;  // Unix time; 0 = not yet
  uint64_t samples = 0;
};

struct ProbeStatus {
  std::string name;    // "cpu_sampler", …
  std::string state;   // "ok", "degraded", "off": it should run and does not, "unused": nobody asked for it
  std::string reason;  // "" when ok or unused
  bool operator==(const ProbeStatus&) const = default;
};

struct NodeStatus {
  uint32_t cpus = 0;
  std::string kernel;  // "6.1.0-18-amd64"
  uint32_t frequency_hz = 0;
  std::vector<ProbeStatus> probes;
  bool operator==(const NodeStatus&) const = default;
};

struct NodeInfo {
  std::string tenant;  // "" = the default tenant; not told to clients
  std::string node;
  std::string agent_id;
  std::string version;  // "" when not seen since the store started
  bool online = false;
  int64_t last_seen_ns = 0;    // Unix time
  uint64_t last_sequence = 0;  // newest durable batch
  NodeStatus status;           // empty when not seen since the store started
};

struct Hello {
  std::string agent_id;  // stable over restarts
  std::string node;      // host name
  std::string version;   // of the agent's software; IngestClient sets it
  NodeStatus status;
  std::string tenant;  // whose data; "" = the default tenant
};

struct Welcome {
  std::string version;           // of the store's software
  uint64_t last_sequence = 0;    // newest batch of this agent that is durable there
  uint64_t max_table_bytes = 0;  // what the stream's tables may take at the store's end; 0 = any
};

// Everything up to `sequence` is durable.
struct Ack {
  uint64_t sequence = 0;
  bool duplicate = false;
  std::string notice;  // what the store folded because of which limit
};

struct StoreStatus {
  std::string version;
  uint64_t bytes = 0;
  uint64_t series = 0;
  uint64_t stacks = 0;
  uint64_t batches = 0;
  uint64_t samples = 0;
  uint64_t memory_bytes = 0;
};

// Half-open: windows whose start lies in [from_ns, to_ns). Unix nanoseconds.
struct MergeProfileRequest {
  std::string query;  // selector; the type may be left out: cpu
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  std::vector<std::string> by;  // labels kept on samples
  std::string tenant;           // "" = the default tenant; travels beside the request
  // For histogram types: exemplars of this duration only. max_ns 0 = no upper bound.
  uint64_t min_ns = 0;
  uint64_t max_ns = 0;
};

struct MergeFlameRequest {
  std::string query;
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  std::vector<std::string> by;  // their values are the first levels
  std::string tenant;           // "" = the default tenant; travels beside the request
  double min_share = 0;         // boxes below this share of the whole are summed up beside their siblings
};

struct MergeTopRequest {
  std::string query;
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  std::vector<std::string> by;  // a table for each combination of their values
  std::string tenant;           // "" = the default tenant; travels beside the request
  size_t rows = 0;              // of each table; 0 = all
  profile::TopOrder order = profile::TopOrder::kSelf;
};

struct MergeTopReply {
  // Types, times and accounting; one sample, without a stack, that has the totals. No sample: nothing matches.
  profile::Profile whole;
  std::vector<profile::LabelledTop> tops;  // the most expensive first; without `by` one
};

struct TimeSeriesRequest {
  std::string query;
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  uint64_t step_ns = 0;  // 0 = one point for the whole range
  std::vector<std::string> by;
  std::string tenant;  // "" = the default tenant; travels beside the request
};

struct TimeSeriesRow {
  profile::LabelSet labels;       // only the `by` labels
  std::vector<int64_t> times_ns;  // start of each step; steps without data are left out
  std::vector<double> values;     // in the reply's unit; exact up to 2^53
  std::vector<uint64_t> counts;   // samples or observations
};

struct TimeSeriesReply {
  std::string unit;  // "nanoseconds", "bytes", "count"
  std::vector<TimeSeriesRow> series;
};

struct HistogramsRequest {
  std::string query;
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  std::vector<std::string> by;
  bool latest = false;  // the state at the end: query::Engine::LatestHistograms
  std::string tenant;   // "" = the default tenant; travels beside the request
};

struct LabelledHistogram {
  profile::LabelSet labels;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;  // errno -> calls
};

// Single calls, the longest first: query::Engine::ExemplarProfile.
struct ExemplarsRequest {
  std::string query;
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  uint64_t min_ns = 0;
  uint64_t max_ns = 0;  // 0 = no upper bound
  bool drawn = false;   // those drawn among all calls, in place of the slowest
  uint32_t limit = 100;
  std::string tenant;  // "" = the default tenant; travels beside the request
};

struct CallExample {
  profile::Exemplar exemplar;                     // without its stacks, which are:
  std::vector<std::string> frames, waker_frames;  // innermost first
  profile::LabelSet labels;                       // of the series
};

struct LabelValuesRequest {
  std::string label;
  std::string query;  // "" = of every series
  int64_t from_ns = 0;
  int64_t to_ns = 0;
  std::string tenant;  // "" = the default tenant; travels beside the request
};

// A file of symbols that the store has taken.
struct SymbolUpload {
  std::string build_id;
  uint64_t bytes = 0;
  bool replaced = false;   // there was one of this build ID
  uint64_t functions = 0;  // with a name
  bool has_lines = false;  // and inlined functions
};

}  // namespace pyrometer::rpc

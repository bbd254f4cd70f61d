// What the query room asks of a store. One implementation keeps data in a folder (store.h); another
// may ask a cluster. Everything is exact: nothing here caps, samples or rounds.
//
//   ASSIGN_OR_RETURN(std::vector<Series> series, reader.FindSeries({.type = "cpu"}));
//   ASSIGN_OR_RETURN(StackSums sums, reader.SumStacks(series[0].trie, {{series[0].id}}, range));
//   profile::Dictionary names;
//   ASSIGN_OR_RETURN(std::vector<profile::StackId> stacks, reader.ResolveStacks(series[0].trie, nodes, &names));
//
// Stacks live in tries, one per service; a NodeId means something only together with its TrieId.
// A parent's id is always smaller than its children's, so totals over a trie are one reverse pass.
// Threads: all methods from any thread. Each call sees one consistent state; two calls may see
// different ones (a batch may arrive in between).
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/profile/dictionary.h"
#include "userspace/profile/histogram.h"
#include "userspace/profile/label_set.h"
#include "userspace/store/matcher.h"

namespace pyrometer::store {

using SeriesId = uint32_t;  // dense, from 1
using TrieId = uint32_t;    // dense, from 1
using NodeId = uint32_t;    // dense within its trie; 0 = the empty stack

// Half-open: a window belongs to the range when its START lies in [from_ns, to_ns), whatever its
// length. Ranges that touch ([a,b) and [b,c)) therefore never count a window twice or lose one.
struct TimeRange {
  int64_t from_ns = 0;                                  // Unix nanoseconds
  int64_t to_ns = std::numeric_limits<int64_t>::max();  // exclusive
  bool Contains(int64_t time_ns) const { return time_ns >= from_ns && time_ns < to_ns; }
  bool operator==(const TimeRange&) const = default;
};

struct Series {
  SeriesId id = 0;
  std::string type;  // "cpu", …
  profile::LabelSet labels;
  TrieId trie = 0;  // where the stacks of its samples and exemplars live
};

// Which series: all matchers must hold.
struct SeriesFilter {
  std::string type;  // empty = every type
  std::vector<LabelMatcher> matchers;
};

// Sums of one stack over some windows.
struct StackSum {
  NodeId node = 0;
  uint64_t count = 0;  // samples
  uint64_t value = 0;  // in the type's unit
  bool operator==(const StackSum&) const = default;
};

struct StackSums {
  std::vector<StackSum> sums;  // sorted by node, no zero rows
  uint64_t points = 0;         // (series, window) pairs that were added up
  uint64_t period_ns = 0;      // of all points; 0 when they differ or are unknown
  int64_t first_ns = 0;        // start of the earliest window; 0 when there is none
  int64_t end_ns = 0;          // end of the latest window
};

// The totals of one (series, window), kept apart from its samples.
struct WindowTotal {
  SeriesId series = 0;
  int64_t time_ns = 0;       // start of the window
  uint64_t duration_ns = 0;  // its length
  uint64_t count = 0;        // samples; observations of a histogram; 0 for counters
  uint64_t value = 0;        // sum in the type's unit; sum of observations; increase of a counter
};

struct StoredExemplar {
  int64_t time_ns = 0;  // Unix time of the end of the call
  uint64_t value = 0;   // nanoseconds
  NodeId node = 0;      // in the series' trie
  std::string comm;
  uint32_t tid = 0;
};

// One (series, window) of a histogram type.
struct HistogramWindow {
  SeriesId series = 0;
  int64_t time_ns = 0;
  uint64_t duration_ns = 0;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;  // errno -> calls
  std::vector<StoredExemplar> exemplars;
};

// An agent that ever delivered something.
struct AgentInfo {
  std::string agent_id;
  std::string node;            // host name it gave last
  uint64_t last_sequence = 0;  // newest batch applied
  int64_t first_seen_ns = 0;   // when its first batch was applied (the store's clock)
  int64_t last_seen_ns = 0;    // when its newest batch was applied
  uint64_t batches = 0;        // applied
  uint64_t duplicates = 0;     // resends recognised since the store was opened
  uint64_t gaps = 0;           // sequence numbers that never came (the agent dropped its spool)
  uint64_t samples = 0;        // applied
};

struct StoreStats {
  uint64_t disk_bytes = 0;      // files of the data folder
  uint64_t memory_bytes = 0;    // caches, write buffers and tries in memory now
  uint64_t series = 0;          // live
  uint64_t tries = 0;           // services
  uint64_t stacks = 0;          // trie nodes of all services
  uint64_t frames = 0;          // distinct
  uint64_t strings = 0;         // distinct
  uint64_t agents = 0;          // ever seen
  uint64_t batches = 0;         // applied
  uint64_t samples = 0;         // applied, all time
  uint64_t duplicates = 0;      // resends recognised since opening
  uint64_t gaps = 0;            // missing sequence numbers of all agents
  uint64_t folded_samples = 0;  // samples put under "[stack limit of this service reached]"
};

class StoreReader {
 public:
  virtual ~StoreReader() = default;

  // Sorted by id.
  virtual StatusOr<std::vector<Series>> FindSeries(const SeriesFilter& filter) const = 0;

  // Adds up stack samples. Precondition: all `series` are of trie `trie`. NOT_FOUND for an unknown trie.
  virtual StatusOr<StackSums> SumStacks(TrieId trie, std::span<const SeriesId> series, TimeRange range) const = 0;
  // The stacks of `nodes`, interned into `*dictionary`; same order as `nodes`. OUT_OF_RANGE for a node that
  // the trie does not have.
  virtual StatusOr<std::vector<profile::StackId>> ResolveStacks(TrieId trie, std::span<const NodeId> nodes,
                                                                profile::Dictionary* dictionary) const = 0;

  // Calls `sink` for every total in range, by series in the given order, then by time. A (series, window)
  // that arrived in several batches comes several times: add up.
  virtual Status ScanTotals(std::span<const SeriesId> series, TimeRange range,
                            const std::function<void(const WindowTotal&)>& sink) const = 0;
  // The same for whole histograms.
  virtual Status ScanHistograms(std::span<const SeriesId> series, TimeRange range,
                                const std::function<void(const HistogramWindow&)>& sink) const = 0;

  // Sorted. Of series that match `filter` (an empty filter: of all).
  virtual StatusOr<std::vector<std::string>> ProfileTypes() const = 0;
  virtual StatusOr<std::vector<std::string>> LabelNames(const SeriesFilter& filter) const = 0;
  virtual StatusOr<std::vector<std::string>> LabelValues(std::string_view name, const SeriesFilter& filter) const = 0;

  // Sorted by agent id.
  virtual StatusOr<std::vector<AgentInfo>> Agents() const = 0;
  virtual StatusOr<StoreStats> Stats() const = 0;
};

struct AppendResult {
  bool duplicate = false;      // seen before; nothing was written, acknowledge all the same
  uint64_t last_sequence = 0;  // newest applied of this agent, after this call
  uint64_t gap = 0;            // sequence numbers skipped by this batch
};

class StoreWriter {
 public:
  virtual ~StoreWriter() = default;

  // Applies the whole batch or nothing. OK means durable: it may be acknowledged. Errors:
  // INVALID_ARGUMENT (malformed; sending it again will not help), RESOURCE_EXHAUSTED (disk full or a
  // limit; the message names it), UNAVAILABLE (closing), DATA_LOSS (damaged files).
  virtual StatusOr<AppendResult> Append(const profile::Batch& batch) = 0;
  // 0 for an agent never seen.
  virtual StatusOr<uint64_t> LastSequence(std::string_view agent_id) const = 0;
};

}  // namespace pyrometer::store

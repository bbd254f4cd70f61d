// What the query room asks of a store and what the server gives it. One implementation keeps data in a folder
// (store.h), another in a ClickHouse cluster (clickhouse/). Everything is exact: nothing here caps, samples or rounds.
//
//   ASSIGN_OR_RETURN(std::vector<Series> series, reader.FindSeries({.type = "cpu"}));
//   ASSIGN_OR_RETURN(StackSums sums, reader.SumStacks({.trie = series[0].trie, .series = {series[0].id}}, range));
//   profile::Dictionary names;
//   ASSIGN_OR_RETURN(std::vector<profile::StackId> stacks, reader.ResolveStacks(series[0].trie, leaves, &names));
//
// Stacks live in tries, one per tenant and service. A trie has nodes (parent node, frame), and *leaves*: the dense
// numbers of those nodes at which a sample was ever taken. Samples name leaves; a LeafId means something only with its
// TrieId.
//
// Old data is kept longer in coarser form: windows of single series, then sums per hour and day of *groups* of series
// (those that differ only in instance labels). Both kinds of id are passed together; see Selection.
//
// Threads: all methods from any thread. Each call sees one consistent state; two calls may see different ones (a batch
// may arrive in between).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
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
#include "userspace/store/read_budget.h"

namespace pyrometer::store {

class FunctionTrie;

using SeriesId = uint32_t;  // dense, from 1
using GroupId = uint32_t;   // dense, from 1; numbers of their own
using TrieId = uint32_t;    // dense, from 1
using NodeId = uint32_t;    // dense within its trie; 0 = the empty stack
using LeafId = uint32_t;    // dense within its trie; 0 = the empty stack

// Labels that tell instances of one service apart. They come and go with deploys; sums that are kept for long are kept
// without them.
inline constexpr std::array<std::string_view, 3> kInstanceLabels = {"node", "pod", "container.id"};
bool IsInstanceLabel(std::string_view name);

// As Cortex and Mimir have it: at most 150 letters, digits and !-_.*'(); "" is the default tenant.
bool IsTenantName(std::string_view name);

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
  TrieId trie = 0;    // where the stacks of its samples and exemplars live
  GroupId group = 0;  // whose sums hold this series' own
};

// All series of one trie and type whose labels are equal but for instance labels.
struct Group {
  GroupId id = 0;
  std::string type;
  profile::LabelSet labels;  // without instance labels
  TrieId trie = 0;
};

// Which series: all matchers must hold.
struct SeriesFilter {
  std::string tenant;  // whose; "" = the default tenant
  std::string type;    // empty = every type
  std::vector<LabelMatcher> matchers;

  // No matcher looks at an instance label: then a group matches as a whole or not at all.
  bool SeesGroupsWhole() const;
};

// What to add up. Where windows of single series are still kept, those of `series` count; where only sums of groups are
// left, those of `groups`.
struct Selection {
  std::vector<SeriesId> series;
  std::vector<GroupId> groups;
  // `series` are all series of `groups`: then sums of groups may stand for them anywhere.
  bool groups_are_whole = false;
};
struct StackSelection : Selection {
  TrieId trie = 0;
};

// Sums of one stack over some windows.
struct StackSum {
  LeafId leaf = 0;
  uint64_t count = 0;  // samples
  uint64_t value = 0;  // in the type's unit
  bool operator==(const StackSum&) const = default;
};

struct StackSums {
  std::vector<StackSum> sums;  // sorted by leaf, no zero rows
  uint64_t points = 0;         // (series, window) pairs that were added up
  uint64_t period_ns = 0;      // of all points; 0 when they differ or are unknown
  int64_t first_ns = 0;        // start of the earliest window; 0 when there is none
  int64_t end_ns = 0;          // end of the latest window
};

// The totals of one (series, window), kept apart from its samples; or of a group's hour.
struct WindowTotal {
  SeriesId series = 0;       // 0: of a group
  GroupId group = 0;         // 0: of a series
  int64_t time_ns = 0;       // start of the window; of the hour
  uint64_t duration_ns = 0;  // its length
  uint64_t points = 1;       // windows in it
  uint64_t count = 0;        // samples; observations of a histogram; 0 for counters
  uint64_t value = 0;        // sum in the type's unit; sum of observations; increase of a counter
};

struct StoredExemplar {
  int64_t time_ns = 0;  // Unix time of the end of the call
  uint64_t value = 0;   // nanoseconds
  LeafId leaf = 0;      // in the series' trie
  std::string comm;
  uint32_t tid = 0;
  std::string call;  // profile::Exemplar::call
  uint64_t weight = 0;
  bool typical = false;
  std::vector<profile::TimePart> split;
  profile::Waker waker;   // but its stack:
  LeafId waker_leaf = 0;  // in the series' trie
};

// One (series, window) of a histogram type, or a group's hour (without exemplars).
struct HistogramWindow {
  SeriesId series = 0;  // 0: of a group
  GroupId group = 0;    // 0: of a series
  int64_t time_ns = 0;
  uint64_t duration_ns = 0;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;  // errno -> calls
  std::vector<StoredExemplar> exemplars;
};

// Where within one (series, window) its samples were taken.
struct OffsetsWindow {
  SeriesId series = 0;
  int64_t time_ns = 0;  // start of the window
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  struct Row {
    LeafId leaf = 0;
    std::span<const uint16_t> offsets_ms;  // sorted; from the window's start
  };
  std::vector<Row> rows;  // sorted by leaf
};

// What a function took in one hour in one service.
struct FunctionHour {
  TrieId trie = 0;
  int64_t time_ns = 0;  // start of the hour
  uint64_t self = 0;    // in the type's unit
  uint64_t total = 0;   // where it occurs anywhere in the stack; recursion counts once
};

// An agent that ever delivered something.
struct AgentInfo {
  std::string tenant;
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

// What one tenant has and what was folded because of a limit.
struct TenantInfo {
  std::string tenant;           // "" = the default tenant
  uint64_t series = 0;          // live
  uint64_t nodes = 0;           // stack nodes of all its services
  uint64_t frames = 0;          // frames that it was the first to send
  uint64_t bytes = 0;           // of its points at rest, without keys and compression
  uint64_t samples = 0;         // applied, all time
  uint64_t folded_samples = 0;  // under a stack limit
  uint64_t folded_series = 0;   // points that went to the series of the folded
  uint64_t throttled = 0;       // batches that had to wait for the rate limit since opening
  int64_t kept_since_ns = 0;    // windows of single series before this are gone
};

struct StoreStats {
  uint64_t disk_bytes = 0;      // files of the data folder
  uint64_t memory_bytes = 0;    // caches, write buffers and tries in memory now
  uint64_t memory_budget = 0;   // --memory
  uint64_t series = 0;          // live
  uint64_t tries = 0;           // of services; a large one has several
  uint64_t nodes = 0;           // trie nodes of all services
  uint64_t stacks = 0;          // leaves of all services
  uint64_t frames = 0;          // distinct
  uint64_t strings = 0;         // distinct
  uint64_t agents = 0;          // ever seen
  uint64_t batches = 0;         // applied
  uint64_t samples = 0;         // applied, all time
  uint64_t duplicates = 0;      // resends recognised since opening
  uint64_t gaps = 0;            // missing sequence numbers of all agents
  uint64_t folded_samples = 0;  // samples put under a visible frame because of a limit of stacks
  uint64_t fresh_points = 0;    // (series, window) pairs that housekeeping has not taken up yet
  uint64_t syncs = 0;           // of the log since opening
  uint64_t write_errors = 0;    // refused by disk or database since opening
};

// Names of places in binaries that come from elsewhere than the samples, such as files of symbols uploaded later.
// Called from any thread.
class LateNames {
 public:
  struct Line {
    std::string name;
    std::string file;  // source file; "" unknown
    int64_t line = 0;  // where the function begins, else of the call; 0 unknown
  };
  virtual ~LateNames() = default;
  // Another one whenever answers may have changed; 0: there is nothing at all.
  virtual uint64_t generation() const = 0;
  // The functions at a place, innermost first; empty: nothing better than what is known. `has_name`: of the place.
  virtual std::vector<Line> Find(std::string_view build_id, ElfAddress address, bool has_name) = 0;
};

class StoreReader {
 public:
  virtual ~StoreReader() = default;

  // Sorted by id. Series that still have windows.
  virtual StatusOr<std::vector<Series>> FindSeries(const SeriesFilter& filter) const = 0;
  // Sorted by id. A group lacks instance labels: they are "" to the matchers.
  virtual StatusOr<std::vector<Group>> FindGroups(const SeriesFilter& filter) const = 0;

  // Adds up stack samples. NOT_FOUND for an unknown trie. The budget (may be null) is asked now and then.
  virtual StatusOr<StackSums> SumStacks(const StackSelection& selection, TimeRange range,
                                        ReadBudget* budget = nullptr) const = 0;
  // The stacks of `leaves`, interned into `*dictionary`; same order as `leaves`. OUT_OF_RANGE for a leaf that
  // the trie does not have.
  virtual StatusOr<std::vector<profile::StackId>> ResolveStacks(TrieId trie, std::span<const LeafId> leaves,
                                                                profile::Dictionary* dictionary,
                                                                ReadBudget* budget = nullptr) const = 0;
  // The trie seen as functions, up to date with everything stored so far; native frames that lack a name or a line are
  // asked of `late` (may be null).
  virtual StatusOr<std::shared_ptr<FunctionTrie>> Functions(TrieId trie, LateNames* late = nullptr) const = 0;
  // Texts of string ids that a FunctionTrie holds; same order.
  virtual StatusOr<std::vector<std::string>> Texts(std::span<const uint32_t> ids) const = 0;
  // Does independent pieces of a question on the threads that it may use (StoreOptions::read_threads beside the
  // caller's). After a failure pieces that were not begun are left out.
  virtual Status Parallel(size_t pieces, const std::function<Status(size_t)>& piece) const = 0;

  // Calls `sink` for every total in range, by series in the given order, then by time; then for groups. A (series,
  // window) that arrived in several batches comes several times: add up. With `hourly`, whole hours of whole groups may
  // come as one total of the group instead of one per window.
  virtual Status ScanTotals(const Selection& selection, TimeRange range, bool hourly,
                            const std::function<void(const WindowTotal&)>& sink,
                            ReadBudget* budget = nullptr) const = 0;
  // The same for whole histograms.
  virtual Status ScanHistograms(const Selection& selection, TimeRange range, bool hourly,
                                const std::function<void(const HistogramWindow&)>& sink,
                                ReadBudget* budget = nullptr) const = 0;
  // Offsets of samples within their windows, as far as they are kept (TenantLimits::offsets_retention_ns).
  virtual Status ScanOffsets(const StackSelection& selection, TimeRange range,
                             const std::function<void(const OffsetsWindow&)>& sink,
                             ReadBudget* budget = nullptr) const = 0;
  // Cost of the functions called `name` in samples of `type`, of whole tries, of hours that housekeeping has taken up.
  // By trie, then time; an hour may come several times: add up.
  virtual Status ScanFunction(std::span<const TrieId> tries, std::string_view type, std::string_view name,
                              TimeRange range, const std::function<void(const FunctionHour&)>& sink,
                              ReadBudget* budget = nullptr) const = 0;
  // Everything in whole hours before this has been taken up (functions, groups); Unix nanoseconds. Late points
  // excepted.
  virtual StatusOr<int64_t> HousekeptUntil() const = 0;

  // Sorted. Of series that match `filter` (an empty filter: of all of the tenant).
  virtual StatusOr<std::vector<std::string>> ProfileTypes(std::string_view tenant) const = 0;
  virtual StatusOr<std::vector<std::string>> LabelNames(const SeriesFilter& filter) const = 0;
  virtual StatusOr<std::vector<std::string>> LabelValues(std::string_view name, const SeriesFilter& filter) const = 0;

  // Sorted by tenant and agent id.
  virtual StatusOr<std::vector<AgentInfo>> Agents() const = 0;
  virtual StatusOr<std::vector<TenantInfo>> Tenants() const = 0;
  virtual StatusOr<StoreStats> Stats() const = 0;
};

struct AppendResult {
  bool duplicate = false;      // seen before; nothing was written, acknowledge all the same
  uint64_t last_sequence = 0;  // newest applied of this agent, after this call
  uint64_t gap = 0;            // sequence numbers skipped by this batch
  std::string notice;          // for the sender: what was folded because of which limit; "" = nothing
};

// What a store remembers about one stream between its batches, so that known definitions cost one array look-up.
class StreamMemo {
 public:
  virtual ~StreamMemo() = default;
  virtual uint64_t bytes() const = 0;
};

class StoreWriter {
 public:
  virtual ~StoreWriter() = default;

  // For batches that share one set of definitions. Not for two threads at a time.
  virtual std::unique_ptr<StreamMemo> NewMemo() = 0;

  // Applies the whole batch or nothing. OK means durable: it may be acknowledged. `memo`: may be null; of this
  // batch's definitions, to which entries may only have been added since the last call with it. Errors:
  // INVALID_ARGUMENT (malformed; sending it again will not help), RESOURCE_EXHAUSTED (disk full or a
  // limit; the message names it), UNAVAILABLE (closing, overload), DATA_LOSS (damaged files).
  virtual StatusOr<AppendResult> Append(const profile::BatchView& batch, StreamMemo* memo) = 0;
  StatusOr<AppendResult> Append(const profile::Batch& batch);

  // 0 for an agent never seen.
  virtual StatusOr<uint64_t> LastSequence(std::string_view tenant, std::string_view agent_id) const = 0;
};

}  // namespace pyrometer::store

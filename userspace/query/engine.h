// Questions to a store, answered exactly: no cap on stacks or series, sums are sums.
//
//   query::Engine engine(&reader);
//   ASSIGN_OR_RETURN(query::Selector s, query::ParseSelector(text, "cpu"));
//   ASSIGN_OR_RETURN(profile::Profile p, engine.MergeProfile(s, range, {.group_by = {"comm"}}));
//   query::TopTable top = query::TopFunctions(p, 10);
//
// Time ranges are half-open and select windows by their START: a window that starts at t is in
// [from, to) when from <= t < to, whatever its length. [a,b) and [b,c) together are exactly [a,c).
// To see "the last 10 s" of 10 s windows ask from a window boundary.
//
// Steps (TimeSeries, HistogramSeries) are aligned to multiples of step_ns since the Unix epoch; a
// window counts wholly in the step that holds its start. Steps without any window are left out.
//
// Data older than a store keeps windows of single series is there as sums per hour of groups of series
// (store/reader.h): without the labels that tell instances apart, which then count as absent, and at hourly steps.
//
// Threads: all methods from any thread. Cost: MergeProfile 5 ns per (window, stack) read plus ~1 µs per
// distinct stack shown, less where sums of hours serve; TimeSeries reads totals only (~50 ns per window), never
// samples. flame_merge.h has the views that do not need every stack spelt out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/batch.h"
#include "userspace/profile/function_costs.h"
#include "userspace/profile/histogram.h"
#include "userspace/profile/label_set.h"
#include "userspace/profile/profile.h"
#include "userspace/query/selector.h"
#include "userspace/store/reader.h"

namespace pyrometer::query {

using store::TimeRange;

// Most steps per answer; a page shows at most a few thousand pixels.
inline constexpr uint64_t kMaxSteps = 20'000;

// How old the newest window of a node may be to tell its state: a window, the way to the store, and a busy machine.
inline constexpr int64_t kLatestNs = 60'000'000'000;

struct MergeOptions {
  // Label names kept on samples; samples with equal kept labels and equal stack add up. Empty: none kept.
  std::vector<std::string> group_by;
};

struct SeriesPoint {
  int64_t time_ns = 0;  // start of the step
  uint64_t count = 0;   // cpu: samples; histograms: observations; counters: 0
  uint64_t value = 0;   // cpu: ns; histograms: sum of observations; counters: increase
  bool operator==(const SeriesPoint&) const = default;
};

struct TimeSeriesRow {
  profile::LabelSet labels;         // only the `by` labels
  std::vector<SeriesPoint> points;  // ascending in time
};

struct HistogramRow {
  profile::LabelSet labels;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;  // errno -> calls
  uint64_t exemplars = 0;              // stored for it
};

struct HistogramStep {
  int64_t time_ns = 0;  // start of the step
  profile::Histogram histogram;
  uint64_t errors = 0;  // calls that failed
};

struct HistogramSeriesRow {
  profile::LabelSet labels;
  std::vector<HistogramStep> steps;  // ascending in time
};

struct ExemplarRow {
  int64_t time_ns = 0;
  uint64_t value = 0;                             // nanoseconds
  profile::StackId stack = profile::kEmptyStack;  // in ExemplarResult::profile.dictionary
  std::string comm;
  uint32_t tid = 0;
  profile::LabelSet labels;  // of the series
  std::string call;          // profile::Exemplar::call
  uint64_t weight = 0;       // as there, and so on
  bool typical = false;
  std::vector<profile::TimePart> split;
  profile::Waker waker;  // its stack in the same dictionary
};

// The names of a stack, innermost first, inlined calls by themselves.
std::vector<std::string> StackNames(const profile::Dictionary& dictionary, profile::StackId stack);

// Which exemplars: one may be of both kinds.
enum class ExemplarKind {
  kSlow,   // the slowest calls: each stands for itself
  kDrawn,  // drawn among all calls: each stands for `weight` of them, so that sums estimate those of all calls
};

struct ExemplarResult {
  // Value types: {"calls","count"}, {"latency","nanoseconds"} (the default value).
  profile::Profile profile;
  std::vector<ExemplarRow> exemplars;  // slowest first
};

// One container (or, outside containers, one service) on one node.
struct ContainerSummary {
  std::string node;
  std::string container_id;    // "" outside containers
  std::string container_name;  // "" outside containers
  std::string service;
  profile::LabelSet labels;  // those that all its cpu series have in common
  uint64_t cpu_ns = 0;
  uint64_t samples = 0;
  uint64_t series = 0;
  int64_t first_ns = 0;  // start of its earliest window in range
  int64_t last_ns = 0;   // start of its latest window in range
};

struct SumTotals {
  uint64_t samples = 0;  // or observations
  uint64_t value = 0;
  uint64_t series = 0;   // that have a window in range
  uint64_t windows = 0;  // (series, window) points
};

class Engine {
 public:
  // `reader` must outlive the engine.
  explicit Engine(const store::StoreReader* reader) : reader_(*reader) {}
  // The same store for one question: of a tenant, within a budget (may be null; must outlive the result).
  Engine For(std::string tenant, store::ReadBudget* budget) const {
    Engine engine(&reader_);
    engine.tenant_ = std::move(tenant);
    engine.budget_ = budget;
    return engine;
  }

  // The exact merge of every matching stack sample. Value types: {"samples","count"} and, for cpu,
  // {"cpu","nanoseconds"} (the default value); other types: {type, "nanoseconds"}. Nothing matching
  // gives an empty profile, not an error. `accounting`: taken/delivered/dropped of the nodes and
  // range from the agents' own counters when the selector asks for whole nodes (matchers on `node` and `session`
  // only); otherwise the counters do not tell containers apart: delivered = taken = samples here, and
  // node-wide drops are told in `comments`.
  StatusOr<profile::Profile> MergeProfile(const Selector& selector, TimeRange range,
                                          const MergeOptions& options = {}) const;

  // Exemplars of one kind with min_ns <= value <= max_ns. For histogram types.
  StatusOr<ExemplarResult> ExemplarProfile(const Selector& selector, TimeRange range, uint64_t min_ns = 0,
                                           uint64_t max_ns = UINT64_MAX, ExemplarKind kind = ExemplarKind::kSlow) const;

  // From totals only. step_ns 0: one point for the whole range, at range.from_ns. INVALID_ARGUMENT when a row
  // would have more than kMaxSteps points. Rows sorted by labels.
  StatusOr<std::vector<TimeSeriesRow>> TimeSeries(const Selector& selector, TimeRange range, uint64_t step_ns,
                                                  const std::vector<std::string>& by) const;

  // Merged histograms per group. Rows sorted by labels.
  StatusOr<std::vector<HistogramRow>> Histograms(const Selector& selector, TimeRange range,
                                                 const std::vector<std::string>& by) const;
  // The state at the end of the range: of each node its newest window of the selector's type, whatever the other
  // conditions, if it starts in the last kLatestNs of the range. For types whose windows are looks at a state
  // (syscall_open): adding them up would count one thing many times.
  StatusOr<std::vector<HistogramRow>> LatestHistograms(const Selector& selector, TimeRange range,
                                                       const std::vector<std::string>& by) const;
  // The same over time, for heat maps and quantile lines.
  StatusOr<std::vector<HistogramSeriesRow>> HistogramSeries(const Selector& selector, TimeRange range, uint64_t step_ns,
                                                            const std::vector<std::string>& by) const;

  // CPU per container, most first. Sessions are not counted.
  StatusOr<std::vector<ContainerSummary>> Containers(TimeRange range) const;

  StatusOr<SumTotals> Totals(const Selector& selector, TimeRange range) const;

  // Names for flame graphs and tables of functions that the samples came without (may be null; must outlive this).
  void set_late_names(store::LateNames* late) { late_names_ = late; }
  store::LateNames* late_names() const { return late_names_; }

  const store::StoreReader& reader() const { return reader_; }
  const std::string& tenant() const { return tenant_; }
  store::ReadBudget* budget() const { return budget_; }

 private:
  const store::StoreReader& reader_;
  std::string tenant_;
  store::ReadBudget* budget_ = nullptr;
  store::LateNames* late_names_ = nullptr;
};

using profile::FunctionCost;
using profile::TopOrder;
using profile::TopTable;

// The `n` most expensive functions (0 = all). A function is name + module + kind; inlined functions
// count as functions, the innermost one has the self value. `value_index` SIZE_MAX: the profile's default value.
TopTable TopFunctions(const profile::Profile& profile, size_t n, TopOrder order = TopOrder::kSelf,
                      size_t value_index = SIZE_MAX);
// One table for each label set of the samples, the most expensive first.
std::vector<profile::LabelledTop> TopByLabels(const profile::Profile& profile, size_t n, TopOrder order);
// Most expensive first; labels decide among equals.
void SortTops(std::vector<profile::LabelledTop>* tops);

}  // namespace pyrometer::query

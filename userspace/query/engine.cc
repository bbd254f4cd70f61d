#include "userspace/query/engine.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/query/selection.h"

namespace pyrometer::query {
namespace {

using profile::LabelSet;
using store::Series;
using store::SeriesId;

uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

// Profiles hold signed values.
int64_t ToSigned(uint64_t value) { return static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX)); }

constexpr int64_t kHourNs = 3600 * static_cast<int64_t>(kNsPerSecond);

// Start of the step that `time_ns` lies in; the whole range is one step when step_ns is 0.
class Steps {
 public:
  Steps(TimeRange range, uint64_t step_ns)
      : range_(range), step_ns_(static_cast<int64_t>(std::min<uint64_t>(step_ns, INT64_MAX))) {}
  int64_t Start(int64_t time_ns) const {
    if (step_ns_ == 0) return range_.from_ns;
    return time_ns - time_ns % step_ns_;  // stored times are never negative
  }
  // Hourly sums do as well.
  bool Hourly() const { return step_ns_ == 0 || step_ns_ % kHourNs == 0; }
  static Status TooMany() {
    return InvalidArgumentError(
        StrFormat("more than %s points in one line: ask for a larger step or a shorter range", FormatCount(kMaxSteps)));
  }

 private:
  const TimeRange range_;
  const int64_t step_ns_;
};

std::string UnitOf(std::string_view type) {
  if (type == profile::kTypeCpu || type == profile::kTypeSyscallLatency || type == profile::kTypeSyscallTime ||
      type == profile::kTypeRunQueue || type.starts_with("off_cpu") ||
      (type.starts_with("tcp_") && (type.ends_with("rtt") || type.ends_with("connect"))) ||
      type == profile::kTypeTcpRttVariation || type == profile::kTypeTcpLimited) {
    return "nanoseconds";
  }
  return "count";
}

// True when the selector asks for whole nodes (and perhaps sessions): then the agents' counters,
// which know nothing smaller, say what was taken and dropped for exactly this selection.
bool AsksWholeNodes(const Selector& selector) {
  return std::all_of(selector.matchers.begin(), selector.matchers.end(), [](const store::LabelMatcher& matcher) {
    return matcher.name() == profile::kLabelNode || matcher.name() == profile::kLabelSession;
  });
}

// Sum of the agents' own counters over the nodes of a selection.
StatusOr<profile::Accounting> NodeAccounting(const Engine& engine, const Selector& selector, TimeRange range,
                                             const std::set<std::string>& nodes) {
  profile::Accounting accounting;
  // Sessions count in their own series: the same condition on `session` applies to the counters.
  store::SeriesFilter filter = selector.Filter();
  filter.tenant = engine.tenant();
  std::erase_if(filter.matchers,
                [](const store::LabelMatcher& matcher) { return matcher.name() != profile::kLabelSession; });
  const auto add = [&](std::string_view type, const std::function<void(const LabelSet&, uint64_t)>& sink) -> Status {
    filter.type = type;
    ASSIGN_OR_RETURN(const std::vector<Series> series, engine.reader().FindSeries(filter));
    std::unordered_map<SeriesId, const LabelSet*> labels;
    store::Selection selection;
    for (const Series& one : series) {
      if (!nodes.contains(std::string(one.labels.Get(profile::kLabelNode)))) continue;
      labels.emplace(one.id, &one.labels);
      selection.series.push_back(one.id);
    }
    return engine.reader().ScanTotals(
        selection, range, false, [&](const store::WindowTotal& total) { sink(*labels.at(total.series), total.value); },
        engine.budget());
  };
  const auto by_reason = [](std::map<std::string, uint64_t>* table) {
    return [table](const LabelSet& labels, uint64_t value) {
      const std::string_view reason = labels.Get(profile::kLabelReason);
      (*table)[std::string(reason.empty() ? "unknown" : reason)] += value;
    };
  };
  RETURN_IF_ERROR(add(profile::kTypeSamplesTaken, [&](const LabelSet&, uint64_t value) { accounting.taken += value; }));
  RETURN_IF_ERROR(
      add(profile::kTypeSamplesDelivered, [&](const LabelSet&, uint64_t value) { accounting.delivered += value; }));
  RETURN_IF_ERROR(add(profile::kTypeSamplesDropped, by_reason(&accounting.dropped)));
  RETURN_IF_ERROR(add(profile::kTypeStackStops, by_reason(&accounting.stop_reasons)));
  RETURN_IF_ERROR(add(profile::kTypeSymbolMisses, by_reason(&accounting.miss_reasons)));
  RETURN_IF_ERROR(add(profile::kTypeStackMeans, by_reason(&accounting.means)));
  const auto sum = [](uint64_t* total) { return [total](const LabelSet&, uint64_t value) { *total += value; }; };
  RETURN_IF_ERROR(add(profile::kTypeSamplesExpected, sum(&accounting.expected)));
  RETURN_IF_ERROR(add(profile::kTypeFrames, sum(&accounting.frames)));
  std::erase_if(accounting.dropped, [](const auto& entry) { return entry.second == 0; });
  std::erase_if(accounting.stop_reasons, [](const auto& entry) { return entry.second == 0; });
  std::erase_if(accounting.miss_reasons, [](const auto& entry) { return entry.second == 0; });
  std::erase_if(accounting.means, [](const auto& entry) { return entry.second == 0; });
  return accounting;
}

}  // namespace

StatusOr<profile::Profile> Engine::MergeProfile(const Selector& selector, TimeRange range,
                                                const MergeOptions& options) const {
  ASSIGN_OR_RETURN(const Found found, Find(reader_, tenant_, selector, options.group_by));
  profile::Profile merged;
  const bool samples_only = selector.type.starts_with("pyrometer_");
  merged.value_types = {{"samples", "count"}};
  if (!samples_only) {
    merged.value_types.push_back({selector.type, UnitOf(selector.type)});
    merged.default_value = 1;
  }
  merged.period_type = {selector.type, UnitOf(selector.type)};

  std::set<std::string> nodes;
  for (const Series& one : found.series) nodes.emplace(one.labels.Get(profile::kLabelNode));
  // Per trie and kept labels one exact sum; per trie one look at the stacks of all of them.
  const std::vector<StackPart> parts = StackParts(found, options.group_by);
  int64_t end_ns = 0;
  bool first = true;
  bool same_period = true;
  uint64_t samples = 0;
  for (size_t begin = 0, end = 0; begin < parts.size(); begin = end) {
    const store::TrieId trie = parts[begin].selection.trie;
    std::vector<std::pair<profile::LabelSetId, store::StackSums>> sums;
    std::vector<store::LeafId> leaves;
    for (; end < parts.size() && parts[end].selection.trie == trie; ++end) {
      ASSIGN_OR_RETURN(store::StackSums sum, reader_.SumStacks(parts[end].selection, range, budget_));
      if (sum.points == 0) continue;
      const auto period = static_cast<int64_t>(std::min<uint64_t>(sum.period_ns, INT64_MAX));
      if (first) merged.period = period;
      same_period = same_period && merged.period == period;
      if (first || sum.first_ns < merged.time_ns) merged.time_ns = sum.first_ns;
      end_ns = std::max(end_ns, sum.end_ns);
      first = false;
      for (const store::StackSum& row : sum.sums) leaves.push_back(row.leaf);
      sums.emplace_back(merged.dictionary.InternLabelSet(parts[end].labels), std::move(sum));
    }
    std::sort(leaves.begin(), leaves.end());
    leaves.erase(std::unique(leaves.begin(), leaves.end()), leaves.end());
    ASSIGN_OR_RETURN(const std::vector<profile::StackId> stacks,
                     reader_.ResolveStacks(trie, leaves, &merged.dictionary, budget_));
    for (const auto& [labels, sum] : sums) {
      size_t at = 0;
      for (const store::StackSum& row : sum.sums) {
        while (leaves[at] != row.leaf) ++at;  // both sorted
        samples = SaturatingAdd(samples, row.count);
        if (samples_only) {
          merged.Add(labels, stacks[at], {ToSigned(row.count)});
        } else {
          merged.Add(labels, stacks[at], {ToSigned(row.count), ToSigned(row.value)});
        }
      }
    }
  }
  if (!same_period) merged.period = 0;
  if (end_ns > merged.time_ns) merged.duration_ns = static_cast<uint64_t>(end_ns - merged.time_ns);

  ASSIGN_OR_RETURN(profile::Accounting node_wide, NodeAccounting(*this, selector, range, nodes));
  const bool counters_known = node_wide.taken != 0 || node_wide.delivered != 0 || !node_wide.dropped.empty();
  if (AsksWholeNodes(selector) && counters_known) {
    merged.accounting = std::move(node_wide);
  } else {
    merged.accounting.taken = merged.accounting.delivered = samples;
    for (const auto& [reason, count] : node_wide.dropped) {
      merged.comments.push_back(
          StrFormat("%s samples were dropped on the nodes of this selection, all containers together: %s (of %s taken)",
                    FormatCount(count), reason, FormatCount(node_wide.taken)));
    }
  }
  return merged;
}

StatusOr<ExemplarResult> Engine::ExemplarProfile(const Selector& selector, TimeRange range, uint64_t min_ns,
                                                 uint64_t max_ns) const {
  store::SeriesFilter filter = selector.Filter();
  filter.tenant = tenant_;
  ASSIGN_OR_RETURN(const std::vector<Series> series, reader_.FindSeries(filter));
  ExemplarResult result;
  result.profile.value_types = {{"calls", "count"}, {"latency", UnitOf(selector.type)}};
  result.profile.default_value = 1;
  result.profile.period_type = result.profile.value_types[1];
  struct Stored {
    const Series* series;
    store::StoredExemplar exemplar;
  };
  std::map<store::TrieId, std::vector<Stored>> found;
  std::unordered_map<SeriesId, const Series*> by_id;
  store::Selection selection;  // sums of groups have no exemplars
  for (const Series& one : series) {
    by_id.emplace(one.id, &one);
    selection.series.push_back(one.id);
  }
  int64_t first_ns = INT64_MAX;
  int64_t end_ns = 0;
  const auto collect = [&](const store::HistogramWindow& window) {
    const Series* one = by_id.at(window.series);
    first_ns = std::min(first_ns, window.time_ns);
    end_ns = std::max(end_ns, window.time_ns + static_cast<int64_t>(
                                                   std::min<uint64_t>(window.duration_ns, INT32_MAX * uint64_t{1000})));
    for (const store::StoredExemplar& exemplar : window.exemplars) {
      if (exemplar.value >= min_ns && exemplar.value <= max_ns) found[one->trie].push_back({one, exemplar});
    }
  };
  RETURN_IF_ERROR(reader_.ScanHistograms(selection, range, false, collect, budget_));
  if (end_ns > 0) {
    result.profile.time_ns = first_ns;
    result.profile.duration_ns = static_cast<uint64_t>(end_ns - first_ns);
  }
  for (const auto& [trie, list] : found) {
    std::vector<store::LeafId> leaves;
    for (const Stored& one : list) leaves.push_back(one.exemplar.leaf);
    ASSIGN_OR_RETURN(const std::vector<profile::StackId> stacks,
                     reader_.ResolveStacks(trie, leaves, &result.profile.dictionary, budget_));
    for (size_t i = 0; i < list.size(); ++i) {
      const store::StoredExemplar& exemplar = list[i].exemplar;
      result.profile.Add(0, stacks[i], {1, ToSigned(exemplar.value)});
      result.exemplars.push_back(
          {exemplar.time_ns, exemplar.value, stacks[i], exemplar.comm, exemplar.tid, list[i].series->labels});
    }
  }
  std::stable_sort(result.exemplars.begin(), result.exemplars.end(), [](const ExemplarRow& a, const ExemplarRow& b) {
    return std::pair(b.value, a.time_ns) < std::pair(a.value, b.time_ns);
  });
  result.profile.accounting.taken = result.profile.accounting.delivered = result.exemplars.size();
  return result;
}

StatusOr<std::vector<TimeSeriesRow>> Engine::TimeSeries(const Selector& selector, TimeRange range, uint64_t step_ns,
                                                        const std::vector<std::string>& by) const {
  ASSIGN_OR_RETURN(const Found found, Find(reader_, tenant_, selector, by));
  const Grouping grouping(found, by);
  const Steps steps(range, step_ns);
  std::vector<std::map<int64_t, SeriesPoint>> groups(grouping.size());
  bool too_many = false;
  const auto add = [&](const store::WindowTotal& total) {
    if (too_many) return;
    auto& group = groups[grouping.Of(total)];
    const int64_t start = steps.Start(total.time_ns);
    SeriesPoint& point = group[start];
    point.time_ns = start;
    point.count = SaturatingAdd(point.count, total.count);
    point.value = SaturatingAdd(point.value, total.value);
    too_many = group.size() > kMaxSteps;
  };
  RETURN_IF_ERROR(reader_.ScanTotals(found.All(), range, steps.Hourly(), add, budget_));
  if (too_many) return Steps::TooMany();
  std::vector<TimeSeriesRow> rows;
  const std::vector<LabelSet> labels = grouping.Labels();
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].empty()) continue;
    TimeSeriesRow row{.labels = labels[i]};
    for (const auto& [time_ns, point] : groups[i]) row.points.push_back(point);
    rows.push_back(std::move(row));
  }
  return rows;
}

StatusOr<std::vector<HistogramRow>> Engine::Histograms(const Selector& selector, TimeRange range,
                                                       const std::vector<std::string>& by) const {
  ASSIGN_OR_RETURN(const Found found, Find(reader_, tenant_, selector, by));
  const Grouping grouping(found, by);
  std::vector<HistogramRow> groups(grouping.size());
  std::vector<bool> seen(grouping.size());
  // Windows one by one: sums of groups do not tell how many exemplars there are.
  const auto add = [&](const store::HistogramWindow& window) {
    const size_t index = grouping.Of(window);
    HistogramRow& row = groups[index];
    seen[index] = true;
    row.histogram.Merge(window.histogram);
    for (const auto& [error_number, count] : window.errors) row.errors[error_number] += count;
    row.exemplars += window.exemplars.size();
  };
  RETURN_IF_ERROR(reader_.ScanHistograms(found.All(), range, false, add, budget_));
  std::vector<HistogramRow> rows;
  std::vector<LabelSet> labels = grouping.Labels();
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!seen[i]) continue;
    groups[i].labels = std::move(labels[i]);
    rows.push_back(std::move(groups[i]));
  }
  return rows;
}

StatusOr<std::vector<HistogramSeriesRow>> Engine::HistogramSeries(const Selector& selector, TimeRange range,
                                                                  uint64_t step_ns,
                                                                  const std::vector<std::string>& by) const {
  ASSIGN_OR_RETURN(const Found found, Find(reader_, tenant_, selector, by));
  const Grouping grouping(found, by);
  const Steps steps(range, step_ns);
  std::vector<std::map<int64_t, HistogramStep>> groups(grouping.size());
  bool too_many = false;
  const auto add = [&](const store::HistogramWindow& window) {
    if (too_many) return;
    auto& group = groups[grouping.Of(window)];
    const int64_t start = steps.Start(window.time_ns);
    HistogramStep& step = group[start];
    step.time_ns = start;
    step.histogram.Merge(window.histogram);
    for (const auto& [error_number, count] : window.errors) step.errors = SaturatingAdd(step.errors, count);
    too_many = group.size() > kMaxSteps;
  };
  RETURN_IF_ERROR(reader_.ScanHistograms(found.All(), range, steps.Hourly(), add, budget_));
  if (too_many) return Steps::TooMany();
  std::vector<HistogramSeriesRow> rows;
  std::vector<LabelSet> labels = grouping.Labels();
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].empty()) continue;
    HistogramSeriesRow row{.labels = std::move(labels[i])};
    for (auto& [time_ns, step] : groups[i]) row.steps.push_back(std::move(step));
    rows.push_back(std::move(row));
  }
  return rows;
}

StatusOr<std::vector<ContainerSummary>> Engine::Containers(TimeRange range) const {
  const Selector selector{.type = std::string(profile::kTypeCpu)};
  store::SeriesFilter filter = selector.Filter();
  filter.tenant = tenant_;
  ASSIGN_OR_RETURN(const std::vector<Series> series, reader_.FindSeries(filter));
  std::unordered_map<SeriesId, const Series*> by_id;
  store::Selection selection;
  for (const Series& one : series) {
    by_id.emplace(one.id, &one);
    selection.series.push_back(one.id);
  }
  struct Sum {
    ContainerSummary summary;
    std::vector<profile::Label> common;
    std::set<SeriesId> series;
  };
  // Node, then the container, or outside of containers the service.
  std::map<std::pair<std::string, std::string>, Sum> sums;
  const auto add = [&](const store::WindowTotal& total) {
    const LabelSet& labels = by_id.at(total.series)->labels;
    std::string key = "id:" + std::string(labels.Get(profile::kLabelContainerId));
    if (key.size() == 3) key = "name:" + std::string(labels.Get(profile::kLabelContainerName));
    if (key.size() == 5) key = "service:" + std::string(labels.Get(profile::kLabelService));
    Sum& sum = sums[{std::string(labels.Get(profile::kLabelNode)), key}];
    ContainerSummary& summary = sum.summary;
    if (sum.series.empty()) {
      summary.node = labels.Get(profile::kLabelNode);
      summary.container_id = labels.Get(profile::kLabelContainerId);
      summary.first_ns = total.time_ns;
      sum.common = labels.labels();
    }
    if (sum.series.insert(total.series).second) {
      std::erase_if(sum.common, [&](const profile::Label& label) { return labels.Get(label.name) != label.value; });
    }
    // Names may come later than the first windows of a container (its runtime answered late): keep the last known.
    if (const std::string_view name = labels.Get(profile::kLabelContainerName); !name.empty()) {
      summary.container_name = name;
    }
    if (const std::string_view service = labels.Get(profile::kLabelService); !service.empty()) {
      summary.service = service;
    }
    summary.cpu_ns = SaturatingAdd(summary.cpu_ns, total.value);
    summary.samples = SaturatingAdd(summary.samples, total.count);
    summary.first_ns = std::min(summary.first_ns, total.time_ns);
    summary.last_ns = std::max(summary.last_ns, total.time_ns);
  };
  RETURN_IF_ERROR(reader_.ScanTotals(selection, range, false, add, budget_));
  std::vector<ContainerSummary> result;
  for (auto& [key, sum] : sums) {
    ASSIGN_OR_RETURN(sum.summary.labels, LabelSet::Make(std::move(sum.common)));
    sum.summary.series = sum.series.size();
    result.push_back(std::move(sum.summary));
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const ContainerSummary& a, const ContainerSummary& b) { return a.cpu_ns > b.cpu_ns; });
  return result;
}

StatusOr<SumTotals> Engine::Totals(const Selector& selector, TimeRange range) const {
  ASSIGN_OR_RETURN(const Found found, Find(reader_, tenant_, selector, {}));
  SumTotals totals;
  std::set<std::pair<SeriesId, store::GroupId>> seen;
  const auto add = [&](const store::WindowTotal& total) {
    totals.samples = SaturatingAdd(totals.samples, total.count);
    totals.value = SaturatingAdd(totals.value, total.value);
    totals.windows += total.points;
    seen.emplace(total.series, total.group);
  };
  RETURN_IF_ERROR(reader_.ScanTotals(found.All(), range, false, add, budget_));
  totals.series = seen.size();
  return totals;
}

}  // namespace pyrometer::query

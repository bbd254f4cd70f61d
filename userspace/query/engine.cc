#include "userspace/query/engine.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/query/merge_header.h"
#include "userspace/query/selection.h"
#include "userspace/store/chunk.h"

namespace pyrometer::query {
namespace {

using profile::LabelSet;
using store::SaturatingAdd;
using store::Series;
using store::SeriesId;

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

// What windows add up to, a row for each group that has one.
class HistogramSums {
 public:
  explicit HistogramSums(const Grouping& grouping)
      : grouping_(grouping), groups_(grouping.size()), seen_(grouping.size()) {}

  void Add(const store::HistogramWindow& window) {
    const size_t index = grouping_.Of(window);
    HistogramRow& row = groups_[index];
    seen_[index] = true;
    row.histogram.Merge(window.histogram);
    for (const auto& [error_number, count] : window.errors) row.errors[error_number] += count;
    row.exemplars += window.exemplars.size();
  }

  std::vector<HistogramRow> Take() {
    std::vector<HistogramRow> rows;
    std::vector<LabelSet> labels = grouping_.Labels();
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (!seen_[i]) continue;
      groups_[i].labels = std::move(labels[i]);
      rows.push_back(std::move(groups_[i]));
    }
    return rows;
  }

 private:
  const Grouping& grouping_;
  std::vector<HistogramRow> groups_;
  std::vector<bool> seen_;
};

}  // namespace

StatusOr<profile::Profile> Engine::MergeProfile(const Selector& selector, TimeRange range,
                                                const MergeOptions& options) const {
  ASSIGN_OR_RETURN(const Found found, Find(reader_, tenant_, selector, options.group_by));
  profile::Profile merged;
  MergeHeader header(selector);
  header.Begin(&merged);
  // Per trie and kept labels one exact sum; per trie one look at the stacks of all of them.
  const std::vector<StackPart> parts = StackParts(found, options.group_by);
  uint64_t samples = 0;
  for (size_t begin = 0, end = 0; begin < parts.size(); begin = end) {
    const store::TrieId trie = parts[begin].selection.trie;
    std::vector<std::pair<profile::LabelSetId, store::StackSums>> sums;
    std::vector<store::LeafId> leaves;
    for (; end < parts.size() && parts[end].selection.trie == trie; ++end) {
      ASSIGN_OR_RETURN(store::StackSums sum, reader_.SumStacks(parts[end].selection, range, budget_));
      if (sum.points == 0) continue;
      header.Saw(sum);
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
        if (header.samples_only()) {
          merged.Add(labels, stacks[at], {ToSigned(row.count)});
        } else {
          merged.Add(labels, stacks[at], {ToSigned(row.count), ToSigned(row.value)});
        }
      }
    }
  }
  RETURN_IF_ERROR(header.Finish(*this, found, range, samples, &merged));
  return merged;
}

std::vector<std::string> StackNames(const profile::Dictionary& dictionary, profile::StackId stack) {
  std::vector<std::string> names;
  for (const profile::FrameId frame : dictionary.FramesLeafFirst(stack)) {
    const size_t lines = std::max<size_t>(1, dictionary.frame(frame).lines.size());
    for (size_t line = 0; line < lines; ++line) names.push_back(dictionary.FrameName(frame, line));
  }
  return names;
}

StatusOr<ExemplarResult> Engine::ExemplarProfile(const Selector& selector, TimeRange range, uint64_t min_ns,
                                                 uint64_t max_ns, ExemplarKind kind) const {
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
      const bool wanted = kind == ExemplarKind::kSlow ? !exemplar.typical : exemplar.weight != 0;
      if (wanted && exemplar.value >= min_ns && exemplar.value <= max_ns) found[one->trie].push_back({one, exemplar});
    }
  };
  RETURN_IF_ERROR(reader_.ScanHistograms(selection, range, false, collect, budget_));
  if (end_ns > 0) {
    result.profile.time_ns = first_ns;
    result.profile.duration_ns = static_cast<uint64_t>(end_ns - first_ns);
  }
  for (const auto& [trie, list] : found) {
    std::vector<store::LeafId> leaves;
    for (const Stored& one : list) {
      leaves.push_back(one.exemplar.leaf);
      leaves.push_back(one.exemplar.waker_leaf);
    }
    ASSIGN_OR_RETURN(const std::vector<profile::StackId> stacks,
                     reader_.ResolveStacks(trie, leaves, &result.profile.dictionary, budget_));
    for (size_t i = 0; i < list.size(); ++i) {
      const store::StoredExemplar& exemplar = list[i].exemplar;
      const uint64_t calls = kind == ExemplarKind::kDrawn ? exemplar.weight : 1;
      uint64_t latency_ns = 0;
      if (__builtin_mul_overflow(calls, exemplar.value, &latency_ns)) latency_ns = UINT64_MAX;
      result.profile.Add(0, stacks[2 * i], {ToSigned(calls), ToSigned(latency_ns)});
      profile::Waker waker = exemplar.waker;
      waker.stack = stacks[2 * i + 1];
      result.exemplars.push_back({exemplar.time_ns, exemplar.value, stacks[2 * i], exemplar.comm, exemplar.tid,
                                  list[i].series->labels, exemplar.call, exemplar.weight, exemplar.typical,
                                  exemplar.split, std::move(waker)});
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
  HistogramSums sums(grouping);
  // Windows one by one: sums of groups do not tell how many exemplars there are.
  const auto add = [&](const store::HistogramWindow& window) { sums.Add(window); };
  RETURN_IF_ERROR(reader_.ScanHistograms(found.All(), range, false, add, budget_));
  return sums.Take();
}

StatusOr<std::vector<HistogramRow>> Engine::LatestHistograms(const Selector& selector, TimeRange range,
                                                             const std::vector<std::string>& by) const {
  range.from_ns = std::max(range.from_ns, range.to_ns - std::min(std::max<int64_t>(range.to_ns, 0), kLatestNs));
  // A container without any open call has no window: only its node's newest window says that it has none.
  store::SeriesFilter filter = Selector{.type = selector.type, .matchers = {}}.Filter();
  filter.tenant = tenant_;
  ASSIGN_OR_RETURN(const std::vector<Series> all, reader_.FindSeries(filter));
  std::unordered_map<SeriesId, std::string> nodes;
  store::Selection everything;
  Found found;  // without groups: sums of an hour are no state
  for (const Series& series : all) {
    nodes.emplace(series.id, series.labels.Get(profile::kLabelNode));
    everything.series.push_back(series.id);
    if (selector.Matches(series.type, series.labels)) found.series.push_back(series);
  }
  std::unordered_map<std::string, int64_t> newest;
  const auto note = [&](const store::WindowTotal& total) {
    int64_t& time_ns = newest[nodes.at(total.series)];
    time_ns = std::max(time_ns, total.time_ns);
  };
  RETURN_IF_ERROR(reader_.ScanTotals(everything, range, false, note, budget_));

  const Grouping grouping(found, by);
  HistogramSums sums(grouping);
  const auto add = [&](const store::HistogramWindow& window) {
    const auto of_node = newest.find(nodes.at(window.series));
    if (of_node != newest.end() && of_node->second == window.time_ns) sums.Add(window);
  };
  RETURN_IF_ERROR(reader_.ScanHistograms(found.All(), range, false, add, budget_));
  return sums.Take();
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

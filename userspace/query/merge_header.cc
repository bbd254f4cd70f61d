#include "userspace/query/merge_header.h"

#include <functional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::query {

using profile::LabelSet;
using store::Series;
using store::SeriesId;

std::string UnitOf(std::string_view type) {
  if (type == profile::kTypeCpu || type == profile::kTypeSyscallLatency || type == profile::kTypeSyscallTime ||
      type == profile::kTypeRunQueue || type.starts_with("off_cpu") ||
      (type.starts_with("tcp_") && (type.ends_with("rtt") || type.ends_with("connect"))) ||
      type == profile::kTypeTcpRttVariation || type == profile::kTypeTcpLimited) {
    return "nanoseconds";
  }
  return "count";
}

namespace {

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

void MergeHeader::Begin(profile::Profile* profile) const {
  profile->value_types = {{"samples", "count"}};
  if (!samples_only()) {
    profile->value_types.push_back({selector_.type, UnitOf(selector_.type)});
    profile->default_value = 1;
  }
  profile->period_type = {selector_.type, UnitOf(selector_.type)};
}

void MergeHeader::Saw(const store::StackSums& sums) {
  if (sums.points == 0) return;
  const int64_t period = ToSigned(sums.period_ns);
  if (!any_) {
    period_ = period;
    first_ns_ = sums.first_ns;
  }
  any_ = true;
  same_period_ = same_period_ && period == period_;
  first_ns_ = std::min(first_ns_, sums.first_ns);
  end_ns_ = std::max(end_ns_, sums.end_ns);
}

Status MergeHeader::Finish(const Engine& engine, const Found& found, TimeRange range, uint64_t samples,
                           profile::Profile* profile) const {
  profile->period = same_period_ ? period_ : 0;
  profile->time_ns = first_ns_;
  if (end_ns_ > first_ns_) profile->duration_ns = static_cast<uint64_t>(end_ns_ - first_ns_);

  std::set<std::string> nodes;
  for (const Series& one : found.series) nodes.emplace(one.labels.Get(profile::kLabelNode));
  ASSIGN_OR_RETURN(profile::Accounting node_wide, NodeAccounting(engine, selector_, range, nodes));
  const bool counters_known = node_wide.taken != 0 || node_wide.delivered != 0 || !node_wide.dropped.empty();
  if (AsksWholeNodes(selector_) && counters_known) {
    profile->accounting = std::move(node_wide);
    return OkStatus();
  }
  profile->accounting.taken = profile->accounting.delivered = samples;
  for (const auto& [reason, count] : node_wide.dropped) {
    profile->comments.push_back(
        StrFormat("%s samples were dropped on the nodes of this selection, all containers together: %s (of %s taken)",
                  FormatCount(count), reason, FormatCount(node_wide.taken)));
  }
  return OkStatus();
}

}  // namespace pyrometer::query

#include "userspace/query/function_history.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

#include "userspace/query/selection.h"
#include "userspace/store/chunk.h"

namespace pyrometer::query {
namespace {

using store::kHourNs;

int64_t HourUp(int64_t time_ns) {
  const int64_t clamped = std::clamp<int64_t>(time_ns, 0, std::numeric_limits<int64_t>::max() - kHourNs);
  return (clamped + kHourNs - 1) / kHourNs * kHourNs;
}

// Tries of which the selector takes every series; INVALID_ARGUMENT when it takes a part of one.
StatusOr<std::vector<store::TrieId>> WholeTries(const Engine& engine, const Selector& selector) {
  store::SeriesFilter filter = selector.Filter();
  filter.tenant = engine.tenant();
  const Status partial = InvalidArgumentError(
      "the history of a function is kept per service: the selector may only name labels that all of a service has in "
      "common, for example {service=\"shop\"}");
  if (!filter.SeesGroupsWhole()) return partial;
  ASSIGN_OR_RETURN(const std::vector<store::Group> wanted, engine.reader().FindGroups(filter));
  // Sessions are in no history.
  const Selector everything{.type = selector.type};
  store::SeriesFilter all = everything.Filter();
  all.tenant = engine.tenant();
  ASSIGN_OR_RETURN(const std::vector<store::Group> groups, engine.reader().FindGroups(all));
  std::unordered_set<store::GroupId> taken;
  std::set<store::TrieId> tries;
  for (const store::Group& group : wanted) {
    taken.insert(group.id);
    tries.insert(group.trie);
  }
  size_t known = 0;
  for (const store::Group& group : groups) {
    if (!tries.contains(group.trie)) continue;
    if (!taken.contains(group.id)) return partial;
    ++known;
  }
  if (known != taken.size()) return partial;  // of sessions
  return std::vector<store::TrieId>(tries.begin(), tries.end());
}

// From the stacks themselves, of one hour.
StatusOr<FunctionPoint> FromStacks(const Engine& engine, const Selector& selector, std::string_view name,
                                   int64_t hour_ns) {
  ASSIGN_OR_RETURN(const profile::Profile profile, engine.MergeProfile(selector, {hour_ns, hour_ns + kHourNs}));
  const profile::Dictionary& d = profile.dictionary;
  const auto named = [&](const profile::Line& line) { return d.string(d.function(line.function).name) == name; };
  FunctionPoint point{.time_ns = hour_ns};
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const std::vector<profile::FrameId> frames = d.FramesLeafFirst(profile.sample(i).stack);
    const auto value = static_cast<uint64_t>(profile.values(i)[profile.default_value]);
    if (!frames.empty() && !d.frame(frames[0]).lines.empty() && named(d.frame(frames[0]).lines[0])) point.self += value;
    if (std::any_of(frames.begin(), frames.end(), [&](profile::FrameId frame) {
          return std::any_of(d.frame(frame).lines.begin(), d.frame(frame).lines.end(), named);
        })) {
      point.total += value;
    }
  }
  return point;
}

}  // namespace

StatusOr<std::vector<FunctionPoint>> FunctionHistory(const Engine& engine, const Selector& selector,
                                                     std::string_view name, TimeRange range) {
  if (name.empty()) return InvalidArgumentError("which function? Give its name");
  ASSIGN_OR_RETURN(const std::vector<store::TrieId> tries, WholeTries(engine, selector));
  ASSIGN_OR_RETURN(const int64_t indexed_until, engine.reader().HousekeptUntil());
  std::map<int64_t, FunctionPoint> points;
  const auto add = [&](const FunctionPoint& more) {
    if (more.self == 0 && more.total == 0) return;
    FunctionPoint& sum = points[more.time_ns];
    sum.time_ns = more.time_ns;
    sum.self = store::SaturatingAdd(sum.self, more.self);
    sum.total = store::SaturatingAdd(sum.total, more.total);
  };
  const TimeRange indexed{range.from_ns, std::min(range.to_ns, indexed_until)};
  RETURN_IF_ERROR(engine.reader().ScanFunction(
      tries, selector.type, name, indexed,
      [&](const store::FunctionHour& hour) {
        add({hour.time_ns, hour.self, hour.total});
      },
      engine.budget()));
  // What is newer: the hours that have any.
  const TimeRange newer{HourUp(std::max(range.from_ns, indexed_until)), range.to_ns};
  ASSIGN_OR_RETURN(const Found found, Find(engine.reader(), engine.tenant(), selector, {}));
  std::set<int64_t> hours;
  RETURN_IF_ERROR(engine.reader().ScanTotals(
      found.All(), newer, true,
      [&](const store::WindowTotal& total) { hours.insert(total.time_ns / kHourNs * kHourNs); }, engine.budget()));
  for (const int64_t hour : hours) {
    ASSIGN_OR_RETURN(const FunctionPoint point, FromStacks(engine, selector, name, hour));
    add(point);
  }
  std::vector<FunctionPoint> result;
  for (const auto& [time_ns, point] : points) result.push_back(point);
  return result;
}

}  // namespace pyrometer::query

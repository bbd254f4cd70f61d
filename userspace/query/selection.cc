#include "userspace/query/selection.h"

#include <algorithm>
#include <utility>

namespace pyrometer::query {

store::Selection Found::All() const {
  store::Selection all;
  for (const store::Series& one : series) all.series.push_back(one.id);
  for (const store::Group& one : groups) all.groups.push_back(one.id);
  all.groups_are_whole = groups_are_whole;
  return all;
}

StatusOr<Found> Find(const store::StoreReader& reader, const std::string& tenant, const Selector& selector,
                     const std::vector<std::string>& by) {
  store::SeriesFilter filter = selector.Filter();
  filter.tenant = tenant;
  Found found;
  // Groups first: a series that comes meanwhile then has a group too many, not one too few.
  ASSIGN_OR_RETURN(found.series, reader.FindSeries(filter));
  ASSIGN_OR_RETURN(found.groups, reader.FindGroups(filter));
  found.groups_are_whole = filter.SeesGroupsWhole() && std::none_of(by.begin(), by.end(), [](const std::string& name) {
                             return store::IsInstanceLabel(name);
                           });
  return found;
}

std::vector<StackPart> StackParts(const Found& found, const std::vector<std::string>& by) {
  std::map<std::pair<store::TrieId, profile::LabelSet>, store::StackSelection> parts;
  for (const store::Series& one : found.series) parts[{one.trie, one.labels.Only(by)}].series.push_back(one.id);
  for (const store::Group& one : found.groups) parts[{one.trie, one.labels.Only(by)}].groups.push_back(one.id);
  std::vector<StackPart> result;
  for (auto& [key, selection] : parts) {
    selection.trie = key.first;
    selection.groups_are_whole = found.groups_are_whole;
    result.push_back({std::move(selection), key.second});
  }
  return result;
}

Grouping::Grouping(const Found& found, const std::vector<std::string>& by) {
  for (const store::Series& one : found.series) of_series_.emplace(one.id, &rows_[one.labels.Only(by)]);
  for (const store::Group& one : found.groups) of_group_.emplace(one.id, &rows_[one.labels.Only(by)]);
  size_t index = 0;
  for (auto& [labels, row] : rows_) row = index++;
}

std::vector<profile::LabelSet> Grouping::Labels() const {
  std::vector<profile::LabelSet> labels;
  for (const auto& [set, row] : rows_) labels.push_back(set);
  return labels;
}

}  // namespace pyrometer::query

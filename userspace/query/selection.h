// From a selector to what a store adds up. Inside this room only.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/label_set.h"
#include "userspace/query/selector.h"
#include "userspace/store/reader.h"

namespace pyrometer::query {

// Everything that a selector matches.
struct Found {
  std::vector<store::Series> series;
  std::vector<store::Group> groups;
  // Sums of groups may stand for their series: neither matchers nor `by` tell instances apart.
  bool groups_are_whole = false;

  store::Selection All() const;
};
StatusOr<Found> Find(const store::StoreReader& reader, const std::string& tenant, const Selector& selector,
                     const std::vector<std::string>& by);

// What is summed up into one set of stacks: one trie, and one set of `by` labels.
struct StackPart {
  store::StackSelection selection;
  profile::LabelSet labels;
};
// Sorted by trie, then labels.
std::vector<StackPart> StackParts(const Found& found, const std::vector<std::string>& by);

// Rows by the `by` labels of series and groups; numbered in label order.
class Grouping {
 public:
  Grouping(const Found& found, const std::vector<std::string>& by);
  // Index of the row that a total or histogram belongs to.
  template <typename Point>
  size_t Of(const Point& point) const {
    return point.series != 0 ? *of_series_.at(point.series) : *of_group_.at(point.group);
  }
  size_t size() const { return rows_.size(); }
  std::vector<profile::LabelSet> Labels() const;

 private:
  std::map<profile::LabelSet, size_t> rows_;
  std::unordered_map<store::SeriesId, const size_t*> of_series_;
  std::unordered_map<store::GroupId, const size_t*> of_group_;
};

}  // namespace pyrometer::query

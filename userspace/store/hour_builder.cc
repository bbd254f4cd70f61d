#include "userspace/store/hour_builder.h"

#include <algorithm>
#include <tuple>

namespace pyrometer::store {

Status HourBuilder::Add(SeriesId series, GroupId group, const WindowHeader& header, const std::vector<StackSum>& rows) {
  if (!rows.empty() && rows.back().leaf >= leaf_count_) return DataLossError("damaged window chunk: unknown stack");
  windows_.push_back({.cell = {series, header.offset_ns, header.duration_ns, header.period_ns},
                      .group = group,
                      .derived = header.values_derived,
                      .begin = rows_.size(),
                      .end = rows_.size() + rows.size()});
  rows_.insert(rows_.end(), rows.begin(), rows.end());
  return OkStatus();
}

void HourBuilder::Restart(size_t leaf_count) {
  leaf_count_ = leaf_count;
  windows_.clear();
  rows_.clear();
}

HourBuilder::Result HourBuilder::Build() {
  Result result;
  result.rows = rows_.size();
  // Windows whose values follow from counts apart from the others: a block stores values for all its rows or for none.
  std::vector<size_t> order(windows_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) {
    const Window &x = windows_[a], &y = windows_[b];
    return std::tie(x.derived, x.cell.series, x.cell.offset_ns) < std::tie(y.derived, y.cell.series, y.cell.offset_ns);
  });
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin, rows = 0;
    for (; end < order.size(); ++end) {
      const Window& window = windows_[order[end]];
      if (window.derived != windows_[order[begin]].derived) break;
      if (end > begin && (rows + window.end - window.begin > max_rows_ || end - begin == max_cells_)) break;
      rows += window.end - window.begin;
    }
    BuildBlock(order, begin, end, &result);
    begin = end;
  }
  return result;
}

void HourBuilder::BuildBlock(const std::vector<size_t>& order, size_t begin, size_t end, Result* result) {
  CellsBlock& block = block_;
  block.windows.clear();
  std::vector<GroupId> group_of_cell;
  // Cells come in order, so counting the rows of each leaf puts them in order of (leaf, cell) at once.
  std::vector<uint32_t>& at = at_;
  at.assign(leaf_count_ + 1, 0);
  for (size_t i = begin; i < end; ++i) {
    const Window& window = windows_[order[i]];
    block.windows.push_back(window.cell);
    group_of_cell.push_back(window.group);
    for (size_t row = window.begin; row < window.end; ++row) ++at[rows_[row].leaf + 1];
    RollupHeader header{.points = 1,
                        .period_ns = window.cell.period_ns,
                        .first_offset_ns = window.cell.offset_ns,
                        .end_offset_ns = window.cell.offset_ns + window.cell.duration_ns,
                        .values_derived = window.derived};
    for (size_t row = window.begin; row < window.end; ++row) {
      header.count = SaturatingAdd(header.count, rows_[row].count);
      header.value = SaturatingAdd(header.value, rows_[row].value);
    }
    MergeRollupHeader(header, &result->groups[window.group].header);
  }
  for (size_t leaf = 0; leaf < leaf_count_; ++leaf) at[leaf + 1] += at[leaf];
  block.rows.resize(at[leaf_count_]);
  for (size_t i = begin; i < end; ++i) {
    const Window& window = windows_[order[i]];
    for (size_t row = window.begin; row < window.end; ++row) {
      const StackSum& sum = rows_[row];
      block.rows[at[sum.leaf]++] = {sum.leaf, static_cast<uint32_t>(i - begin), sum.count, sum.value};
    }
  }
  // Sums per group, leaf by leaf.
  std::map<GroupId, Rollup> sums;
  for (const GroupId group : group_of_cell) sums[group];
  std::vector<std::vector<StackSum>*> rows_of_cell;
  for (const GroupId group : group_of_cell) rows_of_cell.push_back(&sums[group].rows);
  for (const CellRow& row : block.rows) {
    std::vector<StackSum>& rows = *rows_of_cell[row.cell];
    if (rows.empty() || rows.back().leaf != row.leaf) rows.push_back({row.leaf, 0, 0});
    rows.back().count = SaturatingAdd(rows.back().count, row.count);
    rows.back().value = SaturatingAdd(rows.back().value, row.value);
  }
  for (auto& [group, sum] : sums) MergeRollup(sum, &result->groups[group]);  // headers are merged already: points 0
  result->blocks.push_back(EncodeCells(block));
}

}  // namespace pyrometer::store

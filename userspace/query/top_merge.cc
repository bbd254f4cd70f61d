#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "userspace/query/flame_merge.h"
#include "userspace/query/function_table.h"
#include "userspace/query/trie_sums.h"
#include "userspace/store/chunk.h"

namespace pyrometer::query {

using profile::FlameGraph;
using store::SaturatingAdd;

namespace {

// Functions of what carries one set of labels.
struct TopGroup {
  struct Cost {
    uint64_t self = 0, total = 0;
  };
  SymbolTable symbols;
  std::vector<Cost> costs;  // by symbol
  uint64_t whole = 0;

  StatusOr<TopTable> Table(const store::StoreReader& reader, const TopMergeOptions& options,
                           std::vector<std::string>* build_ids) const;
};

// Names of as many as are shown, and of those that tie with the last of them: names decide among equals.
StatusOr<TopTable> TopGroup::Table(const store::StoreReader& reader, const TopMergeOptions& options,
                                   std::vector<std::string>* build_ids) const {
  const size_t n = options.rows;
  const auto key = [&](uint32_t id) {
    const Cost& cost = costs[id];
    return options.order == TopOrder::kSelf ? std::pair(cost.self, cost.total) : std::pair(cost.total, cost.self);
  };
  std::vector<uint32_t> ids(costs.size());
  for (uint32_t id = 0; id < ids.size(); ++id) ids[id] = id;
  if (n != 0 && ids.size() > n) {
    const auto last = ids.begin() + static_cast<std::ptrdiff_t>(n) - 1;
    std::nth_element(ids.begin(), last, ids.end(), [&](uint32_t a, uint32_t b) { return key(a) > key(b); });
    const auto lowest = key(*last);
    std::erase_if(ids, [&](uint32_t id) { return key(id) < lowest; });
  }
  std::vector<store::Symbol> shown;
  for (const uint32_t id : ids) shown.push_back(symbols.symbol(id));
  ASSIGN_OR_RETURN(std::vector<FlameGraph::Function> functions, Describe(reader, shown));
  TopTable table;
  table.total = ToSigned(whole);
  table.functions = costs.size();
  for (size_t i = 0; i < ids.size(); ++i) {
    FlameGraph::Function& function = functions[i];
    if (!function.build_id.empty() && shown[i].name == 0) build_ids->push_back(std::move(function.build_id));
    FunctionCost& row = table.rows.emplace_back();
    row.name = std::move(function.name);
    row.module = std::move(function.module);
    row.file = std::move(function.file);
    row.kind = function.kind;
    row.self = ToSigned(costs[ids[i]].self);
    row.total = ToSigned(costs[ids[i]].total);
  }
  SortTop(options.order, &table.rows);
  if (n != 0 && table.rows.size() > n) table.rows.resize(n);
  table.SetPercents();
  return table;
}

}  // namespace

StatusOr<MergedTop> MergeTop(const Engine& engine, const Selector& selector, TimeRange range,
                             const TopMergeOptions& options) {
  MergedTop top;
  MergeHeader header(selector);
  header.Begin(&top.header);
  ASSIGN_OR_RETURN(const Found found, Find(engine.reader(), engine.tenant(), selector, options.by));
  const std::vector<StackPart> parts = StackParts(found, options.by);
  std::mutex mutex;  // guards what follows
  std::map<profile::LabelSet, TopGroup> groups;
  uint64_t samples = 0, value = 0;
  const auto take = [&](size_t part, const store::FunctionTrie& functions, const store::StackSums& sums) -> Status {
    store::ScopedCharge charge(engine.budget());
    RETURN_IF_ERROR(charge.Add(functions.size() * NodeSums::kBytesPerNode));
    ASSIGN_OR_RETURN(const NodeSums totals, NodeSums::Totals(functions, sums));
    const std::vector<uint64_t>& values = header.samples_only() ? totals.samples : totals.value;
    std::vector<TopGroup::Cost> mine(functions.symbols().size());
    std::vector<bool> used(mine.size());
    for (uint32_t node = 1; node < functions.size(); ++node) {
      if (!totals.used(node)) continue;
      TopGroup::Cost& cost = mine[functions.symbol(node)];
      used[functions.symbol(node)] = true;
      uint64_t below = 0;
      for (uint32_t child = totals.first_child[node]; child != 0; child = totals.next_sibling[child]) {
        below = SaturatingAdd(below, values[child]);
      }
      cost.self = SaturatingAdd(cost.self, values[node] - std::min(values[node], below));
      // A function that calls itself counts a sample once.
      if (!functions.recursive(node)) cost.total = SaturatingAdd(cost.total, values[node]);
    }
    const std::lock_guard lock(mutex);
    value = SaturatingAdd(value, totals.value[0]);
    if (!totals.used(0)) return OkStatus();
    TopGroup& group = groups[parts[part].labels];
    group.whole = SaturatingAdd(group.whole, values[0]);
    for (size_t i = 1; i < mine.size(); ++i) {
      if (!used[i]) continue;
      const uint32_t id = group.symbols.Id(functions.symbols()[i]);
      if (id >= group.costs.size()) group.costs.resize(size_t{id} + 1);
      group.costs[id].self = SaturatingAdd(group.costs[id].self, mine[i].self);
      group.costs[id].total = SaturatingAdd(group.costs[id].total, mine[i].total);
    }
    return OkStatus();
  };
  RETURN_IF_ERROR(SumParts(engine, parts, range, &header, &samples, take));
  RETURN_IF_ERROR(header.Finish(engine, found, range, samples, &top.header));
  top.samples = ToSigned(samples);
  top.value = ToSigned(value);
  if (options.by.empty()) groups.try_emplace(profile::LabelSet());
  for (const auto& [labels, group] : groups) {
    ASSIGN_OR_RETURN(TopTable table, group.Table(engine.reader(), options, &top.build_ids));
    top.tops.push_back({labels, std::move(table)});
  }
  SortTops(&top.tops);
  std::sort(top.build_ids.begin(), top.build_ids.end());
  top.build_ids.erase(std::unique(top.build_ids.begin(), top.build_ids.end()), top.build_ids.end());
  return top;
}

}  // namespace pyrometer::query

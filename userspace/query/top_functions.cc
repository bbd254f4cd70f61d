#include <algorithm>
#include <unordered_map>

#include "userspace/base/check.h"
#include "userspace/query/engine.h"
#include "userspace/query/function_table.h"

namespace pyrometer::query {
namespace {

int64_t WrappingAdd(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// Name, module and kind.
struct FunctionKey {
  uint32_t name;
  uint32_t module;
  profile::FrameKind kind;
  bool operator==(const FunctionKey&) const = default;
};
struct FunctionKeyHash {
  size_t operator()(const FunctionKey& key) const {
    return (uint64_t{key.name} << 32 ^ uint64_t{key.module} << 4 ^ static_cast<uint64_t>(key.kind)) *
           0x9E3779B97F4A7C15u;
  }
};

}  // namespace

void SortTop(TopOrder order, std::vector<FunctionCost>* rows) {
  std::sort(rows->begin(), rows->end(), [order](const FunctionCost& a, const FunctionCost& b) {
    const auto key = [order](const FunctionCost& row) {
      return order == TopOrder::kSelf ? std::pair(row.self, row.total) : std::pair(row.total, row.self);
    };
    if (key(a) != key(b)) return key(a) > key(b);
    if (a.name != b.name) return a.name < b.name;
    return a.module != b.module ? a.module < b.module : a.kind < b.kind;
  });
}

TopTable TopFunctions(const profile::Profile& profile, size_t n, TopOrder order, size_t value_index) {
  if (value_index == SIZE_MAX) value_index = profile.default_value;
  CHECK(value_index < profile.value_types.size());
  const profile::Dictionary& dictionary = profile.dictionary;
  FunctionTable table(dictionary);

  // Value that ended at each stack, and at or below it: ids of parents are smaller.
  const size_t stacks = dictionary.stack_count();
  std::vector<int64_t> self(stacks), total(stacks);
  std::vector<bool> used(stacks);
  TopTable result;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const profile::StackId stack = profile.sample(i).stack;
    const int64_t value = profile.values(i)[value_index];
    self[stack] = WrappingAdd(self[stack], value);
    used[stack] = true;
    result.total = WrappingAdd(result.total, value);
  }
  total = self;
  std::vector<uint32_t> child_begin(stacks + 1);
  for (size_t i = stacks; i-- > 1;) {
    if (!used[i]) continue;
    const profile::StackId parent = dictionary.stack(static_cast<profile::StackId>(i)).parent;
    total[parent] = WrappingAdd(total[parent], total[i]);
    used[parent] = true;
    ++child_begin[parent + 1];
  }
  for (size_t i = 1; i <= stacks; ++i) child_begin[i] += child_begin[i - 1];
  std::vector<profile::StackId> children(child_begin[stacks]);
  {
    std::vector<uint32_t> at(child_begin.begin(), child_begin.end() - 1);
    for (profile::StackId i = 1; i < stacks; ++i) {
      if (used[i]) children[at[dictionary.stack(i).parent]++] = i;
    }
  }

  // Depth first with our own stack; `on_path` counts how often a function lies on the way to the
  // root, so that recursion adds to its total only once.
  std::unordered_map<FunctionKey, uint32_t, FunctionKeyHash> ids;
  std::vector<uint32_t> on_path;
  std::vector<std::vector<uint32_t>> functions_of(dictionary.frame_count());
  const auto functions = [&](profile::FrameId frame) -> const std::vector<uint32_t>& {
    std::vector<uint32_t>& list = functions_of[frame];
    if (!list.empty()) return list;
    for (const FunctionPlace& place : table.Of(frame)) {
      const auto [entry, added] =
          ids.try_emplace(FunctionKey{place.name, place.module, place.kind}, static_cast<uint32_t>(result.rows.size()));
      if (added) {
        result.rows.push_back({.name = table.names.text(place.name),
                               .module = table.modules.text(place.module),
                               .file = table.files.text(place.file),
                               .kind = place.kind});
        on_path.push_back(0);
      }
      list.push_back(entry->second);
    }
    return list;
  };
  struct Step {
    profile::StackId stack;
    bool leave;
  };
  std::vector<Step> steps;
  const auto push_children = [&](profile::StackId stack) {
    for (uint32_t i = child_begin[stack]; i < child_begin[stack + 1]; ++i) steps.push_back({children[i], false});
  };
  push_children(profile::kEmptyStack);
  while (!steps.empty()) {
    const Step step = steps.back();
    steps.pop_back();
    const std::vector<uint32_t>& list = functions(dictionary.stack(step.stack).frame);
    if (step.leave) {
      for (const uint32_t function : list) --on_path[function];
      continue;
    }
    for (const uint32_t function : list) {
      if (on_path[function]++ == 0) {
        result.rows[function].total = WrappingAdd(result.rows[function].total, total[step.stack]);
      }
    }
    // The innermost line is where the processor was.
    FunctionCost& innermost = result.rows[list.front()];
    innermost.self = WrappingAdd(innermost.self, self[step.stack]);
    steps.push_back({step.stack, true});
    push_children(step.stack);
  }

  result.functions = result.rows.size();
  result.SetPercents();
  SortTop(order, &result.rows);
  if (n != 0 && result.rows.size() > n) result.rows.resize(n);
  return result;
}

std::vector<profile::LabelledTop> TopByLabels(const profile::Profile& profile, size_t n, TopOrder order) {
  std::vector<profile::LabelledTop> tops;
  for (profile::LabelSetId id = 0; id < profile.dictionary.label_set_count(); ++id) {
    const profile::Profile slice = profile::Slice(profile, id);
    if (slice.sample_count() > 0) tops.push_back({profile.dictionary.label_set(id), TopFunctions(slice, n, order)});
  }
  SortTops(&tops);
  return tops;
}

void SortTops(std::vector<profile::LabelledTop>* tops) {
  std::sort(tops->begin(), tops->end(), [](const profile::LabelledTop& a, const profile::LabelledTop& b) {
    return a.table.total != b.table.total ? a.table.total > b.table.total : a.labels < b.labels;
  });
}

}  // namespace pyrometer::query

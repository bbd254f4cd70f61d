#include "userspace/store/function_index.h"

#include "userspace/store/chunk.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {

std::string FunctionKey(TrieId trie, NameId type, NameId name, uint32_t day) {
  return NumbersKey({trie, type, name, day});
}

void AppendFunctionEntry(const FunctionEntry& entry, std::string* value) {
  value->push_back(static_cast<char>(entry.hour));
  PutVarint(entry.self, value);
  PutVarint(entry.total, value);
}

StatusOr<std::vector<FunctionEntry>> DecodeFunctionEntries(std::string_view bytes) {
  Decoder in(bytes);
  std::vector<FunctionEntry> entries;
  while (in.ok() && !in.done()) {
    FunctionEntry entry;
    entry.hour = in.Byte();
    entry.self = in.Varint();
    entry.total = in.Varint();
    if (entry.hour >= kHoursPerDay) in.Fail();
    entries.push_back(entry);
  }
  if (!in.ok()) return DataLossError("damaged function index");
  return entries;
}

StatusOr<std::unordered_map<NameId, FunctionSums>> SumFunctions(const FunctionTrie& functions,
                                                                const std::vector<StackSum>& sums) {
  const size_t size = functions.size();
  std::vector<uint64_t> total(size), self(size);
  for (const StackSum& row : sums) {
    if (row.leaf >= functions.leaf_count()) return DataLossError("damaged stack samples: unknown stack");
    uint64_t& value = self[functions.leaf(row.leaf)];
    value = SaturatingAdd(value, row.value);
  }
  total = self;
  for (size_t node = size; node-- > 1;) {
    if (total[node] != 0) {
      uint64_t& parent = total[functions.parent(static_cast<uint32_t>(node))];
      parent = SaturatingAdd(parent, total[node]);
    }
  }
  // A node counts towards its function's total unless the function is already on the way to it. Walked in the order of
  // a depth-first search, so that "on the way" is one counter per symbol.
  std::vector<uint32_t> first_child(size, 0), next_sibling(size, 0);
  for (size_t node = size; node-- > 1;) {
    if (total[node] == 0) continue;
    const uint32_t parent = functions.parent(static_cast<uint32_t>(node));
    next_sibling[node] = first_child[parent];
    first_child[parent] = static_cast<uint32_t>(node);
  }
  std::unordered_map<NameId, FunctionSums> result;
  // Symbols of one name (in several modules) are one function here.
  std::unordered_map<NameId, uint32_t> name_index;
  std::vector<uint32_t> function_of(functions.symbols().size());
  std::vector<NameId> names;
  for (size_t i = 0; i < function_of.size(); ++i) {
    const auto [entry, added] =
        name_index.try_emplace(functions.symbols()[i].name, static_cast<uint32_t>(names.size()));
    if (added) names.push_back(functions.symbols()[i].name);
    function_of[i] = entry->second;
  }
  std::vector<uint32_t> on_the_way(names.size());
  std::vector<FunctionSums> by_function(names.size());
  uint32_t node = first_child[0];
  while (node != 0) {
    const uint32_t function = function_of[functions.symbol(node)];
    FunctionSums& sum = by_function[function];
    sum.self = SaturatingAdd(sum.self, self[node]);
    if (on_the_way[function]++ == 0) sum.total = SaturatingAdd(sum.total, total[node]);
    if (first_child[node] != 0) {
      node = first_child[node];
      continue;
    }
    // Up until there is a sibling.
    for (;;) {
      --on_the_way[function_of[functions.symbol(node)]];
      if (next_sibling[node] != 0) {
        node = next_sibling[node];
        break;
      }
      node = functions.parent(node);
      if (node == 0) break;
    }
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != 0 && (by_function[i].self != 0 || by_function[i].total != 0)) result[names[i]] = by_function[i];
  }
  return result;
}

}  // namespace pyrometer::store

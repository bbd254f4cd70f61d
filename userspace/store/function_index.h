// What each function took, hour by hour: so that its cost over a quarter of a year is one short scan. Inside this room
// only.
//
// Key in Family::kFunctions: trie, type, name, day (keys.h). Value: entries one after the other, each hour of the day
// (one byte), self and total (varints). Points that come late give an entry of their own for the same hour; readers add
// up. So adding is RocksDB's merge by appending, and nothing is read to write.
//
// Functions are named here by their name alone: `main` of two binaries of one service is one. What has no name is not
// in it; nor are sessions, which would count twice.
//
// Threads: none shared.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/function_trie.h"
#include "userspace/store/names.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

struct FunctionEntry {
  uint8_t hour = 0;  // of the day
  uint64_t self = 0;
  uint64_t total = 0;
  bool operator==(const FunctionEntry&) const = default;
};
std::string FunctionKey(TrieId trie, NameId type, NameId name, uint32_t day);
void AppendFunctionEntry(const FunctionEntry& entry, std::string* value);
StatusOr<std::vector<FunctionEntry>> DecodeFunctionEntries(std::string_view bytes);

struct FunctionSums {
  uint64_t self = 0;
  uint64_t total = 0;
};
// By name; a function that calls itself counts a sample once. Precondition: the trie's mutex is held (shared).
// DATA_LOSS for leaves that it does not have. Cost: 10 ns per function node and 5 per row.
StatusOr<std::unordered_map<NameId, FunctionSums>> SumFunctions(const FunctionTrie& functions,
                                                                const std::vector<StackSum>& sums);

}  // namespace pyrometer::store

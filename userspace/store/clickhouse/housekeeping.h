// Housekeeping of a store in ClickHouse. Inside this room only.
//
// Hours that have ended get the costs of their functions; hours that are older than windows are kept get sums of groups
// in the table of rollups, then are hidden, then dropped. Everything can be begun again after a kill: costs of
// functions are written anew as a whole under a higher version; rollups of an hour are one insert, which is looked for
// first.
//
// Threads: one run at a time; appends and questions go on meanwhile.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "userspace/store/clickhouse/clickhouse_store.h"

namespace pyrometer::store::clickhouse {

class ClusterHousekeeper {
 public:
  ClusterHousekeeper(ClickHouseStore* store, int64_t now_ns, uint64_t budget_ns);
  StatusOr<HousekeepingResult> Run();

 private:
  bool TimeIsUp() const;
  Status TakeUpHours();
  // Rows of the table of functions.
  Status PutFunctions(uint32_t hour, TrieId trie, std::string* rows);
  // Those of frames that got their names late.
  Status RedoFunctions();
  Status RedoFunctionsOf(TrieId trie);
  Status InsertFunctions(std::map<uint32_t, std::string>* rows);
  Status SumOldHours();
  Status SumOldHour(TenantId tenant, uint32_t hour, uint32_t shard);
  Status DropOld();
  Status RemoveSeries();
  StatusOr<std::vector<std::string>> PartitionsBefore(uint32_t shard, Table table, std::string_view before) const;
  // Of an answer of one column.
  StatusOr<std::vector<std::string>> Names(uint32_t shard, const std::string& sql) const;
  uint32_t HourBefore(uint64_t age_ns) const;

  ClickHouseStore& store_;
  Cluster& cluster_;
  const int64_t now_ns_;
  const uint64_t end_ns_;  // monotonic
  HousekeepingResult result_;
};

}  // namespace pyrometer::store::clickhouse

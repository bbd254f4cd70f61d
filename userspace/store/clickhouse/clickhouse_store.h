// The Store of a ClickHouse cluster. Inside this room only.
//
// One group of batches after the other: (1) new definitions, and the *intent*: which rows the group will insert and
// what the common records will be when they are in; (2) the definitions into the local copy, so that readers can name
// what they find; (3) the rows, one insert per shard and day; (4) the common records, in place of the intent; then the
// batches are acknowledged. A group of which (3) or (4) failed is *unfinished*: it is gone on with before anything else
// is written. After a crash the intent tells what to look for: with all rows there, (4) follows; else the intent is
// replaced by a list of what is there already, and batches that come again leave that out.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "userspace/store/clickhouse/cluster.h"
#include "userspace/store/clickhouse/point_rows.h"
#include "userspace/store/clickhouse/records.h"
#include "userspace/store/store_base.h"

namespace pyrometer::store::clickhouse {

// In Family::kMeta: bytes of the rows of a tenant's hour; what is hidden has none.
std::string HourBytesKey(TenantId tenant, uint32_t hour);

class ClickHouseStore : public StoreBase {
 public:
  ClickHouseStore(std::unique_ptr<Database> database, const StoreOptions& options, std::unique_ptr<Cluster> cluster,
                  RecordTable records, uint64_t newest);
  // Of the local copy; then what a crash left half done.
  Status Load();

  StatusOr<HousekeepingResult> Housekeep(int64_t now_ns, uint64_t budget_ns) override;
  StatusOr<BackupInfo> Backup(const std::string& folder) override;
  Status Settle() override;

  StatusOr<StackSums> SumStacks(const StackSelection& selection, TimeRange range, ReadBudget* budget) const override;
  Status ScanTotals(const Selection& selection, TimeRange range, bool hourly,
                    const std::function<void(const WindowTotal&)>& sink, ReadBudget* budget) const override;
  Status ScanHistograms(const Selection& selection, TimeRange range, bool hourly,
                        const std::function<void(const HistogramWindow&)>& sink, ReadBudget* budget) const override;
  Status ScanOffsets(const StackSelection& selection, TimeRange range,
                     const std::function<void(const OffsetsWindow&)>& sink, ReadBudget* budget) const override;
  Status ScanFunction(std::span<const TrieId> tries, std::string_view type, std::string_view name, TimeRange range,
                      const std::function<void(const FunctionHour&)>& sink, ReadBudget* budget) const override;
  StatusOr<StoreStats> Stats() const override;

 private:
  friend class ClusterHousekeeper;

  // Whose rows: tenant, agent, sequence.
  using Origin = std::tuple<TenantId, NameId, uint64_t>;
  using Place = std::pair<uint32_t, uint32_t>;  // shard, day
  struct Block {
    uint32_t shard = 0;
    uint32_t day = 0;
    std::set<Origin> origins;
    std::string rows;
    bool done = false;
  };
  struct Unfinished {
    uint64_t number = 0;
    std::vector<Block> blocks;
    Records records;  // of step 4
    Counters counters;
    std::map<std::string, AgentInfo> agents;
    std::map<std::pair<uint32_t, TrieId>, FreshRecord> hours;
    uint64_t fresh_points = 0;
    std::map<TenantId, TenantUsage> usage;
    std::map<TenantId, std::map<uint32_t, uint64_t>> bytes;  // by tenant, then hour
    std::set<Origin> origins;
  };
  // Definitions that the cluster may lack.
  struct Unsent {
    Records records;
    std::vector<rocksdb::WriteBatch> local;
    std::unordered_map<TrieId, std::shared_ptr<StackTrie>> tries;  // held: they must not be loaded afresh
    std::set<TenantId> tenants;
    std::map<TrieId, TenantId> services;
    std::vector<FrameKeyId> redescribed;
  };

  void CommitGroup(const std::vector<Request*>& group) override;
  Status TryGroup(const std::vector<Request*>& group);
  // Steps 1 and 2.
  Status SendDefinitions(const Records& more);
  // Steps 3 and 4.
  Status Finish();
  Status InsertBlock(const Block& block, uint64_t number) const;
  uint64_t NextNumber() { return next_ordinal_.fetch_add(1); }
  uint32_t ShardOf(TrieId trie) const { return 1 + (trie - 1) % cluster_->shards(); }
  void TakePending(uint64_t* epoch);
  // Writes to both places what housekeeping says, with commit_mutex_ held.
  Status WriteRecords(const Records& records);
  // Of `wanted` those whose rows of that day are there.
  StatusOr<std::set<Origin>> PresentOrigins(uint32_t day, const std::set<Origin>& wanted, std::string_view table,
                                            const std::function<StatusOr<Rows>(const std::string&)>& select) const;
  Status Recover();
  Status LoadBytes();
  // Of tables that were made before bytes were counted: from the rows themselves.
  Status CountBytes();
  // An error when another store has taken over; the group at hand is that one's affair then.
  Status LookWhoOwns();

  // What is too old.
  void UpdateCutoffs(int64_t now_ns);

  // Adds up the stacks of `table`'s rows for which `where` holds.
  Status SumRows(Table table, const std::string& where, ReadBudget* budget, class RowSum* sum) const;
  // Series of one tenant, their tries, and which hours come from where.
  struct ScanPart;
  StatusOr<std::vector<ScanPart>> PartsOf(const Selection& selection, TimeRange range, bool from_groups) const;

  const std::unique_ptr<Cluster> cluster_;
  const RecordTable records_;
  // All guarded by commit_mutex_.
  Unsent unsent_;
  std::optional<Unfinished> unfinished_;
  std::map<Origin, std::set<Place>> partial_;  // rows of batches that were never acknowledged
  bool disowned_ = false;                      // another store has taken over, and the copy is no copy any more
  int64_t next_redo_ns_ = 0;                   // of RedoFunctions; guarded by housekeeping_mutex_
  // Days before which a tenant's windows were deleted since opening; guarded by housekeeping_mutex_.
  std::map<TenantId, uint32_t> deleted_before_day_;
  uint32_t cleared_before_day_ = 0;  // of offsets; the same

  mutable std::mutex disk_mutex_;
  mutable uint64_t disk_bytes_ = 0;
  mutable uint64_t disk_asked_ns_ = 0;
};

}  // namespace pyrometer::store::clickhouse

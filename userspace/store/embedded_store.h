// The Store of a folder, put together from its parts. Inside this room only.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/store/store_base.h"

namespace pyrometer::store {

// A file system for tests; nullptr = the machine's. See Store::Open.
StatusOr<std::unique_ptr<Store>> OpenWithEnv(const std::string& path, StoreOptions options, rocksdb::Env* env);

class EmbeddedStore : public StoreBase {
 public:
  EmbeddedStore(std::unique_ptr<Database> database, const StoreOptions& options);
  // Everything of StoreBase::Load, then what is too old.
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

 private:
  friend class Housekeeper;

  void CommitGroup(const std::vector<Request*>& group) override;
  // Everything that a failed write may or may not have left on the disk is forgotten.
  void Abandon(const std::unordered_map<TrieId, std::shared_ptr<StackTrie>>& tries,
               const std::map<TenantId, TenantUsage>& usage);
  void PublishRetention();

  class StackSummer;
  // visit_series(series, hour, value) and visit_group(group, hour, value) for the records of a selection.
  template <typename SeriesVisit, typename GroupVisit>
  Status ScanPoints(Family family, const Selection& selection, TimeRange range, bool hourly, ReadBudget* budget,
                    SeriesVisit visit_series, GroupVisit visit_group) const;

  std::set<uint32_t> hours_to_compact_;  // guarded by commit_mutex_
  int64_t next_redo_ns_ = 0;             // of RedoFunctions; guarded by housekeeping_mutex_
  uint32_t dropped_before_hour_ = 0;     // guarded by state_mutex_
};

}  // namespace pyrometer::store

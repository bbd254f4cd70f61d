// The Store of a folder, put together from its parts. Inside this room only.
//
// Locks, in the order in which they are taken: queue_mutex_ (who leads the next group), then commit_mutex_ (the leader
// and housekeeping while they write: the order of what they write to common records), then DefinitionLog::mutex
// (everything that gives out ids), then the small ones inside the parts. Readers take only the small ones.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/store/chunk.h"
#include "userspace/store/database.h"
#include "userspace/store/function_trie.h"
#include "userspace/store/names.h"
#include "userspace/store/read_pool.h"
#include "userspace/store/series.h"
#include "userspace/store/stager.h"
#include "userspace/store/store.h"
#include "userspace/store/tenants.h"
#include "userspace/store/trie.h"

namespace pyrometer::store {

// Agents that one store remembers.
inline constexpr size_t kMaxAgents = 100'000;

// Counters that are written with every group.
struct Counters {
  uint64_t next_name = 1;
  uint64_t next_function = 1;
  uint64_t next_frame = 1;
  uint64_t next_series = 1;
  uint64_t next_group = 1;
  uint64_t next_trie = 1;
  uint64_t next_ordinal = 1;
  uint64_t nodes = 0;
  uint64_t leaves = 0;
  uint64_t batches = 0;
  uint64_t samples = 0;
  uint64_t housekept_until_hour = 0;
  bool operator==(const Counters&) const = default;
};
inline const std::string kCountersKey = "counters";  // in Family::kMeta
std::string EncodeCounters(const Counters& counters);
StatusOr<Counters> DecodeCounters(std::string_view bytes);

std::string AgentKey(std::string_view tenant, std::string_view agent_id);
std::string EncodeAgent(const AgentInfo& agent);
StatusOr<AgentInfo> DecodeAgent(std::string_view key, std::string_view bytes);

// What of one (hour, service) housekeeping has not taken up; key 'F' hour trie in Family::kMeta, only while there is
// some.
struct FreshRecord {
  uint64_t points = 0;     // totals
  uint64_t bytes = 0;      // of all fresh values
  int64_t arrived_ns = 0;  // the store's clock when the last one came
  bool operator==(const FreshRecord&) const = default;
};
std::string FreshKey(uint32_t hour, TrieId trie);
std::string EncodeFresh(const FreshRecord& record);
StatusOr<FreshRecord> DecodeFresh(std::string_view bytes);
// Key of the bytes of what it has taken up: 'H' hour trie, a varint.
std::string DenseKey(uint32_t hour, TrieId trie);

// A file system for tests; nullptr = the machine's. See Store::Open.
StatusOr<std::unique_ptr<Store>> OpenWithEnv(const std::string& path, StoreOptions options, rocksdb::Env* env);

class EmbeddedStore : public Store {
 public:
  EmbeddedStore(std::unique_ptr<Database> database, const StoreOptions& options);
  // Counters, tenants, agents.
  Status Load();

  std::unique_ptr<StreamMemo> NewMemo() override { return std::make_unique<Memo>(); }
  using StoreWriter::Append;
  StatusOr<AppendResult> Append(const profile::BatchView& batch, StreamMemo* memo) override;
  StatusOr<uint64_t> LastSequence(std::string_view tenant, std::string_view agent_id) const override;
  StatusOr<HousekeepingResult> Housekeep(int64_t now_ns, uint64_t budget_ns) override;
  StatusOr<BackupInfo> Backup(const std::string& folder) override;
  Status Settle() override;

  StatusOr<std::vector<Series>> FindSeries(const SeriesFilter& filter) const override;
  StatusOr<std::vector<Group>> FindGroups(const SeriesFilter& filter) const override;
  StatusOr<StackSums> SumStacks(const StackSelection& selection, TimeRange range, ReadBudget* budget) const override;
  StatusOr<std::vector<profile::StackId>> ResolveStacks(TrieId trie, std::span<const LeafId> leaves,
                                                        profile::Dictionary* dictionary,
                                                        ReadBudget* budget) const override;
  StatusOr<std::shared_ptr<FunctionTrie>> Functions(TrieId trie, LateNames* late = nullptr) const override;
  StatusOr<std::vector<std::string>> Texts(std::span<const uint32_t> ids) const override;
  Status Parallel(size_t pieces, const std::function<Status(size_t)>& piece) const override;
  Status ScanTotals(const Selection& selection, TimeRange range, bool hourly,
                    const std::function<void(const WindowTotal&)>& sink, ReadBudget* budget) const override;
  Status ScanHistograms(const Selection& selection, TimeRange range, bool hourly,
                        const std::function<void(const HistogramWindow&)>& sink, ReadBudget* budget) const override;
  Status ScanOffsets(const StackSelection& selection, TimeRange range,
                     const std::function<void(const OffsetsWindow&)>& sink, ReadBudget* budget) const override;
  Status ScanFunction(std::span<const TrieId> tries, std::string_view type, std::string_view name, TimeRange range,
                      const std::function<void(const FunctionHour&)>& sink, ReadBudget* budget) const override;
  StatusOr<int64_t> HousekeptUntil() const override;
  StatusOr<std::vector<std::string>> ProfileTypes(std::string_view tenant) const override;
  StatusOr<std::vector<std::string>> LabelNames(const SeriesFilter& filter) const override;
  StatusOr<std::vector<std::string>> LabelValues(std::string_view name, const SeriesFilter& filter) const override;
  StatusOr<std::vector<AgentInfo>> Agents() const override;
  StatusOr<std::vector<TenantInfo>> Tenants() const override;
  StatusOr<StoreStats> Stats() const override;

 private:
  friend class Housekeeper;

  struct Request {
    explicit Request(const profile::BatchView& b) : batch(b) {}
    const profile::BatchView& batch;
    StagedBatch staged;
    StatusOr<AppendResult> result = AppendResult{};
    bool restage = false;  // ids that it was staged with are void
    bool done = false;
  };

  // Waits for its turn in a group and until that group is on disk.
  void Commit(Request* request);
  void CommitGroup(const std::vector<Request*>& group);
  // Everything that a failed write may or may not have left on the disk is forgotten.
  void Abandon(const std::unordered_map<TrieId, std::shared_ptr<StackTrie>>& tries,
               const std::map<TenantId, TenantUsage>& usage);
  void TrimCaches();
  StatusOr<AppendResult> CheckSequence(const profile::BatchView& batch) const;
  Counters CountersNow() const;  // with DefinitionLog::mutex held
  Status LoadTrie(TrieId id, StackTrie* trie, const ReadView* view = nullptr) const;
  // What a frame shows, for a FunctionTrie.
  StatusOr<std::vector<std::vector<Symbol>>> DescribeFrames(const std::vector<uint32_t>& frames, LateNames* late) const;
  // False when there is no room for another text.
  StatusOr<bool> LateText(std::string_view text, uint32_t* id) const;
  TenantId TenantOf(TrieId trie) const;
  // First hour that is still kept.
  RetentionTable::Cutoffs CutoffsOf(TenantId tenant) const;
  void PublishRetention();

  class StackSummer;
  // visit_series(series, hour, value) and visit_group(group, hour, value) for the records of a selection.
  template <typename SeriesVisit, typename GroupVisit>
  Status ScanPoints(Family family, const Selection& selection, TimeRange range, bool hourly, ReadBudget* budget,
                    SeriesVisit visit_series, GroupVisit visit_group) const;

  const StoreOptions options_;
  const std::unique_ptr<Database> database_;
  TenantTable tenants_;

  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Request*> queue_;
  bool leader_active_ = false;

  // Bytes of batches that are being staged or written.
  std::mutex flight_mutex_;
  std::condition_variable flight_changed_;
  uint64_t flight_bytes_ = 0;

  mutable std::mutex commit_mutex_;
  Counters counters_;                                         // guarded by commit_mutex_
  std::map<std::pair<uint32_t, TrieId>, FreshRecord> fresh_;  // guarded by commit_mutex_
  uint64_t fresh_points_ = 0;                                 // guarded by commit_mutex_
  std::set<TrieId> grown_tries_;                              // may have fresh records; guarded by commit_mutex_
  std::set<uint32_t> hours_to_compact_;                       // guarded by commit_mutex_
  int64_t next_redo_ns_ = 0;                                  // of RedoFunctions; guarded by housekeeping_mutex_

  std::atomic<uint64_t> next_ordinal_{1};
  mutable DefinitionLog definitions_;
  mutable NameReader name_reader_;
  mutable SeriesReader series_reader_;
  mutable TrieCache tries_;
  Stager stager_;
  mutable ReadPool read_pool_;

  // Function views, with those descriptions of frames that changed since they were made.
  mutable std::mutex functions_mutex_;
  struct FunctionView {
    std::shared_ptr<FunctionTrie> functions;
    uint64_t redescribed = 0;  // entries of redescribed_ that it knows of
    uint64_t last_use = 0;
    uint64_t generation = 0;  // of late names
  };
  static uint64_t ViewKey(TrieId trie, bool late) { return uint64_t{trie} << 1 | (late ? 1 : 0); }
  mutable std::unordered_map<uint64_t, FunctionView> functions_;  // by ViewKey
  mutable std::vector<FrameKeyId> redescribed_;
  mutable uint64_t functions_clock_ = 0;

  // Texts of late names that the store does not have, from kFirstLateText on.
  static constexpr size_t kMaxLateTexts = 4u << 20;
  mutable std::mutex late_texts_mutex_;
  mutable std::unordered_map<std::string, uint32_t, TransparentStringHash, std::equal_to<>> late_text_ids_;
  mutable std::vector<const std::string*> late_texts_;

  mutable std::mutex state_mutex_;                                                             // guards what follows
  std::unordered_map<std::string, AgentInfo, TransparentStringHash, std::equal_to<>> agents_;  // by AgentKey
  std::vector<TenantId> tenant_of_trie_ = {0};
  std::vector<RetentionTable::Cutoffs> cutoffs_;  // by tenant
  Counters durable_counters_;
  uint64_t durable_fresh_points_ = 0;
  uint32_t dropped_before_hour_ = 0;
  uint64_t duplicates_ = 0;
  uint64_t writer_bytes_ = 0;

  std::mutex housekeeping_mutex_;  // one at a time
};

}  // namespace pyrometer::store

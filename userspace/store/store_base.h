// What the stores have in common, wherever their points lie: series, stacks and names with the ids given out for them,
// tenants, agents, the queue of batches, and everything that is answered from these. All of it lives in a local
// database; the store of a folder keeps the points there too (embedded_store.h), the one of a ClickHouse cluster does
// not (clickhouse/). Inside this room only.
//
// Locks, in the order in which they are taken: queue_mutex_ (who leads the next group), then commit_mutex_ (the leader
// and housekeeping while they write: the order of what they write to common records), then DefinitionLog::mutex
// (everything that gives out ids), then the small ones inside the parts. Readers take only the small ones.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
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

class StoreBase : public Store {
 public:
  // `encoder` must outlive the store and belongs to it.
  StoreBase(std::unique_ptr<Database> database, const StoreOptions& options, std::unique_ptr<PointEncoder> encoder);
  // Counters, tenants, agents.
  Status Load();

  std::unique_ptr<StreamMemo> NewMemo() override { return std::make_unique<Memo>(); }
  using StoreWriter::Append;
  StatusOr<AppendResult> Append(const profile::BatchView& batch, StreamMemo* memo) override;
  StatusOr<uint64_t> LastSequence(std::string_view tenant, std::string_view agent_id) const override;

  StatusOr<std::vector<Series>> FindSeries(const SeriesFilter& filter) const override;
  StatusOr<std::vector<Group>> FindGroups(const SeriesFilter& filter) const override;
  StatusOr<std::vector<profile::StackId>> ResolveStacks(TrieId trie, std::span<const LeafId> leaves,
                                                        profile::Dictionary* dictionary,
                                                        ReadBudget* budget) const override;
  StatusOr<std::shared_ptr<FunctionTrie>> Functions(TrieId trie, LateNames* late = nullptr) const override;
  StatusOr<std::vector<std::string>> Texts(std::span<const uint32_t> ids) const override;
  Status Parallel(size_t pieces, const std::function<Status(size_t)>& piece) const override;
  StatusOr<int64_t> HousekeptUntil() const override;
  StatusOr<std::vector<std::string>> ProfileTypes(std::string_view tenant) const override;
  StatusOr<std::vector<std::string>> LabelNames(const SeriesFilter& filter) const override;
  StatusOr<std::vector<std::string>> LabelValues(std::string_view name, const SeriesFilter& filter) const override;
  StatusOr<std::vector<AgentInfo>> Agents() const override;
  StatusOr<std::vector<TenantInfo>> Tenants() const override;
  StatusOr<StoreStats> Stats() const override;
  void LetGoOfCaches() override;

 protected:
  struct Request {
    explicit Request(const profile::BatchView& b) : batch(b) {}
    const profile::BatchView& batch;
    StagedBatch staged;
    StatusOr<AppendResult> result = AppendResult{};
    bool restage = false;  // ids that it was staged with are void
    bool done = false;
  };
  // How batches are gathered.
  struct Grouping {
    size_t max_batches = 256;
    uint64_t max_bytes = 32u << 20;
    // Groups begin at least so long one after the other, unless one is full.
    uint64_t interval_ns = 0;
  };

  // Writes what the batches staged and every definition that they need, all or nothing of each, and sets their results.
  virtual void CommitGroup(const std::vector<Request*>& group) = 0;

  // Waits for its turn in a group and until that group is on disk.
  void Commit(Request* request);
  void TrimCaches();
  // Lets views of functions go until they take no more. By chance: a question about everything uses one after the
  // other, and of more than fit the least recently used is the very next that it needs.
  void TrimFunctions(uint64_t most_bytes) const;
  // Tries and views, to their shares of the budget.
  void TrimTries() const;
  // A question had so many bytes of tries and views brought into memory: now and then they are trimmed, also when
  // nobody writes.
  void BroughtIn(uint64_t bytes) const;
  // For housekeeping. Services' hours that ended and got nothing new for a while, and those that have `busy_bytes`
  // fresh whatever goes on in them (0: none).
  using DueHour = std::pair<std::pair<uint32_t, TrieId>, FreshRecord>;
  std::vector<DueHour> DueHours(int64_t now_ns, uint64_t busy_bytes);
  // Hours before those that are fresh are in their final form.
  void NoteHousekept(int64_t now_ns);
  // Frames whose names came after histories of functions were made, sorted, and the records of family kMeta that say
  // so.
  struct LateFrames {
    std::vector<std::string> keys;
    std::vector<FrameKeyId> frames;
  };
  StatusOr<LateFrames> ReadLateFrames() const;
  // Reads each trie.
  Status ForTriesThatShow(const std::vector<FrameKeyId>& frames, const std::function<Status(TrieId)>& visit) const;
  StatusOr<AppendResult> CheckSequence(const profile::BatchView& batch) const;
  Counters CountersNow() const;  // with DefinitionLog::mutex held
  Status LoadTrie(TrieId id, StackTrie* trie, const ReadView* view = nullptr) const;
  // Of what is on disk: every leaf in data that was written before the call is below. One look-up.
  StatusOr<TrieSpan> TrieEnd(TrieId id) const;
  // What a frame shows, for a FunctionTrie.
  StatusOr<std::vector<std::vector<Symbol>>> DescribeFrames(const std::vector<uint32_t>& frames, LateNames* late) const;
  // False when there is no room for another text.
  StatusOr<bool> LateText(std::string_view text, uint32_t* id) const;
  TenantId TenantOf(TrieId trie) const;
  // First hour that is still kept.
  RetentionTable::Cutoffs CutoffsOf(TenantId tenant) const;

  const StoreOptions options_;
  Grouping grouping_;
  const std::unique_ptr<Database> database_;
  TenantTable tenants_;

  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Request*> queue_;
  uint64_t queue_bytes_ = 0;
  uint64_t next_group_ns_ = 0;  // monotonic
  bool leader_active_ = false;

  // Bytes of batches that are being staged or written.
  std::mutex flight_mutex_;
  std::condition_variable flight_changed_;
  uint64_t flight_bytes_ = 0;

  mutable std::mutex commit_mutex_;
  Counters counters_;                                         // guarded by commit_mutex_
  std::map<std::pair<uint32_t, TrieId>, FreshRecord> fresh_;  // guarded by commit_mutex_
  uint64_t fresh_points_ = 0;                                 // guarded by commit_mutex_
  size_t turned_over_seen_ = 0;                               // entries of DefinitionLog's; guarded by commit_mutex_
  std::set<TrieId> grown_tries_;                              // may have fresh records; guarded by commit_mutex_

  const std::unique_ptr<PointEncoder> encoder_;
  std::atomic<uint64_t> next_ordinal_{1};
  mutable DefinitionLog definitions_;
  mutable NameReader name_reader_;
  mutable SeriesReader series_reader_;
  mutable TrieCache tries_;
  mutable std::atomic<uint64_t> brought_in_{0};  // since they were trimmed
  Stager stager_;
  mutable ReadPool read_pool_;

  // Function views, with those descriptions of frames that changed since they were made.
  mutable std::mutex functions_mutex_;
  struct FunctionView {
    std::shared_ptr<FunctionTrie> functions;
    uint64_t redescribed = 0;           // entries of redescribed_ that it knows of
    uint64_t generation = 0;            // of late names
    std::optional<TrieSpan> sealed_at;  // has everything up to there, and is sealed
  };
  static uint64_t ViewKey(TrieId trie, bool late) { return uint64_t{trie} << 1 | (late ? 1 : 0); }
  mutable std::unordered_map<uint64_t, FunctionView> functions_;  // by ViewKey
  // Another trie has taken their place. One that still grows all the same is only named anew.
  std::set<TrieId> replaced_tries_;
  mutable std::vector<FrameKeyId> redescribed_;
  mutable std::minstd_rand trim_order_{1};

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
  uint64_t duplicates_ = 0;
  uint64_t writer_bytes_ = 0;

  std::mutex housekeeping_mutex_;  // one at a time
};

}  // namespace pyrometer::store

// The Store of a folder, put together from database, names, series and tries. Inside this room only.
//
// Locks, in the order in which they are taken: queue_mutex_ (who leads the next group), then
// apply_mutex_ (the leader and maintenance: everything that adds ids), then the small ones inside
// the parts. Readers take only the small ones.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "userspace/store/chunk.h"
#include "userspace/store/database.h"
#include "userspace/store/names.h"
#include "userspace/store/series.h"
#include "userspace/store/store.h"
#include "userspace/store/trie.h"

namespace pyrometer::store {

// Under which stacks beyond max_nodes_per_trie are counted.
inline constexpr std::string_view kFoldedStacksName = "[stack limit of this service reached]";
// Agents that one store remembers.
inline constexpr size_t kMaxAgents = 100'000;

// Counters that are written with every batch.
struct Counters {
  NameId next_name = 1;
  FrameKeyId next_frame = 1;
  SeriesId next_series = 1;
  TrieId next_trie = 1;
  uint64_t next_ordinal = 1;
  uint64_t live_series = 0;
  uint64_t nodes = 0;
  uint64_t batches = 0;
  uint64_t samples = 0;
  uint64_t folded_samples = 0;
  bool operator==(const Counters&) const = default;
};
std::string EncodeCounters(const Counters& counters);
StatusOr<Counters> DecodeCounters(std::string_view bytes);

std::string EncodeAgent(const AgentInfo& agent);
StatusOr<AgentInfo> DecodeAgent(std::string_view agent_id, std::string_view bytes);

class EmbeddedStore : public Store {
 public:
  EmbeddedStore(std::unique_ptr<Database> database, const StoreOptions& options);
  // Counters and agents.
  Status Load();

  StatusOr<AppendResult> Append(const profile::Batch& batch) override;
  StatusOr<uint64_t> LastSequence(std::string_view agent_id) const override;
  StatusOr<MaintenanceResult> RunMaintenance(int64_t now_ns) override;

  StatusOr<std::vector<Series>> FindSeries(const SeriesFilter& filter) const override;
  StatusOr<StackSums> SumStacks(TrieId trie, std::span<const SeriesId> series, TimeRange range) const override;
  StatusOr<std::vector<profile::StackId>> ResolveStacks(TrieId trie, std::span<const NodeId> nodes,
                                                        profile::Dictionary* dictionary) const override;
  Status ScanTotals(std::span<const SeriesId> series, TimeRange range,
                    const std::function<void(const WindowTotal&)>& sink) const override;
  Status ScanHistograms(std::span<const SeriesId> series, TimeRange range,
                        const std::function<void(const HistogramWindow&)>& sink) const override;
  StatusOr<std::vector<std::string>> ProfileTypes() const override;
  StatusOr<std::vector<std::string>> LabelNames(const SeriesFilter& filter) const override;
  StatusOr<std::vector<std::string>> LabelValues(std::string_view name, const SeriesFilter& filter) const override;
  StatusOr<std::vector<AgentInfo>> Agents() const override;
  StatusOr<StoreStats> Stats() const override;

 private:
  struct Request {
    explicit Request(const profile::Batch& b) : batch(b) {}
    const profile::Batch& batch;
    StatusOr<AppendResult> result = AppendResult{};
    bool done = false;
  };
  // What one group adds to memory; applied once the group is on disk.
  struct Group {
    rocksdb::WriteBatch writes;
    std::unordered_map<std::string, AgentInfo> agents;             // new states
    std::unordered_map<TrieId, std::shared_ptr<StackTrie>> tries;  // held so that they stay in memory
    Counters counters;                                             // as they will be
    uint64_t duplicates = 0;
  };
  class BatchApplier;

  // Applies requests from the front of the queue; those it took have `done` results.
  size_t ApplyGroup(const std::vector<Request*>& requests);
  StatusOr<AppendResult> Stage(const profile::Batch& batch, Group* group);
  Status CheckSeriesLimit(const profile::Batch& batch);
  Status PutCounters(const Counters& counters, rocksdb::WriteBatch* writes) const;
  // Forgets everything that is in memory, but perhaps not on disk.
  void Abandon(const Group& group);
  Status LoadTrie(TrieId id, StackTrie* trie) const;
  // Calls `visit(time, value)` for the points of one series; `it`: of the family that holds them.
  template <typename Visit>
  Status ScanPoints(SeriesId series, TimeRange range, rocksdb::Iterator* it, Visit visit) const;
  StatusOr<bool> TrimSeries(SeriesId series, int64_t cutoff_ns, bool* empty);

  const StoreOptions options_;
  const std::unique_ptr<Database> database_;

  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Request*> queue_;
  bool leader_active_ = false;

  std::mutex apply_mutex_;  // guards the writers, counters_ and the order of writes
  NameWriter name_writer_;
  SeriesWriter series_writer_;
  Counters counters_;
  int64_t last_cutoff_ns_ = 0;

  mutable NameReader name_reader_;
  mutable SeriesReader series_reader_;
  mutable TrieCache tries_;

  mutable std::mutex state_mutex_;  // guards what follows
  std::unordered_map<std::string, AgentInfo, TransparentStringHash, std::equal_to<>> agents_;
  Counters durable_counters_;
  uint64_t duplicates_ = 0;
  uint64_t writer_bytes_ = 0;
};

}  // namespace pyrometer::store

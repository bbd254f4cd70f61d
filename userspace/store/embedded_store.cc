#include "userspace/store/embedded_store.h"

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/store/validate.h"

namespace pyrometer::store {
namespace {

constexpr std::string_view kCountersKey = "counters";
// A group shares one sync; larger groups would only make the first caller wait longer.
constexpr size_t kMaxGroupBatches = 64;
constexpr size_t kMaxGroupSamples = 4u << 20;
// Series looked at by maintenance while it holds up appends.
constexpr size_t kMaintenanceSeries = 256;
// The cutoff of retention moves in steps of at least this, so that each series gets few range deletions.
constexpr uint64_t kMinCutoffStepNs = 60 * kNsPerSecond;
constexpr uint64_t kMaxCutoffStepNs = 3600 * kNsPerSecond;

size_t Weight(const profile::Batch& batch) {
  size_t weight = batch.histograms.size() + batch.counters.size();
  for (const profile::ProfilePoint& point : batch.profiles) weight += 1 + point.samples.size();
  return weight;
}

}  // namespace

std::string EncodeCounters(const Counters& counters) {
  std::string out;
  for (const uint64_t number :
       {uint64_t{counters.next_name}, uint64_t{counters.next_frame}, uint64_t{counters.next_series},
        uint64_t{counters.next_trie}, counters.next_ordinal, counters.live_series, counters.nodes, counters.batches,
        counters.samples, counters.folded_samples}) {
    PutVarint(number, &out);
  }
  return out;
}

StatusOr<Counters> DecodeCounters(std::string_view bytes) {
  Decoder in(bytes);
  Counters counters;
  counters.next_name = in.Varint32();
  counters.next_frame = in.Varint32();
  counters.next_series = in.Varint32();
  counters.next_trie = in.Varint32();
  for (uint64_t* number : {&counters.next_ordinal, &counters.live_series, &counters.nodes, &counters.batches,
                           &counters.samples, &counters.folded_samples}) {
    *number = in.Varint();
  }
  if (!in.ok() || !in.done()) return DataLossError("damaged counters record");
  return counters;
}

std::string EncodeAgent(const AgentInfo& agent) {
  std::string out;
  PutString(agent.node, &out);
  PutVarint(agent.last_sequence, &out);
  PutVarint(static_cast<uint64_t>(std::max<int64_t>(agent.first_seen_ns, 0)), &out);
  PutVarint(static_cast<uint64_t>(std::max<int64_t>(agent.last_seen_ns, 0)), &out);
  PutVarint(agent.batches, &out);
  PutVarint(agent.gaps, &out);
  PutVarint(agent.samples, &out);
  return out;
}

StatusOr<AgentInfo> DecodeAgent(std::string_view agent_id, std::string_view bytes) {
  Decoder in(bytes);
  AgentInfo agent;
  agent.agent_id = agent_id;
  agent.node = in.String();
  agent.last_sequence = in.Varint();
  agent.first_seen_ns = static_cast<int64_t>(in.Varint());
  agent.last_seen_ns = static_cast<int64_t>(in.Varint());
  agent.batches = in.Varint();
  agent.gaps = in.Varint();
  agent.samples = in.Varint();
  if (!in.ok() || !in.done()) return DataLossError("damaged agent record");
  return agent;
}

StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path, StoreOptions options) {
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path, options));
  auto store = std::make_unique<EmbeddedStore>(std::move(database), options);
  RETURN_IF_ERROR(WithContext(store->Load(), StrFormat("data folder %s", path)));
  return std::unique_ptr<Store>(std::move(store));
}

EmbeddedStore::EmbeddedStore(std::unique_ptr<Database> database, const StoreOptions& options)
    : options_(options),
      database_(std::move(database)),
      name_writer_(database_.get(), options.memory_budget_bytes / 16),
      series_writer_(database_.get(), &name_writer_, options.memory_budget_bytes / 16),
      name_reader_(database_.get(), options.memory_budget_bytes / 16),
      series_reader_(database_.get(), &name_reader_, options.memory_budget_bytes / 16),
      tries_(options.memory_budget_bytes / 4, [this](TrieId id, StackTrie* trie) { return LoadTrie(id, trie); }) {}

Status EmbeddedStore::Load() {
  std::string bytes;
  ASSIGN_OR_RETURN(const bool found, database_->Get(Family::kMeta, kCountersKey, &bytes));
  if (found) {
    ASSIGN_OR_RETURN(counters_, DecodeCounters(bytes));
  }
  durable_counters_ = counters_;
  name_writer_.next_name = counters_.next_name;
  name_writer_.next_frame = counters_.next_frame;
  series_writer_.next_series = counters_.next_series;
  series_writer_.next_trie = counters_.next_trie;
  series_writer_.live = counters_.live_series;
  return database_->Scan(Family::kAgents, "", "",
                         [this](std::string_view key, std::string_view value) -> StatusOr<bool> {
                           ASSIGN_OR_RETURN(AgentInfo agent, DecodeAgent(key, value));
                           agents_.emplace(key, std::move(agent));
                           return true;
                         });
}

StatusOr<uint64_t> EmbeddedStore::LastSequence(std::string_view agent_id) const {
  const std::lock_guard lock(state_mutex_);
  const auto found = agents_.find(agent_id);
  return found == agents_.end() ? uint64_t{0} : found->second.last_sequence;
}

StatusOr<AppendResult> EmbeddedStore::Append(const profile::Batch& batch) {
  RETURN_IF_ERROR(ValidateBatch(batch, options_.now()));
  Request request(batch);
  std::unique_lock lock(queue_mutex_);
  queue_.push_back(&request);
  while (!request.done) {
    if (leader_active_) {
      queue_changed_.wait(lock);
      continue;
    }
    // Lead a group: as many of the waiting as fit, in the order in which they came.
    leader_active_ = true;
    std::vector<Request*> group;
    size_t weight = 0;
    for (Request* waiting : queue_) {
      weight += Weight(waiting->batch);
      if (!group.empty() && (group.size() == kMaxGroupBatches || weight > kMaxGroupSamples)) break;
      group.push_back(waiting);
    }
    lock.unlock();
    const size_t taken = ApplyGroup(group);
    lock.lock();
    for (size_t i = 0; i < taken; ++i) {
      group[i]->done = true;
      queue_.pop_front();
    }
    leader_active_ = false;
    queue_changed_.notify_all();
  }
  return std::move(request.result);
}

size_t EmbeddedStore::ApplyGroup(const std::vector<Request*>& requests) {
  const std::lock_guard apply_lock(apply_mutex_);
  Group group;
  group.counters = counters_;
  size_t taken = 0;
  bool abandon = false;
  bool any_write = false;
  for (Request* request : requests) {
    group.writes.SetSavePoint();
    const uint64_t live_before = series_writer_.live;
    request->result = Stage(request->batch, &group);
    ++taken;
    if (!request->result.ok()) {
      series_writer_.live = live_before;
      // What it staged in memory must go, and with it what the ones before it staged there: write those, and let the
      // rest wait for the next group.
      const rocksdb::Status undone = group.writes.RollbackToSavePoint();
      CHECK(undone.ok());
      abandon = true;
      break;
    }
    group.writes.PopSavePoint().PermitUncheckedError();
    any_write = any_write || !request->result->duplicate;
  }

  Status written = OkStatus();
  if (any_write) {
    // Ids that were handed out stay handed out, also those of a request that failed.
    group.counters.next_name = name_writer_.next_name;
    group.counters.next_frame = name_writer_.next_frame;
    group.counters.next_series = series_writer_.next_series;
    group.counters.next_trie = series_writer_.next_trie;
    group.counters.live_series = series_writer_.live;
    written = PutCounters(group.counters, &group.writes);
    if (written.ok()) written = database_->Write(&group.writes, true);
  }
  if (!written.ok()) {
    // A duplicate may be one of a batch in this very group: it is not to be acknowledged either.
    for (size_t i = 0; i < taken; ++i) {
      if (requests[i]->result.ok()) requests[i]->result = written;
    }
    // The log may hold the failed write all the same (synced badly, read back after a crash): no id or key of it is
    // ever used again.
    counters_.next_ordinal = group.counters.next_ordinal;
    series_writer_.live = counters_.live_series;
    abandon = true;
  }

  if (abandon) Abandon(group);
  {
    const std::lock_guard lock(state_mutex_);
    if (written.ok() && any_write) {
      counters_ = group.counters;
      durable_counters_ = group.counters;
      for (auto& [id, agent] : group.agents) {
        const auto [entry, added] = agents_.try_emplace(id);
        const uint64_t duplicates = entry->second.duplicates;
        entry->second = std::move(agent);
        entry->second.duplicates = duplicates;
      }
    }
    for (size_t i = 0; i < taken; ++i) {
      if (!requests[i]->result.ok() || !requests[i]->result->duplicate) continue;
      ++duplicates_;
      if (const auto found = agents_.find(requests[i]->batch.agent_id); found != agents_.end()) {
        ++found->second.duplicates;
      }
    }
  }
  name_reader_.Invalidate(name_writer_.redescribed);
  name_writer_.redescribed.clear();
  name_writer_.Trim();
  series_writer_.Trim();
  group.tries.clear();
  tries_.Trim();
  const std::lock_guard lock(state_mutex_);
  writer_bytes_ = name_writer_.bytes() + series_writer_.bytes();
  return taken;
}

void EmbeddedStore::Abandon(const Group& group) {
  name_writer_.Forget();
  series_writer_.Forget();
  for (const auto& [id, trie] : group.tries) {
    if (trie != nullptr) tries_.Drop(id, trie->size());
  }
}

Status EmbeddedStore::PutCounters(const Counters& counters, rocksdb::WriteBatch* writes) const {
  return database_->FromRocks(
      writes->Put(database_->family(Family::kMeta), ToSlice(kCountersKey), EncodeCounters(counters)), "writing");
}

Status EmbeddedStore::CheckSeriesLimit(const profile::Batch& batch) {
  // Only when it could matter: looking up twice is not free.
  if (series_writer_.live + batch.series.size() <= options_.max_series) return OkStatus();
  uint64_t added = 0;
  for (const profile::SeriesKey& key : batch.series) {
    ASSIGN_OR_RETURN(const SeriesWriter::Found found, series_writer_.Find(key));
    if (found.id == 0) ++added;
  }
  if (series_writer_.live + added <= options_.max_series) return OkStatus();
  return ResourceExhaustedError(StrFormat(
      "the store's limit of %s series is reached (%s now, %d more asked by agent %s): raise it with --max-series, "
      "or lower the number of distinct labels",
      FormatCount(options_.max_series), FormatCount(series_writer_.live), added, batch.agent_id));
}

// Turns one batch into writes: ids of the batch become ids of the store.
class EmbeddedStore::BatchApplier {
 public:
  BatchApplier(EmbeddedStore* store, const profile::Batch& batch, Group* group)
      : store_(*store), batch_(batch), dictionary_(batch.dictionary), group_(*group) {}

  Status Apply() {
    for (const profile::SeriesKey& key : batch_.series) {
      ASSIGN_OR_RETURN(const SeriesWriter::Found found, store_.series_writer_.FindOrAdd(key, &group_.writes));
      series_.push_back(found);
    }
    // Trie by trie, so that one memo of stacks serves each in turn.
    std::vector<TrieId> tries;
    for (const profile::ProfilePoint& point : batch_.profiles) tries.push_back(series_[point.series].trie);
    for (const profile::HistogramPoint& point : batch_.histograms) {
      if (!point.exemplars.empty()) tries.push_back(series_[point.series].trie);
    }
    std::sort(tries.begin(), tries.end());
    tries.erase(std::unique(tries.begin(), tries.end()), tries.end());
    // Histograms without exemplars need no trie; put them with trie 0.
    for (const TrieId trie : tries) RETURN_IF_ERROR(ApplyTrie(trie));
    for (const profile::HistogramPoint& point : batch_.histograms) {
      if (point.exemplars.empty()) RETURN_IF_ERROR(PutHistogram(point));
    }
    for (const profile::CounterPoint& point : batch_.counters) {
      const PointKey key = NextKey(series_[point.series].id, point.time_ns);
      RETURN_IF_ERROR(Put(Family::kTotals, EncodePointKey(key),
                          EncodeTotal({PointKind::kCounter, point.duration_ns, 0, point.value})));
    }
    return OkStatus();
  }

 private:
  Status Put(Family family, const std::string& key, const std::string& value) {
    return store_.database_->FromRocks(group_.writes.Put(store_.database_->family(family), key, value), "writing");
  }

  PointKey NextKey(SeriesId series, int64_t time_ns) { return {series, time_ns, group_.counters.next_ordinal++}; }

  StatusOr<NameId> Name(profile::StringId id) {
    if (names_.empty()) names_.resize(dictionary_.string_count());
    if (id != 0 && names_[id] == 0) {
      ASSIGN_OR_RETURN(names_[id], store_.name_writer_.Intern(dictionary_.string(id), &group_.writes));
    }
    return names_[id];
  }

  StatusOr<FrameKeyId> Frame(profile::FrameId id) {
    if (frames_.empty()) frames_.resize(dictionary_.frame_count());
    if (frames_[id] != 0) return frames_[id];
    const profile::Frame& frame = dictionary_.frame(id);
    const profile::Mapping& mapping = dictionary_.mapping(frame.mapping);
    FrameRecord record;
    record.kind = frame.kind;
    record.address = frame.address.value;
    ASSIGN_OR_RETURN(record.build_id, Name(mapping.build_id));
    ASSIGN_OR_RETURN(record.file, Name(mapping.file));
    ASSIGN_OR_RETURN(record.miss, Name(frame.miss));
    for (const profile::Line& line : frame.lines) {
      const profile::Function& function = dictionary_.function(line.function);
      FrameRecord::Line stored{.start_line = function.start_line, .line = line.line, .column = line.column};
      ASSIGN_OR_RETURN(stored.name, Name(function.name));
      ASSIGN_OR_RETURN(stored.system_name, Name(function.system_name));
      ASSIGN_OR_RETURN(stored.file, Name(function.file));
      record.lines.push_back(stored);
    }
    ASSIGN_OR_RETURN(frames_[id], store_.name_writer_.InternFrame(record, &group_.writes));
    return frames_[id];
  }

  // Marks `stack` and its ancestors as needed in the trie at hand.
  void Need(profile::StackId stack) {
    for (; stack != profile::kEmptyStack && epochs_[stack] != epoch_; stack = dictionary_.stack(stack).parent) {
      epochs_[stack] = epoch_;
      needed_.push_back(stack);
    }
  }

  Status MapStacks(TrieId trie_id) {
    std::shared_ptr<StackTrie>& trie = group_.tries[trie_id];
    if (trie == nullptr) {
      ASSIGN_OR_RETURN(trie, store_.tries_.Get(trie_id));
    }
    // Parents come before children in the batch's dictionary.
    std::sort(needed_.begin(), needed_.end());
    for (const profile::StackId stack : needed_) {
      ASSIGN_OR_RETURN([[maybe_unused]] const FrameKeyId frame, Frame(dictionary_.stack(stack).frame));
    }
    fold_ = 0;
    FrameKeyId fold_frame = 0;
    if (trie->size() + needed_.size() > store_.options_.max_nodes_per_trie) {
      FrameRecord record{.kind = profile::FrameKind::kSynthetic};
      record.lines.emplace_back();
      ASSIGN_OR_RETURN(record.lines[0].name, store_.name_writer_.Intern(kFoldedStacksName, &group_.writes));
      ASSIGN_OR_RETURN(fold_frame, store_.name_writer_.InternFrame(record, &group_.writes));
    }
    std::string segment;
    size_t first = 0;
    {
      const std::unique_lock lock(trie->mutex);
      first = trie->size();
      for (const profile::StackId stack : needed_) {
        const profile::StackNode node = dictionary_.stack(stack);
        const NodeId parent = nodes_[node.parent];
        if (fold_ != 0 && parent == fold_) {
          nodes_[stack] = fold_;
          continue;
        }
        NodeId child = trie->Find(parent, frames_[node.frame]);
        if (child == 0) {
          if (trie->size() >= store_.options_.max_nodes_per_trie && fold_frame != 0) {
            if (fold_ == 0) fold_ = trie->Find(0, fold_frame);
            if (fold_ == 0) fold_ = trie->Add(0, fold_frame);
            child = fold_;
          } else {
            child = trie->Add(parent, frames_[node.frame]);
          }
        }
        nodes_[stack] = child;
      }
      if (trie->size() > first) segment = trie->EncodeSegment(static_cast<NodeId>(first));
    }
    if (segment.empty()) return OkStatus();
    group_.counters.nodes += trie->size() - first;
    std::string key = "n";
    PutBigEndian32(trie_id, &key);
    PutBigEndian32(static_cast<uint32_t>(first), &key);
    return Put(Family::kTries, key, segment);
  }

  Status ApplyTrie(TrieId trie) {
    if (epochs_.empty()) {
      epochs_.resize(dictionary_.stack_count());
      nodes_.resize(dictionary_.stack_count());
    }
    ++epoch_;
    needed_.clear();
    for (const profile::ProfilePoint& point : batch_.profiles) {
      if (series_[point.series].trie != trie) continue;
      for (const profile::ProfilePoint::Sample& sample : point.samples) Need(sample.stack);
    }
    for (const profile::HistogramPoint& point : batch_.histograms) {
      if (series_[point.series].trie != trie) continue;
      for (const profile::Exemplar& exemplar : point.exemplars) Need(exemplar.stack);
    }
    RETURN_IF_ERROR(MapStacks(trie));
    for (const profile::ProfilePoint& point : batch_.profiles) {
      if (series_[point.series].trie == trie) RETURN_IF_ERROR(PutProfile(point));
    }
    for (const profile::HistogramPoint& point : batch_.histograms) {
      if (series_[point.series].trie == trie && !point.exemplars.empty()) RETURN_IF_ERROR(PutHistogram(point));
    }
    return OkStatus();
  }

  Status PutProfile(const profile::ProfilePoint& point) {
    ProfileChunk chunk{.duration_ns = point.duration_ns, .period_ns = point.period_ns};
    TotalRecord total{.kind = PointKind::kProfile, .duration_ns = point.duration_ns};
    for (const profile::ProfilePoint::Sample& sample : point.samples) {
      if (sample.count == 0 && sample.value == 0) continue;
      const NodeId node = nodes_[sample.stack];
      chunk.rows.push_back({node, sample.count, sample.value});
      total.count += sample.count;
      total.value += sample.value;
      if (fold_ != 0 && node == fold_) group_.counters.folded_samples += sample.count;
    }
    std::sort(chunk.rows.begin(), chunk.rows.end(),
              [](const StackSum& a, const StackSum& b) { return a.node < b.node; });
    size_t kept = 0;
    for (const StackSum& row : chunk.rows) {
      if (kept > 0 && chunk.rows[kept - 1].node == row.node) {
        chunk.rows[kept - 1].count += row.count;
        chunk.rows[kept - 1].value += row.value;
      } else {
        chunk.rows[kept++] = row;
      }
    }
    chunk.rows.resize(kept);
    group_.counters.samples += total.count;
    samples_ += total.count;
    const std::string key = EncodePointKey(NextKey(series_[point.series].id, point.time_ns));
    if (!chunk.rows.empty()) RETURN_IF_ERROR(Put(Family::kProfiles, key, EncodeProfileChunk(chunk)));
    return Put(Family::kTotals, key, EncodeTotal(total));
  }

  Status PutHistogram(const profile::HistogramPoint& point) {
    HistogramChunk chunk{.duration_ns = point.duration_ns, .histogram = point.histogram, .errors = point.errors};
    for (const profile::Exemplar& exemplar : point.exemplars) {
      ASSIGN_OR_RETURN(const NameId comm, store_.name_writer_.Intern(exemplar.comm, &group_.writes));
      chunk.exemplars.push_back({exemplar.time_ns, exemplar.value, nodes_[exemplar.stack], comm, exemplar.tid});
    }
    const std::string key = EncodePointKey(NextKey(series_[point.series].id, point.time_ns));
    RETURN_IF_ERROR(Put(Family::kHistograms, key, EncodeHistogramChunk(chunk, point.time_ns)));
    return Put(Family::kTotals, key,
               EncodeTotal({PointKind::kHistogram, point.duration_ns, point.histogram.count(), point.histogram.sum()}));
  }

 public:
  uint64_t samples() const { return samples_; }

 private:
  EmbeddedStore& store_;
  const profile::Batch& batch_;
  const profile::Dictionary& dictionary_;
  Group& group_;
  std::vector<SeriesWriter::Found> series_;  // by index in the batch
  std::vector<NameId> names_;                // by string id of the batch; 0 = not yet
  std::vector<FrameKeyId> frames_;           // by frame id of the batch; 0 = not yet
  // By stack id of the batch: its node in the trie at hand, valid when the epoch matches.
  std::vector<NodeId> nodes_;
  std::vector<uint32_t> epochs_;
  uint32_t epoch_ = 0;
  std::vector<profile::StackId> needed_;
  NodeId fold_ = 0;
  uint64_t samples_ = 0;
};

StatusOr<AppendResult> EmbeddedStore::Stage(const profile::Batch& batch, Group* group) {
  AgentInfo agent;
  const auto staged = group->agents.find(batch.agent_id);
  if (staged != group->agents.end()) {
    agent = staged->second;
  } else {
    const std::lock_guard lock(state_mutex_);
    const auto known = agents_.find(batch.agent_id);
    if (known != agents_.end()) {
      agent = known->second;
    } else if (agents_.size() + group->agents.size() >= kMaxAgents) {
      return ResourceExhaustedError(StrFormat("the store knows %s agents, its limit; agent %s is not among them",
                                              FormatCount(kMaxAgents), batch.agent_id));
    }
  }
  if (batch.sequence <= agent.last_sequence) {
    return AppendResult{.duplicate = true, .last_sequence = agent.last_sequence};
  }
  RETURN_IF_ERROR(CheckSeriesLimit(batch));
  // Counters of a request that fails half-way must not stay.
  const Counters before = group->counters;
  BatchApplier applier(this, batch, group);
  if (Status applied = applier.Apply(); !applied.ok()) {
    const uint64_t next_ordinal = group->counters.next_ordinal;
    group->counters = before;
    group->counters.next_ordinal = next_ordinal;
    return applied;
  }

  AppendResult result{.last_sequence = batch.sequence, .gap = batch.sequence - agent.last_sequence - 1};
  const int64_t now_ns = options_.now();
  if (agent.batches == 0) agent.first_seen_ns = now_ns;
  agent.agent_id = batch.agent_id;
  agent.node = batch.node;
  agent.last_sequence = batch.sequence;
  agent.last_seen_ns = now_ns;
  agent.batches += 1;
  agent.gaps += result.gap;
  agent.samples += applier.samples();
  RETURN_IF_ERROR(database_->FromRocks(
      group->writes.Put(database_->family(Family::kAgents), batch.agent_id, EncodeAgent(agent)), "writing"));
  group->counters.batches += 1;
  group->agents[batch.agent_id] = std::move(agent);
  return result;
}

StatusOr<bool> EmbeddedStore::TrimSeries(SeriesId series, int64_t cutoff_ns, bool* empty) {
  const std::unique_ptr<rocksdb::Iterator> it = database_->NewIterator(Family::kTotals);
  const std::string first = PointKeyPrefix(series, 0);
  const std::string cutoff = PointKeyPrefix(series, cutoff_ns);
  it->Seek(first);
  const bool has_old = it->Valid() && ToView(it->key()) < cutoff;
  if (has_old) {
    // Totals, samples and histograms of the same points lie in three families, under the same keys.
    rocksdb::WriteBatch batch;
    for (const Family family : {Family::kTotals, Family::kProfiles, Family::kHistograms}) {
      RETURN_IF_ERROR(database_->FromRocks(batch.DeleteRange(database_->family(family), first, cutoff), "trimming"));
    }
    RETURN_IF_ERROR(database_->Write(&batch, false));
    it->Seek(cutoff);
  }
  RETURN_IF_ERROR(database_->FromRocks(it->status(), "trimming"));
  *empty = !it->Valid() || !ToView(it->key()).starts_with(std::string_view(first).substr(0, 4));
  return has_old;
}

StatusOr<MaintenanceResult> EmbeddedStore::RunMaintenance(int64_t now_ns) {
  MaintenanceResult result;
  if (options_.retention_ns == 0) return result;
  const auto step = static_cast<int64_t>(std::clamp(options_.retention_ns / 64, kMinCutoffStepNs, kMaxCutoffStepNs));
  const int64_t oldest = now_ns - static_cast<int64_t>(options_.retention_ns);
  result.cutoff_ns = std::max<int64_t>(0, oldest - oldest % step);
  {
    const std::lock_guard lock(apply_mutex_);
    if (result.cutoff_ns <= last_cutoff_ns_) return result;
  }
  ASSIGN_OR_RETURN(const std::vector<SeriesId> ids, series_reader_.AllIds());
  for (size_t begin = 0; begin < ids.size(); begin += kMaintenanceSeries) {
    // Appends get their turn between the pieces.
    const std::lock_guard lock(apply_mutex_);
    const size_t end = std::min(ids.size(), begin + kMaintenanceSeries);
    rocksdb::WriteBatch removals;
    std::vector<SeriesId> removed;
    const uint64_t live_before = series_writer_.live;
    Status failed = OkStatus();
    for (size_t i = begin; i < end && failed.ok(); ++i) {
      bool empty = false;
      const StatusOr<bool> trimmed = TrimSeries(ids[i], result.cutoff_ns, &empty);
      failed = trimmed.status();
      if (!failed.ok()) break;
      if (*trimmed) ++result.series_trimmed;
      if (!empty) continue;
      failed = series_writer_.Remove(ids[i], &removals);
      removed.push_back(ids[i]);
    }
    if (failed.ok() && !removed.empty()) {
      Counters counters = counters_;
      counters.live_series = series_writer_.live;
      failed = PutCounters(counters, &removals);
      if (failed.ok()) failed = database_->Write(&removals, false);
      if (failed.ok()) {
        counters_ = counters;
        const std::lock_guard state_lock(state_mutex_);
        durable_counters_ = counters;
      }
    }
    if (!failed.ok()) {
      series_writer_.live = live_before;
      series_writer_.Forget();
      return failed;
    }
    for (const SeriesId id : removed) series_reader_.Erase(id);
    result.series_removed += removed.size();
  }
  const std::lock_guard lock(apply_mutex_);
  last_cutoff_ns_ = std::max(last_cutoff_ns_, result.cutoff_ns);
  return result;
}

}  // namespace pyrometer::store

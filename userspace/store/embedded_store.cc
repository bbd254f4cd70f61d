// The writing half of EmbeddedStore.
#include "userspace/store/embedded_store.h"

#include <algorithm>
#include <utility>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/store/housekeeping.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

// Records of the local database.
class RecordEncoder : public PointEncoder {
 public:
  explicit RecordEncoder(std::atomic<uint64_t>* next_ordinal) : next_ordinal_(*next_ordinal) {}

  bool NamesAgents() const override { return false; }
  void Encode(StagedPoint point, StagedBatch* staged) override {
    const uint64_t ordinal = next_ordinal_.fetch_add(1, std::memory_order_relaxed);
    const auto [series, trie, group] = point.place;
    const uint32_t hour = point.hour;
    const auto put = [&, trie = trie](Family family, std::string key, std::string value) {
      staged->hours[{hour, trie}].bytes += value.size();
      staged->bytes += value.size();
      staged->ops.push_back({family, std::move(key), std::move(value)});
    };
    const std::string window_key = EncodeWindowKey({hour, trie, series, ordinal});
    const std::string point_key = EncodePointKey({trie, series, hour, ordinal});
    if (!point.window.rows.empty()) put(Family::kWindows, window_key, EncodeWindowChunk(point.window));
    if (point.kind == PointKind::kHistogram) {
      put(Family::kHistograms, point_key, EncodeHistograms({std::move(point.histogram)}, hour));
    }
    put(Family::kTotals, point_key, EncodeTotals({.kind = point.kind, .windows = {point.total}}, hour));
    if (!point.offsets.rows.empty()) put(Family::kOffsets, window_key, EncodeOffsetsChunk(point.offsets));
  }

 private:
  std::atomic<uint64_t>& next_ordinal_;
};

}  // namespace

EmbeddedStore::EmbeddedStore(std::unique_ptr<Database> database, const StoreOptions& options)
    : StoreBase(std::move(database), options, std::make_unique<RecordEncoder>(&next_ordinal_)) {}

Status EmbeddedStore::Load() {
  RETURN_IF_ERROR(StoreBase::Load());
  return Housekeeper(this, options_.now(), 0).UpdateCutoffs();
}

StatusOr<std::unique_ptr<Store>> OpenWithEnv(const std::string& path, StoreOptions options, rocksdb::Env* env) {
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path, options, env));
  auto store = std::make_unique<EmbeddedStore>(std::move(database), options);
  RETURN_IF_ERROR(WithContext(store->Load(), StrFormat("data folder %s", path)));
  return std::unique_ptr<Store>(std::move(store));
}

StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path, StoreOptions options) {
  return OpenWithEnv(path, std::move(options), nullptr);
}

void EmbeddedStore::CommitGroup(const std::vector<Request*>& group) {
  const std::lock_guard commit_lock(commit_mutex_);
  // Definitions that the group needs, and perhaps some that only later ones need.
  rocksdb::WriteBatch writes;
  std::unordered_map<TrieId, std::shared_ptr<StackTrie>> tries;
  std::map<TenantId, TenantUsage> usage;
  std::map<TrieId, TenantId> services;
  std::vector<FrameKeyId> redescribed;
  std::vector<TrieId> replaced;
  uint64_t epoch = 0;
  Counters counters;
  {
    const std::lock_guard lock(definitions_.mutex);
    writes = std::move(definitions_.pending);
    definitions_.pending.Clear();
    tries = std::exchange(definitions_.pending_tries, {});
    usage = std::exchange(definitions_.pending_usage, {});
    services = std::exchange(definitions_.pending_services, {});
    redescribed = std::exchange(definitions_.names.redescribed, {});
    epoch = definitions_.epoch.load();
    replaced.assign(definitions_.turned_over.begin() + static_cast<ptrdiff_t>(turned_over_seen_),
                    definitions_.turned_over.end());
    turned_over_seen_ = definitions_.turned_over.size();
    counters_.nodes += std::exchange(definitions_.pending_nodes, 0);
    counters_.leaves += std::exchange(definitions_.pending_leaves, 0);
    counters = CountersNow();
  }

  Status failed = OkStatus();
  const auto put = [&](Family family, const std::string& key, std::string_view value) {
    if (failed.ok()) {
      failed = database_->FromRocks(writes.Put(database_->family(family), key, ToSlice(value)), "writing");
    }
  };
  std::unordered_map<std::string, AgentInfo> agents;
  std::map<std::pair<uint32_t, TrieId>, FreshRecord> hours;
  uint64_t fresh_points = fresh_points_;
  std::vector<Request*> written;
  const int64_t now_ns = options_.now();
  for (Request* request : group) {
    const profile::BatchView& batch = request->batch;
    const StagedBatch& staged = request->staged;
    if (staged.epoch != epoch) {
      request->restage = true;
      continue;
    }
    // Once more: the same batch may have come by two streams.
    const std::string agent_key = AgentKey(batch.tenant, batch.agent_id);
    auto [agent_entry, fresh_agent] = agents.try_emplace(agent_key);
    AgentInfo& agent = agent_entry->second;
    if (fresh_agent) {
      const std::lock_guard lock(state_mutex_);
      if (const auto known = agents_.find(agent_key); known != agents_.end()) agent = known->second;
    }
    if (batch.sequence <= agent.last_sequence) {
      request->result = AppendResult{.duplicate = true, .last_sequence = agent.last_sequence};
      continue;
    }
    for (const StagedBatch::Op& op : staged.ops) put(op.family, op.key, op.value);
    const uint64_t gap = batch.sequence - agent.last_sequence - 1;
    if (agent.batches == 0) agent.first_seen_ns = now_ns;
    agent.tenant = batch.tenant;
    agent.agent_id = batch.agent_id;
    agent.node = batch.node;
    agent.last_sequence = batch.sequence;
    agent.last_seen_ns = now_ns;
    agent.batches += 1;
    agent.gaps += gap;
    agent.samples += staged.samples;
    put(Family::kAgents, agent_key, EncodeAgent(agent));
    for (const auto& [place, fresh] : staged.hours) {
      const auto [entry, added] = hours.try_emplace(place);
      if (added) {
        if (const auto known = fresh_.find(place); known != fresh_.end()) entry->second = known->second;
      }
      entry->second.points += fresh.points;
      entry->second.bytes += fresh.bytes;
      entry->second.arrived_ns = now_ns;
      fresh_points += fresh.points;
    }
    usage[staged.tenant].Plus(staged.usage);
    tenants_.AddUsage(staged.tenant, staged.usage);
    counters.batches += 1;
    counters.samples += staged.samples;
    request->result = AppendResult{.last_sequence = batch.sequence, .gap = gap};
    written.push_back(request);
  }
  const bool any = writes.Count() > 0;
  for (const auto& [tenant, unused] : usage)
    put(Family::kMeta, TenantKey(tenant), EncodeTenant(tenants_.Record(tenant)));
  for (const auto& [place, record] : hours)
    put(Family::kMeta, FreshKey(place.first, place.second), EncodeFresh(record));
  if (!redescribed.empty()) {
    // Housekeeping looks which histories of functions have to be made anew.
    std::string ids;
    for (const FrameKeyId id : redescribed) PutVarint(id, &ids);
    std::string key = "D";
    PutBigEndian64(next_ordinal_.fetch_add(1), &key);
    counters.next_ordinal = next_ordinal_.load();
    put(Family::kMeta, key, ids);
  }
  put(Family::kMeta, kCountersKey, EncodeCounters(counters));
  const auto set_services = [&](bool known) {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [trie, tenant] : services) {
      if (tenant_of_trie_.size() <= trie) tenant_of_trie_.resize(trie + 1);
      tenant_of_trie_[trie] = known ? tenant : 0;
    }
  };
  // Before the write: a reader finds new series as soon as they are written, and asks whose they are.
  set_services(true);
  if (any && failed.ok()) failed = database_->Write(&writes, true);

  if (!failed.ok()) {
    set_services(false);
    // A duplicate may be one of a batch in this very group: it is not to be acknowledged either.
    for (Request* request : group) {
      if (!request->restage) request->result = failed;
    }
    // The log may hold the failed write all the same (synced badly, read back after a crash): ids and keys of it are
    // never used again.
    Abandon(tries, usage);
    return;
  }
  counters_ = counters;
  fresh_points_ = fresh_points;
  for (const auto& [place, record] : hours) fresh_[place] = record;
  for (Request* request : written) {
    for (const auto& [place, fresh] : request->staged.hours) {
      tenants_.AddBytes(request->staged.tenant, place.first, static_cast<int64_t>(fresh.bytes));
    }
  }
  {
    const std::lock_guard lock(state_mutex_);
    durable_counters_ = counters;
    durable_fresh_points_ = fresh_points;
    for (auto& [key, agent] : agents) {
      if (agent.last_sequence == 0) continue;  // only restaged batches
      auto [entry, added] = agents_.try_emplace(key);
      const uint64_t duplicates = entry->second.duplicates;
      entry->second = std::move(agent);
      entry->second.duplicates = duplicates;
    }
    for (Request* request : group) {
      if (request->restage || !request->result.ok() || !request->result->duplicate) continue;
      ++duplicates_;
      ++agents_.find(AgentKey(request->batch.tenant, request->batch.agent_id))->second.duplicates;
    }
  }
  if (!services.empty()) PublishRetention();
  if (!replaced.empty()) {
    const std::lock_guard lock(functions_mutex_);
    replaced_tries_.insert(replaced.begin(), replaced.end());
  }
  if (!redescribed.empty()) {
    name_reader_.Invalidate(redescribed);
    const std::lock_guard lock(functions_mutex_);
    redescribed_.insert(redescribed_.end(), redescribed.begin(), redescribed.end());
  }
  for (const auto& [trie, held] : tries) grown_tries_.insert(trie);
  tries.clear();
  TrimCaches();
}

void EmbeddedStore::Abandon(const std::unordered_map<TrieId, std::shared_ptr<StackTrie>>& tries,
                            const std::map<TenantId, TenantUsage>& usage) {
  const std::lock_guard lock(definitions_.mutex);
  definitions_.epoch.fetch_add(1);
  definitions_.names.Forget();
  definitions_.series.Forget();
  definitions_.folded_frame = 0;
  // What was staged since the write began goes as well: it may refer to what failed.
  for (const auto* set : {&tries, &std::as_const(definitions_.pending_tries)}) {
    for (const auto& [id, trie] : *set) {
      const std::shared_lock trie_lock(trie->mutex);
      tries_.Drop(id, trie->end());
    }
  }
  for (const auto* more : {&usage, &std::as_const(definitions_.pending_usage)}) {
    for (const auto& [tenant, one] : *more) tenants_.TakeUsage(tenant, one);
  }
  definitions_.pending.Clear();
  definitions_.pending_tries.clear();
  definitions_.pending_usage.clear();
  definitions_.pending_services.clear();
  definitions_.pending_nodes = definitions_.pending_leaves = 0;
  definitions_.names.redescribed.clear();
  counters_.nodes = durable_counters_.nodes;
  counters_.leaves = durable_counters_.leaves;
  // Function views know nothing that is not durable but by these tries: their leaves are never asked for again.
  const std::lock_guard functions_lock(functions_mutex_);
  functions_.clear();
}

void EmbeddedStore::PublishRetention() {
  const std::lock_guard lock(state_mutex_);
  auto content = std::make_shared<RetentionTable::Content>();
  content->tenant_of_trie = tenant_of_trie_;
  content->cutoffs = cutoffs_;
  database_->retention().Set(std::move(content));
}

}  // namespace pyrometer::store

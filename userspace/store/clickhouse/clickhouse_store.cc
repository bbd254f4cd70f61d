// The writing half of ClickHouseStore.
#include "userspace/store/clickhouse/clickhouse_store.h"

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/clickhouse/clickhouse.h"
#include "userspace/store/keys.h"

namespace pyrometer::store::clickhouse {
namespace {

// Inserts should be few and large.
constexpr size_t kMaxGroupBatches = 8192;
constexpr uint64_t kMaxGroupBytes = 64u << 20;

// In Family::kMeta: what a group will have inserted; rows of a batch that was never acknowledged.
constexpr char kIntentLetter = 'G';
constexpr char kPartialLetter = 'P';
constexpr char kHourBytesLetter = 'B';

std::string IntentKey(uint64_t number) {
  std::string key(1, kIntentLetter);
  PutBigEndian64(number, &key);
  return key;
}

std::string RedescribedKey(uint64_t number) {
  std::string key = "D";
  PutBigEndian64(number, &key);
  return key;
}

std::string PartialKey(TenantId tenant, NameId agent, uint64_t sequence, uint32_t shard, uint32_t day) {
  std::string key = LetterKey(kPartialLetter, {tenant, agent});
  PutBigEndian64(sequence, &key);
  PutBigEndian32(shard, &key);
  PutBigEndian32(day, &key);
  return key;
}

}  // namespace

std::string HourBytesKey(TenantId tenant, uint32_t hour) { return LetterKey(kHourBytesLetter, {tenant, hour}); }

StatusOr<std::unique_ptr<Store>> Open(std::string_view url_text, const std::string& folder, StoreOptions options) {
  ASSIGN_OR_RETURN(const Url url, ParseUrl(url_text));
  ASSIGN_OR_RETURN(std::unique_ptr<Cluster> cluster, Cluster::Connect(url));
  RETURN_IF_ERROR(cluster->CreateTables());
  RecordTable records(cluster.get());
  uint64_t newest = 0;
  // Each trie of a service is a question of its own, of tens of milliseconds, also for times that have nothing of it.
  if (options.max_trie_nodes == 0) options.max_trie_nodes = UINT64_MAX;
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, records.Open(folder, options, &newest));
  auto store =
      std::make_unique<ClickHouseStore>(std::move(database), options, std::move(cluster), std::move(records), newest);
  RETURN_IF_ERROR(store->Load());
  return std::unique_ptr<Store>(std::move(store));
}

ClickHouseStore::ClickHouseStore(std::unique_ptr<Database> database, const StoreOptions& options,
                                 std::unique_ptr<Cluster> cluster, RecordTable records, uint64_t newest)
    : StoreBase(std::move(database), options, std::make_unique<RowEncoder>()),
      cluster_(std::move(cluster)),
      records_(std::move(records)) {
  grouping_ = {
      .max_batches = kMaxGroupBatches, .max_bytes = kMaxGroupBytes, .interval_ns = cluster_->url().interval_ns};
  next_ordinal_ = newest + 1;
}

Status ClickHouseStore::Load() {
  {
    const std::lock_guard lock(commit_mutex_);
    RETURN_IF_ERROR(Recover());
  }
  const uint64_t next = next_ordinal_.load();
  RETURN_IF_ERROR(StoreBase::Load());
  next_ordinal_ = std::max(next, next_ordinal_.load());
  RETURN_IF_ERROR(LoadBytes());
  UpdateCutoffs(options_.now());
  return OkStatus();
}

Status ClickHouseStore::LoadBytes() {
  // What the hours that are not taken up said, in older tables.
  for (TenantId tenant = 1; tenant <= tenants_.size(); ++tenant) tenants_.ForgetBytes(tenant, UINT32_MAX);
  if (records_.tables_version() < kTablesVersion) return CountBytes();
  return database_->Scan(
      Family::kMeta, std::string(1, kHourBytesLetter), std::string(1, kHourBytesLetter + 1),
      [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        Decoder place(key.substr(1)), in(value);
        const TenantId tenant = place.BigEndian32();
        const uint32_t hour = place.BigEndian32();
        const uint64_t bytes = in.Varint();
        if (!place.ok() || !place.done() || !in.ok() || !in.done() || tenant == 0 || tenant > tenants_.size()) {
          return DataLossError("damaged record of the bytes of a tenant's hour");
        }
        tenants_.AddBytes(tenant, hour, static_cast<int64_t>(bytes));
        return true;
      });
}

Status ClickHouseStore::CountBytes() {
  Records records;
  {
    ASSIGN_OR_RETURN(
        const Rows rows,
        cluster_->Select(StrFormat("SELECT tenant, toUInt32(intDiv(time_ns, %d)) AS hour, toUInt64(sum(%s)) FROM %s "
                                   "GROUP BY tenant, hour FORMAT RowBinary",
                                   kHourNs, Cluster::PointBytes(), cluster_->All(Table::kPoints)),
                         nullptr));
    RowReader in(rows.bytes());
    while (!in.done()) {
      const TenantId tenant = in.U32();
      const uint32_t hour = in.U32();
      const uint64_t bytes = in.U64();
      if (!in.ok()) return InternalError("ClickHouse: malformed answer");
      if (tenant == 0 || tenant > tenants_.size()) return DataLossError("rows in ClickHouse of an unknown tenant");
      if (hour < tenants_.Record(tenant).kept_since_hour) continue;
      tenants_.AddBytes(tenant, hour, static_cast<int64_t>(bytes));
      PutVarint(bytes, &records[{Family::kMeta, HourBytesKey(tenant, hour)}].emplace());
    }
  }
  records_.PutTables(&records);
  const std::lock_guard lock(commit_mutex_);
  return WriteRecords(records);
}

// ---- groups -----------------------------------------------------------------------------------------------

void ClickHouseStore::CommitGroup(const std::vector<Request*>& group) {
  const std::lock_guard lock(commit_mutex_);
  const Status tried = TryGroup(group);
  if (!tried.ok()) {
    // A duplicate may be one of a batch in this very group: it is not to be acknowledged either.
    for (Request* request : group) {
      if (!request->restage) request->result = tried;
    }
    return;
  }
  {
    const std::lock_guard state_lock(state_mutex_);
    for (Request* request : group) {
      if (request->restage || !request->result.ok() || !request->result->duplicate) continue;
      ++duplicates_;
      ++agents_.find(AgentKey(request->batch.tenant, request->batch.agent_id))->second.duplicates;
    }
  }
  TrimCaches();
}

void ClickHouseStore::TakePending(uint64_t* epoch) {
  const std::lock_guard lock(definitions_.mutex);
  if (definitions_.pending.Count() > 0) unsent_.local.push_back(std::move(definitions_.pending));
  definitions_.pending.Clear();
  unsent_.tries.merge(definitions_.pending_tries);
  definitions_.pending_tries.clear();
  for (const auto& [tenant, usage] : definitions_.pending_usage) unsent_.tenants.insert(tenant);
  definitions_.pending_usage.clear();
  unsent_.services.merge(definitions_.pending_services);
  definitions_.pending_services.clear();
  auto& redescribed = definitions_.names.redescribed;
  unsent_.redescribed.insert(unsent_.redescribed.end(), redescribed.begin(), redescribed.end());
  redescribed.clear();
  counters_.nodes += std::exchange(definitions_.pending_nodes, 0);
  counters_.leaves += std::exchange(definitions_.pending_leaves, 0);
  counters_ = CountersNow();
  *epoch = definitions_.epoch.load();
}

Status ClickHouseStore::TryGroup(const std::vector<Request*>& group) {
  RETURN_IF_ERROR(LookWhoOwns());
  if (unfinished_) RETURN_IF_ERROR(Finish());
  uint64_t epoch = 0;
  TakePending(&epoch);

  Unfinished made;
  made.number = NextNumber();
  made.counters = counters_;
  made.fresh_points = fresh_points_;
  std::map<Place, Block> blocks;
  std::map<TenantId, TenantUsage> usage;
  const int64_t now_ns = options_.now();
  for (Request* request : group) {
    const profile::BatchView& batch = request->batch;
    StagedBatch& staged = request->staged;
    if (staged.epoch != epoch) {
      request->restage = true;
      continue;
    }
    // Once more: the same batch may have come by two streams.
    const std::string agent_key = AgentKey(batch.tenant, batch.agent_id);
    auto [agent_entry, fresh_agent] = made.agents.try_emplace(agent_key);
    AgentInfo& agent = agent_entry->second;
    if (fresh_agent) {
      const std::lock_guard lock(state_mutex_);
      if (const auto known = agents_.find(agent_key); known != agents_.end()) agent = known->second;
    }
    if (batch.sequence <= agent.last_sequence) {
      request->result = AppendResult{.duplicate = true, .last_sequence = agent.last_sequence};
      continue;
    }
    const Origin origin(staged.tenant, staged.agent, staged.sequence);
    const auto there = partial_.find(origin);
    for (const auto& [place, rows] : staged.rows) {
      const Place at(ShardOf(place.first), place.second);
      if (there != partial_.end() && there->second.contains(at)) continue;
      Block& block = blocks[at];
      block.rows += rows;
      block.origins.insert(origin);
    }
    made.origins.insert(origin);
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
    const uint32_t kept_since = tenants_.Record(staged.tenant).kept_since_hour;
    for (const auto& [place, fresh] : staged.hours) {
      const auto [entry, added] = made.hours.try_emplace(place);
      if (added) {
        if (const auto known = fresh_.find(place); known != fresh_.end()) entry->second = known->second;
      }
      entry->second.points += fresh.points;
      entry->second.arrived_ns = now_ns;
      made.fresh_points += fresh.points;
      // What is hidden already counts no more.
      if (place.first >= kept_since) made.bytes[staged.tenant][place.first] += fresh.bytes;
    }
    usage[staged.tenant].Plus(staged.usage);
    made.counters.batches += 1;
    made.counters.samples += staged.samples;
    request->result = AppendResult{.last_sequence = batch.sequence, .gap = gap};
  }
  if (made.origins.empty()) return OkStatus();

  // Step 4, as it will be.
  made.counters.next_ordinal = next_ordinal_.load();
  const auto put = [&](Family family, std::string key, std::string value) {
    made.records[{family, std::move(key)}] = std::move(value);
  };
  for (const auto& [key, agent] : made.agents) {
    if (agent.last_sequence != 0) put(Family::kAgents, key, EncodeAgent(agent));
  }
  for (const auto& [tenant, more] : usage) {
    TenantRecord record = tenants_.Record(tenant);
    record.usage.Plus(more);
    put(Family::kMeta, TenantKey(tenant), EncodeTenant(record));
  }
  for (const auto& [place, record] : made.hours) {
    // Once is enough: what counts after a restart is that there is something.
    if (!fresh_.contains(place)) put(Family::kMeta, FreshKey(place.first, place.second), EncodeFresh(record));
  }
  for (const auto& [tenant, hours] : made.bytes) {
    for (const auto& [hour, bytes] : hours) {
      std::string value;
      PutVarint(static_cast<uint64_t>(tenants_.BytesOf(tenant, hour)) + bytes, &value);
      put(Family::kMeta, HourBytesKey(tenant, hour), std::move(value));
    }
  }
  put(Family::kMeta, kCountersKey, EncodeCounters(made.counters));
  for (const Origin& origin : made.origins) {
    const auto there = partial_.find(origin);
    if (there == partial_.end()) continue;
    const auto& [tenant, agent, sequence] = origin;
    for (const auto& [shard, day] : there->second) {
      made.records[{Family::kMeta, PartialKey(tenant, agent, sequence, shard, day)}] = std::nullopt;
    }
  }
  std::string intent;
  PutVarint(blocks.size(), &intent);
  for (auto& [at, block] : blocks) {
    block.shard = at.first;
    block.day = at.second;
    PutVarint(block.shard, &intent);
    PutVarint(block.day, &intent);
    PutVarint(block.origins.size(), &intent);
    for (const auto& [tenant, agent, sequence] : block.origins) {
      PutVarint(tenant, &intent);
      PutVarint(agent, &intent);
      PutVarint(sequence, &intent);
    }
    made.blocks.push_back(std::move(block));
  }
  intent += EncodeRecords(made.records);

  // Before the write: a reader finds new series as soon as they are written, and asks whose they are.
  {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [trie, tenant] : unsent_.services) {
      if (tenant_of_trie_.size() <= trie) tenant_of_trie_.resize(trie + 1);
      tenant_of_trie_[trie] = tenant;
    }
  }
  RETURN_IF_ERROR(SendDefinitions({{{Family::kMeta, IntentKey(made.number)}, std::move(intent)}}));
  made.usage = std::move(usage);
  made.records[{Family::kMeta, IntentKey(made.number)}] = std::nullopt;
  unfinished_ = std::move(made);
  return Finish();
}

Status ClickHouseStore::SendDefinitions(const Records& more) {
  for (const rocksdb::WriteBatch& batch : unsent_.local)
    RETURN_IF_ERROR(AddRecords(*database_, batch, &unsent_.records));
  unsent_.local.clear();
  Records all = unsent_.records;
  for (const auto& [place, value] : more) all[place] = value;
  for (const TenantId tenant : unsent_.tenants) {
    all[{Family::kMeta, TenantKey(tenant)}] = EncodeTenant(tenants_.Record(tenant));
  }
  const uint64_t number = NextNumber();
  counters_.next_ordinal = next_ordinal_.load();
  if (!unsent_.redescribed.empty()) {
    // Housekeeping looks which histories of functions have to be made anew.
    std::string ids;
    for (const FrameKeyId id : unsent_.redescribed) PutVarint(id, &ids);
    all[{Family::kMeta, RedescribedKey(number)}] = std::move(ids);
  }
  // Ids that were given out are never given out again, whatever becomes of the batches.
  all[{Family::kMeta, kCountersKey}] = EncodeCounters(counters_);
  RETURN_IF_ERROR(records_.Write(number, all));
  rocksdb::WriteBatch batch;
  RETURN_IF_ERROR(ToWriteBatch(*database_, all, &batch));
  RETURN_IF_ERROR(records_.WriteLocally(database_.get(), number, &batch));
  if (!unsent_.redescribed.empty()) {
    name_reader_.Invalidate(unsent_.redescribed);
    const std::lock_guard lock(functions_mutex_);
    redescribed_.insert(redescribed_.end(), unsent_.redescribed.begin(), unsent_.redescribed.end());
  }
  unsent_ = {};
  const std::lock_guard lock(state_mutex_);
  durable_counters_ = counters_;
  return OkStatus();
}

Status ClickHouseStore::InsertBlock(const Block& block, uint64_t number) const {
  const auto is_there = [&]() -> StatusOr<bool> {
    ASSIGN_OR_RETURN(const std::set<Origin> present,
                     PresentOrigins(block.day, block.origins, cluster_->Local(Table::kPoints),
                                    [&](const std::string& sql) { return cluster_->SelectShard(block.shard, sql); }));
    return !present.empty();
  };
  return cluster_->Insert(block.shard, Table::kPoints, kPointColumnNames, block.rows,
                          cluster_->InsertId(Table::kPoints, StrFormat("%d-%d-%d", number, block.shard, block.day)),
                          is_there);
}

Status ClickHouseStore::LookWhoOwns() {
  const Status look = records_.owner().Look(Owner::kLookAgeNs);
  if (!disowned_ && !records_.owner().lost().ok()) {
    // Whoever has the database now has found the intent, and decides.
    unfinished_.reset();
    disowned_ = true;
    RETURN_IF_ERROR(records_.Disown(database_.get()));
  }
  return look;
}

Status ClickHouseStore::Finish() {
  Unfinished& group = *unfinished_;
  const auto unfinished = [&](const Status& status) {
    if (!records_.owner().lost().ok()) return LookWhoOwns();
    return status.code() == StatusCode::kUnavailable ? status : UnavailableError(Message(status));
  };
  for (Block& block : group.blocks) {
    if (block.done) continue;
    if (const Status inserted = InsertBlock(block, group.number); !inserted.ok()) return unfinished(inserted);
    block.done = true;
    block.rows = {};
  }
  const uint64_t number = NextNumber();
  if (const Status written = records_.Write(number, group.records); !written.ok()) return unfinished(written);
  // Only what the next owner is sure to find may be acknowledged.
  if (const Status owner = records_.owner().Look(); !owner.ok()) return unfinished(owner);
  rocksdb::WriteBatch batch;
  RETURN_IF_ERROR(ToWriteBatch(*database_, group.records, &batch));
  RETURN_IF_ERROR(records_.WriteLocally(database_.get(), number, &batch));

  // Ids may have been given out since, but the group's own counts are the newest.
  counters_.batches = group.counters.batches;
  counters_.samples = group.counters.samples;
  fresh_points_ = group.fresh_points;
  for (const auto& [place, record] : group.hours) fresh_[place] = record;
  for (const auto& [tenant, more] : group.usage) tenants_.AddUsage(tenant, more);
  for (const auto& [tenant, hours] : group.bytes) {
    for (const auto& [hour, bytes] : hours) tenants_.AddBytes(tenant, hour, static_cast<int64_t>(bytes));
  }
  for (const Origin& origin : group.origins) partial_.erase(origin);
  {
    const std::lock_guard lock(state_mutex_);
    durable_counters_ = counters_;
    durable_fresh_points_ = fresh_points_;
    for (auto& [key, agent] : group.agents) {
      if (agent.last_sequence == 0) continue;  // only restaged batches
      auto [entry, added] = agents_.try_emplace(key);
      const uint64_t duplicates = entry->second.duplicates;
      entry->second = std::move(agent);
      entry->second.duplicates = duplicates;
    }
  }
  unfinished_.reset();
  return OkStatus();
}

Status ClickHouseStore::WriteRecords(const Records& records) {
  RETURN_IF_ERROR(LookWhoOwns());
  if (unfinished_) RETURN_IF_ERROR(Finish());
  const uint64_t number = NextNumber();
  Records all = records;
  counters_.next_ordinal = next_ordinal_.load();
  all[{Family::kMeta, kCountersKey}] = EncodeCounters(counters_);
  RETURN_IF_ERROR(records_.Write(number, all));
  rocksdb::WriteBatch batch;
  RETURN_IF_ERROR(ToWriteBatch(*database_, all, &batch));
  return records_.WriteLocally(database_.get(), number, &batch);
}

StatusOr<std::set<ClickHouseStore::Origin>> ClickHouseStore::PresentOrigins(
    uint32_t day, const std::set<Origin>& wanted, std::string_view table,
    const std::function<StatusOr<Rows>(const std::string&)>& select) const {
  std::string agents, sequences;
  for (const auto& [tenant, agent, sequence] : wanted) {
    agents += StrFormat("%s%d", agents.empty() ? "" : ",", agent);
    sequences += StrFormat("%s%d", sequences.empty() ? "" : ",", sequence);
  }
  ASSIGN_OR_RETURN(
      const Rows rows,
      select(StrFormat("SELECT DISTINCT tenant, agent, sequence FROM %s WHERE day = toDate(%d) AND agent IN "
                       "(%s) AND sequence IN (%s) FORMAT RowBinary",
                       table, day, agents, sequences)));
  std::set<Origin> present;
  RowReader in(rows.bytes());
  while (!in.done()) {
    const TenantId tenant = in.U32();
    const NameId agent = in.U32();
    const Origin origin(tenant, agent, in.U64());
    if (wanted.contains(origin)) present.insert(origin);
  }
  if (!in.ok()) return InternalError("ClickHouse: malformed answer");
  return present;
}

// ---- after a crash ----------------------------------------------------------------------------------------

Status ClickHouseStore::Recover() {
  RETURN_IF_ERROR(database_->Scan(Family::kMeta, std::string(1, kPartialLetter), std::string(1, kPartialLetter + 1),
                                  [&](std::string_view key, std::string_view) -> StatusOr<bool> {
                                    Decoder in(key.substr(1));
                                    const TenantId tenant = in.BigEndian32();
                                    const NameId agent = in.BigEndian32();
                                    const uint64_t sequence = in.BigEndian64();
                                    const uint32_t shard = in.BigEndian32();
                                    partial_[Origin(tenant, agent, sequence)].emplace(shard, in.BigEndian32());
                                    if (!in.ok() || !in.done()) return DataLossError("damaged key of rows of a batch");
                                    return true;
                                  }));
  std::map<std::string, std::string> intents;
  RETURN_IF_ERROR(database_->Scan(Family::kMeta, std::string(1, kIntentLetter), std::string(1, kIntentLetter + 1),
                                  [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
                                    intents.emplace(key, value);
                                    return true;
                                  }));
  for (const auto& [key, value] : intents) {
    Decoder in(value);
    std::vector<Block> blocks(in.Count(3));
    for (Block& block : blocks) {
      block.shard = in.Varint32();
      block.day = in.Varint32();
      for (size_t left = in.Count(3); left > 0 && in.ok(); --left) {
        const TenantId tenant = in.Varint32();
        const NameId agent = in.Varint32();
        block.origins.emplace(tenant, agent, in.Varint());
      }
    }
    if (!in.ok()) return DataLossError("damaged intent of a group");
    ASSIGN_OR_RETURN(const Records committed, DecodeRecords(in.Rest()));
    bool complete = true;
    Records records;
    for (const Block& block : blocks) {
      ASSIGN_OR_RETURN(
          const std::set<Origin> present,
          PresentOrigins(block.day, block.origins, cluster_->Local(Table::kPoints), [&](const std::string& sql) {
            return cluster_->SelectSettled(block.shard, Table::kPoints, sql);
          }));
      complete = complete && present.size() == block.origins.size();
      for (const Origin& origin : present) {
        const auto& [tenant, agent, sequence] = origin;
        records[{Family::kMeta, PartialKey(tenant, agent, sequence, block.shard, block.day)}] = "";
        partial_[origin].emplace(block.shard, block.day);
      }
    }
    if (complete) {
      for (const Block& block : blocks) {
        for (const Origin& origin : block.origins) partial_.erase(origin);
      }
      records = committed;
    }
    records[{Family::kMeta, key}] = std::nullopt;
    const uint64_t number = NextNumber();
    RETURN_IF_ERROR(records_.Write(number, records));
    rocksdb::WriteBatch batch;
    RETURN_IF_ERROR(ToWriteBatch(*database_, records, &batch));
    RETURN_IF_ERROR(records_.WriteLocally(database_.get(), number, &batch));
  }
  return OkStatus();
}

StatusOr<BackupInfo> ClickHouseStore::Backup(const std::string&) {
  return FailedPreconditionError(
      "the data lies in ClickHouse: back it up there, all tables of the database together (ALTER TABLE … FREEZE)");
}

Status ClickHouseStore::Settle() {
  for (uint32_t shard = 1; shard <= cluster_->shards(); ++shard) {
    for (const Table table : {Table::kPoints, Table::kRollups, Table::kFunctions, Table::kRecords}) {
      if (table == Table::kRecords && shard != 1) continue;
      const std::string local = cluster_->Local(table);
      // Of an empty replicated table 18.16 writes down a merge of nothing, and fails ("Unknown log entry type: 0").
      ASSIGN_OR_RETURN(const Rows some,
                       cluster_->SelectSettled(shard, table,
                                               StrFormat("SELECT toUInt8(1) FROM %s LIMIT 1 FORMAT RowBinary", local)));
      if (some.bytes().empty()) continue;
      RETURN_IF_ERROR(cluster_->Execute(shard, StrFormat("OPTIMIZE TABLE %s FINAL", local)));
    }
  }
  return OkStatus();
}

}  // namespace pyrometer::store::clickhouse

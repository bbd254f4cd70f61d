// What every store does with a batch before it is written, and what it remembers between batches.
#include "userspace/store/store_base.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/store/keys.h"
#include "userspace/store/memory_shares.h"
#include "userspace/store/validate.h"

namespace pyrometer::store {
namespace {

// A batch that found the budget for batches on their way used up waits so long; then its stream ends with UNAVAILABLE.
constexpr auto kMaxFlightWait = std::chrono::seconds(10);
// What a batch takes while it is staged and written: measured 40 bytes per sample row and 200 per point.
constexpr uint64_t kFlightBytesPerRow = 40;
constexpr uint64_t kFlightBytesPerPoint = 200;

uint64_t FlightBytes(const profile::BatchView& batch) {
  uint64_t rows = 0;
  for (const profile::ProfilePoint& point : batch.profiles) rows += point.samples.size();
  return rows * kFlightBytesPerRow +
         (batch.profiles.size() + batch.histograms.size() + batch.counters.size()) * kFlightBytesPerPoint;
}

}  // namespace

std::string EncodeCounters(const Counters& counters) {
  std::string out;
  for (const uint64_t number : {counters.next_name, counters.next_function, counters.next_frame, counters.next_series,
                                counters.next_group, counters.next_trie, counters.next_ordinal, counters.nodes,
                                counters.leaves, counters.batches, counters.samples, counters.housekept_until_hour}) {
    PutVarint(number, &out);
  }
  return out;
}

StatusOr<Counters> DecodeCounters(std::string_view bytes) {
  Decoder in(bytes);
  Counters counters;
  for (uint64_t* number : {&counters.next_name, &counters.next_function, &counters.next_frame, &counters.next_series,
                           &counters.next_group, &counters.next_trie}) {
    *number = in.Varint32();
  }
  for (uint64_t* number : {&counters.next_ordinal, &counters.nodes, &counters.leaves, &counters.batches,
                           &counters.samples, &counters.housekept_until_hour}) {
    *number = in.Varint();
  }
  if (!in.ok() || !in.done()) return DataLossError("damaged counters record");
  return counters;
}

std::string AgentKey(std::string_view tenant, std::string_view agent_id) {
  return std::string(tenant) + '\0' + std::string(agent_id);
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

StatusOr<AgentInfo> DecodeAgent(std::string_view key, std::string_view bytes) {
  Decoder in(bytes);
  AgentInfo agent;
  const size_t end = key.find('\0');
  if (end == std::string_view::npos) return DataLossError("damaged key of an agent");
  agent.tenant = key.substr(0, end);
  agent.agent_id = key.substr(end + 1);
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

std::string FreshKey(uint32_t hour, TrieId trie) { return LetterKey('F', {hour, trie}); }
std::string DenseKey(uint32_t hour, TrieId trie) { return LetterKey('H', {hour, trie}); }

std::string EncodeFresh(const FreshRecord& record) {
  std::string out;
  PutVarint(record.points, &out);
  PutVarint(record.bytes, &out);
  PutVarint(static_cast<uint64_t>(std::max<int64_t>(record.arrived_ns, 0)), &out);
  return out;
}

StatusOr<FreshRecord> DecodeFresh(std::string_view bytes) {
  Decoder in(bytes);
  FreshRecord record;
  record.points = in.Varint();
  record.bytes = in.Varint();
  record.arrived_ns = static_cast<int64_t>(in.Varint());
  if (!in.ok() || !in.done()) return DataLossError("damaged record of fresh points");
  return record;
}

StatusOr<AppendResult> StoreWriter::Append(const profile::Batch& batch) {
  const profile::DictionaryDefinitions definitions(&batch.dictionary);
  return Append(
      profile::BatchView{
          .tenant = batch.tenant,
          .agent_id = batch.agent_id,
          .node = batch.node,
          .sequence = batch.sequence,
          .definitions = &definitions,
          .series = batch.series,
          .profiles = batch.profiles,
          .histograms = batch.histograms,
          .counters = batch.counters,
      },
      nullptr);
}

StoreBase::StoreBase(std::unique_ptr<Database> database, const StoreOptions& options,
                     std::unique_ptr<PointEncoder> encoder)
    : options_(options),
      database_(std::move(database)),
      tenants_(options_),
      encoder_(std::move(encoder)),
      definitions_(database_.get(), MemoryShares::Of(options.memory_budget_bytes, MemoryShares::kDefinitions)),
      name_reader_(database_.get(), MemoryShares::Of(options.memory_budget_bytes, MemoryShares::kNameReader)),
      series_reader_(database_.get(), &name_reader_,
                     MemoryShares::Of(options.memory_budget_bytes, MemoryShares::kSeriesReader)),
      tries_(MemoryShares::Of(options.memory_budget_bytes, MemoryShares::kTries),
             [this](TrieId id, StackTrie* trie) {
               const Status loaded = LoadTrie(id, trie);
               brought_in_ += trie->bytes();
               return loaded;
             }),
      stager_(&options_, database_.get(), &tenants_, &tries_, &definitions_, encoder_.get()),
      read_pool_(options.read_threads) {}

Status StoreBase::Load() {
  std::string bytes;
  ASSIGN_OR_RETURN(const bool found, database_->Get(Family::kMeta, kCountersKey, &bytes));
  if (found) {
    ASSIGN_OR_RETURN(counters_, DecodeCounters(bytes));
  }
  durable_counters_ = counters_;
  definitions_.names.next_name = static_cast<NameId>(counters_.next_name);
  definitions_.names.next_function = static_cast<FunctionId>(counters_.next_function);
  definitions_.names.next_frame = static_cast<FrameKeyId>(counters_.next_frame);
  definitions_.series.next_series = static_cast<SeriesId>(counters_.next_series);
  definitions_.series.next_group = static_cast<GroupId>(counters_.next_group);
  definitions_.series.next_trie = static_cast<TrieId>(counters_.next_trie);
  next_ordinal_ = counters_.next_ordinal;

  RETURN_IF_ERROR(
      database_->Scan(Family::kMeta, "T", "U", [this](std::string_view key, std::string_view value) -> StatusOr<bool> {
        Decoder in(key.substr(1));
        const TenantId id = in.BigEndian32();
        ASSIGN_OR_RETURN(TenantRecord record, DecodeTenant(value));
        if (!in.ok() || id == 0) return DataLossError("damaged key of a tenant");
        tenants_.Load(id, std::move(record));
        return true;
      }));
  std::map<std::pair<TenantId, std::string>, TrieId> newest_of_service;
  RETURN_IF_ERROR(
      database_->Scan(Family::kTries, "I", "J", [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        Decoder in(key.substr(1));
        const TrieId id = in.BigEndian32();
        ASSIGN_OR_RETURN(const TrieRecord record, DecodeTrieRecord(value));
        if (tenant_of_trie_.size() <= id) tenant_of_trie_.resize(id + 1);
        tenant_of_trie_[id] = record.tenant;
        grown_tries_.insert(id);  // perhaps; housekeeping looks
        // Ids grow, so the newest of a service comes last.
        const auto [newest, first] = newest_of_service.try_emplace({record.tenant, record.name}, id);
        if (!first) replaced_tries_.insert(std::exchange(newest->second, id));
        return true;
      }));
  const auto each_hour = [this](const char* from, const char* to, const auto& visit) {
    return database_->Scan(Family::kMeta, from, to,
                           [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
                             Decoder in(key.substr(1));
                             const uint32_t hour = in.BigEndian32();
                             const TrieId trie = in.BigEndian32();
                             if (!in.ok() || !in.done()) return DataLossError("damaged key of an hour");
                             ASSIGN_OR_RETURN(const uint64_t hour_bytes, visit(hour, trie, value));
                             if (const TenantId tenant = TenantOf(trie); tenant != 0) {
                               tenants_.AddBytes(tenant, hour, static_cast<int64_t>(hour_bytes));
                             }
                             return true;
                           });
  };
  RETURN_IF_ERROR(each_hour("F", "G", [&](uint32_t hour, TrieId trie, std::string_view value) -> StatusOr<uint64_t> {
    ASSIGN_OR_RETURN(const FreshRecord record, DecodeFresh(value));
    fresh_[{hour, trie}] = record;
    fresh_points_ += record.points;
    return record.bytes;
  }));
  RETURN_IF_ERROR(each_hour("H", "I", [&](uint32_t, TrieId, std::string_view value) -> StatusOr<uint64_t> {
    Decoder in(value);
    const uint64_t dense = in.Varint();
    if (!in.ok() || !in.done()) return DataLossError("damaged record of an hour");
    return dense;
  }));
  durable_fresh_points_ = fresh_points_;
  RETURN_IF_ERROR(
      database_->Scan(Family::kAgents, "", "", [this](std::string_view key, std::string_view value) -> StatusOr<bool> {
        ASSIGN_OR_RETURN(AgentInfo agent, DecodeAgent(key, value));
        agents_.emplace(key, std::move(agent));
        return true;
      }));
  return OkStatus();
}

TenantId StoreBase::TenantOf(TrieId trie) const {
  const std::lock_guard lock(state_mutex_);
  return trie < tenant_of_trie_.size() ? tenant_of_trie_[trie] : 0;
}

StatusOr<uint64_t> StoreBase::LastSequence(std::string_view tenant, std::string_view agent_id) const {
  const std::lock_guard lock(state_mutex_);
  const auto found = agents_.find(AgentKey(tenant, agent_id));
  return found == agents_.end() ? uint64_t{0} : found->second.last_sequence;
}

StatusOr<AppendResult> StoreBase::CheckSequence(const profile::BatchView& batch) const {
  const std::lock_guard lock(state_mutex_);
  const auto known = agents_.find(AgentKey(batch.tenant, batch.agent_id));
  if (known == agents_.end()) {
    if (agents_.size() >= kMaxAgents) {
      return ResourceExhaustedError(StrFormat("the store knows %s agents, its limit; agent %s is not among them",
                                              FormatCount(kMaxAgents), batch.agent_id));
    }
    return AppendResult{};
  }
  const uint64_t last = known->second.last_sequence;
  return AppendResult{.duplicate = batch.sequence <= last, .last_sequence = last};
}

StatusOr<AppendResult> StoreBase::Append(const profile::BatchView& batch, StreamMemo* stream_memo) {
  Memo own;
  Memo* memo = stream_memo == nullptr ? &own : static_cast<Memo*>(stream_memo);
  RETURN_IF_ERROR(ValidateBatch(batch, &memo->checked, options_.now()));
  ASSIGN_OR_RETURN(const AppendResult known, CheckSequence(batch));
  if (known.duplicate) {
    const std::lock_guard lock(state_mutex_);
    ++duplicates_;
    ++agents_.find(AgentKey(batch.tenant, batch.agent_id))->second.duplicates;
    return known;
  }
  if (const TenantId tenant = tenants_.Find(batch.tenant); tenant != 0) {
    RETURN_IF_ERROR(tenants_.AwaitRate(tenant));
  }

  const uint64_t flight = FlightBytes(batch);
  {
    std::unique_lock lock(flight_mutex_);
    const uint64_t most = MemoryShares::Of(options_.memory_budget_bytes, MemoryShares::kFlight);
    // One batch may always go, however large.
    const bool room = flight_changed_.wait_for(lock, kMaxFlightWait,
                                               [&] { return flight_bytes_ == 0 || flight_bytes_ + flight <= most; });
    if (!room) {
      return UnavailableError(StrFormat(
          "the store has %s of batches on their way and its limit, by --memory, is %s: the agents keep theirs "
          "and come back",
          FormatBytes(flight_bytes_), FormatBytes(most)));
    }
    flight_bytes_ += flight;
  }
  Request request(batch);
  for (;;) {
    const uint64_t epoch = definitions_.epoch.load();
    if (memo->epoch != epoch) memo->Reset(epoch);
    StatusOr<StagedBatch> staged = stager_.Stage(batch, memo);
    if (!staged.ok()) {
      request.result = staged.status();
      // What it knew of the stream may be half true.
      memo->Reset(0);
      break;
    }
    request.staged = *std::move(staged);
    request.done = request.restage = false;
    Commit(&request);
    if (!request.restage) break;
  }
  {
    const std::lock_guard lock(flight_mutex_);
    flight_bytes_ -= flight;
  }
  flight_changed_.notify_all();
  if (request.result.ok() && !request.result->duplicate) {
    request.result->notice = std::move(request.staged.notice);
    tenants_.ChargeRate(request.staged.tenant, request.staged.bytes);
  }
  return std::move(request.result);
}

void StoreBase::Commit(Request* request) {
  std::unique_lock lock(queue_mutex_);
  queue_.push_back(request);
  queue_bytes_ += request->staged.bytes;
  const auto is_full = [this] { return queue_.size() >= grouping_.max_batches || queue_bytes_ >= grouping_.max_bytes; };
  if (is_full()) queue_changed_.notify_all();
  while (!request->done) {
    if (leader_active_) {
      queue_changed_.wait(lock);
      continue;
    }
    // Lead a group: as many of the waiting as fit, in the order in which they came.
    leader_active_ = true;
    for (uint64_t now = MonotonicNowNs(); now < next_group_ns_ && !is_full(); now = MonotonicNowNs()) {
      queue_changed_.wait_for(lock, std::chrono::nanoseconds(next_group_ns_ - now));
    }
    next_group_ns_ = MonotonicNowNs() + grouping_.interval_ns;
    std::vector<Request*> group;
    uint64_t bytes = 0;
    for (Request* waiting : queue_) {
      const uint64_t more = bytes + waiting->staged.bytes;
      if (!group.empty() && (group.size() == grouping_.max_batches || more > grouping_.max_bytes)) break;
      group.push_back(waiting);
      bytes = more;
    }
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(group.size()));
    queue_bytes_ -= bytes;
    lock.unlock();
    CommitGroup(group);
    lock.lock();
    for (Request* done : group) done->done = true;
    leader_active_ = false;
    queue_changed_.notify_all();
  }
}

Counters StoreBase::CountersNow() const {
  Counters counters = counters_;
  counters.next_name = definitions_.names.next_name;
  counters.next_function = definitions_.names.next_function;
  counters.next_frame = definitions_.names.next_frame;
  counters.next_series = definitions_.series.next_series;
  counters.next_group = definitions_.series.next_group;
  counters.next_trie = definitions_.series.next_trie;
  counters.next_ordinal = next_ordinal_.load();
  return counters;
}

void StoreBase::TrimCaches() {
  {
    const std::lock_guard lock(definitions_.mutex);
    definitions_.names.Trim();
    definitions_.series.Trim();
    const std::lock_guard state_lock(state_mutex_);
    writer_bytes_ = definitions_.names.bytes() + definitions_.series.bytes();
  }
  TrimTries();
}

void StoreBase::LetGoOfCaches() {
  database_->LetGoOfCache();
  TrimFunctions(0);
  tries_.TrimTo(MemoryShares::Of(options_.memory_budget_bytes, MemoryShares::kTries) / 2);
}

void StoreBase::BroughtIn(uint64_t bytes) const {
  if (brought_in_.fetch_add(bytes) + bytes < options_.memory_budget_bytes / 64) return;
  TrimTries();
}

void StoreBase::TrimTries() const {
  brought_in_ = 0;
  tries_.Trim();
  TrimFunctions(MemoryShares::Of(options_.memory_budget_bytes, MemoryShares::kFunctions));
}

void StoreBase::TrimFunctions(uint64_t most_bytes) const {
  const std::lock_guard lock(functions_mutex_);
  uint64_t total = 0;
  std::vector<uint64_t> idle;
  for (const auto& [id, entry] : functions_) {
    if (entry.functions.use_count() == 1) {
      total += entry.functions->bytes();
      idle.push_back(id);
    } else if (const std::shared_lock functions_lock(entry.functions->mutex, std::try_to_lock);
               functions_lock.owns_lock()) {
      total += entry.functions->bytes();  // being read
    }
  }
  if (total <= most_bytes) return;
  std::sort(idle.begin(), idle.end());
  std::shuffle(idle.begin(), idle.end(), trim_order_);
  for (const uint64_t id : idle) {
    if (total <= most_bytes) break;
    total -= functions_.at(id).functions->bytes();
    functions_.erase(id);
  }
}

RetentionTable::Cutoffs StoreBase::CutoffsOf(TenantId tenant) const {
  const std::lock_guard lock(state_mutex_);
  return tenant < cutoffs_.size() ? cutoffs_[tenant] : RetentionTable::Cutoffs{};
}

}  // namespace pyrometer::store

#include "userspace/store/tenants.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/store/chunk.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

// A burst of this many seconds' worth passes without waiting.
constexpr double kBurstSeconds = 2;
// Longest wait of one batch; beyond it the stream ends and the agent's spool takes over.
constexpr double kMaxWaitSeconds = 5;
// Batches of one tenant that wait at a time: each holds a thread that other tenants' batches need.
constexpr int kMaxWaiting = 4;

}  // namespace

bool IsTenantName(std::string_view name) {
  if (name.size() > kMaxTenantNameBytes) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!-_.*'()").find(c) != std::string_view::npos;
  });
}

void TenantUsage::Plus(const TenantUsage& more) {
  series += more.series;
  nodes += more.nodes;
  frames += more.frames;
  name_bytes += more.name_bytes;
  samples += more.samples;
  folded_samples += more.folded_samples;
  folded_points += more.folded_points;
}

void TenantUsage::Minus(const TenantUsage& less) {
  series -= std::min(series, less.series);
  nodes -= std::min(nodes, less.nodes);
  frames -= std::min(frames, less.frames);
  name_bytes -= std::min(name_bytes, less.name_bytes);
  samples -= std::min(samples, less.samples);
  folded_samples -= std::min(folded_samples, less.folded_samples);
  folded_points -= std::min(folded_points, less.folded_points);
}

std::string TenantKey(TenantId id) {
  std::string key = "T";
  PutBigEndian32(id, &key);
  return key;
}

std::string EncodeTenant(const TenantRecord& record) {
  std::string out;
  PutString(record.name, &out);
  const TenantUsage& usage = record.usage;
  for (const uint64_t number : {usage.series, usage.nodes, usage.frames, usage.name_bytes, usage.samples,
                                usage.folded_samples, usage.folded_points, uint64_t{record.kept_since_hour}}) {
    PutVarint(number, &out);
  }
  return out;
}

StatusOr<TenantRecord> DecodeTenant(std::string_view bytes) {
  Decoder in(bytes);
  TenantRecord record;
  record.name = in.String();
  TenantUsage& usage = record.usage;
  for (uint64_t* number : {&usage.series, &usage.nodes, &usage.frames, &usage.name_bytes, &usage.samples,
                           &usage.folded_samples, &usage.folded_points}) {
    *number = in.Varint();
  }
  record.kept_since_hour = in.Varint32();
  if (!in.ok() || !in.done()) return DataLossError("damaged record of a tenant");
  return record;
}

TenantTable::TenantTable(const StoreOptions& options) : options_(options), states_(1) { Load(kDefaultTenant, {}); }

void TenantTable::Load(TenantId id, TenantRecord record) {
  const std::lock_guard lock(mutex_);
  if (states_.size() <= id) states_.resize(id + 1);
  auto state = std::make_unique<State>();
  const auto own = options_.tenant_limits.find(record.name);
  state->limits = own == options_.tenant_limits.end() ? options_.limits : own->second;
  ids_[record.name] = id;
  state->record = std::move(record);
  states_[id] = std::move(state);
}

TenantId TenantTable::Find(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = ids_.find(name);
  return found == ids_.end() ? 0 : found->second;
}

StatusOr<TenantId> TenantTable::FindOrAdd(std::string_view name) {
  TenantId id = Find(name);
  if (id != 0) return id;
  if (!IsTenantName(name)) {
    return InvalidArgumentError(StrFormat("'%s' is no tenant name: at most %d letters, digits and !-_.*'()",
                                          ToUtf8(name), kMaxTenantNameBytes));
  }
  {
    const std::lock_guard lock(mutex_);
    if (states_.size() > options_.max_tenants) {
      return ResourceExhaustedError(
          StrFormat("the store has %s tenants, its limit; tenant %s is not among them: raise it "
                    "with --max-tenants",
                    FormatCount(options_.max_tenants), name));
    }
    id = static_cast<TenantId>(states_.size());
  }
  Load(id, {.name = std::string(name)});
  return id;
}

std::string TenantTable::Name(TenantId id) const {
  const std::lock_guard lock(mutex_);
  return states_[id]->record.name;
}

const TenantLimits& TenantTable::Limits(TenantId id) const {
  const std::lock_guard lock(mutex_);
  return states_[id]->limits;  // does not change, nor move
}

TenantUsage TenantTable::Usage(TenantId id) const {
  const std::lock_guard lock(mutex_);
  return states_[id]->record.usage;
}

uint64_t TenantTable::NodesOfDay(TenantId id) const {
  const int64_t today = Today();
  const std::lock_guard lock(mutex_);
  return states_[id]->day == today ? states_[id]->day_nodes : 0;
}

size_t TenantTable::size() const {
  const std::lock_guard lock(mutex_);
  return states_.size() - 1;
}

std::vector<TenantInfo> TenantTable::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<TenantInfo> result;
  for (size_t id = 1; id < states_.size(); ++id) {
    const State& state = *states_[id];
    const TenantUsage& usage = state.record.usage;
    TenantInfo info{.tenant = state.record.name,
                    .series = usage.series,
                    .nodes = usage.nodes,
                    .frames = usage.frames,
                    .samples = usage.samples,
                    .folded_samples = usage.folded_samples,
                    .folded_series = usage.folded_points,
                    .throttled = state.throttled,
                    .kept_since_ns = HourStart(state.record.kept_since_hour)};
    for (const auto& [hour, bytes] : state.bytes) info.bytes += static_cast<uint64_t>(std::max<int64_t>(bytes, 0));
    result.push_back(std::move(info));
  }
  std::sort(result.begin(), result.end(), [](const TenantInfo& a, const TenantInfo& b) { return a.tenant < b.tenant; });
  return result;
}

void TenantTable::AddUsage(TenantId id, const TenantUsage& more) {
  const int64_t today = Today();
  const std::lock_guard lock(mutex_);
  State& state = *states_[id];
  state.record.usage.Plus(more);
  if (more.nodes == 0) return;
  if (state.day != today) state.day_nodes = 0;
  state.day = today;
  state.day_nodes += more.nodes;
}

void TenantTable::TakeUsage(TenantId id, const TenantUsage& less) {
  const std::lock_guard lock(mutex_);
  State& state = *states_[id];
  state.record.usage.Minus(less);
  state.day_nodes -= std::min(state.day_nodes, less.nodes);
}

TenantRecord TenantTable::Record(TenantId id) const {
  const std::lock_guard lock(mutex_);
  return states_[id]->record;
}

void TenantTable::SetKeptSince(TenantId id, uint32_t hour) {
  const std::lock_guard lock(mutex_);
  states_[id]->record.kept_since_hour = hour;
}

void TenantTable::Pay(State* state, uint64_t now_ns) {
  const auto rate = static_cast<double>(state->limits.max_bytes_per_s);
  const double paid = rate * static_cast<double>(now_ns - state->debt_at_ns) / static_cast<double>(kNsPerSecond);
  state->debt_bytes = std::max(-rate * kBurstSeconds, state->debt_bytes - paid);
  state->debt_at_ns = now_ns;
}

Status TenantTable::AwaitRate(TenantId id) {
  double wait_s = 0;
  {
    const std::lock_guard lock(mutex_);
    State& state = *states_[id];
    if (state.limits.max_bytes_per_s == 0) return OkStatus();
    Pay(&state, MonotonicNowNs());
    if (state.debt_bytes <= 0) return OkStatus();
    ++state.throttled;
    wait_s = state.debt_bytes / static_cast<double>(state.limits.max_bytes_per_s);
    if (wait_s > kMaxWaitSeconds || state.waiting >= kMaxWaiting) {
      return ResourceExhaustedError(StrFormat(
          "tenant '%s' sends more than its limit of %s a second (%s above it now): the agents keep their batches "
          "and come back; raise it with --max-rate",
          state.record.name, FormatBytes(state.limits.max_bytes_per_s),
          FormatBytes(static_cast<uint64_t>(state.debt_bytes))));
    }
    ++state.waiting;
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(wait_s));
  const std::lock_guard lock(mutex_);
  --states_[id]->waiting;
  return OkStatus();
}

void TenantTable::ChargeRate(TenantId id, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  State& state = *states_[id];
  if (state.limits.max_bytes_per_s == 0) return;
  Pay(&state, MonotonicNowNs());
  state.debt_bytes += static_cast<double>(bytes);
}

void TenantTable::AddBytes(TenantId id, uint32_t hour, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  states_[id]->bytes[hour] += bytes;
}

std::map<uint32_t, int64_t> TenantTable::Bytes(TenantId id) const {
  const std::lock_guard lock(mutex_);
  return states_[id]->bytes;
}

int64_t TenantTable::BytesOf(TenantId id, uint32_t hour) const {
  const std::lock_guard lock(mutex_);
  const auto& bytes = states_[id]->bytes;
  const auto found = bytes.find(hour);
  return found == bytes.end() ? 0 : found->second;
}

uint32_t TenantTable::KeptForBytes(TenantId id, uint32_t since) const {
  const std::lock_guard lock(mutex_);
  const State& state = *states_[id];
  if (state.limits.retention_bytes == 0) return since;
  const auto bytes_of = [](int64_t bytes) { return static_cast<uint64_t>(std::max<int64_t>(bytes, 0)); };
  uint64_t total = 0;
  for (auto at = state.bytes.lower_bound(since); at != state.bytes.end(); ++at) total += bytes_of(at->second);
  uint32_t kept = since;
  for (auto at = state.bytes.lower_bound(since); at != state.bytes.end(); ++at) {
    if (total <= state.limits.retention_bytes || std::next(at) == state.bytes.end()) break;
    total -= bytes_of(at->second);
    kept = at->first + 1;
  }
  return kept;
}

void TenantTable::ForgetBytes(TenantId id, uint32_t before_hour) {
  const std::lock_guard lock(mutex_);
  auto& bytes = states_[id]->bytes;
  bytes.erase(bytes.begin(), bytes.lower_bound(before_hour));
}

}  // namespace pyrometer::store

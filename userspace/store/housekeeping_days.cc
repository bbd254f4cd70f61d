// Sums of days, histories of functions whose names came late, and what is let go by age and by bytes.
#include <rocksdb/convenience.h>

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/function_index.h"
#include "userspace/store/housekeeping.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

// A day gets its sums this long after it ended.
constexpr int64_t kDayGraceNs = 2 * kHourNs;
// Series looked at while appends wait.
constexpr size_t kRemovalPiece = 256;

}  // namespace

// ---- days -------------------------------------------------------------------------------------------------

Status Housekeeper::SumDays() {
  std::vector<std::pair<uint32_t, TrieId>> due;
  RETURN_IF_ERROR(
      database_.Scan(Family::kMeta, "Y", "Z", [&](std::string_view key, std::string_view) -> StatusOr<bool> {
        Decoder in(key.substr(1));
        const uint32_t day = in.BigEndian32();
        const TrieId trie = in.BigEndian32();
        if (!in.ok() || !in.done()) return DataLossError("damaged key of a day");
        if (HourStart(day + kHoursPerDay) + kDayGraceNs > now_ns_) return true;
        const std::lock_guard lock(store_.commit_mutex_);
        for (auto fresh = store_.fresh_.lower_bound({day, 0});
             fresh != store_.fresh_.end() && fresh->first.first < day + kHoursPerDay; ++fresh) {
          if (fresh->first.second == trie) return true;  // hours first
        }
        due.emplace_back(day, trie);
        return true;
      }));
  for (const auto& [day, trie] : due) {
    if (TimeIsUp()) {
      result_.more = true;
      return OkStatus();
    }
    RETURN_IF_ERROR(SumDay(day, trie));
    ++result_.days;
  }
  return OkStatus();
}

Status Housekeeper::SumDay(uint32_t day, TrieId trie) {
  rocksdb::WriteBatch batch;
  const std::string prefix = LetterKey(kHourLetter, {trie});
  const auto it = database_.NewIterator(Family::kRollups);
  GroupId group = 0;
  Rollup sum, one;
  const auto finish = [&]() -> Status {
    if (sum.header.points == 0) return OkStatus();
    const Status put = Put(&batch, Family::kRollups, EncodeGroupKey({kDayLetter, trie, group, day}), EncodeRollup(sum));
    sum = {};
    return put;
  };
  it->Seek(prefix);
  while (it->Valid() && ToView(it->key()).starts_with(prefix)) {
    ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(ToView(it->key())));
    if (key.group != group) {
      RETURN_IF_ERROR(finish());
      group = key.group;
    }
    if (key.hour < day) {
      it->Seek(EncodeGroupKey({kHourLetter, trie, group, day}));
    } else if (key.hour >= day + kHoursPerDay) {
      it->Seek(PrefixEnd(LetterKey(kHourLetter, {trie, group})));
    } else {
      RETURN_IF_ERROR(DecodeRollup(ToView(it->value()), &one));
      const auto shift = static_cast<uint64_t>(HourStart(key.hour) - HourStart(day));
      one.header.first_offset_ns += shift;
      one.header.end_offset_ns += shift;
      MergeRollup(one, &sum);
      it->Next();
    }
  }
  RETURN_IF_ERROR(database_.FromRocks(it->status(), "reading rollups"));
  RETURN_IF_ERROR(finish());
  RETURN_IF_ERROR(Delete(&batch, Family::kMeta, LetterKey('Y', {day, trie})));
  RETURN_IF_ERROR(Put(&batch, Family::kMeta, LetterKey('y', {day, trie}), ""));
  return database_.Write(&batch, false);
}

// ---- histories of functions -------------------------------------------------------------------------------

Status Housekeeper::RedoFunctions() {
  ASSIGN_OR_RETURN(const auto late, store_.ReadLateFrames());
  // Names come late in bursts, when an agent first sees a binary's symbols: together they are one pass.
  if (late.keys.empty() || TimeIsUp() || now_ns_ < store_.next_redo_ns_) {
    result_.more = result_.more || (!late.keys.empty() && now_ns_ >= store_.next_redo_ns_);
    return OkStatus();
  }
  RETURN_IF_ERROR(store_.ForTriesThatShow(late.frames, [&](TrieId trie) { return RedoFunctionsOf(trie); }));
  rocksdb::WriteBatch batch;
  for (const std::string& key : late.keys) RETURN_IF_ERROR(Delete(&batch, Family::kMeta, key));
  store_.next_redo_ns_ = now_ns_ + static_cast<int64_t>(kHourGraceNs);
  return database_.Write(&batch, false);
}

Status Housekeeper::RedoFunctionsOf(TrieId trie) {
  // What is there, to delete what will not be written again.
  std::set<std::string> stale;
  const std::string prefix = NumbersKey({trie});
  RETURN_IF_ERROR(database_.Scan(Family::kFunctions, prefix, PrefixEnd(prefix),
                                 [&](std::string_view key, std::string_view) -> StatusOr<bool> {
                                   stale.emplace(key);
                                   return true;
                                 }));
  // Groups, and the days that they have sums of.
  std::set<uint32_t> days;
  std::vector<GroupId> groups;
  const std::string rollups = LetterKey(kHourLetter, {trie});
  const auto it = database_.NewIterator(Family::kRollups);
  for (it->Seek(rollups); it->Valid() && ToView(it->key()).starts_with(rollups);) {
    ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(ToView(it->key())));
    if (groups.empty() || groups.back() != key.group) groups.push_back(key.group);
    days.insert(key.hour / kHoursPerDay);
    it->Seek(EncodeGroupKey({kHourLetter, trie, key.group, (key.hour / kHoursPerDay + 1) * kHoursPerDay}));
  }
  RETURN_IF_ERROR(database_.FromRocks(it->status(), "reading rollups"));
  ASSIGN_OR_RETURN(const auto kinds, KindsOf(groups));
  ASSIGN_OR_RETURN(const std::shared_ptr<FunctionTrie> functions, store_.Functions(trie));
  for (const uint32_t day : days) {
    rocksdb::WriteBatch batch;
    std::map<std::pair<NameId, uint32_t>, Rollup> sums;  // by type and hour
    for (const GroupId group : groups) {
      if (kinds.at(group).session) continue;
      Rollup one;
      for (it->Seek(EncodeGroupKey({kHourLetter, trie, group, day * kHoursPerDay})); it->Valid(); it->Next()) {
        if (!ToView(it->key()).starts_with(rollups)) break;
        ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(ToView(it->key())));
        if (key.group != group || key.hour / kHoursPerDay != day) break;
        RETURN_IF_ERROR(DecodeRollup(ToView(it->value()), &one));
        MergeRollup(one, &sums[{kinds.at(group).type, key.hour}]);
      }
      RETURN_IF_ERROR(database_.FromRocks(it->status(), "reading rollups"));
    }
    std::map<std::string, std::string> entries;
    {
      const std::shared_lock lock(functions->mutex);
      for (const auto& [place, sum] : sums) {
        ASSIGN_OR_RETURN(const auto costs, SumFunctions(*functions, sum.rows));
        for (const auto& [name, cost] : costs) {
          AppendFunctionEntry({static_cast<uint8_t>(place.second % kHoursPerDay), cost.self, cost.total},
                              &entries[FunctionKey(trie, place.first, name, day)]);
        }
      }
    }
    for (const auto& [key, value] : entries) {
      RETURN_IF_ERROR(Put(&batch, Family::kFunctions, key, value));
      stale.erase(key);
    }
    RETURN_IF_ERROR(database_.Write(&batch, false));
  }
  rocksdb::WriteBatch batch;
  for (const std::string& key : stale) RETURN_IF_ERROR(Delete(&batch, Family::kFunctions, key));
  ++result_.functions;
  return database_.Write(&batch, false);
}

// ---- retention --------------------------------------------------------------------------------------------

Status Housekeeper::UpdateCutoffs() {
  const size_t tenants = store_.tenants_.size();
  std::vector<RetentionTable::Cutoffs> cutoffs(tenants + 1);
  rocksdb::WriteBatch batch;
  const std::lock_guard commit_lock(store_.commit_mutex_);
  result_.kept_since_ns = std::numeric_limits<int64_t>::max();
  for (TenantId tenant = 1; tenant <= tenants; ++tenant) {
    const TenantLimits& limits = store_.tenants_.Limits(tenant);
    const auto hour_before = [&](uint64_t age_ns) -> uint32_t {
      if (age_ns == 0 || age_ns >= static_cast<uint64_t>(now_ns_)) return 0;
      return HourOf(now_ns_ - static_cast<int64_t>(age_ns));
    };
    RetentionTable::Cutoffs& cutoff = cutoffs[tenant];
    cutoff.windows = std::max(hour_before(limits.retention_ns), store_.tenants_.Record(tenant).kept_since_hour);
    if (const uint32_t kept = store_.tenants_.KeptForBytes(tenant, cutoff.windows); kept > cutoff.windows) {
      store_.tenants_.SetKeptSince(tenant, kept);
      RETURN_IF_ERROR(Put(&batch, Family::kMeta, TenantKey(tenant), EncodeTenant(store_.tenants_.Record(tenant))));
      cutoff.windows = kept;
    }
    store_.tenants_.ForgetBytes(tenant, cutoff.windows);
    const uint32_t rollups = hour_before(limits.rollup_retention_ns);
    cutoff.rollups = std::min(cutoff.windows, rollups / kHoursPerDay * kHoursPerDay);
    cutoff.offsets = std::max(cutoff.windows, hour_before(limits.offsets_retention_ns));
    result_.kept_since_ns = std::min(result_.kept_since_ns, HourStart(cutoff.windows));
  }
  if (batch.Count() > 0) RETURN_IF_ERROR(database_.Write(&batch, false));
  {
    const std::lock_guard state_lock(store_.state_mutex_);
    // A clock that was set back must not bring anything back that is half gone.
    for (size_t i = 0; i < store_.cutoffs_.size() && i < cutoffs.size(); ++i) {
      cutoffs[i].windows = std::max(cutoffs[i].windows, store_.cutoffs_[i].windows);
      cutoffs[i].offsets = std::max(cutoffs[i].offsets, store_.cutoffs_[i].offsets);
      cutoffs[i].rollups = std::max(cutoffs[i].rollups, store_.cutoffs_[i].rollups);
    }
    store_.cutoffs_ = std::move(cutoffs);
  }
  store_.PublishRetention();
  return OkStatus();
}

Status Housekeeper::DropOld() {
  uint32_t oldest = UINT32_MAX;  // what everybody has given up
  {
    const std::lock_guard lock(store_.state_mutex_);
    for (size_t tenant = 1; tenant < store_.cutoffs_.size(); ++tenant) {
      oldest = std::min(oldest, store_.cutoffs_[tenant].windows);
    }
    if (oldest == store_.dropped_before_hour_ || oldest == UINT32_MAX) return OkStatus();
  }
  // Whole files at once; what is left in the others goes when they are rewritten.
  const std::string begin_key, end_key = NumbersKey({oldest});
  const rocksdb::Slice begin(begin_key), end(end_key);
  for (const Family family : {Family::kWindows, Family::kCells, Family::kOffsets}) {
    RETURN_IF_ERROR(database_.FromRocks(
        rocksdb::DeleteFilesInRange(database_.rocks(), database_.family(family), &begin, &end, false), "trimming"));
  }
  {
    const std::lock_guard lock(store_.commit_mutex_);
    rocksdb::WriteBatch batch;
    for (auto fresh = store_.fresh_.begin(); fresh != store_.fresh_.end() && fresh->first.first < oldest;) {
      store_.fresh_points_ -= std::min(store_.fresh_points_, fresh->second.points);
      RETURN_IF_ERROR(Delete(&batch, Family::kMeta, FreshKey(fresh->first.first, fresh->first.second)));
      fresh = store_.fresh_.erase(fresh);
    }
    RETURN_IF_ERROR(database_.FromRocks(
        batch.DeleteRange(database_.family(Family::kMeta), LetterKey('H', {0}), LetterKey('H', {oldest})), "trimming"));
    RETURN_IF_ERROR(database_.Write(&batch, false));
    const std::lock_guard state_lock(store_.state_mutex_);
    store_.durable_fresh_points_ = store_.fresh_points_;
    store_.dropped_before_hour_ = oldest;
  }
  return RemoveSeries();
}

Status Housekeeper::RemoveSeries() {
  const auto is_empty = [this](rocksdb::Iterator* it, const Series& one, uint32_t cutoff) {
    it->Seek(EncodePointKey({one.trie, one.id, cutoff, 0}));
    return !it->Valid() || !ToView(it->key()).starts_with(LetterKey(kSeriesLetter, {one.trie, one.id}));
  };
  ASSIGN_OR_RETURN(const std::vector<SeriesId> ids, store_.series_reader_.AllIds(SeriesKind::kSeries));
  for (size_t begin = 0; begin < ids.size(); begin += kRemovalPiece) {
    const std::vector<SeriesId> piece(
        ids.begin() + static_cast<ptrdiff_t>(begin),
        ids.begin() + static_cast<ptrdiff_t>(std::min(ids.size(), begin + kRemovalPiece)));
    ASSIGN_OR_RETURN(const auto series, store_.series_reader_.Load(SeriesKind::kSeries, piece));
    const auto look = [&](std::vector<SeriesId>* empty) -> Status {
      const auto it = database_.NewIterator(Family::kTotals);
      for (const auto& one : series) {
        if (one == nullptr) continue;
        const uint32_t cutoff = store_.CutoffsOf(store_.TenantOf(one->trie)).windows;
        if (cutoff != 0 && is_empty(it.get(), *one, cutoff)) empty->push_back(one->id);
      }
      return database_.FromRocks(it->status(), "trimming");
    };
    std::vector<SeriesId> empty;
    RETURN_IF_ERROR(look(&empty));
    if (empty.empty()) continue;
    // Once more while nobody can add: a batch may have brought it back to life. Streams that know it must forget it.
    const std::lock_guard commit_lock(store_.commit_mutex_);
    const std::lock_guard lock(store_.definitions_.mutex);
    empty.clear();
    RETURN_IF_ERROR(look(&empty));
    rocksdb::WriteBatch batch;
    std::map<TenantId, TenantUsage> removed;
    for (const SeriesId id : empty) {
      TenantId tenant = 0;
      RETURN_IF_ERROR(store_.definitions_.series.Remove(SeriesKind::kSeries, id, &batch, &tenant));
      if (tenant != 0) ++removed[tenant].series;
    }
    for (const auto& [tenant, usage] : removed) {
      store_.tenants_.TakeUsage(tenant, usage);
      RETURN_IF_ERROR(Put(&batch, Family::kMeta, TenantKey(tenant), EncodeTenant(store_.tenants_.Record(tenant))));
    }
    const Status written = database_.Write(&batch, false);
    store_.definitions_.epoch.fetch_add(1);
    if (!written.ok()) {
      store_.definitions_.series.Forget();
      for (const auto& [tenant, usage] : removed) store_.tenants_.AddUsage(tenant, usage);
      return written;
    }
    for (const SeriesId id : empty) store_.series_reader_.Erase(SeriesKind::kSeries, id);
    result_.series_removed += empty.size();
  }
  return OkStatus();
}

}  // namespace pyrometer::store

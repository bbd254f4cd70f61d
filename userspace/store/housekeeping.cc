#include "userspace/store/housekeeping.h"

#include <rocksdb/convenience.h>

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/function_index.h"
#include "userspace/store/hour_builder.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

// An hour is left alone while points for it keep coming (an agent that empties its spool).
constexpr int64_t kQuietNs = 60 * static_cast<int64_t>(kNsPerSecond);
// A day gets its sums this long after it ended.
constexpr int64_t kDayGraceNs = 2 * kHourNs;
// Rows that one atomic piece turns into cells: 100 MB while it works.
constexpr size_t kMaxPieceRows = 4u << 20;
// Series whose totals and histograms one atomic piece rewrites.
constexpr size_t kMaxPieceSeries = 2048;
// A trie is packed when it has this many fresh records, or this share of its nodes is in fresh ones.
constexpr size_t kFreshRecords = 32;
constexpr uint64_t kFreshShare = 8;
// A dense record takes in the one before it when that is at most this much larger: so each node is rewritten a
// logarithmic number of times.
constexpr uint64_t kAbsorbFactor = 4;
constexpr uint64_t kMaxDenseNodes = 4u << 20;
// Series looked at while appends wait.
constexpr size_t kRemovalPiece = 256;

}  // namespace

Housekeeper::Housekeeper(EmbeddedStore* store, int64_t now_ns, uint64_t budget_ns)
    : store_(*store), database_(*store->database_), now_ns_(now_ns), end_ns_(MonotonicNowNs() + budget_ns) {}

bool Housekeeper::TimeIsUp() const { return MonotonicNowNs() >= end_ns_; }

Status Housekeeper::Put(rocksdb::WriteBatch* batch, Family family, const std::string& key, std::string_view value) {
  return database_.FromRocks(batch->Put(database_.family(family), key, ToSlice(value)), "writing");
}
Status Housekeeper::Delete(rocksdb::WriteBatch* batch, Family family, const std::string& key) {
  return database_.FromRocks(batch->Delete(database_.family(family), key), "writing");
}

StatusOr<HousekeepingResult> Housekeeper::Run() {
  RETURN_IF_ERROR(UpdateCutoffs());
  RETURN_IF_ERROR(TakeUpHours());
  RETURN_IF_ERROR(PackTries());
  RETURN_IF_ERROR(SumDays());
  RETURN_IF_ERROR(RedoFunctions());
  RETURN_IF_ERROR(DropOld());
  uint32_t until = HourOf(std::max<int64_t>(0, now_ns_ - static_cast<int64_t>(kHourGraceNs)));
  {
    const std::lock_guard lock(store_.commit_mutex_);
    if (!store_.fresh_.empty()) until = std::min(until, store_.fresh_.begin()->first.first);
    store_.counters_.housekept_until_hour = until;
    const std::lock_guard state_lock(store_.state_mutex_);
    store_.durable_counters_.housekept_until_hour = until;
  }
  return result_;
}

// ---- tries ------------------------------------------------------------------------------------------------

Status Housekeeper::PackTries() {
  for (;;) {
    if (TimeIsUp()) {
      const std::lock_guard lock(store_.commit_mutex_);
      result_.more = result_.more || !store_.grown_tries_.empty();
      return OkStatus();
    }
    TrieId trie = 0;
    {
      const std::lock_guard lock(store_.commit_mutex_);
      if (store_.grown_tries_.empty()) return OkStatus();
      trie = *store_.grown_tries_.begin();
      store_.grown_tries_.erase(store_.grown_tries_.begin());
    }
    ASSIGN_OR_RETURN(const bool packed, PackTrie(trie));
    if (packed) ++result_.tries_packed;
  }
}

StatusOr<bool> Housekeeper::PackTrie(TrieId trie_id) {
  struct Record {
    std::string key;
    TrieSpan begin;
    bool fresh;
  };
  const std::shared_ptr<ReadView> view = database_.NewView();
  std::vector<Record> records;
  StackTrie trie;
  std::vector<TrieSpan> ends;
  const std::string prefix = LetterKey('n', {trie_id});
  const Status scanned = database_.Scan(
      Family::kTries, prefix, PrefixEnd(prefix),
      [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        Decoder in(key.substr(prefix.size()));
        Record record{.key = std::string(key), .fresh = !value.empty() && value.front() == 0};
        record.begin.first_node = in.BigEndian32();
        record.begin.first_leaf = in.BigEndian32();
        if (!in.ok() || !in.done()) return DataLossError("damaged stack trie: key");
        RETURN_IF_ERROR(trie.Load(record.begin, value));
        records.push_back(std::move(record));
        ends.push_back(trie.end());
        return true;
      },
      view.get());
  RETURN_IF_ERROR(scanned);
  uint64_t fresh_nodes = 0;
  size_t fresh_records = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    if (!records[i].fresh) continue;
    ++fresh_records;
    fresh_nodes += ends[i].first_node - records[i].begin.first_node;
  }
  if (fresh_records == 0 || (fresh_records < kFreshRecords && fresh_nodes * kFreshShare < trie.size())) return false;

  // From the end: all fresh records, and dense ones before them that are not much larger.
  size_t first = records.size() - 1;
  const auto nodes_of = [&](size_t i) { return uint64_t{ends[i].first_node} - records[i].begin.first_node; };
  uint64_t nodes = nodes_of(first);
  while (first > 0) {
    const size_t before = first - 1;
    // Ids of a write that failed lie between: a record cannot span them.
    if (ends[before] != records[first].begin) break;
    if (!records[before].fresh && nodes_of(before) > nodes * kAbsorbFactor) break;
    if (nodes + nodes_of(before) > kMaxDenseNodes && !records[before].fresh) break;
    nodes += nodes_of(before);
    first = before;
  }
  rocksdb::WriteBatch batch;
  for (size_t i = first; i < records.size(); ++i) RETURN_IF_ERROR(Delete(&batch, Family::kTries, records[i].key));
  RETURN_IF_ERROR(Put(&batch, Family::kTries, records[first].key, trie.EncodeDense(records[first].begin, ends.back())));
  RETURN_IF_ERROR(database_.Write(&batch, false));
  return true;
}

// ---- hours ------------------------------------------------------------------------------------------------

struct Housekeeper::Hour {
  Hour(uint32_t hour_number, TrieId trie_id, std::shared_ptr<ReadView> read_view)
      : hour(hour_number), trie(trie_id), view(std::move(read_view)) {}

  const uint32_t hour;
  const TrieId trie;
  const std::shared_ptr<ReadView> view;
  // Of the piece at hand.
  rocksdb::WriteBatch batch;
  std::map<GroupId, Rollup> rollups;
  std::map<GroupId, GroupTotal> totals;
  std::map<GroupId, HistogramChunk> histograms;
  uint64_t points = 0;       // taken up
  uint64_t fresh_bytes = 0;  // of what was taken up
  int64_t dense_bytes = 0;   // more than before
};

Status Housekeeper::TakeUpHours() {
  std::vector<std::pair<std::pair<uint32_t, TrieId>, FreshRecord>> due;
  {
    const std::lock_guard lock(store_.commit_mutex_);
    for (const auto& [place, fresh] : store_.fresh_) {
      if (HourStart(place.first) + kHourNs + static_cast<int64_t>(kHourGraceNs) > now_ns_) continue;
      if (now_ns_ - fresh.arrived_ns < kQuietNs && now_ns_ >= fresh.arrived_ns) continue;
      due.emplace_back(place, fresh);
    }
  }
  std::set<uint32_t> touched;
  for (const auto& [place, fresh] : due) {
    if (TimeIsUp()) {
      result_.more = true;
      break;
    }
    RETURN_IF_ERROR(TakeUp(place.first, place.second, fresh));
    touched.insert(place.first);
    ++result_.hours;
  }
  // The windows that were taken up leave their space only when their files are rewritten.
  for (const uint32_t hour : touched) {
    const std::lock_guard lock(store_.commit_mutex_);
    const auto left = store_.fresh_.lower_bound({hour, 0});
    if (left == store_.fresh_.end() || left->first.first != hour) store_.hours_to_compact_.insert(hour);
  }
  while (!TimeIsUp()) {
    uint32_t hour = 0;
    {
      const std::lock_guard lock(store_.commit_mutex_);
      if (store_.hours_to_compact_.empty()) return OkStatus();
      hour = *store_.hours_to_compact_.begin();
      store_.hours_to_compact_.erase(store_.hours_to_compact_.begin());
    }
    RETURN_IF_ERROR(database_.Compact(Family::kWindows, NumbersKey({hour}), NumbersKey({hour + 1})));
  }
  return OkStatus();
}

Status Housekeeper::TakeUp(uint32_t hour_number, TrieId trie, const FreshRecord& before) {
  Hour hour(hour_number, trie, database_.NewView());
  const TenantId tenant = store_.TenantOf(trie);
  // A piece is written together with what it changes in common records.
  const auto write = [&]() -> Status {
    const std::lock_guard lock(store_.commit_mutex_);
    const auto place = std::pair(hour_number, trie);
    FreshRecord fresh = store_.fresh_.contains(place) ? store_.fresh_.at(place) : before;
    fresh.points -= std::min(fresh.points, hour.points);
    fresh.bytes -= std::min(fresh.bytes, hour.fresh_bytes);
    if (fresh.points == 0) {
      RETURN_IF_ERROR(Delete(&hour.batch, Family::kMeta, FreshKey(hour_number, trie)));
    } else {
      RETURN_IF_ERROR(Put(&hour.batch, Family::kMeta, FreshKey(hour_number, trie), EncodeFresh(fresh)));
    }
    std::string bytes;
    uint64_t dense = 0;
    ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kMeta, DenseKey(hour_number, trie), &bytes));
    if (there) dense = Decoder(bytes).Varint();
    dense = static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(dense) + hour.dense_bytes));
    std::string dense_value;
    PutVarint(dense, &dense_value);
    RETURN_IF_ERROR(Put(&hour.batch, Family::kMeta, DenseKey(hour_number, trie), dense_value));
    {
      // The blocks of cells took ordinals: never to be given out again, also when no batch comes before the next start.
      const std::lock_guard definitions_lock(store_.definitions_.mutex);
      RETURN_IF_ERROR(Put(&hour.batch, Family::kMeta, kCountersKey, EncodeCounters(store_.CountersNow())));
    }
    RETURN_IF_ERROR(database_.Write(&hour.batch, false));
    store_.fresh_points_ -= std::min(store_.fresh_points_, hour.points);
    if (fresh.points == 0) {
      store_.fresh_.erase(place);
    } else {
      store_.fresh_[place] = fresh;
    }
    if (tenant != 0) {
      store_.tenants_.AddBytes(tenant, hour_number, hour.dense_bytes - static_cast<int64_t>(hour.fresh_bytes));
    }
    {
      const std::lock_guard state_lock(store_.state_mutex_);
      store_.durable_fresh_points_ = store_.fresh_points_;
    }
    hour.batch.Clear();
    hour.rollups.clear();
    hour.totals.clear();
    hour.histograms.clear();
    hour.points = hour.fresh_bytes = 0;
    hour.dense_bytes = 0;
    return OkStatus();
  };
  hour.batch.Clear();
  RETURN_IF_ERROR(ReadWindows(&hour, write));
  RETURN_IF_ERROR(ReadPoints(Family::kHistograms, &hour, write));
  return ReadPoints(Family::kTotals, &hour, write);
}

Status Housekeeper::ReadWindows(Hour* hour, const std::function<Status()>& write) {
  size_t leaf_count = 0;
  {
    ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, store_.tries_.Get(hour->trie));
    const std::shared_lock lock(trie->mutex);
    leaf_count = trie->leaf_count();
  }
  const std::string prefix = NumbersKey({hour->hour, hour->trie});
  const auto it = database_.NewIterator(Family::kWindows, hour->view.get(), true);
  auto builder = std::make_unique<HourBuilder>(leaf_count);
  const auto finish = [&]() -> Status {
    if (builder->rows() == 0) return OkStatus();
    HourBuilder::Result made = builder->Build();
    builder = std::make_unique<HourBuilder>(leaf_count);
    result_.rows += made.rows;
    for (const std::string& block : made.blocks) {
      const uint64_t ordinal = store_.next_ordinal_.fetch_add(1);
      RETURN_IF_ERROR(Put(&hour->batch, Family::kCells, EncodeCellsKey({hour->hour, hour->trie, ordinal}), block));
      hour->dense_bytes += static_cast<int64_t>(block.size());
    }
    hour->rollups = std::move(made.groups);
    RETURN_IF_ERROR(PutRollups(hour));
    RETURN_IF_ERROR(PutFunctions(hour));
    return write();
  };
  std::vector<StackSum> rows;
  WindowHeader header;
  SeriesId series = 0;
  GroupId group = 0;
  for (it->Seek(prefix); it->Valid() && ToView(it->key()).starts_with(prefix); it->Next()) {
    ASSIGN_OR_RETURN(const WindowKey key, DecodeWindowKey(ToView(it->key())));
    if (key.series != series) {
      ASSIGN_OR_RETURN(const auto loaded, store_.series_reader_.Load(SeriesKind::kSeries, {key.series}));
      series = key.series;
      // Let go meanwhile? Then its windows are too old to be asked for.
      group = loaded.front() == nullptr ? 0 : loaded.front()->group;
    }
    RETURN_IF_ERROR(DecodeWindowChunk(ToView(it->value()), &header, &rows));
    uint64_t samples = 0;
    for (const StackSum& row : rows) samples = SaturatingAdd(samples, row.count);
    if (rows.size() > kMaxBlockRows || samples > kMaxWindowCount) continue;  // stays as it is
    RETURN_IF_ERROR(Delete(&hour->batch, Family::kWindows, it->key().ToString()));
    hour->fresh_bytes += it->value().size();
    if (group == 0) continue;
    RETURN_IF_ERROR(builder->Add(key.series, group, header, rows));
    if (builder->rows() >= kMaxPieceRows) RETURN_IF_ERROR(finish());
  }
  RETURN_IF_ERROR(database_.FromRocks(it->status(), "reading windows"));
  RETURN_IF_ERROR(finish());
  return hour->batch.Count() > 0 ? write() : OkStatus();
}

Status Housekeeper::PutRollups(Hour* hour) {
  const uint32_t day = hour->hour / kHoursPerDay * kHoursPerDay;
  std::string bytes;
  ASSIGN_OR_RETURN(const bool day_is_summed, database_.Get(Family::kMeta, LetterKey('y', {day, hour->trie}), &bytes));
  for (const auto& [group, sum] : hour->rollups) {
    for (const char letter : {kHourLetter, kDayLetter}) {
      if (letter == kDayLetter && !day_is_summed) continue;
      const GroupKey key{letter, hour->trie, group, letter == kDayLetter ? day : hour->hour};
      Rollup stored;
      ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kRollups, EncodeGroupKey(key), &bytes));
      if (there) RETURN_IF_ERROR(DecodeRollup(bytes, &stored));
      Rollup more = sum;
      if (letter == kDayLetter) {
        const uint64_t shift = static_cast<uint64_t>(HourStart(hour->hour) - HourStart(day));
        more.header.first_offset_ns += shift;
        more.header.end_offset_ns += shift;
      }
      MergeRollup(more, &stored);
      RETURN_IF_ERROR(Put(&hour->batch, Family::kRollups, EncodeGroupKey(key), EncodeRollup(stored)));
    }
  }
  if (!day_is_summed && !hour->rollups.empty()) {
    RETURN_IF_ERROR(Put(&hour->batch, Family::kMeta, LetterKey('Y', {day, hour->trie}), ""));
  }
  return OkStatus();
}

StatusOr<std::map<GroupId, Housekeeper::GroupKind>> Housekeeper::KindsOf(const std::vector<GroupId>& groups) {
  std::map<GroupId, GroupKind> kinds;
  ASSIGN_OR_RETURN(const auto loaded, store_.series_reader_.Load(SeriesKind::kGroup, groups));
  for (size_t i = 0; i < groups.size(); ++i) {
    if (loaded[i] == nullptr) return DataLossError(StrFormat("damaged index: no group %d", groups[i]));
    GroupKind kind{.session = loaded[i]->labels.Has(profile::kLabelSession)};
    ASSIGN_OR_RETURN(kind.type, store_.name_reader_.Find(loaded[i]->type));
    kinds[groups[i]] = kind;
  }
  return kinds;
}

Status Housekeeper::PutFunctions(Hour* hour) {
  std::vector<GroupId> groups;
  for (const auto& [group, sum] : hour->rollups) groups.push_back(group);
  ASSIGN_OR_RETURN(const auto kinds, KindsOf(groups));
  std::map<NameId, Rollup> by_type;
  for (const auto& [group, sum] : hour->rollups) {
    if (!kinds.at(group).session) MergeRollup(sum, &by_type[kinds.at(group).type]);
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<FunctionTrie> functions, store_.Functions(hour->trie));
  const std::shared_lock lock(functions->mutex);
  for (const auto& [type, sum] : by_type) {
    ASSIGN_OR_RETURN(const auto costs, SumFunctions(*functions, sum.rows));
    for (const auto& [name, cost] : costs) {
      std::string entry;
      AppendFunctionEntry({static_cast<uint8_t>(hour->hour % kHoursPerDay), cost.self, cost.total}, &entry);
      RETURN_IF_ERROR(
          database_.FromRocks(hour->batch.Merge(database_.family(Family::kFunctions),
                                                FunctionKey(hour->trie, type, name, hour->hour / kHoursPerDay), entry),
                              "writing"));
      hour->dense_bytes += static_cast<int64_t>(entry.size());
    }
  }
  return OkStatus();
}

Status Housekeeper::ReadPoints(Family family, Hour* hour, const std::function<Status()>& write) {
  const std::string prefix = LetterKey(kSeriesLetter, {hour->trie});
  const auto it = database_.NewIterator(family, hour->view.get());
  size_t in_piece = 0;
  it->Seek(prefix);
  while (it->Valid() && ToView(it->key()).starts_with(prefix)) {
    // To this series' first fresh record of the hour.
    ASSIGN_OR_RETURN(const PointKey at, DecodePointKey(ToView(it->key())));
    it->Seek(EncodePointKey({hour->trie, at.series, hour->hour, 1}));
    const std::string mine = LetterKey(kSeriesLetter, {hour->trie, at.series, hour->hour});
    std::vector<std::pair<std::string, std::string>> fresh;
    for (; it->Valid() && ToView(it->key()).starts_with(mine); it->Next()) {
      fresh.emplace_back(it->key().ToString(), it->value().ToString());
    }
    if (!fresh.empty()) {
      RETURN_IF_ERROR(family == Family::kTotals ? TakeUpTotals(hour, at.series, fresh)
                                                : TakeUpHistograms(hour, at.series, fresh));
      if (++in_piece == kMaxPieceSeries) {
        RETURN_IF_ERROR(PutGroups(hour));
        RETURN_IF_ERROR(write());
        in_piece = 0;
      }
    }
    // The next series, wherever it begins.
    if (at.series == UINT32_MAX) break;
    const std::string next = LetterKey(kSeriesLetter, {hour->trie, at.series + 1});
    if (it->Valid() && ToView(it->key()) < next) it->Seek(next);
  }
  RETURN_IF_ERROR(database_.FromRocks(it->status(), StrFormat("reading %s", FamilyName(family))));
  if (hour->batch.Count() == 0) return OkStatus();
  RETURN_IF_ERROR(PutGroups(hour));
  return write();
}

StatusOr<GroupId> Housekeeper::GroupOf(SeriesId series) {
  ASSIGN_OR_RETURN(const auto loaded, store_.series_reader_.Load(SeriesKind::kSeries, {series}));
  return loaded.front() == nullptr ? GroupId{0} : loaded.front()->group;
}

Status Housekeeper::TakeUpTotals(Hour* hour, SeriesId series,
                                 const std::vector<std::pair<std::string, std::string>>& fresh) {
  const std::string key = EncodePointKey({hour->trie, series, hour->hour, 0});
  std::string bytes;
  TotalsRecord merged;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kTotals, key, &bytes));
  if (there) {
    ASSIGN_OR_RETURN(merged, DecodeTotals(bytes, hour->hour));
  }
  GroupTotal added;
  for (const auto& [fresh_key, value] : fresh) {
    ASSIGN_OR_RETURN(const TotalsRecord one, DecodeTotals(value, hour->hour));
    if (merged.windows.empty()) merged.kind = one.kind;
    for (const TotalRecord& window : one.windows) {
      merged.windows.push_back(window);
      added.Plus({.points = 1, .count = window.count, .value = window.value});
    }
    RETURN_IF_ERROR(Delete(&hour->batch, Family::kTotals, fresh_key));
    hour->fresh_bytes += value.size();
    hour->points += one.windows.size();
  }
  std::stable_sort(merged.windows.begin(), merged.windows.end(),
                   [](const TotalRecord& a, const TotalRecord& b) { return a.time_ns < b.time_ns; });
  const std::string value = EncodeTotals(merged, hour->hour);
  hour->dense_bytes += static_cast<int64_t>(value.size()) - static_cast<int64_t>(there ? bytes.size() : 0);
  ASSIGN_OR_RETURN(const GroupId group, GroupOf(series));
  if (group != 0) hour->totals[group].Plus(added);
  return Put(&hour->batch, Family::kTotals, key, value);
}

Status Housekeeper::TakeUpHistograms(Hour* hour, SeriesId series,
                                     const std::vector<std::pair<std::string, std::string>>& fresh) {
  const std::string key = EncodePointKey({hour->trie, series, hour->hour, 0});
  std::string bytes;
  std::vector<HistogramChunk> merged;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kHistograms, key, &bytes));
  if (there) {
    ASSIGN_OR_RETURN(merged, DecodeHistograms(bytes, hour->hour));
  }
  ASSIGN_OR_RETURN(const GroupId group, GroupOf(series));
  for (const auto& [fresh_key, value] : fresh) {
    ASSIGN_OR_RETURN(std::vector<HistogramChunk> more, DecodeHistograms(value, hour->hour));
    for (HistogramChunk& chunk : more) {
      if (group != 0) {
        HistogramChunk& sum = hour->histograms[group];
        sum.histogram.Merge(chunk.histogram);
        for (const auto& [error_number, count] : chunk.errors) {
          sum.errors[error_number] = SaturatingAdd(sum.errors[error_number], count);
        }
      }
      merged.push_back(std::move(chunk));
    }
    RETURN_IF_ERROR(Delete(&hour->batch, Family::kHistograms, fresh_key));
    hour->fresh_bytes += value.size();
  }
  std::stable_sort(merged.begin(), merged.end(),
                   [](const HistogramChunk& a, const HistogramChunk& b) { return a.time_ns < b.time_ns; });
  const std::string value = EncodeHistograms(merged, hour->hour);
  hour->dense_bytes += static_cast<int64_t>(value.size()) - static_cast<int64_t>(there ? bytes.size() : 0);
  return Put(&hour->batch, Family::kHistograms, key, value);
}

Status Housekeeper::PutGroups(Hour* hour) {
  std::string bytes;
  for (const auto& [group, added] : hour->totals) {
    const std::string key = EncodeGroupKey({kGroupLetter, hour->trie, group, hour->hour});
    GroupTotal total;
    ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kTotals, key, &bytes));
    if (there) {
      ASSIGN_OR_RETURN(total, DecodeGroupTotal(bytes));
    }
    total.Plus(added);
    RETURN_IF_ERROR(Put(&hour->batch, Family::kTotals, key, EncodeGroupTotal(total)));
  }
  for (const auto& [group, added] : hour->histograms) {
    const std::string key = EncodeGroupKey({kGroupLetter, hour->trie, group, hour->hour});
    std::vector<HistogramChunk> stored;
    ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kHistograms, key, &bytes));
    if (there) {
      ASSIGN_OR_RETURN(stored, DecodeHistograms(bytes, hour->hour));
    }
    stored.resize(1);
    HistogramChunk& sum = stored.front();
    sum.time_ns = HourStart(hour->hour);
    sum.duration_ns = static_cast<uint64_t>(kHourNs);
    sum.histogram.Merge(added.histogram);
    for (const auto& [error_number, count] : added.errors) {
      sum.errors[error_number] = SaturatingAdd(sum.errors[error_number], count);
    }
    RETURN_IF_ERROR(Put(&hour->batch, Family::kHistograms, key, EncodeHistograms(stored, hour->hour)));
  }
  return OkStatus();
}

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
  std::vector<std::string> keys;
  std::vector<FrameKeyId> frames;
  RETURN_IF_ERROR(
      database_.Scan(Family::kMeta, "D", "E", [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        keys.emplace_back(key);
        Decoder in(value);
        while (in.ok() && !in.done()) frames.push_back(in.Varint32());
        if (!in.ok()) return DataLossError("damaged list of frames with new names");
        return true;
      }));
  // Names come late in bursts, when an agent first sees a binary's symbols: together they are one pass.
  if (keys.empty() || TimeIsUp() || now_ns_ < store_.next_redo_ns_) {
    result_.more = result_.more || (!keys.empty() && now_ns_ >= store_.next_redo_ns_);
    return OkStatus();
  }
  std::sort(frames.begin(), frames.end());
  TrieId tries = 0;
  {
    const std::lock_guard lock(store_.state_mutex_);
    tries = static_cast<TrieId>(store_.tenant_of_trie_.size());
  }
  for (TrieId trie = 1; trie < tries; ++trie) {
    bool shows = false;
    {
      StackTrie loaded;
      RETURN_IF_ERROR(store_.LoadTrie(trie, &loaded));
      for (NodeId node = 1; node < loaded.size() && !shows; ++node) {
        shows = std::binary_search(frames.begin(), frames.end(), loaded.frame(node));
      }
    }
    if (!shows) continue;
    RETURN_IF_ERROR(RedoFunctionsOf(trie));
    ++result_.functions;
  }
  rocksdb::WriteBatch batch;
  for (const std::string& key : keys) RETURN_IF_ERROR(Delete(&batch, Family::kMeta, key));
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

StatusOr<HousekeepingResult> EmbeddedStore::Housekeep(int64_t now_ns, uint64_t budget_ns) {
  const std::lock_guard lock(housekeeping_mutex_);
  return Housekeeper(this, now_ns, budget_ns).Run();
}

Status EmbeddedStore::Settle() {
  RETURN_IF_ERROR(database_->Flush());
  for (size_t family = 0; family < kFamilies; ++family) {
    RETURN_IF_ERROR(database_->Compact(static_cast<Family>(family), "", ""));
  }
  return OkStatus();
}

}  // namespace pyrometer::store

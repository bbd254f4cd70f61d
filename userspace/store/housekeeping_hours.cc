// Hours that ended, and large ones before that: fresh points become cells, sums, totals and histories of functions.
#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/function_index.h"
#include "userspace/store/hour_builder.h"
#include "userspace/store/housekeeping.h"
#include "userspace/store/keys.h"
#include "userspace/store/memory_shares.h"

namespace pyrometer::store {
namespace {

// Rows that one atomic piece turns into cells: as many as its share of the memory holds while they are sorted,
// twice (the piece, and a block of it).
constexpr uint64_t kPieceBytesPerRow = sizeof(StackSum) + sizeof(CellRow);
constexpr size_t kMinPieceRows = 64u << 10;
constexpr size_t kMaxPieceRows = 4u << 20;
// Series whose totals and histograms one atomic piece rewrites.
constexpr size_t kMaxPieceSeries = 2048;

}  // namespace

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
  const auto due = store_.DueHours(now_ns_, store_.options_.busy_hour_bytes);
  std::set<uint32_t> touched;
  for (const auto& [place, fresh] : due) {
    if (MonotonicNowNs() >= hours_end_ns_) {
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
  const auto piece_rows = static_cast<size_t>(std::clamp<uint64_t>(
      MemoryShares::Of(store_.options_.memory_budget_bytes, MemoryShares::kHousekeeping) / kPieceBytesPerRow,
      kMinPieceRows, kMaxPieceRows));
  if (builder_ == nullptr) {
    builder_ = std::make_unique<HourBuilder>(leaf_count);
    builder_->Reserve(piece_rows);
  }
  HourBuilder* const builder = builder_.get();
  builder->Restart(leaf_count);
  const auto finish = [&]() -> Status {
    if (builder->rows() == 0) return OkStatus();
    HourBuilder::Result made = builder->Build();
    builder->Restart(leaf_count);
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
    // Before anything of this window is in the piece: it is gone from here and comes there in one write.
    if (builder->rows() + rows.size() > piece_rows) RETURN_IF_ERROR(finish());
    RETURN_IF_ERROR(Delete(&hour->batch, Family::kWindows, it->key().ToString()));
    hour->fresh_bytes += it->value().size();
    if (group == 0) continue;
    RETURN_IF_ERROR(builder->Add(key.series, group, header, rows));
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

}  // namespace pyrometer::store

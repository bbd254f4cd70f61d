// The reading half of EmbeddedStore, second part: totals, histograms, offsets, functions.

#include <algorithm>

#include "userspace/base/strings.h"
#include "userspace/store/embedded_store.h"
#include "userspace/store/function_index.h"
#include "userspace/store/group_totals.h"
#include "userspace/store/keys.h"

namespace pyrometer::store {
namespace {

constexpr size_t kRecordsPerCheck = 256;

// First and last + 1 hour of a range, clamped to what a key can hold.
struct HourRange {
  uint32_t first = 0;
  uint32_t end = 0;
  bool Contains(uint32_t hour) const { return hour >= first && hour < end; }
};
HourRange HoursOf(TimeRange range) {
  const int64_t from = std::max<int64_t>(range.from_ns, 0);
  if (range.to_ns <= from) return {};
  constexpr int64_t kLast = int64_t{UINT32_MAX} - 1;
  return {static_cast<uint32_t>(std::min(from / kHourNs, kLast)),
          static_cast<uint32_t>(std::min((range.to_ns - 1) / kHourNs + 1, kLast))};
}

// What totals and histograms have in common: which hours come from series and which from groups.
class PointScan {
 public:
  PointScan(const Database& database, Family family, TimeRange range, RetentionTable::Cutoffs cutoffs,
            bool whole_hours_from_groups, const ReadView* view, ReadBudget* budget)
      : database_(database), family_(family), range_(range), cutoffs_(cutoffs), view_(view), budget_(budget) {
    hours_ = HoursOf(range);
    group_hours_ = {std::max(hours_.first, cutoffs.rollups), hours_.end};
    if (!whole_hours_from_groups) group_hours_.end = std::min(group_hours_.end, cutoffs.windows);
    const auto whole = [&](uint32_t hour) {
      const int64_t start = HourStart(hour);
      if (hour < cutoffs.windows) return range.Contains(start);
      return range.from_ns <= start && range.to_ns >= start + kHourNs;
    };
    if (group_hours_.first < group_hours_.end && !whole(group_hours_.first)) ++group_hours_.first;
    if (group_hours_.first < group_hours_.end && !whole(group_hours_.end - 1)) --group_hours_.end;
    if (group_hours_.first > group_hours_.end) group_hours_.end = group_hours_.first;
  }

  // visit(hour, value) for the records of one series that groups do not stand for. Those of housekeeping have ordinal
  // 0.
  template <typename Visit>
  Status Series(const std::vector<uint32_t>& fresh_hours, TrieId trie, SeriesId series, Visit visit) {
    const uint32_t first = std::max(hours_.first, cutoffs_.windows);
    if (first >= hours_.end) return OkStatus();
    if (iterator_ == nullptr) iterator_ = database_.NewIterator(family_, view_);
    rocksdb::Iterator* it = iterator_.get();
    const std::string prefix = LetterKey(kSeriesLetter, {trie, series});
    // Dense hours that groups stand for are jumped over; fresh points in them are looked for where there are any.
    const auto seek = [&](uint32_t hour) { it->Seek(EncodePointKey({trie, series, hour, 0})); };
    size_t next_fresh = 0;
    for (seek(first); it->Valid() && ToView(it->key()).starts_with(prefix);) {
      if (++records_ % kRecordsPerCheck == 0) RETURN_IF_ERROR(Check(budget_));
      ASSIGN_OR_RETURN(const PointKey key, DecodePointKey(ToView(it->key())));
      if (key.hour >= hours_.end) break;
      if (group_hours_.Contains(key.hour)) {
        while (next_fresh < fresh_hours.size() && fresh_hours[next_fresh] < key.hour) ++next_fresh;
        const uint32_t fresh = next_fresh < fresh_hours.size() ? fresh_hours[next_fresh] : UINT32_MAX;
        if (fresh != key.hour) {
          seek(std::min(fresh, group_hours_.end));
          continue;
        }
        if (key.ordinal == 0) {
          it->Next();
          continue;
        }
      }
      RETURN_IF_ERROR(visit(key.hour, ToView(it->value())));
      it->Next();
    }
    return database_.FromRocks(it->status(), StrFormat("reading %s", FamilyName(family_)));
  }

  // visit(hour, value) for the sums of one group.
  template <typename Visit>
  Status Group(TrieId trie, GroupId group, Visit visit) {
    if (group_hours_.first >= group_hours_.end) return OkStatus();
    if (iterator_ == nullptr) iterator_ = database_.NewIterator(family_, view_);
    rocksdb::Iterator* it = iterator_.get();
    const std::string prefix = LetterKey(kGroupLetter, {trie, group});
    for (it->Seek(EncodeGroupKey({kGroupLetter, trie, group, group_hours_.first}));
         it->Valid() && ToView(it->key()).starts_with(prefix); it->Next()) {
      if (++records_ % kRecordsPerCheck == 0) RETURN_IF_ERROR(Check(budget_));
      ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(ToView(it->key())));
      if (key.hour >= group_hours_.end) break;
      RETURN_IF_ERROR(visit(key.hour, ToView(it->value())));
    }
    return database_.FromRocks(it->status(), StrFormat("reading %s", FamilyName(family_)));
  }

 private:
  const Database& database_;
  const Family family_;
  const TimeRange range_;
  const RetentionTable::Cutoffs cutoffs_;
  const ReadView* const view_;
  ReadBudget* const budget_;
  HourRange hours_, group_hours_;
  std::unique_ptr<rocksdb::Iterator> iterator_;
  size_t records_ = 0;
};

// Hours of each trie that have fresh points, ascending.
StatusOr<std::unordered_map<TrieId, std::vector<uint32_t>>> FreshHours(const Database& database, const ReadView* view) {
  std::unordered_map<TrieId, std::vector<uint32_t>> hours;
  RETURN_IF_ERROR(database.Scan(
      Family::kMeta, "F", "G",
      [&](std::string_view key, std::string_view) -> StatusOr<bool> {
        Decoder in(key.substr(1));
        const uint32_t hour = in.BigEndian32();
        hours[in.BigEndian32()].push_back(hour);
        if (!in.ok() || !in.done()) return DataLossError("damaged key of an hour");
        return true;
      },
      view));
  return hours;
}

}  // namespace

template <typename SeriesVisit, typename GroupVisit>
Status EmbeddedStore::ScanPoints(Family family, const Selection& selection, TimeRange range, bool hourly,
                                 ReadBudget* budget, SeriesVisit visit_series, GroupVisit visit_group) const {
  const std::shared_ptr<ReadView> view = database_->NewView();
  const bool from_groups = hourly && selection.groups_are_whole;
  std::unordered_map<TrieId, std::vector<uint32_t>> fresh;
  if (from_groups) {
    ASSIGN_OR_RETURN(fresh, FreshHours(*database_, view.get()));
  }
  std::unordered_map<TenantId, std::unique_ptr<PointScan>> scans;
  const auto scan_of = [&](TrieId trie) -> PointScan& {
    std::unique_ptr<PointScan>& scan = scans[TenantOf(trie)];
    if (scan == nullptr) {
      scan = std::make_unique<PointScan>(*database_, family, range, CutoffsOf(TenantOf(trie)), from_groups, view.get(),
                                         budget);
    }
    return *scan;
  };
  ASSIGN_OR_RETURN(const auto series, series_reader_.Load(SeriesKind::kSeries, selection.series));
  for (const auto& one : series) {
    if (one == nullptr) continue;  // let go meanwhile: it has no windows
    RETURN_IF_ERROR(scan_of(one->trie).Series(
        fresh[one->trie], one->trie, one->id,
        [&](uint32_t hour, std::string_view value) { return visit_series(one->id, hour, value); }));
  }
  ASSIGN_OR_RETURN(const auto groups, series_reader_.Load(SeriesKind::kGroup, selection.groups));
  for (const auto& one : groups) {
    if (one == nullptr) continue;
    RETURN_IF_ERROR(scan_of(one->trie).Group(
        one->trie, one->id, [&](uint32_t hour, std::string_view value) { return visit_group(one->id, hour, value); }));
  }
  return OkStatus();
}

Status EmbeddedStore::ScanTotals(const Selection& selection, TimeRange range, bool hourly,
                                 const std::function<void(const WindowTotal&)>& sink, ReadBudget* budget) const {
  return ScanPoints(
      Family::kTotals, selection, range, hourly, budget,
      [&](SeriesId series, uint32_t hour, std::string_view value) -> Status {
        ASSIGN_OR_RETURN(const TotalsRecord totals, DecodeTotals(value, hour));
        for (const TotalRecord& window : totals.windows) {
          if (!range.Contains(window.time_ns)) continue;
          sink({.series = series,
                .time_ns = window.time_ns,
                .duration_ns = window.duration_ns,
                .count = window.count,
                .value = window.value});
        }
        return OkStatus();
      },
      [&](GroupId group, uint32_t hour, std::string_view value) -> Status {
        ASSIGN_OR_RETURN(const GroupTotal total, DecodeGroupTotal(value));
        sink({.group = group,
              .time_ns = HourStart(hour),
              .duration_ns = static_cast<uint64_t>(kHourNs),
              .points = total.points,
              .count = total.count,
              .value = total.value});
        return OkStatus();
      });
}

Status EmbeddedStore::ScanHistograms(const Selection& selection, TimeRange range, bool hourly,
                                     const std::function<void(const HistogramWindow&)>& sink,
                                     ReadBudget* budget) const {
  const auto emit = [&](SeriesId series, GroupId group, uint32_t hour, std::string_view value) -> Status {
    ASSIGN_OR_RETURN(std::vector<HistogramChunk> chunks, DecodeHistograms(value, hour));
    for (HistogramChunk& chunk : chunks) {
      if (!range.Contains(chunk.time_ns)) continue;
      HistogramWindow window{
          .series = series, .group = group, .time_ns = chunk.time_ns, .duration_ns = chunk.duration_ns};
      window.histogram = std::move(chunk.histogram);
      window.errors = std::move(chunk.errors);
      std::vector<NameId> ids;
      for (const StoredHistogramExemplar& exemplar : chunk.exemplars) {
        ids.push_back(exemplar.comm);
        for (const auto& [cause, ns] : exemplar.split) ids.push_back(cause);
        if (exemplar.waker.wait_ns != 0) ids.insert(ids.end(), {exemplar.waker.comm, exemplar.waker.cause});
      }
      ASSIGN_OR_RETURN(std::vector<std::string> names, name_reader_.Names(ids));
      size_t next = 0;
      for (StoredHistogramExemplar& exemplar : chunk.exemplars) {
        StoredExemplar& to = window.exemplars.emplace_back();
        to = {exemplar.time_ns, exemplar.value,           exemplar.leaf,   std::move(names[next++]),
              exemplar.tid,     std::move(exemplar.call), exemplar.weight, exemplar.typical};
        for (const auto& [cause, ns] : exemplar.split) to.split.push_back({std::move(names[next++]), ns});
        if (exemplar.waker.wait_ns == 0) continue;
        to.waker.wait_ns = exemplar.waker.wait_ns;
        to.waker.comm = std::move(names[next++]);
        to.waker.cause = std::move(names[next++]);
        to.waker.tid = exemplar.waker.tid;
        to.waker_leaf = exemplar.waker.leaf;
      }
      sink(window);
    }
    return OkStatus();
  };
  return ScanPoints(
      Family::kHistograms, selection, range, hourly, budget,
      [&](SeriesId series, uint32_t hour, std::string_view value) { return emit(series, 0, hour, value); },
      [&](GroupId group, uint32_t hour, std::string_view value) { return emit(0, group, hour, value); });
}

Status EmbeddedStore::ScanOffsets(const StackSelection& selection, TimeRange range,
                                  const std::function<void(const OffsetsWindow&)>& sink, ReadBudget* budget) const {
  std::vector<SeriesId> series = selection.series;
  std::sort(series.begin(), series.end());
  const HourRange hours = HoursOf(range);
  const uint32_t first = std::max(hours.first, CutoffsOf(TenantOf(selection.trie)).offsets);
  const std::shared_ptr<ReadView> view = database_->NewView();
  const auto it = database_->NewIterator(Family::kOffsets, view.get());
  size_t records = 0;
  for (uint32_t hour = first; hour < hours.end;) {
    const std::string prefix = NumbersKey({hour, selection.trie});
    it->Seek(prefix);
    if (!it->Valid()) break;
    ASSIGN_OR_RETURN(const WindowKey found, DecodeWindowKey(ToView(it->key())));
    if (found.hour != hour || found.trie != selection.trie) {
      hour = found.trie > selection.trie || found.hour == hour ? found.hour + 1 : found.hour;
      continue;
    }
    for (; it->Valid() && ToView(it->key()).starts_with(prefix); it->Next()) {
      if (++records % kRecordsPerCheck == 0) RETURN_IF_ERROR(Check(budget));
      ASSIGN_OR_RETURN(const WindowKey key, DecodeWindowKey(ToView(it->key())));
      if (!std::binary_search(series.begin(), series.end(), key.series)) continue;
      ASSIGN_OR_RETURN(const OffsetsChunk chunk, DecodeOffsetsChunk(ToView(it->value())));
      const int64_t time_ns = HourStart(hour) + static_cast<int64_t>(chunk.offset_ns);
      if (!range.Contains(time_ns)) continue;
      OffsetsWindow window{
          .series = key.series, .time_ns = time_ns, .duration_ns = chunk.duration_ns, .period_ns = chunk.period_ns};
      for (const OffsetsChunk::Row& row : chunk.rows) window.rows.push_back({row.leaf, row.offsets_ms});
      sink(window);
    }
    ++hour;
  }
  return database_->FromRocks(it->status(), "reading offsets");
}

Status EmbeddedStore::ScanFunction(std::span<const TrieId> tries, std::string_view type, std::string_view name,
                                   TimeRange range, const std::function<void(const FunctionHour&)>& sink,
                                   ReadBudget* budget) const {
  ASSIGN_OR_RETURN(const NameId type_id, name_reader_.Find(type));
  ASSIGN_OR_RETURN(const NameId name_id, name_reader_.Find(name));
  if (type_id == 0 || name_id == 0) return OkStatus();
  const HourRange hours = HoursOf(range);
  const std::shared_ptr<ReadView> view = database_->NewView();
  const auto it = database_->NewIterator(Family::kFunctions, view.get());
  for (const TrieId trie : tries) {
    const uint32_t first = std::max(hours.first, CutoffsOf(TenantOf(trie)).rollups);
    const std::string prefix = NumbersKey({trie, type_id, name_id});
    for (it->Seek(FunctionKey(trie, type_id, name_id, first / kHoursPerDay));
         it->Valid() && ToView(it->key()).starts_with(prefix); it->Next()) {
      Decoder in(ToView(it->key()).substr(prefix.size()));
      const uint32_t day = in.BigEndian32();
      if (!in.ok() || !in.done()) return DataLossError("damaged key of a function");
      if (uint64_t{day} * kHoursPerDay >= hours.end) break;
      RETURN_IF_ERROR(Check(budget));
      ASSIGN_OR_RETURN(const std::vector<FunctionEntry> entries, DecodeFunctionEntries(ToView(it->value())));
      for (const FunctionEntry& entry : entries) {
        const uint32_t hour = day * kHoursPerDay + entry.hour;
        if (hour < first || !range.Contains(HourStart(hour))) continue;
        sink({.trie = trie, .time_ns = HourStart(hour), .self = entry.self, .total = entry.total});
      }
    }
    RETURN_IF_ERROR(database_->FromRocks(it->status(), "reading functions"));
  }
  return OkStatus();
}

}  // namespace pyrometer::store

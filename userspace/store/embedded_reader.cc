// The reading half of EmbeddedStore.

#include <algorithm>
#include <optional>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/store/cells.h"
#include "userspace/store/embedded_store.h"
#include "userspace/store/function_index.h"
#include "userspace/store/keys.h"
#include "userspace/store/rollup.h"
#include "userspace/store/stack_accumulator.h"

namespace pyrometer::store {
namespace {

// Hours of cells that one thread takes at a time.
constexpr size_t kHoursPerPiece = 4;
// Records read between two looks at the budget.
constexpr size_t kRecordsPerCheck = 64;
// Rather read on than seek when the next wanted key may be this near.
constexpr int kStepsBeforeSeek = 8;

int64_t WindowEnd(int64_t time_ns, uint64_t duration_ns) {
  int64_t end = 0;
  const bool over =
      __builtin_add_overflow(time_ns, static_cast<int64_t>(std::min<uint64_t>(duration_ns, INT64_MAX)), &end);
  return over ? INT64_MAX : end;
}

class BudgetTicker {
 public:
  explicit BudgetTicker(ReadBudget* budget) : budget_(budget) {}
  Status Tick() { return ++count_ % kRecordsPerCheck == 0 ? Check(budget_) : OkStatus(); }

 private:
  ReadBudget* budget_;
  size_t count_ = 0;
};

// [first, end) in hours that a range touches; ends are clamped to what a key can hold.
struct HourRange {
  uint32_t first = 0;
  uint32_t end = 0;
};
HourRange HoursOf(TimeRange range) {
  const int64_t from = std::max<int64_t>(range.from_ns, 0);
  if (range.to_ns <= from) return {};
  constexpr int64_t kLast = int64_t{UINT32_MAX} - 1;
  return {static_cast<uint32_t>(std::min(from / kHourNs, kLast)),
          static_cast<uint32_t>(std::min((range.to_ns - 1) / kHourNs + 1, kLast))};
}
bool Covers(TimeRange range, uint32_t hour) {
  return range.from_ns <= HourStart(hour) && range.to_ns >= HourStart(hour) + kHourNs;
}

}  // namespace

// One sum of stacks: which records there are, and the adding up.
class EmbeddedStore::StackSummer {
 public:
  StackSummer(const EmbeddedStore& store, const StackSelection& selection, TimeRange range, ReadBudget* budget)
      : store_(store),
        selection_(selection),
        range_(range),
        budget_(budget),
        view_(store.database_->NewView()),
        accumulators_(budget) {}

  StatusOr<StackSums> Run() {
    series_ = selection_.series;
    std::sort(series_.begin(), series_.end());
    cutoffs_ = store_.CutoffsOf(store_.TenantOf(selection_.trie));
    hours_ = HoursOf(range_);
    FindGroupHours();
    Part whole;
    RETURN_IF_ERROR(AddWindows(&whole));
    RETURN_IF_ERROR(AddGroups(&whole));
    RETURN_IF_ERROR(AddCells(&whole));
    return whole.Finish();
  }

 private:
  // What one thread has added up.
  struct Part {
    void SawWindow(int64_t time_ns, int64_t end_ns, uint64_t period_ns, uint64_t points) {
      if (sums.points == 0) {
        sums.period_ns = period_ns;
        sums.first_ns = time_ns;
      }
      same_period = same_period && period_ns == sums.period_ns;
      sums.first_ns = std::min(sums.first_ns, time_ns);
      sums.end_ns = std::max(sums.end_ns, end_ns);
      sums.points += points;
    }
    Status Add(const Part& more) {
      if (more.sums.points == 0) return OkStatus();
      SawWindow(more.sums.first_ns, more.sums.end_ns, more.same_period ? more.sums.period_ns : 0, more.sums.points);
      return OkStatus();
    }
    StackSums Finish() {
      if (!same_period) sums.period_ns = 0;
      if (accumulator) sums.sums = accumulator->Finish();
      return std::move(sums);
    }

    std::optional<StackAccumulator> accumulator;  // once there is something to add
    StackSums sums;
    bool same_period = true;
  };

  // Before the first addition. The size of the trie is looked up after the state of the data: then every leaf in the
  // data is in the trie. And only now: not for times that have nothing of the trie.
  Status Prepare(Part* part) {
    if (part->accumulator) return OkStatus();
    if (leaf_count_ == 0) {
      ASSIGN_OR_RETURN(const TrieSpan end, store_.TrieEnd(selection_.trie));
      leaf_count_ = end.first_leaf;
    }
    RETURN_IF_ERROR(accumulators_.Add(leaf_count_ * StackAccumulator::kBytesPerLeaf));
    part->accumulator.emplace(leaf_count_);
    return OkStatus();
  }

  bool Wanted(SeriesId series) const { return std::binary_search(series_.begin(), series_.end(), series); }

  // For which hours sums of groups stand: those that are all asked for, if the groups are, and those of which nothing
  // else is left.
  void FindGroupHours() {
    const auto from_groups = [this](uint32_t hour) {
      return hour < cutoffs_.windows ? range_.Contains(HourStart(hour)) : Covers(range_, hour);
    };
    group_hours_ = {std::max(hours_.first, cutoffs_.rollups), hours_.end};
    if (!selection_.groups_are_whole) group_hours_.end = std::min(group_hours_.end, cutoffs_.windows);
    // Only the first and the last hour of a range can be cut.
    if (group_hours_.first < group_hours_.end && !from_groups(group_hours_.first)) ++group_hours_.first;
    if (group_hours_.first < group_hours_.end && !from_groups(group_hours_.end - 1)) --group_hours_.end;
    if (selection_.groups.empty() || group_hours_.first > group_hours_.end) group_hours_.end = group_hours_.first;
  }

  // Fresh windows of all hours.
  Status AddWindows(Part* part) {
    if (series_.empty()) return OkStatus();
    BudgetTicker ticker(budget_);
    const auto it = store_.database_->NewIterator(Family::kWindows, view_.get());
    for (uint32_t hour = std::max(hours_.first, cutoffs_.windows); hour < hours_.end;) {
      it->Seek(EncodeWindowKey({hour, selection_.trie, series_[0], 0}));
      if (!it->Valid()) break;
      ASSIGN_OR_RETURN(const WindowKey key, DecodeWindowKey(ToView(it->key())));
      if (key.hour == hour && key.trie == selection_.trie) {
        RETURN_IF_ERROR(AddWindowsOfHour(hour, it.get(), &ticker, part));
        ++hour;
      } else {
        // On to the next hour in which this trie can have anything.
        hour = key.trie > selection_.trie || key.hour == hour ? key.hour + 1 : key.hour;
      }
    }
    return store_.database_->FromRocks(it->status(), "reading windows");
  }

  // `it` stands on the first key of the hour and trie.
  Status AddWindowsOfHour(uint32_t hour, rocksdb::Iterator* it, BudgetTicker* ticker, Part* part) {
    size_t next = 0;  // in series_
    int steps = 0;
    while (it->Valid()) {
      RETURN_IF_ERROR(ticker->Tick());
      ASSIGN_OR_RETURN(const WindowKey key, DecodeWindowKey(ToView(it->key())));
      if (key.hour != hour || key.trie != selection_.trie) break;
      while (next < series_.size() && series_[next] < key.series) ++next;
      if (next == series_.size()) break;
      if (series_[next] != key.series) {
        if (++steps < kStepsBeforeSeek) {
          it->Next();
        } else {
          steps = 0;
          it->Seek(EncodeWindowKey({hour, selection_.trie, series_[next], 0}));
        }
        continue;
      }
      steps = 0;
      WindowHeader header;
      RETURN_IF_ERROR(DecodeWindowHeader(ToView(it->value()), &header));
      const int64_t time_ns = HourStart(hour) + static_cast<int64_t>(header.offset_ns);
      if (range_.Contains(time_ns)) {
        RETURN_IF_ERROR(DecodeWindowChunk(ToView(it->value()), &header, &rows_));
        RETURN_IF_ERROR(Prepare(part));
        RETURN_IF_ERROR(part->accumulator->Add(rows_));
        part->SawWindow(time_ns, WindowEnd(time_ns, header.duration_ns), header.period_ns, 1);
      }
      it->Next();
    }
    return OkStatus();
  }

  Status AddRollup(uint32_t hour, std::string_view bytes, Part* part) {
    RETURN_IF_ERROR(DecodeRollup(bytes, &rollup_));
    RETURN_IF_ERROR(Prepare(part));
    RETURN_IF_ERROR(part->accumulator->Add(rollup_.rows));
    if (rollup_.header.points == 0) return OkStatus();
    const int64_t start = HourStart(hour);
    part->SawWindow(start + static_cast<int64_t>(rollup_.header.first_offset_ns),
                    start + static_cast<int64_t>(rollup_.header.end_offset_ns), rollup_.header.period_ns,
                    rollup_.header.points);
    return OkStatus();
  }

  // Sums of groups: days where they lie wholly in what groups stand for, else hours.
  Status AddGroups(Part* part) {
    const auto [first, end] = group_hours_;
    if (first >= end) return OkStatus();
    BudgetTicker ticker(budget_);
    const auto it = store_.database_->NewIterator(Family::kRollups, view_.get());
    for (const GroupId group : selection_.groups) {
      std::vector<uint32_t> days;  // first hours of days that were added
      const uint32_t first_day = (first + kHoursPerDay - 1) / kHoursPerDay * kHoursPerDay;
      const GroupKey day_key{kDayLetter, selection_.trie, group, first_day};
      for (it->Seek(EncodeGroupKey(day_key)); it->Valid(); it->Next()) {
        ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(ToView(it->key())));
        if (key.letter != kDayLetter || key.trie != selection_.trie || key.group != group ||
            uint64_t{key.hour} + kHoursPerDay > end) {
          break;
        }
        RETURN_IF_ERROR(ticker.Tick());
        RETURN_IF_ERROR(AddRollup(key.hour, ToView(it->value()), part));
        days.push_back(key.hour);
      }
      RETURN_IF_ERROR(store_.database_->FromRocks(it->status(), "reading rollups"));
      size_t day = 0;
      it->Seek(EncodeGroupKey({kHourLetter, selection_.trie, group, first}));
      while (it->Valid()) {
        ASSIGN_OR_RETURN(const GroupKey key, DecodeGroupKey(ToView(it->key())));
        if (key.letter != kHourLetter || key.trie != selection_.trie || key.group != group || key.hour >= end) break;
        while (day < days.size() && days[day] + kHoursPerDay <= key.hour) ++day;
        if (day < days.size() && key.hour >= days[day]) {
          it->Seek(EncodeGroupKey({kHourLetter, selection_.trie, group, days[day] + kHoursPerDay}));
          continue;
        }
        RETURN_IF_ERROR(ticker.Tick());
        RETURN_IF_ERROR(AddRollup(key.hour, ToView(it->value()), part));
        it->Next();
      }
      RETURN_IF_ERROR(store_.database_->FromRocks(it->status(), "reading rollups"));
    }
    return OkStatus();
  }

  // Dense hours that are not wholly asked for, or not of whole groups.
  Status AddCells(Part* whole) {
    if (series_.empty()) return OkStatus();
    // Which hours there are: keys only.
    std::vector<uint32_t> hours;
    {
      const auto it = store_.database_->NewIterator(Family::kCells, view_.get());
      for (uint32_t hour = std::max(hours_.first, cutoffs_.windows); hour < hours_.end;) {
        if (hour >= group_hours_.first && hour < group_hours_.end) {
          hour = group_hours_.end;
          continue;
        }
        it->Seek(EncodeCellsKey({hour, selection_.trie, 0}));
        if (!it->Valid()) break;
        ASSIGN_OR_RETURN(const CellsKey key, DecodeCellsKey(ToView(it->key())));
        if (key.hour == hour && key.trie == selection_.trie) {
          hours.push_back(hour);
          ++hour;
        } else if (key.hour == hour || key.trie > selection_.trie) {
          hour = key.hour + 1;
        } else {
          hour = key.hour;
        }
      }
      RETURN_IF_ERROR(store_.database_->FromRocks(it->status(), "reading cells"));
    }
    if (hours.empty()) return OkStatus();
    RETURN_IF_ERROR(Prepare(whole));
    if (hours.size() < 2 * kHoursPerPiece) return AddCellHours(hours, whole);
    const size_t pieces = std::min<size_t>(store_.options_.read_threads + 1, hours.size() / kHoursPerPiece);
    std::vector<std::unique_ptr<Part>> parts(pieces);
    RETURN_IF_ERROR(accumulators_.Add(pieces * leaf_count_ * StackAccumulator::kBytesPerLeaf));
    RETURN_IF_ERROR(store_.read_pool_.Run(pieces, [&](size_t i) {
      parts[i] = std::make_unique<Part>();
      parts[i]->accumulator.emplace(leaf_count_);
      const std::span<const uint32_t> all(hours);
      const size_t begin = hours.size() * i / pieces, end = hours.size() * (i + 1) / pieces;
      return AddCellHours(all.subspan(begin, end - begin), parts[i].get());
    }));
    for (const auto& part : parts) {
      RETURN_IF_ERROR(whole->Add(*part));
      RETURN_IF_ERROR(whole->accumulator->Add(part->accumulator->Finish()));
    }
    return OkStatus();
  }

  // Precondition: the part is prepared.
  Status AddCellHours(std::span<const uint32_t> hours, Part* part) {
    const auto it = store_.database_->NewIterator(Family::kCells, view_.get());
    CellsReader reader;
    std::vector<uint8_t> wanted;
    for (const uint32_t hour : hours) {
      const std::string prefix = NumbersKey({hour, selection_.trie});
      for (it->Seek(prefix); it->Valid() && ToView(it->key()).starts_with(prefix); it->Next()) {
        RETURN_IF_ERROR(Check(budget_));
        RETURN_IF_ERROR(reader.Open(ToView(it->value())));
        wanted.assign(reader.windows().size(), 0);
        size_t wanted_count = 0;
        for (size_t i = 0; i < wanted.size(); ++i) {
          const CellWindow& window = reader.windows()[i];
          const int64_t time_ns = HourStart(hour) + static_cast<int64_t>(window.offset_ns);
          if (!range_.Contains(time_ns) || !Wanted(window.series)) continue;
          wanted[i] = 1;
          ++wanted_count;
          part->SawWindow(time_ns, WindowEnd(time_ns, window.duration_ns), window.period_ns, 1);
        }
        if (wanted_count == 0) continue;
        StackAccumulator& accumulator = *part->accumulator;
        accumulator.MakeDense();
        bool in_range = true;
        RETURN_IF_ERROR(reader.Read([&](LeafId leaf, uint32_t cell, uint64_t count, uint64_t value) {
          if (wanted[cell] == 0) return;
          in_range = in_range && accumulator.AddOne(leaf, count, value);
        }));
        if (!in_range) return DataLossError("damaged cells block: unknown stack");
      }
      RETURN_IF_ERROR(store_.database_->FromRocks(it->status(), "reading cells"));
    }
    return OkStatus();
  }

  const EmbeddedStore& store_;
  const StackSelection& selection_;
  const TimeRange range_;
  ReadBudget* const budget_;
  const std::shared_ptr<ReadView> view_;
  ScopedCharge accumulators_;
  std::vector<SeriesId> series_;  // sorted
  size_t leaf_count_ = 0;
  RetentionTable::Cutoffs cutoffs_;
  HourRange hours_;
  HourRange group_hours_;
  // Reused.
  Rollup rollup_;
  std::vector<StackSum> rows_;
};

StatusOr<StackSums> EmbeddedStore::SumStacks(const StackSelection& selection, TimeRange range,
                                             ReadBudget* budget) const {
  if (TenantOf(selection.trie) == 0) return NotFoundError(StrFormat("no trie %d", selection.trie));
  return StackSummer(*this, selection, range, budget).Run();
}

}  // namespace pyrometer::store

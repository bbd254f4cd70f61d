// The reading half of EmbeddedStore.

#include <algorithm>

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

Status EmbeddedStore::LoadTrie(TrieId id, StackTrie* trie, const ReadView* view) const {
  const std::string prefix = LetterKey('n', {id});
  return database_->Scan(
      Family::kTries, prefix, PrefixEnd(prefix),
      [&](std::string_view key, std::string_view value) -> StatusOr<bool> {
        Decoder in(key.substr(prefix.size()));
        TrieSpan begin;
        begin.first_node = in.BigEndian32();
        begin.first_leaf = in.BigEndian32();
        if (!in.ok() || !in.done()) return DataLossError("damaged stack trie: key");
        RETURN_IF_ERROR(trie->Load(begin, value));
        return true;
      },
      view);
}

StatusOr<std::vector<Series>> EmbeddedStore::FindSeries(const SeriesFilter& filter) const {
  return series_reader_.Find(SeriesKind::kSeries, tenants_.Find(filter.tenant), filter);
}

StatusOr<std::vector<Group>> EmbeddedStore::FindGroups(const SeriesFilter& filter) const {
  ASSIGN_OR_RETURN(std::vector<Series> found,
                   series_reader_.Find(SeriesKind::kGroup, tenants_.Find(filter.tenant), filter));
  std::vector<Group> groups;
  groups.reserve(found.size());
  for (Series& one : found) groups.push_back({one.id, std::move(one.type), std::move(one.labels), one.trie});
  return groups;
}

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
    // The state of the data first, the size of the trie afterwards: then every leaf in the data is in the trie.
    {
      ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, store_.tries_.Get(selection_.trie));
      const std::shared_lock lock(trie->mutex);
      leaf_count_ = trie->leaf_count();
    }
    RETURN_IF_ERROR(accumulators_.Add(leaf_count_ * StackAccumulator::kBytesPerLeaf));
    series_ = selection_.series;
    std::sort(series_.begin(), series_.end());
    cutoffs_ = store_.CutoffsOf(store_.TenantOf(selection_.trie));
    hours_ = HoursOf(range_);
    FindGroupHours();
    Part whole(leaf_count_);
    RETURN_IF_ERROR(AddWindows(&whole));
    RETURN_IF_ERROR(AddGroups(&whole));
    RETURN_IF_ERROR(AddCells(&whole));
    return whole.Finish();
  }

 private:
  // What one thread has added up.
  struct Part {
    explicit Part(size_t leaves) : accumulator(leaves) {}

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
      sums.sums = accumulator.Finish();
      return std::move(sums);
    }

    StackAccumulator accumulator;
    StackSums sums;
    bool same_period = true;
  };

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
        RETURN_IF_ERROR(part->accumulator.Add(rows_));
        part->SawWindow(time_ns, WindowEnd(time_ns, header.duration_ns), header.period_ns, 1);
      }
      it->Next();
    }
    return OkStatus();
  }

  Status AddRollup(uint32_t hour, std::string_view bytes, Part* part) {
    RETURN_IF_ERROR(DecodeRollup(bytes, &rollup_));
    RETURN_IF_ERROR(part->accumulator.Add(rollup_.rows));
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
    if (hours.size() < 2 * kHoursPerPiece) return AddCellHours(hours, whole);
    const size_t pieces = std::min<size_t>(store_.options_.read_threads + 1, hours.size() / kHoursPerPiece);
    std::vector<std::unique_ptr<Part>> parts(pieces);
    RETURN_IF_ERROR(accumulators_.Add(pieces * leaf_count_ * StackAccumulator::kBytesPerLeaf));
    RETURN_IF_ERROR(store_.read_pool_.Run(pieces, [&](size_t i) {
      parts[i] = std::make_unique<Part>(leaf_count_);
      const std::span<const uint32_t> all(hours);
      const size_t begin = hours.size() * i / pieces, end = hours.size() * (i + 1) / pieces;
      return AddCellHours(all.subspan(begin, end - begin), parts[i].get());
    }));
    for (const auto& part : parts) {
      RETURN_IF_ERROR(whole->Add(*part));
      RETURN_IF_ERROR(whole->accumulator.Add(part->accumulator.Finish()));
    }
    return OkStatus();
  }

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
        StackAccumulator& accumulator = part->accumulator;
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

StatusOr<std::vector<profile::StackId>> EmbeddedStore::ResolveStacks(TrieId trie_id, std::span<const LeafId> leaves,
                                                                     profile::Dictionary* dictionary,
                                                                     ReadBudget* budget) const {
  if (leaves.empty()) return std::vector<profile::StackId>();
  // 1. Which nodes lie on the way to the root; parents have smaller ids.
  struct Node {
    NodeId id;
    NodeId parent;
    FrameKeyId frame;
  };
  std::vector<Node> path;
  std::vector<NodeId> nodes(leaves.size());
  std::vector<uint32_t> stack_of;  // by node; first: 1 = seen; later: stack id + 1
  {
    ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(trie_id));
    const std::shared_lock lock(trie->mutex);
    NodeId highest = 0;
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (leaves[i] >= trie->leaf_count()) {
        return OutOfRangeError(StrFormat("stack %d of trie %d, which has %d", leaves[i], trie_id, trie->leaf_count()));
      }
      nodes[i] = trie->leaf_node(leaves[i]);
      highest = std::max(highest, nodes[i]);
    }
    RETURN_IF_ERROR(Charge(budget, (uint64_t{highest} + 1) * sizeof(uint32_t)));
    stack_of.resize(size_t{highest} + 1);
    for (NodeId node : nodes) {
      for (; node != 0 && stack_of[node] == 0; node = trie->parent(node)) {
        stack_of[node] = 1;
        path.push_back({node, trie->parent(node), trie->frame(node)});
      }
    }
  }
  // A node, its frame's share and the caller's dictionary entry.
  constexpr uint64_t kBytesPerNode = 64;
  RETURN_IF_ERROR(Charge(budget, path.size() * kBytesPerNode));
  std::sort(path.begin(), path.end(), [](const Node& a, const Node& b) { return a.id < b.id; });

  // 2. Their frames, functions and names, each once.
  const auto unique = [](std::vector<uint32_t>* ids) {
    std::sort(ids->begin(), ids->end());
    ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  };
  const auto index_of = [](const std::vector<uint32_t>& ids, uint32_t id) {
    return static_cast<size_t>(std::lower_bound(ids.begin(), ids.end(), id) - ids.begin());
  };
  std::vector<FrameKeyId> frame_ids;
  frame_ids.reserve(path.size());
  for (const Node& node : path) frame_ids.push_back(node.frame);
  unique(&frame_ids);
  if (!frame_ids.empty() && frame_ids.front() == 0) return DataLossError("damaged stack trie: a dead node is in use");
  RETURN_IF_ERROR(Check(budget));
  ASSIGN_OR_RETURN(const auto records, name_reader_.Frames(frame_ids));
  std::vector<FunctionId> function_ids;
  std::vector<NameId> name_ids;
  for (const auto& record : records) {
    name_ids.insert(name_ids.end(), {record->build_id, record->file, record->miss});
    for (const FrameRecord::Line& line : record->lines) function_ids.push_back(line.function);
  }
  unique(&function_ids);
  ASSIGN_OR_RETURN(const std::vector<FunctionRecord> functions, name_reader_.Functions(function_ids));
  for (const FunctionRecord& function : functions) {
    name_ids.insert(name_ids.end(), {function.name, function.system_name, function.file});
  }
  unique(&name_ids);
  RETURN_IF_ERROR(Check(budget));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, name_reader_.Names(name_ids));

  // 3. Into the caller's dictionary.
  std::vector<profile::StringId> strings(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) strings[i] = dictionary->InternString(texts[i]);
  const auto string_of = [&](NameId id) { return strings[index_of(name_ids, id)]; };
  std::vector<profile::FunctionId> functions_there(functions.size());
  for (size_t i = 0; i < functions.size(); ++i) {
    functions_there[i] = dictionary->InternFunction({.name = string_of(functions[i].name),
                                                     .system_name = string_of(functions[i].system_name),
                                                     .file = string_of(functions[i].file),
                                                     .start_line = functions[i].start_line});
  }
  std::vector<profile::FrameId> frames(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    const FrameRecord& record = *records[i];
    profile::Frame frame{.kind = record.kind, .address = ElfAddress(record.address), .miss = string_of(record.miss)};
    frame.mapping = dictionary->InternMapping({.build_id = string_of(record.build_id), .file = string_of(record.file)});
    for (const FrameRecord::Line& line : record.lines) {
      frame.lines.push_back({.function = functions_there[index_of(function_ids, line.function)],
                             .line = line.line,
                             .column = line.column});
    }
    frames[i] = dictionary->InternFrame(std::move(frame));
  }
  for (const Node& node : path) {
    const profile::StackId parent = node.parent == 0 ? profile::kEmptyStack : stack_of[node.parent] - 1;
    stack_of[node.id] = dictionary->InternStack(parent, frames[index_of(frame_ids, node.frame)]) + 1;
  }
  std::vector<profile::StackId> result;
  result.reserve(nodes.size());
  for (const NodeId node : nodes) result.push_back(node == 0 ? profile::kEmptyStack : stack_of[node] - 1);
  return result;
}

StatusOr<std::vector<std::vector<Symbol>>> EmbeddedStore::DescribeFrames(const std::vector<uint32_t>& frames,
                                                                         LateNames* late) const {
  ASSIGN_OR_RETURN(const auto records, name_reader_.WrittenFrames(frames));
  std::vector<FunctionId> function_ids;
  for (const auto& record : records) {
    if (record == nullptr) continue;
    for (const FrameRecord::Line& line : record->lines) function_ids.push_back(line.function);
  }
  std::sort(function_ids.begin(), function_ids.end());
  function_ids.erase(std::unique(function_ids.begin(), function_ids.end()), function_ids.end());
  ASSIGN_OR_RETURN(const std::vector<FunctionRecord> functions, name_reader_.Functions(function_ids));
  std::unordered_map<NameId, std::string> build_ids;
  if (late != nullptr) {
    std::vector<NameId> ids;
    for (const auto& record : records) {
      if (record != nullptr) ids.push_back(record->build_id);
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    ASSIGN_OR_RETURN(std::vector<std::string> texts, name_reader_.Names(ids));
    for (size_t i = 0; i < ids.size(); ++i) build_ids.emplace(ids[i], std::move(texts[i]));
  }
  std::vector<std::vector<Symbol>> result(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    if (records[i] == nullptr) continue;
    const FrameRecord& record = *records[i];
    // What has no name is shown by place, or all alike where there is none to show.
    const bool has_place = record.file != 0 && record.kind != profile::FrameKind::kJit;
    const uint64_t address = has_place ? record.address : 0;
    const NameId build_id = record.kind == profile::FrameKind::kNative ? record.build_id : 0;
    const auto clip = [](int64_t line) {
      return static_cast<int32_t>(std::clamp<int64_t>(line, 0, std::numeric_limits<int32_t>::max()));
    };
    if (late != nullptr && record.kind == profile::FrameKind::kNative &&
        (record.lines.empty() || record.lines.front().line == 0)) {
      bool complete = true;
      for (const LateNames::Line& line :
           late->Find(build_ids[record.build_id], ElfAddress(record.address), !record.lines.empty())) {
        Symbol symbol{.module = record.file, .kind = record.kind, .line = clip(line.line)};
        if (line.line == 0) symbol.build_id = build_id;
        ASSIGN_OR_RETURN(const bool name, LateText(line.name, &symbol.name));
        ASSIGN_OR_RETURN(const bool file, LateText(line.file, &symbol.file));
        complete = complete && name && file && symbol.name != 0;
        result[i].push_back(symbol);
      }
      if (!complete) result[i].clear();
      if (!result[i].empty()) continue;
    }
    for (const FrameRecord::Line& line : record.lines) {
      const FunctionRecord& function = functions[static_cast<size_t>(
          std::lower_bound(function_ids.begin(), function_ids.end(), line.function) - function_ids.begin())];
      result[i].push_back({.name = function.name,
                           .module = record.file,
                           .kind = record.kind,
                           .address = function.name == 0 ? address : 0,
                           .build_id = function.name == 0 || line.line == 0 ? build_id : 0,
                           .file = function.file,
                           .line = clip(function.start_line != 0 ? function.start_line : line.line)});
    }
    if (!result[i].empty()) continue;
    result[i].push_back({.module = record.file, .kind = record.kind, .address = address, .build_id = build_id});
  }
  return result;
}

StatusOr<bool> EmbeddedStore::LateText(std::string_view text, uint32_t* id) const {
  ASSIGN_OR_RETURN(*id, name_reader_.Find(text));
  if (*id != 0 || text.empty()) return true;
  const std::lock_guard lock(late_texts_mutex_);
  const auto known = late_text_ids_.find(text);
  if (known != late_text_ids_.end()) {
    *id = known->second;
    return true;
  }
  if (late_texts_.size() == kMaxLateTexts) return false;
  *id = kFirstLateText + static_cast<uint32_t>(late_texts_.size());
  late_texts_.push_back(&late_text_ids_.emplace(std::string(text), *id).first->first);
  return true;
}

StatusOr<std::shared_ptr<FunctionTrie>> EmbeddedStore::Functions(TrieId trie_id, LateNames* late) const {
  const uint64_t generation = late == nullptr ? 0 : late->generation();
  if (generation == 0) late = nullptr;
  ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(trie_id));
  std::shared_ptr<FunctionTrie> functions;
  uint64_t redescribed = 0;
  {
    const std::lock_guard lock(functions_mutex_);
    FunctionView& entry = functions_[ViewKey(trie_id, late != nullptr)];
    entry.last_use = ++functions_clock_;
    bool stale = entry.functions == nullptr || entry.generation != generation;
    entry.generation = generation;
    for (; !stale && entry.redescribed < redescribed_.size(); ++entry.redescribed) {
      const std::shared_lock functions_lock(entry.functions->mutex);
      stale = entry.functions->Shows(redescribed_[entry.redescribed]);
    }
    // Those who read the old one go on with it.
    if (stale) entry.functions = std::make_shared<FunctionTrie>();
    redescribed = redescribed_.size();
    entry.redescribed = redescribed;
    functions = entry.functions;
  }
  std::vector<NodeId> parents, leaves;
  std::vector<uint32_t> frames;
  for (;;) {
    size_t nodes = 0, leaf_count = 0;
    {
      const std::shared_lock lock(functions->mutex);
      nodes = functions->nodes();
      leaf_count = functions->leaf_count();
    }
    {
      const std::shared_lock lock(trie->mutex);
      if (nodes >= trie->size() && leaf_count >= trie->leaf_count()) return functions;
      parents.clear();
      frames.clear();
      leaves.clear();
      for (size_t node = nodes; node < trie->size(); ++node) {
        parents.push_back(trie->parent(static_cast<NodeId>(node)));
        frames.push_back(trie->frame(static_cast<NodeId>(node)));
      }
      for (size_t leaf = leaf_count; leaf < trie->leaf_count(); ++leaf) {
        leaves.push_back(trie->leaf_node(static_cast<LeafId>(leaf)));
      }
    }
    // The trie has what is staged too. What is not written yet cannot be named, and nobody can have read it.
    ASSIGN_OR_RETURN(const bool extended, functions->Extend(nodes, leaf_count, parents, frames, leaves,
                                                            [this, late](const std::vector<uint32_t>& ids) {
                                                              return DescribeFrames(ids, late);
                                                            }));
    if (extended) return functions;
  }
}

Status EmbeddedStore::Parallel(size_t pieces, const std::function<Status(size_t)>& piece) const {
  return read_pool_.Run(pieces, piece);
}

StatusOr<std::vector<std::string>> EmbeddedStore::Texts(std::span<const uint32_t> ids) const {
  std::vector<uint32_t> stored(ids.begin(), ids.end());
  for (uint32_t& id : stored) id = id >= kFirstLateText ? 0 : id;
  ASSIGN_OR_RETURN(std::vector<std::string> texts, name_reader_.Names(stored));
  const std::lock_guard lock(late_texts_mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= kFirstLateText && ids[i] - kFirstLateText < late_texts_.size()) {
      texts[i] = *late_texts_[ids[i] - kFirstLateText];
    }
  }
  return texts;
}

StatusOr<std::vector<std::string>> EmbeddedStore::ProfileTypes(std::string_view tenant) const {
  const TenantId id = tenants_.Find(tenant);
  if (id == 0) return std::vector<std::string>();
  return series_reader_.Types(id);
}

StatusOr<std::vector<std::string>> EmbeddedStore::LabelNames(const SeriesFilter& filter) const {
  const TenantId id = tenants_.Find(filter.tenant);
  if (id == 0) return std::vector<std::string>();
  return series_reader_.LabelNames(id, filter);
}

StatusOr<std::vector<std::string>> EmbeddedStore::LabelValues(std::string_view name, const SeriesFilter& filter) const {
  const TenantId id = tenants_.Find(filter.tenant);
  if (id == 0) return std::vector<std::string>();
  return series_reader_.LabelValues(id, name, filter);
}

StatusOr<std::vector<AgentInfo>> EmbeddedStore::Agents() const {
  std::vector<AgentInfo> result;
  {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [id, agent] : agents_) result.push_back(agent);
  }
  std::sort(result.begin(), result.end(), [](const AgentInfo& a, const AgentInfo& b) {
    return std::tie(a.tenant, a.agent_id) < std::tie(b.tenant, b.agent_id);
  });
  return result;
}

StatusOr<std::vector<TenantInfo>> EmbeddedStore::Tenants() const {
  std::vector<TenantInfo> tenants = tenants_.List();
  for (TenantInfo& tenant : tenants) {
    tenant.kept_since_ns = HourStart(CutoffsOf(tenants_.Find(tenant.tenant)).windows);
  }
  return tenants;
}

StatusOr<int64_t> EmbeddedStore::HousekeptUntil() const {
  const std::lock_guard lock(state_mutex_);
  return HourStart(static_cast<uint32_t>(durable_counters_.housekept_until_hour));
}

StatusOr<StoreStats> EmbeddedStore::Stats() const {
  StoreStats stats;
  for (const TenantInfo& tenant : tenants_.List()) {
    stats.series += tenant.series;
    stats.folded_samples += tenant.folded_samples;
  }
  {
    const std::lock_guard lock(state_mutex_);
    stats.tries = durable_counters_.next_trie - 1;
    stats.nodes = durable_counters_.nodes;
    stats.stacks = durable_counters_.leaves;
    stats.frames = durable_counters_.next_frame - 1;
    stats.strings = durable_counters_.next_name - 1;
    stats.agents = agents_.size();
    stats.batches = durable_counters_.batches;
    stats.samples = durable_counters_.samples;
    stats.duplicates = duplicates_;
    stats.fresh_points = durable_fresh_points_;
    for (const auto& [id, agent] : agents_) stats.gaps += agent.gaps;
    stats.memory_bytes = writer_bytes_;
  }
  {
    const std::lock_guard lock(functions_mutex_);
    for (const auto& [id, entry] : functions_) {
      const std::shared_lock functions_lock(entry.functions->mutex, std::try_to_lock);
      if (functions_lock.owns_lock()) stats.memory_bytes += entry.functions->bytes();
    }
  }
  stats.memory_budget = options_.memory_budget_bytes;
  stats.disk_bytes = database_->DiskBytes();
  stats.memory_bytes += database_->MemoryBytes() + name_reader_.bytes() + series_reader_.bytes() + tries_.bytes();
  stats.syncs = database_->syncs();
  stats.write_errors = database_->write_errors();
  return stats;
}

}  // namespace pyrometer::store

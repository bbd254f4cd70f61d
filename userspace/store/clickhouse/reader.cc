// The reading half of ClickHouseStore. What only needs names and series is StoreBase's.
#include <algorithm>
#include <iterator>
#include <numeric>
#include <unordered_map>

#include "userspace/base/strings.h"
#include "userspace/store/clickhouse/clickhouse_store.h"
#include "userspace/store/clickhouse/conditions.h"

namespace pyrometer::store::clickhouse {
namespace {

// How long a look at the servers' disks counts.
constexpr uint64_t kDiskBytesAgeNs = 30 * kNsPerSecond;
constexpr size_t kRowsPerCheck = 4096;

// [first, end) in hours that a range touches.
struct HourRange {
  uint32_t first = 0;
  uint32_t end = 0;
  bool empty() const { return first >= end; }
};
HourRange HoursOf(TimeRange range) {
  const int64_t from = std::max<int64_t>(range.from_ns, 0);
  if (range.to_ns <= from) return {};
  constexpr int64_t kLast = int64_t{UINT32_MAX} - 1;
  return {static_cast<uint32_t>(std::min(from / kHourNs, kLast)),
          static_cast<uint32_t>(std::min((range.to_ns - 1) / kHourNs + 1, kLast))};
}

// The columns of a row's exemplars, in the order in which they are asked for.
class ExemplarColumns {
 public:
  explicit ExemplarColumns(RowReader* in)
      : times_(in->Array<int64_t>()),
        values_(in->Array<uint64_t>()),
        leaves_(in->Array<uint32_t>()),
        comms_(in->Array<uint32_t>()),
        tids_(in->Array<uint32_t>()),
        calls_(in->Strings()),
        weights_(in->Array<uint64_t>()),
        typical_(in->Array<uint8_t>()),
        parts_(in->Array<uint32_t>()),
        part_causes_(in->Array<uint32_t>()),
        part_ns_(in->Array<uint64_t>()),
        waker_waits_(in->Array<uint64_t>()),
        waker_leaves_(in->Array<uint32_t>()),
        waker_comms_(in->Array<uint32_t>()),
        waker_causes_(in->Array<uint32_t>()),
        waker_tids_(in->Array<uint32_t>()) {}

  // The rest is for columns that agree.
  bool SizesAgree() const {
    const size_t sizes[] = {values_.size(),      leaves_.size(),       comms_.size(),       tids_.size(),
                            calls_.size(),       weights_.size(),      typical_.size(),     parts_.size(),
                            waker_waits_.size(), waker_leaves_.size(), waker_comms_.size(), waker_causes_.size(),
                            waker_tids_.size()};
    return std::all_of(std::begin(sizes), std::end(sizes), [&](size_t size) { return size == times_.size(); }) &&
           std::accumulate(parts_.begin(), parts_.end(), uint64_t{0}) == part_causes_.size() &&
           part_causes_.size() == part_ns_.size();
  }

  // Of an exemplar its comm, the causes of its parts, its waker's comm and cause.
  std::vector<NameId> Names() const {
    std::vector<NameId> ids;
    size_t part = 0;
    for (size_t e = 0; e < times_.size(); ++e) {
      ids.push_back(comms_[e]);
      for (uint32_t p = 0; p < parts_[e]; ++p) ids.push_back(part_causes_[part++]);
      if (waker_waits_[e] != 0) ids.insert(ids.end(), {waker_comms_[e], waker_causes_[e]});
    }
    return ids;
  }

  // `names` of Names().
  std::vector<StoredExemplar> Exemplars(std::vector<std::string> names) const {
    std::vector<StoredExemplar> exemplars(times_.size());
    size_t part = 0, next = 0;
    for (size_t e = 0; e < times_.size(); ++e) {
      StoredExemplar& to = exemplars[e];
      to = {times_[e],   values_[e],      leaves_[e], std::move(names[next++]), tids_[e], std::string(calls_[e]),
            weights_[e], typical_[e] != 0};
      for (uint32_t p = 0; p < parts_[e]; ++p) to.split.push_back({std::move(names[next++]), part_ns_[part++]});
      if (waker_waits_[e] == 0) continue;
      to.waker.wait_ns = waker_waits_[e];
      to.waker.comm = std::move(names[next++]);
      to.waker.cause = std::move(names[next++]);
      to.waker.tid = waker_tids_[e];
      to.waker_leaf = waker_leaves_[e];
    }
    return exemplars;
  }

 private:
  // Members are read in this order.
  const std::vector<int64_t> times_;
  const std::vector<uint64_t> values_;
  const std::vector<uint32_t> leaves_, comms_, tids_;
  const std::vector<std::string_view> calls_;
  const std::vector<uint64_t> weights_;
  const std::vector<uint8_t> typical_;
  const std::vector<uint32_t> parts_, part_causes_;
  const std::vector<uint64_t> part_ns_, waker_waits_;
  const std::vector<uint32_t> waker_leaves_, waker_comms_, waker_causes_, waker_tids_;
};

}  // namespace

Status ClickHouseStore::SumRows(Table table, const std::string& where, ReadBudget* budget, RowSum* sum) const {
  bool may_overflow = false;
  {
    // Whether a sum may be more than 64 bits hold follows from the totals of the rows.
    ASSIGN_OR_RETURN(
        const Rows rows,
        cluster_->Select(StrFormat("SELECT sum(points), min(first_ns), max(end_ns), min(period_ns), max(period_ns), "
                                   "toUInt64(sum(greatest(intDiv(value, %d), intDiv(count, %d)) + 1)) FROM %s WHERE %s "
                                   "FORMAT RowBinary",
                                   kHalf, kHalf, cluster_->All(table), where),
                         budget));
    RowReader in(rows.bytes());
    // No rows: some versions answer nothing, others zeros.
    const uint64_t points = in.done() ? 0 : in.U64();
    if (points == 0) return OkStatus();
    const auto first_ns = static_cast<int64_t>(in.U64()), end_ns = static_cast<int64_t>(in.U64());
    const uint64_t period_min = in.U64(), period_max = in.U64();
    may_overflow = in.U64() >= kHalf;
    if (!in.ok() || !in.done()) return Malformed();
    sum->Head(points, first_ns, end_ns, period_min, period_max);
  }
  constexpr std::string_view kValue = "v * if(empty(vals), period_ns, toUInt64(1))";
  const std::string columns = may_overflow
                                  ? StrFormat("sum(intDiv(c, %d)), sum(c %% %d), sum(intDiv(%s, %d)), sum((%s) %% %d)",
                                              kHalf, kHalf, kValue, kHalf, kValue, kHalf)
                                  : StrFormat("sum(c), sum(%s)", kValue);
  ASSIGN_OR_RETURN(
      const Rows rows,
      cluster_->Select(
          StrFormat("SELECT toUInt32(leaf), %s FROM %s ARRAY JOIN arrayCumSum(leaves) AS leaf, arrayConcat(counts, "
                    "wide_counts) AS c, if(empty(vals), arrayConcat(counts, wide_counts), vals) AS v WHERE %s GROUP BY "
                    "leaf FORMAT RowBinary",
                    columns, cluster_->All(table), where),
          budget));
  std::vector<StackSum> sums;
  RowReader in(rows.bytes());
  while (!in.done()) {
    StackSum one{.leaf = in.U32()};
    if (may_overflow) {
      const uint64_t count_high = in.U64();
      one.count = FromHalves(count_high, in.U64());
      const uint64_t value_high = in.U64();
      one.value = FromHalves(value_high, in.U64());
    } else {
      one.count = in.U64();
      one.value = in.U64();
    }
    sums.push_back(one);
  }
  if (!in.ok()) return Malformed();
  return sum->Add(std::move(sums));
}

StatusOr<StackSums> ClickHouseStore::SumStacks(const StackSelection& selection, TimeRange range,
                                               ReadBudget* budget) const {
  const TenantId tenant = TenantOf(selection.trie);
  if (tenant == 0) return NotFoundError(StrFormat("no trie %d", selection.trie));
  const RetentionTable::Cutoffs cutoffs = CutoffsOf(tenant);
  const auto leaf_count = [this](TrieId id) -> StatusOr<size_t> {
    ASSIGN_OR_RETURN(const std::shared_ptr<StackTrie> trie, tries_.Get(id));
    const std::shared_lock lock(trie->mutex);
    return trie->leaf_count();
  };
  // Sums of what was inserted; leaves are given out before.
  const std::string stacks =
      StrFormat("trie = %d AND kind = %d AND notEmpty(leaves)", selection.trie, static_cast<int>(PointKind::kProfile));
  const bool by_group = selection.groups_are_whole && !selection.groups.empty();
  ASSIGN_OR_RETURN(const size_t leaves, leaf_count(selection.trie));
  ScopedCharge accumulator(budget);
  RETURN_IF_ERROR(accumulator.Add(leaves * StackAccumulator::kBytesPerLeaf));
  // The trie may have grown between its size and the rows: so the rows' leaves are bounded by what it has afterwards.
  RowSum sum(UINT32_MAX);
  if (by_group || !selection.series.empty()) {
    RETURN_IF_ERROR(SumRows(
        Table::kPoints,
        StrFormat("%s AND %s AND %s", stacks, by_group ? In("grp", selection.groups) : In("series", selection.series),
                  During(From(range, cutoffs.windows))),
        budget, &sum));
  }
  if (!selection.groups.empty() && range.from_ns < HourStart(cutoffs.windows)) {
    TimeRange old = From(range, cutoffs.rollups);
    old.to_ns = std::min(old.to_ns, HourStart(cutoffs.windows));
    RETURN_IF_ERROR(SumRows(Table::kRollups,
                            StrFormat("%s AND %s AND %s", stacks, In("grp", selection.groups), During(old)), budget,
                            &sum));
  }
  StackSums sums = sum.Finish();
  ASSIGN_OR_RETURN(const size_t leaves_now, leaf_count(selection.trie));
  if (!sums.sums.empty() && sums.sums.back().leaf >= leaves_now) {
    return DataLossError("damaged stack samples in ClickHouse: unknown stack");
  }
  return sums;
}

// ---- totals, histograms -----------------------------------------------------------------------------------

struct ClickHouseStore::ScanPart {
  std::vector<SeriesId> series;
  std::vector<GroupId> groups;
  std::vector<TrieId> tries;  // of both, sorted
  std::string tries_are;      // the condition
  RetentionTable::Cutoffs cutoffs;
  std::string windows;    // condition on the time of windows of series
  TimeRange whole_hours;  // of which groups stand for series
  TimeRange old_hours;    // of which only groups are left
};

StatusOr<std::vector<ClickHouseStore::ScanPart>> ClickHouseStore::PartsOf(const Selection& selection, TimeRange range,
                                                                          bool from_groups) const {
  std::map<TenantId, ScanPart> parts;
  ASSIGN_OR_RETURN(const auto series, series_reader_.Load(SeriesKind::kSeries, selection.series));
  for (const auto& one : series) {
    if (one == nullptr) continue;  // let go meanwhile: it has no windows
    ScanPart& part = parts[TenantOf(one->trie)];
    part.series.push_back(one->id);
    part.tries.push_back(one->trie);
  }
  ASSIGN_OR_RETURN(const auto groups, series_reader_.Load(SeriesKind::kGroup, selection.groups));
  for (const auto& one : groups) {
    if (one == nullptr) continue;
    ScanPart& part = parts[TenantOf(one->trie)];
    part.groups.push_back(one->id);
    part.tries.push_back(one->trie);
  }
  std::vector<ScanPart> result;
  for (auto& [tenant, part] : parts) {
    std::sort(part.tries.begin(), part.tries.end());
    part.tries.erase(std::unique(part.tries.begin(), part.tries.end()), part.tries.end());
    part.tries_are = In("trie", part.tries);
    part.cutoffs = CutoffsOf(tenant);
    part.old_hours = From(range, part.cutoffs.rollups);
    part.old_hours.to_ns = std::min(part.old_hours.to_ns, HourStart(part.cutoffs.windows));
    const TimeRange kept = From(range, part.cutoffs.windows);
    HourRange whole = HoursOf(kept);
    if (from_groups && !whole.empty()) {
      // Only the first and the last hour can be cut.
      if (HourStart(whole.first) < kept.from_ns) ++whole.first;
      if (!whole.empty() && HourStart(whole.end) > kept.to_ns) --whole.end;
    }
    if (from_groups && !whole.empty()) {
      part.whole_hours = {HourStart(whole.first), HourStart(whole.end)};
      part.windows = StrFormat("((%s) OR (%s))", During({kept.from_ns, part.whole_hours.from_ns}),
                               During({part.whole_hours.to_ns, kept.to_ns}));
    } else {
      part.whole_hours = {0, 0};
      part.windows = During(kept);
    }
    result.push_back(std::move(part));
  }
  return result;
}

Status ClickHouseStore::ScanTotals(const Selection& selection, TimeRange range, bool hourly,
                                   const std::function<void(const WindowTotal&)>& sink, ReadBudget* budget) const {
  ASSIGN_OR_RETURN(const std::vector<ScanPart> parts,
                   PartsOf(selection, range, hourly && selection.groups_are_whole && !selection.groups.empty()));
  for (const ScanPart& part : parts) {
    if (part.series.empty()) continue;
    ASSIGN_OR_RETURN(
        const Rows rows,
        cluster_->Select(
            StrFormat("SELECT series, time_ns, duration_ns, count, value FROM %s WHERE %s AND "
                      "%s AND %s ORDER BY series, time_ns FORMAT RowBinary",
                      cluster_->All(Table::kPoints), part.tries_are, In("series", part.series), part.windows),
            budget));
    const auto next = [](RowReader* in) {
      WindowTotal total{.series = in->U32()};
      total.time_ns = static_cast<int64_t>(in->U64());
      total.duration_ns = in->U64();
      total.count = in->U64();
      total.value = in->U64();
      return total;
    };
    if (std::is_sorted(part.series.begin(), part.series.end())) {
      RowReader in(rows.bytes());
      for (size_t i = 0; !in.done(); ++i) {
        if (i % kRowsPerCheck == 0) RETURN_IF_ERROR(Check(budget));
        const WindowTotal total = next(&in);
        if (!in.ok()) return Malformed();
        sink(total);
      }
      continue;
    }
    std::unordered_map<SeriesId, std::vector<WindowTotal>> by_series;
    RowReader in(rows.bytes());
    while (!in.done()) {
      const WindowTotal total = next(&in);
      if (!in.ok()) return Malformed();
      by_series[total.series].push_back(total);
    }
    for (const SeriesId series : part.series) {
      for (const WindowTotal& total : by_series[series]) sink(total);
    }
  }
  for (const ScanPart& part : parts) {
    if (part.groups.empty()) continue;
    for (const bool old : {true, false}) {
      const std::string during = During(old ? part.old_hours : part.whole_hours);
      if (during == "0") continue;
      ASSIGN_OR_RETURN(
          const Rows rows,
          cluster_->Select(
              StrFormat("SELECT grp, toUInt32(intDiv(time_ns, %d)) AS hour, sum(points), sum(intDiv(count, %d)), "
                        "sum(count %% %d), sum(intDiv(value, %d)), sum(value %% %d) FROM %s WHERE %s AND %s AND %s%s "
                        "GROUP BY grp, hour ORDER BY grp, hour FORMAT RowBinary",
                        kHourNs, kHalf, kHalf, kHalf, kHalf, cluster_->All(old ? Table::kRollups : Table::kPoints),
                        part.tries_are, In("grp", part.groups), during,
                        // Totals and stacks of an old hour are rows of their own.
                        old ? " AND empty(leaves)" : ""),
              budget));
      RowReader in(rows.bytes());
      while (!in.done()) {
        WindowTotal total{.group = in.U32()};
        total.time_ns = HourStart(in.U32());
        total.duration_ns = static_cast<uint64_t>(kHourNs);
        total.points = in.U64();
        const uint64_t count_high = in.U64();
        total.count = FromHalves(count_high, in.U64());
        const uint64_t value_high = in.U64();
        total.value = FromHalves(value_high, in.U64());
        if (!in.ok()) return Malformed();
        sink(total);
      }
    }
  }
  return OkStatus();
}

Status ClickHouseStore::ScanHistograms(const Selection& selection, TimeRange range, bool hourly,
                                       const std::function<void(const HistogramWindow&)>& sink,
                                       ReadBudget* budget) const {
  // Windows are few enough to come one by one wherever they are kept.
  static_cast<void>(hourly);
  ASSIGN_OR_RETURN(const std::vector<ScanPart> parts, PartsOf(selection, range, false));
  const auto scan = [&](Table table, const std::string& where) -> Status {
    ASSIGN_OR_RETURN(
        const Rows rows,
        cluster_->Select(
            StrFormat(
                "SELECT series, grp, time_ns, duration_ns, value, buckets, bucket_counts, max, errnos, "
                "error_counts, exemplar_times, exemplar_values, exemplar_leaves, exemplar_comms, "
                "exemplar_tids, exemplar_calls, exemplar_weights, exemplar_typical, exemplar_parts, part_causes, "
                "part_ns, waker_waits, waker_leaves, waker_comms, waker_causes, waker_tids FROM %s WHERE %s AND kind = "
                "%d ORDER BY series, grp, time_ns FORMAT RowBinary",
                cluster_->All(table), where, static_cast<int>(PointKind::kHistogram)),
            budget));
    RowReader in(rows.bytes());
    for (size_t i = 0; !in.done(); ++i) {
      if (i % kRowsPerCheck == 0) RETURN_IF_ERROR(Check(budget));
      HistogramWindow window{.series = in.U32()};
      const GroupId group = in.U32();
      if (window.series == 0) window.group = group;
      window.time_ns = static_cast<int64_t>(in.U64());
      window.duration_ns = in.U64();
      const uint64_t sum = in.U64();
      const std::vector<uint16_t> buckets = in.Array<uint16_t>();
      const std::vector<uint64_t> counts = in.Array<uint64_t>();
      const uint64_t max = in.U64();
      const std::vector<int32_t> errnos = in.Array<int32_t>();
      const std::vector<uint64_t> error_counts = in.Array<uint64_t>();
      const ExemplarColumns exemplars(&in);
      if (!in.ok() || counts.size() != buckets.size() || error_counts.size() != errnos.size() ||
          !exemplars.SizesAgree()) {
        return DataLossError("damaged histogram in ClickHouse");
      }
      for (size_t b = 0; b < buckets.size(); ++b) {
        if (!window.histogram.AddBucket(buckets[b], counts[b])) return DataLossError("damaged histogram in ClickHouse");
      }
      window.histogram.AddSum(sum);
      window.histogram.ObserveMax(max);
      for (size_t e = 0; e < errnos.size(); ++e) window.errors[errnos[e]] = error_counts[e];
      ASSIGN_OR_RETURN(std::vector<std::string> names, name_reader_.Names(exemplars.Names()));
      window.exemplars = exemplars.Exemplars(std::move(names));
      sink(window);
    }
    return OkStatus();
  };
  for (const ScanPart& part : parts) {
    if (part.series.empty()) continue;
    // In the given order: usually ascending, then one question will do.
    if (std::is_sorted(part.series.begin(), part.series.end())) {
      RETURN_IF_ERROR(
          scan(Table::kPoints, StrFormat("%s AND %s AND %s", part.tries_are, In("series", part.series), part.windows)));
      continue;
    }
    for (const SeriesId series : part.series) {
      RETURN_IF_ERROR(
          scan(Table::kPoints, StrFormat("%s AND series = %d AND %s", part.tries_are, series, part.windows)));
    }
  }
  for (const ScanPart& part : parts) {
    const std::string during = During(part.old_hours);
    if (part.groups.empty() || during == "0") continue;
    RETURN_IF_ERROR(
        scan(Table::kRollups, StrFormat("%s AND %s AND %s", part.tries_are, In("grp", part.groups), during)));
  }
  return OkStatus();
}

Status ClickHouseStore::ScanOffsets(const StackSelection& selection, TimeRange range,
                                    const std::function<void(const OffsetsWindow&)>& sink, ReadBudget* budget) const {
  if (selection.series.empty()) return OkStatus();
  const TimeRange kept = From(range, CutoffsOf(TenantOf(selection.trie)).offsets);
  ASSIGN_OR_RETURN(
      const Rows rows,
      cluster_->Select(
          StrFormat("SELECT series, time_ns, duration_ns, period_ns, offset_leaves, offset_counts, "
                    "offsets_ms FROM %s WHERE trie = %d AND %s AND %s AND notEmpty(offset_leaves) ORDER BY "
                    "series, time_ns FORMAT RowBinary",
                    cluster_->All(Table::kPoints), selection.trie, In("series", selection.series), During(kept)),
          budget));
  RowReader in(rows.bytes());
  for (size_t i = 0; !in.done(); ++i) {
    if (i % kRowsPerCheck == 0) RETURN_IF_ERROR(Check(budget));
    OffsetsWindow window{.series = in.U32()};
    window.time_ns = static_cast<int64_t>(in.U64());
    window.duration_ns = in.U64();
    window.period_ns = in.U64();
    const std::vector<uint32_t> leaves = in.Array<uint32_t>(), counts = in.Array<uint32_t>();
    const std::vector<uint16_t> offsets = in.Array<uint16_t>();
    if (!in.ok() || counts.size() != leaves.size()) return DataLossError("damaged offsets in ClickHouse");
    LeafId leaf = 0;
    size_t at = 0;
    for (size_t r = 0; r < leaves.size(); ++r) {
      leaf += leaves[r];
      if (counts[r] > offsets.size() - at) return DataLossError("damaged offsets in ClickHouse");
      window.rows.push_back({leaf, std::span(offsets).subspan(at, counts[r])});
      at += counts[r];
    }
    sink(window);
  }
  return OkStatus();
}

Status ClickHouseStore::ScanFunction(std::span<const TrieId> tries, std::string_view type, std::string_view name,
                                     TimeRange range, const std::function<void(const FunctionHour&)>& sink,
                                     ReadBudget* budget) const {
  ASSIGN_OR_RETURN(const NameId type_id, name_reader_.Find(type));
  ASSIGN_OR_RETURN(const NameId name_id, name_reader_.Find(name));
  if (type_id == 0 || name_id == 0 || tries.empty()) return OkStatus();
  const HourRange hours = HoursOf(range);
  if (hours.empty()) return OkStatus();
  const std::vector<TrieId> wanted(tries.begin(), tries.end());
  // Whoever takes up an hour writes all of its functions anew, and a row without a name: what is older than the newest
  // of these is void.
  ASSIGN_OR_RETURN(
      const Rows rows,
      cluster_->Select(
          StrFormat("SELECT trie, hour, version, name, self, total FROM %s WHERE %s AND type = %d AND name IN "
                    "(0, %d) AND hour >= %d AND hour < %d ORDER BY trie, hour, version FORMAT RowBinary",
                    cluster_->All(Table::kFunctions), In("trie", wanted), type_id, name_id, hours.first, hours.end),
          budget));
  struct Hour {
    uint64_t version = 0;
    uint64_t self = 0;
    uint64_t total = 0;
  };
  std::map<std::pair<TrieId, uint32_t>, Hour> newest;
  RowReader in(rows.bytes());
  for (size_t i = 0; !in.done(); ++i) {
    if (i % kRowsPerCheck == 0) RETURN_IF_ERROR(Check(budget));
    const TrieId trie = in.U32();
    const uint32_t hour = in.U32();
    const uint64_t version = in.U64();
    const NameId row_name = in.U32();
    const uint64_t self = in.U64(), total = in.U64();
    if (!in.ok()) return Malformed();
    Hour& one = newest[{trie, hour}];
    if (version > one.version) one = {.version = version};
    // A part that was not merged yet may hold a row twice: the same, so not added.
    if (row_name != 0) {
      one.self = self;
      one.total = total;
    }
  }
  for (const TrieId trie : wanted) {
    const uint32_t first = CutoffsOf(TenantOf(trie)).rollups;
    for (auto at = newest.lower_bound({trie, 0}); at != newest.end() && at->first.first == trie; ++at) {
      const uint32_t hour = at->first.second;
      if (hour < first || !range.Contains(HourStart(hour)) || at->second.total == 0) continue;
      sink({.trie = trie, .time_ns = HourStart(hour), .self = at->second.self, .total = at->second.total});
    }
  }
  return OkStatus();
}

StatusOr<StoreStats> ClickHouseStore::Stats() const {
  ASSIGN_OR_RETURN(StoreStats stats, StoreBase::Stats());
  const std::lock_guard lock(disk_mutex_);
  const uint64_t now_ns = MonotonicNowNs();
  if (disk_asked_ns_ == 0 || now_ns - disk_asked_ns_ > kDiskBytesAgeNs) {
    // What is served says whether the servers are there; figures of the store itself go on without.
    if (const StatusOr<uint64_t> bytes = cluster_->DiskBytes(); bytes.ok()) disk_bytes_ = *bytes;
    disk_asked_ns_ = now_ns;
  }
  stats.disk_bytes += disk_bytes_;
  return stats;
}

}  // namespace pyrometer::store::clickhouse

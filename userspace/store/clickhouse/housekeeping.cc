#include "userspace/store/clickhouse/housekeeping.h"

#include <algorithm>
#include <unordered_set>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/base/utc.h"
#include "userspace/store/clickhouse/conditions.h"
#include "userspace/store/function_index.h"

namespace pyrometer::store::clickhouse {
namespace {

constexpr std::string_view kFunctionColumnNames = "day, trie, type, name, hour, version, self, total";
// Rows of functions that go into one insert.
constexpr uint64_t kMaxFunctionBytes = 16u << 20;
// The last one tells whether all are cleared.
constexpr std::string_view kOffsetColumns[] = {"offset_leaves", "offset_counts", "offsets_ms"};

// "2026-11-26"; "202611".
std::string DayText(uint32_t day, std::string_view format) {
  return FormatUtc(int64_t{day} * 86'400 * static_cast<int64_t>(kNsPerSecond), format);
}

}  // namespace

ClusterHousekeeper::ClusterHousekeeper(ClickHouseStore* store, int64_t now_ns, uint64_t budget_ns)
    : store_(*store), cluster_(*store->cluster_), now_ns_(now_ns), end_ns_(MonotonicNowNs() + budget_ns) {}

bool ClusterHousekeeper::TimeIsUp() const { return MonotonicNowNs() >= end_ns_; }

uint32_t ClusterHousekeeper::HourBefore(uint64_t age_ns) const {
  if (age_ns == 0 || age_ns >= static_cast<uint64_t>(now_ns_)) return 0;
  return HourOf(now_ns_ - static_cast<int64_t>(age_ns));
}

StatusOr<HousekeepingResult> ClusterHousekeeper::Run() {
  cluster_.LookForServers();
  {
    const std::lock_guard lock(store_.commit_mutex_);
    RETURN_IF_ERROR(store_.LookWhoOwns());
  }
  RETURN_IF_ERROR(TakeUpHours());
  RETURN_IF_ERROR(RedoFunctions());
  RETURN_IF_ERROR(SumOldHours());
  store_.UpdateCutoffs(now_ns_);
  RETURN_IF_ERROR(DropOld());
  store_.NoteHousekept(now_ns_);
  {
    const std::lock_guard lock(store_.state_mutex_);
    result_.kept_since_ns = std::numeric_limits<int64_t>::max();
    for (size_t tenant = 1; tenant < store_.cutoffs_.size(); ++tenant) {
      result_.kept_since_ns = std::min(result_.kept_since_ns, HourStart(store_.cutoffs_[tenant].windows));
    }
  }
  return result_;
}

void ClickHouseStore::UpdateCutoffs(int64_t now_ns) {
  const size_t tenants = tenants_.size();
  std::vector<RetentionTable::Cutoffs> cutoffs(tenants + 1);
  for (TenantId tenant = 1; tenant <= tenants; ++tenant) {
    const TenantLimits& limits = tenants_.Limits(tenant);
    const auto hour_before = [&](uint64_t age_ns) -> uint32_t {
      if (age_ns == 0 || age_ns >= static_cast<uint64_t>(now_ns)) return 0;
      return HourOf(now_ns - static_cast<int64_t>(age_ns));
    };
    RetentionTable::Cutoffs& cutoff = cutoffs[tenant];
    // Windows are hidden when their sums are there, not before.
    cutoff.windows = tenants_.Record(tenant).kept_since_hour;
    tenants_.ForgetBytes(tenant, cutoff.windows);
    cutoff.rollups = std::min(cutoff.windows, hour_before(limits.rollup_retention_ns) / kHoursPerDay * kHoursPerDay);
    cutoff.offsets = std::max(cutoff.windows, hour_before(limits.offsets_retention_ns));
  }
  const std::lock_guard lock(state_mutex_);
  // A clock that was set back must not bring anything back that is half gone.
  for (size_t i = 0; i < cutoffs_.size() && i < cutoffs.size(); ++i) {
    cutoffs[i].windows = std::max(cutoffs[i].windows, cutoffs_[i].windows);
    cutoffs[i].offsets = std::max(cutoffs[i].offsets, cutoffs_[i].offsets);
    cutoffs[i].rollups = std::max(cutoffs[i].rollups, cutoffs_[i].rollups);
  }
  cutoffs_ = std::move(cutoffs);
}

// ---- functions --------------------------------------------------------------------------------------------

Status ClusterHousekeeper::TakeUpHours() {
  const auto due = store_.DueHours(now_ns_, 0);
  size_t done = 0;
  while (done < due.size() && !TimeIsUp()) {
    std::map<uint32_t, std::string> rows;  // by shard
    uint64_t bytes = 0;
    size_t end = done;
    for (; end < due.size() && bytes < kMaxFunctionBytes && (end == done || !TimeIsUp()); ++end) {
      const auto& [hour, trie] = due[end].first;
      std::string& of_shard = rows[store_.ShardOf(trie)];
      const size_t before = of_shard.size();
      RETURN_IF_ERROR(PutFunctions(hour, trie, &of_shard));
      bytes += of_shard.size() - before;
    }
    RETURN_IF_ERROR(InsertFunctions(&rows));
    const std::lock_guard lock(store_.commit_mutex_);
    Records records;
    for (size_t i = done; i < end; ++i) {
      const auto known = store_.fresh_.find(due[i].first);
      // Has more come since it was looked at?
      if (known == store_.fresh_.end() || !(known->second == due[i].second)) continue;
      records[{Family::kMeta, FreshKey(due[i].first.first, due[i].first.second)}] = std::nullopt;
    }
    if (!records.empty()) RETURN_IF_ERROR(store_.WriteRecords(records));
    for (size_t i = done; i < end; ++i) {
      const auto known = store_.fresh_.find(due[i].first);
      if (known == store_.fresh_.end() || !(known->second == due[i].second)) continue;
      store_.fresh_points_ -= std::min(store_.fresh_points_, known->second.points);
      store_.fresh_.erase(known);
      ++result_.hours;
    }
    const std::lock_guard state_lock(store_.state_mutex_);
    store_.durable_fresh_points_ = store_.fresh_points_;
    done = end;
  }
  result_.more = result_.more || done < due.size();
  return OkStatus();
}

Status ClusterHousekeeper::PutFunctions(uint32_t hour, TrieId trie, std::string* rows) {
  const RetentionTable::Cutoffs cutoffs = store_.CutoffsOf(store_.TenantOf(trie));
  if (hour < cutoffs.rollups) return OkStatus();
  const Table table = hour < cutoffs.windows ? Table::kRollups : Table::kPoints;
  const std::string where =
      StrFormat("trie = %d AND kind = %d AND notEmpty(leaves) AND %s", trie, static_cast<int>(PointKind::kProfile),
                During({HourStart(hour), HourStart(hour) + kHourNs}));
  std::vector<GroupId> groups;
  {
    ASSIGN_OR_RETURN(
        const Rows found,
        cluster_.Select(StrFormat("SELECT DISTINCT grp FROM %s WHERE %s FORMAT RowBinary", cluster_.All(table), where),
                        nullptr));
    RowReader in(found.bytes());
    while (!in.done()) groups.push_back(in.U32());
    if (!in.ok()) return Malformed();
  }
  std::map<std::string, std::vector<GroupId>> by_type;
  ASSIGN_OR_RETURN(const auto loaded, store_.series_reader_.Load(SeriesKind::kGroup, groups));
  for (size_t i = 0; i < groups.size(); ++i) {
    if (loaded[i] == nullptr) return DataLossError(StrFormat("damaged index: no group %d", groups[i]));
    // What is in a session is in the other groups too.
    if (!loaded[i]->labels.Has(profile::kLabelSession)) by_type[loaded[i]->type].push_back(groups[i]);
  }
  const uint64_t version = store_.NextNumber();
  for (const auto& [type, of_type] : by_type) {
    ASSIGN_OR_RETURN(const NameId type_id, store_.name_reader_.Find(type));
    RowSum sum(UINT32_MAX);
    RETURN_IF_ERROR(store_.SumRows(table, StrFormat("%s AND %s", where, In("grp", of_type)), nullptr, &sum));
    const StackSums sums = sum.Finish();
    ASSIGN_OR_RETURN(const std::shared_ptr<FunctionTrie> functions, store_.Functions(trie));
    const std::shared_lock lock(functions->mutex);
    ASSIGN_OR_RETURN(const auto costs, SumFunctions(*functions, sums.sums));
    const auto put = [&](NameId name, const FunctionSums& cost) {
      RowWriter out(rows);
      out.U16(static_cast<uint16_t>(hour / kHoursPerDay));
      out.U32(trie);
      out.U32(type_id);
      out.U32(name);
      out.U32(hour);
      out.U64(version);
      out.U64(cost.self);
      out.U64(cost.total);
    };
    put(0, {});  // which version counts
    for (const auto& [name, cost] : costs) put(name, cost);
  }
  return OkStatus();
}

Status ClusterHousekeeper::InsertFunctions(std::map<uint32_t, std::string>* rows) {
  for (const auto& [shard, of_shard] : *rows) {
    if (of_shard.empty()) continue;
    // Once more does no harm: the same version says the same.
    RETURN_IF_ERROR(cluster_.Insert(shard, Table::kFunctions, kFunctionColumnNames, of_shard,
                                    cluster_.InsertId(Table::kFunctions, std::to_string(store_.NextNumber())),
                                    nullptr));
  }
  return OkStatus();
}

Status ClusterHousekeeper::RedoFunctions() {
  ASSIGN_OR_RETURN(const auto late, store_.ReadLateFrames());
  // Names come late in bursts, when an agent first sees a binary's symbols: together they are one pass.
  if (late.keys.empty() || TimeIsUp() || now_ns_ < store_.next_redo_ns_) {
    result_.more = result_.more || (!late.keys.empty() && now_ns_ >= store_.next_redo_ns_);
    return OkStatus();
  }
  RETURN_IF_ERROR(store_.ForTriesThatShow(late.frames, [&](TrieId trie) { return RedoFunctionsOf(trie); }));
  Records done;
  for (const std::string& key : late.keys) done[{Family::kMeta, key}] = std::nullopt;
  store_.next_redo_ns_ = now_ns_ + static_cast<int64_t>(kHourGraceNs);
  const std::lock_guard lock(store_.commit_mutex_);
  return store_.WriteRecords(done);
}

Status ClusterHousekeeper::RedoFunctionsOf(TrieId trie) {
  std::vector<uint32_t> hours;
  {
    ASSIGN_OR_RETURN(const Rows found,
                     cluster_.Select(StrFormat("SELECT DISTINCT hour FROM %s WHERE trie = %d FORMAT RowBinary",
                                               cluster_.All(Table::kFunctions), trie),
                                     nullptr));
    RowReader in(found.bytes());
    while (!in.done()) hours.push_back(in.U32());
    if (!in.ok()) return Malformed();
  }
  std::map<uint32_t, std::string> rows;
  std::string& of_shard = rows[store_.ShardOf(trie)];
  for (const uint32_t hour : hours) {
    RETURN_IF_ERROR(PutFunctions(hour, trie, &of_shard));
    if (of_shard.size() < kMaxFunctionBytes) continue;
    RETURN_IF_ERROR(InsertFunctions(&rows));
    of_shard.clear();
  }
  RETURN_IF_ERROR(InsertFunctions(&rows));
  ++result_.functions;
  return OkStatus();
}

// ---- retention --------------------------------------------------------------------------------------------

Status ClusterHousekeeper::SumOldHours() {
  // For its bytes an hour goes when it is over: what comes later would be missing in its sums.
  const uint32_t over = HourBefore(kHourGraceNs);
  for (TenantId tenant = 1; tenant <= store_.tenants_.size(); ++tenant) {
    const uint32_t kept = store_.tenants_.Record(tenant).kept_since_hour;
    const uint32_t by_age = std::max(kept, HourBefore(store_.tenants_.Limits(tenant).retention_ns));
    const uint32_t wanted = std::max(by_age, std::min(over, store_.tenants_.KeptForBytes(tenant, by_age)));
    if (wanted <= kept) continue;
    std::vector<uint32_t> hours;
    {
      ASSIGN_OR_RETURN(
          const Rows found,
          cluster_.Select(
              StrFormat("SELECT DISTINCT toUInt32(intDiv(time_ns, %d)) AS hour FROM %s WHERE tenant = %d AND "
                        "%s ORDER BY hour FORMAT RowBinary",
                        kHourNs, cluster_.All(Table::kPoints), tenant, During({HourStart(kept), HourStart(wanted)})),
              nullptr));
      RowReader in(found.bytes());
      while (!in.done()) hours.push_back(in.U32());
      if (!in.ok()) return Malformed();
    }
    uint32_t until = wanted;
    for (const uint32_t hour : hours) {
      if (TimeIsUp()) {
        until = hour;
        result_.more = true;
        break;
      }
      for (uint32_t shard = 1; shard <= cluster_.shards(); ++shard) RETURN_IF_ERROR(SumOldHour(tenant, hour, shard));
    }
    if (until <= kept) continue;
    const std::lock_guard lock(store_.commit_mutex_);
    if (store_.unfinished_) RETURN_IF_ERROR(store_.Finish());  // it may add to the same records
    TenantRecord record = store_.tenants_.Record(tenant);
    record.kept_since_hour = until;
    Records records = {{{Family::kMeta, TenantKey(tenant)}, EncodeTenant(record)}};
    for (const auto& [hour, bytes] : store_.tenants_.Bytes(tenant)) {
      if (hour >= until) break;
      records[{Family::kMeta, HourBytesKey(tenant, hour)}] = std::nullopt;
    }
    RETURN_IF_ERROR(store_.WriteRecords(records));
    store_.tenants_.SetKeptSince(tenant, until);
  }
  return OkStatus();
}

Status ClusterHousekeeper::SumOldHour(TenantId tenant, uint32_t hour, uint32_t shard) {
  const std::string during = During({HourStart(hour), HourStart(hour) + kHourNs});
  const auto is_there = [&]() -> StatusOr<bool> {
    ASSIGN_OR_RETURN(const Rows found, cluster_.SelectSettled(
                                           shard, Table::kRollups,
                                           StrFormat("SELECT count() FROM %s WHERE tenant = %d AND %s FORMAT RowBinary",
                                                     cluster_.Local(Table::kRollups), tenant, during)));
    RowReader in(found.bytes());
    return !in.done() && in.U64() > 0;
  };
  ASSIGN_OR_RETURN(const bool summed, is_there());
  if (summed) return OkStatus();
  const std::string from = cluster_.Local(Table::kPoints);
  const std::string where = StrFormat("tenant = %d AND %s", tenant, during);

  struct Sum {
    PointRow row;
    std::vector<StackSum> stacks;
    HistogramChunk histogram;
  };
  std::map<std::tuple<TrieId, GroupId, PointKind>, Sum> totals;
  std::map<std::pair<TrieId, GroupId>, Sum> stacks;
  const auto heads = [&](const std::string& condition, const auto& row_of) -> Status {
    ASSIGN_OR_RETURN(
        const Rows found,
        cluster_.SelectSettled(
            shard, Table::kPoints,
            StrFormat(
                "SELECT trie, grp, kind, sum(points), sum(intDiv(count, %d)), sum(count %% %d), sum(intDiv(value, "
                "%d)), sum(value %% %d), min(period_ns), max(period_ns), min(first_ns), max(end_ns) FROM %s WHERE "
                "%s GROUP BY trie, grp, kind FORMAT RowBinary",
                kHalf, kHalf, kHalf, kHalf, from, condition)));
    RowReader in(found.bytes());
    while (!in.done()) {
      const TrieId trie = in.U32();
      const GroupId group = in.U32();
      const auto kind = static_cast<PointKind>(in.U8());
      PointRow& row = row_of(trie, group, kind).row;
      row.tenant = tenant;
      row.trie = trie;
      row.group = group;
      row.kind = kind;
      row.points = in.U64();
      row.total.time_ns = HourStart(hour);
      row.total.duration_ns = static_cast<uint64_t>(kHourNs);
      const uint64_t count_high = in.U64();
      row.total.count = FromHalves(count_high, in.U64());
      const uint64_t value_high = in.U64();
      row.total.value = FromHalves(value_high, in.U64());
      const uint64_t period_min = in.U64(), period_max = in.U64();
      row.period_ns = period_min == period_max ? period_min : 0;
      row.first_ns = static_cast<int64_t>(in.U64());
      row.end_ns = static_cast<int64_t>(in.U64());
    }
    return in.ok() ? OkStatus() : Malformed();
  };
  RETURN_IF_ERROR(heads(where, [&](TrieId trie, GroupId group, PointKind kind) -> Sum& {
    return totals[{trie, group, kind}];
  }));
  RETURN_IF_ERROR(
      heads(StrFormat("%s AND kind = %d AND notEmpty(leaves)", where, static_cast<int>(PointKind::kProfile)),
            [&](TrieId trie, GroupId group, PointKind) -> Sum& {
              return stacks[{trie, group}];
            }));
  {
    constexpr std::string_view kValue = "v * if(empty(vals), period_ns, toUInt64(1))";
    ASSIGN_OR_RETURN(
        const Rows found,
        cluster_.SelectSettled(
            shard, Table::kPoints,
            StrFormat(
                "SELECT trie, grp, toUInt32(leaf) AS stack, sum(intDiv(c, %d)), sum(c %% %d), sum(intDiv(%s, %d)), "
                "sum((%s) %% %d) FROM %s ARRAY JOIN arrayCumSum(leaves) AS leaf, arrayConcat(counts, wide_counts) "
                "AS c, if(empty(vals), arrayConcat(counts, wide_counts), vals) AS v WHERE %s AND kind = %d GROUP "
                "BY trie, grp, stack ORDER BY trie, grp, stack FORMAT RowBinary",
                kHalf, kHalf, kValue, kHalf, kValue, kHalf, from, where, static_cast<int>(PointKind::kProfile))));
    RowReader in(found.bytes());
    while (!in.done()) {
      const TrieId trie = in.U32();
      const GroupId group = in.U32();
      StackSum one{.leaf = in.U32()};
      const uint64_t count_high = in.U64();
      one.count = FromHalves(count_high, in.U64());
      const uint64_t value_high = in.U64();
      one.value = FromHalves(value_high, in.U64());
      stacks[{trie, group}].stacks.push_back(one);
    }
    if (!in.ok()) return Malformed();
  }
  {
    ASSIGN_OR_RETURN(
        const Rows found,
        cluster_.SelectSettled(
            shard, Table::kPoints,
            StrFormat("SELECT trie, grp, value, buckets, bucket_counts, max, errnos, error_counts FROM %s WHERE %s AND "
                      "kind = %d FORMAT RowBinary",
                      from, where, static_cast<int>(PointKind::kHistogram))));
    RowReader in(found.bytes());
    while (!in.done()) {
      const TrieId trie = in.U32();
      const GroupId group = in.U32();
      const uint64_t sum = in.U64();
      const std::vector<uint16_t> buckets = in.Array<uint16_t>();
      const std::vector<uint64_t> counts = in.Array<uint64_t>();
      const uint64_t max = in.U64();
      const std::vector<int32_t> errnos = in.Array<int32_t>();
      const std::vector<uint64_t> error_counts = in.Array<uint64_t>();
      if (!in.ok() || counts.size() != buckets.size() || error_counts.size() != errnos.size()) {
        return DataLossError("damaged histogram in ClickHouse");
      }
      profile::Histogram histogram;
      for (size_t b = 0; b < buckets.size(); ++b) {
        if (!histogram.AddBucket(buckets[b], counts[b])) return DataLossError("damaged histogram in ClickHouse");
      }
      histogram.AddSum(sum);
      histogram.ObserveMax(max);
      HistogramChunk& merged = totals[{trie, group, PointKind::kHistogram}].histogram;
      merged.histogram.Merge(histogram);
      for (size_t e = 0; e < errnos.size(); ++e) {
        merged.errors[errnos[e]] = SaturatingAdd(merged.errors[errnos[e]], error_counts[e]);
      }
    }
  }
  // Totals first, stacks as rows of their own: windows without stacks count in the one and not in the other.
  std::string rows;
  for (auto& [key, sum] : totals) {
    sum.row.histogram = &sum.histogram;
    PutPointRow(sum.row, &rows);
  }
  for (auto& [key, sum] : stacks) {
    sum.row.stacks = &sum.stacks;
    PutPointRow(sum.row, &rows);
  }
  if (rows.empty()) return OkStatus();
  return cluster_.Insert(shard, Table::kRollups, kPointColumnNames, rows,
                         cluster_.InsertId(Table::kRollups, StrFormat("%d-%d-%d", tenant, hour, store_.NextNumber())),
                         is_there);
}

StatusOr<std::vector<std::string>> ClusterHousekeeper::PartitionsBefore(uint32_t shard, Table table,
                                                                        std::string_view before) const {
  const std::string local = cluster_.Local(table);
  return Names(shard,
               StrFormat("SELECT DISTINCT partition FROM system.parts WHERE active AND database = '%s' AND table "
                         "= '%s' AND partition < '%s' FORMAT RowBinary",
                         cluster_.url().database, local.substr(local.find('.') + 1), before));
}

StatusOr<std::vector<std::string>> ClusterHousekeeper::Names(uint32_t shard, const std::string& sql) const {
  ASSIGN_OR_RETURN(const Rows found, cluster_.SelectShard(shard, sql));
  std::vector<std::string> partitions;
  RowReader in(found.bytes());
  while (!in.done()) partitions.emplace_back(in.String());
  if (!in.ok()) return Malformed();
  return partitions;
}

Status ClusterHousekeeper::DropOld() {
  RetentionTable::Cutoffs oldest{UINT32_MAX, UINT32_MAX, UINT32_MAX};  // what everybody has given up
  std::vector<RetentionTable::Cutoffs> cutoffs;
  {
    const std::lock_guard lock(store_.state_mutex_);
    cutoffs = store_.cutoffs_;
  }
  bool moved = false;
  for (size_t tenant = 1; tenant < cutoffs.size(); ++tenant) {
    oldest.windows = std::min(oldest.windows, cutoffs[tenant].windows);
    oldest.offsets = std::min(oldest.offsets, cutoffs[tenant].offsets);
    oldest.rollups = std::min(oldest.rollups, cutoffs[tenant].rollups);
    const uint32_t day = cutoffs[tenant].windows / kHoursPerDay;
    const auto deleted = store_.deleted_before_day_.find(static_cast<TenantId>(tenant));
    moved = moved || (day != 0 && (deleted == store_.deleted_before_day_.end() || deleted->second < day));
  }
  if (cutoffs.size() < 2) return OkStatus();
  for (uint32_t shard = 1; shard <= cluster_.shards(); ++shard) {
    const auto drop = [&](Table table, const std::string& before, bool text) -> Status {
      ASSIGN_OR_RETURN(const auto partitions, PartitionsBefore(shard, table, before));
      for (const std::string& partition : partitions) {
        const std::string name = text ? StrFormat("'%s'", partition) : partition;
        RETURN_IF_ERROR(
            cluster_.Execute(shard, StrFormat("ALTER TABLE %s DROP PARTITION %s", cluster_.Local(table), name)));
      }
      return OkStatus();
    };
    RETURN_IF_ERROR(drop(Table::kPoints, DayText(oldest.windows / kHoursPerDay, "%Y-%m-%d"), true));
    const std::string month = DayText(oldest.rollups / kHoursPerDay, "%Y%m");
    RETURN_IF_ERROR(drop(Table::kRollups, month, false));
    RETURN_IF_ERROR(drop(Table::kFunctions, month, false));
    // When samples were taken is kept for shorter than the samples. Sizes of columns would tell where there are some,
    // but newer servers do not know them of small parts: so, once a day, the rows are asked.
    const uint32_t offsets_day = oldest.offsets / kHoursPerDay;
    std::vector<std::string> days;
    if (offsets_day > store_.cleared_before_day_) {
      ASSIGN_OR_RETURN(days, Names(shard, StrFormat("SELECT DISTINCT toString(day) FROM %s WHERE day < toDate(%d) AND "
                                                    "notEmpty(offsets_ms) FORMAT RowBinary",
                                                    cluster_.Local(Table::kPoints), offsets_day)));
    }
    for (const std::string& partition : days) {
      for (const std::string_view column : kOffsetColumns) {
        RETURN_IF_ERROR(cluster_.Execute(shard, StrFormat("ALTER TABLE %s CLEAR COLUMN %s IN PARTITION '%s'",
                                                          cluster_.Local(Table::kPoints), column, partition)));
      }
    }
    // Tenants that keep less than others.
    for (size_t tenant = 1; tenant < cutoffs.size(); ++tenant) {
      const uint32_t day = cutoffs[tenant].windows / kHoursPerDay;
      const auto deleted = store_.deleted_before_day_.find(static_cast<TenantId>(tenant));
      if (day <= oldest.windows / kHoursPerDay) continue;
      if (deleted != store_.deleted_before_day_.end() && deleted->second >= day) continue;
      RETURN_IF_ERROR(cluster_.Execute(shard, StrFormat("ALTER TABLE %s DELETE WHERE tenant = %d AND day < toDate(%d)",
                                                        cluster_.Local(Table::kPoints), tenant, day)));
    }
  }
  for (size_t tenant = 1; tenant < cutoffs.size(); ++tenant) {
    store_.deleted_before_day_[static_cast<TenantId>(tenant)] = cutoffs[tenant].windows / kHoursPerDay;
  }
  store_.cleared_before_day_ = oldest.offsets / kHoursPerDay;
  return moved ? RemoveSeries() : OkStatus();
}

Status ClusterHousekeeper::RemoveSeries() {
  ASSIGN_OR_RETURN(const std::vector<SeriesId> ids, store_.series_reader_.AllIds(SeriesKind::kSeries));
  ASSIGN_OR_RETURN(const auto series, store_.series_reader_.Load(SeriesKind::kSeries, ids));
  std::map<TenantId, std::vector<SeriesId>> by_tenant;
  for (const auto& one : series) {
    if (one != nullptr) by_tenant[store_.TenantOf(one->trie)].push_back(one->id);
  }
  const auto empty_ones = [&](TenantId tenant, const std::vector<SeriesId>& of_tenant,
                              bool all) -> StatusOr<std::vector<SeriesId>> {
    ASSIGN_OR_RETURN(
        const Rows found,
        cluster_.Select(StrFormat("SELECT DISTINCT series FROM %s WHERE tenant = %d AND %s AND %s FORMAT "
                                  "RowBinary",
                                  cluster_.All(Table::kPoints), tenant, all ? "1" : In("series", of_tenant),
                                  During(From({}, store_.CutoffsOf(tenant).windows))),
                        nullptr));
    std::unordered_set<SeriesId> alive;
    RowReader in(found.bytes());
    while (!in.done()) alive.insert(in.U32());
    if (!in.ok()) return Malformed();
    std::vector<SeriesId> empty;
    for (const SeriesId id : of_tenant) {
      if (!alive.contains(id)) empty.push_back(id);
    }
    return empty;
  };
  for (const auto& [tenant, of_tenant] : by_tenant) {
    if (tenant == 0 || store_.CutoffsOf(tenant).windows == 0) continue;
    ASSIGN_OR_RETURN(std::vector<SeriesId> empty, empty_ones(tenant, of_tenant, true));
    if (empty.empty()) continue;
    // Once more while nobody can add: a batch may have brought it back to life. Streams that know it must forget it.
    const std::lock_guard commit_lock(store_.commit_mutex_);
    if (store_.unfinished_) RETURN_IF_ERROR(store_.Finish());
    const std::lock_guard lock(store_.definitions_.mutex);
    ASSIGN_OR_RETURN(empty, empty_ones(tenant, empty, false));
    if (empty.empty()) continue;
    rocksdb::WriteBatch batch;
    TenantUsage removed;
    for (const SeriesId id : empty) {
      TenantId whose = 0;
      RETURN_IF_ERROR(store_.definitions_.series.Remove(SeriesKind::kSeries, id, &batch, &whose));
      if (whose != 0) ++removed.series;
    }
    store_.definitions_.epoch.fetch_add(1);
    TenantRecord record = store_.tenants_.Record(tenant);
    record.usage.Minus(removed);
    Records records;
    RETURN_IF_ERROR(AddRecords(*store_.database_, batch, &records));
    records[{Family::kMeta, TenantKey(tenant)}] = EncodeTenant(record);
    if (const Status written = store_.WriteRecords(records); !written.ok()) {
      store_.definitions_.series.Forget();
      return written;
    }
    store_.tenants_.TakeUsage(tenant, removed);
    for (const SeriesId id : empty) store_.series_reader_.Erase(SeriesKind::kSeries, id);
    result_.series_removed += empty.size();
  }
  return OkStatus();
}

StatusOr<HousekeepingResult> ClickHouseStore::Housekeep(int64_t now_ns, uint64_t budget_ns) {
  const std::lock_guard lock(housekeeping_mutex_);
  return ClusterHousekeeper(this, now_ns, budget_ns).Run();
}

}  // namespace pyrometer::store::clickhouse

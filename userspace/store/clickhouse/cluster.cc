#include "userspace/store/clickhouse/cluster.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/store/clickhouse/row_binary.h"

namespace pyrometer::store::clickhouse {
namespace {

constexpr std::string_view kTableNames[kTables] = {"points", "rollups", "functions", "records"};
// Debian's. What this program says is understood from there on.
constexpr uint64_t kMinMajor = 18, kMinMinor = 16;
constexpr uint64_t kAskTimeoutNs = 10 * kNsPerSecond;
// Questions end by their own deadline; this is for those without.
constexpr uint64_t kSelectTimeoutNs = 600 * kNsPerSecond;
constexpr uint64_t kDdlTimeoutNs = 120 * kNsPerSecond;
// A server that could not be reached is not tried first for so long.
constexpr uint64_t kAwayNs = 2 * kNsPerSecond;
constexpr auto kRetryPause = std::chrono::milliseconds(200);
// After a server answered again, what it had taken from the network before has begun; and what another store was about
// to send after it looked who owns the database (Owner::kLookAgeNs) has been sent.
constexpr auto kBeginPause = std::chrono::milliseconds(500);
constexpr uint64_t kMaxQueryBytes = 256u << 20;
constexpr std::string_view kInsertIdPrefix = "pyrometer";

// Rows are wide: fewer of them per mark.
constexpr uint32_t kPointGranularity = 256;

std::string Quote(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out + "'";
}

struct ColumnSpec {
  std::string_view name;
  std::string_view type;
  std::string_view codec;  // where the server knows codecs
};

constexpr std::string_view kZstd = "ZSTD(1)";
constexpr std::string_view kDeltaZstd = "Delta, ZSTD(1)";
// Lists of stacks hold differences already.
constexpr ColumnSpec kPointColumns[] = {
    {"day", "Date", kDeltaZstd},
    {"tenant", "UInt32", kZstd},
    {"trie", "UInt32", kZstd},
    {"grp", "UInt32", kZstd},
    {"series", "UInt32", kZstd},
    {"kind", "UInt8", kZstd},
    {"time_ns", "UInt64", kDeltaZstd},
    {"duration_ns", "UInt64", kZstd},
    {"period_ns", "UInt64", kZstd},
    {"count", "UInt64", kZstd},
    {"value", "UInt64", kZstd},
    {"leaves", "Array(UInt32)", kZstd},
    {"counts", "Array(UInt32)", kZstd},
    {"wide_counts", "Array(UInt64)", kZstd},
    {"vals", "Array(UInt64)", kZstd},
    {"offset_leaves", "Array(UInt32)", kZstd},
    {"offset_counts", "Array(UInt32)", kZstd},
    {"offsets_ms", "Array(UInt16)", kZstd},
    {"buckets", "Array(UInt16)", kZstd},
    {"bucket_counts", "Array(UInt64)", kZstd},
    {"max", "UInt64", kZstd},
    {"errnos", "Array(Int32)", kZstd},
    {"error_counts", "Array(UInt64)", kZstd},
    {"exemplar_times", "Array(Int64)", kZstd},
    {"exemplar_values", "Array(UInt64)", kZstd},
    {"exemplar_leaves", "Array(UInt32)", kZstd},
    {"exemplar_comms", "Array(UInt32)", kZstd},
    {"exemplar_tids", "Array(UInt32)", kZstd},
    {"exemplar_calls", "Array(String)", kZstd},
    {"exemplar_weights", "Array(UInt64)", kZstd},
    {"exemplar_typical", "Array(UInt8)", kZstd},
    {"exemplar_parts", "Array(UInt32)", kZstd},
    {"part_causes", "Array(UInt32)", kZstd},
    {"part_ns", "Array(UInt64)", kZstd},
    {"waker_waits", "Array(UInt64)", kZstd},
    {"waker_leaves", "Array(UInt32)", kZstd},
    {"waker_comms", "Array(UInt32)", kZstd},
    {"waker_causes", "Array(UInt32)", kZstd},
    {"waker_tids", "Array(UInt32)", kZstd},
    {"points", "UInt64", kZstd},
    {"first_ns", "UInt64", kDeltaZstd},
    {"end_ns", "UInt64", kDeltaZstd},
    {"agent", "UInt32", kZstd},
    {"sequence", "UInt64", kDeltaZstd},
};
constexpr ColumnSpec kFunctionColumns[] = {
    {"day", "Date", kDeltaZstd}, {"trie", "UInt32", kZstd},      {"type", "UInt32", kZstd},
    {"name", "UInt32", kZstd},   {"hour", "UInt32", kDeltaZstd}, {"version", "UInt64", kDeltaZstd},
    {"self", "UInt64", kZstd},   {"total", "UInt64", kZstd},
};
constexpr ColumnSpec kRecordColumns[] = {
    {"family", "UInt8", kZstd},  {"key", "String", kZstd},   {"version", "UInt64", kDeltaZstd},
    {"deleted", "UInt8", kZstd}, {"value", "String", kZstd},
};

}  // namespace

uint64_t Cluster::AskTimeoutNs() const { return std::max(kAskTimeoutNs, url_.patience_ns); }

StatusOr<std::vector<std::string>> Cluster::Column(const HttpClient& http, std::string_view sql) const {
  ASSIGN_OR_RETURN(const std::string bytes, http.Select(sql, {}, nullptr, AskTimeoutNs()));
  RowReader in(bytes);
  std::vector<std::string> values;
  while (!in.done()) values.emplace_back(in.String());
  if (!in.ok()) return InternalError(StrFormat("ClickHouse %s: malformed answer", http.address().Text()));
  return values;
}

std::string Cluster::Local(Table table) const {
  return StrFormat("%s.%s", url_.database, kTableNames[static_cast<size_t>(table)]);
}

std::string Cluster::All(Table table) const {
  // Records are not spread.
  return Local(table) + (url_.cluster.empty() || table == Table::kRecords ? "" : "_all");
}

StatusOr<std::unique_ptr<Cluster>> Cluster::Connect(const Url& url) {
  std::unique_ptr<Cluster> cluster(new Cluster(url));
  for (const Address& address : url.servers) cluster->servers_.push_back(std::make_unique<Server>(url, address));
  Status away = OkStatus();
  Server* first = nullptr;
  for (const auto& server : cluster->servers_) {
    const Status asked = cluster->Ask(server.get());
    if (asked.ok()) {
      if (first == nullptr) first = server.get();
      continue;
    }
    if (asked.code() != StatusCode::kUnavailable) return asked;
    away = asked;
  }
  if (first == nullptr) return away;
  cluster->replicated_ = first->has_zookeeper && !url.cluster.empty();
  if (!url.cluster.empty()) {
    ASSIGN_OR_RETURN(const std::string bytes,
                     first->http.Select(StrFormat("SELECT toUInt64(uniqExact(shard_num)), count() FROM system.clusters "
                                                  "WHERE cluster = %s FORMAT RowBinary",
                                                  Quote(url.cluster)),
                                        {}, nullptr, cluster->AskTimeoutNs()));
    RowReader in(bytes);
    cluster->shards_ = static_cast<uint32_t>(in.U64());
    const uint64_t members = in.U64();
    if (!in.ok()) return InternalError(StrFormat("ClickHouse %s: malformed answer", first->http.address().Text()));
    if (members != url.servers.size()) {
      return FailedPreconditionError(
          StrFormat("the cluster '%s' has %d servers and --backend names %d: name each of them, with the port of its "
                    "HTTP interface",
                    url.cluster, members, url.servers.size()));
    }
    if (members > cluster->shards_ && !first->has_zookeeper) {
      return FailedPreconditionError(
          StrFormat("the cluster '%s' has replicas, but its servers know no ZooKeeper, which keeps replicas alike: "
                    "configure <zookeeper> on them",
                    url.cluster));
    }
  }
  // Those that were not asked yet come last.
  std::stable_sort(cluster->servers_.begin(), cluster->servers_.end(),
                   [](const auto& a, const auto& b) { return a->shard - 1 < b->shard - 1; });
  for (uint32_t shard = 1; shard <= cluster->shards_; ++shard) {
    if (std::any_of(cluster->servers_.begin(), cluster->servers_.end(),
                    [&](const auto& server) { return server->shard == shard; })) {
      continue;
    }
    return UnavailableError(
        StrFormat("no server of shard %d of cluster '%s' answers (%s): start one", shard, url.cluster, Message(away)));
  }
  return cluster;
}

Status Cluster::Ask(Server* server) {
  const std::string name = server->http.address().Text();
  ASSIGN_OR_RETURN(const auto version, Column(server->http, "SELECT version() FORMAT RowBinary"));
  if (version.size() != 1) return InternalError(StrFormat("ClickHouse %s: malformed answer", name));
  const auto parts = Split(version[0], '.');
  const uint64_t major = ParseUint64(parts[0]).value_or(0);
  const uint64_t minor = parts.size() < 2 ? 0 : ParseUint64(parts[1]).value_or(0);
  if (std::pair(major, minor) < std::pair(kMinMajor, kMinMinor)) {
    return FailedPreconditionError(StrFormat("ClickHouse %s is of version %s; %d.%d is the first that will do", name,
                                             version[0], kMinMajor, kMinMinor));
  }
  const auto set = [&](std::string_view sql, std::set<std::string>* out) -> Status {
    ASSIGN_OR_RETURN(const auto names, Column(server->http, sql));
    out->insert(names.begin(), names.end());
    return OkStatus();
  };
  RETURN_IF_ERROR(set("SELECT name FROM system.settings FORMAT RowBinary", &server->settings));
  RETURN_IF_ERROR(set("SELECT name FROM system.merge_tree_settings FORMAT RowBinary", &server->table_settings));
  const auto exists = [&](std::string_view sql) -> StatusOr<bool> {
    ASSIGN_OR_RETURN(const auto found, Column(server->http, sql));
    return !found.empty();
  };
  ASSIGN_OR_RETURN(server->has_zookeeper, exists("SELECT name FROM system.tables WHERE database = 'system' AND name = "
                                                 "'zookeeper' FORMAT RowBinary"));
  ASSIGN_OR_RETURN(server->has_codecs, exists("SELECT name FROM system.columns WHERE database = 'system' AND table = "
                                              "'columns' AND name = 'compression_codec' FORMAT RowBinary"));
  if (url_.cluster.empty()) {
    server->shard = 1;
    return OkStatus();
  }
  // Which of the replicas it is, it may not know (18.16 calls all replicas of its shard local when they share a host).
  ASSIGN_OR_RETURN(
      const std::string bytes,
      server->http.Select(StrFormat("SELECT DISTINCT shard_num FROM system.clusters WHERE cluster = %s AND "
                                    "is_local FORMAT RowBinary",
                                    Quote(url_.cluster)),
                          {}, nullptr, AskTimeoutNs()));
  if (bytes.empty()) {
    return FailedPreconditionError(
        StrFormat("ClickHouse %s is in no cluster '%s': its <remote_servers> must have one of that name with itself in "
                  "it",
                  name, url_.cluster));
  }
  RowReader in(bytes);
  const uint32_t shard = in.U32();
  if (!in.ok() || !in.done() || shard == 0) {
    return FailedPreconditionError(
        StrFormat("ClickHouse %s is in more than one shard of cluster '%s'", name, url_.cluster));
  }
  server->shard = shard;
  return OkStatus();
}

std::string Cluster::Ddl(const Server& server, Table table) const {
  std::span<const ColumnSpec> columns = kPointColumns;
  std::string_view partition = "day", order = "trie, series, time_ns", version;
  uint32_t granularity = kPointGranularity;
  switch (table) {
    case Table::kPoints:
      break;
    case Table::kRollups:
      partition = "toYYYYMM(day)";
      order = "trie, grp, time_ns";
      break;
    case Table::kFunctions:
      columns = kFunctionColumns;
      partition = "toYYYYMM(day)";
      order = "trie, type, name, hour";
      version = "version";
      granularity = 8192;
      break;
    case Table::kRecords:
      columns = kRecordColumns;
      partition = "";
      order = "family, key";
      version = "version";
      granularity = 8192;
      break;
  }
  std::string sql = StrFormat("CREATE TABLE IF NOT EXISTS %s (", Local(table));
  for (size_t i = 0; i < columns.size(); ++i) {
    sql += StrFormat("%s%s %s", i == 0 ? "" : ", ", columns[i].name, columns[i].type);
    if (server.has_codecs) sql += StrFormat(" CODEC(%s)", columns[i].codec);
  }
  std::string arguments;
  if (replicated_) {
    arguments = StrFormat("'/pyrometer/%s/%d/%s', '%s'", url_.database, server.shard,
                          kTableNames[static_cast<size_t>(table)], server.http.address().Text());
    if (!version.empty()) arguments += ", ";
  }
  arguments += version;
  sql += StrFormat(") ENGINE = %s%sMergeTree(%s)", replicated_ ? "Replicated" : "", version.empty() ? "" : "Replacing",
                   arguments);
  if (!partition.empty()) sql += StrFormat(" PARTITION BY %s", partition);
  sql += StrFormat(" ORDER BY (%s) SETTINGS index_granularity = %d", order, granularity);
  const auto setting = [&](std::string_view name, std::string_view value) {
    if (server.table_settings.contains(std::string(name))) sql += StrFormat(", %s = %s", name, value);
  };
  // Newer servers can write through to the disk before they say that they have it.
  setting("fsync_after_insert", "1");
  setting("fsync_part_directory", "1");
  // What is sent again may be sent again days later, when a server is back. A week is what 18.16 has by itself.
  if (replicated_) setting("replicated_deduplication_window_seconds", "604800");
  return sql;
}

Status Cluster::Create(Server* server) const {
  const auto run = [&](const std::string& sql) -> Status {
    return WithContext(server->http.Execute(sql, {}, kDdlTimeoutNs), "making the tables");
  };
  RETURN_IF_ERROR(run(StrFormat("CREATE DATABASE IF NOT EXISTS %s", url_.database)));
  for (const Table table : {Table::kPoints, Table::kRollups, Table::kFunctions, Table::kRecords}) {
    if (table == Table::kRecords && server->shard != 1) continue;
    RETURN_IF_ERROR(run(Ddl(*server, table)));
    if (url_.cluster.empty() || table == Table::kRecords) continue;
    RETURN_IF_ERROR(
        run(StrFormat("CREATE TABLE IF NOT EXISTS %s AS %s ENGINE = Distributed('%s', '%s', '%s')", All(table),
                      Local(table), url_.cluster, url_.database, kTableNames[static_cast<size_t>(table)])));
  }
  server->ready = true;
  return OkStatus();
}

Status Cluster::CreateTables() {
  const std::lock_guard lock(mutex_);
  for (const auto& server : servers_) {
    if (server->shard == 0) continue;
    RETURN_IF_ERROR(Create(server.get()));
  }
  return OkStatus();
}

void Cluster::LookForServers() {
  const std::lock_guard lock(mutex_);
  for (const auto& server : servers_) {
    if (server->ready || MonotonicNowNs() < server->away_until_ns) continue;
    Status status = server->shard == 0 ? Ask(server.get()) : OkStatus();
    if (status.ok()) status = Create(server.get());
    Saw(server.get(), status);
  }
}

std::vector<Cluster::Server*> Cluster::ServersOf(uint32_t shard) const {
  std::vector<Server*> found;
  const uint64_t now_ns = MonotonicNowNs();
  for (const bool away : {false, true}) {
    for (const auto& server : servers_) {
      if (!server->ready || (shard != 0 && server->shard != shard)) continue;
      if ((server->away_until_ns > now_ns) == away) found.push_back(server.get());
    }
  }
  return found;
}

void Cluster::Saw(Server* server, const Status& status) {
  server->away_until_ns = status.code() == StatusCode::kUnavailable ? MonotonicNowNs() + kAwayNs : 0;
}

Settings Cluster::QuestionSettings(const Server& server) const {
  Settings settings;
  const auto add = [&](const char* name, std::string value) {
    if (server.settings.contains(name)) settings.emplace_back(name, std::move(value));
  };
  add("max_query_size", std::to_string(kMaxQueryBytes));
  // The replica that took the newest rows first.
  add("load_balancing", "in_order");
  add("connect_timeout_with_failover_ms", "1000");
  add("max_ast_elements", "50000000");
  add("max_expanded_ast_elements", "50000000");
  return settings;
}

StatusOr<Rows> Cluster::Select(std::string_view sql, ReadBudget* budget) const { return SelectShard(0, sql, budget); }

StatusOr<Rows> Cluster::SelectShard(uint32_t shard, std::string_view sql, ReadBudget* budget) const {
  Status failed = UnavailableError("no ClickHouse server answers");
  for (Server* server : ServersOf(shard)) {
    StatusOr<std::string> bytes = server->http.Select(sql, QuestionSettings(*server), budget, kSelectTimeoutNs);
    Saw(server, bytes.status());
    if (bytes.ok()) return Rows(*std::move(bytes), budget);
    failed = bytes.status();
    if (failed.code() != StatusCode::kUnavailable) break;
  }
  return failed;
}

StatusOr<Rows> Cluster::SelectSettled(uint32_t shard, Table table, std::string_view sql) const {
  const uint64_t until_ns = MonotonicNowNs() + url_.patience_ns;
  Status failed = UnavailableError(StrFormat("no ClickHouse server of shard %d answers", shard));
  do {
    for (Server* server : ServersOf(shard)) {
      if (replicated_) {
        const auto state = server->http.Select(
            StrFormat("SELECT is_readonly, inserts_in_queue, log_pointer, log_max_index FROM system.replicas WHERE "
                      "database = '%s' AND table = '%s' FORMAT RowBinary",
                      url_.database, kTableNames[static_cast<size_t>(table)]),
            {}, nullptr, AskTimeoutNs());
        if (!state.ok()) {
          failed = state.status();
          continue;
        }
        RowReader in(*state);
        const bool read_only = in.U8() != 0;
        const uint32_t to_fetch = in.U32();
        const uint64_t pointer = in.U64(), newest = in.U64();
        bool is_behind = pointer <= newest;
        if (is_behind && newest == 0) {
          // Number 0 is the first entry of the log, and what an empty log says.
          const auto entries = server->http.Select(
              StrFormat("SELECT count() FROM system.zookeeper WHERE path = '/pyrometer/%s/%d/%s/log' FORMAT RowBinary",
                        url_.database, shard, kTableNames[static_cast<size_t>(table)]),
              {}, nullptr, AskTimeoutNs());
          if (!entries.ok()) {
            failed = entries.status();
            continue;
          }
          is_behind = RowReader(*entries).U64() != 0;
        }
        if (!in.ok())
          return InternalError(StrFormat("ClickHouse %s: no table %s", server->http.address().Text(), Local(table)));
        if (read_only || to_fetch != 0 || is_behind) {
          failed = UnavailableError(StrFormat(
              "ClickHouse %s has not got all rows of %s yet that other replicas of its shard took%s: wait, or start "
              "the other replicas",
              server->http.address().Text(), Local(table), read_only ? ", and reaches no ZooKeeper" : ""));
          continue;
        }
      }
      StatusOr<std::string> bytes = server->http.Select(sql, QuestionSettings(*server), nullptr, kSelectTimeoutNs);
      if (bytes.ok()) return Rows(*std::move(bytes), nullptr);
      failed = bytes.status();
      if (failed.code() != StatusCode::kUnavailable) return failed;
    }
    std::this_thread::sleep_for(kRetryPause);
  } while (MonotonicNowNs() < until_ns);
  return failed;
}

StatusOr<Rows> Cluster::SelectSome(uint32_t shard, std::string_view sql) const {
  Status failed = UnavailableError(StrFormat("no ClickHouse server of shard %d answers", shard));
  bool answered = false;
  for (Server* server : ServersOf(shard)) {
    StatusOr<std::string> bytes = server->http.Select(sql, QuestionSettings(*server), nullptr, AskTimeoutNs());
    Saw(server, bytes.status());
    if (bytes.ok() && !bytes->empty()) return Rows(*std::move(bytes), nullptr);
    answered = answered || bytes.ok();
    if (bytes.ok()) continue;
    failed = bytes.status();
    if (failed.code() != StatusCode::kUnavailable) return failed;
  }
  if (!answered) return failed;
  return Rows("", nullptr);
}

Status Cluster::AwaitAnswer(uint32_t shard, std::string_view sql, std::string_view expected) const {
  const uint64_t until_ns = MonotonicNowNs() + url_.patience_ns;
  for (Server* server : ServersOf(shard)) {
    for (;;) {
      const StatusOr<std::string> answer = server->http.Select(sql, QuestionSettings(*server), nullptr, AskTimeoutNs());
      Saw(server, answer.status());
      if (answer.status().code() == StatusCode::kUnavailable) break;
      RETURN_IF_ERROR(answer.status());
      if (answer->empty() || *answer == expected) break;
      if (MonotonicNowNs() >= until_ns) {
        return UnavailableError(
            StrFormat("ClickHouse %s has not got what other replicas of its shard took for longer than %s: look what "
                      "is with it in its system.replicas, or stop it",
                      server->http.address().Text(), FormatDurationNs(url_.patience_ns)));
      }
      std::this_thread::sleep_for(kRetryPause);
    }
  }
  return OkStatus();
}

std::string Cluster::HearsOthers(Table table) const {
  return StrFormat("(SELECT count() FROM system.replicas WHERE database = '%s' AND table = '%s' AND is_readonly) = 0",
                   url_.database, kTableNames[static_cast<size_t>(table)]);
}

std::string Cluster::PointBytes() {
  // Of a length: a varint.
  const auto varint = [](const std::string& n) {
    return StrFormat("1 + (%s > 127) + (%s > 16383) + (%s > 2097151)", n, n, n);
  };
  uint64_t fixed = 0;
  std::string sql;
  for (const ColumnSpec& column : kPointColumns) {
    std::string_view type = column.type;
    const bool is_array = type.starts_with("Array(");
    if (is_array) type = type.substr(6, type.size() - 7);
    if (type == "String") {
      sql += StrFormat(" + arraySum(arrayMap(x -> length(x) + %s, %s))", varint("length(x)"), column.name);
    }
    const uint64_t bytes = type == "String"                         ? 0
                           : type.ends_with("64")                   ? 8
                           : type.ends_with("32")                   ? 4
                           : type.ends_with("16") || type == "Date" ? 2
                                                                    : 1;
    if (!is_array) {
      fixed += bytes;
      continue;
    }
    const std::string length = StrFormat("length(%s)", column.name);
    sql += StrFormat(" + %d * %s + %s", bytes, length, varint(length));
  }
  return std::to_string(fixed) + sql;
}

Status Cluster::Execute(uint32_t shard, std::string_view sql) const {
  Status failed = UnavailableError(StrFormat("no ClickHouse server of shard %d answers", shard));
  for (Server* server : ServersOf(shard)) {
    Settings settings;
    // A day may be larger than what one may drop by default (50 GB); where only the server's configuration can say that
    // it may, its error tells how.
    if (server->settings.contains("max_partition_size_to_drop")) settings = {{"max_partition_size_to_drop", "0"}};
    failed = server->http.Execute(sql, settings, kDdlTimeoutNs);
    if (failed.code() != StatusCode::kUnavailable) break;
  }
  return failed;
}

Status Cluster::InsertAt(Server* server, Table table, std::string_view columns, std::string_view rows,
                         const std::string& query_id) const {
  Settings settings = {{"query_id", query_id}};
  const auto add = [&](const char* name, std::string value) {
    if (server->settings.contains(name)) settings.emplace_back(name, std::move(value));
  };
  // One insert is one block is one part: all of it is there or nothing.
  add("max_insert_block_size", "1000000000");
  add("max_insert_block_size_bytes", "0");
  add("min_insert_block_size_rows", "1000000000");
  add("min_insert_block_size_bytes", "4000000000");
  add("input_format_parallel_parsing", "0");
  add("async_insert", "0");
  // The same block sent again is recognised on replicas, whatever a profile says.
  add("insert_deduplicate", "1");
  add("deduplicate_insert", "enable");
  if (replicated_ && url_.quorum > 1) add("insert_quorum", std::to_string(url_.quorum));
  return server->http.Insert(StrFormat("INSERT INTO %s (%s) FORMAT RowBinary", Local(table), columns), rows, settings,
                             std::max<uint64_t>(url_.patience_ns, kNsPerSecond), may_send_);
}

Status Cluster::AwaitEnd(Server* server, const std::string& query_id) const {
  const std::string sql =
      StrFormat("SELECT query_id FROM system.processes WHERE position(query_id, '%s') = 1 FORMAT RowBinary", query_id);
  const uint64_t until_ns = MonotonicNowNs() + url_.patience_ns;
  for (;;) {
    ASSIGN_OR_RETURN(const auto running, Column(server->http, sql));
    if (running.empty()) return OkStatus();
    if (MonotonicNowNs() >= until_ns) {
      return UnavailableError(StrFormat("ClickHouse %s works on an insert for longer than %s",
                                        server->http.address().Text(), FormatDurationNs(url_.patience_ns)));
    }
    std::this_thread::sleep_for(kRetryPause);
  }
}

std::string Cluster::InsertId(Table table, const std::string& what) const {
  return StrFormat("%s-%s-%s", kInsertIdPrefix, Local(table), what);
}

Status Cluster::AwaitInserts() const {
  std::this_thread::sleep_for(kBeginPause);
  for (Server* server : ServersOf(0)) {
    const Status ended = AwaitEnd(server, StrFormat("%s-%s.", kInsertIdPrefix, url_.database));
    Saw(server, ended);
    // One that cannot be reached works on nothing for long: its tables are written to by way of others then.
    if (!ended.ok() && !Column(server->http, "SELECT version() FORMAT RowBinary").ok()) continue;
    RETURN_IF_ERROR(ended);
  }
  return OkStatus();
}

Status Cluster::Insert(uint32_t shard, Table table, std::string_view columns, std::string_view rows,
                       const std::string& id, const std::function<StatusOr<bool>()>& is_there) const {
  const uint64_t until_ns = MonotonicNowNs() + url_.patience_ns;
  Status failed = UnavailableError(StrFormat("no ClickHouse server of shard %d answers", shard));
  bool tried = false;
  do {
    for (Server* server : ServersOf(shard)) {
      if (tried && !replicated_ && is_there != nullptr) {
        // The table takes the same rows twice. So first nobody may be at it any more, and they must not be there.
        failed = Column(server->http, "SELECT version() FORMAT RowBinary").status();
        if (!failed.ok()) continue;
        std::this_thread::sleep_for(kBeginPause);
        failed = AwaitEnd(server, id);
        if (!failed.ok()) continue;
        const StatusOr<bool> there = is_there();
        if (there.ok() && *there) return OkStatus();
        failed = there.status();
        if (!failed.ok()) continue;
      }
      // Replicated tables recognise a block that they have, whichever replica took it.
      tried = true;
      failed = InsertAt(server, table, columns, rows, id);
      Saw(server, failed);
      if (failed.ok()) return OkStatus();
      if (failed.code() == StatusCode::kPermissionDenied || failed.code() == StatusCode::kNotFound ||
          failed.code() == StatusCode::kFailedPrecondition) {
        return failed;
      }
    }
    std::this_thread::sleep_for(kRetryPause);
  } while (MonotonicNowNs() < until_ns);
  return failed;
}

StatusOr<uint64_t> Cluster::DiskBytes() const {
  uint64_t total = 0;
  for (uint32_t shard = 1; shard <= shards_; ++shard) {
    Status failed = UnavailableError(StrFormat("no ClickHouse server of shard %d answers", shard));
    for (Server* server : ServersOf(shard)) {
      const auto bytes = server->http.Select(
          StrFormat("SELECT toUInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = '%s' FORMAT "
                    "RowBinary",
                    url_.database),
          {}, nullptr, AskTimeoutNs());
      failed = bytes.status();
      if (!failed.ok()) continue;
      RowReader in(*bytes);
      total += in.U64();
      break;
    }
    RETURN_IF_ERROR(failed);
  }
  return total;
}

}  // namespace pyrometer::store::clickhouse

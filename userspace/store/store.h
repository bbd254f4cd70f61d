// The store in a folder: RocksDB underneath, our own layout on top (docs/formats/store.md, docs/design/005-store.md).
// In ClickHouse instead: clickhouse/clickhouse.h, behind the same interface.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<store::Store> s, store::Store::Open("/var/lib/pyrometer", {}));
//   ASSIGN_OR_RETURN(store::AppendResult r, s->Append(batch));   // durable when it returns OK
//   query::Engine engine(s.get());                               // questions go through query/
//
// Exactly once: a batch and the sequence number of its agent go to disk in one atomic, synced
// write. A batch whose sequence is not above the agent's newest is a resend: recognised, not
// written. A jump in the sequence is accepted and counted (the agent dropped its spool).
// Appends that wait at the same time share one sync (group commit).
//
// Housekeeping turns hours that have ended into their dense form with sums per hour and day, and lets go what is older
// than it is to be kept. Call it every half minute or so; it does a bounded piece of work per call.
//
// Threads: every method from any thread. Batches are staged on the threads of their callers; only new names, series and
// stacks take a common lock. Readers never wait for a sync.
//
// Memory: `memory_budget_bytes`, divided as memory_shares.h says. A single trie that alone is larger than its share
// still loads: see max_trie_nodes. Opening reads counters only; caches fill on demand.
//
// Not promised: deleting stacks and names that nothing refers to any more; two processes on one folder.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

// Version of the layout on disk that this program writes.
inline constexpr uint32_t kFormatVersion = 4;
// The oldest one that it reads. All bytes of it mean the same in the newer one: opening a store makes it one of that.
inline constexpr uint32_t kOldestFormatVersion = 2;

// A window may start at most this far ahead of the store's clock; more means a node with a wrong clock.
inline constexpr uint64_t kMaxClockAheadNs = 3600 * kNsPerSecond;
// And not before 2000-01-01.
inline constexpr int64_t kMinTimeNs = 946'684'800'000'000'000;
// An hour is taken up by housekeeping this long after it ended: agents send windows of 10 s within seconds.
inline constexpr uint64_t kHourGraceNs = 600 * kNsPerSecond;

inline constexpr uint64_t kDayNs = 24ull * 3600 * kNsPerSecond;

// What one tenant may have. Flags of `pyrometer store`; --limit TENANT:NAME=VALUE overrides one for one tenant.
struct TenantLimits {
  // Live series; points of more go to one series per service and type, labelled with kFoldedLabel. Flag --max-series
  uint64_t max_series = 1'000'000;
  // New stack nodes of all services on one day (UTC) or since a start on it, with ClickHouse all that there are;
  // deeper frames of stacks beyond it are counted under kFoldedStacksName. Flag --max-stacks
  uint64_t max_nodes = 16u << 20;
  // Text of names that the tenant was the first to send; beyond it as max_nodes. Flag --max-names
  uint64_t max_name_bytes = 1u << 30;
  // Rate of points at rest; above it streams are read slower, then ended. 0 = no limit. Flag --max-rate
  uint64_t max_bytes_per_s = 0;
  // Windows older than this are let go. 0 = keep for ever. Flag --retention
  uint64_t retention_ns = 30 * kDayNs;
  // Sums per hour and day without instance labels, histories of functions. 0 = for ever. Flag --retention-rollups
  uint64_t rollup_retention_ns = 400 * kDayNs;
  // When within its window each sample was taken (sub-second views). 0 = not kept at all. Flag --retention-offsets
  uint64_t offsets_retention_ns = kDayNs;
  // Bytes of windows, without keys and compression; beyond it the oldest hours go first. 0 = no limit. Flag
  // --retention-bytes
  uint64_t retention_bytes = 0;
};

struct StoreOptions {
  // See above. Below 16 MiB counts as 16 MiB.
  uint64_t memory_budget_bytes = 256u << 20;
  // Below this much free space appends are refused, so that compaction keeps room to work. 0 = no check.
  uint64_t min_free_bytes = 64u << 20;
  TenantLimits limits;
  // For single tenants, instead of `limits`.
  std::map<std::string, TenantLimits> tenant_limits;
  // Tenants that may exist; more are refused.
  uint32_t max_tenants = 10'000;
  // Threads that one question may use beside its own.
  unsigned read_threads = 2;
  // Housekeeping leaves an hour alone until it is over and quiet, except a service's of which so much is fresh: large
  // services are summed up as they go. 0 = never. Not in ClickHouse, where points stay as they are.
  uint64_t busy_hour_bytes = 4u << 20;
  // Stack nodes of a service after which a new trie takes those that come: deploys bring new stacks for as long as a
  // store lives, and only those in use have to be in memory. Up to four times as many where the code does not change.
  // 0 = by the memory budget, UINT64_MAX = never.
  uint64_t max_trie_nodes = 0;
  // FAILED_PRECONDITION instead of creating a folder that is not there.
  bool create_if_missing = true;
  // Unix nanoseconds; tests set it.
  std::function<int64_t()> now = [] { return UnixNowNs(); };
};

// Label of the series that takes the points of those beyond TenantLimits::max_series.
inline constexpr std::string_view kFoldedLabel = "folded";
inline constexpr std::string_view kFoldedSeriesValue = "series limit of this tenant reached";
// The frame under which stacks are counted whose deeper frames did not fit.
inline constexpr std::string_view kFoldedStacksName = "[stack limit of this tenant reached]";

struct HousekeepingResult {
  uint64_t hours = 0;           // (service, hour) pairs that got their dense form
  uint64_t rows = 0;            // (window, stack) rows in them
  uint64_t days = 0;            // sums of days made or added to
  uint64_t functions = 0;       // histories of functions that were made anew because names came late
  uint64_t series_removed = 0;  // series without any window left, removed from the index
  uint64_t tries_packed = 0;    // stack tries that were rewritten densely
  bool more = false;            // there is more to do at once
  int64_t kept_since_ns = 0;    // windows before it are gone, of the tenant that keeps them longest; 0 = all are kept
};

struct BackupInfo {
  uint32_t id = 0;
  int64_t time_ns = 0;  // Unix time
  uint64_t bytes = 0;   // all that it needs; backups share files. Listed without `verify` or restored: of the database
};

class Store : public StoreReader, public StoreWriter {
 public:
  // Opens or creates. Errors say what to do:
  //   PERMISSION_DENIED    folder not writable
  //   FAILED_PRECONDITION  in use by another pyrometer store; of a newer format; not there
  //   DATA_LOSS            files damaged
  //   RESOURCE_EXHAUSTED   disk full
  static StatusOr<std::unique_ptr<Store>> Open(const std::string& path, StoreOptions options);

  // Closes cleanly. No call may be running.
  ~Store() override = default;

  // One piece of housekeeping: at most about `budget_ns` of work. `now_ns`: Unix nanoseconds.
  virtual StatusOr<HousekeepingResult> Housekeep(int64_t now_ns, uint64_t budget_ns = 2 * kNsPerSecond) = 0;

  // A backup of this moment into `folder`, which may hold earlier ones: files that it has are not copied again. Symbols
  // that the server keeps in the data folder are in it. While it runs, appends and questions go on.
  virtual StatusOr<BackupInfo> Backup(const std::string& folder) = 0;

  // Forgets what can be read again: blocks of files, views of functions. Questions are slower after it.
  virtual void LetGoOfCaches() = 0;

  // Bytes on disk when everything is in its final form (flushes and compacts all): for measuring.
  virtual Status Settle() = 0;
};

// Backups in `folder`, oldest first; each is checked against its sums when `verify`.
StatusOr<std::vector<BackupInfo>> ListBackups(const std::string& folder, bool verify);
// Puts backup `id` (0 = the newest) into `data`, which must be empty or absent. Checks every file's sum.
StatusOr<BackupInfo> RestoreBackup(const std::string& folder, uint32_t id, const std::string& data);

// What `pyrometer store fsck` found.
struct FsckProblem {
  std::string place;    // family and file, or key
  std::string what;     // "checksum mismatch in block …"
  std::string affects;  // what a reader loses
};
struct FsckReport {
  uint64_t files = 0;
  uint64_t records = 0;
  uint64_t samples = 0;  // counted from stack samples
  std::vector<FsckProblem> problems;
  uint64_t problem_count = 0;  // may be more than listed
};
inline constexpr size_t kMaxFsckProblems = 100;
// Reads everything without changing anything: sums of files, form of each record, references between them, sums of
// samples against totals, rollups against cells. The folder must not be in use. An error only when it cannot even
// begin.
StatusOr<FsckReport> Fsck(const std::string& path);

}  // namespace pyrometer::store

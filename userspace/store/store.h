// The store in a folder: RocksDB underneath, our own chunk layout on top (docs/formats/store.md).
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
// Threads: every method from any thread. Appends are applied one group at a time by whichever
// caller comes first; readers never wait for a sync.
//
// Memory: `memory_budget_bytes` = half RocksDB (block cache and write buffers together), a quarter
// stack tries (28 to 52 bytes per node, whole services loaded on demand, least recently used
// leave), a quarter names (strings, frames, series: two-generation caches). A single service whose
// trie alone is larger than the quarter still loads: the hard bound there is max_nodes_per_trie.
// Opening reads counters only; caches fill on demand.
//
// Not promised: deleting stacks and names that nothing refers to any more; two processes on one folder.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

// Version of the layout on disk that this program writes (and the only one that it reads).
inline constexpr uint32_t kFormatVersion = 1;

// A window may start at most this far ahead of the store's clock; more means a node with a wrong clock.
inline constexpr uint64_t kMaxClockAheadNs = 3600 * kNsPerSecond;
// And not before 2000-01-01.
inline constexpr int64_t kMinTimeNs = 946'684'800'000'000'000;

struct StoreOptions {
  // Half for RocksDB, a quarter each for tries and names. Below 16 MiB counts as 16 MiB.
  uint64_t memory_budget_bytes = 256u << 20;
  // Windows older than this are deleted by RunMaintenance. 0 = keep for ever.
  uint64_t retention_ns = 30ull * 24 * 3600 * kNsPerSecond;
  // Below this much free space appends are refused, so that compaction keeps room to work. 0 = no check.
  uint64_t min_free_bytes = 64u << 20;
  // Live series; a batch that needs more is refused with RESOURCE_EXHAUSTED.
  uint64_t max_series = 1'000'000;
  // Stack nodes of one service; stacks beyond it are counted under one visible frame
  // "[stack limit of this service reached]".
  uint32_t max_nodes_per_trie = 16u << 20;
  // FAILED_PRECONDITION instead of creating a folder that is not there.
  bool create_if_missing = true;
  // Unix nanoseconds; tests set it.
  std::function<int64_t()> now = [] { return UnixNowNs(); };
};

struct MaintenanceResult {
  int64_t cutoff_ns = 0;        // windows that start before it are gone; 0 = retention is off
  uint64_t series_trimmed = 0;  // series that lost windows
  uint64_t series_removed = 0;  // series without any window left, removed from the index
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

  // Deletes windows older than the retention. Cheap when there is nothing to do; call it every few
  // minutes. `now_ns`: Unix nanoseconds.
  virtual StatusOr<MaintenanceResult> RunMaintenance(int64_t now_ns) = 0;
};

}  // namespace pyrometer::store

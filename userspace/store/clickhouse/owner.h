// Which of several stores may write to a database: the one that was opened last. Inside this room only.
//
// ClickHouse has no lock and no transaction, so it is an agreement about time. A store looks who owns the database
// before each insert, after the rows are packed and at most kLookAgeNs before they go out; it acknowledges nothing
// unless it still owns it when everything is in. One that takes over writes that down where every server that answers
// can see it, waits until what others had begun by then is over (kBeginPause, cluster.cc, is longer than kLookAgeNs),
// and only then reads what there is. So it knows everything that was ever acknowledged, and nothing is added behind its
// back, unless a process is stopped between its look and its insert for as long as the other takes to open. Even then
// it acknowledges nothing, and what it writes replaces nothing of the new owner, whose numbers are larger: by
// kTakeOverGap, and something random, so that of two that open at the same moment one wins for sure.
//
// Threads: all methods from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/store/clickhouse/cluster.h"

namespace pyrometer::store::clickhouse {

// In Family::kMeta.
inline constexpr std::string_view kOwnerKey = "owner";
inline constexpr uint64_t kTakeOverGap = uint64_t{1} << 32;

class Owner {
 public:
  explicit Owner(Cluster* cluster);
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  // Of this store; tells people which process it is.
  const std::string& name() const { return name_; }
  // Whose name stands there; "" = nobody's.
  StatusOr<std::string> Current() const;
  // Once the name is written down: until nobody can still be writing who does not know. From then on each insert of the
  // cluster looks first.
  Status TakeOver(bool from_another);

  // FAILED_PRECONDITION when another store has taken over, for ever then; UNAVAILABLE when nobody can be asked.
  Status Look(uint64_t max_age_ns = 0);
  // What Look said at last of another store.
  Status lost() const;

  static constexpr uint64_t kLookAgeNs = 200 * kNsPerMs;

 private:
  std::string Sql() const;

  Cluster& cluster_;
  const std::string name_;
  std::atomic<uint64_t> looked_ns_{0};  // monotonic; before the question went out
  mutable std::mutex mutex_;
  Status lost_ = OkStatus();  // guarded by mutex_
};

}  // namespace pyrometer::store::clickhouse

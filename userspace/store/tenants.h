// Tenants: who they are, what they have, what they may have. Inside this room only.
//
// What a tenant has is written with every batch that changes it, in the batch's own write, so it is true after any
// crash. Threads: all methods from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/strings.h"
#include "userspace/store/series.h"
#include "userspace/store/store.h"

namespace pyrometer::store {

inline constexpr TenantId kDefaultTenant = 1;
inline constexpr size_t kMaxTenantNameBytes = 150;

// Stored numbers of one tenant; differences are added with Plus.
struct TenantUsage {
  uint64_t series = 0;
  uint64_t nodes = 0;
  uint64_t frames = 0;
  uint64_t name_bytes = 0;
  uint64_t samples = 0;
  uint64_t folded_samples = 0;
  uint64_t folded_points = 0;
  bool operator==(const TenantUsage&) const = default;
  void Plus(const TenantUsage& more);
  void Minus(const TenantUsage& less);
};
struct TenantRecord {
  std::string name;
  TenantUsage usage;
  uint32_t kept_since_hour = 0;  // windows before it were let go for their bytes
};
std::string TenantKey(TenantId id);
std::string EncodeTenant(const TenantRecord& record);
StatusOr<TenantRecord> DecodeTenant(std::string_view bytes);

class TenantTable {
 public:
  explicit TenantTable(const StoreOptions& options);

  // 0 when unknown.
  TenantId Find(std::string_view name) const;
  // RESOURCE_EXHAUSTED beyond max_tenants, INVALID_ARGUMENT for a malformed name. Callers hold the lock under which ids
  // are given out.
  StatusOr<TenantId> FindOrAdd(std::string_view name);
  std::string Name(TenantId id) const;
  const TenantLimits& Limits(TenantId id) const;
  // What it has, with what is staged and perhaps not on disk yet.
  TenantUsage Usage(TenantId id) const;
  // Of that the stack nodes that came on this day (UTC), as far as this process took them in.
  uint64_t NodesOfDay(TenantId id) const;
  // Days since 1970 (UTC).
  int64_t Today() const { return options_.now() / static_cast<int64_t>(kDayNs); }
  std::vector<TenantInfo> List() const;
  size_t size() const;

  // While opening.
  void Load(TenantId id, TenantRecord record);

  void AddUsage(TenantId id, const TenantUsage& more);
  void TakeUsage(TenantId id, const TenantUsage& less);
  TenantRecord Record(TenantId id) const;
  void SetKeptSince(TenantId id, uint32_t hour);

  // Rate limit. Before a batch: waits while the tenant is in debt; RESOURCE_EXHAUSTED when that would take too long.
  Status AwaitRate(TenantId id);
  void ChargeRate(TenantId id, uint64_t bytes);

  // Bytes of windows per hour; for retention by bytes.
  void AddBytes(TenantId id, uint32_t hour, int64_t bytes);
  std::map<uint32_t, int64_t> Bytes(TenantId id) const;
  int64_t BytesOf(TenantId id, uint32_t hour) const;
  // The first hour from `since` on that may stay when the tenant's windows are to fit its retention_bytes: oldest hours
  // go first, never the newest that has any.
  uint32_t KeptForBytes(TenantId id, uint32_t since) const;
  void ForgetBytes(TenantId id, uint32_t before_hour);

 private:
  struct State {
    TenantRecord record;
    TenantLimits limits;
    std::map<uint32_t, int64_t> bytes;  // by hour
    int64_t day = 0;                    // since 1970
    uint64_t day_nodes = 0;             // that came on it
    double debt_bytes = 0;              // above what the rate allows
    uint64_t debt_at_ns = 0;
    uint64_t throttled = 0;
    int waiting = 0;  // batches in AwaitRate
  };
  // Debt as of now.
  static void Pay(State* state, uint64_t now_ns);

  const StoreOptions options_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<State>> states_;  // by id; 0 is not used
  std::unordered_map<std::string, TenantId, TransparentStringHash, std::equal_to<>> ids_;
};

}  // namespace pyrometer::store

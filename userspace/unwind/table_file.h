// Unwind tables on disk, so that a binary's is made once on a machine and not at each start.
//
//   TableCache cache("/var/cache/pyrometer/unwind", 256 << 20);
//   if (auto table = cache.Load(build_id)) use(*table);
//   else cache.Store(build_id, made);
//
// The format is docs/formats/unwind_table.md. A file of another version, of another builder or with a wrong checksum
// counts as absent. Files are written beside their place and renamed, so readers see whole ones.
//
// Threads: any. Cost: libLLVM-14: 4 MiB, loaded and checked in 5 ms. What does not work (no space, no rights) costs
// only the building next time: Store says so, Load finds nothing.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/unwind/unwind_table.h"

namespace pyrometer::unwind {

// Raised when the builder makes other rows of the same file.
inline constexpr uint32_t kBuilderVersion = 2;

std::string SerializeTable(const UnwindTable& table);
// Every number is checked: the walk in the kernel must never be led outside of a table. DATA_LOSS, or
// FAILED_PRECONDITION for another version.
StatusOr<UnwindTable> ParseTable(std::string_view bytes);

class TableCache {
 public:
  // An empty folder: nothing is kept. It is made when needed. When its files exceed `max_bytes`, those not read for
  // longest are removed.
  TableCache(std::string folder, uint64_t max_bytes);

  std::optional<UnwindTable> Load(const BuildId& build_id);
  // Whether there was a file when this object was made, or was written since. Cost: a look-up in memory.
  bool Has(const BuildId& build_id) const;
  Status Store(const BuildId& build_id, const UnwindTable& table);

 private:
  // "" for an id that is no file name.
  static std::string NameOf(const BuildId& build_id);
  void MakeRoom(uint64_t bytes);

  const std::string folder_;
  const uint64_t max_bytes_;
  mutable std::mutex mutex_;  // guards names_; one MakeRoom at a time
  std::unordered_set<std::string> names_;
};

}  // namespace pyrometer::unwind

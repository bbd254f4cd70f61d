// A folder of symbol index files, one per build ID.
//
//   IndexCache cache({.folder = "/var/cache/pyrometer/symbols"});
//   if (auto index = cache.Load(build_id)) …
//   StatusOr<SymbolIndex> mapped = cache.Store(build_id, built);
//
// Files are "<build ID>.psym" (docs/formats/symbol_index.md), written under another name and renamed, so that a
// reader sees a whole file or none. One that is damaged, of another version or of another binary is removed and made
// anew. When the folder holds more than `max_bytes` the files not used for longest go; a use is noted
// in the file's modification time. Files of other names are left alone.
//
// Several processes may share a folder. It is created with mode 0700, and one that others may write is
// refused: a mapped file that somebody truncates would end us with SIGBUS.
//
// Threads: any. Cost: Load maps (30 µs); Store writes and syncs, and lists the folder.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {

class IndexCache {
 public:
  struct Options {
    std::string folder;               // empty: no folder, nothing is kept
    uint64_t max_bytes = 2ull << 30;  // of all files
  };
  struct Counters {
    uint64_t hits = 0;     // loaded
    uint64_t misses = 0;   // not there
    uint64_t damaged = 0;  // removed: damaged or of another version
    uint64_t stored = 0;
    uint64_t evicted = 0;  // removed for max_bytes
    uint64_t failed = 0;   // could not be written
  };

  explicit IndexCache(Options options);

  // Whether a folder is there and safe; otherwise why not.
  const Status& status() const { return status_; }
  const std::string& folder() const { return options_.folder; }

  // nullopt: not there (any more).
  std::optional<SymbolIndex> Load(const BuildId& build_id);
  // Writes `index` and gives it back from the file. RESOURCE_EXHAUSTED when it alone is more than max_bytes.
  StatusOr<SymbolIndex> Store(const BuildId& build_id, const SymbolIndex& index);

  Counters counters() const;

 private:
  std::string PathOf(const BuildId& build_id) const;
  void MakeRoom(uint64_t bytes, const std::string& keep);

  const Options options_;
  Status status_;
  mutable std::mutex mutex_;
  Counters counters_;
};

}  // namespace pyrometer::symbolize

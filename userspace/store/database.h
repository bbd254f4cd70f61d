// RocksDB, opened the way this store needs it, and its errors turned into ours. Inside this room only.
//
// Column families keep what is read together apart from the rest; docs/formats/store.md has their keys.
// Threads: RocksDB's; Write is called by one thread at a time (the leader of an append group).
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/store.h"

namespace pyrometer::store {

// Index into the table of column families; names in database.cc.
enum class Family : uint8_t {
  kMeta = 0,        // format version, counters
  kNames = 1,       // strings and frames, both directions
  kTries = 2,       // services and their stack nodes
  kSeries = 3,      // series records, their keys, label postings
  kProfiles = 4,    // stack samples
  kHistograms = 5,  // histograms
  kTotals = 6,      // totals of every point
  kAgents = 7,      // last sequence and statistics per agent
};
inline constexpr size_t kFamilies = 8;

inline rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

class Database {
 public:
  static StatusOr<std::unique_ptr<Database>> Open(const std::string& path, const StoreOptions& options);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  rocksdb::ColumnFamilyHandle* family(Family family) const { return handles_[static_cast<size_t>(family)]; }

  // false when the key is not there.
  StatusOr<bool> Get(Family family, std::string_view key, std::string* value) const;
  // Same order as `keys`; found[i] tells whether values[i] is there.
  Status MultiGet(Family family, const std::vector<std::string>& keys, std::vector<std::string>* values,
                  std::vector<bool>* found) const;
  // Calls `visit` for every key in [from, to), in order, until it returns false or an error. `to` empty: to the end.
  Status Scan(Family family, std::string_view from, std::string_view to,
              const std::function<StatusOr<bool>(std::string_view key, std::string_view value)>& visit) const;
  std::unique_ptr<rocksdb::Iterator> NewIterator(Family family) const;

  // Synced (durable on return) or left to the next sync. After a disk-full error the next Write tries to resume.
  Status Write(rocksdb::WriteBatch* batch, bool sync);

  // Bytes of block cache and write buffers in use.
  uint64_t MemoryBytes() const;
  uint64_t DiskBytes() const;

  // Our error for one of RocksDB's, with what to do about it.
  Status FromRocks(const rocksdb::Status& status, std::string_view doing) const;

 private:
  Database(std::string path, const StoreOptions& options) : path_(std::move(path)), options_(options) {}
  Status CheckFolder();
  Status OpenRocks();
  Status CheckFormat(bool created);
  Status CheckFreeSpace();

  const std::string path_;
  const StoreOptions options_;
  std::shared_ptr<rocksdb::Cache> cache_;
  std::unique_ptr<rocksdb::DB> db_;
  std::array<rocksdb::ColumnFamilyHandle*, kFamilies> handles_{};
  std::vector<rocksdb::ColumnFamilyHandle*> foreign_handles_;  // of a newer format; closed at once
  Status write_error_;                                         // of the last write; OK again once RocksDB has recovered
  uint64_t next_space_check_ns_ = 0;
  bool space_is_short_ = false;
};

}  // namespace pyrometer::store

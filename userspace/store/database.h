// RocksDB, opened the way this store needs it, and its errors turned into ours. Inside this room only.
//
// Column families keep what is read together apart from the rest; docs/formats/store.md has their keys.
// Threads: RocksDB's; Write is called by one thread at a time (the leader of an append group), Maintain by another.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/store.h"

namespace pyrometer::store {

// Index into the table of column families; names in database.cc.
enum class Family : uint8_t {
  kMeta = 0,     // format version, counters, tenants
  kNames = 1,    // strings, functions and frames, both directions
  kTries = 2,    // services and their stack nodes
  kSeries = 3,   // records, keys and postings of series and groups
  kWindows = 4,  // stack samples of hours that housekeeping has not taken up
  kCells = 5,    // stack samples of those that it has
  kOffsets = 6,  // when within its window each sample was taken
  kHistograms = 7,
  kTotals = 8,      // totals of every point; of groups by hour
  kRollups = 9,     // sums of groups by hour and day
  kFunctions = 10,  // cost of functions by hour
  kAgents = 11,     // last sequence and statistics per agent
};
inline constexpr size_t kFamilies = 12;
std::string_view FamilyName(Family family);
// What is lost to a reader when a block of this family is damaged, for people.
std::string_view BlastRadius(Family family);

inline rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// What the compaction filter lets go: everything of an hour before its tenant's cutoff. Readers hide the same.
// Threads: any; a table is replaced as a whole.
class RetentionTable {
 public:
  struct Cutoffs {
    uint32_t windows = 0;  // hours since the epoch; what is in earlier ones is gone
    uint32_t offsets = 0;
    uint32_t rollups = 0;
    bool operator==(const Cutoffs&) const = default;
  };
  struct Content {
    std::vector<uint32_t> tenant_of_trie;  // by trie id; 0 = unknown: kept
    std::vector<Cutoffs> cutoffs;          // by tenant id
  };
  void Set(std::shared_ptr<const Content> content);
  std::shared_ptr<const Content> Get() const;
  // Of a key of `family`; false for families without times.
  static bool Expired(const Content& content, Family family, std::string_view key);

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Content> content_ = std::make_shared<const Content>();
};

// One consistent state of all families; nullptr-like when empty: the newest.
class ReadView {
 public:
  explicit ReadView(rocksdb::DB* db) : db_(db), snapshot_(db->GetSnapshot()) {}
  ~ReadView() { db_->ReleaseSnapshot(snapshot_); }
  ReadView(const ReadView&) = delete;
  ReadView& operator=(const ReadView&) = delete;
  const rocksdb::Snapshot* get() const { return snapshot_; }

 private:
  rocksdb::DB* const db_;
  const rocksdb::Snapshot* const snapshot_;
};

// RocksDB's own log file is not written: it aborts the process (an assertion in Debian's build of 7.8) when the disk is
// full, which is just when the store has to go on and say so. Whatever matters comes back as a Status.
std::shared_ptr<rocksdb::Logger> SilentLog();

enum class OpenMode : uint8_t {
  kReadWrite = 0,
  kReadOnly = 1,         // changes nothing; FAILED_PRECONDITION when a store runs on the folder
  kReadOnlySalvage = 2,  // the same, and what is damaged in the log is left out instead of refused
};

class Database {
 public:
  // `env`: nullptr = the machine's files; tests have others. Must outlive the database.
  static StatusOr<std::unique_ptr<Database>> Open(const std::string& path, const StoreOptions& options,
                                                  rocksdb::Env* env = nullptr, OpenMode mode = OpenMode::kReadWrite);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  rocksdb::ColumnFamilyHandle* family(Family family) const { return handles_[static_cast<size_t>(family)]; }
  rocksdb::DB* rocks() const { return db_.get(); }
  RetentionTable& retention() { return *retention_; }
  const RetentionTable& retention() const { return *retention_; }

  std::shared_ptr<ReadView> NewView() const { return std::make_shared<ReadView>(db_.get()); }
  // false when the key is not there.
  StatusOr<bool> Get(Family family, std::string_view key, std::string* value, const ReadView* view = nullptr) const;
  // Same order as `keys`; found[i] tells whether values[i] is there.
  Status MultiGet(Family family, const std::vector<std::string>& keys, std::vector<std::string>* values,
                  std::vector<bool>* found) const;
  // Calls `visit` for every key in [from, to), in order, until it returns false or an error. `to` empty: to the end.
  Status Scan(Family family, std::string_view from, std::string_view to,
              const std::function<StatusOr<bool>(std::string_view key, std::string_view value)>& visit,
              const ReadView* view = nullptr) const;
  // `sequential`: reads ahead and leaves the cache alone, for those who read much once.
  std::unique_ptr<rocksdb::Iterator> NewIterator(Family family, const ReadView* view = nullptr,
                                                 bool sequential = false) const;

  // Synced (durable on return) or left to the next sync. After a disk-full error the next Write tries to resume.
  Status Write(rocksdb::WriteBatch* batch, bool sync);
  // Rewrites the files of [from, to) of a family, so that what was deleted gives its space back.
  Status Compact(Family family, std::string_view from, std::string_view to);
  // Everything in memory to files.
  Status Flush();

  // Empties the block cache of what nobody reads at the moment.
  void LetGoOfCache();
  // Bytes of block cache and write buffers in use.
  uint64_t MemoryBytes() const;
  uint64_t DiskBytes() const;
  uint64_t syncs() const { return syncs_.load(std::memory_order_relaxed); }
  uint64_t write_errors() const { return write_errors_.load(std::memory_order_relaxed); }
  const std::string& path() const { return path_; }

  // Our error for one of RocksDB's, with what to do about it.
  Status FromRocks(const rocksdb::Status& status, std::string_view doing) const;

 private:
  Database(std::string path, const StoreOptions& options) : path_(std::move(path)), options_(options) {}
  Status CheckFolder();
  Status OpenRocks(rocksdb::Env* env, OpenMode mode);
  Status CheckFormat(bool created, OpenMode mode);
  // The same by a look that changes nothing.
  Status CheckFormatBefore(const rocksdb::DBOptions& db_options) const;
  Status CheckVersion(std::string_view value) const;
  Status NotOurs() const;
  Status CheckFreeSpace();

  const std::string path_;
  const StoreOptions options_;
  const std::shared_ptr<RetentionTable> retention_ = std::make_shared<RetentionTable>();
  std::shared_ptr<rocksdb::Cache> cache_;
  std::unique_ptr<rocksdb::DB> db_;
  std::array<rocksdb::ColumnFamilyHandle*, kFamilies> handles_{};
  std::vector<rocksdb::ColumnFamilyHandle*> foreign_handles_;  // of a newer format; closed at once
  std::mutex write_mutex_;                                     // guards the next three
  Status write_error_;                                         // of the last write; OK again once RocksDB has recovered
  uint64_t next_space_check_ns_ = 0;
  bool space_is_short_ = false;
  std::atomic<uint64_t> syncs_{0};
  std::atomic<uint64_t> write_errors_{0};
};

}  // namespace pyrometer::store

#include "userspace/store/database.h"

#include <errno.h>
#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/compaction_filter.h>
#include <rocksdb/convenience.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/store/codec.h"
#include "userspace/store/memory_shares.h"

namespace pyrometer::store {
namespace {

constexpr std::array<std::string_view, kFamilies> kFamilyNames = {"default", "names",   "tries",     "series",
                                                                  "windows", "cells",   "offsets",   "histograms",
                                                                  "totals",  "rollups", "functions", "agents"};
constexpr std::string_view kFormatKey = "format";

// How long a look at the free space of the file system counts.
constexpr uint64_t kSpaceCheckIntervalNs = kNsPerSecond / 2;
// Files are rewritten at least this often, so that what has expired gives its space back.
constexpr uint64_t kPeriodicCompactionSeconds = 86'400;
constexpr uint64_t kMinMemoryBudget = 16u << 20;

class SilentLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

// The process that holds RocksDB's lock on the folder; 0 when it cannot be told. Never call it while this process
// itself holds the lock: closing any descriptor of a file drops all POSIX locks that the process has on it.
pid_t LockHolder(const std::string& path) {
  const UniqueFd fd(open((path + "/LOCK").c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return 0;
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid;
}

constexpr std::string_view kHeldByUs = "lock hold by current process";

// Lets expired records go when RocksDB rewrites a file anyway.
class RetentionFilter : public rocksdb::CompactionFilter {
 public:
  RetentionFilter(Family family, std::shared_ptr<const RetentionTable::Content> content)
      : family_(family), content_(std::move(content)) {}
  const char* Name() const override { return "pyrometer.Retention"; }
  bool Filter(int, const rocksdb::Slice& key, const rocksdb::Slice&, std::string*, bool*) const override {
    return RetentionTable::Expired(*content_, family_, ToView(key));
  }
  bool FilterMergeOperand(int, const rocksdb::Slice& key, const rocksdb::Slice&) const override {
    return RetentionTable::Expired(*content_, family_, ToView(key));
  }

 private:
  const Family family_;
  const std::shared_ptr<const RetentionTable::Content> content_;
};

class RetentionFilterFactory : public rocksdb::CompactionFilterFactory {
 public:
  RetentionFilterFactory(Family family, std::shared_ptr<RetentionTable> table)
      : family_(family), table_(std::move(table)) {}
  const char* Name() const override { return "pyrometer.Retention"; }
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context&) override {
    return std::make_unique<RetentionFilter>(family_, table_->Get());
  }

 private:
  const Family family_;
  const std::shared_ptr<RetentionTable> table_;
};

// Values of the function index and of the index of names are lists of entries that speak for themselves: merging is
// appending.
class AppendOperator : public rocksdb::AssociativeMergeOperator {
 public:
  const char* Name() const override { return "pyrometer.Append"; }
  bool Merge(const rocksdb::Slice&, const rocksdb::Slice* existing, const rocksdb::Slice& value, std::string* result,
             rocksdb::Logger*) const override {
    result->clear();
    if (existing != nullptr) result->assign(existing->data(), existing->size());
    result->append(value.data(), value.size());
    return true;
  }
};

bool IsLockError(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return status.IsIOError() &&
         (text.find("While lock file") != std::string::npos || text.find(kHeldByUs) != std::string::npos);
}

}  // namespace

std::shared_ptr<rocksdb::Logger> SilentLog() { return std::make_shared<SilentLogger>(); }

std::string_view FamilyName(Family family) { return kFamilyNames[static_cast<size_t>(family)]; }

std::string_view BlastRadius(Family family) {
  switch (family) {
    case Family::kMeta:
      return "the store does not open";
    case Family::kNames:
      return "flame graphs that need one of the names in the block";
    case Family::kTries:
      return "stacks of the services in the block, and their new samples";
    case Family::kSeries:
      return "questions whose labels are in the block";
    case Family::kWindows:
    case Family::kCells:
      return "stacks of the services and hours in the block; time lines and longer sums go on";
    case Family::kOffsets:
      return "sub-second views of the windows in the block";
    case Family::kHistograms:
      return "histograms of the series and hours in the block";
    case Family::kTotals:
      return "time lines of the series and hours in the block";
    case Family::kRollups:
      return "stacks of the groups and hours in the block when asked as a whole";
    case Family::kFunctions:
      return "history of the functions in the block; `pyrometer store fsck` tells which";
    case Family::kAgents:
      return "the store does not open";
  }
  return "";
}

void RetentionTable::Set(std::shared_ptr<const Content> content) {
  const std::lock_guard lock(mutex_);
  content_ = std::move(content);
}

std::shared_ptr<const RetentionTable::Content> RetentionTable::Get() const {
  const std::lock_guard lock(mutex_);
  return content_;
}

bool RetentionTable::Expired(const Content& content, Family family, std::string_view key) {
  // Where in the key trie and hour stand, and which cutoff counts; see keys.h.
  size_t trie_at = 0, hour_at = 0;
  uint32_t Cutoffs::*which = &Cutoffs::windows;
  bool is_day = false;
  switch (family) {
    case Family::kOffsets:
      which = &Cutoffs::offsets;
      [[fallthrough]];
    case Family::kWindows:
    case Family::kCells:
      trie_at = 4;
      break;
    case Family::kHistograms:
    case Family::kTotals:
      if (!key.empty() && key.front() == 'g') which = &Cutoffs::rollups;
      trie_at = 1;
      hour_at = 9;
      break;
    case Family::kRollups:
      which = &Cutoffs::rollups;
      trie_at = 1;
      hour_at = 9;
      break;
    case Family::kFunctions:
      which = &Cutoffs::rollups;
      hour_at = 12;
      is_day = true;
      break;
    default:
      return false;
  }
  if (key.size() < std::max(trie_at, hour_at) + 4) return false;
  const auto number = [&](size_t at) {
    Decoder in(key.substr(at));
    return in.BigEndian32();
  };
  const uint32_t trie = number(trie_at);
  if (trie >= content.tenant_of_trie.size()) return false;
  const uint32_t tenant = content.tenant_of_trie[trie];
  if (tenant == 0 || tenant >= content.cutoffs.size()) return false;
  const uint32_t cutoff = content.cutoffs[tenant].*which;
  const uint32_t hour = number(hour_at);
  return is_day ? (uint64_t{hour} + 1) * 24 <= cutoff : hour < cutoff;
}

Database::~Database() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    if (handle != nullptr) db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  for (rocksdb::ColumnFamilyHandle* handle : foreign_handles_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  // Everything acknowledged is in the synced log; a failure here loses nothing.
  db_->Close().PermitUncheckedError();
}

StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path, const StoreOptions& options,
                                                   rocksdb::Env* env, OpenMode mode) {
  std::unique_ptr<Database> database(new Database(path, options));
  if (mode == OpenMode::kReadWrite) {
    RETURN_IF_ERROR(database->CheckFolder());
  } else if (!std::filesystem::exists(path + "/CURRENT")) {
    return FailedPreconditionError(StrFormat("there is no store in %s; check --data", path));
  } else if (const pid_t holder = LockHolder(path); holder > 0) {
    return FailedPreconditionError(StrFormat(
        "data folder %s is in use by another pyrometer store (process %d); stop that one first", path, holder));
  }
  RETURN_IF_ERROR(database->OpenRocks(env, mode));
  return database;
}

Status Database::CheckFolder() {
  struct stat info = {};
  if (stat(path_.c_str(), &info) != 0) {
    if (errno != ENOENT) {
      return ErrnoError(errno, StrFormat("cannot use data folder %s; pass --data with another", path_));
    }
    if (!options_.create_if_missing) {
      return FailedPreconditionError(StrFormat("there is no data folder %s; check --data", path_));
    }
    if (Status made = CreateDirectories(path_); !made.ok()) {
      return WithContext(made, StrFormat("cannot create data folder %s; pass --data with a writable place", path_));
    }
  } else if (!S_ISDIR(info.st_mode)) {
    return FailedPreconditionError(StrFormat("%s is not a folder; pass --data with a folder", path_));
  }
  // access() asks for the real user id and the permission bits; creating a file asks everything
  // (read-only mounts, quotas, security modules).
  const std::string probe = StrFormat("%s/.write-test.%d", path_, getpid());
  const UniqueFd fd(open(probe.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) {
    const int error_number = errno;
    if (error_number == ENOSPC || error_number == EDQUOT) {
      return ResourceExhaustedError(
          StrFormat("no space left for data folder %s; free some or pass --data elsewhere", path_));
    }
    const Status error = ErrnoError(error_number, "");
    return PermissionDeniedError(
        StrFormat("data folder %s is not writable%s; run as its owner, change its mode or pass --data elsewhere", path_,
                  Message(error)));
  }
  unlink(probe.c_str());
  return OkStatus();
}

Status Database::OpenRocks(rocksdb::Env* env, OpenMode mode) {
  const uint64_t budget =
      MemoryShares::Of(std::max(options_.memory_budget_bytes, kMinMemoryBudget), MemoryShares::kRocks);
  cache_ = rocksdb::NewLRUCache(budget);

  rocksdb::DBOptions db_options;
  if (env != nullptr) db_options.env = env;
  db_options.create_if_missing = true;
  db_options.create_missing_column_families = true;
  db_options.paranoid_checks = true;
  // Write buffers are charged to the block cache: one number bounds both; and writers wait rather than exceed it.
  db_options.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(budget / 2, cache_, true);
  db_options.max_total_wal_size = std::max<uint64_t>(budget / 2, 8u << 20);
  db_options.max_background_jobs = 2;
  db_options.max_open_files = 512;
  db_options.bytes_per_sync = 1 << 20;
  db_options.info_log = SilentLog();
  db_options.stats_dump_period_sec = 0;
  // Only a record torn at the very end of the log is forgiven (it was never acknowledged); damage before it is an
  // error, not silently fewer batches.
  db_options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db_options.track_and_verify_wals_in_manifest = true;
  if (mode == OpenMode::kReadOnlySalvage) {
    db_options.wal_recovery_mode = rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
    db_options.track_and_verify_wals_in_manifest = false;
  }
  // Preallocated tails would make small data folders look large.
  db_options.allow_fallocate = false;

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache_;
  table.block_size = 16 << 10;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;

  rocksdb::ColumnFamilyOptions scan_options;  // read in ranges
  scan_options.compression = rocksdb::kZSTD;
  scan_options.write_buffer_size = std::clamp<uint64_t>(budget / 8, 1u << 20, 64u << 20);
  scan_options.max_write_buffer_number = 3;
  scan_options.level_compaction_dynamic_level_bytes = true;
  scan_options.disable_auto_compactions = true;  // until the format is known to be ours
  scan_options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  // Stack samples are at their entropy already.
  rocksdb::ColumnFamilyOptions packed_options = scan_options;
  packed_options.compression = rocksdb::kNoCompression;

  rocksdb::ColumnFamilyOptions lookup_options = scan_options;  // mostly single keys, often absent ones
  // Names are many short records that resemble each other: the files that stay share a dictionary.
  lookup_options.bottommost_compression = rocksdb::kZSTD;
  lookup_options.bottommost_compression_opts.enabled = true;
  lookup_options.bottommost_compression_opts.level = 9;
  lookup_options.bottommost_compression_opts.max_dict_bytes = 16 << 10;
  lookup_options.bottommost_compression_opts.zstd_max_train_bytes = 100 * (16 << 10);
  lookup_options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  // Names are looked up by ids that are there, and by buckets that nearly always are.
  rocksdb::ColumnFamilyOptions names_options = lookup_options;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  lookup_options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  std::vector<std::string> existing;
  const bool exists = std::filesystem::exists(path_ + "/CURRENT");
  if (exists) {
    if (const rocksdb::Status listed = rocksdb::DB::ListColumnFamilies(db_options, path_, &existing); !listed.ok()) {
      return FromRocks(listed, "opening");
    }
  }
  // Opening creates the families that are missing: a folder of another format or program must not be touched.
  const bool complete = std::all_of(kFamilyNames.begin(), kFamilyNames.end(), [&](std::string_view name) {
    return std::find(existing.begin(), existing.end(), name) != existing.end();
  });
  if (exists && !complete) RETURN_IF_ERROR(CheckFormatBefore(db_options));
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (size_t i = 0; i < kFamilies; ++i) {
    const auto family = static_cast<Family>(i);
    const bool lookups = family == Family::kMeta || family == Family::kSeries;
    const bool packed = family == Family::kWindows || family == Family::kCells || family == Family::kOffsets ||
                        family == Family::kRollups;
    rocksdb::ColumnFamilyOptions family_options = family == Family::kNames ? names_options
                                                  : lookups                ? lookup_options
                                                  : packed                 ? packed_options
                                                                           : scan_options;
    family_options.periodic_compaction_seconds = kPeriodicCompactionSeconds;
    family_options.compaction_filter_factory = std::make_shared<RetentionFilterFactory>(family, retention_);
    if (family == Family::kFunctions || family == Family::kNames) {
      family_options.merge_operator = std::make_shared<AppendOperator>();
    }
    descriptors.emplace_back(std::string(kFamilyNames[i]), family_options);
  }
  for (const std::string& name : existing) {
    if (std::find(kFamilyNames.begin(), kFamilyNames.end(), name) == kFamilyNames.end()) {
      descriptors.emplace_back(name, scan_options);  // a newer format's; CheckFormat will say so
    }
  }

  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened = mode == OpenMode::kReadWrite
                                     ? rocksdb::DB::Open(db_options, path_, descriptors, &handles, &db)
                                     : rocksdb::DB::OpenForReadOnly(db_options, path_, descriptors, &handles, &db);
  if (!opened.ok()) return FromRocks(opened, "opening");
  db_.reset(db);
  std::copy_n(handles.begin(), kFamilies, handles_.begin());
  foreign_handles_.assign(handles.begin() + kFamilies, handles.end());

  RETURN_IF_ERROR(CheckFormat(!exists, mode));
  if (!foreign_handles_.empty()) {
    return FailedPreconditionError(
        StrFormat("data folder %s holds a column family '%s' that this program does not know; "
                  "was it made by another program?",
                  path_, foreign_handles_.front()->GetName()));
  }
  if (mode != OpenMode::kReadWrite) return OkStatus();
  const rocksdb::Status enabled = db_->EnableAutoCompaction({handles_.begin(), handles_.end()});
  return enabled.ok() ? OkStatus() : FromRocks(enabled, "opening");
}

Status Database::CheckFormatBefore(const rocksdb::DBOptions& db_options) const {
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* raw = nullptr;
  const std::vector<rocksdb::ColumnFamilyDescriptor> only_meta = {
      {std::string(FamilyName(Family::kMeta)), rocksdb::ColumnFamilyOptions()}};
  // What cannot be read has its error from the real opening.
  if (!rocksdb::DB::OpenForReadOnly(db_options, path_, only_meta, &handles, &raw).ok()) return OkStatus();
  const std::unique_ptr<rocksdb::DB> db(raw);
  std::string value;
  const rocksdb::Status got = db->Get(rocksdb::ReadOptions(), handles.front(), ToSlice(kFormatKey), &value);
  Status result = OkStatus();
  if (got.ok()) {
    result = CheckVersion(value);
  } else if (got.IsNotFound()) {
    const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions(), handles.front()));
    it->SeekToFirst();
    if (it->Valid()) result = NotOurs();
  }
  db->DestroyColumnFamilyHandle(handles.front()).PermitUncheckedError();
  return result;
}

Status Database::NotOurs() const {
  return FailedPreconditionError(StrFormat(
      "data folder %s is a RocksDB database, but not a pyrometer store; pass --data with another folder", path_));
}

Status Database::CheckVersion(std::string_view value) const {
  Decoder in(value);
  const uint64_t version = in.Varint();
  if (!in.ok()) return DataLossError(StrFormat("data folder %s: the format version is unreadable", path_));
  if (version > kFormatVersion) {
    return FailedPreconditionError(
        StrFormat("data folder %s is of a newer format (version %d; this program reads version %d): "
                  "run the newer pyrometer, or pass --data with another folder",
                  path_, version, kFormatVersion));
  }
  if (version < kOldestFormatVersion) {
    return FailedPreconditionError(StrFormat(
        "data folder %s is of an older format (version %d; this program reads version %d) and was left as it is: "
        "run the older pyrometer to read it, or move it away and start anew, or pass --data with another folder",
        path_, version, kFormatVersion));
  }
  return OkStatus();
}

Status Database::CheckFormat(bool created, OpenMode mode) {
  std::string value;
  ASSIGN_OR_RETURN(const bool found, Get(Family::kMeta, kFormatKey, &value));
  const auto write_version = [&] {
    std::string version;
    PutVarint(kFormatVersion, &version);
    rocksdb::WriteBatch batch;
    const rocksdb::Status put = batch.Put(family(Family::kMeta), ToSlice(kFormatKey), ToSlice(version));
    return put.ok() ? Write(&batch, true) : FromRocks(put, "creating");
  };
  if (found) {
    RETURN_IF_ERROR(CheckVersion(value));
    // From here on, what it holds may be more than a program of the older version understands.
    return Decoder(value).Varint() < kFormatVersion && mode == OpenMode::kReadWrite ? write_version() : OkStatus();
  }
  // Killed between creating the files and writing the version: then nothing else is in it.
  bool empty = true;
  RETURN_IF_ERROR(Scan(Family::kMeta, "", "", [&](std::string_view, std::string_view) -> StatusOr<bool> {
    empty = false;
    return false;
  }));
  if (!empty || (!created && !foreign_handles_.empty())) return NotOurs();
  return write_version();
}

Status Database::FromRocks(const rocksdb::Status& status, std::string_view doing) const {
  if (status.ok()) return OkStatus();
  const std::string detail = status.ToString();
  if (IsLockError(status)) {
    std::string who = " (in this process)";
    if (detail.find(kHeldByUs) == std::string::npos) {
      const pid_t holder = LockHolder(path_);
      who = holder > 0 ? StrFormat(" (process %d)", holder) : std::string();
    }
    return FailedPreconditionError(StrFormat(
        "data folder %s is in use by another pyrometer store%s; stop that one or pass --data with another folder",
        path_, who));
  }
  if (status.IsNoSpace() || detail.find("No space left") != std::string::npos ||
      detail.find("Disk quota exceeded") != std::string::npos) {
    return ResourceExhaustedError(
        StrFormat("no space left on the disk of data folder %s while %s; free some space or lower the retention "
                  "(nothing acknowledged is lost; writing resumes by itself)",
                  path_, doing));
  }
  if (status.IsCorruption()) {
    return DataLossError(
        StrFormat("files in data folder %s are damaged (found while %s): %s; restore a backup, or move the "
                  "folder away to start with an empty one (agents resend what was not acknowledged)",
                  path_, doing, detail));
  }
  if (status.IsShutdownInProgress() || status.IsAborted() || status.IsTryAgain() || status.IsBusy()) {
    return UnavailableError(StrFormat("store %s: %s: %s", path_, doing, detail));
  }
  if (status.IsIOError()) {
    // RocksDB reports files that vanished or shrank as I/O errors.
    if (detail.find("No such file") != std::string::npos) {
      return DataLossError(
          StrFormat("a file of data folder %s is missing (found while %s): %s; restore a backup, or move "
                    "the folder away to start with an empty one",
                    path_, doing, detail));
    }
    return UnavailableError(
        StrFormat("input/output error in data folder %s while %s: %s; check the disk", path_, doing, detail));
  }
  return InternalError(StrFormat("store %s: %s: %s", path_, doing, detail));
}

StatusOr<bool> Database::Get(Family family_id, std::string_view key, std::string* value, const ReadView* view) const {
  rocksdb::ReadOptions read_options;
  if (view != nullptr) read_options.snapshot = view->get();
  const rocksdb::Status got = db_->Get(read_options, family(family_id), ToSlice(key), value);
  if (got.IsNotFound()) return false;
  if (!got.ok()) return FromRocks(got, StrFormat("reading %s", FamilyName(family_id)));
  return true;
}

Status Database::MultiGet(Family family_id, const std::vector<std::string>& keys, std::vector<std::string>* values,
                          std::vector<bool>* found) const {
  const std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> pinned(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  db_->MultiGet(rocksdb::ReadOptions(), family(family_id), keys.size(), slices.data(), pinned.data(), statuses.data());
  values->assign(keys.size(), {});
  found->assign(keys.size(), false);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].IsNotFound()) continue;
    if (!statuses[i].ok()) return FromRocks(statuses[i], StrFormat("reading %s", FamilyName(family_id)));
    (*values)[i].assign(pinned[i].data(), pinned[i].size());
    (*found)[i] = true;
  }
  return OkStatus();
}

Status Database::Scan(Family family_id, std::string_view from, std::string_view to,
                      const std::function<StatusOr<bool>(std::string_view, std::string_view)>& visit,
                      const ReadView* view) const {
  rocksdb::ReadOptions read_options;
  if (view != nullptr) read_options.snapshot = view->get();
  const rocksdb::Slice upper = ToSlice(to);
  if (!to.empty()) read_options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read_options, family(family_id)));
  for (it->Seek(ToSlice(from)); it->Valid(); it->Next()) {
    ASSIGN_OR_RETURN(const bool more, visit(ToView(it->key()), ToView(it->value())));
    if (!more) return OkStatus();
  }
  return FromRocks(it->status(), StrFormat("reading %s", FamilyName(family_id)));
}

std::unique_ptr<rocksdb::Iterator> Database::NewIterator(Family family_id, const ReadView* view,
                                                         bool sequential) const {
  rocksdb::ReadOptions read_options;
  if (view != nullptr) read_options.snapshot = view->get();
  if (sequential) {
    read_options.readahead_size = 1 << 20;
    read_options.fill_cache = false;
  }
  return std::unique_ptr<rocksdb::Iterator>(db_->NewIterator(read_options, family(family_id)));
}

Status Database::CheckFreeSpace() {
  if (options_.min_free_bytes == 0) return OkStatus();
  const uint64_t now = MonotonicNowNs();
  if (now >= next_space_check_ns_) {
    next_space_check_ns_ = now + kSpaceCheckIntervalNs;
    struct statvfs info = {};
    space_is_short_ =
        statvfs(path_.c_str(), &info) == 0 && uint64_t{info.f_bavail} * info.f_frsize < options_.min_free_bytes;
  }
  if (!space_is_short_) return OkStatus();
  return ResourceExhaustedError(
      StrFormat("less than %s left on the disk of data folder %s; free some space or lower the retention (nothing "
                "acknowledged is lost; writing resumes by itself)",
                FormatBytes(options_.min_free_bytes), path_));
}

Status Database::Write(rocksdb::WriteBatch* batch, bool sync) {
  {
    const std::lock_guard lock(write_mutex_);
    if (sync) RETURN_IF_ERROR(CheckFreeSpace());  // retention's deletes are what makes room again
    if (!write_error_.ok()) {
      const rocksdb::Status resumed = db_->Resume();
      // Busy: RocksDB itself waits for room on the disk (it looks every few seconds) and is not done yet.
      if (resumed.IsBusy()) return write_error_;
      if (!resumed.ok()) return FromRocks(resumed, "writing");
      write_error_ = OkStatus();
    }
  }
  rocksdb::WriteOptions write_options;
  write_options.sync = sync;
  const rocksdb::Status written = db_->Write(write_options, batch);
  if (written.ok()) {
    if (sync) syncs_.fetch_add(1, std::memory_order_relaxed);
    return OkStatus();
  }
  write_errors_.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(write_mutex_);
  write_error_ = FromRocks(written, "writing");
  return write_error_;
}

Status Database::Compact(Family family_id, std::string_view from, std::string_view to) {
  const rocksdb::Slice begin = ToSlice(from), end = ToSlice(to);
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  return FromRocks(
      db_->CompactRange(options, family(family_id), from.empty() ? nullptr : &begin, to.empty() ? nullptr : &end),
      "compacting");
}

Status Database::Flush() {
  return FromRocks(db_->Flush(rocksdb::FlushOptions(), {handles_.begin(), handles_.end()}), "flushing");
}

void Database::LetGoOfCache() {
  const size_t capacity = cache_->GetCapacity();
  cache_->SetCapacity(0);
  cache_->SetCapacity(capacity);
}

uint64_t Database::MemoryBytes() const {
  // Write buffers are charged to the cache, so its usage is both.
  return cache_->GetUsage();
}

uint64_t Database::DiskBytes() const {
  uint64_t total = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(path_, error), end; !error && it != end; it.increment(error)) {
    std::error_code size_error;  // files come and go while we look
    const uint64_t bytes = it->file_size(size_error);
    if (!size_error) total += bytes;
  }
  return total;
}

}  // namespace pyrometer::store

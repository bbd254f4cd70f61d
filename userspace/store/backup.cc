// Backups: RocksDB's backup engine, which shares table files between backups and keeps a sum of every file; the list of
// other files goes with it as the backup's metadata.
#include <rocksdb/utilities/backup_engine.h>
#include <unistd.h>

#include <filesystem>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/store/embedded_store.h"
#include "userspace/store/side_files.h"

namespace pyrometer::store {
namespace {

Status FromEngine(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return OkStatus();
  const std::string message = StrFormat("%s: %s", what, status.ToString());
  if (status.IsNoSpace() || message.find("No space left") != std::string::npos) {
    return ResourceExhaustedError(message + "; free some space");
  }
  if (status.IsNotFound()) return NotFoundError(message);
  if (status.IsCorruption()) return DataLossError(message + "; use another backup");
  return UnavailableError(message);
}

rocksdb::BackupEngineOptions EngineOptions(const std::string& folder) {
  rocksdb::BackupEngineOptions options(folder);
  options.share_table_files = true;
  options.share_files_with_checksum = true;
  options.sync = true;
  static const std::shared_ptr<rocksdb::Logger> log = SilentLog();
  options.info_log = log.get();
  return options;
}

// Metadata of a backup: this and the name of its list of files. Empty: it has none, as those of older programs.
constexpr std::string_view kFilesPrefix = "files ";
std::string FilesOf(const rocksdb::BackupInfo& info) {
  return info.app_metadata.starts_with(kFilesPrefix) ? info.app_metadata.substr(kFilesPrefix.size()) : std::string();
}

BackupInfo ToInfo(const rocksdb::BackupInfo& info, uint64_t file_bytes) {
  return {.id = info.backup_id,
          .time_ns = info.timestamp * static_cast<int64_t>(kNsPerSecond),
          .bytes = info.size + file_bytes};
}

StatusOr<std::unique_ptr<rocksdb::BackupEngineReadOnly>> OpenBackups(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) return NotFoundError(StrFormat("there is no folder %s", folder));
  rocksdb::BackupEngineReadOnly* engine = nullptr;
  const rocksdb::IOStatus opened =
      rocksdb::BackupEngineReadOnly::Open(EngineOptions(folder), rocksdb::Env::Default(), &engine);
  RETURN_IF_ERROR(FromEngine(opened, StrFormat("cannot read backups in %s", folder)));
  return std::unique_ptr<rocksdb::BackupEngineReadOnly>(engine);
}

}  // namespace

StatusOr<BackupInfo> EmbeddedStore::Backup(const std::string& folder) {
  RETURN_IF_ERROR(WithContext(CreateDirectories(folder), "backup"));
  rocksdb::BackupEngine* raw = nullptr;
  const rocksdb::IOStatus opened = rocksdb::BackupEngine::Open(EngineOptions(folder), rocksdb::Env::Default(), &raw);
  RETURN_IF_ERROR(FromEngine(opened, StrFormat("cannot back up to %s", folder)));
  const std::unique_ptr<rocksdb::BackupEngine> engine(raw);
  rocksdb::CreateBackupOptions options;
  options.flush_before_backup = true;  // then the log is not needed
  std::vector<rocksdb::BackupInfo> earlier;
  engine->GetBackupInfo(&earlier);
  // Files first: a backup never names what is not there.
  ASSIGN_OR_RETURN(const SideFiles files,
                   SaveSideFiles(database_->path(), folder, earlier.empty() ? std::string() : FilesOf(earlier.back())));
  const std::string metadata = files.name.empty() ? std::string() : std::string(kFilesPrefix) + files.name;
  rocksdb::BackupID id = 0;
  RETURN_IF_ERROR(FromEngine(engine->CreateNewBackupWithMetadata(options, database_->rocks(), metadata, &id),
                             StrFormat("cannot back up to %s", folder)));
  rocksdb::BackupInfo info;
  RETURN_IF_ERROR(FromEngine(engine->GetBackupInfo(id, &info), "backup"));
  return ToInfo(info, files.bytes);
}

StatusOr<std::vector<BackupInfo>> ListBackups(const std::string& folder, bool verify) {
  ASSIGN_OR_RETURN(const std::unique_ptr<rocksdb::BackupEngineReadOnly> engine, OpenBackups(folder));
  std::vector<rocksdb::BackupInfo> infos;
  engine->GetBackupInfo(&infos);
  std::vector<BackupInfo> result;
  for (const rocksdb::BackupInfo& info : infos) {
    uint64_t file_bytes = 0;
    if (verify) {
      RETURN_IF_ERROR(FromEngine(engine->VerifyBackup(info.backup_id, true),
                                 StrFormat("backup %d in %s is damaged", info.backup_id, folder)));
      ASSIGN_OR_RETURN(const SideFiles files, CheckSideFiles(folder, FilesOf(info)));
      file_bytes = files.bytes;
    }
    result.push_back(ToInfo(info, file_bytes));
  }
  return result;
}

StatusOr<BackupInfo> RestoreBackup(const std::string& folder, uint32_t id, const std::string& data) {
  std::error_code error;
  if (std::filesystem::exists(data, error) && !std::filesystem::is_empty(data, error)) {
    return FailedPreconditionError(
        StrFormat("data folder %s is not empty; restore into a new one, or move this one away first", data));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<rocksdb::BackupEngineReadOnly> engine, OpenBackups(folder));
  std::vector<rocksdb::BackupInfo> infos;
  engine->GetBackupInfo(&infos);
  const rocksdb::BackupInfo* wanted = nullptr;
  for (const rocksdb::BackupInfo& info : infos) {
    if (id == 0 || info.backup_id == id) wanted = &info;
  }
  if (wanted == nullptr) {
    return NotFoundError(id == 0 ? StrFormat("there is no backup in %s", folder)
                                 : StrFormat("there is no backup %d in %s", id, folder));
  }
  // Beside the place, then there in one step: a restore that was cut off leaves no half store.
  const std::string beside = StrFormat("%s.restoring-%d", data, getpid());
  RETURN_IF_ERROR(CreateDirectories(beside));
  Status restored = FromEngine(engine->VerifyBackup(wanted->backup_id, true),
                               StrFormat("backup %d in %s is damaged", wanted->backup_id, folder));
  if (restored.ok()) {
    restored = FromEngine(engine->RestoreDBFromBackup(rocksdb::RestoreOptions(), wanted->backup_id, beside, beside),
                          StrFormat("cannot restore into %s", data));
  }
  if (restored.ok()) restored = RestoreSideFiles(folder, FilesOf(*wanted), beside);
  if (restored.ok()) {
    std::filesystem::remove(data, error);  // if there is an empty one
    std::filesystem::rename(beside, data, error);
    if (error) restored = UnavailableError(StrFormat("cannot rename %s to %s: %s", beside, data, error.message()));
  }
  if (!restored.ok()) {
    std::filesystem::remove_all(beside, error);
    return restored;
  }
  return ToInfo(*wanted, 0);
}

}  // namespace pyrometer::store

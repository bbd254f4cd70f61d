#include "userspace/symbolize/index_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::symbolize {
namespace {

constexpr std::string_view kSuffix = ".psym";
// Left behind by a process that died while writing; nobody writes for that long.
constexpr uint64_t kStaleNs = 3600 * kNsPerSecond;

// The build ID becomes a file's name: it must be nothing but hexadecimal digits.
bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string NameOf(const BuildId& build_id) {
  // "hash:…" of binaries without a build ID.
  constexpr std::string_view kFallback = "hash:";
  const std::string_view hex =
      build_id.is_fallback() ? std::string_view(build_id.hex).substr(kFallback.size()) : std::string_view(build_id.hex);
  if (!IsName(hex)) return "";
  return build_id.is_fallback() ? "hash-" + std::string(hex) : std::string(hex);
}

Status CheckFolder(const std::string& folder) {
  if (folder.empty()) return FailedPreconditionError("no folder for symbol indexes was given");
  const bool created = ::mkdir(folder.c_str(), 0700) == 0;
  if (!created && errno != EEXIST) {
    RETURN_IF_ERROR(CreateDirectories(folder));
    ::chmod(folder.c_str(), 0700);
  }
  struct stat info;
  if (::stat(folder.c_str(), &info) != 0) return ErrnoError(errno, StrFormat("cannot use the folder %s", folder));
  if (!S_ISDIR(info.st_mode)) return FailedPreconditionError(StrFormat("%s is not a folder", folder));
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0 || (info.st_uid != ::geteuid() && info.st_uid != 0)) {
    return PermissionDeniedError(StrFormat("others may write the folder %s: chmod 0700 it, or name another", folder));
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) return ErrnoError(errno, StrFormat("cannot write into %s", folder));
  return OkStatus();
}

}  // namespace

IndexCache::IndexCache(Options options) : options_(std::move(options)), status_(CheckFolder(options_.folder)) {}

std::string IndexCache::PathOf(const BuildId& build_id) const {
  const std::string name = NameOf(build_id);
  return name.empty() ? "" : options_.folder + "/" + name + std::string(kSuffix);
}

std::optional<SymbolIndex> IndexCache::Load(const BuildId& build_id) {
  const std::string path = PathOf(build_id);
  if (!status_.ok() || path.empty()) return std::nullopt;
  const auto count = [this](uint64_t Counters::*which) {
    const std::lock_guard lock(mutex_);
    ++(counters_.*which);
    return std::nullopt;
  };
  StatusOr<UniqueFd> fd = OpenForReading(path);
  if (!fd.ok()) return count(&Counters::misses);
  ::futimens(fd->get(), nullptr);  // a use; where that is refused the file only looks older
  StatusOr<MappedFile> file = MappedFile::Map(*std::move(fd), path);
  StatusOr<SymbolIndex> index = file.ok() ? SymbolIndex::FromFile(*std::move(file)) : file.status();
  if (index.ok() && index->about().find(StrFormat("build_id=%s\n", build_id.hex)) != 0) {
    index = DataLossError("a symbol index of another binary");
  }
  if (!index.ok()) {
    ::unlink(path.c_str());
    return count(&Counters::damaged);
  }
  count(&Counters::hits);
  return *std::move(index);
}

StatusOr<SymbolIndex> IndexCache::Store(const BuildId& build_id, const SymbolIndex& index) {
  RETURN_IF_ERROR(status_);
  const std::string path = PathOf(build_id);
  if (path.empty()) return InvalidArgumentError(StrFormat("\"%s\" is no build ID", build_id.hex));
  if (index.bytes().size() > options_.max_bytes) {
    return ResourceExhaustedError(StrFormat("a symbol index of %s is more than the cache of %s may hold",
                                            FormatBytes(index.bytes().size()), FormatBytes(options_.max_bytes)));
  }
  const std::lock_guard lock(mutex_);
  MakeRoom(index.bytes().size(), path);
  if (Status status = WriteFileAtomically(path, index.bytes()); !status.ok()) {
    ++counters_.failed;
    return status;
  }
  ++counters_.stored;
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Map(path));
  return SymbolIndex::FromFile(std::move(file));
}

void IndexCache::MakeRoom(uint64_t bytes, const std::string& keep) {
  struct Entry {
    uint64_t used_ns;
    uint64_t bytes;
    std::string path;
  };
  std::vector<Entry> entries;
  uint64_t total = bytes;
  const UniqueDir folder(::opendir(options_.folder.c_str()));
  if (!folder) return;
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    const size_t suffix = name.find(kSuffix);
    if (suffix == std::string_view::npos || suffix == 0) continue;
    std::string_view id = name.substr(0, suffix);
    if (id.starts_with("hash-")) id.remove_prefix(5);
    if (!IsName(id)) continue;
    std::string path = options_.folder + "/" + std::string(name);
    struct stat info;
    if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    const uint64_t used_ns = static_cast<uint64_t>(std::max<int64_t>(info.st_mtim.tv_sec, 0)) * kNsPerSecond +
                             static_cast<uint64_t>(info.st_mtim.tv_nsec);
    if (name.size() != suffix + kSuffix.size()) {  // "….psym.tmp.123"
      if (used_ns + kStaleNs < static_cast<uint64_t>(UnixNowNs())) ::unlink(path.c_str());
      continue;
    }
    if (path == keep) continue;
    total += static_cast<uint64_t>(info.st_size);
    entries.push_back({used_ns, static_cast<uint64_t>(info.st_size), std::move(path)});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used_ns < b.used_ns; });
  for (const Entry& entry : entries) {
    if (total <= options_.max_bytes) break;
    if (::unlink(entry.path.c_str()) != 0) continue;  // mapped ones stay readable for those who use them
    total -= entry.bytes;
    ++counters_.evicted;
  }
}

IndexCache::Counters IndexCache::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace pyrometer::symbolize

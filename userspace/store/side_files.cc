#include "userspace/store/side_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::store {
namespace {

constexpr std::string_view kFolder = "symbols/.build-id";
constexpr size_t kPieceBytes = 1u << 20;
constexpr size_t kMaxListBytes = 64u << 20;  // half a million files

struct Entry {
  std::string sum;
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;
};
using List = std::map<std::string, Entry>;  // by path below the data folder

class Summer {
 public:
  Summer() : state_(XXH3_createState(), &XXH3_freeState) { XXH3_128bits_reset(state_.get()); }
  void Add(std::string_view bytes) { XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()); }
  std::string Sum() const {
    const XXH128_hash_t sum = XXH3_128bits_digest(state_.get());
    return StrFormat("%016x%016x", sum.high64, sum.low64);
  }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

bool IsSum(std::string_view text) {
  return text.size() == 32 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string ContentPath(const std::string& backups, std::string_view sum) {
  return StrFormat("%s/files/%s", backups, sum);
}

Status SyncFolder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return ErrnoError(errno, StrFormat("cannot sync %s", folder));
  return OkStatus();
}

// Copies all of `from`, which may be a null destination (-1), and sums it up.
StatusOr<Entry> Copy(int from, std::string_view from_name, int to, std::string_view to_name) {
  Entry entry;
  Summer summer;
  std::string piece(kPieceBytes, '\0');
  for (;;) {
    const ssize_t got = ::read(from, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, StrFormat("cannot read %s", from_name));
    if (got == 0) break;
    const std::string_view bytes(piece.data(), static_cast<size_t>(got));
    summer.Add(bytes);
    entry.bytes += bytes.size();
    if (to >= 0) RETURN_IF_ERROR(WriteAll(to, bytes, to_name));
  }
  entry.sum = summer.Sum();
  return entry;
}

// Copies a file beside its place, then renames it to what `place_of` says of it; synced.
template <typename PlaceOf>
StatusOr<Entry> CopyTo(int from, const std::string& from_name, const std::string& beside, PlaceOf place_of) {
  UniqueFd to(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!to) return ErrnoError(errno, StrFormat("cannot create %s", beside));
  StatusOr<Entry> entry = Copy(from, from_name, to.get(), beside);
  Status done = entry.status();
  if (done.ok() && ::fsync(to.get()) != 0) done = ErrnoError(errno, StrFormat("cannot sync %s", beside));
  if (done.ok()) {
    const StatusOr<std::string> place = place_of(*entry);
    done = place.status();
    if (done.ok() && ::rename(beside.c_str(), place->c_str()) != 0) {
      done = ErrnoError(errno, StrFormat("cannot rename %s", beside));
    }
  }
  if (!done.ok()) {
    ::unlink(beside.c_str());
    return done;
  }
  return entry;
}

std::string EncodeList(const List& list) {
  std::string text;
  for (const auto& [path, entry] : list)
    text += StrFormat("%s %d %d %s\n", entry.sum, entry.bytes, entry.mtime_ns, path);
  return text;
}

Status Damaged(const std::string& backups, std::string_view sum, std::string_view why) {
  return DataLossError(StrFormat("%s is damaged (%s); use another backup", ContentPath(backups, sum), why));
}

StatusOr<List> ReadList(const std::string& backups, const std::string& name) {
  List list;
  if (name.empty()) return list;
  if (!IsSum(name)) return DataLossError(StrFormat("a backup names its list of files '%s'", ToUtf8(name)));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(ContentPath(backups, name), kMaxListBytes));
  Summer summer;
  summer.Add(text);
  if (summer.Sum() != name) return Damaged(backups, name, "its sum");
  for (const std::string_view line : Split(text, '\n')) {
    if (line.empty()) continue;
    const std::vector<std::string_view> words = Split(line, ' ');
    if (words.size() != 4) return Damaged(backups, name, "a line");
    const std::optional<uint64_t> bytes = ParseUint64(words[1]);
    const std::optional<int64_t> mtime_ns = ParseInt64(words[2]);
    // Only ever written below the folder of symbols.
    const bool inside = words[3].starts_with(kFolder) && words[3].find("..") == std::string_view::npos;
    if (!bytes || !mtime_ns || !IsSum(words[0]) || !inside) return Damaged(backups, name, "a line");
    list[std::string(words[3])] = {.sum = std::string(words[0]), .bytes = *bytes, .mtime_ns = *mtime_ns};
  }
  return list;
}

}  // namespace

StatusOr<SideFiles> SaveSideFiles(const std::string& data, const std::string& backups, const std::string& before) {
  SideFiles saved;
  const std::filesystem::path top = std::filesystem::path(data) / kFolder;
  std::error_code error;
  if (!std::filesystem::is_directory(top, error)) return saved;
  // A list that cannot be read costs reading every file again, no more.
  const StatusOr<List> known = ReadList(backups, before);
  RETURN_IF_ERROR(CreateDirectories(backups + "/files"));
  List list;
  for (auto it = std::filesystem::recursive_directory_iterator(top, error); !error && it != std::filesystem::end(it);
       it.increment(error)) {
    if (it->path().extension() != ".debug") continue;
    const UniqueFd fd(::open(it->path().c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;  // made room for a newer one
    struct stat info {};
    if (!fd || ::fstat(fd.get(), &info) != 0)
      return ErrnoError(errno, StrFormat("cannot read %s", it->path().string()));
    if (!S_ISREG(info.st_mode)) continue;
    const std::string path = it->path().lexically_relative(data).string();
    if (path.find_first_of(" \n") != std::string::npos) continue;  // none of ours
    const int64_t mtime_ns = info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec;
    if (known.ok()) {
      const auto same = known->find(path);
      if (same != known->end() && same->second.bytes == static_cast<uint64_t>(info.st_size) &&
          same->second.mtime_ns == mtime_ns && ::access(ContentPath(backups, same->second.sum).c_str(), R_OK) == 0) {
        list.insert(*same);
        continue;
      }
    }
    const std::string beside = StrFormat("%s/files/.unfinished-%d", backups, ::getpid());
    ASSIGN_OR_RETURN(Entry entry, CopyTo(fd.get(), path, beside, [&](const Entry& copied) -> StatusOr<std::string> {
                       return ContentPath(backups, copied.sum);
                     }));
    entry.mtime_ns = mtime_ns;
    list[path] = entry;
  }
  if (error) return UnavailableError(StrFormat("cannot list %s: %s", top.string(), error.message()));
  if (list.empty()) return saved;
  const std::string text = EncodeList(list);
  Summer summer;
  summer.Add(text);
  saved.name = summer.Sum();
  RETURN_IF_ERROR(WriteFileAtomically(ContentPath(backups, saved.name), text));
  RETURN_IF_ERROR(SyncFolder(backups + "/files"));
  for (const auto& [path, entry] : list) saved.bytes += entry.bytes;
  return saved;
}

StatusOr<SideFiles> CheckSideFiles(const std::string& backups, const std::string& name) {
  ASSIGN_OR_RETURN(const List list, ReadList(backups, name));
  SideFiles checked{.name = name};
  for (const auto& [path, entry] : list) {
    const std::string place = ContentPath(backups, entry.sum);
    ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(place));
    ASSIGN_OR_RETURN(const Entry found, Copy(fd.get(), place, -1, ""));
    if (found.sum != entry.sum || found.bytes != entry.bytes) return Damaged(backups, entry.sum, "its sum");
    checked.bytes += entry.bytes;
  }
  return checked;
}

Status RestoreSideFiles(const std::string& backups, const std::string& name, const std::string& data) {
  ASSIGN_OR_RETURN(const List list, ReadList(backups, name));
  for (const auto& item : list) {
    const Entry& entry = item.second;  // no structured binding: clang 14 captures none in a lambda
    const std::string from = ContentPath(backups, entry.sum);
    const std::filesystem::path to = std::filesystem::path(data) / item.first;
    RETURN_IF_ERROR(CreateDirectories(to.parent_path()));
    ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(from));
    const auto place = [&](const Entry& copied) -> StatusOr<std::string> {
      if (copied.sum != entry.sum) return Damaged(backups, entry.sum, "its sum");
      return to.string();
    };
    RETURN_IF_ERROR(CopyTo(fd.get(), from, to.string() + ".restoring", place).status());
    RETURN_IF_ERROR(SyncFolder(to.parent_path()));
  }
  return OkStatus();
}

}  // namespace pyrometer::store

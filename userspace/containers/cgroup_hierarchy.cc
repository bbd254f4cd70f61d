#include "userspace/containers/cgroup_hierarchy.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

constexpr int kKernfsFileId = 0xfe;  // FILEID_KERNFS of linux/exportfs.h
constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxDepth = 64;  // [nested Kubernetes in docker with systemd: 12]

UniqueFd OpenByHandle(int mount_fd, uint64_t id) {
  // file_handle ends in a flexible array, so its 8 bytes of content are put behind it by hand.
  alignas(file_handle) char buffer[sizeof(file_handle) + sizeof id] = {};
  auto* handle = reinterpret_cast<file_handle*>(buffer);
  handle->handle_bytes = sizeof id;
  handle->handle_type = kKernfsFileId;
  std::memcpy(handle->f_handle, &id, sizeof id);
  return UniqueFd(::open_by_handle_at(mount_fd, handle, O_PATH | O_CLOEXEC));
}

// mountinfo writes blank, tab, newline and backslash as \ooo.
std::string UnescapeMount(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      if (const std::optional<uint64_t> byte = ParseUint64(text.substr(i + 1, 3), 8); byte && *byte < 256) {
        result.push_back(static_cast<char>(*byte));
        i += 3;
        continue;
      }
    }
    result.push_back(text[i]);
  }
  return result;
}

bool HasOption(std::string_view options, std::string_view wanted) {
  const std::vector<std::string_view> parts = Split(options, ',');
  return std::find(parts.begin(), parts.end(), wanted) != parts.end();
}

}  // namespace

CgroupMounts ParseCgroupMounts(std::string_view mountinfo, std::string_view v1_controller) {
  constexpr std::string_view kPreferred[] = {"memory",  "cpu",     "cpuacct", "pids",
                                             "freezer", "devices", "blkio",   "cpuset"};
  CgroupMounts mounts;
  size_t best_rank = std::size(kPreferred);
  for (std::string_view line : Split(mountinfo, '\n')) {
    // 38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime shared:9 - cgroup cgroup rw,blkio
    const size_t separator = line.find(" - ");
    if (separator == std::string_view::npos) continue;
    const std::vector<std::string_view> left = Split(line.substr(0, separator), ' ');
    const std::vector<std::string_view> right = Split(line.substr(separator + 3), ' ');
    if (left.size() < 6 || right.size() < 3) continue;
    if (right[0] == "cgroup2") {
      // The first one: later mounts are usually views made for somebody's container.
      if (mounts.v2_mount.empty()) mounts.v2_mount = UnescapeMount(left[4]);
    } else if (right[0] == "cgroup") {
      for (size_t rank = 0; rank < std::size(kPreferred); ++rank) {
        const bool wanted = v1_controller.empty() ? rank < best_rank : kPreferred[rank] == v1_controller;
        if (!wanted || !HasOption(right[2], kPreferred[rank])) continue;
        if (!v1_controller.empty() && !mounts.v1_mount.empty()) break;
        best_rank = rank;
        mounts.v1_mount = UnescapeMount(left[4]);
        mounts.v1_controller = std::string(kPreferred[rank]);
        break;
      }
    }
  }
  return mounts;
}

StatusOr<CgroupMounts> FindCgroupMounts(std::string_view v1_controller) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/self/mountinfo"));
  CgroupMounts mounts = ParseCgroupMounts(text, v1_controller);
  if (mounts.v2_mount.empty() && mounts.v1_mount.empty()) {
    return FailedPreconditionError(
        "no cgroup file system is mounted, so containers cannot be told apart; mount one: mount -t cgroup2 none "
        "/sys/fs/cgroup");
  }
  return mounts;
}

CgroupHierarchy::CgroupHierarchy(std::string mount_point)
    : mount_point_(std::move(mount_point)),
      mount_fd_(::open(mount_point_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (!mount_fd_) return;
  struct stat info;
  if (::fstat(mount_fd_.get(), &info) != 0) return;
  has_handles_ = static_cast<bool>(OpenByHandle(mount_fd_.get(), info.st_ino));
}

std::optional<std::string> CgroupHierarchy::PathOf(CgroupId id) const {
  if (!has_handles_) return std::nullopt;
  const UniqueFd fd = OpenByHandle(mount_fd_.get(), id.value);
  if (!fd) return std::nullopt;
  char target[kMaxPathBytes];
  const ssize_t length = ::readlink(StrFormat("/proc/self/fd/%d", fd.get()).c_str(), target, sizeof target);
  if (length <= 0 || length == sizeof target) return std::nullopt;
  std::string_view path(target, static_cast<size_t>(length));
  // A handle may also name a control file, whose inode numbers come from the same counter.
  struct stat info;
  if (::fstat(fd.get(), &info) != 0 || !S_ISDIR(info.st_mode)) return std::nullopt;
  if (!path.starts_with(mount_point_)) return std::nullopt;
  path.remove_prefix(mount_point_.size());
  if (path.empty()) return "/";
  if (path.ends_with(" (deleted)")) return std::nullopt;
  return std::string(path);
}

std::optional<CgroupId> CgroupHierarchy::IdOf(const std::string& path) const {
  struct stat info;
  if (::lstat((mount_point_ + path).c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return std::nullopt;
  return CgroupId(info.st_ino);
}

size_t CgroupHierarchy::Walk(size_t limit,
                             const std::function<void(const std::string& path, CgroupId id)>& visit) const {
  size_t visited = 0;
  const std::optional<CgroupId> root = IdOf("");
  if (!root || limit == 0) return 0;
  visit("/", *root);
  ++visited;
  std::vector<std::pair<std::string, size_t>> todo = {{"", 0}};  // path, depth
  while (!todo.empty() && visited < limit) {
    const auto [folder, depth] = std::move(todo.back());
    todo.pop_back();
    UniqueDir dir(::opendir((mount_point_ + folder).c_str()));
    if (!dir) continue;
    while (const dirent* entry = ::readdir(dir.get())) {
      const std::string_view name = entry->d_name;
      if (entry->d_type != DT_DIR || name == "." || name == "..") continue;
      if (visited >= limit) break;
      std::string path = StrFormat("%s/%s", folder, name);
      visit(path, CgroupId(entry->d_ino));
      ++visited;
      if (depth + 1 < kMaxDepth) todo.emplace_back(std::move(path), depth + 1);
    }
  }
  return visited;
}

std::vector<uint32_t> CgroupHierarchy::Processes(const std::string& path, size_t limit) const {
  std::vector<uint32_t> pids;
  UniqueFd fd(::open(StrFormat("%s%s/cgroup.procs", mount_point_, path).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return pids;
  // One page holds some 500 of them, in no order; more are not needed to judge a cgroup.
  char buffer[4096];
  const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
  if (n <= 0) return pids;
  for (std::string_view line : Split(std::string_view(buffer, static_cast<size_t>(n)), '\n')) {
    const std::optional<uint64_t> pid = ParseUint64(line);
    if (pid && *pid != 0 && *pid <= UINT32_MAX) pids.push_back(static_cast<uint32_t>(*pid));
    if (pids.size() >= limit) break;
  }
  return pids;
}

}  // namespace pyrometer::containers

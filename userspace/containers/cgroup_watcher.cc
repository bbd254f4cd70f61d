#include "userspace/containers/cgroup_watcher.h"

#include <dirent.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

constexpr uint32_t kEvents = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR;
constexpr size_t kMaxDepth = 64;  // as CgroupHierarchy::Walk
constexpr size_t kBufferBytes = 64 << 10;

}  // namespace

CgroupWatcher::CgroupWatcher(const CgroupHierarchy* hierarchy, Callbacks callbacks)
    : hierarchy_(hierarchy), callbacks_(std::move(callbacks)) {}

void CgroupWatcher::WatchAll(size_t limit) {
  limit_ = limit;
  paths_.clear();
  inotify_fd_.Reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  complete_ = static_cast<bool>(inotify_fd_);
  Watch("", 0);
}

void CgroupWatcher::Watch(const std::string& path, size_t depth) {
  const std::string folder = hierarchy_->mount_point() + path;
  if (inotify_fd_ && paths_.size() < limit_) {
    const int watch = ::inotify_add_watch(inotify_fd_.get(), folder.c_str(), kEvents);
    if (watch >= 0) {
      paths_[watch] = path;
    } else if (errno != ENOENT) {  // ENOSPC: the limit of watches
      complete_ = false;
    }
  } else {
    complete_ = false;
  }
  const std::optional<CgroupId> id = hierarchy_->IdOf(path);
  if (!id) return;
  callbacks_.added(path.empty() ? "/" : path, *id);
  if (depth >= kMaxDepth) return;

  std::vector<std::string> children;
  UniqueDir dir(::opendir(folder.c_str()));
  if (!dir) return;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (entry->d_type == DT_DIR && name != "." && name != "..") children.push_back(StrFormat("%s/%s", path, name));
  }
  dir.Reset();  // deep trees must not keep a descriptor a level
  for (const std::string& child : children) Watch(child, depth + 1);
}

void CgroupWatcher::Drain() {
  if (!inotify_fd_) return;
  alignas(inotify_event) char buffer[kBufferBytes];
  while (true) {
    const ssize_t n = ::read(inotify_fd_.get(), buffer, sizeof buffer);
    if (n <= 0) return;
    for (const char* at = buffer; at < buffer + n;) {
      const auto* event = reinterpret_cast<const inotify_event*>(at);
      at += sizeof(inotify_event) + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) {
        complete_ = false;
        continue;
      }
      if ((event->mask & IN_IGNORED) != 0) {
        paths_.erase(event->wd);
        continue;
      }
      const auto parent = paths_.find(event->wd);
      if ((event->mask & IN_ISDIR) == 0 || event->len == 0 || parent == paths_.end()) continue;
      const std::string path = StrFormat("%s/%s", parent->second, event->name);
      if ((event->mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
        Watch(path, 0);
      } else {
        callbacks_.removed(path);
      }
    }
  }
}

}  // namespace pyrometer::containers

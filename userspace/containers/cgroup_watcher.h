// Tells at once which cgroups are made and removed in one hierarchy: inotify on each of its folders.
//
//   CgroupWatcher watcher(&hierarchy, {.added = …, .removed = …});
//   watcher.WatchAll(65'536);                 // reports every cgroup that exists, parents first
//   poll(watcher.fd()); watcher.Drain();      // reports what came and went since
//
// The kernel reports mkdir and rmdir on cgroup file systems like on any other; a folder made in a folder that is
// not watched yet is found by listing after each new watch, so nothing is missed and `added` may come twice.
//
// Threads: one. Cost: one watch a cgroup (fs.inotify.max_user_watches, usually 8 Ki to 1 Mi a user, 1 KiB of kernel
// memory each). Does not promise to work on every kernel or within the limit: `complete()` says whether all folders
// are watched; when not, walk the hierarchy now and then.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>

#include "userspace/base/owned.h"
#include "userspace/base/types.h"
#include "userspace/containers/cgroup_hierarchy.h"

namespace pyrometer::containers {

class CgroupWatcher {
 public:
  struct Callbacks {
    std::function<void(const std::string& path, CgroupId id)> added;
    std::function<void(const std::string& path)> removed;
  };

  CgroupWatcher(const CgroupHierarchy* hierarchy, Callbacks callbacks);

  // -1 when inotify is not to be had.
  int fd() const { return inotify_fd_.get(); }
  // Every folder is watched and no event was lost since the last WatchAll.
  bool complete() const { return complete_; }

  // Watches and reports every cgroup, at most `limit`; call again when complete() is false to start anew.
  void WatchAll(size_t limit);
  // Reads the events that are there; does not block.
  void Drain();

 private:
  void Watch(const std::string& path, size_t depth);

  const CgroupHierarchy* hierarchy_;
  const Callbacks callbacks_;
  UniqueFd inotify_fd_;
  std::unordered_map<int, std::string> paths_;  // by watch descriptor; "" is the root
  size_t limit_ = 0;
  bool complete_ = false;
};

}  // namespace pyrometer::containers

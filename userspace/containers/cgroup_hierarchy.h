// The cgroup file systems of this host, and the way from a kernel cgroup id to a path.
//
//   ASSIGN_OR_RETURN(CgroupMounts mounts, FindCgroupMounts());          // /proc/self/mountinfo
//   CgroupHierarchy v2(mounts.v2_mount);
//   std::optional<std::string> path = v2.PathOf(CgroupId(386));         // "/kubepods/burstable/pod…/4fa8…"
//
// The id that BPF reports is the number of the cgroup's kernfs node, which is its directory's inode. With
// CAP_DAC_READ_SEARCH a file handle made of it opens the directory at once (open_by_handle_at, 4 µs); without,
// only a walk over the hierarchy finds it (1 ms for 300 cgroups). Both kinds of hierarchy work the same way, but
// their numbers are unrelated: an id means something only together with its hierarchy.
//
// Hosts come in three layouts: pure cgroup2 (/sys/fs/cgroup), hybrid (cgroup2 without controllers at
// /sys/fs/cgroup/unified, v1 controllers beside), v1 only. CgroupMounts has what is there.
//
// Threads: const methods from any thread. Does not promise: paths of cgroups that were removed (their handle is
// stale at once); ContainerIndex remembers those. Kernels before 5.5 number cgroups otherwise: not supported.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"

namespace pyrometer::containers {

struct CgroupMounts {
  std::string v2_mount;       // mount point of cgroup2; empty = none
  std::string v1_mount;       // mount point of one v1 controller; empty = none
  std::string v1_controller;  // which one ("cpu", …)
  // cgroup2 holds all controllers: nothing interesting is in v1.
  bool pure_v2() const { return !v2_mount.empty() && v1_mount.empty(); }
};

// Parses /proc/PID/mountinfo. `v1_controller`: the one whose ids the probes report; empty = the first of memory,
// cpu, cpuacct, pids, freezer, devices, blkio, cpuset that is mounted (as the kernel room chooses).
CgroupMounts ParseCgroupMounts(std::string_view mountinfo, std::string_view v1_controller);
// FAILED_PRECONDITION when no cgroup file system is mounted at all.
StatusOr<CgroupMounts> FindCgroupMounts(std::string_view v1_controller = "");

class CgroupHierarchy {
 public:
  explicit CgroupHierarchy(std::string mount_point);

  const std::string& mount_point() const { return mount_point_; }
  // False: ids can be found by walking only (no CAP_DAC_READ_SEARCH, or an old kernel).
  bool has_handles() const { return has_handles_; }

  // Path below the mount point ("/" for the root) of a cgroup that exists; nullopt otherwise, or without handles.
  std::optional<std::string> PathOf(CgroupId id) const;
  // Id of the cgroup at `path`; nullopt when there is none.
  std::optional<CgroupId> IdOf(const std::string& path) const;

  // Visits every cgroup, parents before children, at most `limit` of them; returns how many were visited.
  // Cgroups made or removed meanwhile may or may not be seen.
  size_t Walk(size_t limit, const std::function<void(const std::string& path, CgroupId id)>& visit) const;
  // Process ids in the cgroup itself (not below it), at most `limit`, in the order the kernel lists them.
  std::vector<uint32_t> Processes(const std::string& path, size_t limit) const;

 private:
  std::string mount_point_;
  UniqueFd mount_fd_;
  bool has_handles_ = false;
};

}  // namespace pyrometer::containers

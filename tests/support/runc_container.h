// A real runc container for tests: a root file system made of busybox and the programs that the
// test wants to run in it, started detached, removed with everything it left when the object dies.
//
//   if (auto why = RuncContainer::WhyNot()) GTEST_SKIP() << *why;
//   auto shop = RuncContainer::Start({.name = "shop", .binaries = {workload}, .arguments = {"/bin/workload", "20"}});
//   ASSERT_TRUE(shop.ok()) << shop.status();
//   shop->cgroup_id();   // what bpf_get_current_cgroup_id() says inside
//   shop->pid();         // its init process, as seen here
//
// Cost: about 0.3 s to start, 0.2 s to stop. Threads: one at a time. Needs root, runc, busybox-static.
// Does not promise: network (an own empty network namespace unless told otherwise), CPU or memory limits.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"

namespace pyrometer::test_support {

struct RuncOptions {
  std::string name;                    // runc's container id; must be unique on the machine
  std::vector<std::string> binaries;   // host paths, copied to /bin with the libraries that ldd names
  std::vector<std::string> arguments;  // program in the container and its arguments; empty = sleep 600
  std::vector<std::pair<std::string, std::string>> files;        // (host path, absolute path in the container), copied
  std::vector<std::pair<std::string, std::string>> bind_mounts;  // (host folder, absolute path in the container), rw
  std::vector<std::string> environment;                          // "KEY=value"
  bool host_network = false;                                     // share the host's network namespace
  std::string network_namespace;  // path of a network namespace to join, e.g. /run/netns/a; wins over host_network
  std::string cgroup_path;        // linux.cgroupsPath; empty = runc's default, "/<name>"
  std::string runtime_root;       // runc --root; empty = a folder in the scratch folder
};

class RuncContainer {
 public:
  // Why containers cannot be run here (not root, no runc, no busybox); nullopt when they can.
  static std::optional<std::string> WhyNot();

  static StatusOr<RuncContainer> Start(const RuncOptions& options);
  RuncContainer(RuncContainer&& other) noexcept;
  RuncContainer& operator=(RuncContainer&& other) noexcept;
  // Stops and removes; errors at this point are printed, as there is nobody to tell.
  ~RuncContainer();

  // Kills the container and removes its state, cgroups and scratch folder. Safe to call twice.
  Status Stop();
  // Waits until the container's init has ended by itself.
  Status WaitUntilExited(uint64_t timeout_ns);

  const std::string& name() const { return name_; }
  // The container's init process in our pid namespace.
  pid_t pid() const { return pid_; }
  // Path of the cgroup below the cgroup2 mount ("/shop").
  const std::string& cgroup_path() const { return cgroup_path_; }
  // Folder of the container in the cgroup2 hierarchy.
  const std::string& cgroup_folder() const { return cgroup_folder_; }
  // Inode of that folder, read while the container ran.
  CgroupId cgroup_id() const { return cgroup_id_; }
  // Root file system as the host sees it.
  std::string rootfs() const { return scratch_ + "/rootfs"; }
  // What the container printed so far, standard output and error.
  std::string Output() const;

 private:
  RuncContainer() = default;
  std::vector<std::string> Runc(std::vector<std::string> arguments) const;

  std::string name_;
  std::string scratch_;       // owned folder; empty = moved from, or stopped
  std::string runtime_root_;  // runc --root
  pid_t pid_ = 0;
  std::string cgroup_path_;
  std::string cgroup_folder_;
  CgroupId cgroup_id_;
};

// Copies busybox (with the usual applet links) and `binaries` with their libraries into `rootfs`.
Status MakeRootfs(const std::string& rootfs, const std::vector<std::string>& binaries);

// Mount point of the cgroup2 hierarchy on this host, e.g. /sys/fs/cgroup/unified; empty without one.
std::string Cgroup2MountPoint();

}  // namespace pyrometer::test_support

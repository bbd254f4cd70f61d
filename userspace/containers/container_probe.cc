#include "userspace/containers/container_probe.h"

#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// (device, inode) of what the path leads to; 0, 0 when it cannot be told.
std::pair<dev_t, ino_t> IdentityOf(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return {0, 0};
  return {info.st_dev, info.st_ino};
}

}  // namespace

ContainerProbe::ContainerProbe(const Options& options) : proc_root_(options.proc_root) {
  for (const std::string& root : options.state_roots) state_roots_.push_back({root, "state.json", Runtime::kRunc});
  state_roots_.push_back({"/run/runc", "state.json", Runtime::kRunc});
  state_roots_.push_back({"/run/crun", "status", Runtime::kRunc});
  state_roots_.push_back({"/run/youki", "state.json", Runtime::kRunc});
  state_roots_.push_back({"/run/runsc", "", Runtime::kRunc});
  for (const char* runtime_namespace : {"default", "k8s.io"}) {
    state_roots_.push_back(
        {StrFormat("/run/containerd/io.containerd.runtime.v2.task/%s", runtime_namespace), "", Runtime::kContainerd});
  }
  state_roots_.push_back({"/run/docker/runtime-runc/moby", "state.json", Runtime::kDocker});
}

ProbeResult ContainerProbe::Decide(const ContainerIdentity& identity, const std::vector<uint32_t>& pids) const {
  const std::string& id = identity.container_id;
  if (!id.empty() && id != "." && id != ".." && id.find('/') == std::string::npos) {
    for (const StateRoot& root : state_roots_) {
      std::string witness = StrFormat("%s/%s", root.folder, id);
      if (!root.file.empty()) witness += "/" + root.file;
      if (Exists(witness)) return {ProbeVerdict::kContainer, root.runtime};
    }
  }

  auto host_root = IdentityOf(proc_root_ + "/1/root/");
  auto host_mounts = IdentityOf(proc_root_ + "/1/ns/mnt");
  if (host_root.second == 0 || host_mounts.second == 0) {
    // Process 1 may be closed to us (a security module; seen on micro-VM hosts). An agent that is so confined is
    // not itself in a container with the host's pids.
    host_root = IdentityOf(proc_root_ + "/self/root/");
    host_mounts = IdentityOf(proc_root_ + "/self/ns/mnt");
  }
  ProbeResult result;
  for (uint32_t pid : pids) {
    const auto root = IdentityOf(StrFormat("%s/%d/root/", proc_root_, pid));
    const auto mounts = IdentityOf(StrFormat("%s/%d/ns/mnt", proc_root_, pid));
    // Not allowed to look, or it ended meanwhile: no witness.
    if (root.second == 0 || mounts.second == 0 || host_root.second == 0 || host_mounts.second == 0) continue;
    if (root != host_root && mounts != host_mounts) {
      return {ProbeVerdict::kContainer, identity.runtime == Runtime::kNone ? Runtime::kUnknown : identity.runtime};
    }
    result.verdict = ProbeVerdict::kHost;
  }
  return result;
}

}  // namespace pyrometer::containers

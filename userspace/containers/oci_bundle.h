// Metadata from what runtimes leave on disk: works without a socket, without a right to it, and with no load on the
// runtime.
//
//   index->AddClient(MakeBundleClient({}));
//
// Looks, by container id, at: containerd's bundle (config.json and its Kubernetes or nerdctl annotations), the
// bundle of CRI-O and podman under containers/storage, podman's list of names (containers.json), Docker's
// config.v2.json, and the bundle that a plain runc container's state.json names. Tells less than the runtimes do:
// no pod labels from containerd. So rank 1.
//
// Threads: one at a time. Files are at most kMaxBundleBytes. Does not promise anything for layouts changed by
// configuration (other state folders), unless given in BundleOptions.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/containers/runtime_client.h"

namespace pyrometer::containers {

inline constexpr size_t kMaxBundleBytes = 8u << 20;  // [Kubernetes pod with 100 volumes: 60 KiB]

struct BundleOptions {
  std::string root;                               // before all paths below, for tests; default none
  std::vector<std::string> containerd_states = {  // state folders of containerd daemons
      "/run/containerd", "/run/k3s/containerd", "/var/snap/microk8s/common/run/containerd"};
  std::vector<std::string> containers_storages = {  // containers/storage: run root, graph root
      "/run/containers/storage", "/var/lib/containers/storage", "/var/run/containers/storage"};
  std::string docker_root = "/var/lib/docker";
  std::string runc_root = "/run/runc";
};

std::unique_ptr<RuntimeClient> MakeBundleClient(const BundleOptions& options);

// config.json of an OCI bundle; NOT_FOUND when its annotations tell no name.
StatusOr<ContainerMetadata> ParseBundleConfig(std::string_view json, std::string_view container_id);

}  // namespace pyrometer::containers

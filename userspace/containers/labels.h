// The labels that a container's samples carry.
//
//   Labels labels = LabelsFor(identity, metadata, "node-7", {});
//   // {container.id, container.name, container.runtime, image, namespace, node, pod, pod.uid, qos, service}
//
// | label              | value                                                                                    |
// | node               | this machine's name                                                                      |
// | service            | see below; always present                                                                |
// | container.id       | full id as the runtime names it                                                          |
// | container.name     | the runtime's name for it, else the name in the cgroup path, else the id's first 12 bytes |
// | container.runtime  | docker, containerd, cri-o, podman, runc, lxc, systemd-nspawn, …                          |
// | image              | image reference                                                                          |
// | pod, namespace, pod.uid, qos | Kubernetes; qos is guaranteed, burstable or besteffort                         |
// | unit               | systemd unit without ".service" (of host processes, or inside a container)               |
// | compose.project, compose.service | Docker compose                                                             |
// | app                | Kubernetes label app.kubernetes.io/name, else app, else k8s-app                          |
// | version            | Kubernetes label app.kubernetes.io/version                                               |
// | label.<key>        | container or pod labels named in LabelOptions::keep                                      |
//
// service, the first that is there: Kubernetes `app` as above · the pod's owner, found by cutting the generated
// suffix off the pod's name (by the labels pod-template-hash, controller-revision-hash, statefulset…pod-name,
// job-name), or the whole name of a pod without an owner · compose.service · container.name · unit without
// ".service" · "host". A name changes its series, so labels whose values never repeat (pids, hashes) are not here.
//
// Host processes have no container.* label. Labels are sorted by name; empty ones are left out; names and values
// are valid UTF-8, at most kMaxLabelKeyBytes and kMaxLabelValueBytes long, at most kMaxResultLabels in all.
// Threads: pure function. Cost: 2 µs.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "userspace/containers/cgroup_path.h"
#include "userspace/containers/runtime_client.h"

namespace pyrometer::containers {

inline constexpr size_t kMaxResultLabels = 48;

using Labels = std::vector<std::pair<std::string, std::string>>;

struct LabelOptions {
  std::vector<std::string> keep;  // keys of container and pod labels to carry as label.<key>; default none
};

// `metadata` may be null: not known (yet).
Labels LabelsFor(const ContainerIdentity& identity, const ContainerMetadata* metadata, std::string_view node,
                 const LabelOptions& options = {});

// The name people use for it; "" for host processes.
std::string ContainerName(const ContainerIdentity& identity, const ContainerMetadata* metadata);

// "checkout-7d9f8b6c5-x2x4z" with its pod-template-hash -> "checkout"; see the table above.
std::string PodOwner(const ContainerMetadata& metadata);

}  // namespace pyrometer::containers

// Kubernetes' Container Runtime Interface over gRPC: what containerd and CRI-O tell about pods and containers.
//
//   for (auto& client : MakeCriClients()) index->AddClient(std::move(client));
//
// Two calls answer for one container: ListContainers with its id as the filter, and ListPodSandbox with its pod's,
// as only the sandbox carries the pod's labels. An id that is a sandbox's gives the pod's "pause" container. Nothing
// is called that changes anything. Where no socket is, a call fails at once, without a thread or a connection.
//
// Threads and limits: see containers/runtime_client.h. Cost: gRPC's own threads (2) once a socket is found.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/containers/runtime_client.h"

namespace pyrometer::rpc {

struct CriOptions {
  std::string socket_path;                                         // of a runtime's CRI service
  containers::Runtime runtime = containers::Runtime::kContainerd;  // kCrio: CRI-O
  uint64_t deadline_ns = 2 * kNsPerSecond;                         // of one question (both calls)
};

std::unique_ptr<containers::RuntimeClient> MakeCriClient(const CriOptions& options);

// Clients for the usual sockets: containerd and CRI-O always (they may start later), k3s, microk8s and cri-dockerd
// when they are there now; and containerd clients for `more_sockets`.
std::vector<std::unique_ptr<containers::RuntimeClient>> MakeCriClients(
    const std::vector<std::string>& more_sockets = {});

}  // namespace pyrometer::rpc

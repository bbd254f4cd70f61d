// The Docker Engine API over its unix socket; podman's service speaks the same.
//
//   index->AddClient(MakeDockerClient({}));                                              // /var/run/docker.sock
//   index->AddClient(MakeDockerClient({.socket_path = "/run/podman/podman.sock", .podman = true}));
//
// Unversioned paths are used (`/containers/<id>/json`): every version answers them. Read-only calls only.
// Threads and limits: see runtime_client.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "userspace/base/clock.h"
#include "userspace/containers/runtime_client.h"

namespace pyrometer::containers {

struct DockerOptions {
  std::string socket_path = "/var/run/docker.sock";
  bool podman = false;                      // it is podman's service
  uint64_t deadline_ns = 2 * kNsPerSecond;  // of one call, connect to last byte
};

std::unique_ptr<RuntimeClient> MakeDockerClient(const DockerOptions& options);

// The answers' JSON, for tests and other sources of the same documents. DATA_LOSS when malformed.
StatusOr<ContainerMetadata> ParseDockerInspect(std::string_view json);
StatusOr<std::vector<ContainerMetadata>> ParseDockerList(std::string_view json);

}  // namespace pyrometer::containers

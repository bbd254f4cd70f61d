#include "userspace/containers/container_index.h"
#include "userspace/containers/docker_client.h"
#include "userspace/containers/oci_bundle.h"

namespace pyrometer::containers {

std::vector<std::unique_ptr<RuntimeClient>> MakeDefaultClients() {
  std::vector<std::unique_ptr<RuntimeClient>> clients;
  clients.push_back(MakeDockerClient({.socket_path = "/var/run/docker.sock"}));
  clients.push_back(MakeDockerClient({.socket_path = "/run/podman/podman.sock", .podman = true}));
  clients.push_back(MakeBundleClient({}));
  return clients;
}

}  // namespace pyrometer::containers

// What container runtimes tell about their containers, and the interface to ask them through.
//
//   std::unique_ptr<RuntimeClient> docker = MakeDockerClient({.socket_path = "/var/run/docker.sock"});
//   StatusOr<ContainerMetadata> web = docker->Inspect(identity);
//
// Implementations: docker_client.h (Docker and podman), oci_bundle.h (no socket: the bundle on disk), and CRI over
// gRPC in userspace/rpc/cri. ContainerIndex calls them from its own thread, never from the path of samples.
//
// Threads: one caller at a time. A call returns within its deadline (2 s unless told otherwise) and reads at most
// kMaxResponseBytes. Everything a runtime says was chosen by whoever made the container: sizes are cut by
// Sanitize(), bytes need not be UTF-8.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/containers/cgroup_path.h"

namespace pyrometer::containers {

// Largest answer read from a runtime; a list of 10,000 containers with labels takes about 20 MiB.
inline constexpr size_t kMaxResponseBytes = 64u << 20;
inline constexpr size_t kMaxLabels = 128;           // of one container, the rest is dropped [Kubernetes pods: ~30]
inline constexpr size_t kMaxLabelKeyBytes = 320;    // Kubernetes allows 253 + 1 + 63
inline constexpr size_t kMaxLabelValueBytes = 512;  // Kubernetes allows 63; annotations are not read
inline constexpr size_t kMaxNameBytes = 512;        // names and image references, longer ones are cut

struct ContainerMetadata {
  std::string id;                             // as the runtime names it
  std::string name;                           // container's name, without Docker's leading '/'; in a pod the name there
  std::string image;                          // reference as the user gave it ("nginx:1.25"); may be empty
  std::map<std::string, std::string> labels;  // container's and its pod's
  std::string pod_name;                       // Kubernetes; empty elsewhere
  std::string pod_namespace;                  // Kubernetes
  std::string pod_uid;                        // Kubernetes
  int64_t created_ns = 0;                     // Unix time; 0 = not told
  bool sandbox = false;                       // the pod's own "pause" container
  Runtime runtime = Runtime::kNone;           // kNone: the path knows better

  bool operator==(const ContainerMetadata&) const = default;
};

// Applies the limits above.
void Sanitize(ContainerMetadata& metadata);

class RuntimeClient {
 public:
  virtual ~RuntimeClient() = default;

  // For messages and reports: "docker at /var/run/docker.sock".
  virtual const std::string& name() const = 0;
  // Clients of lower rank are asked first; an answer of a higher one is replaced when a lower one, away before,
  // answers again. 0: the runtime itself. 1: its files.
  virtual int rank() const { return 0; }
  // Whether this runtime may know such a container; cheap, no I/O.
  virtual bool MayKnow(const ContainerIdentity& identity) const = 0;
  // NOT_FOUND: the runtime answers and does not know it. UNAVAILABLE, DEADLINE_EXCEEDED, PERMISSION_DENIED: it
  // does not answer; the caller backs off.
  virtual StatusOr<ContainerMetadata> Inspect(const ContainerIdentity& identity) = 0;
  // All it runs now. May be UNIMPLEMENTED.
  virtual StatusOr<std::vector<ContainerMetadata>> List() = 0;
};

}  // namespace pyrometer::containers

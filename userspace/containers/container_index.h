// Who a cgroup is: from the ids that samples carry to container, names and labels.
//
//   ASSIGN_OR_RETURN(auto index, ContainerIndex::Start({.node = "node-7"}));
//   index->AddClient(MakeDockerClient({}));
//   std::shared_ptr<const ContainerInfo> info = index->Lookup(CgroupId(386), 0);
//   info->labels;                                    // sorted key/values
//   index->FindByName("shop");                       // cgroup ids for `record --container shop`
//
// How names arrive: a cgroup is learnt when it is made (inotify on the cgroup file systems; without it a walk each
// second) or at the first Lookup; its path gives the identity at once; what a path cannot tell is asked of the
// processes in it (ContainerProbe: each second until there is an answer); the runtime is asked for name, image and
// labels by a thread of its own. So a fresh container's labels grow richer within about a second: hold cgroup ids
// while aggregating, and call Lookup when a window closes, not per sample.
//
// A removed cgroup keeps its identity for `removed_grace_ns`; a container that lived shorter than the runtime
// takes to answer keeps what its path told. An id that leads nowhere (removed before anybody looked) gives an
// info with resolved == false, asked again once a second.
//
// Threads: all methods from any thread. Two threads inside: one watches cgroups, one talks to runtimes (they
// block for seconds). Cost: Lookup 0.2 µs when known, 10 µs at first; 0.7 KiB a cgroup; inotify one watch a cgroup.
// Bounds: max_cgroups, max_removed; beyond them the longest removed go first, then new ones are not remembered
// (counted, still answered). Does not promise names of containers inside a container's own runtime (docker in
// docker): those are known by id only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/containers/cgroup_path.h"
#include "userspace/containers/labels.h"
#include "userspace/containers/runtime_client.h"

namespace pyrometer::containers {

enum class MetadataState : uint8_t {
  kNotNeeded,  // a host process, or no client may know such a container
  kPending,    // a runtime will be asked (again)
  kKnown,      // metadata is filled
  kNotFound,   // the runtimes do not know it; not asked any more
};

// One cgroup. Immutable; a newer one replaces it when more is known.
struct ContainerInfo {
  bool resolved = false;       // false: the id leads to no cgroup that we ever saw
  CgroupId cgroup_id;          // inode in its hierarchy
  bool v1 = false;             // cgroup_id counts in the v1 controller, not in cgroup2
  std::string cgroup_path;     // below the hierarchy's mount point
  ContainerIdentity identity;  // from the path and the probe
  ContainerMetadata metadata;  // from the runtime; empty unless metadata_state is kKnown
  MetadataState metadata_state = MetadataState::kNotNeeded;
  bool removed = false;  // the cgroup is gone
  std::string name;      // container's name; empty for host processes
  Labels labels;         // sorted, see labels.h; {node, service="unknown"} when not resolved

  bool is_container() const { return !identity.is_host(); }
};

// One container as FindByName and List give it: all cgroups that belong to it.
struct ContainerMatch {
  std::shared_ptr<const ContainerInfo> info;  // of its topmost cgroup
  std::vector<CgroupId> v2_ids;               // it and the cgroups below it, in cgroup2
  std::vector<CgroupId> v1_ids;               // the same in the v1 controller (hybrid and v1 hosts)
};

class ContainerIndex {
 public:
  struct Options {
    std::string node;                                // label `node`; empty = left out
    std::string v1_controller;                       // whose ids the probes report; empty = by ParseCgroupMounts' order
    std::string cgroup_v2_mount;                     // empty = found in /proc/self/mountinfo
    std::string cgroup_v1_mount;                     // empty = found in /proc/self/mountinfo
    std::string proc_root = "/proc";                 // for the probe
    std::vector<std::string> runtime_state_roots;    // more folders like /run/runc, for ContainerProbe
    size_t max_cgroups = 65'536;                     // remembered at a time, both hierarchies together
    size_t max_removed = 8'192;                      // of these, removed ones
    uint64_t removed_grace_ns = 600 * kNsPerSecond;  // removed cgroups keep their names so long
    uint64_t refresh_ns = kNsPerSecond;              // period of probes, walks, retries
    LabelOptions labels;
    bool use_inotify = true;  // false: walk each refresh
  };
  struct Counters {
    size_t cgroups = 0;           // remembered, removed ones included
    size_t removed = 0;           // of these, removed
    size_t containers = 0;        // distinct running containers
    size_t pending_metadata = 0;  // containers whose runtime has not answered yet
    uint64_t unresolved = 0;      // Lookups of ids that lead nowhere (first time each)
    uint64_t over_limit = 0;      // cgroups not remembered for max_cgroups
    uint64_t walks = 0;           // walks over a hierarchy
    bool inotify = false;         // new cgroups are seen as they are made
    bool handles = false;         // ids are resolved at once (CAP_DAC_READ_SEARCH)
  };
  struct ClientState {
    std::string name;       // RuntimeClient::name()
    Status last;            // of its last call; OK before the first one
    uint64_t answers = 0;   // calls that it answered (NOT_FOUND included)
    uint64_t failures = 0;  // calls that it did not
  };

  // Scans the hierarchies once, then starts the threads. FAILED_PRECONDITION when no cgroup file system is there.
  static StatusOr<std::unique_ptr<ContainerIndex>> Start(const Options& options);
  virtual ~ContainerIndex() = default;

  virtual void AddClient(std::unique_ptr<RuntimeClient> client) = 0;

  // Never null. `v2` 0 or the root's: the v1 id decides; a container known from either is preferred to a host unit.
  virtual std::shared_ptr<const ContainerInfo> Lookup(CgroupId v2, CgroupId v1) = 0;

  // By container name, pod name or "namespace/pod" (exact), or id (a prefix of at least 4 characters). Several
  // when several running containers have the name; NOT_FOUND names close ones; INVALID_ARGUMENT when an id prefix
  // fits more than one. Walks the hierarchies first (1 ms for 300 cgroups) and asks the runtimes when the name is not
  // known (up to 2 s), so a container just started is found.
  virtual StatusOr<std::vector<ContainerMatch>> FindByName(std::string_view name) = 0;
  // The cgroup at `path` (below the mount point, or with it) and those below it; NOT_FOUND otherwise.
  virtual StatusOr<ContainerMatch> FindByCgroupPath(std::string_view path) = 0;
  // Running containers, by name.
  virtual std::vector<ContainerMatch> List() const = 0;

  // Waits until no runtime answer is pending (or clients are away), at most `timeout_ns`; true when so.
  virtual bool WaitForMetadata(uint64_t timeout_ns) = 0;

  virtual Counters counters() const = 0;
  virtual std::vector<ClientState> clients() const = 0;
};

// Clients for the runtimes' usual sockets on this host: Docker, podman, and bundles on disk. CRI is added by the
// agent (userspace/rpc/cri), as this room does not link gRPC.
std::vector<std::unique_ptr<RuntimeClient>> MakeDefaultClients();

}  // namespace pyrometer::containers

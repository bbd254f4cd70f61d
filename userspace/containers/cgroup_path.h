// What a cgroup's path says about who runs in it: which container of which runtime, which pod, which systemd unit.
//
//   ContainerIdentity id = ParseCgroupPath("/kubepods/burstable/pod0b1e…/4fa8…");
//   id.runtime == Runtime::kContainerd;  id.pod_uid == "0b1e…";  id.qos == QosClass::kBurstable;
//
// Every runtime has its own habit, and each has two: with the "systemd" cgroup driver names are units
// (`docker-<id>.scope`), with "cgroupfs" plain folders (`/docker/<id>`). Containers nest (docker in docker, kind):
// the innermost one counts, `parent_id` names the one around it. What a path cannot decide (`/shop` may be a
// container of plain runc or just a cgroup that somebody made) is marked `certain == false` and left to
// ContainerProbe, which looks at the processes.
//
// Paths are chosen by whoever may create cgroups: any length, any byte but newline. Ids and names longer than
// kMaxIdBytes are cut; nothing else of the path is copied. Threads: pure functions. Cost: ~1 µs.
// Does not promise: names, images, labels; those come from the runtimes (runtime_client.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pyrometer::containers {

// Longest container id or name kept [Docker and CRI: 64; names of Kubernetes objects: 253].
inline constexpr size_t kMaxIdBytes = 256;

enum class Runtime : uint8_t {
  kNone,        // a host process
  kDocker,      //
  kContainerd,  // through CRI, ctr or nerdctl
  kCrio,        //
  kPodman,      //
  kRunc,        // an OCI runtime (runc, crun, …) without a manager above it
  kLxc,         // LXC, LXD, Incus
  kNspawn,      // systemd-nspawn
  kNomad,       // HashiCorp Nomad's own drivers
  kGarden,      // Cloud Foundry
  kMesos,       //
  kUnknown,     // surely a container, runtime not told by the path
};
// "docker", "containerd", "cri-o", "podman", "runc", "lxc", "systemd-nspawn", …; "" for kNone.
std::string_view RuntimeName(Runtime runtime);

enum class QosClass : uint8_t { kNone, kGuaranteed, kBurstable, kBestEffort };
// "guaranteed", "burstable", "besteffort"; "" for kNone.
std::string_view QosClassName(QosClass qos);

struct ContainerIdentity {
  Runtime runtime = Runtime::kNone;
  bool certain = true;              // false: the path alone cannot decide; ContainerProbe must
  std::string container_id;         // empty for host processes
  std::string name_hint;            // name that the path itself tells (lxc, nspawn, plain runc, nomad task)
  std::string runtime_namespace;    // containerd's ("k8s.io", "default"); empty otherwise
  std::string parent_id;            // container around this one; empty = the host
  std::string pod_uid;              // Kubernetes pod UID, or podman's pod id
  QosClass qos = QosClass::kNone;   // Kubernetes
  std::string unit;                 // systemd unit: of the host, or inside the container; ids that make names endless
                                    // ("session-42.scope") are cut out ("session.scope")
  std::string slice;                // innermost systemd slice outside of the container ("system.slice")
  std::optional<uint32_t> user_id;  // of user-<uid>.slice

  bool is_host() const { return runtime == Runtime::kNone; }
  bool operator==(const ContainerIdentity&) const = default;
};

// `path` as in /proc/PID/cgroup, relative to the hierarchy's root: begins with '/'.
ContainerIdentity ParseCgroupPath(std::string_view path);

// systemd's escapes in unit names: "my\x2dbox" -> "my-box". Malformed ones stay as they are.
std::string UnescapeUnitName(std::string_view name);

// 64 hex digits, as Docker, containerd's CRI, CRI-O and podman name containers.
bool IsFullContainerId(std::string_view text);

}  // namespace pyrometer::containers

// Decides what a cgroup path leaves open: is `/shop` a container of plain runc, or a cgroup somebody made?
//
//   ContainerProbe probe({});
//   ProbeResult r = probe.Decide(identity, hierarchy.Processes(path, 8));
//   if (r.verdict == ProbeVerdict::kContainer) …
//
// Two witnesses. A runtime's state on disk (`/run/runc/shop/state.json`), when it is kept at a usual place. And the
// processes: a container's see another root directory in another mount namespace than process 1 does (or, when
// that may not be looked at, we ourselves). A chroot has only the former, systemd's private mounts only the latter,
// so both are asked for.
//
// Not for ever: between runc's fork and its pivot_root the processes still look like the host's, and a cgroup may
// be empty at first. So kHost and kUndecided are to be asked again; kContainer stays.
//
// Threads: const methods from any thread. Cost: 20 µs a process. Does not promise a verdict without the right to
// look at other users' processes (CAP_SYS_PTRACE): then only state on disk counts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "userspace/containers/cgroup_path.h"

namespace pyrometer::containers {

enum class ProbeVerdict : uint8_t {
  kUndecided,  // no process to look at, or not allowed to
  kHost,       // its processes are the host's, so far
  kContainer,
};

struct ProbeResult {
  ProbeVerdict verdict = ProbeVerdict::kUndecided;
  Runtime runtime = Runtime::kNone;  // set for kContainer
};

class ContainerProbe {
 public:
  struct Options {
    std::string proc_root = "/proc";
    std::vector<std::string> state_roots;  // looked at besides the usual ones; each holds a folder per container
  };
  explicit ContainerProbe(const Options& options);

  // `pids`: some processes of the cgroup, in our pid namespace.
  ProbeResult Decide(const ContainerIdentity& identity, const std::vector<uint32_t>& pids) const;

 private:
  struct StateRoot {
    std::string folder;
    std::string file;  // in the container's folder; empty = the folder itself is the witness
    Runtime runtime;
  };
  std::string proc_root_;
  std::vector<StateRoot> state_roots_;
};

}  // namespace pyrometer::containers

// Ways to reach a binary that some process has mapped, and to look up files as that process would.
//
//   BinarySource source;
//   source.path = "/usr/lib/libshop.so";            // as the process sees it
//   source.root = "/proc/4711/root";                // its file system
//   source.openers = {HeldFile(fd), MapFile(4711, start, end), FileInRoot(source.root, source.path)};
//
// Openers are tried in order until one gives the expected build ID, so list first what cannot lie:
// a descriptor held since exec, then map_files, then paths. Nothing is opened until asked.
//
// Paths inside a container are resolved within its root: an absolute symlink in there means the
// container's file, and "../../.." ends at its root (openat2 with RESOLVE_IN_ROOT, Linux 5.6).
//
// Threads: values; openers may run on any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/elf/byte_source.h"

namespace pyrometer::symbolize {

using Opener = std::function<StatusOr<elf::SharedFd>()>;

struct BinarySource {
  std::string path;                          // in the process's view; for messages and to find debug files beside it
  std::string root;                          // "/proc/PID/root"; empty = our own root
  std::vector<Opener> openers;               // tried in order
  std::shared_ptr<const std::string> image;  // the whole file in memory (vdso); then openers are not used
};

// A descriptor that somebody holds.
Opener HeldFile(elf::SharedFd fd);
// /proc/PID/map_files/START-END: the mapped file itself, deleted or not, while the process lives.
Opener MapFile(uint32_t tgid, VirtualAddress start, VirtualAddress end, std::string proc_root = "/proc");
// `path` within `root` (empty: ours).
Opener FileInRoot(std::string root, std::string path);

struct OpenInRootOptions {
  bool follow_last_symlink = true;  // false: a symlink as last component is an error
};
// Opens for reading, never blocking. NOT_FOUND, PERMISSION_DENIED, or the errno's code.
StatusOr<UniqueFd> OpenInRoot(const std::string& root, const std::string& path, OpenInRootOptions options = {});

}  // namespace pyrometer::symbolize

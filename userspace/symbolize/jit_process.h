// The process whose generated code is to be named: what /proc tells of it, and files that it wrote for profilers.
//
// Such files lie in folders that anybody may write (/tmp), so only a regular file owned by the process's user or
// root counts, and no symlink is followed at its end.
//
// Threads: any. Cost: 10-30 µs.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/symbolize/miss_reason.h"

namespace pyrometer::symbolize {

struct JitProcess {
  std::string folder;      // "/proc/4711"
  uint64_t inner_pid = 0;  // its number in its own PID namespace
  uint64_t real_uid = 0, effective_uid = 0;

  // nullopt: gone, or another process has its number by now.
  static std::optional<JitProcess> Find(const ProcessKey& process, const std::string& proc_root);
  std::string root() const { return folder + "/root"; }
  bool MayOwn(const struct stat& info) const;
};

// Opens `path` as the process sees it. Null: *why is kPerfMapAbsent, kPerfMapRefused or kNoPermission.
UniqueFd OpenOwnedFile(const JitProcess& process, const std::string& path, struct stat* info, MissReason* why);

}  // namespace pyrometer::symbolize

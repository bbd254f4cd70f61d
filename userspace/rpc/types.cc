#include "userspace/rpc/types.h"

#include "userspace/base/strings.h"

namespace pyrometer::rpc {

std::string TargetText(const Target& target) {
  if (target.pid != 0) return StrFormat("pid=%d", target.pid);
  if (!target.container.empty()) return "container=" + target.container;
  if (!target.cgroup.empty()) return "cgroup=" + target.cgroup;
  return "all";
}

std::string_view SessionStateName(SessionState state) {
  switch (state) {
    case SessionState::kUnspecified:
      return "unknown";
    case SessionState::kPending:
      return "pending";
    case SessionState::kRunning:
      return "running";
    case SessionState::kDone:
      return "done";
    case SessionState::kFailed:
      return "failed";
    case SessionState::kStopped:
      return "stopped";
  }
  return "unknown";
}

}  // namespace pyrometer::rpc

#include "userspace/kernel/instruction_counter.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "userspace/base/strings.h"

namespace pyrometer::kernel {

StatusOr<InstructionCounter> InstructionCounter::Open(pid_t pid, const Event& event) {
  perf_event_attr attr;
  std::memset(&attr, 0, sizeof(attr));
  attr.size = sizeof(attr);
  attr.type = event.type;
  attr.config = event.config;
  attr.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  attr.inherit = 1;
  attr.disabled = 1;
  attr.enable_on_exec = 1;
  attr.exclude_kernel = 1;
  attr.exclude_hv = 1;
  UniqueFd fd(static_cast<int>(syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  if (fd) return InstructionCounter(std::move(fd));
  switch (errno) {
    case ENOENT:
    case ENODEV:
    case EOPNOTSUPP:
    case ENOSYS:
      return FailedPreconditionError("this machine gives us no counter of instructions");
    case EACCES:
    case EPERM:
      return PermissionDeniedError(
          "may not count instructions: `sudo sysctl kernel.perf_event_paranoid=2` allows it for one's own processes");
    default:
      return ErrnoError(errno, "cannot count instructions");
  }
}

StatusOr<uint64_t> InstructionCounter::Read() const {
  struct {
    uint64_t value, enabled_ns, running_ns;
  } now{};
  const ssize_t got = ::read(fd_.get(), &now, sizeof(now));
  if (got != static_cast<ssize_t>(sizeof(now))) {
    return ErrnoError(got < 0 ? errno : EIO, "cannot read the counter of instructions");
  }
  if (now.running_ns < now.enabled_ns) {
    return UnavailableError(
        StrFormat("instructions were counted for %.0f %% of the time only: other events took the "
                  "processor's counters",
                  100 * static_cast<double>(now.running_ns) / static_cast<double>(now.enabled_ns)));
  }
  return now.value;
}

}  // namespace pyrometer::kernel

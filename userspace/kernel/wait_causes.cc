#include "userspace/kernel/wait_causes.h"

#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::kernel {
namespace {

struct CallsOfCause {
  uint8_t cause;
  std::initializer_list<std::string_view> calls;
};

// Calls that are in no line wait for nothing that one could name beforehand: "other".
const CallsOfCause kCalls[] = {
    {PYRO_CAUSE_BY_FD,
     {"read",     "write",    "readv",          "writev", "pread64",  "pwrite64", "preadv",  "pwritev",
      "preadv2",  "pwritev2", "sendfile",       "splice", "tee",      "vmsplice", "ioctl",   "close",
      "connect",  "accept",   "accept4",        "sendto", "recvfrom", "sendmsg",  "recvmsg", "sendmmsg",
      "recvmmsg", "shutdown", "copy_file_range"}},
    {PYRO_WAIT_LOCK,
     {"futex", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue", "flock", "fcntl", "semop", "semtimedop",
      "membarrier"}},
    {PYRO_WAIT_BLOCK_IO,
     {"fsync",     "fdatasync", "sync",      "syncfs",       "sync_file_range", "msync",      "open",
      "openat",    "openat2",   "creat",     "stat",         "lstat",           "fstat",      "newfstatat",
      "statx",     "access",    "faccessat", "faccessat2",   "rename",          "renameat",   "renameat2",
      "unlink",    "unlinkat",  "mkdir",     "mkdirat",      "rmdir",           "link",       "linkat",
      "symlink",   "symlinkat", "readlink",  "readlinkat",   "getdents",        "getdents64", "truncate",
      "ftruncate", "fallocate", "readahead", "fadvise64",    "chmod",           "fchmod",     "fchmodat",
      "chown",     "fchown",    "lchown",    "fchownat",     "utimensat",       "statfs",     "fstatfs",
      "chdir",     "mount",     "umount2",   "io_getevents", "io_pgetevents",   "io_submit",  "setxattr",
      "getxattr",  "fsetxattr", "fgetxattr", "execve",       "execveat",        "lseek",      "quotactl"}},
    {PYRO_WAIT_TIMER, {"nanosleep", "clock_nanosleep"}},
    {PYRO_WAIT_PAGE_FAULT, {"mlock", "mlock2", "mlockall", "madvise", "process_madvise", "mremap"}},
    {PYRO_WAIT_POLL,
     {"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2", "pause", "rt_sigsuspend",
      "rt_sigtimedwait", "msgrcv", "msgsnd", "mq_timedreceive", "mq_timedsend", "io_uring_enter"}},
};

std::array<uint8_t, PYRO_CALL_CAUSES> MakeTable() {
  std::array<uint8_t, PYRO_CALL_CAUSES> table{};
  for (const CallsOfCause& line : kCalls) {
    for (const std::string_view name : line.calls) {
      if (const auto nr = SyscallNumber(name); nr && *nr >= 0 && static_cast<size_t>(*nr) < table.size()) {
        table[static_cast<size_t>(*nr)] = line.cause;
      }
    }
  }
  return table;
}

}  // namespace

std::string_view WaitCauseName(WaitCause cause) {
  switch (cause) {
    case PYRO_WAIT_OTHER:
      return "other";
    case PYRO_WAIT_LOCK:
      return "lock";
    case PYRO_WAIT_BLOCK_IO:
      return "block_io";
    case PYRO_WAIT_NETWORK:
      return "network";
    case PYRO_WAIT_TIMER:
      return "timer";
    case PYRO_WAIT_PAGE_FAULT:
      return "page_fault";
    case PYRO_WAIT_POLL:
      return "poll";
    case PYRO_WAIT_RUNNABLE:
      return "runnable";
    case PYRO_WAIT_THROTTLED:
      return "throttled";
    case PYRO_WAIT_CAUSES:
      break;
  }
  return "other";
}

const std::array<uint8_t, PYRO_CALL_CAUSES>& CauseByCall() {
  static const std::array<uint8_t, PYRO_CALL_CAUSES> table = MakeTable();
  return table;
}

}  // namespace pyrometer::kernel

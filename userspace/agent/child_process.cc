#include "userspace/agent/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "userspace/agent/process_tree.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {

StatusOr<ChildProcess> ChildProcess::Prepare(const std::vector<std::string>& command) {
  if (command.empty() || command[0].empty()) return InvalidArgumentError("no command was given after --");
  int go[2], failed[2];
  if (::pipe2(go, O_CLOEXEC) != 0) return ErrnoError(errno, "cannot make a pipe");
  UniqueFd go_read(go[0]), go_write(go[1]);
  if (::pipe2(failed, O_CLOEXEC) != 0) return ErrnoError(errno, "cannot make a pipe");
  UniqueFd failed_read(failed[0]), failed_write(failed[1]);

  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  const pid_t pid = ::fork();
  if (pid < 0) return ErrnoError(errno, StrFormat("cannot start %s", command[0]));
  if (pid == 0) {
    // Only async-signal-safe calls from here on: other threads of the parent may have held locks.
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGINT, SIG_DFL);
    ::signal(SIGTERM, SIG_DFL);
    ::signal(SIGPIPE, SIG_DFL);
    ::close(go[1]);
    char byte;
    ssize_t n;
    do {
      n = ::read(go[0], &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n != 1) ::_exit(126);  // the parent gave up
    ::execvp(arguments[0], arguments.data());
    const int error = errno;
    (void)!::write(failed[1], &error, sizeof error);
    ::_exit(127);
  }
  ChildProcess child;
  child.pid_ = pid;
  child.program_ = command[0];
  child.go_ = std::move(go_write);
  child.failed_ = std::move(failed_read);
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      released_(other.released_),
      program_(std::move(other.program_)),
      go_(std::move(other.go_)),
      failed_(std::move(other.failed_)),
      status_(other.status_),
      started_(std::move(other.started_)) {}

ChildProcess::~ChildProcess() {
  Signal(SIGKILL);
  if (pid_ <= 0 || status_) return;
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Status ChildProcess::Release() {
  released_ = true;
  if (::write(go_.get(), "g", 1) != 1) return ErrnoError(errno, StrFormat("cannot start %s", program_));
  go_.Reset();
  int error = 0;
  ssize_t n;
  do {
    n = ::read(failed_.get(), &error, sizeof error);
  } while (n < 0 && errno == EINTR);
  if (n == sizeof error) return ErrnoError(error, StrFormat("cannot run %s", program_));
  return OkStatus();
}

std::optional<int> ChildProcess::Poll() {
  if (status_) return status_;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_;
}

void ChildProcess::Terminate() {
  if (pid_ <= 0 || status_) return;
  // Without their parent nobody would end them. By descriptor, as a number may soon be another process's.
  for (const pid_t pid : ProcessTree(pid_)) {
    if (pid == pid_) continue;
    UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (process) started_.push_back(std::move(process));
  }
  Signal(SIGTERM);
}

void ChildProcess::Signal(int signal) const {
  if (pid_ > 0 && !status_) ::kill(pid_, signal);
  for (const UniqueFd& process : started_) (void)::syscall(SYS_pidfd_send_signal, process.get(), signal, nullptr, 0);
}

bool ChildProcess::AllEnded() {
  // A descriptor of a process that has ended is readable.
  std::erase_if(started_, [](const UniqueFd& process) {
    pollfd ended{process.get(), POLLIN, 0};
    return ::poll(&ended, 1, 0) == 1;
  });
  return Poll().has_value() && started_.empty();
}

}  // namespace pyrometer::agent

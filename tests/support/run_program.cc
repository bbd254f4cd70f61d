#include "tests/support/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::test_support {
namespace {

constexpr size_t kMaxOutputBytes = 1u << 20;

std::string SearchPath() {
  const char* path = std::getenv("PATH");
  return std::string(path != nullptr ? path : "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
}

std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const std::string search = SearchPath();
  for (std::string_view folder : Split(search, ':')) {
    if (folder.empty()) continue;
    std::string candidate = StrFormat("%s/%s", folder, name);
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

}  // namespace

bool HaveProgram(const std::string& name) { return !FindProgram(name).empty(); }

ProgramResult RunProgram(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  ProgramResult result;
  const std::string program = FindProgram(arguments.at(0));
  if (program.empty()) {
    result.exit_code = 127;
    result.output = StrFormat("%s: not found in PATH", arguments[0]);
    return result;
  }

  UniqueFd read_end;
  UniqueFd write_end;
  if (options.output_file.empty()) {
    int pipe_fds[2];
    if (::pipe2(pipe_fds, O_CLOEXEC) != 0) {
      result.output = "pipe2 failed";
      return result;
    }
    read_end.Reset(pipe_fds[0]);
    write_end.Reset(pipe_fds[1]);
  } else {
    write_end.Reset(::open(options.output_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!write_end) {
      result.output = StrFormat("cannot write %s", options.output_file);
      return result;
    }
  }

  // Everything that allocates happens before fork: the child may only call async-signal-safe functions.
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> environment_texts;
  for (char** entry = environ; *entry != nullptr; ++entry) environment_texts.emplace_back(*entry);
  environment_texts.push_back("PATH=" + SearchPath());
  for (const auto& [key, value] : options.environment) environment_texts.push_back(key + "=" + value);
  std::vector<char*> envp;
  for (std::string& text : environment_texts) envp.push_back(text.data());
  envp.push_back(nullptr);
  UniqueFd null_fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));

  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(null_fd.get(), 0);
    ::dup2(write_end.get(), 1);
    ::dup2(write_end.get(), 2);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(program.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  write_end.Reset();
  if (child < 0) {
    result.output = "fork failed";
    return result;
  }

  const uint64_t deadline = MonotonicNowNs() + options.timeout_ns;
  int wait_status = 0;
  bool timed_out = false;
  while (true) {
    if (read_end) {
      pollfd poll_fd = {.fd = read_end.get(), .events = POLLIN, .revents = 0};
      if (::poll(&poll_fd, 1, 20) > 0) {
        char buffer[4096];
        const ssize_t n = ::read(read_end.get(), buffer, sizeof buffer);
        if (n == 0) read_end.Reset();
        if (n > 0 && result.output.size() < kMaxOutputBytes) result.output.append(buffer, static_cast<size_t>(n));
        if (n != 0) continue;
      }
    } else {
      ::usleep(2000);
    }
    // The output ends when the program does, not when the last grandchild closes the pipe.
    const pid_t done = ::waitpid(child, &wait_status, WNOHANG);
    if (done == child) break;
    if (done < 0 && errno != EINTR) break;
    if (MonotonicNowNs() > deadline) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &wait_status, 0);
      timed_out = true;
      break;
    }
  }
  // What was still in the pipe when the program ended.
  if (read_end) {
    ::fcntl(read_end.get(), F_SETFL, O_NONBLOCK);
    char buffer[4096];
    ssize_t n;
    while (result.output.size() < kMaxOutputBytes && (n = ::read(read_end.get(), buffer, sizeof buffer)) > 0) {
      result.output.append(buffer, static_cast<size_t>(n));
    }
  }
  if (timed_out) {
    result.exit_code = 124;
  } else if (WIFEXITED(wait_status)) {
    result.exit_code = WEXITSTATUS(wait_status);
  } else if (WIFSIGNALED(wait_status)) {
    result.exit_code = 128 + WTERMSIG(wait_status);
  }
  return result;
}

}  // namespace pyrometer::test_support

#include "tests/kernel/harness.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/features.h"

namespace pyrometer::testing {

Child::Child(std::vector<std::string> arguments) {
  int gate[2], in[2], out[2];
  if (pipe2(gate, O_CLOEXEC) != 0 || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
  pid_ = fork();
  if (pid_ == 0) {
    char go = 0;
    close(gate[1]);
    if (read(gate[0], &go, 1) != 1) _exit(126);
    dup2(in[0], 0);
    dup2(out[1], 1);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(gate[0]);
  close(in[0]);
  close(out[1]);
  gate_.Reset(gate[1]);
  input_.Reset(in[1]);
  output_.Reset(out[0]);
}

Child::~Child() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

void Child::Go() {
  if (gate_ && write(gate_.get(), "g", 1) != 1) std::abort();
  gate_.Reset();
}

std::string Child::ReadLine() {
  while (true) {
    const size_t end = buffered_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffered_.substr(0, end);
      buffered_.erase(0, end + 1);
      return line;
    }
    char chunk[4096];
    const ssize_t n = read(output_.get(), chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return std::exchange(buffered_, "");
    buffered_.append(chunk, static_cast<size_t>(n));
  }
}

void Child::WaitUntilBlockedIn(std::initializer_list<long> calls) const {
  const std::string path = StrFormat("/proc/%d/syscall", pid_);
  while (!Ended()) {
    long number = -1;  // the file says "running" otherwise
    if (std::ifstream(path) >> number && std::find(calls.begin(), calls.end(), number) != calls.end()) return;
    usleep(1000);
  }
}

bool Child::WaitStopped() const {
  siginfo_t info{};
  while (waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WEXITED | WNOWAIT) != 0) {
    if (errno != EINTR) return false;
  }
  return info.si_code == CLD_STOPPED;
}

std::optional<uint64_t> Child::QueuedNs() const {
  uint64_t ran = 0, queued = 0;
  if (std::ifstream(StrFormat("/proc/%d/schedstat", pid_)) >> ran >> queued) return queued;
  return std::nullopt;
}

int Child::Wait() {
  int status = -1;
  if (pid_ > 0) waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

bool Child::Ended() const {
  siginfo_t info{};
  return pid_ <= 0 ||
         (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_);
}

void Child::Signal(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

TestCgroup::TestCgroup(const std::string& name, const std::string& controller) {
  const StatusOr<std::string> mounts = ReadFile("/proc/self/mountinfo");
  if (!mounts.ok()) return;
  for (const std::string_view line : Split(*mounts, '\n')) {
    const bool wanted = controller.empty() ? line.find(" - cgroup2 ") != std::string_view::npos
                                           : line.find(" - cgroup ") != std::string_view::npos &&
                                                 (line.ends_with("," + controller) ||
                                                  line.find("," + controller + ",") != std::string_view::npos);
    if (!wanted) continue;
    const std::string path =
        StrFormat("%s/pyrometer-test-%s-%d", Split(line, ' ')[4], name, static_cast<int>(getpid()));
    struct stat info {};
    if (mkdir(path.c_str(), 0755) != 0 || stat(path.c_str(), &info) != 0) return;
    path_ = path;
    id_ = info.st_ino;
    return;
  }
}

TestCgroup::~TestCgroup() {
  if (path_.empty()) return;
  // The last process's exit may be a moment behind its wait status.
  for (int i = 0; i < 50 && rmdir(path_.c_str()) != 0 && errno == EBUSY; ++i) usleep(10000);
}

bool TestCgroup::Add(pid_t pid) const {
  std::ofstream procs(path_ + "/cgroup.procs");
  procs << pid << std::flush;
  return procs.good();
}

std::string Workload(std::string_view name) { return StrFormat("%s/%s", PYROMETER_WORKLOADS, name); }

bool FeatureWorks(std::string_view name, std::string* why) {
  static const std::vector<kernel::Feature> features = kernel::ProbeFeatures();
  const kernel::Feature* feature = kernel::FindFeature(features, name);
  if (feature == nullptr) {
    *why = "no such feature";
    return false;
  }
  *why = feature->detail;
  return feature->state != kernel::FeatureState::kMissing;
}

}  // namespace pyrometer::testing

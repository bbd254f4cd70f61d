// A command that is started stopped before its exec, so that sampling can be set up first.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"

namespace pyrometer::agent {

class ChildProcess {
 public:
  // Forks; the child waits for Release. It gets default signal handling and its own standard streams.
  static StatusOr<ChildProcess> Prepare(const std::vector<std::string>& command);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  // A child that was never released, or still runs, is killed and reaped; so is what outlived Terminate.
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  bool released() const { return released_; }
  // Lets it exec. NOT_FOUND or PERMISSION_DENIED when the program cannot be run.
  Status Release();
  // The wait status once it ended; nullopt while it runs.
  std::optional<int> Poll();
  // Sends SIGTERM to it and to what it started.
  void Terminate();
  // After Terminate: it and all of them have ended.
  bool AllEnded();

 private:
  ChildProcess() = default;
  void Signal(int signal) const;  // all that still run

  pid_t pid_ = -1;
  bool released_ = false;
  std::string program_;
  UniqueFd go_;      // written to release
  UniqueFd failed_;  // carries errno when exec failed, closed by a good exec
  std::optional<int> status_;
  std::vector<UniqueFd> started_;  // by the child: pidfds, from Terminate on
};

}  // namespace pyrometer::agent

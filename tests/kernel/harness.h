// What kernel tests share: child processes with captured output, cgroups of their own, and the rule for skipping.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/owned.h"

namespace pyrometer::testing {

// A child process, killed at the end of its scope if still running (only ever this pid).
class Child {
 public:
  // Starts `arguments` with its standard input and output on pipes. The child waits on a gate before it execs: see Go.
  explicit Child(std::vector<std::string> arguments);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // Lets the child exec. Before it, the child exists, does nothing and may be moved into a cgroup.
  void Go();
  // The next line of its output, without the newline; "" at the end.
  std::string ReadLine();
  // Closes its standard input.
  void CloseInput() { input_.Reset(); }
  // Waits for its end; its wait(2) status.
  int Wait();
  // True once it has ended, waited for or not.
  bool Ended() const;
  void Signal(int signal);

 private:
  pid_t pid_ = -1;
  UniqueFd gate_, input_, output_;
  std::string buffered_;
};

// A cgroup directory, removed at the end of the scope (its processes must have ended by then: declare it before them).
class TestCgroup {
 public:
  // Under the cgroup2 mount, or that of the cgroup1 `controller`; `name` is made unique.
  explicit TestCgroup(const std::string& name, const std::string& controller = "");
  ~TestCgroup();
  bool ok() const { return !path_.empty(); }
  // Its directory.
  const std::string& path() const { return path_; }
  // What bpf_get_current_cgroup_id() returns inside: the directory's inode.
  uint64_t id() const { return id_; }
  bool Add(pid_t pid) const;

 private:
  std::string path_;
  uint64_t id_ = 0;
};

// A path made by $<TARGET_FILE:workload_NAME>, in the folder the build tells us.
std::string Workload(std::string_view name);

// True when the feature works. When it does not and BPF itself works, that is a failure of this machine's set-up or of
// ours only if `features.h` claims it works: tests call SKIP_UNLESS, which skips with the reported reason.
bool FeatureWorks(std::string_view name, std::string* why);

#define SKIP_UNLESS(feature)                                                                          \
  do {                                                                                                \
    std::string why_;                                                                                 \
    if (!::pyrometer::testing::FeatureWorks(feature, &why_)) GTEST_SKIP() << feature << ": " << why_; \
  } while (false)

}  // namespace pyrometer::testing

#include "userspace/agent/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "userspace/agent/process_tree.h"
#include "userspace/base/file.h"

namespace pyrometer::agent {
namespace {

int WaitFor(ChildProcess& child) {
  for (int i = 0; i < 1000; ++i) {
    if (const auto status = child.Poll()) return *status;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ADD_FAILURE() << "the child did not end";
  return -1;
}

TEST(ChildProcess, RunsOnlyAfterRelease) {
  const std::string mark = testing::TempDir() + "/pyrometer-child-mark-" + std::to_string(::getpid());
  auto child = ChildProcess::Prepare({"touch", mark});
  ASSERT_TRUE(child.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(std::filesystem::exists(mark));
  ASSERT_TRUE(child->Release().ok());
  EXPECT_EQ(WaitFor(*child), 0);
  EXPECT_TRUE(std::filesystem::remove(mark));
}

TEST(ChildProcess, SaysWhyAProgramCannotRun) {
  auto missing = ChildProcess::Prepare({"/no/such/program"});
  ASSERT_TRUE(missing.ok());
  const Status status = missing->Release();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(Message(status).find("/no/such/program"), std::string_view::npos);
  auto folder = ChildProcess::Prepare({"/tmp"});
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(folder->Release().code(), StatusCode::kPermissionDenied);
  EXPECT_FALSE(ChildProcess::Prepare({}).ok());
}

TEST(ChildProcess, ReportsExitCodesAndSignals) {
  auto failing = ChildProcess::Prepare({"sh", "-c", "exit 7"});
  ASSERT_TRUE(failing.ok() && failing->Release().ok());
  EXPECT_EQ(WEXITSTATUS(WaitFor(*failing)), 7);
  auto sleeping = ChildProcess::Prepare({"sleep", "60"});
  ASSERT_TRUE(sleeping.ok() && sleeping->Release().ok());
  EXPECT_EQ(sleeping->Poll(), std::nullopt);
  sleeping->Terminate();
  EXPECT_EQ(WTERMSIG(WaitFor(*sleeping)), SIGTERM);
}

bool Ended(pid_t pid) {
  const auto stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  if (!stat.ok()) return true;
  const size_t name_end = stat->rfind(')');
  return name_end != std::string::npos && stat->substr(name_end).starts_with(") Z");  // nobody may have waited for it
}

// The tree, once it has that many processes.
std::vector<pid_t> TreeOf(pid_t root, size_t size) {
  std::vector<pid_t> tree;
  for (int i = 0; i < 1000 && tree.size() < size; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    tree = ProcessTree(root);
  }
  EXPECT_EQ(tree.size(), size);
  return tree;
}

TEST(ChildProcess, TerminateEndsWhatItStartedToo) {
  auto shell = ChildProcess::Prepare({"sh", "-c", "sleep 60 & (sleep 60; :) & wait"});
  ASSERT_TRUE(shell.ok() && shell->Release().ok());
  const std::vector<pid_t> tree = TreeOf(shell->pid(), 4);  // the shells and both sleeps
  EXPECT_FALSE(shell->AllEnded());
  shell->Terminate();
  for (int i = 0; i < 1000 && !shell->AllEnded(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(shell->AllEnded());
  for (const pid_t pid : tree) EXPECT_TRUE(Ended(pid)) << pid;
}

TEST(ChildProcess, KillsWhatIgnoresTerminate) {
  std::vector<pid_t> tree;
  {
    // The shell ends at once; what it started hears no SIGTERM.
    auto shell = ChildProcess::Prepare({"sh", "-c", "(trap '' TERM; sleep 60; :) & wait"});
    ASSERT_TRUE(shell.ok() && shell->Release().ok());
    tree = TreeOf(shell->pid(), 3);
    shell->Terminate();
    WaitFor(*shell);
    EXPECT_FALSE(shell->AllEnded());
  }
  for (const pid_t pid : tree) {
    for (int i = 0; i < 400 && !Ended(pid); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(Ended(pid)) << pid;
  }
}

TEST(ChildProcess, LeavesNothingRunningWhenDropped) {
  pid_t pid = 0;
  {
    auto child = ChildProcess::Prepare({"sleep", "60"});
    ASSERT_TRUE(child.ok());
    pid = child->pid();
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

}  // namespace
}  // namespace pyrometer::agent

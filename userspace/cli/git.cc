#include "userspace/cli/git.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kMaxOutputBytes = 64u << 20;

}  // namespace

StatusOr<std::string> GitOutput(std::vector<std::string> arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoError(errno, "cannot create a pipe");
  UniqueFd reading(ends[0]), writing(ends[1]);
  arguments.insert(arguments.begin(), "git");
  std::vector<char*> words;
  for (std::string& word : arguments) words.push_back(word.data());
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
  // The caller's message tells more.
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, "git", &actions, nullptr, words.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return NotFoundError("git cannot be run");
  writing.Reset();
  auto text = ReadFd(reading.get(), "the output of git", kMaxOutputBytes);
  reading.Reset();
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  RETURN_IF_ERROR(text.status());
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return NotFoundError(StrFormat("`%s` failed", Join(arguments, " ")));
  }
  return text;
}

}  // namespace pyrometer::cli

#include "userspace/agent/process_tree.h"

#include <filesystem>
#include <string>
#include <system_error>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

constexpr size_t kMostProcesses = 10'000;  // a fork bomb is not followed to its end

}  // namespace

std::vector<pid_t> ProcessTree(pid_t root) {
  std::vector<pid_t> tree{root};
  for (size_t i = 0; i < tree.size(); ++i) {
    std::error_code error;
    for (std::filesystem::directory_iterator thread(StrFormat("/proc/%d/task", tree[i]), error), end;
         !error && thread != end; thread.increment(error)) {
      const StatusOr<std::string> children = ReadFile(thread->path().string() + "/children");
      if (!children.ok()) continue;  // it has ended, or there is no such file
      for (const std::string_view word : Split(*children, ' ')) {
        const auto pid = ParseUint64(word);
        if (pid && tree.size() < kMostProcesses) tree.push_back(static_cast<pid_t>(*pid));
      }
    }
  }
  return tree;
}

}  // namespace pyrometer::agent

#include "userspace/agent/folders.h"

#include <unistd.h>

#include <cstdlib>

#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

std::string UserFolder(const char* of_root, const char* variable, const char* below_home) {
  if (::geteuid() == 0) return of_root;
  if (const char* folder = std::getenv(variable); folder != nullptr && *folder == '/') {
    return std::string(folder) + "/pyrometer";
  }
  const char* home = std::getenv("HOME");
  return StrFormat("%s/%s/pyrometer", home != nullptr && *home == '/' ? home : "/tmp", below_home);
}

}  // namespace

std::string DefaultStateFolder() { return UserFolder("/var/lib/pyrometer", "XDG_STATE_HOME", ".local/state"); }
std::string DefaultCacheFolder() { return UserFolder("/var/cache/pyrometer", "XDG_CACHE_HOME", ".cache"); }

}  // namespace pyrometer::agent

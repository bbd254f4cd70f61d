#include "userspace/cli/scratch_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::cli {

StatusOr<ScratchFile> ScratchFile::Make() {
  const char* folder = std::getenv("TMPDIR");
  std::string path = StrFormat("%s/pyrometer-ci-XXXXXX", folder != nullptr && *folder != '\0' ? folder : "/tmp");
  const UniqueFd fd(::mkstemp(path.data()));
  if (!fd) return ErrnoError(errno, StrFormat("cannot create %s", path));
  return ScratchFile(std::move(path));
}

ScratchFile::~ScratchFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

}  // namespace pyrometer::cli

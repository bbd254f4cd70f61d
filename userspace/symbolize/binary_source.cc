#include "userspace/symbolize/binary_source.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::symbolize {

StatusOr<UniqueFd> OpenInRoot(const std::string& root, const std::string& path, OpenInRootOptions options) {
  // O_NONBLOCK: a FIFO must not make us wait for a writer.
  int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  if (!options.follow_last_symlink) flags |= O_NOFOLLOW;
  if (root.empty() || root == "/") {
    UniqueFd fd(::open(path.c_str(), flags));
    if (!fd) return ErrnoError(errno, StrFormat("cannot open %s", path));
    return fd;
  }
  const UniqueFd folder(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return ErrnoError(errno, StrFormat("cannot open the root folder %s", root));
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, folder.get(), path.c_str(), &how, sizeof(how))));
  if (!fd) return ErrnoError(errno, StrFormat("cannot open %s in %s", path, root));
  return fd;
}

Opener HeldFile(elf::SharedFd fd) {
  return [fd = std::move(fd)]() -> StatusOr<elf::SharedFd> {
    if (fd == nullptr || !*fd) return NotFoundError("the descriptor is closed");
    return fd;
  };
}

Opener MapFile(uint32_t tgid, VirtualAddress start, VirtualAddress end, std::string proc_root) {
  return [=, proc_root = std::move(proc_root)]() -> StatusOr<elf::SharedFd> {
    ASSIGN_OR_RETURN(UniqueFd fd,
                     OpenInRoot("", StrFormat("%s/%d/map_files/%x-%x", proc_root, tgid, start.value, end.value)));
    return std::make_shared<const UniqueFd>(std::move(fd));
  };
}

Opener FileInRoot(std::string root, std::string path) {
  return [root = std::move(root), path = std::move(path)]() -> StatusOr<elf::SharedFd> {
    ASSIGN_OR_RETURN(UniqueFd fd, OpenInRoot(root, path));
    return std::make_shared<const UniqueFd>(std::move(fd));
  };
}

}  // namespace pyrometer::symbolize

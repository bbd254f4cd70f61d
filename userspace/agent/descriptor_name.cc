#include "userspace/agent/descriptor_name.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>

#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

constexpr size_t kMaxLinkBytes = 4096;
// The inode is among the first lines; an epoll descriptor has one more for each that it watches.
constexpr size_t kMaxInfoBytes = 1024;

// The kernel's own number of the inode, where it tells (5.14): what stat tells may be another file system's
// (overlayfs).
std::optional<uint64_t> InodeByInfo(const std::string& path) {
  const UniqueFd info(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!info) return std::nullopt;
  std::array<char, kMaxInfoBytes> text;
  const ssize_t got = ::read(info.get(), text.data(), text.size());
  if (got <= 0) return std::nullopt;
  for (const std::string_view line : Split(std::string_view(text.data(), static_cast<size_t>(got)), '\n')) {
    if (line.starts_with("ino:")) return ParseUint64(StripWhitespace(line.substr(4)));
  }
  return std::nullopt;
}

}  // namespace

std::string DescriptorName(uint32_t tgid, uint32_t tid, int32_t fd, uint64_t inode, const std::string& proc) {
  // Threads may have tables of their own.
  const std::string task = StrFormat("%s/%d/task/%d", proc, tgid, tid);
  const std::string link = StrFormat("%s/fd/%d", task, fd);
  std::string name(kMaxLinkBytes, '\0');
  const ssize_t got = ::readlink(link.c_str(), name.data(), name.size());
  if (got < 0) {
    if (errno == EACCES || errno == EPERM) return "(not ours to see)";
    return ::access(task.c_str(), F_OK) == 0 ? "(closed since)" : "(ended since)";
  }
  name.resize(static_cast<size_t>(got));
  std::optional<uint64_t> now = InodeByInfo(StrFormat("%s/fdinfo/%d", task, fd));
  if (struct stat status{}; !now && ::stat(link.c_str(), &status) == 0) now = status.st_ino;
  if (now != inode) return "(closed since)";
  name = ToUtf8(name);
  if (name.size() <= kMaxNameBytes) return name;
  constexpr std::string_view kCut = "…";
  const size_t kept = (kMaxNameBytes - kCut.size()) / 2;
  return ToUtf8(name.substr(0, kept)) + std::string(kCut) + ToUtf8(name.substr(name.size() - kept));
}

}  // namespace pyrometer::agent

#include "userspace/kernel/call_arguments.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>
#include <unordered_map>

#include "bpf/abi/syscall_latency.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

// One letter per argument:
//   d  descriptor, named    n  number of 32 bits   o  of 64 bits, signed   u  of 64 bits
//   x  flags                f  flags of open       a  address, by itself   p  pointer: not shown
// and '>' at the end: the result is the descriptor that is named.
struct Pattern {
  std::string_view call, arguments;
};
constexpr Pattern kPatterns[] = {
    {"read", "dpu"},
    {"write", "dpu"},
    {"pread64", "dpuo"},
    {"pwrite64", "dpuo"},
    {"readv", "dpu"},
    {"writev", "dpu"},
    {"preadv", "dpuo"},
    {"pwritev", "dpuo"},
    {"preadv2", "dpuonx"},
    {"pwritev2", "dpuonx"},
    {"recvfrom", "dpux"},
    {"sendto", "dpux"},
    {"recvmsg", "dpx"},
    {"sendmsg", "dpx"},
    {"recvmmsg", "dpux"},
    {"sendmmsg", "dpux"},
    {"accept", "dpp"},
    {"accept4", "dppx"},
    {"connect", "dpu"},
    {"shutdown", "dn"},
    {"close", "n"},
    {"fsync", "d"},
    {"fdatasync", "d"},
    {"syncfs", "d"},
    {"sync_file_range", "doox"},
    {"fallocate", "dxoo"},
    {"ftruncate", "du"},
    {"flock", "dx"},
    {"fcntl", "dnx"},
    {"ioctl", "dx"},
    {"getdents", "dpu"},
    {"getdents64", "dpu"},
    {"fstat", "dp"},
    {"lseek", "don"},
    {"sendfile", "ddpu"},
    {"splice", "dpdpux"},
    {"copy_file_range", "dpdpux"},
    {"tee", "ddux"},
    {"readahead", "dou"},
    {"fadvise64", "doon"},
    {"epoll_wait", "dpnn"},
    {"epoll_pwait", "dpnn"},
    {"epoll_pwait2", "dpnp"},
    {"epoll_ctl", "dndp"},
    {"io_uring_enter", "duux"},
    {"mmap", "auxxdx"},
    {"munmap", "au"},
    {"mremap", "auux"},
    {"mprotect", "aux"},
    {"madvise", "aun"},
    {"msync", "aux"},
    {"mlock", "au"},
    {"brk", "a"},
    {"open", "pfx>"},
    {"openat", "npfx>"},
    {"openat2", "npp>"},
    {"creat", "px>"},
    {"poll", "pun"},
    {"ppoll", "pup"},
    {"select", "nppp"},
    {"pselect6", "npppp"},
    {"futex", "anu"},
    {"clock_nanosleep", "nxpp"},
    {"wait4", "npx"},
    {"waitid", "nnpx"},
    {"io_getevents", "annp"},
    {"semop", "npu"},
    {"semtimedop", "npup"},
    {"msgsnd", "npux"},
    {"msgrcv", "npunx"},
};

constexpr std::string_view kHidden = "…";
constexpr uint64_t kLargeFile = 0100000;  // O_LARGEFILE, which is 0 for 64-bit programs

std::string_view PatternOf(const SyscallKey& key) {
  static const std::unordered_map<int32_t, std::string_view> by_number = [] {
    std::unordered_map<int32_t, std::string_view> map;
    for (const Pattern& pattern : kPatterns) {
      if (const auto nr = SyscallNumber(pattern.call)) map.emplace(*nr, pattern.arguments);
    }
    return map;
  }();
  if (key.compat || key.folded) return "";
  const auto found = by_number.find(key.nr);
  return found == by_number.end() ? "" : found->second;
}

std::string ResultText(int64_t result) {
  if (result < 0 && result >= -4095) {
    const char* name = strerrorname_np(static_cast<int>(-result));
    return name != nullptr ? StrFormat("-1 %s", name) : StrFormat("-1 errno %d", -result);
  }
  return result < 0 || result > UINT32_MAX ? StrFormat("0x%x", static_cast<uint64_t>(result)) : StrFormat("%d", result);
}

// "O_RDWR|O_CREAT|O_CLOEXEC"; what has no name as a number behind.
std::string OpenFlags(uint64_t value) {
  struct Flag {
    uint64_t bits;
    std::string_view name;
  };
  // Those that hold the bits of others first.
  static constexpr Flag kFlags[] = {{O_TMPFILE, "O_TMPFILE"}, {O_SYNC, "O_SYNC"},         {O_CREAT, "O_CREAT"},
                                    {O_EXCL, "O_EXCL"},       {O_NOCTTY, "O_NOCTTY"},     {O_TRUNC, "O_TRUNC"},
                                    {O_APPEND, "O_APPEND"},   {O_NONBLOCK, "O_NONBLOCK"}, {O_DSYNC, "O_DSYNC"},
                                    {O_ASYNC, "O_ASYNC"},     {O_DIRECT, "O_DIRECT"},     {O_DIRECTORY, "O_DIRECTORY"},
                                    {O_NOATIME, "O_NOATIME"}, {O_NOFOLLOW, "O_NOFOLLOW"}, {O_CLOEXEC, "O_CLOEXEC"},
                                    {O_PATH, "O_PATH"},       {kLargeFile, "O_LARGEFILE"}};
  value &= UINT32_MAX;
  const uint64_t access = value & O_ACCMODE;
  std::string text = access == O_RDONLY   ? "O_RDONLY"
                     : access == O_WRONLY ? "O_WRONLY"
                     : access == O_RDWR   ? "O_RDWR"
                                          : "O_ACCMODE";
  value &= ~uint64_t{O_ACCMODE};
  for (const Flag& flag : kFlags) {
    if ((value & flag.bits) != flag.bits) continue;
    text += StrFormat("|%s", flag.name);
    value &= ~flag.bits;
  }
  return value == 0 ? text : text + StrFormat("|0x%x", value);
}

std::string NameOf(const CallDescriptor& descriptor, std::string_view file) {
  const std::string name = descriptor.kind == PYRO_DESCRIPTOR_FILE ? std::string(file) : SocketText(descriptor);
  return name.empty() ? "" : StrFormat(" → %s", name);
}

}  // namespace

std::string SocketText(const CallDescriptor& descriptor) {
  if (descriptor.kind != PYRO_DESCRIPTOR_SOCKET) return "";
  switch (descriptor.family) {
    case AF_INET:
    case AF_INET6: {
      if (descriptor.port == 0) return "socket without a peer";
      // An IPv4 peer of an IPv6 socket is what it is.
      static constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
      const bool mapped =
          descriptor.family == AF_INET6 && std::memcmp(descriptor.peer.data(), kMapped.data(), kMapped.size()) == 0;
      const bool v4 = descriptor.family == AF_INET || mapped;
      char text[INET6_ADDRSTRLEN];
      if (inet_ntop(v4 ? AF_INET : AF_INET6, descriptor.peer.data() + (mapped ? kMapped.size() : 0), text,
                    sizeof(text)) == nullptr) {
        return "socket";
      }
      return StrFormat(v4 ? "%s:%d" : "[%s]:%d", text, descriptor.port);
    }
    case AF_UNIX:
      return "unix socket";
    case AF_NETLINK:
      return "netlink socket";
    default:
      return StrFormat("socket of family %d", descriptor.family);
  }
}

std::string CallText(const SlowCall& call, std::string_view file, std::string_view second_file) {
  std::string_view pattern = PatternOf(call.key);
  if (pattern.empty()) return "";
  const bool returned = pattern.back() == '>';
  if (returned) pattern.remove_suffix(1);
  const std::string name = NameOf(call.descriptor, file);
  size_t descriptors = 0;
  std::string text = SyscallName(call.key) + "(";
  for (size_t i = 0; i < pattern.size(); ++i) {
    const uint64_t value = call.arguments[i];
    if (i > 0) text += ", ";
    switch (pattern[i]) {
      case 'd':
        text += StrFormat("%d", static_cast<int32_t>(value)) +
                (descriptors++ == 0 ? name : NameOf(call.second_descriptor, second_file));
        break;
      case 'n':  // the upper half of the register means nothing
        text += StrFormat("%d", static_cast<int32_t>(value));
        break;
      case 'o':
        text += StrFormat("%d", static_cast<int64_t>(value));
        break;
      case 'u':
        text += StrFormat("%d", value);
        break;
      case 'f':
        text += OpenFlags(value);
        break;
      case 'x':
      case 'a':
        text += StrFormat("0x%x", value);
        break;
      default:
        text += kHidden;
    }
  }
  text += StrFormat(") = %s", ResultText(call.result));
  if (returned && call.result >= 0) text += name;
  return text;
}

const std::array<uint8_t, PYRO_CALL_CAUSES>& DescriptorByCall() {
  static const std::array<uint8_t, PYRO_CALL_CAUSES> table = [] {
    std::array<uint8_t, PYRO_CALL_CAUSES> by_number{};
    for (const Pattern& pattern : kPatterns) {
      const auto nr = SyscallNumber(pattern.call);
      if (!nr || *nr < 0 || static_cast<size_t>(*nr) >= by_number.size()) continue;
      uint8_t& entry = by_number[static_cast<size_t>(*nr)];
      if (pattern.arguments.back() == '>') {
        entry = PYRO_DESCRIPTOR_RETURNED;
        continue;
      }
      const size_t first = pattern.arguments.find('d');
      if (first == std::string_view::npos) continue;
      const size_t second = pattern.arguments.find('d', first + 1);
      entry = static_cast<uint8_t>((first + 1) | (second == std::string_view::npos ? 0 : (second + 1) << 4));
    }
    return by_number;
  }();
  return table;
}

}  // namespace pyrometer::kernel

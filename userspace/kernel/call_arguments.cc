#include "userspace/kernel/call_arguments.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstring>
#include <unordered_map>

#include "bpf/abi/syscall_latency.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

// One letter per argument:
//   d  descriptor, named    n  number of 32 bits   o  of 64 bits, signed   u  of 64 bits
//   x  flags                a  address, by itself  p  pointer: not shown
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
    {"sendfile", "dnpu"},
    {"splice", "dpnpux"},
    {"copy_file_range", "dpnpux"},
    {"tee", "dnux"},
    {"readahead", "dou"},
    {"fadvise64", "doon"},
    {"epoll_wait", "dpnn"},
    {"epoll_pwait", "dpnn"},
    {"epoll_pwait2", "dpnp"},
    {"epoll_ctl", "dnnp"},
    {"io_uring_enter", "duux"},
    {"mmap", "auxxdx"},
    {"munmap", "au"},
    {"mremap", "auux"},
    {"mprotect", "aux"},
    {"madvise", "aun"},
    {"msync", "aux"},
    {"mlock", "au"},
    {"brk", "a"},
    {"open", "pxx>"},
    {"openat", "npxx>"},
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

std::string CallText(const SlowCall& call, std::string_view file) {
  std::string_view pattern = PatternOf(call.key);
  if (pattern.empty()) return "";
  const bool returned = pattern.back() == '>';
  if (returned) pattern.remove_suffix(1);
  std::string name = SocketText(call.descriptor);
  if (call.descriptor.kind == PYRO_DESCRIPTOR_FILE) name = file;
  if (!name.empty()) name = StrFormat(" → %s", name);
  std::string text = SyscallName(call.key) + "(";
  for (size_t i = 0; i < pattern.size(); ++i) {
    const uint64_t value = call.arguments[i];
    if (i > 0) text += ", ";
    switch (pattern[i]) {
      case 'd':
        text += StrFormat("%d", static_cast<int32_t>(value)) + name;
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
      const size_t at = pattern.arguments.find('d');
      by_number[static_cast<size_t>(*nr)] = pattern.arguments.back() == '>' ? PYRO_DESCRIPTOR_RETURNED
                                            : at != std::string_view::npos  ? static_cast<uint8_t>(at + 1)
                                                                            : 0;
    }
    return by_number;
  }();
  return table;
}

}  // namespace pyrometer::kernel

// What the arguments of a slow call say, in a line to read: which call it was of the many of its name.
//
//   CallText(call, "/var/lib/db/wal")     "fsync(7 → /var/lib/db/wal) = 0"
//
// Descriptors, numbers, flags, and addresses where they identify something (a futex, a mapping) are shown. What a
// pointer points to (buffers, paths) is never read: it stands as "…". Calls of other number spaces and those that are
// not in the table have no text.
//
// Threads: any. Cost: a microsecond.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::kernel {

// `file`: name of the call's descriptor, when that is a file and its name is known; `second_file` that of the second
// one, of a call that has two. At most some 600 bytes and these.
std::string CallText(const SlowCall& call, std::string_view file, std::string_view second_file = "");

// The other end of a socket: "10.0.0.3:5432", "[::1]:80", "unix socket", "" when it is no socket.
std::string SocketText(const CallDescriptor& descriptor);

// By x86-64 number, for the probe: pyro_call_descriptors in bpf/abi/syscall_latency.h.
const std::array<uint8_t, PYRO_CALL_CAUSES>& DescriptorByCall();

}  // namespace pyrometer::kernel

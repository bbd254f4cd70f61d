// The name of what a descriptor of some process is, from /proc, a moment after it was seen.
//
//   DescriptorName(1234, 1240, 7, 9981)    "/var/lib/db/wal", "pipe:[8123]", "anon_inode:[eventpoll]"
//
// The descriptor may have been closed and opened anew, or the process have ended: the name is given only when the inode
// is the one that was seen, and else the reason in parentheses, "(closed since)", "(ended since)". Paths are as the
// process sees them; of those longer than kMaxNameBytes the middle is left out.
//
// Threads: any. Cost: three system calls on /proc, some 10 µs.
#pragma once

#include <cstdint>
#include <string>

namespace pyrometer::agent {

inline constexpr size_t kMaxNameBytes = 256;

// `proc`: where procfs is mounted.
std::string DescriptorName(uint32_t tgid, uint32_t tid, int32_t fd, uint64_t inode, const std::string& proc = "/proc");

}  // namespace pyrometer::agent

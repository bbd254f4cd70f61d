// What this process uses of the machine, as the kernel counts it, and may use. Threads: any. Cost: one system call or
// three.
#pragma once

#include <cstdint>

namespace pyrometer {

// CPU time of all threads since the start.
uint64_t ProcessCpuNs();
// Memory resident now; 0 where /proc does not tell.
uint64_t ResidentBytes();
// Lets it open as many files as the hard limit allows: the soft one is 1,024 mostly, for programs that use select(2).
void RaiseFileLimit();

}  // namespace pyrometer

// What this process uses of the machine, as the kernel counts it. Threads: any. Cost: one system call or three.
#pragma once

#include <cstdint>

namespace pyrometer {

// CPU time of all threads since the start.
uint64_t ProcessCpuNs();
// Memory resident now; 0 where /proc does not tell.
uint64_t ResidentBytes();

}  // namespace pyrometer

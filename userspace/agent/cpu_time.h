// CPU time by the kernel's own accounts, which no probe of ours touches: what a CPU sampler should have seen.
//
//   uint64_t samples = ExpectedSamples(*MachineCpuTimeNs() - before, 99);
//
// Threads: any. Cost: one read of a file of /proc.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "userspace/base/status.h"

namespace pyrometer::agent {

// Of all CPUs since boot, idle, iowait and steal left out, nanoseconds; resolution of a clock tick (10 ms) per CPU.
StatusOr<uint64_t> MachineCpuTimeNs();
// Of all threads of a process, those that ended included, and of its waited-for children.
StatusOr<uint64_t> ProcessCpuTimeNs(pid_t pid);
// Of a process and of everything below it; 0 when it has ended.
uint64_t ProcessTreeCpuTimeNs(pid_t root);
// Of our children that were waited for, and of theirs.
uint64_t EndedChildrenCpuTimeNs();

uint64_t ExpectedSamples(uint64_t cpu_ns, uint32_t frequency_hz);

// The two files' texts; nullopt when they are not what proc(5) describes.
std::optional<uint64_t> ParseStatCpuTicks(std::string_view proc_stat);
std::optional<uint64_t> ParseProcessCpuTicks(std::string_view proc_pid_stat);

}  // namespace pyrometer::agent

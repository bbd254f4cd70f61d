// Why threads wait, by name, and which system calls wait for what.
//
//   WaitCauseName(PYRO_WAIT_BLOCK_IO)   "block_io"
//
// A call's blocked time gets the cause of this table only where the kernel shows nothing better (a lock it waits for, a
// disk, a page fault): bpf/probes/off_cpu.bpf.c. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "bpf/abi/off_cpu.h"

namespace pyrometer::kernel {

using WaitCause = ::pyro_wait_cause;
inline constexpr size_t kWaitCauses = PYRO_WAIT_CAUSES;
// Nanoseconds by WaitCause.
using WaitTimes = std::array<uint64_t, kWaitCauses>;

// "other", "lock", "block_io", "network", "timer", "page_fault", "poll", "runnable", "throttled".
std::string_view WaitCauseName(WaitCause cause);

// Whether the thread was ready and only lacked a processor.
inline bool IsQueueWait(WaitCause cause) { return cause == PYRO_WAIT_RUNNABLE || cause == PYRO_WAIT_THROTTLED; }

// By x86-64 number: a WaitCause, or PYRO_CAUSE_BY_FD.
const std::array<uint8_t, PYRO_CALL_CAUSES>& CauseByCall();

}  // namespace pyrometer::kernel

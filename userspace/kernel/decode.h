// From ring records to what the room's headers promise. Internal to kernel/ and its tests.
//
// Records come from our own probes, but a decoder that trusts lengths is one bug away from reading past the ring:
// each returns false for a record that does not hold together, and the caller counts it as malformed.
// Views in the results point into `data`, which must be 8-byte aligned (ring records are).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "bpf/abi/cpu_sample.h"
#include "bpf/abi/off_cpu.h"
#include "bpf/abi/process_event.h"
#include "bpf/abi/syscall_latency.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/kernel/off_cpu.h"
#include "userspace/kernel/process_events.h"
#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::kernel {

bool DecodeCpuSample(const void* data, size_t size, uint64_t period_ns, CpuSample& out);
bool DecodeSlowCall(const void* data, size_t size, SlowCall& out);
bool DecodeWaitSample(const void* data, size_t size, WaitSample& out);
bool DecodeProcessEvent(const void* data, size_t size, ProcessEvent& out);

// What follows a record's header: `frames` addresses, then, when raw_bytes is not 0, registers and a piece of stack.
bool DecodeStackCopy(const void* data, size_t size, size_t frames, size_t raw_bytes,
                     const pyro_raw_registers*& registers, std::string_view& stack);

SyscallKey ToSyscallKey(const pyro_syscall_key& key);
pyro_syscall_key ToAbi(const SyscallKey& key);

// The name up to its first NUL.
std::string_view CommView(const char (&comm)[PYRO_COMM_BYTES]);

}  // namespace pyrometer::kernel

// What every probe includes first: helpers of libbpf, licence, version, shared constants and macros.
#pragma once

#include "bpf/lib/kernel_types.h"
// After the types: these headers expect them.
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/abi/types.h"
#include "bpf/lib/inline.h"

// Helpers with "gpl_only" (probe reads, ring buffers, task storage) demand this.
char pyro_license[] SEC("license") = "GPL";

// Checked by the loader against its own headers.
const volatile __u32 pyro_abi_version = PYRO_ABI_VERSION;

#define PYRO_PF_KTHREAD 0x00200000u  // task_struct::flags: kernel thread
#define PYRO_TS_COMPAT 0x0002u       // thread_info::status on x86: inside a 32-bit system call
#define PYRO_CS_USER_MASK 3ull       // privilege level bits of cs: 3 is user mode
#define PYRO_CS_USER32 0x23ull       // __USER32_CS of x86: 32-bit code

// Wakes the reader when this record takes the ring across `watermark` bytes, and not for every record beyond it: a
// wake-up is an IPI, and on virtual machines a VM exit (13 µs here). Records that race across it may both or neither
// wake: the reader looks by the clock too.
PYRO_INLINE __u64 pyro_ring_flags(void* ring, __u64 watermark, __u32 bytes) {
  __u64 used = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
  return used < watermark && used + bytes >= watermark ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

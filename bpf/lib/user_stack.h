// Walks a user stack by frame pointers.
//
//   higher addresses   ...
//                      [fp + 8]  return address into the caller     \ one read of 16 bytes
//            fp  --->  [fp]      the caller's frame pointer          /  per frame
//   lower addresses    ...       locals                      <--- sp
//
// Callers use only pyro_walk_user_stack: walking by unwind tables will take its place behind the same
// signature. Compiles natively too, with PYRO_READ_USER replaced: tests/unit/bpf walk recorded stacks.
//
// Proof of termination: the loop runs at most PYRO_MAX_USER_FRAMES times, and each frame pointer must be
// above the one before. Cost: one 16-byte user read per frame, about 60 ns.
#pragma once

#include "bpf/abi/stack.h"
#include "bpf/lib/inline.h"

#ifdef __bpf__
#define PYRO_READ_USER(to, bytes, from) bpf_probe_read_user((to), (bytes), (const void*)(from))
#else
// Supplied by the test; 0 on success.
long pyro_test_read_user(void* to, __u32 bytes, __u64 from);
#define PYRO_READ_USER(to, bytes, from) pyro_test_read_user((to), (bytes), (from))
#endif

// User space of x86-64 with 4-level page tables ends here; with 5 levels a program must ask for more.
#define PYRO_USER_LIMIT 0x0000800000000000ull
// The first page is never mapped executable: such a "return address" is data.
#define PYRO_USER_LOWEST 4096ull
// Largest distance between two frame pointers. Frames of 181 KiB were seen in libLLVM (unwinder.md §1);
// beyond 1 MiB a frame pointer register that holds something else is far more likely.
#define PYRO_MAX_FRAME_BYTES (1ull << 20)

struct pyro_user_regs {
  __u64 ip;
  __u64 sp;
  __u64 fp;
  __u64 cs;
};

// What is wrong with `fp` as the frame pointer of a frame that starts above `low`;
// PYRO_STOP_NOT_TAKEN: nothing, go on.
PYRO_INLINE enum pyro_stop_reason pyro_check_frame(__u64 fp, __u64 low) {
  if (fp == 0) return PYRO_STOP_END;
  if ((fp & 7) != 0 || fp < low || fp - low > PYRO_MAX_FRAME_BYTES || fp >= PYRO_USER_LIMIT - 16) {
    return PYRO_STOP_BAD_FRAME;
  }
  return PYRO_STOP_NOT_TAKEN;
}

PYRO_INLINE enum pyro_stop_reason pyro_check_return(__u64 address) {
  if (address == 0) return PYRO_STOP_END;
  if (address < PYRO_USER_LOWEST || address >= PYRO_USER_LIMIT) return PYRO_STOP_BAD_RETURN;
  return PYRO_STOP_NOT_TAKEN;
}

// Fills `frames` (room for PYRO_MAX_USER_FRAMES) leaf first, at most `limit` of them, and tells in *stop
// why it ended. Returns the number of frames; 0 only with PYRO_STOP_BAD_RETURN or limit 0.
PYRO_NOINLINE __u32 pyro_walk_user_stack(const struct pyro_user_regs* regs, __u64* frames, __u32 limit, __u8* stop) {
  __u64 fp = regs->fp;
  __u64 low = regs->sp;
  __u64 words[2];
  __u32 n = 0;

  if (limit == 0) {
    *stop = PYRO_STOP_NOT_TAKEN;
    return 0;
  }
  if (regs->ip >= PYRO_USER_LIMIT) {
    *stop = PYRO_STOP_BAD_RETURN;
    return 0;
  }
  frames[0] = regs->ip;
  n = 1;
  if (regs->cs == 0x23) {  // 32-bit code: frames of another shape
    *stop = PYRO_STOP_COMPAT;
    return n;
  }
  *stop = PYRO_STOP_TRUNCATED;
#ifdef __bpf__
#pragma clang loop unroll(disable)
#endif
  for (int i = 1; i < PYRO_MAX_USER_FRAMES; i++) {
    enum pyro_stop_reason reason = pyro_check_frame(fp, low);
    if (reason != PYRO_STOP_NOT_TAKEN) {
      *stop = reason;
      break;
    }
    if (PYRO_READ_USER(words, sizeof(words), fp)) {
      *stop = PYRO_STOP_UNREADABLE;
      break;
    }
    reason = pyro_check_return(words[1]);
    if (reason != PYRO_STOP_NOT_TAKEN) {
      *stop = reason;
      break;
    }
    if (n >= limit) break;  // there is one more frame than asked for: truncated
    frames[i] = words[1];
    n = i + 1;
    low = fp + 16;
    fp = words[0];
  }
  return n;
}

// Why a stack walk ended. Every walk ends for exactly one of these reasons.
#pragma once

#include "bpf/abi/types.h"

#define PYRO_MAX_USER_FRAMES 127
#define PYRO_MAX_KERNEL_FRAMES 127

enum pyro_stop_reason {
  PYRO_STOP_NOT_TAKEN = 0,      // no walk was asked for (kernel stack of a sample that hit user mode)
  PYRO_STOP_END = 1,            // outermost frame reached: zero frame pointer or zero return address
  PYRO_STOP_TRUNCATED = 2,      // more frames than the limit
  PYRO_STOP_UNREADABLE = 3,     // the stack page was not in memory, or the frame pointer points nowhere
  PYRO_STOP_BAD_FRAME = 4,      // frame pointer unaligned, not growing, or too far away: code without frame pointers
  PYRO_STOP_BAD_RETURN = 5,     // return address outside of user space
  PYRO_STOP_NO_USER_STACK = 6,  // kernel thread: there is no user stack
  PYRO_STOP_COMPAT = 7,         // 32-bit code; only the leaf is reported
  PYRO_STOP_HELPER_ERROR = 8,   // the kernel's own stack helper failed
  PYRO_STOP_COUNT = 9,
};

// Why a stack walk ended. Every walk ends for exactly one of these reasons.
#pragma once

#include "bpf/abi/types.h"

#define PYRO_MAX_USER_FRAMES 512  // deepest seen: 0.5-12 % of a compiler's samples are deeper than 127
#define PYRO_MAX_KERNEL_FRAMES 127

// Set in a user frame that a signal interrupted: its address is an instruction, as the innermost frame's is. All others
// are return addresses, of which the byte before is looked up.
#define PYRO_FRAME_EXACT (1ull << 63)

enum pyro_stop_reason {
  PYRO_STOP_NOT_TAKEN = 0,      // no walk was asked for (kernel stack of a sample that hit user mode)
  PYRO_STOP_END = 1,            // outermost frame reached
  PYRO_STOP_TRUNCATED = 2,      // more frames than the limit
  PYRO_STOP_UNREADABLE = 3,     // the stack page was not in memory, or the frame pointer points nowhere
  PYRO_STOP_BAD_FRAME = 4,      // frame pointer unaligned, not growing, or too far away: code without frame pointers
  PYRO_STOP_BAD_RETURN = 5,     // return address that is none: outside of user space, or not behind a call
  PYRO_STOP_NO_USER_STACK = 6,  // kernel thread, or a thread that has ended: there is no user stack
  PYRO_STOP_COMPAT = 7,         // 32-bit code; only the leaf is reported
  PYRO_STOP_HELPER_ERROR = 8,   // the kernel's own stack helper failed
  PYRO_STOP_NO_PROCESS = 9,     // the process's mappings are not known yet
  PYRO_STOP_NO_MAPPING = 10,    // address in no mapping that is known of the process
  PYRO_STOP_NO_TABLE = 11,      // the binary's unwind table is not ready yet
  PYRO_STOP_UNSUPPORTED = 12,   // the unwind rule needs a register that is not known there
  PYRO_STOP_BAD_CFA = 13,       // the unwind rule leads down the stack instead of up
  PYRO_STOP_EXEC = 14,          // the process was between two programs: it had no user stack
  PYRO_STOP_COUNT = 15,
};

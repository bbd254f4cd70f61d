// Unwind tables as the stack walk (bpf/lib/stack_walk.h) reads them, and how user space lays them out.
//
// All tables, and the mappings of all processes, lie in *segments*: arrays of 4 MiB that user space writes
// through mmap. A *position* is (segment << 20 | word), counted in 4-byte words.
//
//   pyro_unwind_processes   tgid -> struct pyro_unwind_process
//                                        |
//   segments     [ stamp | mapping mapping mapping … ]            sorted by start, one array per process image
//                              |
//                [ index: one word per 512 bytes of code, one more ][ guard row ][ rows … ]   one table
//                                                                                  |
//   pyro_unwind_rules    [ rule rule rule … ]                     <- row: offset in page << 16 | rule number
//
// An index word is the position of the first row of its page; the row before a page's first is in force
// until then, hence the guard row before the very first. One row or rule is never changed in place: new ones
// are written first, the process entry that leads to them last, and freed words are reused only after
// kUnwindGraceNs (userspace/kernel/unwind_maps.h). An entry that was too slow is recognised by its stamp.
#pragma once

#include "bpf/abi/types.h"

#define PYRO_SEGMENT_WORDS (1u << 20)
#define PYRO_SEGMENT_BYTES (4u * PYRO_SEGMENT_WORDS)
#define PYRO_SEGMENT_SHIFT 20
#define PYRO_UNWIND_PAGE_SHIFT 9  // 512 bytes of code per index word: at most 8 search steps in libLLVM
#define PYRO_MAX_UNWIND_RULES 65536
#define PYRO_MAX_UNWIND_MAPPINGS 65536  // of one process: vm.max_map_count is 65,530

// How to find the canonical frame address (CFA): the caller's stack pointer before its call.
enum pyro_unwind_kind {
  PYRO_UNWIND_NONE = 0,         // the binary says nothing about this address: try the frame pointer. `add` is 1 where
                                // most of a binary is like that: then frame pointers are its convention
  PYRO_UNWIND_REGISTER = 1,     // CFA = reg + offset
  PYRO_UNWIND_DEREFERENCE = 2,  // CFA = *(reg + offset) + add
  PYRO_UNWIND_PLT = 3,          // CFA = rsp + offset, 8 more when (ip & 15) >= add: stubs of a PLT
  PYRO_UNWIND_SIGNAL = 4,       // signal trampoline: all registers from the ucontext at rsp
  PYRO_UNWIND_RETURN_REG = 5,   // CFA = rsp + offset, return address in `reg`: vfork
  PYRO_UNWIND_END = 6,          // outermost frame
  PYRO_UNWIND_UNSUPPORTED = 7,  // needs what the walk does not keep
};

// Where the caller's rbp (or rbx) is.
enum pyro_unwind_saved {
  PYRO_SAVED_SAME = 0,  // not touched
  PYRO_SAVED_CFA = 1,   // at CFA + offset
  PYRO_SAVED_FP = 2,    // at rbp + offset (functions that realign their stack)
  PYRO_SAVED_LOST = 3,  // not recoverable
};

// DWARF numbers of x86-64 registers that the walk treats by name.
#define PYRO_REG_RBX 3
#define PYRO_REG_RBP 6
#define PYRO_REG_RSP 7
#define PYRO_REGISTERS 16

struct pyro_unwind_rule {
  __u8 kind;      // enum pyro_unwind_kind
  __u8 reg;       // DWARF number, below PYRO_REGISTERS
  __u8 fp_saved;  // enum pyro_unwind_saved
  __u8 bx_saved;  // enum pyro_unwind_saved; recorded only in binaries that compute a CFA from rbx (ld.so)
  __s32 offset;   // bytes
  __s16 add;      // bytes; threshold for PYRO_UNWIND_PLT
  __s16 ra_at;    // return address at CFA + ra_at; -8 but for hand-written code
  __s16 fp_at;    // bytes
  __s16 bx_at;    // bytes
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_unwind_rule) == 16, "pyro_unwind_rule");

enum pyro_mapping_kind {
  PYRO_MAPPING_TABLE = 0,       // `table` and `delta` are valid
  PYRO_MAPPING_PENDING = 1,     // a table will come; until then samples carry a copy of the stack
  PYRO_MAPPING_NO_INFO = 2,     // the file has no unwind information (Go): frame pointers
  PYRO_MAPPING_GENERATED = 3,   // no file: code of a just-in-time compiler; frame pointers
  PYRO_MAPPING_OVER_LIMIT = 4,  // no room under the memory cap; frame pointers
  PYRO_MAPPING_UNREADABLE = 5,  // the file could not be read; frame pointers
  PYRO_MAPPING_GAP = 6,         // code of a binary whose table leaves it out: as PYRO_UNWIND_NONE
  PYRO_MAPPING_KINDS = 7,
};

// One piece of executable memory of a process.
struct pyro_unwind_mapping {
  __u64 start;  // virtual addresses; end is exclusive
  __u64 end;
  __u32 table;  // position of the index of the table
  __u32 delta;  // table's first address is `delta` bytes before `start`
  __u32 kind;   // enum pyro_mapping_kind
  __u32 pad;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_unwind_mapping) == 32, "pyro_unwind_mapping");
#define PYRO_MAPPING_WORDS 8

// Two words before the first mapping of an array: equal to the stamp in the process's entry, or the array is gone.
#define PYRO_STAMP_WORDS 2

// Value of pyro_unwind_processes. The probe process_events copies it to the child at fork, makes it void at exec
// (stamp 0) and removes it at exit.
struct pyro_unwind_process {
  __u64 stamp;
  __u64 start_time_ns;  // group leader's start, CLOCK_BOOTTIME; 0: not known exactly, whoever has this tgid
  __u64 exec_ns;        // CLOCK_MONOTONIC of the last exec that was seen; 0: none
  __u32 mappings;       // position of the first mapping (its stamp lies just before)
  __u32 count;          // number of mappings
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_unwind_process) == 32, "pyro_unwind_process");

// By which means the frames of a stack were found, a bit each.
enum pyro_walk_means {
  PYRO_BY_TABLE = 1 << 0,
  PYRO_BY_SIGNAL_FRAME = 1 << 1,
  // Frame pointer steps, by cause: 1 << enum pyro_mapping_kind, from PYRO_MAPPING_NO_INFO on.
  PYRO_BY_FP_NO_INFO = 1 << PYRO_MAPPING_NO_INFO,  // also: an address that the file's tables leave out
  PYRO_BY_FP_GENERATED = 1 << PYRO_MAPPING_GENERATED,
  PYRO_BY_FP_OVER_LIMIT = 1 << PYRO_MAPPING_OVER_LIMIT,
  PYRO_BY_FP_UNREADABLE = 1 << PYRO_MAPPING_UNREADABLE,
  PYRO_BY_STACK_COPY = 1 << 6,  // in user space, from a copy of the stack
  PYRO_BY_DEFERRED = 1 << 7,    // on the way back to user mode
};

// What stands before a stack copy.
struct pyro_raw_registers {
  __u64 reg[PYRO_REGISTERS];  // DWARF order
  __u64 ip;
  // Address of the copy's first byte: the stack pointer, or the first page above it that is in memory.
  __u64 stack_start;
  // Where the thread's stack may end: the first thread's at the program's arguments, another's just below the block
  // that its fs points to. 0: not known.
  __u64 stack_end;
  __u64 thread_block;
};
PYRO_STATIC_ASSERT(sizeof(struct pyro_raw_registers) == 160, "pyro_raw_registers");
// Compilers and the JVM's launcher need 20-60 KiB; main stacks of ordinary programs end after a few.
#define PYRO_MAX_RAW_STACK_BYTES 65536u

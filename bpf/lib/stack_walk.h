// Walks a user stack, from the registers to the outermost frame.
//
//   struct pyro_walk* walk = …;                      // per-CPU scratch, one per program that may interrupt another
//   if (!pyro_walk_begin(walk, &regs, limit, …)) pyro_walk_on(walk);   // regs: as the thread left user mode
//   // walk->frames[0 … walk->count), leaf first; walk->stop says why it ended, walk->means how it went
//
// A step finds the mapping of the current instruction, then:
//   - a binary with an unwind table (abi/unwind.h): the rule in force at the address gives the caller's stack
//     pointer, and where return address and rbp were saved;
//   - code without one (Go, code made at run time): the frame pointer, with the checks below.
//
// An address is looked up as it is for the innermost frame and for one that a signal interrupted; others are
// return addresses, and what counts is the call before them: address - 1.
//
//   higher addresses   ...
//            CFA --->  (the caller's frame)
//                      [CFA - 8]   return address into the caller
//                      [CFA - 16]  mostly the caller's rbp
//   lower addresses    ...         locals                      <--- rsp
//
// The stack is read 1 KiB at a time and never across a page: a user read costs 60 ns whether it fetches 8 bytes
// or 512, and 500 ns when it faults. Compiles natively too (userspace/unwind, tests): the macros of the first
// block are all it needs.
//
// Proof of termination: a step adds a frame or stops, the loop has PYRO_MAX_USER_FRAMES rounds, and the
// searches halve a range of at most 2^16 mappings or 2^9 rows.
// Cost per frame with a table, warm: tests/bench/unwind_cost. The verifier sees a step once, as a function of its own.
#pragma once

#include "bpf/abi/stack.h"
#include "bpf/abi/unwind.h"
#include "bpf/lib/inline.h"

#ifdef __bpf__
#include "bpf/lib/unwind_processes.h"

#define PYRO_READ_USER(to, bytes, from) bpf_probe_read_user((to), (bytes), (const void*)(from))
// A function verified once, on its own, and not again at each turn of the loop that calls it.
#define PYRO_VERIFIED_ALONE __attribute__((noinline))

// Only a template; user space puts segments in, 4 MiB each, as tables need them. Sized before load: the memory cap.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 1);
  __type(key, __u32);
  __array(
      values, struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __uint(map_flags, BPF_F_MMAPABLE);
        // By size: clang 14 leaves only a declaration of an inner map's value type in the BTF.
        __uint(key_size, sizeof(__u32));
        __uint(value_size, PYRO_SEGMENT_BYTES);
      });
} pyro_unwind_segments SEC(".maps");

// Rules of all tables, each once. Written by user space through mmap. 1 MiB.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, PYRO_MAX_UNWIND_RULES);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct pyro_unwind_rule);
} pyro_unwind_rules SEC(".maps");

PYRO_INLINE const __u32* pyro_segment_words(__u32 segment) {
  __u32 zero = 0;
  void* inner = bpf_map_lookup_elem(&pyro_unwind_segments, &segment);
  if (!inner) return 0;
  return bpf_map_lookup_elem(inner, &zero);
}
#define PYRO_SEGMENT(segment) pyro_segment_words(segment)
#define PYRO_LONG(words) (*(const __u64*)(words))
#define PYRO_RULE(id) ((const struct pyro_unwind_rule*)bpf_map_lookup_elem(&pyro_unwind_rules, &(id)))
#else
// Supplied by whoever walks natively (userspace/unwind/stack_walker.cc).
long pyro_native_read_user(void* to, __u32 bytes, __u64 from);  // 0 on success
const __u32* pyro_native_segment(__u32 segment);                // NULL: no such segment
const struct pyro_unwind_rule* pyro_native_rule(__u32 id);      // NULL: no such rule
#define PYRO_READ_USER(to, bytes, from) pyro_native_read_user((to), (bytes), (from))
#define PYRO_VERIFIED_ALONE static inline
#define PYRO_SEGMENT(segment) pyro_native_segment(segment)
#define PYRO_LONG(words) pyro_native_long(words)
PYRO_INLINE __u64 pyro_native_long(const __u32* words) { return words[0] | (__u64)words[1] << 32; }
#define PYRO_RULE(id) pyro_native_rule(id)
#endif

// User space of x86-64 with 4-level page tables ends here; with 5 levels a program must ask for more.
#define PYRO_USER_LIMIT 0x0000800000000000ull
// The first page is never mapped executable: such a "return address" is data.
#define PYRO_USER_LOWEST 4096ull
// Largest distance between two frame pointers. Frames of 181 KiB were seen in libLLVM; beyond 1 MiB a frame
// pointer register that holds something else is far more likely.
#define PYRO_MAX_FRAME_BYTES (1ull << 20)

// How far into a function without unwind information its innermost frame is looked for.
#define PYRO_GAP_FUNCTION_BYTES 65536ull
#define PYRO_GENERATED_BYTES (1ull << 20)
#define PYRO_THREAD_START_BYTES 512

#define PYRO_WINDOW_WORDS 128  // 1 KiB: a dozen frames of usual size
#define PYRO_HEADER_WORDS 26   // room for the largest record header

struct pyro_walk {
  // The frame to unwind next.
  __u64 ip;
  __u64 sp;
  __u64 fp;
  __u64 bx;
  __u64 low;                           // frame pointers below this are none
  struct pyro_unwind_mapping mapping;  // the last one that matched; tried first
  __u32 mappings;                      // position of the process's mappings
  __u32 mapping_count;                 // 0: `mapping` is all there is (a walk without tables)
  __u32 count;                         // frames so far
  __u32 limit;                         // frames wanted
  __u8 stop;                           // enum pyro_stop_reason
  __u8 means;                          // bits of enum pyro_walk_means
  __u8 exact;                          // ip is an instruction to be executed, not a return address
  __u8 known;                          // bits 1 << register: which of ip's registers are known beside sp
  __u8 guessed;                        // ip was found by a frame pointer: it must lie in a mapping
  __u8 pad[3];
  __u64 zero;                  // 0, which the verifier does not know; see pyro_find_mapping
  __u64 window_start;          // user address of window[0]
  __u64 window_bytes;          // valid there
  __u64 missing;               // the last address that could not be read
  __u64 regs[PYRO_REGISTERS];  // of the innermost or interrupted frame, DWARF order, while PYRO_KNOWS_ALL
  __u64 window[PYRO_WINDOW_WORDS];
  // A record is built in place: its header ends where the frames begin, and what follows them is the caller's.
  __u64 header[PYRO_HEADER_WORDS];
  __u64 frames[PYRO_MAX_USER_FRAMES];
};

#define PYRO_KNOWS_FP 1
#define PYRO_KNOWS_BX 2
#define PYRO_KNOWS_ALL 4

// The record header of a type, just before the frames.
#define PYRO_HEADER_OF(walk, type) ((type*)((char*)(walk)->frames - sizeof(type)))

struct pyro_user_regs {
  struct pyro_raw_registers raw;
  __u64 compat;  // 1: 32-bit code
};

// ---- user memory ------------------------------------------------------------------------------------------

// Reads as much of the stack as is likely to be wanted next. 0 on success.
PYRO_NOINLINE int pyro_move_window(struct pyro_walk* w, __u64 address) {
  __u64 bytes = 4096 - (address & 4095);
  if (bytes > sizeof(w->window)) bytes = sizeof(w->window);
  w->window_bytes = 0;
  w->missing = address;
  PYRO_OPAQUE(bytes);
  bytes &= 2047;
  if (bytes > sizeof(w->window) || bytes == 0 || PYRO_READ_USER(w->window, bytes, address)) return 1;
  w->window_start = address;
  w->window_bytes = bytes;
  return 0;
}

// 0 on success. `address` of stack words is 8-byte aligned in all but broken stacks.
PYRO_INLINE int pyro_read_word(struct pyro_walk* w, __u64 address, __u64* value) {
  if (address & 7) return PYRO_READ_USER(value, 8, address) != 0;
  __u64 offset = address - w->window_start;
  if (offset >= w->window_bytes) {
    if (pyro_move_window(w, address)) return 1;
    offset = 0;
  }
  __u32 index = (__u32)(offset >> 3);
  PYRO_OPAQUE(index);
  *value = w->window[index & (PYRO_WINDOW_WORDS - 1)];
  return 0;
}

// ---- tables -----------------------------------------------------------------------------------------------

PYRO_INLINE __u32 pyro_word_at(const __u32* words, __u32 word) {
  PYRO_OPAQUE(word);
  return words[word & (PYRO_SEGMENT_WORDS - 1)];
}

PYRO_INLINE __u64 pyro_long_at(const __u32* words, __u32 word) {
  PYRO_OPAQUE(word);
  return PYRO_LONG(&words[word & (PYRO_SEGMENT_WORDS - 2)]);
}

// Makes w->mapping the one that holds `address`; 0: there is none.
//
// About the verifier: a register that becomes part of an address is "precise", and then two turns of the loop whose
// ranges differ are two states to it, 2^17 in all. Values that went through `^ zero` have no range, so all
// turns look alike. (Seen on 6.18; storing them to memory and reading them back does the same and costs more.)
PYRO_INLINE int pyro_find_mapping(struct pyro_walk* w, __u64 address) {
  __u64 zero = *(volatile __u64*)&w->zero;
  __u32 base = w->mappings;
  const __u32* words = PYRO_SEGMENT(base >> PYRO_SEGMENT_SHIFT);
  __u32 low = 0, high = w->mapping_count;
  if (!words) return 0;
#ifdef __bpf__
#pragma clang loop unroll(disable)
#endif
  for (int i = 0; i < 17; i++) {  // 2^16 mappings
    if (low >= high) break;
    __u32 middle = (low + high) >> 1;
    if (pyro_long_at(words, base + middle * PYRO_MAPPING_WORDS) <= (address ^ zero)) {
      low = (middle + 1) ^ (__u32)zero;
    } else {
      high = middle ^ (__u32)zero;
    }
  }
  if (low == 0) return 0;
  __u32 at = base + (low - 1) * PYRO_MAPPING_WORDS;
  __u64 end = pyro_long_at(words, at + 2);
  if (address >= end) return 0;
  w->mapping.start = pyro_long_at(words, at);
  w->mapping.end = end;
  w->mapping.table = pyro_word_at(words, at + 4);
  w->mapping.delta = pyro_word_at(words, at + 5);
  w->mapping.kind = pyro_word_at(words, at + 6);
  return 1;
}

// The number of the rule in force at `address`, which w->mapping holds; a number above 65535: none.
PYRO_INLINE __u32 pyro_find_rule(const struct pyro_walk* w, __u64 address) {
  __u64 offset = address - w->mapping.start + w->mapping.delta;
  __u32 table = w->mapping.table;
  __u32 page = table + (__u32)(offset >> PYRO_UNWIND_PAGE_SHIFT);
  __u32 target = (__u32)offset & ((1u << PYRO_UNWIND_PAGE_SHIFT) - 1);
  const __u32* words = PYRO_SEGMENT(table >> PYRO_SEGMENT_SHIFT);
  if (!words) return PYRO_MAX_UNWIND_RULES;
  __u32 zero = (__u32) * (volatile __u64*)&w->zero;
  __u32 low = pyro_word_at(words, page);
  __u32 high = pyro_word_at(words, page + 1);
#ifdef __bpf__
#pragma clang loop unroll(disable)
#endif
  for (int i = 0; i < 10; i++) {  // 512 rows: one for each byte of the page
    if (low >= high) break;
    __u32 middle = (low + high) >> 1;
    if ((pyro_word_at(words, middle) >> 16) <= (target ^ zero)) {
      low = (middle + 1) ^ zero;
    } else {
      high = middle ^ zero;
    }
  }
  return pyro_word_at(words, low - 1) & 0xffff;
}

// ---- one frame --------------------------------------------------------------------------------------------

PYRO_INLINE int pyro_stop_walk(struct pyro_walk* w, __u8 reason) {
  w->stop = reason;
  return 1;
}

enum pyro_call_kind {
  PYRO_CALL_NONE = 0,  // no call instruction ends there
  // An indirect one (ff /2, of which only the opcode is looked at), or a direct one of something far.
  PYRO_CALL_SOME = 1,
  PYRO_CALL_NEAR = 2,  // a direct one of something not far before `address`: very likely of the function that holds it
};

// The call that ends at the return address `ra`, as the caller of the code at `address`.
PYRO_NOINLINE int pyro_call_before(__u64 ra, __u64 address) {
  __u8 code[8];
  if (ra < PYRO_USER_LOWEST || ra >= PYRO_USER_LIMIT) return PYRO_CALL_NONE;
  if (PYRO_READ_USER(code, sizeof(code), ra - sizeof(code))) return PYRO_CALL_NONE;
  if (code[3] == 0xe8) {
    __u32 distance = code[4] | (__u32)code[5] << 8 | (__u32)code[6] << 16 | (__u32)code[7] << 24;
    return address - (ra + (__s64)(__s32)distance) < PYRO_GAP_FUNCTION_BYTES ? PYRO_CALL_NEAR : PYRO_CALL_SOME;
  }
  if ((code[6] == 0xff && (code[7] & 0x38) == 0x10) || (code[5] == 0xff && (code[6] & 0x38) == 0x10) ||
      (code[4] == 0xff && (code[5] & 0x38) == 0x10) || (code[2] == 0xff && (code[3] & 0x38) == 0x10) ||
      (code[1] == 0xff && (code[2] & 0x38) == 0x10)) {
    return PYRO_CALL_SOME;
  }
  return PYRO_CALL_NONE;
}

// Goes on to the caller's frame, found at `ip` with its registers in w. `mark`: 0, or PYRO_FRAME_EXACT.
PYRO_INLINE int pyro_add_frame(struct pyro_walk* w, __u64 ip, __u64 mark) {
  if (ip == 0) return pyro_stop_walk(w, PYRO_STOP_END);
  if (ip < PYRO_USER_LOWEST || ip >= PYRO_USER_LIMIT) return pyro_stop_walk(w, PYRO_STOP_BAD_RETURN);
  __u32 count = w->count;
  if (count >= w->limit) return pyro_stop_walk(w, PYRO_STOP_TRUNCATED);
  w->ip = ip;
  PYRO_OPAQUE(count);
  w->frames[count & (PYRO_MAX_USER_FRAMES - 1)] = ip | mark;
  w->count = count + 1;
  return 0;
}

// Whether w->fp can be a frame pointer at all.
PYRO_INLINE int pyro_plausible_fp(const struct pyro_walk* w) {
  return (w->known & PYRO_KNOWS_FP) && !(w->fp & 7) && w->fp >= w->low && w->fp - w->low <= PYRO_MAX_FRAME_BYTES &&
         w->fp < PYRO_USER_LIMIT - 16;
}

// By frame pointer.
PYRO_INLINE int pyro_step_frame_pointer(struct pyro_walk* w) {
  __u64 fp = w->fp, caller_fp, ra;
  if (fp == 0 && (w->known & PYRO_KNOWS_FP)) return pyro_stop_walk(w, PYRO_STOP_END);
  if (!pyro_plausible_fp(w)) return pyro_stop_walk(w, PYRO_STOP_BAD_FRAME);
  if (pyro_read_word(w, fp, &caller_fp) || pyro_read_word(w, fp + 8, &ra)) {
    return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
  }
  w->fp = caller_fp;
  w->sp = w->low = fp + 16;
  w->known = PYRO_KNOWS_FP;
  w->exact = 0;
  w->guessed = 1;
  return pyro_add_frame(w, ra, 0);
}

// Code of which the tables of its binary say nothing: hand-written assembly, the little functions that compilers put
// before main. It may have a frame or none, and rbp may be its own, its caller's, or no frame pointer at all. What is
// taken for a return address must prove itself:
//   - in the innermost frame the word at rsp, if it lies behind any call: there is no frame (yet, or any more)
//   - or the one above it, if rsp points to what rbp holds: rbp was pushed just now
//   - else the one above rbp, if it lies behind a direct call of something not far before this code
// Where more than PYRO_GENERATED_BYTES are without a word, no hand wrote them: V8's builtins, made by its compiler,
// keep frame pointers and are called through pointers. There, any call will do.
PYRO_INLINE int pyro_step_gap(struct pyro_walk* w, __u64 address, int proof) {
  __u64 ra = 0, up = 0;
  if (w->exact && !pyro_read_word(w, w->sp, &ra)) {
    if (ra == w->fp && !pyro_read_word(w, w->sp + 8, &ra)) up = 8;
    if (pyro_call_before(ra, address) != PYRO_CALL_NONE) {
      w->sp = w->low = w->sp + up + 8;
      w->known &= PYRO_KNOWS_FP | PYRO_KNOWS_BX;
      w->exact = w->guessed = 0;
      return pyro_add_frame(w, ra, 0);
    }
  }
  if (w->fp == 0 && (w->known & PYRO_KNOWS_FP)) return pyro_stop_walk(w, PYRO_STOP_END);
  if (pyro_plausible_fp(w) && !pyro_read_word(w, w->fp + 8, &ra) && pyro_call_before(ra, address) >= proof) {
    return pyro_step_frame_pointer(w);
  }
  return pyro_stop_walk(w, PYRO_STOP_BAD_FRAME);
}

// A signal's frame: rsp points to the ucontext, whose registers begin at byte 40 (struct sigcontext_64).
PYRO_INLINE int pyro_step_signal(struct pyro_walk* w) {
  w->window_bytes = 0;
  w->missing = w->sp + 40;
  if (PYRO_READ_USER(w->window, 17 * 8, w->sp + 40)) return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
  for (int i = 0; i < 8; i++) w->regs[8 + i] = w->window[i];  // r8 … r15
  w->regs[5] = w->window[8];                                  // rdi
  w->regs[4] = w->window[9];                                  // rsi
  w->regs[PYRO_REG_RBP] = w->fp = w->window[10];
  w->regs[PYRO_REG_RBX] = w->bx = w->window[11];
  w->regs[1] = w->window[12];  // rdx
  w->regs[0] = w->window[13];  // rax
  w->regs[2] = w->window[14];  // rcx
  w->regs[PYRO_REG_RSP] = w->sp = w->low = w->window[15];
  w->known = PYRO_KNOWS_FP | PYRO_KNOWS_BX | PYRO_KNOWS_ALL;
  w->exact = 1;
  w->guessed = 0;
  w->means |= PYRO_BY_SIGNAL_FRAME;
  return pyro_add_frame(w, w->window[16], PYRO_FRAME_EXACT);
}

// The value of the register that a rule computes from. 0: known; else it is not.
PYRO_INLINE int pyro_rule_register(const struct pyro_walk* w, __u32 reg, __u64* value) {
  if (reg == PYRO_REG_RSP) {
    *value = w->sp;
    return 0;
  }
  if (reg == PYRO_REG_RBP) {
    *value = w->fp;
    return !(w->known & PYRO_KNOWS_FP);
  }
  if (reg == PYRO_REG_RBX) {
    *value = w->bx;
    return !(w->known & PYRO_KNOWS_BX);
  }
  PYRO_OPAQUE(reg);
  *value = w->regs[reg & (PYRO_REGISTERS - 1)];
  return !(w->known & PYRO_KNOWS_ALL);
}

PYRO_INLINE int pyro_step_rule(struct pyro_walk* w, const struct pyro_unwind_rule* rule) {
  __u64 cfa, ra, fp = w->fp, bx = w->bx;
  __u32 kind = rule->kind;
  __u8 known = w->known & (PYRO_KNOWS_FP | PYRO_KNOWS_BX);

  if (kind == PYRO_UNWIND_REGISTER) {
    if (pyro_rule_register(w, rule->reg, &cfa)) return pyro_stop_walk(w, PYRO_STOP_UNSUPPORTED);
    cfa += (__s64)rule->offset;
    if (cfa <= w->sp) return pyro_stop_walk(w, PYRO_STOP_BAD_CFA);
  } else if (kind == PYRO_UNWIND_PLT) {
    cfa = w->sp + (__s64)rule->offset + ((w->ip & 15) >= (__u64)rule->add ? 8 : 0);
  } else if (kind == PYRO_UNWIND_DEREFERENCE) {
    __u64 base;
    if (pyro_rule_register(w, rule->reg, &base)) return pyro_stop_walk(w, PYRO_STOP_UNSUPPORTED);
    if (pyro_read_word(w, base + (__s64)rule->offset, &cfa)) return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
    cfa += (__s64)rule->add;
    if (cfa <= w->sp) return pyro_stop_walk(w, PYRO_STOP_BAD_CFA);
  } else if (kind == PYRO_UNWIND_RETURN_REG) {
    if (pyro_rule_register(w, rule->reg, &ra)) return pyro_stop_walk(w, PYRO_STOP_UNSUPPORTED);
    w->sp = w->low = w->sp + (__s64)rule->offset;
    w->known = known;
    w->exact = w->guessed = 0;
    return pyro_add_frame(w, ra, 0);
  } else if (kind == PYRO_UNWIND_SIGNAL) {
    return pyro_step_signal(w);
  } else if (kind == PYRO_UNWIND_END) {
    return pyro_stop_walk(w, PYRO_STOP_END);
  } else {
    return pyro_stop_walk(w, PYRO_STOP_UNSUPPORTED);
  }

  if (cfa < 16 || cfa >= PYRO_USER_LIMIT) return pyro_stop_walk(w, PYRO_STOP_BAD_CFA);
  // Saved registers before the return address: they lie below it, so one read fetches both.
  if (rule->fp_saved == PYRO_SAVED_CFA) {
    if (pyro_read_word(w, cfa + (__s64)rule->fp_at, &fp)) return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
    known |= PYRO_KNOWS_FP;
  } else if (rule->fp_saved == PYRO_SAVED_FP) {
    if (!(w->known & PYRO_KNOWS_FP)) return pyro_stop_walk(w, PYRO_STOP_UNSUPPORTED);
    if (pyro_read_word(w, w->fp + (__s64)rule->fp_at, &fp)) return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
  } else if (rule->fp_saved == PYRO_SAVED_LOST) {
    known &= ~PYRO_KNOWS_FP;
  }
  if (rule->bx_saved == PYRO_SAVED_CFA) {
    if (pyro_read_word(w, cfa + (__s64)rule->bx_at, &bx)) return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
    known |= PYRO_KNOWS_BX;
  } else if (rule->bx_saved != PYRO_SAVED_SAME) {
    known &= ~PYRO_KNOWS_BX;
  }
  if (pyro_read_word(w, cfa + (__s64)rule->ra_at, &ra)) return pyro_stop_walk(w, PYRO_STOP_UNREADABLE);
  w->fp = fp;
  w->bx = bx;
  w->sp = w->low = cfa;
  w->known = known;
  w->exact = w->guessed = 0;
  return pyro_add_frame(w, ra, 0);
}

// Unwinds one frame. 1: the walk has ended.
PYRO_VERIFIED_ALONE int pyro_walk_step(struct pyro_walk* w) {
  if (!w) return 1;
  __u64 address = w->exact ? w->ip : w->ip - 1;
  if (address - w->mapping.start >= w->mapping.end - w->mapping.start && !pyro_find_mapping(w, address)) {
    if (!w->guessed) return pyro_stop_walk(w, PYRO_STOP_NO_MAPPING);
    // A frame pointer led to what is no code: it was none, and its frame never was.
    w->count--;
    return pyro_stop_walk(w, PYRO_STOP_BAD_FRAME);
  }
  __u32 mapping_kind = w->mapping.kind;
  if (mapping_kind == PYRO_MAPPING_TABLE) {
    __u32 id = pyro_find_rule(w, address);
    const struct pyro_unwind_rule* rule = PYRO_RULE(id);
    if (!rule) return pyro_stop_walk(w, PYRO_STOP_NO_TABLE);
    if (rule->kind != PYRO_UNWIND_NONE) {
      w->means |= PYRO_BY_TABLE;
      return pyro_step_rule(w, rule);
    }
    w->means |= PYRO_BY_FP_NO_INFO;
    return rule->add ? pyro_step_frame_pointer(w) : pyro_step_gap(w, address, PYRO_CALL_NEAR);
  }
  if (mapping_kind == PYRO_MAPPING_PENDING) return pyro_stop_walk(w, PYRO_STOP_NO_TABLE);
  if (mapping_kind == PYRO_MAPPING_GAP) {
    w->means |= PYRO_BY_FP_NO_INFO;
    __u64 bytes = w->mapping.end - w->mapping.start;
    return pyro_step_gap(w, address, bytes > PYRO_GENERATED_BYTES ? PYRO_CALL_SOME : PYRO_CALL_NEAR);
  }
  w->means |= 1u << (mapping_kind & 7);
  return pyro_step_frame_pointer(w);
}

// All frames from the one that pyro_walk_begin found on.
PYRO_VERIFIED_ALONE int pyro_walk_on(struct pyro_walk* w) {
  if (!w) return 0;
#ifdef __bpf__
#pragma clang loop unroll(disable)
#endif
  for (int i = 0; i < PYRO_MAX_USER_FRAMES; i++) {
    if (pyro_walk_step(w)) break;
  }
  return 0;
}

// musl ships no unwind information: main's caller has none. But where nothing more than a thread's start can lie
// between the last frame and the end of its stack, the stack is whole.
PYRO_INLINE void pyro_end_at_stack_end(struct pyro_walk* w, const struct pyro_user_regs* regs) {
  if (w->stop != PYRO_STOP_BAD_FRAME) return;
  if (regs->raw.stack_end - w->sp < PYRO_THREAD_START_BYTES ||
      regs->raw.thread_block - w->sp < PYRO_THREAD_START_BYTES) {
    w->stop = PYRO_STOP_END;
  }
}

// Starts a walk with the innermost frame. `mappings`: the process's, or NULL for one that uses frame pointers only.
// 1: the walk has ended already (32-bit code, no frame wanted, no such address).
PYRO_INLINE int pyro_walk_begin(struct pyro_walk* w, const struct pyro_user_regs* regs, __u32 limit, __u32 mappings,
                                __u32 mapping_count) {
  w->count = 0;
  w->means = 0;
  w->limit = limit < PYRO_MAX_USER_FRAMES ? limit : PYRO_MAX_USER_FRAMES;
  w->zero = 0;
  w->window_bytes = 0;
  w->guessed = 0;
  w->exact = 1;
  w->known = PYRO_KNOWS_FP | PYRO_KNOWS_BX | PYRO_KNOWS_ALL;
  w->mappings = mappings;
  w->mapping_count = mapping_count;
  w->mapping.start = w->mapping.end = 0;
  w->sp = w->low = regs->raw.reg[PYRO_REG_RSP];
  w->fp = regs->raw.reg[PYRO_REG_RBP];
  w->bx = regs->raw.reg[PYRO_REG_RBX];
  for (int i = 0; i < PYRO_REGISTERS; i++) w->regs[i] = regs->raw.reg[i];
  if (mapping_count == 0) {
    w->mapping.end = PYRO_USER_LIMIT;
    w->mapping.kind = PYRO_MAPPING_GENERATED;
  }
  if (limit == 0) return pyro_stop_walk(w, PYRO_STOP_NOT_TAKEN);
  w->stop = PYRO_STOP_TRUNCATED;
  if (regs->raw.ip >= PYRO_USER_LIMIT) return pyro_stop_walk(w, PYRO_STOP_BAD_RETURN);
  w->ip = w->frames[0] = regs->raw.ip;
  w->count = 1;
  // Frames of 32-bit code have another shape.
  return regs->compat ? pyro_stop_walk(w, PYRO_STOP_COMPAT) : 0;
}

// From the context of a probe to a walked user stack, with the tables of the thread's process. One program of an object
// may use it: two that interrupt each other would share the record.
//
//   struct pyro_stack_record* record = pyro_own_stack_record();
//   if (pyro_saved_registers(task, &record->regs)) pyro_take_user_stack(&record->walk, &record->regs, limit, task);
//   // record->walk: frames[0 … count), stop, means
#pragma once

#include "bpf/lib/program.h"
#include "bpf/lib/stack_walk.h"

// Set before load. 0: no tables; the walk uses frame pointers alone.
const volatile __u32 pyro_unwind_tables = 0;
// How much of a stack is copied when its walk came too early; 0: nothing.
const volatile __u32 pyro_raw_stack_bytes = 0;

// A walk and the record that it builds: user frames lie in the walk, the header before them; kernel frames and the copy
// of the stack follow wherever they end. The room behind is for a stack that is both deep and copied. 78 KiB.
#define PYRO_TAIL_BYTES \
  ((PYRO_MAX_KERNEL_FRAMES + 1) * 8 + sizeof(struct pyro_raw_registers) + PYRO_MAX_RAW_STACK_BYTES)
struct pyro_stack_record {
  struct pyro_user_regs regs;
  struct pyro_walk walk;
  __u8 tail[PYRO_TAIL_BYTES];
};

// CPU -> the record under construction. Each CPU uses its own; not a per-CPU map, whose values end at 32 KiB. One entry
// per possible CPU, set before load.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct pyro_stack_record);
} pyro_stack_records SEC(".maps");

PYRO_INLINE struct pyro_stack_record* pyro_own_stack_record(void) {
  __u32 cpu = bpf_get_smp_processor_id();
  return bpf_map_lookup_elem(&pyro_stack_records, &cpu);
}

PYRO_INLINE void pyro_note_stack_end(struct task_struct* task, struct pyro_user_regs* regs) {
  regs->raw.stack_end = task->mm ? task->mm->start_stack : 0;
  regs->raw.thread_block = bpf_core_field_exists(task->thread.fsbase) ? task->thread.fsbase : 0;
}

// Registers of the user code that runs or that entered the kernel, from the thread's saved registers.
// 0: there is none.
PYRO_INLINE int pyro_saved_registers(struct task_struct* task, struct pyro_user_regs* regs) {
  // Kernel threads have none, and of a thread that has ended its memory is gone.
  if ((task->flags & PYRO_PF_KTHREAD) || !task->mm) return 0;
  struct pt_regs* saved = (struct pt_regs*)bpf_task_pt_regs(task);
  regs->raw.reg[0] = saved->ax;
  regs->raw.reg[1] = saved->dx;
  regs->raw.reg[2] = saved->cx;
  regs->raw.reg[3] = saved->bx;
  regs->raw.reg[4] = saved->si;
  regs->raw.reg[5] = saved->di;
  regs->raw.reg[6] = saved->bp;
  regs->raw.reg[7] = saved->sp;
  regs->raw.reg[8] = saved->r8;
  regs->raw.reg[9] = saved->r9;
  regs->raw.reg[10] = saved->r10;
  regs->raw.reg[11] = saved->r11;
  regs->raw.reg[12] = saved->r12;
  regs->raw.reg[13] = saved->r13;
  regs->raw.reg[14] = saved->r14;
  regs->raw.reg[15] = saved->r15;
  regs->raw.ip = saved->ip;
  pyro_note_stack_end(task, regs);
  // A 32-bit call is told by the thread's status: the type of pt_regs::cs changed over kernel versions.
  regs->compat = (task->thread_info.status & PYRO_TS_COMPAT) != 0;
  return regs->raw.ip != 0;
}

PYRO_INLINE int pyro_in_exec(struct task_struct* task) {
  return bpf_core_field_exists(task->in_execve) && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve);
}

// Where the mappings of a process are; 0: not known, or not any more.
PYRO_INLINE __u32 pyro_mappings_of(struct task_struct* task, __u32* count) {
  __u32 tgid = task->tgid;
  struct pyro_unwind_process* process = bpf_map_lookup_elem(&pyro_unwind_processes, &tgid);
  if (!process) return 0;
  __u64 start_time_ns = process->start_time_ns;
  if (start_time_ns && start_time_ns != task->group_leader->start_boottime) return 0;
  // The entry may be changed while it is read: only what agrees with the array's stamp counts.
  __u64 stamp = process->stamp;
  __u32 mappings = process->mappings;
  *count = process->count;
  const __u32* words = pyro_segment_words(mappings >> PYRO_SEGMENT_SHIFT);
  if (!words || pyro_long_at(words, mappings - PYRO_STAMP_WORDS) != stamp) return 0;
  return mappings;
}

// Fills walk->frames, walk->count, walk->stop and walk->means.
PYRO_INLINE void pyro_take_user_stack(struct pyro_walk* walk, const struct pyro_user_regs* regs, __u32 limit,
                                      struct task_struct* task) {
  __u32 mappings = 0, count = 0;
  __u8 unknown = 0;
  if (pyro_unwind_tables) {
    mappings = pyro_mappings_of(task, &count);
    if (!mappings || !count) {
      // By frame pointers as far as they lead; the copy of the stack tells more.
      count = 0;
      unknown = 1;
    }
  }
  if (!pyro_walk_begin(walk, regs, limit, mappings, count)) pyro_walk_on(walk);
  if (walk->stop == PYRO_STOP_COMPAT || walk->stop == PYRO_STOP_NOT_TAKEN) return;
  if (unknown) walk->stop = PYRO_STOP_NO_PROCESS;
  pyro_end_at_stack_end(walk, regs);
  // Between two programs: the registers are the old one's, its memory is being taken down.
  if (walk->stop != PYRO_STOP_END && pyro_in_exec(task)) {
    walk->stop = PYRO_STOP_EXEC;
    walk->count = 0;
  }
}

// Whether user space can find more in a copy of the stack than the walk did: what stopped it was not the stack, but
// that a mapping or table is not known yet.
PYRO_INLINE int pyro_wants_copy(const struct pyro_walk* walk) {
  return pyro_raw_stack_bytes &&
         (walk->stop == PYRO_STOP_NO_PROCESS || walk->stop == PYRO_STOP_NO_TABLE || walk->stop == PYRO_STOP_NO_MAPPING);
}

// Writes the registers and the stack above them behind the first `at` bytes of frames; the bytes of stack, a multiple
// of 8, up to the first page that cannot be read. A first page that is not there (it is just what the thread is
// faulting in) is left out. 0: nothing was written.
PYRO_NOINLINE __u32 pyro_append_stack_copy(struct pyro_stack_record* record, __u32 at) {
  struct pyro_raw_registers* raw = &record->regs.raw;
  __u64 start = raw->reg[PYRO_REG_RSP];
  __u32 done = 0, limit = pyro_raw_stack_bytes;
  at += __builtin_offsetof(struct pyro_stack_record, walk.frames);
  PYRO_OPAQUE(at);
  if ((start & 7) || at > sizeof(*record) - sizeof(*raw) - 4096) return 0;
#pragma clang loop unroll(disable)
  for (__u32 i = 0; i <= PYRO_MAX_RAW_STACK_BYTES / 4096 + 1; i++) {
    __u32 bytes = 4096 - ((__u32)(start + done) & 4095);
    __u32 to = at + sizeof(*raw) + done;
    if (done >= limit) break;
    if (bytes > limit - done) bytes = limit - done;
    PYRO_OPAQUE(bytes);
    PYRO_OPAQUE(to);
    bytes &= 8191;
    if (bytes > 4096 || bytes == 0 || to > sizeof(*record) - 4096) break;
    if (!bpf_probe_read_user((char*)record + to, bytes, (const void*)(start + done))) {
      done += bytes;
    } else if (done == 0 && i == 0) {
      start += bytes;
    } else {
      break;
    }
  }
  raw->stack_start = start;
  // As words: to the compiler `at` is unaligned, and it would copy bytes.
  const __u64* from = (const __u64*)raw;
  __u64* to = (__u64*)((char*)record + at);
  for (__u32 i = 0; i < sizeof(*raw) / 8; i++) to[i] = from[i];
  return done;
}

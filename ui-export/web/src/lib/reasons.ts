// Reasons as the agent counts them, in words that say what to do. Unknown ones are shown as they are, made readable.
const kReasons: Record<string, string> = {
  // Where a stack walk ended.
  end: 'complete: the outermost frame was reached',
  not_taken: 'not asked for',
  truncated: 'the stack is deeper than the limit of 512 frames; its outermost callers are missing',
  unreadable: 'a stack page was not in memory, or a frame pointer leads nowhere',
  bad_frame: 'code with neither unwind information nor frame pointers: hand-written assembly, generated code, musl\u2019s libc',
  bad_return: 'a return address lies outside of the program',
  no_user_stack: 'kernel threads have no user stack',
  compat: '32-bit code: only the innermost frame is known',
  no_process: 'the process began a moment before, its mappings were not known yet',
  no_table: 'the unwind table of the binary was still being made',
  unsupported_rule: 'the unwind information needs a register that is not known in a caller',
  bad_cfa: 'the unwind information leads down the stack: it is wrong, or the stack was overwritten',
  exec: 'the process was between two programs: it had no stack',
  helper_error: "the kernel's own stack helper failed",
  // Why a sample is missing.
  ring_full: 'the kernel buffer was full: the agent did not get enough CPU time',
  no_scratch_record: 'a probe interrupted itself and had no room left to work in',
  malformed_record: 'a record from the kernel made no sense',
  lost_by_the_kernel: 'the kernel lost timer interrupts',
  // How stacks were unwound.
  unwind_tables: 'by unwind tables, made from what compilers leave in every binary for exceptions',
  signal_frames: 'by unwind tables, through a signal handler',
  'frame_pointers:_no_unwind_information': 'by frame pointers: a binary on the way has no unwind information',
  'frame_pointers:_generated_code': 'by frame pointers: code that a runtime made (JIT) is on the way',
  'frame_pointers:_memory_limit_of_unwind_tables': 'by frame pointers: the tables have no room; raise --unwind-memory',
  'frame_pointers:_file_not_readable': 'by frame pointers: a file on the way could not be read',
  copy_of_the_stack: 'by unwind tables, in user space: the sample came before its table was ready',
  deferred_walk: 'by unwind tables, on the way back to user mode: a page of the stack was not in memory',
  nothing_to_unwind: 'had a single frame, or none',
  // Why an address has no name.
  no_mapping: 'in no file known for the process; run the agent before the process starts',
  file_gone: 'the process ended before its file was opened; run the agent continuously',
  no_permission: 'the file may not be read; run as root or grant CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH',
  not_an_elf_file: 'not a program; if it is code made while running, let the runtime write a perf map',
  unsupported_elf_file: 'an ELF file of a kind that is not read (big-endian)',
  file_replaced: 'the file on disk is not the one that runs (an upgrade?); restart the process',
  no_symbols: 'the binary is stripped; install its debug package (NAME-dbgsym or NAME-debuginfo) or build it without -s',
  outside_symbols: 'the binary names only some functions; install its debug package',
  kernel_symbols_hidden: 'the kernel hides its symbols; run as root, or: sysctl kernel.kptr_restrict=0',
  unknown_kernel_address: 'a kernel module or BPF program was unloaded before its symbols were read',
  no_perf_map: 'generated code without names; let the runtime write a perf map (node --perf-basic-prof, PYTHONPERFSUPPORT=1, a Java perf-map agent)',
  perf_map_refused: '/tmp/perf-PID.map must be a regular file of the process\u2019s user or root',
  not_in_perf_map: 'the runtime has not written this function to its perf map (yet)',
  limit_reached: 'the symbol cache is full; raise its size',
  read_failed: 'the file could not be read, or changed meanwhile; see the agent\u2019s log',
};

export function explainReason(reason: string): string {
  const key = reason.toLowerCase().replace(/[\s-]+/g, '_').replace(/^(kernel|user)[._:]/, '');
  const side = /^(kernel|user)[._:]/.exec(reason.toLowerCase())?.[1];
  const text = kReasons[key] ?? reason.replace(/_/g, ' ');
  return side ? `${side}: ${text}` : text;
}

// Reasons that mean "nothing is wrong".
export function isComplete(reason: string): boolean {
  return /(^|[._:])(end|not_taken|no_user_stack|exec)$/.test(reason.toLowerCase().replace(/[\s-]+/g, '_'));
}

// Frames that carry an address instead of a function's name: "libfoo.so+0x1f30", "[unknown]", "[jit]".
export function isNameless(name: string): boolean {
  return /\+0x[0-9a-f]+$/.test(name) || name === '[unknown]' || name === '[jit]' || name === '';
}

// Makes the unwind table of one ELF file.
//
//   ASSIGN_OR_RETURN(UnwindTable table, BuildUnwindTable(file, {}));
//
// Sources, the first that knows an address wins: `.eh_frame` (by section, or by PT_GNU_EH_FRAME where the section
// headers are gone), `.debug_frame`, and for what linkers leave without information: PLT stubs by their section,
// signal trampolines (`mov $15, %eax; syscall`) by their bytes. One thing is corrected: the code below a coroutine of
// glibc's makecontext, which claims to have a caller.
// An address that none covers gets PYRO_UNWIND_NONE: there the walk tries the frame pointer. Where most of a
// file is like that (Go, chromium), frame pointers are taken for its convention and believed without proof.
//
// A file with nothing of it all gives a table without parts. An error means that the file could not be read, or is
// no x86-64 ELF file.
//
// Threads: any; meant for one of low priority. Cost: libLLVM-14 (95,000 functions, 820,000 rows) 33 ms and 60 MB
// while building (tests/bench/unwind_bench.cc).
// Limits on what a stranger's file can make of it: kMaxFdes functions, kMaxRows rows; what is beyond is left out and
// counted, never an error. Overlapping FDEs are cut, so that rows cannot outnumber instruction bytes.
#pragma once

#include <cstdint>

#include "userspace/base/status.h"
#include "userspace/elf/elf_file.h"
#include "userspace/unwind/unwind_table.h"

namespace pyrometer::unwind {

inline constexpr uint64_t kMaxCfiBytes = 256u << 20;     // of one section [chromium with CFI: 25 MB]
inline constexpr size_t kMaxFdes = 8u << 20;             // [libxul: 330,000]
inline constexpr size_t kMaxRows = 32u << 20;            // 128 MiB of table [largest seen: 2.8 M]
inline constexpr uint64_t kMaxScannedBytes = 64u << 20;  // of code without information, for signal trampolines

struct BuildOptions {
  // `.debug_frame` may lie in a separate debug file; nullptr: there is none.
  const elf::ElfFile* debug_file = nullptr;
};

StatusOr<UnwindTable> BuildUnwindTable(const elf::ElfFile& file, const BuildOptions& options);

}  // namespace pyrometer::unwind

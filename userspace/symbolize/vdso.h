// The vdso: code that the kernel maps into every process (clock_gettime and friends). It is an ELF
// file without a file; its symbols come from the image in memory.
//
//   ASSIGN_OR_RETURN(VdsoImage vdso, OwnVdso());
//   Symbol s = symbolizer.Symbolize(vdso.build_id, vdso.source, ElfAddress(address - mapping_start));
//
// All 64-bit processes of one boot share one image, so OwnVdso() serves nearly all; a 32-bit process
// or one restored from a checkpoint has its own, which ReadVdso() copies from its memory.
//
// Threads: any. Cost: OwnVdso() copies 8-12 KiB; ReadVdso() reads /proc/PID/maps and mem.
#pragma once

#include <cstdint>
#include <string>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/symbolize/binary_source.h"

namespace pyrometer::symbolize {

struct VdsoImage {
  BuildId build_id;
  BinarySource source;   // path "[vdso]", the image in memory
  VirtualAddress start;  // where it is mapped in the process asked
};

// NOT_FOUND on a kernel booted with vdso=0.
StatusOr<VdsoImage> OwnVdso();
// Of another process, which must be alive: PERMISSION_DENIED without the right to trace it.
StatusOr<VdsoImage> ReadVdso(uint32_t tgid, const std::string& proc_root = "/proc");

}  // namespace pyrometer::symbolize

// Functions, lines and inlined calls of Go programs from the table that their runtime needs for stack traces
// (`.gopclntab`). Stripping cannot remove it, so a Go program built with -s -w, or stripped by a
// distribution (containerd, runc, podman in Debian), still names all its Go functions and their lines.
//
//   RETURN_IF_ERROR(AddGoFunctions(file, &builder, &places));
//
// Layouts read, by the table's first word:
//
//   0xfffffffb  Go 1.2-1.15   pairs of words (address, offset of record), names at offsets in the table
//   0xfffffffa  Go 1.16-1.17  the same pairs; names in a block of their own
//   0xfffffff0  Go 1.18-1.19  pairs of 32-bit offsets, addresses relative to the text's start
//   0xfffffff1  Go 1.20-1.25  as 1.18
//
// The text's start is in the table; in position-independent programs only in the relocation that
// fills it at load time, which is looked up then. Without either (0 there) no function is added: a
// guess would give wrong names to all. Inlined calls are read from Go 1.18 on: where their trees are the runtime's
// record of the module tells ("moduledata"), which is found by the table's address at its start.
//
// Threads: any. Cost: reads the section (containerd: 12 MiB) and one pass over its functions, ~1 µs each, ~5 with
// lines.
#pragma once

#include "userspace/base/status.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/place_builder.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {

// Larger tables are refused [kubelet, the largest seen: 33 MiB].
inline constexpr uint64_t kMaxGoTableBytes = 256u << 20;

// Names go to `builder`, lines and inlined calls to `places`; each may be null. OK without any effect when the file is
// not a Go program.
Status AddGoFunctions(const elf::ElfFile& file, SymbolIndexBuilder* builder, PlaceBuilder* places);

}  // namespace pyrometer::symbolize

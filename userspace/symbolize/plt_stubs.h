// Names for PLT stubs, the small jumps through which a binary calls other libraries' functions.
// Time spent in one is shown as "malloc@plt" instead of a miss.
//
// Each x86-64 stub is decoded to the table slot that it jumps through; the relocation of that slot
// names the function. That covers .plt (lazy), .plt.sec (with indirect branch tracking) and .plt.got
// alike. Other machines: nothing is added.
//
// Threads: any. Cost: reads the PLT sections and the relocations (24 bytes each).
#pragma once

#include "userspace/base/status.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {

// OK also when there is no PLT.
Status AddPltStubs(const elf::ElfFile& file, SymbolIndexBuilder* builder);

}  // namespace pyrometer::symbolize

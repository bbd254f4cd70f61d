// Lines and inlined functions of one binary, from its DWARF wherever that is.
//
//   DebugInformation about{.binary_path = "/usr/bin/shop", .root = "/proc/4711/root"};
//   Status status = AddDebugInformation(elf_file, about, &places, &counters);
//
// `elf_file` is the binary or its separate debug file. What it refers to is opened from here, within the
// process's root first, then in ours:
//   split units      <name>.dwo as compiled, beside the binary, and in <binary>.dwp or <debug file>.dwp
//   what dwz shares  .gnu_debugaltlink or .debug_sup: the path given, and by build ID in the debug folders
// Each must carry the id asked for.
//
// Threads: any. Cost: dwarf/reader.h. Errors leave what was read before.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/dwarf/reader.h"
#include "userspace/symbolize/place_builder.h"

namespace pyrometer::symbolize {

struct DebugInformation {
  std::string binary_path;  // in its root
  std::string root;         // of the process; empty = ours only
  std::vector<std::string> debug_folders;
  std::string scratch_folder;               // for compressed sections; empty: in memory
  const std::atomic<bool>* stop = nullptr;  // reading ends early, CANCELLED, when it becomes true
};

bool HasDebugInformation(const elf::ElfFile& file);
// Bytes of .debug_info in the file (compressed ones as they are), a measure of how long reading takes.
uint64_t DebugInformationBytes(const elf::ElfFile& file);

// OK without effect when the file has none.
Status AddDebugInformation(std::shared_ptr<const elf::ElfFile> file, const DebugInformation& about,
                           PlaceBuilder* places, dwarf::Reader::Counters* counters);

}  // namespace pyrometer::symbolize

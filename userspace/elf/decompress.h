// Bounded decompression of what ELF files carry: zlib and zstd sections, xz minidebuginfo.
//
//   ASSIGN_OR_RETURN(std::string elf, DecompressXz(section, kMaxDebugDataBytes));
//
// Output grows as it is produced: a header that lies about its size costs nothing, and more than
// `max_bytes` is RESOURCE_EXHAUSTED. Malformed input is DATA_LOSS. Threads: pure functions.
// Cost: memory of the output plus at most 64 MiB for the xz dictionary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/base/status.h"

namespace pyrometer::elf {

StatusOr<std::string> DecompressZlib(std::string_view input, uint64_t max_bytes);
StatusOr<std::string> DecompressZstd(std::string_view input, uint64_t max_bytes);
StatusOr<std::string> DecompressXz(std::string_view input, uint64_t max_bytes);

}  // namespace pyrometer::elf

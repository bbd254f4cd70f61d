// Guesses what executed in a frame from what formats without a field for it do say.
//
//   ClassifyFrame({.mapping_file = "[kernel.kallsyms]"})   // kKernel
//
// Writers put kinds that have no mapping of their own under the pseudo mappings below, so that our
// own files come back as they were. Threads: pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "userspace/profile/dictionary.h"

namespace pyrometer::formats {

inline constexpr std::string_view kKernelMapping = "[kernel]";
inline constexpr std::string_view kJitMapping = "[jit]";
inline constexpr std::string_view kInterpretedMapping = "[interpreted]";
inline constexpr std::string_view kTruncatedFrame = "[truncated]";

struct FrameClues {
  std::string_view mapping_file;   // "" = none
  std::string_view function_name;  // "" = none
  uint64_t address = 0;
};
profile::FrameKind ClassifyFrame(const FrameClues& clues);

// The pseudo mapping for a frame of `kind` that has none; "" when it needs none.
std::string_view PseudoMapping(profile::FrameKind kind);
// True for the files of PseudoMapping that stand for "no mapping" (JIT and interpreted code).
bool IsPseudoMapping(std::string_view file);

// True for shared libraries ("libc.so.6", "/usr/lib/x.so"), false for main binaries.
bool LooksLikeLibrary(std::string_view file);
std::string_view BaseName(std::string_view path);

}  // namespace pyrometer::formats

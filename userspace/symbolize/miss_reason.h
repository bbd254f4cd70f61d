// Why an address has no name. A miss is a value, not an error: it is counted, exported with the
// profile and shown to the user, who can often do something about it (MissRemedy).
//
// Threads: pure functions. The short names are stored in profiles: append values, never rename.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pyrometer::symbolize {

enum class MissReason : uint8_t {
  kNone = 0,         // it has a name
  kNoMapping,        // the address lies in no mapping known for the process
  kFileGone,         // the file cannot be opened any more, by any of the ways given
  kNoPermission,     // the file exists; we may not read it
  kNotElf,           // not an ELF file, or one whose headers are corrupt
  kUnsupportedElf,   // an ELF file of a kind that is not read (big-endian)
  kBuildIdMismatch,  // the file at that place is not the one that was mapped
  kNoSymbols,        // a stripped file, and no debug file was found for it
  kOutsideSymbols,   // between the known functions: padding, or code whose symbol was stripped
  kKernelHidden,     // kptr_restrict or missing CAP_SYSLOG: the kernel shows only zeros
  kKernelUnknown,    // not in kallsyms, even after reading it again
  kPerfMapAbsent,    // code in anonymous memory, and the process writes no perf map
  kPerfMapRefused,   // a perf map exists but is not a regular file of the process's user
  kJitUnknown,       // the perf map has no entry for the address
  kLimitReached,     // the file needs more memory than the cache may take
  kReadFailed,       // input/output error, or the file changed while it was read
};
inline constexpr size_t kMissReasonCount = static_cast<size_t>(MissReason::kReadFailed) + 1;

// "no symbols"; "" for kNone. Stable: profiles store it.
std::string_view MissReasonName(MissReason reason);
// What the user can do: "install the debug package of …". Never empty but for kNone.
std::string_view MissRemedy(MissReason reason);

// Hits and misses by reason. Threads: any.
class SymbolCounters {
 public:
  // Counts of one moment; index 0 (kNone) holds the hits.
  using Snapshot = std::array<uint64_t, kMissReasonCount>;

  void Count(MissReason reason, uint64_t n = 1) {
    counts_[static_cast<size_t>(reason)].fetch_add(n, std::memory_order_relaxed);
  }
  Snapshot snapshot() const {
    Snapshot result;
    for (size_t i = 0; i < kMissReasonCount; ++i) result[i] = counts_[i].load(std::memory_order_relaxed);
    return result;
  }

 private:
  std::array<std::atomic<uint64_t>, kMissReasonCount> counts_ = {};
};

}  // namespace pyrometer::symbolize

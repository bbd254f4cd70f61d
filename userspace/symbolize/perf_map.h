// Names of code that a runtime made while running, from the file that it writes for profilers:
// /tmp/perf-PID.map, lines "START SIZE NAME" in hexadecimal.
//
//   MissReason why;
//   std::unique_ptr<PerfMap> map = PerfMap::Open(key, PerfMap::Options{}, &why);
//   Symbol s = map->Symbolize(VirtualAddress(0x7f12'3456'0000));
//
// The file is the one the process itself would see: its own mount namespace (through /proc/PID/root)
// and its own number (NSpid of /proc/PID/status). /tmp is writable by anybody, so only a regular file
// owned by the process's user or root counts, no symlink is followed at its end, and size and entries are
// bounded. Lines that are not of that form are skipped and counted.
//
// The file grows while the process runs: the descriptor is kept and the new part read when an
// address is asked for, at most every `refresh_ns`; after the process ended what was written stays
// readable. Where entries overlap, the later line wins: memory of dropped code is used again.
//
// Threads: one at a time (Symbolizer locks). Cost: ~0.2 µs per line, ~90 bytes + name per entry; an
// answer 0.2-0.4 µs, plus one fstat per `refresh_ns`. Does not promise which function was at an address
// at the time of the sample, only which one is there last.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "userspace/base/owned.h"
#include "userspace/base/types.h"
#include "userspace/symbolize/jit_code.h"
#include "userspace/symbolize/symbol.h"

namespace pyrometer::symbolize {

class PerfMap {
 public:
  struct Options {
    std::string proc_root = "/proc";
    uint64_t max_bytes = 128ull << 20;    // of one file [a Node service after a month: 31 MiB]; the rest is not read
    size_t max_entries = 2u << 20;        // kept per process
    uint64_t refresh_ns = 1'000'000'000;  // between two looks at the file
  };
  struct Counters {
    uint64_t lines = 0;       // read
    uint64_t bad_lines = 0;   // skipped: malformed, empty range or name
    uint64_t over_limit = 0;  // not kept for max_entries
    bool truncated = false;   // the file is larger than max_bytes
  };

  // Null with a reason: kPerfMapAbsent (also: process gone, or another one has its number by now),
  // kPerfMapRefused, kNoPermission.
  static std::unique_ptr<PerfMap> Open(const ProcessKey& process, const Options& options, MissReason* why);

  // A map without file, to be filled by Parse().
  static std::unique_ptr<PerfMap> Empty(const Options& options);

  Symbol Symbolize(VirtualAddress address);
  // Looks at the file now.
  void Refresh();

  const Counters& counters() const { return counters_; }
  size_t entry_count() const { return code_.entry_count(); }
  size_t memory_bytes() const { return sizeof(*this) + code_.memory_bytes(); }

  // Takes these lines as if they followed what was read.
  void Parse(std::string_view text);

 private:
  explicit PerfMap(const Options& options)
      : options_(options), code_({.max_entries = options.max_entries, .max_names_bytes = options.max_bytes}) {}
  void Clear();

  const Options options_;
  std::string path_;  // for opening a replaced file
  std::string root_;
  uint64_t owner_ = 0;
  UniqueFd fd_;
  uint64_t consumed_ = 0;               // bytes read and parsed
  uint64_t seen_bytes_ = ~uint64_t{0};  // size of the file when it was last read
  int64_t modified_ns_ = -1;            // of the file when it was last read
  uint64_t last_refresh_ns_ = 0;
  JitCode code_;
  Counters counters_;
};

}  // namespace pyrometer::symbolize

// Names and lines of generated code from the binary file that runtimes write for perf: jit-PID.dump ("jitdump",
// written by node --perf-prof, .NET, OpenJDK with perf's agent, LLVM's JITs).
//
//   MissReason why;
//   std::unique_ptr<JitDump> dump = JitDump::Open(key, JitDump::Options{}, &why);
//   Symbol s = dump->Symbolize(VirtualAddress(0x7f'1234'5600'0000));
//
// The runtime maps a page of the file executable as a mark: the file is found by a mapping named …/jit-<its own
// number>.dump in /proc/PID/maps, and is opened through /proc/PID/map_files, else by its path in the process's root. It
// must be a regular file of the process's user or root (jit_process.h).
//
// Records read: code load, move, close, and debug info (lines); the code bytes themselves and unwinding information
// are passed over. As with perf maps the new part is read when an address is asked for, at most every `refresh_ns`, and
// the later record wins where code overlaps.
//
// Layout (little-endian): header u32 magic "DTiJ", version, header bytes, machine, padding, pid; u64 time, flags. Then
// records: u32 id, u32 bytes of the record, u64 time, and
//   0 load    u32 pid, tid; u64 vma, address, size, index; name NUL; code
//   1 move    u32 pid, tid; u64 vma, old address, new address, size, index
//   2 lines   u64 address, count; count × (u64 address; u32 line, discriminator; file NUL, "\xff" = as before)
//   3 close
// Lines precede the load that they belong to.
//
// Threads: one at a time (Symbolizer locks). Cost: ~0.5 µs per record; jit_code.h for memory and answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/owned.h"
#include "userspace/base/types.h"
#include "userspace/elf/byte_source.h"
#include "userspace/symbolize/jit_code.h"
#include "userspace/symbolize/symbol.h"

namespace pyrometer::symbolize {

class JitDump {
 public:
  struct Options {
    std::string proc_root = "/proc";
    uint64_t max_bytes = 4ull << 30;      // of one file, code included [a Node service after a day: 400 MiB]
    size_t max_entries = 2u << 20;        // kept per process
    size_t max_names_bytes = 128u << 20;  // kept per process
    uint64_t refresh_ns = 1'000'000'000;  // between two looks at the file
  };
  struct Counters {
    uint64_t loads = 0, moves = 0, lines = 0;  // records and line entries taken
    uint64_t bad_records = 0;                  // malformed: passed over
    uint64_t over_limit = 0;                   // not kept
    bool closed = false;                       // the runtime said that nothing more comes
    bool broken = false;                       // a record whose length makes no sense: nothing behind it is read
  };

  // Null with a reason: kPerfMapAbsent (no such mapping, process gone), kPerfMapRefused, kNoPermission.
  static std::unique_ptr<JitDump> Open(const ProcessKey& process, const Options& options, MissReason* why);
  // One without a file, to be filled by Read().
  static std::unique_ptr<JitDump> Empty(const Options& options);

  Symbol Symbolize(VirtualAddress address);
  // Looks at the file now.
  void Refresh();
  // Takes what `source`, the whole file as it is now, has beyond what was read.
  void Read(const elf::ByteSource& source);

  const Counters& counters() const { return counters_; }
  size_t entry_count() const { return code_.entry_count(); }
  size_t memory_bytes() const { return sizeof(*this) + code_.memory_bytes(); }

 private:
  explicit JitDump(const Options& options)
      : options_(options), code_({.max_entries = options.max_entries, .max_names_bytes = options.max_names_bytes}) {}

  bool ReadHeader(std::string_view bytes);
  // `body` is the record behind its head, perhaps cut.
  void Take(uint32_t id, std::string_view body);
  void TakeLoad(std::string_view body);
  void TakeMove(std::string_view body);
  void TakeLines(std::string_view body);

  const Options options_;
  elf::SharedFd fd_;
  std::string path_;
  uint64_t consumed_ = 0;  // bytes of whole records read
  uint64_t last_refresh_ns_ = 0;
  JitCode code_;
  // Of the debug info read last, for the load that follows.
  uint64_t lines_address_ = 0;
  std::vector<JitCode::Line> lines_;
  Counters counters_;
};

}  // namespace pyrometer::symbolize

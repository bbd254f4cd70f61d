// All that is known about the code of one binary: built once, then only asked.
//
//   std::shared_ptr<const BinarySymbols> symbols = BinarySymbols::Build(build_id, source, options);
//   if (auto hit = symbols->index().Find(address)) …
//   else reason = symbols->ReasonFor(address);
//
// Functions come from, in this order: the binary's `.symtab`; else a separate debug file
// (debug_files.h); else `.gnu_debugdata`; else Go's own function table (go_functions.h), which stripped
// Go programs keep. `.dynsym` is always merged in, and PLT stubs are named
// "malloc@plt" by decoding them (x86-64). When the binary itself cannot be
// opened any more, a debug file found by its build ID still names it.
//
// Lines and inlined functions come from DWARF (debug_information.h), of the binary or of its debug file. What
// was built without any failure is kept in a folder (index_cache.h) and only mapped the next time.
//
// Building never fails: a binary without names is a BinarySymbols whose problem() says why.
//
// Threads: Build() on any thread, off the hot path; the result is immutable. Cost: ~0.25 µs per
// symbol and the reading of the tables; with DWARF see dwarf/reader.h; from the folder ~50 µs.
// Memory as symbol_index.h says, about three times that while building.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "userspace/base/types.h"
#include "userspace/elf/elf_file.h"
#include "userspace/symbolize/binary_source.h"
#include "userspace/symbolize/dwarf/reader.h"
#include "userspace/symbolize/index_cache.h"
#include "userspace/symbolize/miss_reason.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {

// Where the names came from; several may apply.
struct SymbolOrigin {
  bool symbol_table = false;     // the binary's own .symtab
  bool debug_file = false;       // a separate file
  bool mini_debug_info = false;  // .gnu_debugdata
  bool dynamic_symbols = false;  // .dynsym
  bool go_functions = false;     // .gopclntab
  bool dwarf = false;            // lines and inlined functions from debug information
  std::string debug_file_name;   // when debug_file
};

struct BuildOptions {
  std::vector<std::string> debug_folders = {"/usr/lib/debug"};
  size_t max_memory_bytes = 1u << 30;  // larger tables are given up: kLimitReached
  std::string scratch_folder;          // for unpacking compressed debug sections; empty: in memory
  IndexCache* cache = nullptr;         // where indexes are kept; null: nowhere
  // More debug information than this is left for later: debug_deferred().
  uint64_t max_debug_bytes = UINT64_MAX;
  const std::atomic<bool>* stop = nullptr;  // building ends early, without lines, when it becomes true
};

class BinarySymbols {
 public:
  // `build_id` empty: whatever the file is. Never null.
  static std::shared_ptr<const BinarySymbols> Build(const BuildId& build_id, const BinarySource& source,
                                                    const BuildOptions& options);

  const SymbolIndex& index() const { return index_; }
  const SymbolOrigin& origin() const { return origin_; }
  // kNone: there are names. Otherwise why there are none at all.
  MissReason problem() const { return problem_; }
  // For people: what exactly failed; "" when nothing did.
  const std::string& problem_detail() const { return problem_detail_; }
  // Of the file read; as asked for when none could be.
  const BuildId& build_id() const { return build_id_; }
  // By program headers of the binary; nullopt when it could not be opened, or outside.
  std::optional<ElfAddress> ToElfAddress(FileOffset offset) const;
  // Why an address that the index does not have has no name.
  MissReason ReasonForMiss() const { return problem_ == MissReason::kNone ? MissReason::kOutsideSymbols : problem_; }
  // There is debug information that was not read, for max_debug_bytes.
  bool debug_deferred() const { return debug_deferred_; }
  // It was not built but loaded.
  bool from_cache() const { return from_cache_; }
  // Distinguishes tables, also of the same binary; for caches of names.
  uint64_t serial() const { return serial_; }
  // What reading debug information took; zeros when there was none.
  const dwarf::Reader::Counters& debug_counters() const { return debug_counters_; }
  size_t memory_bytes() const { return sizeof(*this) + index_.memory_bytes(); }

 private:
  BinarySymbols();
  bool LoadFrom(IndexCache* cache, const BinarySource& source, const BuildOptions& options);
  void Fill(const BinarySource& source, const BuildOptions& options);
  StatusOr<elf::ElfFile> OpenBinary(const BinarySource& source);
  void SetProblem(MissReason reason, std::string detail);

  uint64_t serial_ = 0;
  bool from_cache_ = false;
  bool debug_deferred_ = false;
  SymbolIndex index_;
  SymbolOrigin origin_;
  MissReason problem_ = MissReason::kNone;
  std::string problem_detail_;
  BuildId build_id_;
  dwarf::Reader::Counters debug_counters_;
};

// The reason that fits an error of opening or reading a binary.
MissReason ReasonForStatus(const Status& status);

}  // namespace pyrometer::symbolize

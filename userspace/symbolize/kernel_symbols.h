// Names of kernel functions: the kernel itself, its modules and BPF programs.
//
//   KernelSymbols kernel(KernelSymbols::Options{});
//   Symbol s = kernel.Symbolize(VirtualAddress(0xffffffff81234567));
//
// Source is /proc/kallsyms, read at first use. It has no sizes: a function reaches to the next symbol
// of any kind, to the end of its module or of the kernel's text, at most 256 KiB (16 KiB for a BPF
// program, as behind it a newer program may lie). An address without a name makes us read again,
// at most every `min_refresh_ns`: a module or a BPF program was loaded. Without the right to see addresses
// (kptr_restrict) every answer is kKernelHidden.
//
// Threads: any. Cost: reading takes ~60-100 ms of CPU (the kernel formats 120,000 lines) and 5 MiB;
// an answer ~0.1 µs. Does not promise names for code unloaded before it was read.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/symbolize/symbol.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {

// Parsed text of kallsyms (and of /proc/modules, for where modules end).
struct KallsymsTable {
  SymbolIndex index;              // names are "function" or "function\tmodule"
  size_t functions = 0;           // text symbols with an address
  size_t bad_lines = 0;           // lines that are not "ADDRESS TYPE NAME [MODULE]"
  bool addresses_hidden = false;  // there are symbols, all at address 0
};
KallsymsTable ParseKallsyms(std::string_view kallsyms, std::string_view modules);

class KernelSymbols {
 public:
  struct Options {
    std::string kallsyms_path = "/proc/kallsyms";
    std::string modules_path = "/proc/modules";
    uint64_t min_refresh_ns = 10'000'000'000;  // between two readings for unknown addresses
  };

  explicit KernelSymbols(Options options) : options_(std::move(options)) {}

  Symbol Symbolize(VirtualAddress address);
  // Reads now; keeps the old table when that fails.
  Status Refresh();

  // Times that the table was read.
  uint64_t refreshes() const;
  size_t function_count() const;
  size_t memory_bytes() const;

 private:
  Status RefreshLocked();

  const Options options_;
  mutable std::mutex mutex_;
  KallsymsTable table_;
  std::unordered_map<uint32_t, std::shared_ptr<const FunctionName>> names_;  // by SymbolIndex name id
  Status read_status_;
  uint64_t refreshes_ = 0;
  uint64_t last_refresh_ns_ = 0;
};

}  // namespace pyrometer::symbolize

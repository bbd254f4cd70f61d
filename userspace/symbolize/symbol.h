// The answer for one address.
//
//   Symbol s = symbolizer.Symbolize(...);
//   if (s.found()) use(s.name()); else count(MissReasonName(s.miss));
//
// Cheap to copy and keep: names are shared with the symbolizer's cache and stay valid after it
// evicted them. Threads: as a plain value; the shared parts are immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/symbolize/miss_reason.h"

namespace pyrometer::symbolize {

// All text is well-formed UTF-8 without control characters, whatever the file said.
struct FunctionName {
  std::string name;         // for people: demangled
  std::string system_name;  // as in the symbol table; empty = same as `name`
  std::string module;       // kernel module "nf_tables", "bpf" for BPF programs; empty for anything else
  uint32_t start_line = 0;  // where the source of the function begins; 0 = unknown
};

// A function whose code the compiler put into another.
struct InlinedFrame {
  std::shared_ptr<const FunctionName> function;  // never null; its name may be "??"
  std::shared_ptr<const std::string> file;       // source file; null = unknown
  uint32_t line = 0;                             // 0 = unknown
};

// `function` is the one that has a symbol, called by the next frame; what is inlined into it at this address is in
// `inlined`, innermost first. The line of each frame but the innermost is that of its call into the one before.
struct Symbol {
  std::shared_ptr<const FunctionName> function;  // null on a miss
  std::shared_ptr<const std::string> file;       // source file; null = unknown
  uint32_t line = 0;                             // 0 = unknown
  uint64_t offset = 0;                           // bytes from the function's start
  std::vector<InlinedFrame> inlined;             // innermost first
  MissReason miss = MissReason::kNone;           // kNone exactly when found()

  bool found() const { return function != nullptr; }
  std::string_view name() const { return function ? std::string_view(function->name) : std::string_view(); }
  std::string_view system_name() const {
    if (!function) return {};
    return function->system_name.empty() ? function->name : function->system_name;
  }
  std::string_view module() const { return function ? std::string_view(function->module) : std::string_view(); }

  static Symbol Miss(MissReason reason) {
    Symbol symbol;
    symbol.miss = reason;
    return symbol;
  }
};

}  // namespace pyrometer::symbolize

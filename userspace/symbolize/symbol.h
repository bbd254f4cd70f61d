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

#include "userspace/symbolize/miss_reason.h"

namespace pyrometer::symbolize {

// All text is well-formed UTF-8 without control characters, whatever the file said.
struct FunctionName {
  std::string name;         // for people: demangled
  std::string system_name;  // as in the symbol table; empty = same as `name`
  std::string module;       // kernel module "nf_tables", "bpf" for BPF programs; empty for anything else
};

struct Symbol {
  std::shared_ptr<const FunctionName> function;  // null on a miss
  std::shared_ptr<const std::string> file;       // source file; null = unknown
  uint32_t line = 0;                             // 0 = unknown
  uint64_t offset = 0;                           // bytes from the function's start
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

// Code that a runtime made while running: address -> name, and lines where they are told. Filled by the readers of
// perf maps and of jitdump files.
//
//   JitCode code(limits);
//   code.Add(0x7f0012340000, 0x80, "LazyCompile:*total /srv/app/shop.js:12");
//   Symbol s = code.Symbolize(VirtualAddress(0x7f0012340010));
//
// Where entries overlap the later one wins: memory of dropped code is used again.
//
// Threads: one at a time. Cost: ~0.2 µs per entry, ~90 bytes + name; an answer 0.2-0.4 µs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/types.h"
#include "userspace/symbolize/string_pool.h"
#include "userspace/symbolize/symbol.h"

namespace pyrometer::symbolize {

class JitCode {
 public:
  struct Limits {
    size_t max_entries = 2u << 20;
    size_t max_names_bytes = 128u << 20;
    size_t max_lines = 8u << 20;  // of all entries
  };
  struct Line {
    uint64_t address = 0;
    uint32_t file = 0;  // from File()
    uint32_t line = 0;
  };
  static constexpr size_t kMaxNameBytes = 4096;

  explicit JitCode(const Limits& limits) : limits_(limits) {}

  // False when a limit was reached. `lines` (ascending by address) may be empty.
  bool Add(uint64_t start, uint64_t size, std::string_view name, const std::vector<Line>& lines = {});
  // The code that begins at `from` is now at `to`.
  void Move(uint64_t from, uint64_t to, uint64_t size);
  // An id for a path; 0 = none.
  uint32_t File(std::string_view path);
  void Clear();

  // kJitUnknown when nothing is there.
  Symbol Symbolize(VirtualAddress address);

  size_t entry_count() const { return entries_.size(); }
  size_t memory_bytes() const;

 private:
  struct Entry {
    uint64_t end;
    uint64_t start_of_code;  // of the whole function; differs from the key when its head was overwritten
    uint64_t lines_base;     // the start that its lines are relative to
    uint32_t name;           // in names_
    uint32_t first_line, line_count;
  };
  // Addresses relative to the function's start: moving it does not touch them.
  struct PackedLine {
    uint32_t offset, file, line;
  };

  void Insert(uint64_t start, const Entry& entry);

  const Limits limits_;
  std::map<uint64_t, Entry> entries_;  // disjoint, by start
  StringPool names_;
  std::vector<PackedLine> lines_;
  std::unordered_map<uint32_t, std::shared_ptr<const FunctionName>> made_;       // by name
  std::unordered_map<uint32_t, std::shared_ptr<const std::string>> made_files_;  // by name
};

}  // namespace pyrometer::symbolize

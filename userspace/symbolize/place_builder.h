// Collects what debug information says of a binary's code: lines, inlined functions, and functions that
// the symbol tables do not know. symbol_index.h makes a table of it.
//
//   PlaceBuilder places(limits);
//   places.AddCode(0x1000, 0x5000);
//   uint32_t file = places.File("/src/shop.cc");
//   places.Sequence({{0x1000, file, 10}, {0x1008, file, 12}}, 0x1020);
//   uint32_t total = places.Function("_ZN4shop5TotalEv", 7);
//   uint32_t call = places.Inline(0, total, file, 12);     // inlined into the function around, at line 12
//   places.Scopes(places.Function("main", 9), {{0x1000, 0x1020}}, {{0x1008, 0x1010, call}});
//
// A binary of 16 MB of code has 5 million rows and 2 million changes of scope, so both are kept as
// packed differences (2-3 bytes each) in chunks, which are sorted and merged at the end.
//
// Where inlined functions overlap, the one added later wins: readers add callers before callees. Where whole
// functions or line sequences overlap (identical code folded into one), the one that starts first wins.
//
// Threads: none shared. Cost: memory_bytes() says; about what the finished table needs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/line_program.h"
#include "userspace/symbolize/dwarf/unit.h"
#include "userspace/symbolize/flat_map.h"
#include "userspace/symbolize/string_pool.h"

namespace pyrometer::symbolize {

// A function inlined into the one around it (`parent`; 0: the function that symbols name).
struct InlinedCall {
  uint32_t parent = 0;
  uint32_t function = 0;
  uint32_t call_file = 0;  // where it was called
  uint32_t call_line = 0;
};

struct ScopeRange {
  uint64_t low = 0, high = 0;
  uint32_t inlined = 0;  // from Inline()
};

// A change: from this address on, this is what is there, until the next.
struct PlaceRow {
  uint64_t address = 0;
  uint32_t inlined = 0;
  uint32_t file = 0;
  uint32_t line = 0;
};

class PlaceBuilder final : public dwarf::LineSink {
 public:
  using AddressRange = dwarf::AddressRange;

  struct OutermostFunction {
    uint64_t start = 0, end = 0;
    uint32_t function = 0;
  };

  explicit PlaceBuilder(size_t max_memory_bytes) : max_memory_bytes_(max_memory_bytes) {}

  // Code lies in [start, start + size). Without any call everything above 0 is taken for code.
  void AddCode(uint64_t start, uint64_t size);

  bool IsCode(uint64_t address) override;
  uint32_t File(std::string_view path) override;
  bool Sequence(const std::vector<dwarf::LineRow>& rows, uint64_t end) override;

  // A function by its name (as in symbol tables).
  uint32_t Function(std::string_view name, uint32_t start_line);
  // A function whose name is a string that ResolveNames() will read: names are many and scattered, and reading
  // them in order of their place is ten times cheaper. Equal (source, offset) give the equal function.
  uint32_t FunctionNamedLater(uint32_t source, uint64_t offset, uint32_t start_line);
  uint32_t NewNameSource() { return ++sources_; }
  // Reads the names owed from one source; it must not be used afterwards.
  Status ResolveNames(uint32_t source, dwarf::Section strings);

  uint32_t Inline(uint32_t parent, uint32_t function, uint32_t call_file, uint32_t call_line);
  // The code of a function and of what is inlined into it. Parts outside of code are dropped.
  void Scopes(uint32_t function, std::span<const AddressRange> own, std::span<const ScopeRange> inlined);

  // False once a limit was passed: what came later is missing.
  bool complete() const { return complete_; }
  bool empty() const { return lines_.empty() && scopes_.empty() && outermost_.empty(); }
  size_t memory_bytes() const;
  // What this adds to an index, nearly.
  size_t index_bytes() const;

  // For the index's making. Sorts; afterwards nothing may be added.
  void Finish();
  const std::vector<OutermostFunction>& outermost() const { return outermost_; }  // by start
  // [0] is nothing. The rows are gone then, too.
  std::vector<InlinedCall> TakeInlined();
  struct NamedFunction {
    uint32_t name = 0;  // in pool()
    uint32_t start_line = 0;
  };
  const std::vector<NamedFunction>& functions() const { return functions_; }  // [0] is nothing
  const std::vector<uint32_t>& files() const { return files_; }               // names in pool(); [0] is nothing
  StringPool& pool() { return pool_; }
  // Gives all changes, ascending; rows that change nothing are left out.
  void ForEachRow(const std::function<void(const PlaceRow&)>& visit) const;

  static constexpr size_t kMaxInlined = 64u << 20;    // [libwebkit: 9 M]
  static constexpr size_t kMaxFunctions = 32u << 20;  // [libwebkit: 1 M]

 private:
  struct Code {
    uint64_t start, end;
  };
  struct Chunk {  // a contiguous piece of code with packed rows
    uint64_t start, end;
    uint64_t data, data_end;
    uint32_t order;
  };
  template <typename Codec>
  class Stream;

  // The range of code that an address lies in; nullptr when in none.
  const Code* CodeAt(uint64_t address);
  bool WithinLimits();
  void AddScopeChunks();

  const size_t max_memory_bytes_;
  bool complete_ = true;
  std::vector<Code> code_;
  size_t last_code_ = 0;  // the one found last

  StringPool pool_;
  std::vector<uint32_t> files_ = {0};
  FlatMap file_ids_;  // name in pool -> id
  std::vector<NamedFunction> functions_ = {{}};
  FlatMap function_ids_;  // name in pool << 32 | start line -> id
  uint32_t sources_ = 0;
  std::map<uint32_t, FlatMap> owed_;  // source -> offset of the name -> function
  std::vector<InlinedCall> inlined_ = {{}};
  std::vector<OutermostFunction> outermost_;
  std::vector<Chunk> lines_, scopes_;
  std::string line_data_, scope_data_;

  struct Interval {
    uint64_t start, end;
    uint32_t order, inlined;
  };
  std::vector<Interval> intervals_;  // of the function being added
  std::vector<Interval> open_;       // heap, latest first
};

}  // namespace pyrometer::symbolize

// Reads all debug information of a binary into a PlaceBuilder.
//
//   Reader reader(binary_sections, options, &places);
//   reader.Read();
//   if (!reader.status().ok()) …          // what was read before counts
//
// One pass over the units: their line programs, their functions with code, and in these the tree of
// inlined calls. Entries of other kinds are passed over. .debug_names, .gdb_index and .debug_aranges are not
// needed and not looked at.
//
// Where the information lies elsewhere the files are asked for through `options`: split DWARF (one .dwo per
// unit, or a package .dwp of them), and the supplementary file of dwz.
//
// Threads: none shared. Cost: tests/bench/symbolizer_compare measures bytes of debug information per second;
// memory is the largest unit's bytes, a few windows of 64 KiB and what PlaceBuilder keeps.
// Hostile input: entries nest at most kMaxDepth deep and inlined calls kMaxInlineDepth; all bytes looked at
// count against a budget that honest files stay far below, so time is bounded by the file's size.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/info_file.h"
#include "userspace/symbolize/dwarf/line_program.h"
#include "userspace/symbolize/dwarf/section.h"
#include "userspace/symbolize/flat_map.h"
#include "userspace/symbolize/place_builder.h"

namespace pyrometer::dwarf {

// The debug information of one split unit. `owner` keeps its sections alive.
struct SplitUnit {
  std::shared_ptr<const void> owner;
  DebugSections sections;
};

struct ReaderOptions {
  // Reading ends early, with CANCELLED, when it becomes true; null: never.
  const std::atomic<bool>* stop = nullptr;
  // The unit `id` of a binary compiled with -gsplit-dwarf: its file is called `name` and lay in `folder`
  // when it was compiled. NOT_FOUND when there is no such file.
  std::function<StatusOr<SplitUnit>(uint64_t id, const std::string& folder, const std::string& name)> find_split;
  // The supplementary file; nullptr when there is none. Asked at most once.
  std::function<StatusOr<SplitUnit>()> find_supplement;
};

class Reader {
 public:
  struct Counters {
    uint64_t units = 0;           // read
    uint64_t functions = 0;       // with code
    uint64_t inlined = 0;         // inlined calls
    uint64_t bytes = 0;           // of units and line programs
    uint64_t split_units = 0;     // found elsewhere
    uint64_t missing_splits = 0;  // not found: their functions are known by the symbol table only
    uint64_t failed_units = 0;    // corrupt, or beyond a limit
  };

  Reader(const DebugSections& sections, ReaderOptions options, symbolize::PlaceBuilder* places);
  ~Reader();

  // Reads everything, then the names.
  void Read();
  // The first problem; what is readable has been read all the same.
  const Status& status() const { return status_; }
  const Counters& counters() const { return counters_; }

  static constexpr size_t kMaxDepth = 2048;                  // [deepest seen: 60]
  static constexpr uint32_t kMaxInlineDepth = 256;           // [deepest seen: 61, Eigen]
  static constexpr size_t kMaxRangesPerEntry = 1u << 16;     // [a unit of libwebkit: 9,000]
  static constexpr size_t kMaxRangesPerFunction = 2u << 20;  // of all calls inlined into one

 private:
  // A function whose entry is open.
  struct OpenFunction {
    uint32_t function = 0;
    std::vector<AddressRange> own;
    std::vector<symbolize::ScopeRange> inlined;
  };
  // What the entries at one depth belong to.
  struct Level {
    int function = -1;     // index of the OpenFunction; -1: none
    uint32_t inlined = 0;  // the inlined call around
    uint16_t inline_depth = 0;
    bool opened = false;  // the function ends with this level
  };

  void ReadUnit(InfoFile& file, const UnitHeader& header);
  Status ReadLines(InfoFile& file, uint64_t offset, const Encoding& encoding, const std::string& folder);
  Status ReadSplitUnit(const UnitHeader& skeleton_header, const UnitTables& tables, uint64_t base_address,
                       const std::string& folder, const std::string& name);
  Status ReadEntries(Unit& unit, const UnitValues& values, uint64_t from);
  bool BeginFunction(Unit& unit, const UnitValues& values, const Die& die, Level* level);
  void AddInlined(Unit& unit, const UnitValues& values, const Die& die, Level* level);
  void EndFunction(int function);
  bool WithinBudget();
  void Problem(const Status& status);
  InfoFile* Supplement();

  const DebugSections sections_;
  const ReaderOptions options_;
  symbolize::PlaceBuilder& places_;
  InfoFile main_;
  std::unique_ptr<InfoFile> supplement_;
  std::shared_ptr<const void> supplement_owner_;
  bool supplement_asked_ = false;

  std::string unit_buffer_, split_buffer_;
  Unit unit_;
  LineProgram lines_;
  bool has_lines_ = false;  // lines_ is the current unit's
  symbolize::FlatMap lines_read_;
  std::vector<Level> levels_;
  std::vector<OpenFunction> functions_;  // the first open_functions_ are in use
  int open_functions_ = 0;
  std::vector<AddressRange> ranges_;
  uint64_t ranges_bytes_ = 0;
  uint64_t side_bytes_ = 0;  // of files closed again
  uint64_t budget_ = 0;
  Status status_;
  Counters counters_;
};

}  // namespace pyrometer::dwarf

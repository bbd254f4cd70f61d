// Line programs, versions 2 to 5: which source file and line each instruction came from.
//
//   LineProgram program;
//   RETURN_IF_ERROR(program.Open(sources, offset, address_bytes, compilation_folder));
//   RETURN_IF_ERROR(program.Run(&sink));
//
// Columns, statement marks and the rest are passed over. Rows that say the same as the row before are left
// out; of several rows for one address the last counts (as in every debugger).
//
// Threads: none shared. Cost: ~3 ns per byte of program. Memory: the bytes of one program.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/cursor.h"
#include "userspace/symbolize/dwarf/section.h"
#include "userspace/symbolize/dwarf/unit.h"

namespace pyrometer::dwarf {

struct LineRow {
  uint64_t address = 0;
  uint32_t file = 0;  // as LineSink::File() said; 0 = unknown
  uint32_t line = 0;  // 0 = the compiler gave none
};

class LineSink {
 public:
  virtual ~LineSink() = default;
  // Whether code may lie there: sequences of discarded functions are not kept.
  virtual bool IsCode(uint64_t address) = 0;
  // An id for a path.
  virtual uint32_t File(std::string_view path) = 0;
  // Rows of [rows[0].address, end), ascending. False: no more, a limit was reached.
  virtual bool Sequence(const std::vector<LineRow>& rows, uint64_t end) = 0;
};

struct LineSources {
  Section line;
  Window* strings = nullptr;       // .debug_str
  Window* line_strings = nullptr;  // .debug_line_str
};

class LineProgram {
 public:
  // Reads the header at `offset` of .debug_line.
  Status Open(const LineSources& sources, uint64_t offset, uint8_t address_bytes, std::string_view compilation_folder);
  // Runs the program. Errors in the middle leave the sequences before them.
  Status Run(LineSink* sink);
  // The path of a file by the number that the program and its units use; 0 when there is none.
  uint32_t FileId(uint64_t index, LineSink* sink);
  uint64_t bytes() const { return bytes_.size(); }

  // Larger programs are refused [largest in libwebkit with LTO: 60 MiB].
  static constexpr uint64_t kMaxProgramBytes = 512u << 20;
  // Folders or files of one header [chromium: 3,000].
  static constexpr uint64_t kMaxFiles = 1u << 20;

 private:
  struct File {
    uint32_t name = 0;  // offset in names_
    uint32_t name_bytes = 0;
    uint32_t folder = 0;
    uint32_t id = kNotAsked;
  };
  static constexpr uint32_t kNotAsked = ~uint32_t{0};

  Status ReadOldTables(Cursor* cursor);
  Status ReadTables(Cursor* cursor, const LineSources& sources, const Encoding& encoding);
  Status ReadEntries(Cursor* cursor, const LineSources& sources, const Encoding& encoding, std::vector<File>* entries);
  File Keep(std::string_view name, uint64_t folder);
  std::string PathOf(const File& file) const;

  std::string buffer_;
  std::string_view bytes_;      // from the header's start
  uint64_t program_start_ = 0;  // in bytes_
  Encoding encoding_;
  uint8_t min_instruction_bytes_ = 1;
  uint8_t max_operations_ = 1;
  int8_t line_base_ = 0;
  uint8_t line_range_ = 1;
  uint8_t opcode_base_ = 1;
  uint8_t operand_counts_[256] = {};
  std::string compilation_folder_;
  std::string names_;
  std::vector<File> folders_;
  std::vector<File> files_;
};

// "/build/src" + "../lib/a.c"; absolute names stay.
std::string JoinPath(std::string_view folder, std::string_view name);

}  // namespace pyrometer::dwarf

// The table that Go's runtime keeps of its functions (`.gopclntab`), taken apart. go_functions.h has the layouts.
//
//   ASSIGN_OR_RETURN(std::optional<GoTable> table, GoTable::Read(file));
//   for (uint64_t i = 0; i < table->functions; ++i) if (auto f = table->FunctionAt(i)) …
//
// Threads: const methods from any thread. Every read is checked.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::symbolize {

class GoTable {
 public:
  // Its first word, by the version of Go that introduced the layout.
  static constexpr uint32_t kGo2 = 0xfffffffb;
  static constexpr uint32_t kGo16 = 0xfffffffa;
  static constexpr uint32_t kGo18 = 0xfffffff0;
  static constexpr uint32_t kGo20 = 0xfffffff1;
  static constexpr size_t kMaxNameBytes = 8 << 10;

  struct Function {
    uint64_t start = 0, end = 0;  // addresses
    uint64_t record = 0;          // offset in the table
    std::string_view name;        // valid as long as the table
  };
  // Offsets in a function's record, all of 32-bit fields.
  struct Fields {
    uint64_t name = 0;
    uint64_t files = 0, lines = 0;     // offsets of its line tables
    uint64_t data_count = 0;           // number of further tables ("pcdata"), whose offsets follow the record
    uint64_t unit = 0;                 // first of its unit's files; 0: none
    uint64_t start_line = 0;           // 0: none
    uint64_t function_data_count = 0;  // an 8-bit field: number of offsets in go.func.* ("funcdata"); 0: not read
    uint64_t bytes = 0;
  };

  // nullopt when the file is no Go program; UNIMPLEMENTED for layouts unknown, DATA_LOSS when corrupt.
  static StatusOr<std::optional<GoTable>> Read(const elf::ElfFile& file);

  uint64_t functions() const { return functions_; }
  // nullopt: corrupt. An empty one (end <= start) is to be passed over.
  std::optional<Function> FunctionAt(uint64_t index) const;
  std::string_view NameAt(uint64_t offset) const { return Text(names_ + offset); }
  // A path by the number that a function's table of files has; "" when there is none.
  std::string_view FileAt(const Function& function, uint32_t number) const;
  const Fields& fields() const { return fields_; }
  uint64_t line_tables() const { return line_tables_; }  // what offsets of line tables are relative to
  uint64_t text_start() const { return text_start_; }
  uint8_t quantum() const { return quantum_; }  // bytes of the smallest instruction
  uint32_t magic() const { return magic_; }
  ElfAddress address() const { return address_; }  // of the table itself
  uint64_t word_bytes() const { return word_bytes_; }
  uint64_t size() const { return bytes_.size(); }
  std::string_view bytes() const { return bytes_; }

  std::optional<uint64_t> Number(uint64_t offset, uint64_t width) const {
    if (offset > bytes_.size() || bytes_.size() - offset < width) return std::nullopt;
    uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + offset, width);  // little endian, as the file
    return value;
  }

 private:
  static constexpr uint64_t kHeaderBytes = 8;  // magic, two zeros, instruction quantum, word size

  Status ReadLayout(const elf::ElfFile& file);
  std::optional<uint64_t> HeaderWord(uint64_t index) const {
    return Number(kHeaderBytes + index * word_bytes_, word_bytes_);
  }
  std::string_view Text(uint64_t offset) const {
    if (offset >= bytes_.size()) return {};
    const std::string_view tail = std::string_view(bytes_).substr(offset, kMaxNameBytes);
    return tail.substr(0, tail.find('\0'));
  }

  std::string bytes_;
  ElfAddress address_;
  uint32_t magic_ = 0;
  uint8_t quantum_ = 1;
  uint64_t word_bytes_ = 8;
  uint64_t functions_ = 0;
  uint64_t pairs_ = 0;       // offset of the pairs (address, record)
  uint64_t pair_width_ = 0;  // bytes of each half of a pair
  uint64_t names_ = 0;       // what name offsets are relative to
  uint64_t records_ = 0;     // what record offsets are relative to
  uint64_t units_ = 0;       // file offsets of units
  uint64_t files_ = 0;       // what file offsets are relative to; before Go 1.16 the table of files itself
  uint64_t line_tables_ = 0;
  uint64_t text_start_ = 0;  // what addresses are relative to
  Fields fields_;
};

}  // namespace pyrometer::symbolize

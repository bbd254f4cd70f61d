#include "userspace/symbolize/go_table.h"

#include <utility>

#include "userspace/base/strings.h"
#include "userspace/symbolize/go_functions.h"

namespace pyrometer::symbolize {
namespace {

constexpr uint64_t kMaxRelocations = 4u << 20;

// The value that the loader puts at `place`, when the file leaves it to a relocation.
StatusOr<std::optional<uint64_t>> RelocatedWord(const elf::ElfFile& file, ElfAddress place) {
  for (const elf::Section& section : file.sections()) {
    if (section.type != SHT_RELA || (section.flags & SHF_ALLOC) == 0) continue;
    ASSIGN_OR_RETURN(const auto relocations, file.ReadRelocations(section, kMaxRelocations));
    for (const elf::RawRelocation& relocation : relocations) {
      if (relocation.target == place && relocation.symbol == 0 && relocation.addend > 0) {
        return std::optional<uint64_t>(static_cast<uint64_t>(relocation.addend));
      }
    }
  }
  return std::optional<uint64_t>();
}

Status Corrupt(const elf::ElfFile& file) {
  return DataLossError(StrFormat("%s: its table of Go functions is corrupt", file.name()));
}

}  // namespace

StatusOr<std::optional<GoTable>> GoTable::Read(const elf::ElfFile& file) {
  const elf::Section* section = file.FindSection(".gopclntab");
  if (section == nullptr) section = file.FindSection(".data.rel.ro.gopclntab");  // position-independent programs
  if (section == nullptr || !section->has_bytes()) return std::optional<GoTable>();
  GoTable table;
  ASSIGN_OR_RETURN(table.bytes_, file.ReadSection(*section, kMaxGoTableBytes));
  table.address_ = section->address;
  if (table.bytes_.size() < kHeaderBytes) return Corrupt(file);
  std::memcpy(&table.magic_, table.bytes_.data(), sizeof(table.magic_));
  if (table.magic_ != kGo2 && table.magic_ != kGo16 && table.magic_ != kGo18 && table.magic_ != kGo20) {
    return UnimplementedError(StrFormat("%s: its table of Go functions is of an unknown version", file.name()));
  }
  table.quantum_ = static_cast<uint8_t>(table.bytes_[6]);
  table.word_bytes_ = static_cast<uint8_t>(table.bytes_[7]);
  if (table.word_bytes_ != 4 && table.word_bytes_ != 8) return Corrupt(file);
  RETURN_IF_ERROR(table.ReadLayout(file));
  if (table.functions_ > table.size() || table.pairs_ > table.size()) return Corrupt(file);
  return std::optional<GoTable>(std::move(table));
}

Status GoTable::ReadLayout(const elf::ElfFile& file) {
  const uint64_t entry = magic_ == kGo18 || magic_ == kGo20 ? 4 : word_bytes_;  // bytes of a record's first field
  fields_.name = entry;
  fields_.files = entry + 16;
  fields_.lines = entry + 20;
  fields_.data_count = entry + 24;
  fields_.bytes = entry + 32;
  if (magic_ == kGo2) {
    const auto count = HeaderWord(0);
    if (!count.has_value()) return Corrupt(file);
    functions_ = *count;
    pairs_ = kHeaderBytes + word_bytes_;
    pair_width_ = word_bytes_;
    // Behind the pairs: the end of the last function, then where the table of files is.
    if (functions_ <= size()) files_ = Number(pairs_ + (2 * functions_ + 1) * word_bytes_, 4).value_or(0);
    return OkStatus();
  }
  const bool relative = magic_ == kGo18 || magic_ == kGo20;
  fields_.unit = entry + 28;
  fields_.start_line = magic_ == kGo20 ? entry + 32 : 0;
  fields_.function_data_count = relative ? entry + (magic_ == kGo20 ? 39 : 35) : 0;
  fields_.bytes = entry + (magic_ == kGo20 ? 40 : 36);
  // Words: functions, files, [text start,] names, compilation units, files, line tables, pairs.
  const uint64_t shift = relative ? 1 : 0;
  const auto count = HeaderWord(0), names = HeaderWord(2 + shift), units = HeaderWord(3 + shift),
             files = HeaderWord(4 + shift), lines = HeaderWord(5 + shift), pairs = HeaderWord(6 + shift);
  if (!pairs.has_value()) return Corrupt(file);
  functions_ = *count;
  names_ = *names;
  units_ = *units;
  files_ = *files;
  line_tables_ = *lines;
  pairs_ = records_ = *pairs;
  pair_width_ = relative ? 4 : word_bytes_;
  for (const uint64_t offset : {names_, units_, files_, line_tables_}) {
    if (offset > size()) return Corrupt(file);
  }
  if (!relative) return OkStatus();
  text_start_ = HeaderWord(2).value_or(0);
  if (text_start_ != 0) return OkStatus();
  const ElfAddress place(address_.value + kHeaderBytes + 2 * word_bytes_);
  ASSIGN_OR_RETURN(const std::optional<uint64_t> start, RelocatedWord(file, place));
  if (!start.has_value()) {
    return UnimplementedError(StrFormat("%s: the start of its Go code is not known", file.name()));
  }
  text_start_ = *start;
  return OkStatus();
}

std::optional<GoTable::Function> GoTable::FunctionAt(uint64_t index) const {
  // Functions lie back to back; behind the last pair stands the end of the last function.
  const uint64_t pair = pairs_ + index * 2 * pair_width_;
  const auto start = Number(pair, pair_width_), record = Number(pair + pair_width_, pair_width_),
             end = Number(pair + 2 * pair_width_, pair_width_);
  if (!end.has_value() || *record > size()) return std::nullopt;
  Function function{text_start_ + *start, text_start_ + *end, records_ + *record, {}};
  const auto name = Number(function.record + fields_.name, sizeof(uint32_t));
  if (!name.has_value()) {
    function.end = function.start;
  } else {
    function.name = NameAt(*name);
  }
  return function;
}

std::string_view GoTable::FileAt(const Function& function, uint32_t number) const {
  if (fields_.unit == 0) {
    const auto offset = Number(files_ + uint64_t{number} * 4, 4);
    return files_ == 0 || number == 0 || !offset.has_value() ? std::string_view() : Text(*offset);
  }
  const auto unit = Number(function.record + fields_.unit, 4);
  if (!unit.has_value()) return {};
  const auto offset = Number(units_ + (*unit + number) * 4, 4);
  constexpr uint64_t kNoFile = 0xffffffff;
  return !offset.has_value() || *offset == kNoFile ? std::string_view() : Text(files_ + *offset);
}

}  // namespace pyrometer::symbolize

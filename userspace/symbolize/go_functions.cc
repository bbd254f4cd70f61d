#include "userspace/symbolize/go_functions.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "userspace/base/strings.h"

namespace pyrometer::symbolize {
namespace {

constexpr uint32_t kMagic2 = 0xfffffffb;
constexpr uint32_t kMagic16 = 0xfffffffa;
constexpr uint32_t kMagic18 = 0xfffffff0;
constexpr uint32_t kMagic20 = 0xfffffff1;
constexpr uint64_t kHeaderBytes = 8;  // magic, two zeros, instruction quantum, word size
constexpr uint64_t kMaxRelocations = 4u << 20;
constexpr size_t kMaxNameBytes = 8 << 10;

// The table's bytes with checked reads; nullopt past the end.
class Table {
 public:
  Table(std::string_view bytes, uint64_t word_bytes) : bytes_(bytes), word_bytes_(word_bytes) {}

  uint64_t word_bytes() const { return word_bytes_; }
  uint64_t size() const { return bytes_.size(); }
  std::optional<uint64_t> Number(uint64_t offset, uint64_t width) const {
    if (offset > bytes_.size() || bytes_.size() - offset < width) return std::nullopt;
    uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + offset, width);  // little endian, as the file
    return value;
  }
  // Word number `index` behind the header.
  std::optional<uint64_t> HeaderWord(uint64_t index) const {
    return Number(kHeaderBytes + index * word_bytes_, word_bytes_);
  }
  std::string_view Text(uint64_t offset) const {
    if (offset >= bytes_.size()) return {};
    const std::string_view tail = bytes_.substr(offset, kMaxNameBytes);
    return tail.substr(0, tail.find('\0'));
  }

 private:
  std::string_view bytes_;
  uint64_t word_bytes_;
};

// Where the parts of one layout lie.
struct Layout {
  uint64_t functions = 0;   // count
  uint64_t pairs = 0;       // offset of the pairs (address, record)
  uint64_t names = 0;       // what name offsets are relative to
  uint64_t records = 0;     // what record offsets are relative to
  uint64_t pair_width = 0;  // bytes of each half of a pair
  uint64_t name_field = 0;  // offset of the name's offset in a record
  uint64_t text_start = 0;  // what addresses are relative to
};

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

StatusOr<std::optional<Layout>> ReadLayout(const elf::ElfFile& file, const elf::Section& section, uint32_t magic,
                                           const Table& table) {
  Layout layout;
  if (magic == kMagic2) {
    const auto count = table.HeaderWord(0);
    if (!count.has_value()) return Corrupt(file);
    layout.functions = *count;
    layout.pairs = kHeaderBytes + table.word_bytes();
    layout.pair_width = table.word_bytes();
    layout.name_field = table.word_bytes();
    return std::optional<Layout>(layout);
  }
  const bool relative = magic == kMagic18 || magic == kMagic20;
  // Words: functions, files, [text start,] names, compilation units, files, line tables, pairs.
  const uint64_t shift = relative ? 1 : 0;
  const auto count = table.HeaderWord(0), names = table.HeaderWord(2 + shift), pairs = table.HeaderWord(6 + shift);
  if (!count.has_value() || !names.has_value() || !pairs.has_value()) return Corrupt(file);
  layout.functions = *count;
  layout.names = *names;
  layout.pairs = layout.records = *pairs;
  layout.pair_width = relative ? 4 : table.word_bytes();
  layout.name_field = layout.pair_width;
  if (relative) {
    layout.text_start = table.HeaderWord(2).value_or(0);
    if (layout.text_start == 0) {
      const ElfAddress place(section.address.value + kHeaderBytes + 2 * table.word_bytes());
      ASSIGN_OR_RETURN(const std::optional<uint64_t> start, RelocatedWord(file, place));
      if (!start.has_value()) return std::optional<Layout>();
      layout.text_start = *start;
    }
  }
  return std::optional<Layout>(layout);
}

}  // namespace

Status AddGoFunctions(const elf::ElfFile& file, SymbolIndexBuilder* builder) {
  const elf::Section* section = file.FindSection(".gopclntab");
  if (section == nullptr) section = file.FindSection(".data.rel.ro.gopclntab");  // position-independent programs
  if (section == nullptr || !section->has_bytes()) return OkStatus();
  ASSIGN_OR_RETURN(const std::string bytes, file.ReadSection(*section, kMaxGoTableBytes));
  if (bytes.size() < kHeaderBytes) return Corrupt(file);
  uint32_t magic;
  std::memcpy(&magic, bytes.data(), sizeof(magic));
  if (magic != kMagic2 && magic != kMagic16 && magic != kMagic18 && magic != kMagic20) {
    return UnimplementedError(StrFormat("%s: its table of Go functions is of an unknown version", file.name()));
  }
  const auto word_bytes = static_cast<uint8_t>(bytes[7]);
  if (word_bytes != 4 && word_bytes != 8) return Corrupt(file);
  const Table table(bytes, word_bytes);
  ASSIGN_OR_RETURN(const std::optional<Layout> layout, ReadLayout(file, *section, magic, table));
  if (!layout.has_value()) {
    return UnimplementedError(StrFormat("%s: the start of its Go code is not known", file.name()));
  }
  if (layout->functions > table.size() || layout->pairs > table.size()) return Corrupt(file);

  const uint64_t pair_bytes = 2 * layout->pair_width;
  // Functions lie back to back; behind the last pair stands the end of the last function.
  const auto address_of = [&](uint64_t i) { return table.Number(layout->pairs + i * pair_bytes, layout->pair_width); };
  for (uint64_t i = 0; i < layout->functions; ++i) {
    const auto start = address_of(i), end = address_of(i + 1);
    const auto record = table.Number(layout->pairs + i * pair_bytes + layout->pair_width, layout->pair_width);
    if (!start.has_value() || !end.has_value() || !record.has_value() || *record > table.size()) return Corrupt(file);
    const auto name = table.Number(layout->records + *record + layout->name_field, sizeof(uint32_t));
    if (!name.has_value() || *end <= *start) continue;
    const SymbolRank rank{.typed = true, .global = false, .exported = false};
    if (!builder->Add(ElfAddress(layout->text_start + *start), *end - *start, rank,
                      table.Text(layout->names + *name))) {
      return ResourceExhaustedError(StrFormat("%s has more Go functions than the limit allows", file.name()));
    }
  }
  return OkStatus();
}

}  // namespace pyrometer::symbolize

#include "userspace/symbolize/go_functions.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/symbolize/dwarf/cursor.h"
#include "userspace/symbolize/go_table.h"

namespace pyrometer::symbolize {
namespace {

// Go's tables of values by address. They are read once each, but a hostile file could let all functions share one.
constexpr uint64_t kMaxStepsFactor = 4;
// Deepest chain of inlined calls [seen: 12].
constexpr int kMaxInlineDepth = 256;
constexpr uint64_t kMaxModuleDataBytes = 256u << 20;
constexpr uint32_t kInlineTreeData = 3;   // its index among a function's offsets in go.func.*
constexpr uint32_t kInlineTreeIndex = 2;  // its index among a function's further tables

// A stretch of a function where a table has one value.
struct Run {
  uint64_t start = 0, end = 0;
  int32_t value = -1;
};

class LineReader {
 public:
  LineReader(const GoTable& table, std::optional<uint64_t> function_data_address, std::string_view function_data,
             PlaceBuilder* places)
      : table_(table),
        function_data_address_(function_data_address),
        function_data_(function_data),
        places_(*places),
        steps_left_(kMaxStepsFactor * table.size() + 1024) {}

  // False: no more, a limit was reached.
  bool Add(const GoTable::Function& function) {
    function_ = &function;
    file_ids_.clear();
    nodes_.clear();
    const GoTable::Fields& fields = table_.fields();
    Decode(fields.files, &files_);
    Decode(fields.lines, &lines_);
    std::vector<dwarf::LineRow> rows;
    size_t f = 0;
    for (const Run& run : lines_) {
      // Both tables cover the function; a row begins where either changes.
      uint64_t at = run.start;
      while (at < run.end) {
        while (f < files_.size() && files_[f].end <= at) ++f;
        const bool known = f < files_.size() && files_[f].start <= at;
        const uint32_t file = known ? File(files_[f].value) : 0;
        rows.push_back({at, file, run.value > 0 && file != 0 ? static_cast<uint32_t>(run.value) : 0});
        const uint64_t next = known ? files_[f].end : f < files_.size() ? std::max(files_[f].start, at + 1) : run.end;
        at = std::min(run.end, next);
      }
    }
    if (!rows.empty()) places_.Sequence(rows, function.end);

    const auto start_line =
        fields.start_line != 0 ? table_.Number(function.record + fields.start_line, 4) : std::nullopt;
    const uint32_t id = places_.Function(function.name, static_cast<uint32_t>(start_line.value_or(0)));
    std::vector<ScopeRange> inlined;
    if (FindInlineTree()) {
      for (const Run& run : calls_) {
        if (run.value < 0) continue;
        if (const uint32_t node = Node(run.value, 0); node != 0) inlined.push_back({run.start, run.end, node});
      }
    }
    const dwarf::AddressRange own[] = {{function.start, function.end}};
    places_.Scopes(id, own, inlined);
    return steps_left_ > 0 && places_.complete();
  }

 private:
  // The runs of the table whose offset stands at `field` of the function's record.
  void Decode(uint64_t field, std::vector<Run>* runs) {
    runs->clear();
    const auto offset = table_.Number(function_->record + field, 4);
    if (offset.has_value() && *offset != 0) DecodeAt(table_.line_tables() + *offset, runs);
  }
  void DecodeAt(uint64_t offset, std::vector<Run>* runs) {
    if (offset >= table_.size()) return;
    dwarf::Cursor cursor(table_.bytes(), offset);
    uint64_t address = function_->start;
    int32_t value = -1;
    for (bool first = true; address < function_->end; first = false) {
      const uint64_t change = cursor.Uleb();
      if (change == 0 && !first) return;
      const uint64_t bytes = cursor.Uleb() * table_.quantum();
      if (!cursor.ok() || steps_left_ == 0 || bytes > function_->end - address) return;
      --steps_left_;
      const uint32_t delta = static_cast<uint32_t>((change >> 1) ^ (~(change & 1) + 1));
      value = static_cast<int32_t>(static_cast<uint32_t>(value) + delta);
      if (bytes != 0) runs->push_back({address, address + bytes, value});
      address += bytes;
    }
  }

  uint32_t File(int32_t number) {
    if (number < 0) return 0;
    const auto [position, added] = file_ids_.try_emplace(number, 0);
    if (added) {
      const std::string_view path = table_.FileAt(*function_, static_cast<uint32_t>(number));
      position->second = path.empty() ? 0 : places_.File(path);
    }
    return position->second;
  }

  static const Run* RunAt(const std::vector<Run>& runs, uint64_t address) {
    const auto after = std::upper_bound(runs.begin(), runs.end(), address,
                                        [](uint64_t wanted, const Run& run) { return wanted < run.start; });
    if (after == runs.begin() || address >= std::prev(after)->end) return nullptr;
    return &*std::prev(after);
  }

  // Where the function's tree of inlined calls is, and the runs of indices into it.
  bool FindInlineTree() {
    const GoTable::Fields& fields = table_.fields();
    calls_.clear();
    if (fields.function_data_count == 0 || !function_data_address_.has_value()) return false;
    const auto tables = table_.Number(function_->record + fields.data_count, 4);
    const auto data = table_.Number(function_->record + fields.function_data_count, 1);
    if (!tables.has_value() || !data.has_value() || *tables <= kInlineTreeIndex || *data <= kInlineTreeData ||
        *tables > 64) {
      return false;
    }
    const uint64_t further = function_->record + fields.bytes;
    const auto tree = table_.Number(further + (*tables + kInlineTreeData) * 4, 4);
    const auto runs = table_.Number(further + kInlineTreeIndex * 4, 4);
    constexpr uint64_t kNone = 0xffffffff;
    if (!tree.has_value() || *tree == kNone || !runs.has_value() || *runs == 0) return false;
    tree_ = *tree;
    DecodeAt(table_.line_tables() + *runs, &calls_);
    return true;
  }

  // The inlined call `index` of the tree. It was made at an address of the function (before inlining), whose own place
  // in the tree tells the caller.
  uint32_t Node(int32_t index, int depth) {
    const auto [position, added] = nodes_.try_emplace(index, 0);
    if (!added) return position->second;  // also: leads back to itself
    if (depth >= kMaxInlineDepth || index > (1 << 20)) return 0;
    const bool with_start_line = table_.magic() == GoTable::kGo20;
    const uint64_t entry = tree_ + static_cast<uint64_t>(index) * (with_start_line ? 16 : 20);
    const auto name = DataNumber(entry + (with_start_line ? 4 : 12)),
               parent = DataNumber(entry + (with_start_line ? 8 : 16));
    if (!name.has_value() || !parent.has_value()) return 0;
    const uint64_t called_at = function_->start + *parent;
    uint32_t caller = 0, file = 0, line = 0;
    if (const Run* run = RunAt(calls_, called_at); run != nullptr && run->value >= 0)
      caller = Node(run->value, depth + 1);
    if (const Run* run = RunAt(files_, called_at)) file = File(run->value);
    if (const Run* run = RunAt(lines_, called_at); run != nullptr && run->value > 0)
      line = static_cast<uint32_t>(run->value);
    const uint32_t start_line = with_start_line ? DataNumber(entry + 12).value_or(0) : 0;
    const uint32_t node = places_.Inline(caller, places_.Function(table_.NameAt(*name), start_line), file, line);
    nodes_[index] = node;
    return node;
  }
  std::optional<uint32_t> DataNumber(uint64_t offset) const {
    if (offset > function_data_.size() || function_data_.size() - offset < sizeof(uint32_t)) return std::nullopt;
    uint32_t value;
    std::memcpy(&value, function_data_.data() + offset, sizeof(value));
    return value;
  }

  const GoTable& table_;
  const std::optional<uint64_t> function_data_address_;
  const std::string_view function_data_;  // from there to the end of its section
  PlaceBuilder& places_;
  uint64_t steps_left_;
  const GoTable::Function* function_ = nullptr;
  uint64_t tree_ = 0;
  std::vector<Run> files_, lines_, calls_;
  std::unordered_map<int32_t, uint32_t> file_ids_, nodes_;
};

// Where the runtime says that go.func.* begins: in its record of the module, which begins with the table's address. A
// program that is linked to run at any address has relocations in place of the words.
class ModuleData {
 public:
  ModuleData(const elf::ElfFile& file, const GoTable& table) : file_(file), table_(table) {}

  std::optional<uint64_t> FunctionDataAddress() {
    if (table_.word_bytes() != 8 || (table_.magic() != GoTable::kGo18 && table_.magic() != GoTable::kGo20)) return {};
    // Words of the record, from its start.
    constexpr uint64_t kText = 22;
    const uint64_t function_data = table_.magic() == GoTable::kGo20 ? 40 : 38;
    for (const elf::Section& section : file_.sections()) {
      if (section.type != SHT_RELA || (section.flags & SHF_ALLOC) == 0) continue;
      const auto relocations = file_.ReadRelocations(section, 4u << 20);
      if (!relocations.ok()) continue;
      for (const elf::RawRelocation& relocation : *relocations) {
        if (relocation.symbol == 0) relocated_[relocation.target.value] = static_cast<uint64_t>(relocation.addend);
      }
    }
    for (const auto& [place, value] : relocated_) {
      if (value == table_.address().value && Word(place + kText * 8) == table_.text_start()) {
        return Word(place + function_data * 8);
      }
    }
    for (const char* name : {".noptrdata", ".data", ".go.module", ".data.rel.ro"}) {
      const elf::Section* section = file_.FindSection(name);
      if (section == nullptr || !section->has_bytes()) continue;
      const StatusOr<std::string> bytes = file_.ReadSection(*section, kMaxModuleDataBytes);
      if (!bytes.ok()) continue;
      const auto word = [&](uint64_t at) {
        uint64_t value = 0;
        if (at + 8 <= bytes->size()) std::memcpy(&value, bytes->data() + at, 8);
        return value;
      };
      for (uint64_t at = 0; at + (function_data + 1) * 8 <= bytes->size(); at += 8) {
        if (word(at) == table_.address().value && word(at + kText * 8) == table_.text_start()) {
          return word(at + function_data * 8);
        }
      }
    }
    return std::nullopt;
  }

 private:
  uint64_t Word(uint64_t address) const {
    const auto found = relocated_.find(address);
    return found == relocated_.end() ? 0 : found->second;
  }

  const elf::ElfFile& file_;
  const GoTable& table_;
  std::unordered_map<uint64_t, uint64_t> relocated_;  // address -> what the loader puts there
};

}  // namespace

Status AddGoFunctions(const elf::ElfFile& file, SymbolIndexBuilder* builder, PlaceBuilder* places) {
  ASSIGN_OR_RETURN(const std::optional<GoTable> table, GoTable::Read(file));
  if (!table.has_value()) return OkStatus();
  std::optional<uint64_t> function_data_address;
  std::string function_data;
  if (places != nullptr) {
    function_data_address = ModuleData(file, *table).FunctionDataAddress();
    for (const elf::Section& section : file.sections()) {
      if (!function_data_address.has_value() || (section.flags & SHF_ALLOC) == 0 || !section.has_bytes() ||
          *function_data_address < section.address.value ||
          *function_data_address - section.address.value >= section.size) {
        continue;
      }
      StatusOr<std::string> bytes = file.ReadSection(section, kMaxGoTableBytes);
      if (bytes.ok()) function_data = bytes->substr(*function_data_address - section.address.value);
    }
  }
  std::optional<LineReader> lines;
  if (places != nullptr) lines.emplace(*table, function_data_address, function_data, places);
  for (uint64_t i = 0; i < table->functions(); ++i) {
    const std::optional<GoTable::Function> function = table->FunctionAt(i);
    if (!function.has_value()) return DataLossError(StrFormat("%s: its table of Go functions is corrupt", file.name()));
    if (function->end <= function->start) continue;
    const SymbolRank rank{.typed = true, .global = false, .exported = false};
    if (builder != nullptr &&
        !builder->Add(ElfAddress(function->start), function->end - function->start, rank, function->name)) {
      return ResourceExhaustedError(StrFormat("%s has more Go functions than the limit allows", file.name()));
    }
    if (lines.has_value() && !lines->Add(*function)) {
      return ResourceExhaustedError(StrFormat("%s has more Go lines than the limit allows", file.name()));
    }
  }
  return OkStatus();
}

}  // namespace pyrometer::symbolize

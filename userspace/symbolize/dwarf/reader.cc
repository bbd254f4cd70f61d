#include "userspace/symbolize/dwarf/reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::dwarf {
namespace {

// Honest files need 1.0-1.3 times their bytes (shared line programs and range lists are read more than once).
constexpr uint64_t kBudgetFactor = 8;
constexpr uint64_t kBudgetBase = 64u << 20;

uint32_t Number32(const Value& value) {
  return value.raw > std::numeric_limits<uint32_t>::max() ? 0 : static_cast<uint32_t>(value.raw);
}

uint64_t TotalBytes(const DebugSections& sections) {
  uint64_t total = 0;
  for (const Section* section : {&sections.info, &sections.types, &sections.abbrev, &sections.line, &sections.str,
                                 &sections.str_offsets, &sections.addr, &sections.ranges, &sections.rnglists}) {
    total += section->size();
  }
  return total;
}

}  // namespace

Reader::Reader(const DebugSections& sections, ReaderOptions options, symbolize::PlaceBuilder* places)
    : sections_(sections), options_(std::move(options)), places_(*places), main_(sections_, places) {
  main_.set_supplement([this] { return Supplement(); });
  budget_ = kBudgetBase + kBudgetFactor * TotalBytes(sections);
}

Reader::~Reader() = default;

void Reader::Problem(const Status& status) {
  if (status_.ok()) status_ = status;
}

bool Reader::WithinBudget() {
  if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) {
    Problem(CancelledError("asked to stop"));
    return false;
  }
  const uint64_t used = counters_.bytes + ranges_bytes_ + side_bytes_ + main_.side_bytes() +
                        (supplement_ != nullptr ? supplement_->side_bytes() : 0);
  if (used <= budget_ && places_.complete()) return true;
  Problem(ResourceExhaustedError(places_.complete() ? "debug information that refers to itself without end"
                                                    : "more debug information than the limit allows"));
  return false;
}

InfoFile* Reader::Supplement() {
  if (std::exchange(supplement_asked_, true)) return supplement_.get();
  if (!options_.find_supplement) return nullptr;
  StatusOr<SplitUnit> found = options_.find_supplement();
  if (!found.ok()) {
    Problem(found.status());
    return nullptr;
  }
  supplement_owner_ = found->owner;
  supplement_ = std::make_unique<InfoFile>(found->sections, &places_);
  budget_ += kBudgetFactor * TotalBytes(found->sections);
  if (const Status status = supplement_->ListUnits(); !status.ok()) Problem(status);
  return supplement_.get();
}

void Reader::Read() {
  if (const Status status = main_.ListUnits(); !status.ok()) Problem(status);
  if (main_.skipped_units() != 0) {
    Problem(UnimplementedError(StrFormat("%d units are of DWARF versions that are not read", main_.skipped_units())));
  }
  for (const UnitHeader& header : main_.units()) {
    if (!WithinBudget()) break;
    if (header.type == kUnitType || header.type == kUnitSplitType) continue;
    ReadUnit(main_, header);
  }
  if (const Status status = main_.ResolveNames(); !status.ok()) Problem(status);
  if (supplement_ != nullptr) {
    if (const Status status = supplement_->ResolveNames(); !status.ok()) Problem(status);
  }
}

void Reader::ReadUnit(InfoFile& file, const UnitHeader& header) {
  ++counters_.units;
  counters_.bytes += header.end - header.offset;
  const auto fail = [this](const Status& status) {
    ++counters_.failed_units;
    Problem(status);
  };
  has_lines_ = false;
  if (const Status status = file.OpenUnit(header, UnitSection::kInfo, &unit_buffer_, &unit_); !status.ok()) {
    return fail(status);
  }
  Cursor cursor(unit_.bytes, header.first_die - header.offset);
  const Abbrev* abbrev = unit_.abbrevs->Find(cursor.Uleb());
  UnitDie root;
  if (!cursor.ok()) return;  // a unit without entries
  if (abbrev == nullptr || !ReadDie(&cursor, *unit_.abbrevs, *abbrev, header.encoding, &root)) {
    return fail(DataLossError(StrFormat("the unit at offset %#x is corrupt", header.offset)));
  }

  UnitTables tables;
  tables.addresses = &file.addresses();
  tables.string_offsets = &file.string_offsets();
  tables.ranges = &file.ranges();
  tables.range_lists = &file.range_lists();
  if (root[kSlotStringOffsetsBase].present()) unit_.string_offsets_base = root[kSlotStringOffsetsBase].raw;
  tables.string_offsets_base = unit_.string_offsets_base;
  // Defaults: behind the header of the only table.
  const bool wide = header.encoding.offset_bytes == 8;
  tables.address_base = root[kSlotAddressBase].present() ? root[kSlotAddressBase].raw : wide ? 16 : 8;
  tables.range_lists_base = root[kSlotRangeListsBase].present() ? root[kSlotRangeListsBase].raw : wide ? 20 : 12;
  UnitValues values(header.encoding, tables);
  if (const std::optional<uint64_t> base = values.Address(root[kSlotLowPc])) values.set_base_address(*base);

  const std::string folder = file.Text(unit_, values, root[kSlotCompilationFolder]);
  if (root[kSlotStatementList].present()) {
    if (const Status status = ReadLines(file, root[kSlotStatementList].raw, header.encoding, folder); !status.ok()) {
      Problem(status);
    }
  }
  if (root[kSlotDwoName].present() && (header.type == kUnitSkeleton || root[kSlotGnuDwoId].present())) {
    tables.ranges_base = root[kSlotGnuRangesBase].raw;
    UnitHeader skeleton = header;
    if (header.type != kUnitSkeleton) skeleton.id = root[kSlotGnuDwoId].raw;
    const Status status =
        ReadSplitUnit(skeleton, tables, values.base_address(), folder, file.Text(unit_, values, root[kSlotDwoName]));
    if (!status.ok()) {
      ++counters_.missing_splits;
      Problem(status);
    }
    return;
  }
  if (!abbrev->has_children) return;
  if (const Status status = ReadEntries(unit_, values, cursor.at()); !status.ok()) fail(status);
}

Status Reader::ReadLines(InfoFile& file, uint64_t offset, const Encoding& encoding, const std::string& folder) {
  const LineSources sources{file.sections().line, &file.strings(), &file.line_strings()};
  RETURN_IF_ERROR(lines_.Open(sources, offset, encoding.address_bytes, folder));
  has_lines_ = true;
  counters_.bytes += lines_.bytes();
  // Units that dwz or LTO split share a program: its files are needed again, its rows are there.
  if (std::exchange(lines_read_[offset], 1) != 0) return OkStatus();
  return lines_.Run(&places_);
}

Status Reader::ReadSplitUnit(const UnitHeader& skeleton_header, const UnitTables& skeleton_tables,
                             uint64_t base_address, const std::string& folder, const std::string& name) {
  if (!options_.find_split) return NotFoundError(StrFormat("split debug information %s is not looked for", name));
  ASSIGN_OR_RETURN(const SplitUnit split, options_.find_split(skeleton_header.id, folder, name));
  InfoFile file(split.sections, &places_);
  file.set_supplement([this] { return Supplement(); });
  budget_ += kBudgetFactor * TotalBytes(split.sections);
  RETURN_IF_ERROR(file.ListUnits());
  bool found = false;
  for (const UnitHeader& header : file.units()) {
    if (header.type == kUnitType || header.type == kUnitSplitType) continue;
    Unit unit;
    RETURN_IF_ERROR(file.OpenUnit(header, UnitSection::kInfo, &split_buffer_, &unit));
    Cursor cursor(unit.bytes, header.first_die - header.offset);
    const Abbrev* abbrev = unit.abbrevs->Find(cursor.Uleb());
    UnitDie root;
    if (!cursor.ok() || abbrev == nullptr || !ReadDie(&cursor, *unit.abbrevs, *abbrev, header.encoding, &root)) {
      return DataLossError(StrFormat("%s is corrupt", name));
    }
    // A package's part, or a .dwo made by LTO, may hold other units, too.
    const uint64_t id = header.type == kUnitSplitCompile ? header.id : root[kSlotGnuDwoId].raw;
    if (id != skeleton_header.id) continue;
    found = true;
    counters_.bytes += header.end - header.offset;
    UnitTables tables = skeleton_tables;
    tables.string_offsets = &file.string_offsets();
    tables.string_offsets_base = unit.string_offsets_base;
    if (header.encoding.version >= 5) {
      tables.range_lists = &file.range_lists();
      tables.range_lists_base = header.encoding.offset_bytes == 8 ? 20 : 12;
    }
    UnitValues values(header.encoding, tables);
    values.set_base_address(base_address);
    if (abbrev->has_children) RETURN_IF_ERROR(ReadEntries(unit, values, cursor.at()));
  }
  side_bytes_ += file.side_bytes();
  ++counters_.split_units;
  RETURN_IF_ERROR(file.ResolveNames());
  return found ? OkStatus() : NotFoundError(StrFormat("%s does not hold the unit wanted", name));
}

Status Reader::ReadEntries(Unit& unit, const UnitValues& values, uint64_t from) {
  const AbbrevTable& abbrevs = *unit.abbrevs;
  const Encoding& encoding = unit.header.encoding;
  Cursor cursor(unit.bytes, from);
  levels_.clear();
  levels_.push_back({});
  open_functions_ = 0;
  size_t too_deep = 0;  // levels below kMaxDepth, passed over
  const auto corrupt = [&](uint64_t at) {
    // Functions still open keep what was read of them.
    while (open_functions_ > 0) EndFunction(open_functions_ - 1);
    return DataLossError(StrFormat("the unit at offset %#x is corrupt at its byte %d", unit.header.offset, at));
  };
  while (!cursor.done()) {
    const uint64_t at = cursor.at();
    const uint64_t code = cursor.Uleb();
    if (code == 0) {
      if (too_deep > 0) {
        --too_deep;
        continue;
      }
      if (levels_.back().opened) EndFunction(levels_.back().function);
      levels_.pop_back();
      if (levels_.empty()) return OkStatus();
      continue;
    }
    const Abbrev* abbrev = abbrevs.Find(code);
    if (abbrev == nullptr) return corrupt(at);
    Level level = levels_.back();
    level.opened = false;
    const bool function = abbrev->tag == kTagSubprogram;
    if (too_deep == 0 &&
        ((function && abbrev->has_addresses) || (abbrev->tag == kTagInlinedSubroutine && level.function >= 0))) {
      // Here and not only between units: the entries of one may all refer to the same long list of ranges.
      if (!WithinBudget()) {
        while (open_functions_ > 0) EndFunction(open_functions_ - 1);
        return status_;
      }
      Die die;
      if (!ReadDie(&cursor, abbrevs, *abbrev, encoding, &die)) return corrupt(at);
      if (!function) {
        AddInlined(unit, values, die, &level);
      } else if (BeginFunction(unit, values, die, &level) && !abbrev->has_children) {
        EndFunction(level.function);
      }
    } else {
      if (!abbrevs.Skip(*abbrev, encoding, &cursor)) return corrupt(at);
      // A declaration, or an abstract instance: its calls have no code.
      if (function) level.function = -1;
    }
    if (!abbrev->has_children) continue;
    if (levels_.size() < kMaxDepth) {
      levels_.push_back(level);
    } else {
      if (level.opened) EndFunction(level.function);
      ++too_deep;
    }
  }
  // Some producers leave the closing zeros of the last levels out.
  while (open_functions_ > 0) EndFunction(open_functions_ - 1);
  return OkStatus();
}

bool Reader::BeginFunction(Unit& unit, const UnitValues& values, const Die& die, Level* level) {
  level->function = -1;
  level->inlined = 0;
  level->inline_depth = 0;
  ranges_.clear();
  values.Ranges(die, kMaxRangesPerEntry, &ranges_);
  ranges_bytes_ += ranges_.size() * 2 * sizeof(uint32_t);
  std::erase_if(ranges_, [this](const AddressRange& range) { return !places_.IsCode(range.low); });
  if (ranges_.empty()) return false;  // discarded by the linker
  if (static_cast<size_t>(open_functions_) == functions_.size()) functions_.emplace_back();
  level->function = open_functions_++;
  level->opened = true;
  OpenFunction& open = functions_[static_cast<size_t>(level->function)];
  open.function = unit.file->FunctionOf(unit, die);
  open.own = ranges_;
  open.inlined.clear();
  ++counters_.functions;
  return true;
}

void Reader::AddInlined(Unit& unit, const UnitValues& values, const Die& die, Level* level) {
  if (level->inline_depth >= kMaxInlineDepth) return;
  ranges_.clear();
  values.Ranges(die, kMaxRangesPerEntry, &ranges_);
  ranges_bytes_ += ranges_.size() * 2 * sizeof(uint32_t);
  const uint32_t function =
      die.origin().present() ? unit.file->FunctionReferred(unit, die.origin()) : unit.file->FunctionOf(unit, die);
  const uint32_t call_file = has_lines_ && die.call_file().present() ? lines_.FileId(die.call_file().raw, &places_) : 0;
  level->inlined = places_.Inline(level->inlined, function, call_file, Number32(die.call_line()));
  ++level->inline_depth;
  ++counters_.inlined;
  OpenFunction& open = functions_[static_cast<size_t>(level->function)];
  if (open.inlined.size() + ranges_.size() > kMaxRangesPerFunction) {
    return Problem(ResourceExhaustedError("a function with more inlined code than the limit allows"));
  }
  for (const AddressRange& range : ranges_) open.inlined.push_back({range.low, range.high, level->inlined});
}

void Reader::EndFunction(int function) {
  OpenFunction& open = functions_[static_cast<size_t>(function)];
  places_.Scopes(open.function, open.own, open.inlined);
  open_functions_ = function;
}

}  // namespace pyrometer::dwarf

#include "userspace/symbolize/dwarf/info_file.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::dwarf {
namespace {

constexpr uint64_t kHeaderPieceBytes = 4096;
constexpr size_t kMaxFarUnits = 32;
// Bytes of an entry that is read alone: first guess, and the most (names are mostly elsewhere).
constexpr uint64_t kDieBytes = 512, kMaxDieBytes = 64u << 10;

uint64_t DefaultStringOffsetsBase(const Encoding& encoding) {
  if (encoding.version < 5) return 0;
  return encoding.offset_bytes == 8 ? 16 : 8;  // behind the table's header
}

}  // namespace

// One string of a file.
struct NameRef {
  InfoFile* file = nullptr;  // null: none, or `text`
  bool line_strings = false;
  uint64_t offset = 0;
  std::string text;
  bool present() const { return file != nullptr || !text.empty(); }
};

struct InfoFile::Found {
  NameRef linkage_name, name;
  uint64_t line = 0;
};

InfoFile::InfoFile(const DebugSections& sections, symbolize::PlaceBuilder* places)
    : sections_(sections),
      places_(*places),
      info_(sections.info),
      types_(sections.types),
      strings_(sections.str),
      line_strings_(sections.line_str, kHeaderPieceBytes),
      string_offsets_(sections.str_offsets),
      addresses_(sections.addr),
      ranges_(sections.ranges),
      range_lists_(sections.rnglists),
      abbrevs_(sections.abbrev) {}

Status InfoFile::ListUnits() {
  Window headers(sections_.info, kHeaderPieceBytes);
  for (uint64_t offset = 0; offset < sections_.info.size();) {
    UnitHeader header;
    const Status status = ReadUnitHeader(&headers, offset, UnitSection::kInfo, &header);
    if (!status.ok() && status.code() != StatusCode::kUnimplemented) return status;
    if (units_.size() >= kMaxUnits) return ResourceExhaustedError("debug information of too many units");
    if (status.ok()) {
      units_.push_back(header);
    } else {
      ++skipped_units_;
    }
    offset = header.end;
  }
  return OkStatus();
}

Status InfoFile::OpenUnit(const UnitHeader& header, UnitSection kind, std::string* buffer, Unit* unit) {
  const uint64_t bytes = header.end - header.offset;
  if (bytes > kMaxUnitBytes) {
    return ResourceExhaustedError(
        StrFormat("a unit of %s is more than the limit of %s", FormatBytes(bytes), FormatBytes(kMaxUnitBytes)));
  }
  const Section& section = kind == UnitSection::kInfo ? sections_.info : sections_.types;
  ASSIGN_OR_RETURN(unit->bytes, section.View(header.offset, bytes, buffer));
  ASSIGN_OR_RETURN(unit->abbrevs, abbrevs_.Get(header.abbrev_offset, header.encoding));
  unit->file = this;
  unit->header = header;
  unit->string_offsets_base = DefaultStringOffsetsBase(header.encoding);
  unit->functions.clear();
  return OkStatus();
}

std::string InfoFile::Text(const Unit& unit, const UnitValues& values, const Value& value) {
  switch (value.form) {
    case kFormString:
      return std::string(Cursor(unit.bytes, value.raw).String());
    case kFormStrp:
      return std::string(strings_.String(value.raw));
    case kFormLineStrp:
      return std::string(line_strings_.String(value.raw));
    case kFormGnuStrpAlt:
    case kFormStrpSup: {
      InfoFile* supplement = supplement_ ? supplement_() : nullptr;
      return supplement == nullptr ? std::string() : std::string(supplement->strings_.String(value.raw));
    }
    case kFormStrx:
    case kFormStrx1:
    case kFormStrx2:
    case kFormStrx3:
    case kFormStrx4:
    case kFormGnuStrIndex: {
      const std::optional<uint64_t> offset = values.StringOffset(value);
      return offset.has_value() ? std::string(strings_.String(*offset)) : std::string();
    }
    default:
      return {};
  }
}

void InfoFile::Look(const UnitHeader& header, uint64_t string_offsets_base, std::string_view unit_bytes, const Die& die,
                    Found* found) {
  const auto refer = [&](const Value& value) {
    NameRef ref;
    switch (value.form) {
      case kFormString: {
        Cursor cursor(unit_bytes, value.raw);
        ref.text = std::string(cursor.String());
        break;
      }
      case kFormStrp:
        ref = {this, false, value.raw, {}};
        break;
      case kFormLineStrp:
        ref = {this, true, value.raw, {}};
        break;
      case kFormGnuStrpAlt:
      case kFormStrpSup:
        ref = {supplement_ ? supplement_() : nullptr, false, value.raw, {}};
        break;
      case kFormStrx:
      case kFormStrx1:
      case kFormStrx2:
      case kFormStrx3:
      case kFormStrx4:
      case kFormGnuStrIndex: {
        UnitTables tables;
        tables.string_offsets = &string_offsets_;
        tables.string_offsets_base = string_offsets_base;
        const std::optional<uint64_t> offset = UnitValues(header.encoding, tables).StringOffset(value);
        if (offset.has_value()) ref = {this, false, *offset, {}};
        break;
      }
      default:
        break;
    }
    return ref;
  };
  if (die.linkage_name().present()) found->linkage_name = refer(die.linkage_name());
  if (!found->name.present() && die.name().present()) found->name = refer(die.name());
  if (found->line == 0) found->line = die.declaration_line().raw;
}

uint32_t InfoFile::Source(bool line_strings) {
  uint32_t& source = line_strings ? line_string_source_ : string_source_;
  if (source == 0) source = places_.NewNameSource();
  return source;
}

uint32_t InfoFile::Name(const Found& found) {
  const NameRef& ref = found.linkage_name.present() ? found.linkage_name : found.name;
  const uint32_t line = found.line > std::numeric_limits<uint32_t>::max() ? 0 : static_cast<uint32_t>(found.line);
  if (ref.file == nullptr) return ref.text.empty() ? 0 : places_.Function(ref.text, line);
  return places_.FunctionNamedLater(ref.file->Source(ref.line_strings), ref.offset, line);
}

Status InfoFile::ResolveNames() {
  Status status = OkStatus();
  if (string_source_ != 0) status = places_.ResolveNames(std::exchange(string_source_, 0), sections_.str);
  if (line_string_source_ != 0) {
    const Status second = places_.ResolveNames(std::exchange(line_string_source_, 0), sections_.line_str);
    if (status.ok()) status = second;
  }
  return status;
}

std::optional<InfoFile::Place> InfoFile::Target(const UnitHeader& header, UnitSection section, const Value& reference) {
  switch (reference.form) {
    case kFormRef1:
    case kFormRef2:
    case kFormRef4:
    case kFormRef8:
    case kFormRefUdata:
      if (reference.raw >= header.end - header.offset) return std::nullopt;
      return Place{this, section, header.offset + reference.raw};
    case kFormRefAddress:
      return Place{this, UnitSection::kInfo, reference.raw};
    case kFormGnuRefAlt:
    case kFormRefSup4:
    case kFormRefSup8: {
      InfoFile* supplement = supplement_ ? supplement_() : nullptr;
      if (supplement == nullptr) return std::nullopt;
      return Place{supplement, UnitSection::kInfo, reference.raw};
    }
    case kFormRefSig8: {
      if (!std::exchange(types_listed_, true)) {
        for (const UnitHeader& unit : units_) {
          if (unit.type != kUnitType && unit.type != kUnitSplitType) continue;
          types_by_signature_[unit.id] = {this, UnitSection::kInfo, unit.offset + unit.type_offset};
        }
        Window headers(sections_.types, kHeaderPieceBytes);
        for (uint64_t offset = 0; offset < sections_.types.size() && type_units_.size() < kMaxUnits;) {
          UnitHeader unit;
          if (!ReadUnitHeader(&headers, offset, UnitSection::kTypes, &unit).ok()) break;
          type_units_.push_back(unit);
          types_by_signature_[unit.id] = {this, UnitSection::kTypes, unit.offset + unit.type_offset};
          offset = unit.end;
        }
      }
      const auto found = types_by_signature_.find(reference.raw);
      return found == types_by_signature_.end() ? std::nullopt : std::optional<Place>(found->second);
    }
    default:
      return std::nullopt;
  }
}

uint32_t InfoFile::FunctionReferred(Unit& unit, const Value& reference) {
  const std::optional<Place> place = Target(unit.header, UnitSection::kInfo, reference);
  if (!place.has_value()) return 0;
  if (place->file == this && place->section == UnitSection::kInfo && place->offset >= unit.header.offset &&
      place->offset < unit.header.end) {
    return FunctionAt(unit, place->offset - unit.header.offset);
  }
  Found found;
  if (place->section != UnitSection::kInfo) return place->file->FollowFar(*place, 0, &found);
  // Another unit's or file's function is named by many.
  if (const uint32_t known = place->file->far_functions_[place->offset]; known != 0) return known - 1;
  const uint32_t function = place->file->FollowFar(*place, 0, &found);
  place->file->far_functions_[place->offset] = function + 1;
  return function;
}

uint32_t InfoFile::FunctionAt(Unit& unit, uint64_t offset) {
  if (const uint32_t known = unit.functions[offset]; known != 0) return known - 1;
  Cursor cursor(unit.bytes, offset);
  const Abbrev* abbrev = unit.abbrevs->Find(cursor.Uleb());
  Die die;
  uint32_t function = 0;
  if (cursor.ok() && abbrev != nullptr && ReadDie(&cursor, *unit.abbrevs, *abbrev, unit.header.encoding, &die)) {
    function = FunctionOf(unit, die);
  }
  unit.functions[offset] = function + 1;
  return function;
}

uint32_t InfoFile::FunctionOf(Unit& unit, const Die& first) {
  Found found;
  Die die = first;
  for (int step = 0; step < kMaxChain; ++step) {
    Look(unit.header, unit.string_offsets_base, unit.bytes, die, &found);
    const Value& next = die.refers_to();
    if (found.linkage_name.present() || !next.present()) break;
    const std::optional<Place> place = Target(unit.header, UnitSection::kInfo, next);
    if (!place.has_value()) break;
    if (place->file != this || place->section != UnitSection::kInfo || place->offset < unit.header.offset ||
        place->offset >= unit.header.end) {
      return place->file->FollowFar(*place, step + 1, &found);
    }
    Cursor cursor(unit.bytes, place->offset - unit.header.offset);
    const Abbrev* abbrev = unit.abbrevs->Find(cursor.Uleb());
    die = Die();
    if (!cursor.ok() || abbrev == nullptr || !ReadDie(&cursor, *unit.abbrevs, *abbrev, unit.header.encoding, &die)) {
      break;
    }
  }
  return Name(found);
}

const UnitHeader* InfoFile::UnitAround(UnitSection section, uint64_t offset) {
  const std::vector<UnitHeader>& units = section == UnitSection::kInfo ? units_ : type_units_;
  const auto after = std::upper_bound(units.begin(), units.end(), offset,
                                      [](uint64_t wanted, const UnitHeader& unit) { return wanted < unit.offset; });
  if (after == units.begin()) return nullptr;
  const UnitHeader& unit = *std::prev(after);
  return offset >= unit.first_die && offset < unit.end ? &unit : nullptr;
}

// `bytes` gets what the entry's strings are offsets into.
template <typename AnyDie>
bool InfoFile::ReadFar(const FarUnit* unit, UnitSection section, uint64_t offset, AnyDie* die, std::string* bytes) {
  Window& window = section == UnitSection::kInfo ? info_ : types_;
  for (const uint64_t wanted : {kDieBytes, kMaxDieBytes}) {
    const std::string_view view =
        window.At(offset, std::min(wanted, unit->header.end - offset)).substr(0, unit->header.end - offset);
    side_bytes_ += kDieBytes / 8;
    Cursor cursor(view);
    const Abbrev* abbrev = unit->abbrevs->Find(cursor.Uleb());
    if (abbrev == nullptr) return false;
    *die = AnyDie();
    if (!ReadDie(&cursor, *unit->abbrevs, *abbrev, unit->header.encoding, die)) continue;
    if (bytes != nullptr &&
        (die->values[kSlotName].form == kFormString || die->values[kSlotLinkageName].form == kFormString)) {
      *bytes = std::string(view.substr(0, cursor.at()));
    }
    return true;
  }
  return false;
}

InfoFile::FarUnit* InfoFile::OpenFarUnit(UnitSection section, uint64_t offset) {
  for (size_t i = 0; i < far_units_.size(); ++i) {
    const UnitHeader& header = far_units_[i].second.header;
    if (far_units_[i].first != section || offset < header.first_die || offset >= header.end) continue;
    std::rotate(far_units_.begin(), far_units_.begin() + static_cast<ptrdiff_t>(i),
                far_units_.begin() + static_cast<ptrdiff_t>(i) + 1);
    return &far_units_.front().second;
  }
  const UnitHeader* header = UnitAround(section, offset);
  if (header == nullptr) return nullptr;
  FarUnit unit;
  unit.header = *header;
  StatusOr<std::shared_ptr<const AbbrevTable>> abbrevs = abbrevs_.Get(header->abbrev_offset, header->encoding);
  if (!abbrevs.ok()) return nullptr;
  unit.abbrevs = *std::move(abbrevs);
  unit.string_offsets_base = DefaultStringOffsetsBase(header->encoding);
  UnitDie root;
  if (ReadFar(&unit, section, header->first_die, &root, nullptr) && root[kSlotStringOffsetsBase].present()) {
    unit.string_offsets_base = root[kSlotStringOffsetsBase].raw;
  }
  if (far_units_.size() >= kMaxFarUnits) far_units_.pop_back();
  far_units_.insert(far_units_.begin(), {section, std::move(unit)});
  return &far_units_.front().second;
}

uint32_t InfoFile::FollowFar(Place place, int steps, Found* found) {
  while (steps++ < kMaxChain) {
    if (place.file != this) return place.file->FollowFar(place, steps, found);
    FarUnit* unit = OpenFarUnit(place.section, place.offset);
    Die die;
    std::string bytes;
    if (unit == nullptr || !ReadFar(unit, place.section, place.offset, &die, &bytes)) break;
    Look(unit->header, unit->string_offsets_base, bytes, die, found);
    const Value& next = die.refers_to();
    if (found->linkage_name.present() || !next.present()) break;
    const std::optional<Place> target = Target(unit->header, place.section, next);
    if (!target.has_value()) break;
    place = *target;
  }
  return Name(*found);
}

}  // namespace pyrometer::dwarf

#include "userspace/symbolize/dwarf/unit.h"

#include <limits>

#include "userspace/base/strings.h"

namespace pyrometer::dwarf {
namespace {

constexpr uint64_t kMaxHeaderBytes = 64;
constexpr uint32_t kDwarf64Mark = 0xffffffff;

}  // namespace

Status ReadUnitHeader(Window* section, uint64_t offset, UnitSection kind, UnitHeader* header) {
  *header = UnitHeader();
  header->offset = offset;
  Cursor cursor(section->At(offset, kMaxHeaderBytes));
  const auto malformed = [&] {
    RETURN_IF_ERROR(section->status());
    return DataLossError(StrFormat("the header of the unit at offset %#x is corrupt", offset));
  };
  uint64_t length = cursor.U32();
  if (length == kDwarf64Mark) {
    header->encoding.offset_bytes = 8;
    length = cursor.U64();
  }
  if (!cursor.ok() || length > section->section().size() - offset - cursor.at() || length == 0) return malformed();
  header->end = offset + cursor.at() + length;
  Encoding& encoding = header->encoding;
  encoding.version = cursor.U16();
  if (cursor.ok() && (encoding.version < 2 || encoding.version > 5)) {
    return UnimplementedError(StrFormat("DWARF version %d", encoding.version));
  }
  if (encoding.version >= 5) {
    header->type = cursor.U8();
    encoding.address_bytes = cursor.U8();
    header->abbrev_offset = cursor.Unsigned(encoding.offset_bytes);
    if (header->type == kUnitSkeleton || header->type == kUnitSplitCompile) header->id = cursor.U64();
  } else {
    header->type = kind == UnitSection::kTypes ? kUnitType : kUnitCompile;
    header->abbrev_offset = cursor.Unsigned(encoding.offset_bytes);
    encoding.address_bytes = cursor.U8();
  }
  if (header->type == kUnitType || header->type == kUnitSplitType) {
    header->id = cursor.U64();
    header->type_offset = cursor.Unsigned(encoding.offset_bytes);
  }
  header->first_die = offset + cursor.at();
  const bool sane_address = encoding.address_bytes == 4 || encoding.address_bytes == 8 || encoding.address_bytes == 2;
  if (!cursor.ok() || header->first_die > header->end || !sane_address) return malformed();
  return OkStatus();
}

Value ReadValue(Cursor* cursor, uint16_t form, int64_t implicit, const Encoding& encoding) {
  Value value{0, form};
  switch (form) {
    case kFormImplicitConst:
      value.raw = static_cast<uint64_t>(implicit);
      return value;
    case kFormSdata:
      value.raw = static_cast<uint64_t>(cursor->Sleb());
      break;
    case kFormUdata:
    case kFormRefUdata:
    case kFormStrx:
    case kFormAddrx:
    case kFormLoclistx:
    case kFormRnglistx:
    case kFormGnuAddrIndex:
    case kFormGnuStrIndex:
      value.raw = cursor->Uleb();
      break;
    case kFormString:
      value.raw = cursor->at();
      (void)cursor->String();
      break;
    case kFormFlagPresent:
      value.raw = 1;
      return value;
    case kFormData16:
      cursor->Skip(16);
      break;
    case kFormIndirect: {
      const uint64_t actual = cursor->Uleb();
      if (actual == kFormIndirect || actual == kFormImplicitConst || actual > std::numeric_limits<uint16_t>::max()) {
        cursor->Fail();
        return {};
      }
      return ReadValue(cursor, static_cast<uint16_t>(actual), 0, encoding);
    }
    default: {
      const uint32_t bytes = FixedBytes(form, encoding);
      if (bytes == Abbrev::kVariable) {  // blocks and expressions
        if (!SkipForm(form, encoding, cursor)) cursor->Fail();
      } else {
        value.raw = cursor->Unsigned(bytes);
      }
    }
  }
  if (!cursor->ok()) return {};
  return value;
}

namespace {

bool ReadSlots(Cursor* cursor, const AbbrevTable& table, const Abbrev& abbrev, const Encoding& encoding, unsigned slots,
               Value* values) {
  const AttributeSpec* spec = table.specs(abbrev);
  for (const AttributeSpec* end = spec + abbrev.spec_count; spec != end; ++spec) {
    const bool fixed = spec->fixed_bytes != Abbrev::kVariable;
    if (spec->slot >= slots) {
      if (fixed) {
        cursor->Skip(spec->fixed_bytes);
      } else if (!SkipForm(spec->form, encoding, cursor)) {
        return false;
      }
    } else if (fixed && spec->fixed_bytes - 1 < sizeof(uint64_t)) {
      values[spec->slot] = {cursor->Unsigned(spec->fixed_bytes), spec->form};
    } else {
      values[spec->slot] = ReadValue(cursor, spec->form, spec->implicit, encoding);
      if (!values[spec->slot].present()) return false;
    }
  }
  return cursor->ok();
}

}  // namespace

bool ReadDie(Cursor* cursor, const AbbrevTable& table, const Abbrev& abbrev, const Encoding& encoding, Die* die) {
  return ReadSlots(cursor, table, abbrev, encoding, kEntrySlots, die->values);
}

bool ReadDie(Cursor* cursor, const AbbrevTable& table, const Abbrev& abbrev, const Encoding& encoding, UnitDie* die) {
  return ReadSlots(cursor, table, abbrev, encoding, kUnitSlots, die->values);
}

std::optional<uint64_t> UnitValues::AddressAt(uint64_t index) const {
  uint64_t address = 0;
  if (tables_.addresses == nullptr || index > std::numeric_limits<uint32_t>::max() ||
      !tables_.addresses->Number(tables_.address_base + index * encoding_.address_bytes, encoding_.address_bytes,
                                 &address)) {
    return std::nullopt;
  }
  return address;
}

std::optional<uint64_t> UnitValues::Address(const Value& value) const {
  switch (value.form) {
    case kFormAddress:
      return value.raw;
    case kFormAddrx:
    case kFormAddrx1:
    case kFormAddrx2:
    case kFormAddrx3:
    case kFormAddrx4:
    case kFormGnuAddrIndex:
      return AddressAt(value.raw);
    default:
      return std::nullopt;
  }
}

std::optional<uint64_t> UnitValues::StringOffset(const Value& value) const {
  uint64_t offset = 0;
  if (tables_.string_offsets == nullptr || value.raw > std::numeric_limits<uint32_t>::max() ||
      !tables_.string_offsets->Number(tables_.string_offsets_base + value.raw * encoding_.offset_bytes,
                                      encoding_.offset_bytes, &offset)) {
    return std::nullopt;
  }
  return offset;
}

void UnitValues::Ranges(const Die& die, size_t max_ranges, std::vector<AddressRange>* ranges) const {
  if (die.low_pc().present() && die.high_pc().present()) {
    const std::optional<uint64_t> low = Address(die.low_pc());
    if (!low.has_value()) return;
    // An address, or since version 4 mostly a distance.
    const std::optional<uint64_t> address = Address(die.high_pc());
    const uint64_t high = address.has_value() ? *address : *low + die.high_pc().raw;
    if (high > *low) ranges->push_back({*low, high});
    return;
  }
  if (!die.ranges().present()) return;
  if (encoding_.version < 5) {
    OldRangeList(die.ranges().raw + tables_.ranges_base, max_ranges, ranges);
    return;
  }
  if (die.ranges().form != kFormRnglistx) {
    RangeList(die.ranges().raw, max_ranges, ranges);
    return;
  }
  uint64_t offset = 0;
  if (tables_.range_lists == nullptr || die.ranges().raw > std::numeric_limits<uint32_t>::max() ||
      !tables_.range_lists->Number(tables_.range_lists_base + die.ranges().raw * encoding_.offset_bytes,
                                   encoding_.offset_bytes, &offset)) {
    return;
  }
  RangeList(tables_.range_lists_base + offset, max_ranges, ranges);
}

void UnitValues::OldRangeList(uint64_t offset, size_t max_ranges, std::vector<AddressRange>* ranges) const {
  if (tables_.ranges == nullptr) return;
  const unsigned bytes = encoding_.address_bytes;
  const uint64_t largest = bytes == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * bytes)) - 1;
  uint64_t base = base_address_;
  const size_t limit = ranges->size() + max_ranges;
  while (ranges->size() < limit) {
    uint64_t low = 0, high = 0;
    if (!tables_.ranges->Number(offset, bytes, &low) || !tables_.ranges->Number(offset + bytes, bytes, &high)) return;
    offset += 2 * bytes;
    if (low == 0 && high == 0) return;
    if (low == largest) {
      base = high;
    } else if (high > low) {
      ranges->push_back({base + low, base + high});
    }
  }
}

void UnitValues::RangeList(uint64_t offset, size_t max_ranges, std::vector<AddressRange>* ranges) const {
  if (tables_.range_lists == nullptr) return;
  // An entry has at most a byte and two numbers of ten.
  constexpr uint64_t kMaxEntryBytes = 21;
  uint64_t base = base_address_;
  const size_t limit = ranges->size() + max_ranges;
  std::string_view view;
  uint64_t view_at = 0;  // what was taken of `view`
  while (ranges->size() < limit) {
    if (view.size() - view_at < kMaxEntryBytes) {
      offset += view_at;
      view = tables_.range_lists->At(offset, 4 * kMaxEntryBytes);
      view_at = 0;
    }
    Cursor cursor(view, view_at);
    const uint8_t kind = cursor.U8();
    if (!cursor.ok()) return;
    std::optional<uint64_t> low, high;
    switch (kind) {
      case kRangeEnd:
        return;
      case kRangeBaseAddressx:
        base = AddressAt(cursor.Uleb()).value_or(base);
        break;
      case kRangeStartxEndx:
        low = AddressAt(cursor.Uleb());
        high = AddressAt(cursor.Uleb());
        break;
      case kRangeStartxLength:
        low = AddressAt(cursor.Uleb());
        if (const uint64_t length = cursor.Uleb(); low.has_value()) high = *low + length;
        break;
      case kRangeOffsetPair:
        low = base + cursor.Uleb();
        high = base + cursor.Uleb();
        break;
      case kRangeBaseAddress:
        base = cursor.Unsigned(encoding_.address_bytes);
        break;
      case kRangeStartEnd:
        low = cursor.Unsigned(encoding_.address_bytes);
        high = cursor.Unsigned(encoding_.address_bytes);
        break;
      case kRangeStartLength:
        low = cursor.Unsigned(encoding_.address_bytes);
        high = *low + cursor.Uleb();
        break;
      default:
        return;
    }
    if (!cursor.ok()) return;
    view_at = cursor.at();
    if (low.has_value() && high.has_value() && *high > *low) ranges->push_back({*low, *high});
  }
}

}  // namespace pyrometer::dwarf

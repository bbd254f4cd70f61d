#include "userspace/symbolize/dwarf/abbrev.h"

#include <algorithm>
#include <limits>

#include "userspace/base/strings.h"

namespace pyrometer::dwarf {
namespace {

// First guess of a table's size; GCC's have 3-30 KiB.
constexpr uint64_t kFirstPieceBytes = 64u << 10;

Slot SlotOf(uint64_t attribute) {
  switch (attribute) {
    case kAtName:
      return kSlotName;
    case kAtLinkageName:
    case kAtMipsLinkageName:
      return kSlotLinkageName;
    case kAtAbstractOrigin:
      return kSlotOrigin;
    case kAtSpecification:
      return kSlotSpecification;
    case kAtLowPc:
      return kSlotLowPc;
    case kAtHighPc:
      return kSlotHighPc;
    case kAtRanges:
      return kSlotRanges;
    case kAtCallFile:
      return kSlotCallFile;
    case kAtCallLine:
      return kSlotCallLine;
    case kAtDeclarationLine:
      return kSlotDeclarationLine;
    case kAtStatementList:
      return kSlotStatementList;
    case kAtCompilationFolder:
      return kSlotCompilationFolder;
    case kAtStringOffsetsBase:
      return kSlotStringOffsetsBase;
    case kAtAddressBase:
    case kAtGnuAddressBase:
      return kSlotAddressBase;
    case kAtRangeListsBase:
      return kSlotRangeListsBase;
    case kAtDwoName:
    case kAtGnuDwoName:
      return kSlotDwoName;
    case kAtGnuDwoId:
      return kSlotGnuDwoId;
    case kAtGnuRangesBase:
      return kSlotGnuRangesBase;
    default:
      return kNoSlot;
  }
}

SkipStep::Kind KindOf(uint16_t form) {
  switch (form) {
    case kFormSdata:
    case kFormUdata:
    case kFormRefUdata:
    case kFormStrx:
    case kFormAddrx:
    case kFormLoclistx:
    case kFormRnglistx:
    case kFormGnuAddrIndex:
    case kFormGnuStrIndex:
      return SkipStep::kLeb;
    case kFormBlock1:
      return SkipStep::kBlock1;
    case kFormBlock2:
      return SkipStep::kBlock2;
    case kFormBlock4:
      return SkipStep::kBlock4;
    case kFormBlock:
    case kFormExpression:
      return SkipStep::kBlockLeb;
    case kFormString:
      return SkipStep::kString;
    case kFormIndirect:
      return SkipStep::kIndirect;
    default:
      return SkipStep::kNothing;
  }
}

bool SkipKind(SkipStep::Kind kind, const Encoding& encoding, Cursor* cursor) {
  switch (kind) {
    case SkipStep::kNothing:
      break;
    case SkipStep::kLeb:
      cursor->SkipLeb();
      break;
    case SkipStep::kBlock1:
      cursor->Skip(cursor->U8());
      break;
    case SkipStep::kBlock2:
      cursor->Skip(cursor->U16());
      break;
    case SkipStep::kBlock4:
      cursor->Skip(cursor->U32());
      break;
    case SkipStep::kBlockLeb:
      cursor->Skip(cursor->Uleb());
      break;
    case SkipStep::kString:
      (void)cursor->String();
      break;
    case SkipStep::kIndirect: {
      const uint64_t form = cursor->Uleb();
      // An indirect form that names itself would never end.
      if (form == kFormIndirect || form == kFormImplicitConst || form > std::numeric_limits<uint16_t>::max() ||
          !SkipForm(static_cast<uint16_t>(form), encoding, cursor)) {
        cursor->Fail();
      }
      break;
    }
  }
  return cursor->ok();
}

}  // namespace

uint32_t FixedBytes(uint16_t form, const Encoding& encoding) {
  switch (form) {
    case kFormFlagPresent:
    case kFormImplicitConst:
      return 0;
    case kFormData1:
    case kFormFlag:
    case kFormRef1:
    case kFormStrx1:
    case kFormAddrx1:
      return 1;
    case kFormData2:
    case kFormRef2:
    case kFormStrx2:
    case kFormAddrx2:
      return 2;
    case kFormStrx3:
    case kFormAddrx3:
      return 3;
    case kFormData4:
    case kFormRef4:
    case kFormRefSup4:
    case kFormStrx4:
    case kFormAddrx4:
      return 4;
    case kFormData8:
    case kFormRef8:
    case kFormRefSig8:
    case kFormRefSup8:
      return 8;
    case kFormData16:
      return 16;
    case kFormAddress:
      return encoding.address_bytes;
    case kFormRefAddress:
      return encoding.version <= 2 ? encoding.address_bytes : encoding.offset_bytes;
    case kFormStrp:
    case kFormSectionOffset:
    case kFormStrpSup:
    case kFormLineStrp:
    case kFormGnuRefAlt:
    case kFormGnuStrpAlt:
      return encoding.offset_bytes;
    default:
      return Abbrev::kVariable;
  }
}

bool SkipForm(uint16_t form, const Encoding& encoding, Cursor* cursor) {
  if (const uint32_t bytes = FixedBytes(form, encoding); bytes != Abbrev::kVariable) {
    cursor->Skip(bytes);
    return cursor->ok();
  }
  const SkipStep::Kind kind = KindOf(form);
  return kind != SkipStep::kNothing && SkipKind(kind, encoding, cursor);
}

StatusOr<std::unique_ptr<AbbrevTable>> AbbrevTable::Parse(std::string_view bytes, const Encoding& encoding) {
  auto table = std::make_unique<AbbrevTable>();
  Cursor cursor(bytes);
  while (true) {
    Abbrev abbrev;
    abbrev.code = cursor.Uleb();
    if (!cursor.ok()) return DataLossError("an abbreviation table has no end");
    if (abbrev.code == 0) break;
    const uint64_t tag = cursor.Uleb();
    abbrev.tag = tag > std::numeric_limits<uint16_t>::max() ? 0 : static_cast<uint16_t>(tag);
    abbrev.has_children = cursor.U8() != 0;
    abbrev.first_spec = static_cast<uint32_t>(table->specs_.size());
    while (true) {
      const uint64_t attribute = cursor.Uleb(), form = cursor.Uleb();
      const int64_t implicit = form == kFormImplicitConst ? cursor.Sleb() : 0;
      if (!cursor.ok()) return DataLossError("an abbreviation table has no end");
      if (attribute == 0 && form == 0) break;
      if (form > std::numeric_limits<uint16_t>::max()) return DataLossError(StrFormat("unknown DWARF form %d", form));
      if (table->specs_.size() >= kMaxSpecs) {
        return ResourceExhaustedError(StrFormat("an abbreviation table has more than %d attributes", kMaxSpecs));
      }
      table->specs_.push_back({implicit, FixedBytes(static_cast<uint16_t>(form), encoding), static_cast<uint16_t>(form),
                               SlotOf(attribute)});
      abbrev.has_addresses = abbrev.has_addresses || attribute == kAtLowPc || attribute == kAtRanges;
    }
    abbrev.spec_count = static_cast<uint32_t>(table->specs_.size()) - abbrev.first_spec;
    if (table->abbrevs_.size() >= kMaxSpecs)
      return ResourceExhaustedError("an abbreviation table has too many entries");
    table->CompileSkip(&abbrev);
    table->dense_ = table->dense_ && abbrev.code == table->abbrevs_.size() + 1;
    table->abbrevs_.push_back(abbrev);
  }
  if (!table->dense_) {
    std::stable_sort(table->abbrevs_.begin(), table->abbrevs_.end(),
                     [](const Abbrev& a, const Abbrev& b) { return a.code < b.code; });
  }
  table->parsed_bytes_ = cursor.at();
  return table;
}

void AbbrevTable::CompileSkip(Abbrev* abbrev) {
  abbrev->first_step = static_cast<uint32_t>(steps_.size());
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < abbrev->spec_count; ++i) {
    const uint16_t form = specs_[abbrev->first_spec + i].form;
    const uint32_t fixed = specs_[abbrev->first_spec + i].fixed_bytes;
    if (fixed != Abbrev::kVariable) {
      bytes += fixed;  // at most 2^20 attributes of 16 bytes
      continue;
    }
    // An unknown form becomes an indirect step, which fails when it is reached: entries of other abbreviations
    // stay readable until then.
    const SkipStep::Kind kind = KindOf(form);
    steps_.push_back({static_cast<uint32_t>(bytes), kind == SkipStep::kNothing ? SkipStep::kIndirect : kind});
    if (kind == SkipStep::kNothing) steps_.back().bytes = std::numeric_limits<uint32_t>::max();
    bytes = 0;
  }
  abbrev->step_count = static_cast<uint32_t>(steps_.size()) - abbrev->first_step;
  abbrev->fixed_bytes = static_cast<uint32_t>(bytes);
  if (abbrev->step_count == 0) return;
  abbrev->fixed_bytes = Abbrev::kVariable;
  if (bytes != 0) {
    steps_.push_back({static_cast<uint32_t>(bytes), SkipStep::kNothing});
    ++abbrev->step_count;
  }
}

bool AbbrevTable::SkipSteps(const Abbrev& abbrev, const Encoding& encoding, Cursor* cursor) const {
  const SkipStep* step = steps_.data() + abbrev.first_step;
  for (const SkipStep* end = step + abbrev.step_count; step != end; ++step) {
    cursor->Skip(step->bytes);
    switch (step->kind) {
      case SkipStep::kNothing:
        break;
      case SkipStep::kLeb:
        cursor->SkipLeb();
        break;
      case SkipStep::kBlockLeb:
        cursor->Skip(cursor->Uleb());
        break;
      default:
        SkipKind(step->kind, encoding, cursor);
    }
  }
  return cursor->ok();
}

const Abbrev* AbbrevTable::FindSparse(uint64_t code) const {
  const auto found = std::lower_bound(abbrevs_.begin(), abbrevs_.end(), code,
                                      [](const Abbrev& abbrev, uint64_t wanted) { return abbrev.code < wanted; });
  return found != abbrevs_.end() && found->code == code ? &*found : nullptr;
}

StatusOr<std::shared_ptr<const AbbrevTable>> AbbrevTables::Get(uint64_t offset, const Encoding& encoding) {
  for (size_t i = 0; i < kept_.size(); ++i) {
    if (kept_[i].offset != offset || !(kept_[i].encoding == encoding)) continue;
    std::rotate(kept_.begin(), kept_.begin() + static_cast<ptrdiff_t>(i),
                kept_.begin() + static_cast<ptrdiff_t>(i) + 1);
    return kept_.front().table;
  }
  if (offset >= section_.size()) return DataLossError("a unit's abbreviations lie past the end of their section");
  uint64_t bytes = std::min(kFirstPieceBytes, section_.size() - offset);
  while (true) {
    ASSIGN_OR_RETURN(const std::string_view view, section_.View(offset, bytes, &buffer_));
    StatusOr<std::unique_ptr<AbbrevTable>> table = AbbrevTable::Parse(view, encoding);
    if (table.ok()) {
      parsed_bytes_ += (*table)->parsed_bytes();
      size_t specs = (*table)->spec_count();
      for (const Kept& kept : kept_) specs += kept.table->spec_count();
      while (!kept_.empty() && (kept_.size() >= kMaxKept || specs > kMaxKeptSpecs)) {
        specs -= kept_.back().table->spec_count();
        kept_.pop_back();
      }
      kept_.insert(kept_.begin(), Kept{offset, encoding, std::shared_ptr<const AbbrevTable>(*std::move(table))});
      return kept_.front().table;
    }
    parsed_bytes_ += bytes;
    const uint64_t more = std::min(bytes * 8, section_.size() - offset);
    if (table.status().code() != StatusCode::kDataLoss || more == bytes) return table.status();
    bytes = more;
  }
}

}  // namespace pyrometer::dwarf

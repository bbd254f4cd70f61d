// Abbreviation tables: which attributes, in which forms, the entries (DIEs) of a unit have.
//
//   ASSIGN_OR_RETURN(const AbbrevTable* table, tables.Get(header));
//   const Abbrev* abbrev = table->Find(cursor.Uleb());
//
// Nine of ten entries are types, variables and parameters, which nobody here wants. So for each abbreviation
// the way past its entries is worked out once: a number of bytes for most, a short list of steps for
// the others. Passing over an entry costs ~5 ns that way.
//
// Threads: none shared. Cost: ~40 ns and 16 bytes per attribute of a table; the last tables are kept,
// kMaxKept of them and at most kMaxKeptSpecs attributes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/constants.h"
#include "userspace/symbolize/dwarf/cursor.h"
#include "userspace/symbolize/dwarf/section.h"

namespace pyrometer::dwarf {

// What a unit's header says of the sizes in it.
struct Encoding {
  uint16_t version = 0;
  uint8_t address_bytes = 8;
  uint8_t offset_bytes = 4;  // 8 in 64-bit DWARF
  bool operator==(const Encoding&) const = default;
};

// The attributes that somebody here wants, by the place of their value in a Die (unit.h).
enum Slot : uint8_t {
  kSlotName,
  kSlotLinkageName,
  kSlotOrigin,
  kSlotSpecification,
  kSlotLowPc,
  kSlotHighPc,
  kSlotRanges,
  kSlotCallFile,
  kSlotCallLine,
  kSlotDeclarationLine,
  kEntrySlots,  // those behind are of units' first entries
  kSlotStatementList = kEntrySlots,
  kSlotCompilationFolder,
  kSlotStringOffsetsBase,
  kSlotAddressBase,
  kSlotRangeListsBase,
  kSlotDwoName,
  kSlotGnuDwoId,
  kSlotGnuRangesBase,
  kUnitSlots,
  kNoSlot = 255,
};

struct AttributeSpec {
  int64_t implicit;      // value of kFormImplicitConst
  uint32_t fixed_bytes;  // of a value; Abbrev::kVariable: see the form
  uint16_t form;
  Slot slot;
};

// One stretch of an entry: some bytes, then something whose size only its bytes tell.
struct SkipStep {
  enum Kind : uint8_t { kNothing, kLeb, kBlock1, kBlock2, kBlock4, kBlockLeb, kString, kIndirect };
  uint32_t bytes = 0;
  Kind kind = kNothing;
};

struct Abbrev {
  static constexpr uint32_t kVariable = ~uint32_t{0};
  uint64_t code = 0;
  uint32_t fixed_bytes = 0;  // of an entry's attributes; kVariable: see the steps
  uint16_t tag = 0;
  bool has_children = false;
  bool has_addresses = false;  // low_pc or ranges
  uint32_t first_spec = 0, spec_count = 0;
  uint32_t first_step = 0, step_count = 0;
};

class AbbrevTable {
 public:
  // DATA_LOSS when malformed; RESOURCE_EXHAUSTED beyond kMaxSpecs.
  static StatusOr<std::unique_ptr<AbbrevTable>> Parse(std::string_view bytes, const Encoding& encoding);

  // nullptr: no such code.
  const Abbrev* Find(uint64_t code) const {
    if (code - 1 < abbrevs_.size() && dense_) [[likely]]
      return &abbrevs_[code - 1];
    return dense_ ? nullptr : FindSparse(code);
  }
  const AttributeSpec* specs(const Abbrev& abbrev) const { return specs_.data() + abbrev.first_spec; }
  // Moves past the attributes of an entry. False past the end.
  bool Skip(const Abbrev& abbrev, const Encoding& encoding, Cursor* cursor) const {
    if (abbrev.fixed_bytes != Abbrev::kVariable) [[likely]] {
      cursor->Skip(abbrev.fixed_bytes);
      return cursor->ok();
    }
    return SkipSteps(abbrev, encoding, cursor);
  }

  size_t spec_count() const { return specs_.size(); }
  // Bytes of the section that it took.
  uint64_t parsed_bytes() const { return parsed_bytes_; }

  // Attributes of one table [libwebkit's largest: 9,000].
  static constexpr size_t kMaxSpecs = 1u << 20;

 private:
  const Abbrev* FindSparse(uint64_t code) const;
  bool SkipSteps(const Abbrev& abbrev, const Encoding& encoding, Cursor* cursor) const;
  void CompileSkip(Abbrev* abbrev);

  std::vector<Abbrev> abbrevs_;  // by code
  std::vector<AttributeSpec> specs_;
  std::vector<SkipStep> steps_;
  bool dense_ = true;  // codes are 1, 2, 3 …
  uint64_t parsed_bytes_ = 0;
};

// The tables of one .debug_abbrev, parsed at first use.
class AbbrevTables {
 public:
  explicit AbbrevTables(Section section) : section_(section) {}

  StatusOr<std::shared_ptr<const AbbrevTable>> Get(uint64_t offset, const Encoding& encoding);
  // Bytes parsed since the start: many units that name many offsets in one table cost more than the section has.
  uint64_t parsed_bytes() const { return parsed_bytes_; }

 private:
  static constexpr size_t kMaxKept = 16;
  static constexpr size_t kMaxKeptSpecs = 1u << 20;

  struct Kept {
    uint64_t offset = 0;
    Encoding encoding;
    std::shared_ptr<const AbbrevTable> table;
  };

  Section section_;
  std::vector<Kept> kept_;  // most recently used first
  std::string buffer_;
  uint64_t parsed_bytes_ = 0;
};

// Moves past a value of `form`. False for an unknown form or past the end.
bool SkipForm(uint16_t form, const Encoding& encoding, Cursor* cursor);
// Its size when all values of the form have the same; Abbrev::kVariable otherwise.
uint32_t FixedBytes(uint16_t form, const Encoding& encoding);

}  // namespace pyrometer::dwarf

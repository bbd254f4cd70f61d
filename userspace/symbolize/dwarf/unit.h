// Units of .debug_info and .debug_types, their entries (DIEs), and what the values in them mean.
//
//   ASSIGN_OR_RETURN(UnitHeader header, ReadUnitHeader(&window, offset, UnitSection::kInfo));
//   Die die;
//   if (!ReadDie(&cursor, table, *abbrev, header.encoding, &die)) …
//   std::optional<uint64_t> low = unit.Address(die.low_pc());
//
// Threads: none shared. Does not follow references between entries (name_resolver.h does).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/abbrev.h"
#include "userspace/symbolize/dwarf/section.h"

namespace pyrometer::dwarf {

enum class UnitSection { kInfo, kTypes };

struct UnitHeader {
  uint64_t offset = 0;         // of the header in its section
  uint64_t end = 0;            // behind the unit
  uint64_t first_die = 0;      // where its entries begin
  uint64_t abbrev_offset = 0;  // in .debug_abbrev
  uint64_t id = 0;             // of a split unit, or a type's signature
  uint64_t type_offset = 0;    // of the type's entry, from `offset`
  Encoding encoding;
  uint8_t type = kUnitCompile;
};

// DATA_LOSS when the section ends first or the lengths contradict each other; UNIMPLEMENTED for versions
// before 2 and after 5 (then `end` of *header is right, so the walk can go on).
Status ReadUnitHeader(Window* section, uint64_t offset, UnitSection kind, UnitHeader* header);

// A value as stored: what `raw` is depends on the form (number, offset, index). For strings within the unit it
// is their offset from the unit's header; for blocks nothing.
struct Value {
  uint64_t raw = 0;
  uint16_t form = 0;  // 0: the entry has no such attribute
  bool present() const { return form != 0; }
};

// The attributes that matter here of one entry.
struct Die {
  Value values[kEntrySlots];

  const Value& name() const { return values[kSlotName]; }
  const Value& linkage_name() const { return values[kSlotLinkageName]; }
  const Value& low_pc() const { return values[kSlotLowPc]; }
  const Value& high_pc() const { return values[kSlotHighPc]; }
  const Value& ranges() const { return values[kSlotRanges]; }
  const Value& origin() const { return values[kSlotOrigin]; }
  const Value& call_file() const { return values[kSlotCallFile]; }
  const Value& call_line() const { return values[kSlotCallLine]; }
  const Value& declaration_line() const { return values[kSlotDeclarationLine]; }
  // The entry that says more of the same function: an abstract instance, or a declaration.
  const Value& refers_to() const { return origin().present() ? origin() : values[kSlotSpecification]; }
};

// The same of a unit's first entry.
struct UnitDie {
  Value values[kUnitSlots];

  const Value& operator[](Slot slot) const { return values[slot]; }
};

// Reads the attributes behind an entry's code. False past the end or for an unknown form.
bool ReadDie(Cursor* cursor, const AbbrevTable& table, const Abbrev& abbrev, const Encoding& encoding, Die* die);
bool ReadDie(Cursor* cursor, const AbbrevTable& table, const Abbrev& abbrev, const Encoding& encoding, UnitDie* die);
// One value; `implicit` is the abbreviation's. form 0 on failure.
Value ReadValue(Cursor* cursor, uint16_t form, int64_t implicit, const Encoding& encoding);

struct AddressRange {
  uint64_t low = 0, high = 0;
};

// Where the tables lie that a unit's indices go to. For a split unit they are those of its skeleton, except
// strings.
struct UnitTables {
  Window* addresses = nullptr;       // .debug_addr
  Window* string_offsets = nullptr;  // .debug_str_offsets
  Window* ranges = nullptr;          // .debug_ranges, versions 2-4
  Window* range_lists = nullptr;     // .debug_rnglists, version 5
  uint64_t address_base = 0;
  uint64_t string_offsets_base = 0;
  uint64_t ranges_base = 0;       // GNU split units of version 4
  uint64_t range_lists_base = 0;  // version 5
};

// Resolves addresses, ranges and string indices of one unit.
class UnitValues {
 public:
  UnitValues(const Encoding& encoding, const UnitTables& tables) : encoding_(encoding), tables_(tables) {}

  const Encoding& encoding() const { return encoding_; }
  UnitTables& tables() { return tables_; }
  void set_base_address(uint64_t address) { base_address_ = address; }
  uint64_t base_address() const { return base_address_; }

  std::optional<uint64_t> Address(const Value& value) const;
  // Offset in .debug_str of a value of one of the strx forms.
  std::optional<uint64_t> StringOffset(const Value& value) const;
  // Appends the code of an entry: [low, high) or its list. What cannot be read is left out. Ranges of
  // discarded code (linkers put 0, 1, -1 or -2 there) are not told apart here. Stops at `max_ranges`.
  void Ranges(const Die& die, size_t max_ranges, std::vector<AddressRange>* ranges) const;

 private:
  std::optional<uint64_t> AddressAt(uint64_t index) const;
  void OldRangeList(uint64_t offset, size_t max_ranges, std::vector<AddressRange>* ranges) const;
  void RangeList(uint64_t offset, size_t max_ranges, std::vector<AddressRange>* ranges) const;

  Encoding encoding_;
  UnitTables tables_;
  uint64_t base_address_ = 0;
};

}  // namespace pyrometer::dwarf

// The units of one file of debug information, and the names of its functions.
//
//   InfoFile file(sections, &places);
//   RETURN_IF_ERROR(file.ListUnits());
//   uint32_t function = file.FunctionAt(unit, offset_of_entry);
//
// A function's name may be far from its code: an inlined call names its abstract instance, that
// the declaration in a class, either perhaps in another unit, in the supplementary file that dwz makes
// (.gnu_debugaltlink, .debug_sup) or in a type unit. The chain is followed kMaxChain steps at most, so one
// that leads back to itself ends.
//
// As in the symbol table the linkage name counts ("_ZN4shop5TotalEv"), the plain one where there is none.
//
// Threads: none shared. Cost: ~0.3 µs per function of a unit, remembered; ~2 µs for one elsewhere.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/symbolize/dwarf/abbrev.h"
#include "userspace/symbolize/dwarf/section.h"
#include "userspace/symbolize/dwarf/unit.h"
#include "userspace/symbolize/flat_map.h"
#include "userspace/symbolize/place_builder.h"

namespace pyrometer::dwarf {

class InfoFile;

// A unit whose entries are being read.
struct Unit {
  InfoFile* file = nullptr;
  UnitHeader header;
  std::string_view bytes;  // from the header to the end
  std::shared_ptr<const AbbrevTable> abbrevs;
  uint64_t string_offsets_base = 0;
  symbolize::FlatMap functions;  // offset of an entry -> function + 1
};

class InfoFile {
 public:
  // `places` takes the names. Both must outlive this.
  InfoFile(const DebugSections& sections, symbolize::PlaceBuilder* places);

  // Reads all units' headers. Units of unknown versions are left out; skipped() counts them.
  Status ListUnits();
  const std::vector<UnitHeader>& units() const { return units_; }
  uint64_t skipped_units() const { return skipped_units_; }

  // Reads the unit's bytes into `buffer` and its abbreviations.
  Status OpenUnit(const UnitHeader& header, UnitSection kind, std::string* buffer, Unit* unit);
  // A string, for few of them.
  std::string Text(const Unit& unit, const UnitValues& values, const Value& value);

  // The function that the entry at `offset` (from the unit's header) is or refers to; 0: it has no name.
  uint32_t FunctionAt(Unit& unit, uint64_t offset);
  // The same of an entry that was read already.
  uint32_t FunctionOf(Unit& unit, const Die& die);
  // The target of an attribute of an entry in `unit`.
  uint32_t FunctionReferred(Unit& unit, const Value& reference);

  // Where dwz put what several files share: asked for at the first need. May give nullptr.
  void set_supplement(std::function<InfoFile*()> supplement) { supplement_ = std::move(supplement); }
  // Reads the names still owed. This file's strings are not needed afterwards.
  Status ResolveNames();

  const DebugSections& sections() const { return sections_; }
  Window& strings() { return strings_; }
  Window& line_strings() { return line_strings_; }
  Window& string_offsets() { return string_offsets_; }
  Window& addresses() { return addresses_; }
  Window& ranges() { return ranges_; }
  Window& range_lists() { return range_lists_; }
  // Bytes looked at beside those of the units themselves; the reader's budget counts them.
  uint64_t side_bytes() const { return side_bytes_ + abbrevs_.parsed_bytes(); }

  static constexpr int kMaxChain = 16;                   // [longest seen: 4]
  static constexpr uint64_t kMaxUnits = 1u << 20;        // [libwebkit, dwz'ed: 60,000]
  static constexpr uint64_t kMaxUnitBytes = 256u << 20;  // [largest seen: 40 MiB, a Rust program with LTO]

 private:
  // Where an entry is.
  struct Place {
    InfoFile* file = nullptr;
    UnitSection section = UnitSection::kInfo;
    uint64_t offset = 0;  // in the section
  };
  struct Found;  // what the chain gave so far
  // A unit that was referred to from elsewhere.
  struct FarUnit {
    UnitHeader header;
    std::shared_ptr<const AbbrevTable> abbrevs;
    uint64_t string_offsets_base = 0;
  };

  std::optional<Place> Target(const UnitHeader& header, UnitSection section, const Value& reference);
  const UnitHeader* UnitAround(UnitSection section, uint64_t offset);
  FarUnit* OpenFarUnit(UnitSection section, uint64_t offset);
  template <typename AnyDie>
  bool ReadFar(const FarUnit* unit, UnitSection section, uint64_t offset, AnyDie* die, std::string* bytes);
  uint32_t FollowFar(Place place, int steps, Found* found);
  void Look(const UnitHeader& header, uint64_t string_offsets_base, std::string_view unit_bytes, const Die& die,
            Found* found);
  uint32_t Name(const Found& found);
  uint32_t Source(bool line_strings);

  const DebugSections sections_;
  symbolize::PlaceBuilder& places_;
  Window info_, types_, strings_, line_strings_, string_offsets_, addresses_, ranges_, range_lists_;
  AbbrevTables abbrevs_;
  std::vector<UnitHeader> units_, type_units_;  // by offset
  bool types_listed_ = false;
  std::unordered_map<uint64_t, Place> types_by_signature_;
  uint64_t skipped_units_ = 0;
  std::vector<std::pair<UnitSection, FarUnit>> far_units_;  // most recently used first
  symbolize::FlatMap far_functions_;                        // offset in .debug_info -> function + 1
  std::function<InfoFile*()> supplement_;
  uint32_t string_source_ = 0, line_string_source_ = 0;
  uint64_t side_bytes_ = 0;
};

}  // namespace pyrometer::dwarf

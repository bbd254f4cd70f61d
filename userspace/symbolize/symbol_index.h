// A table address -> outermost function, and address -> file, line and inlined functions, built once per
// binary, then asked millions of times. It is one piece of bytes: in memory, or a file that is mapped.
//
//   SymbolIndexBuilder builder;
//   builder.AddCode(ElfAddress(0x1000), 0x5000);                  // where code may be
//   builder.Add(ElfAddress(0x1139), 0x2f, SymbolRank{...}, "main");
//   SymbolIndex index = std::move(builder).Build(&places);        // places: place_builder.h, or nullptr
//   if (auto hit = index.Find(ElfAddress(0x1140))) use(index.name(hit->function), hit->offset);
//   index.Frames(ElfAddress(0x1140), &frames);                    // innermost first
//
// Layout (docs/formats/symbol_index.md has every byte):
//
//   guide     [ 0 | 0 | 3 | 4 | 4 | … ]             bucket of address bits -> first range starting in it
//   ranges    [start|size|function] …               outermost functions, disjoint, sorted
//   blocks    [start|data] …                        16 changes each, with a guide like the ranges'
//   data      inlined, file, line | +3 line+1 | …   packed changes of what is at an address
//   inlined   [parent|function|call file|call line] …   trees of inlined calls, parents before children
//
// A function costs 2-3 cache misses whatever the size; a place 3-4 more and ~20 ns of unpacking, and one per
// two inlined functions.
//
// Rules for functions:
// - Several names for one address: typed (FUNC, IFUNC) before untyped, sized before unsized, then
//   exported (global, weak) before local, fewer leading underscores, global before weak, shorter,
//   alphabetic. (libc's `read` is weak and `__read` global: people say `read`.)
// - Size 0 extends to the next symbol, to a function that debug information knows, or to the end of its code
//   range; in a partial table (only exported functions known) at most to 1 KiB, lest it names strangers' code.
// - A symbol inside another wins for its bytes; the outer one resumes behind it. An untyped label
//   inside a typed, sized function is dropped.
// - An address behind a symbol's end and before the next is a miss, not the symbol before it.
// - Symbol table and debug information: where a symbol covers an address it names the outermost function
//   ("foo.cold" keeps its mark; aliases follow the rule above), where none does debug information does.
//   Inlined functions, files and lines come from debug information (or Go's tables) alone.
//
// A damaged or hostile file gives wrong answers or none, but every index in it is checked when used.
//
// Threads: immutable. Cost: ~20 bytes + name per function, and with debug information ~1.3 bytes per byte of
// code; of a mapped file only the pages that questions touch are resident.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/symbolize/index_format.h"
#include "userspace/symbolize/place_builder.h"

namespace pyrometer::symbolize {

class SymbolIndex {
 public:
  // Which function (stable within this index) and how far into it.
  struct Hit {
    uint32_t function = 0;
    uint64_t offset = 0;
  };
  struct Frame {
    uint32_t function = 0;  // 0 = unknown: name() is ""
    uint32_t file = 0;      // 0 = unknown
    uint32_t line = 0;      // 0 = unknown
  };
  // Answers of many addresses: those of address i are frames[first[i] … first[i + 1]), innermost first.
  struct FrameLists {
    std::vector<Frame> frames;
    std::vector<uint32_t> first;
    std::vector<uint64_t> offsets;  // of each address, into the outermost function
  };

  SymbolIndex() = default;
  // Checks the header and that everything it names lies within; DATA_LOSS otherwise, FAILED_PRECONDITION for
  // another version. Reads no more than the header: see Verify().
  static StatusOr<SymbolIndex> FromBytes(std::shared_ptr<const std::string> bytes);
  static StatusOr<SymbolIndex> FromFile(MappedFile file);
  // Compares the checksums of all sections: reads the whole file.
  Status Verify() const;

  // nullopt: outside all functions.
  std::optional<Hit> Find(ElfAddress address) const;
  // Many at once; misses have function 0. ~2 times faster than one after the other, as waits for memory overlap.
  void Find(std::span<const ElfAddress> addresses, std::vector<Hit>* hits) const;

  // Appends the inlined functions at `address` and the outermost one, innermost first. Gives their number; 0: nothing
  // is known. The innermost has the line of the address itself, each other one that of the call in it. `offset`, unless
  // null, gets how far into the outermost function the address is.
  size_t Frames(ElfAddress address, std::vector<Frame>* frames, uint64_t* offset = nullptr) const;
  void Frames(std::span<const ElfAddress> addresses, FrameLists* lists) const;

  // Views are valid as long as the index. Unknown ids give "" and 0.
  std::string_view name(uint32_t function) const;
  uint32_t start_line(uint32_t function) const;
  std::string_view file(uint32_t file) const;

  bool empty() const { return ranges_.empty() && blocks_.empty(); }
  // Knows lines or inlined functions.
  bool has_places() const { return !blocks_.empty(); }
  // Disjoint ranges, slightly more than functions.
  size_t range_count() const { return ranges_.size(); }
  size_t function_count() const { return functions_.size(); }
  size_t inlined_count() const { return inlined_.size(); }
  size_t file_count() const { return files_.size(); }
  size_t memory_bytes() const { return sizeof(*this) + bytes_.size(); }
  std::string_view bytes() const { return bytes_; }
  uint32_t origin() const { return origin_; }
  std::string_view about() const { return about_; }
  std::span<const format::Segment> segments() const { return segments_; }

  // Inlined functions at one address: more are cut (only a damaged file has them).
  static constexpr size_t kMaxFrames = 512;

 private:
  struct Place {
    uint32_t inlined = 0, file = 0, line = 0;
  };

  static StatusOr<SymbolIndex> FromView(std::shared_ptr<const void> owner, std::string_view bytes);
  std::optional<Hit> HitAt(uint32_t range, uint64_t distance) const;
  Place PlaceAt(ElfAddress address) const;
  Place Unpack(uint32_t block, uint64_t distance) const;
  size_t AppendFrames(const Place& place, uint32_t outermost, std::vector<Frame>* frames) const;
  uint64_t DistanceToFunctionStart(uint32_t range) const;

  std::shared_ptr<const void> owner_;
  std::string_view bytes_;
  std::span<const format::Function> functions_;
  std::span<const format::Span> spans_;
  std::span<const format::Range> ranges_;
  std::span<const uint32_t> guide_;
  std::span<const format::Resumed> resumed_;
  std::span<const uint32_t> files_;
  std::span<const format::Inlined> inlined_;
  std::span<const format::Span> place_spans_;
  std::span<const format::PlaceBlock> blocks_;
  std::span<const uint32_t> place_guide_;
  std::string_view place_data_;
  std::span<const format::Segment> segments_;
  std::string_view strings_, about_;
  uint32_t origin_ = 0;
};

// What is known of a symbol beside its name; decides between several for one address.
struct SymbolRank {
  bool typed = true;      // marked as a function
  bool global = false;    // STB_GLOBAL
  bool exported = false;  // global or weak
};

// What an index says of itself.
struct IndexFacts {
  uint32_t origin = 0;  // format::Origin
  uint32_t machine = 0;
  std::string about;
  std::vector<format::Segment> segments;
};

class SymbolIndexBuilder {
 public:
  // More symbols than this are not taken; a stranger's file could hold 44 M [largest seen: chromium, ~1 M].
  static constexpr size_t kMaxSymbols = 8u << 20;
  static constexpr size_t kMaxNamesBytes = 1u << 30;

  // Code lies in [start, start + size): unsized symbols end there, symbols outside are dropped.
  // Without any call everything is accepted.
  void AddCode(ElfAddress start, uint64_t size);
  // Unsized symbols stop at this address (something that is not code begins).
  void AddBoundary(ElfAddress address);
  // False when a limit was reached (counted in dropped()). Empty names are ignored.
  bool Add(ElfAddress start, uint64_t size, SymbolRank rank, std::string_view name);
  // Longest extension of unsized symbols; default unlimited.
  void set_max_extension(uint64_t bytes) { max_extension_ = bytes; }

  size_t size() const { return symbols_.size(); }
  size_t dropped() const { return dropped_; }
  // Of this builder, now.
  size_t memory_bytes() const;

  // `places` may be null; it is used up.
  SymbolIndex Build(PlaceBuilder* places = nullptr, const IndexFacts& facts = {}) &&;

 private:
  struct Pending {
    uint64_t start;
    uint64_t size;
    uint32_t name;  // in pool_
    SymbolRank rank;
  };
  struct CodeRange {
    uint64_t start, end;
  };
  struct Flat {  // a disjoint range before packing
    uint64_t start, end, function_start;
    uint32_t name;      // in pool_
    uint32_t function;  // of `places`, when not 0
  };

  bool Better(const Pending& a, const Pending& b) const;
  std::vector<Pending> ChooseNames();
  static std::vector<Flat> Flatten(const std::vector<Pending>& symbols);
  static std::vector<Flat> FillGaps(const std::vector<Flat>& symbols,
                                    const std::vector<PlaceBuilder::OutermostFunction>& functions,
                                    const std::vector<PlaceBuilder::NamedFunction>& names);

  std::vector<Pending> symbols_;
  std::vector<CodeRange> code_;
  std::vector<uint64_t> boundaries_;
  StringPool pool_;
  uint64_t max_extension_ = ~uint64_t{0};
  size_t dropped_ = 0;
};

}  // namespace pyrometer::symbolize

// What a symbol index file holds, byte by byte: docs/formats/symbol_index.md. All numbers are little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyrometer::symbolize::format {

// Raise it with every change of the layout or of what is put in: files of other versions are made anew.
inline constexpr uint32_t kVersion = 1;
inline constexpr char kMagic[8] = {'P', 'Y', 'R', 'O', 'S', 'Y', 'M', '\n'};

enum SectionKind : uint32_t {
  kStrings = 0,      // u16 length and bytes, one after the other; offset 0 is ""
  kFunctions = 1,    // Function[]; [0] is nothing
  kSpans = 2,        // Span[] over kRanges
  kRanges = 3,       // Range[]: outermost functions
  kRangeGuide = 4,   // u32[]
  kResumed = 5,      // Resumed[]
  kFiles = 6,        // u32[]: offsets in kStrings; [0] is nothing
  kInlined = 7,      // Inlined[]; [0] is nothing
  kPlaceSpans = 8,   // Span[] over kPlaceBlocks
  kPlaceBlocks = 9,  // PlaceBlock[]
  kPlaceGuide = 10,  // u32[]
  kPlaceData = 11,   // packed changes
  kSegments = 12,    // Segment[]: to turn file offsets into addresses
  kAbout = 13,       // text: "key=value\n" of people's interest and of what the file was made from
  kSectionCount = 14,
};

struct SectionEntry {
  uint64_t offset;    // from the file's start, a multiple of 8
  uint64_t bytes;     // a multiple of entry_bytes
  uint64_t checksum;  // XXH3-64 of the bytes
  uint32_t entry_bytes;
  uint32_t kind;  // its own index in the table
};

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t header_bytes;  // sizeof(Header)
  uint64_t file_bytes;
  uint64_t checksum;  // XXH3-64 of the header with this field 0
  uint32_t origin;    // Origin bits
  uint32_t machine;   // EM_X86_64, …
  SectionEntry sections[kSectionCount];
};

enum Origin : uint32_t {
  kOriginSymbolTable = 1,
  kOriginDebugFile = 2,
  kOriginMiniDebugInfo = 4,
  kOriginDynamicSymbols = 8,
  kOriginGoFunctions = 16,
  kOriginDwarf = 32,
};

struct Function {
  uint32_t name;        // in kStrings, as in symbol tables
  uint32_t start_line;  // 0 = unknown
};

// Addresses are 32 bits from a base; code farther than that from the base before has a span of its own.
struct Span {
  uint64_t base;
  uint32_t first;  // its entries: [first, end)
  uint32_t end;
  uint32_t last_start;   // start of the last one
  uint32_t first_guide;  // its buckets
  uint32_t shift;        // bucket = (address - base) >> shift
  uint32_t guides;       // buckets + 1
};

struct Range {
  uint32_t start;
  uint32_t size;      // high bit: the function starts elsewhere (Resumed)
  uint32_t function;  // in kFunctions
};

struct Resumed {
  uint32_t range;  // ascending
  uint32_t unused;
  uint64_t distance;  // from the function's start to the range's
};

struct Inlined {
  uint32_t parent;  // smaller than its own index; 0: the outermost function
  uint32_t function;
  uint32_t call_file;  // in kFiles
  uint32_t call_line;
};

struct PlaceBlock {
  uint32_t start;
  uint32_t data;  // offset in kPlaceData; the block ends where the next begins
};

// A change in a block, behind the block's first state (varints: inlined, file, line):
//   varint  distance << 3 | flags     from the change before, or the block's start
//   varint  zigzag(inlined - before)  if flags & kInlinedChanges
//   varint  zigzag(file - before)     if flags & kFileChanges
//   varint  zigzag(line - before)     if flags & kLineChanges
inline constexpr uint32_t kInlinedChanges = 1;
inline constexpr uint32_t kFileChanges = 2;
inline constexpr uint32_t kLineChanges = 4;
// Changes per block: fewer make the directory larger, more make the look-up longer.
inline constexpr uint32_t kChangesPerBlock = 16;

struct Segment {
  uint64_t offset;
  uint64_t address;
  uint64_t file_bytes;
  uint64_t memory_bytes;
  uint32_t type;
  uint32_t flags;
};

static_assert(sizeof(SectionEntry) == 32 && sizeof(Header) == 40 + kSectionCount * 32);
static_assert(sizeof(Function) == 8 && sizeof(Span) == 32 && sizeof(Range) == 12 && sizeof(Resumed) == 16);
static_assert(sizeof(Inlined) == 16 && sizeof(PlaceBlock) == 8 && sizeof(Segment) == 40);

}  // namespace pyrometer::symbolize::format

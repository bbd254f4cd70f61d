// A sorted table address -> function name, built once per binary, then asked millions of times.
//
//   SymbolIndexBuilder builder;
//   builder.AddCode(ElfAddress(0x1000), 0x5000);                  // where code may be
//   builder.Add({ElfAddress(0x1139), 0x2f, SymbolRank{...}}, "main");
//   SymbolIndex index = std::move(builder).Build();
//   if (auto hit = index.Find(ElfAddress(0x1140))) use(index.name(hit->name), hit->offset);
//
// Layout: symbols are flattened into disjoint ranges, 12 bytes each, sorted:
//
//   guide_    [ 0 | 0 | 3 | 4 | 4 | … ]        bucket of address bits -> first range starting in it
//   ranges_   [start|size|name] [start|size|name] …   start and size 32 bit, relative to a span's base
//   names_    u16 length, bytes | u16 length, bytes | …
//
// A look-up reads one pair of guide entries, then searches the ranges of that bucket (two on
// average), so it costs 2-3 cache misses whatever the size. Ranges farther than 4 GiB apart get a
// span (base) of their own; ordinary files have one.
//
// Rules:
// - Several names for one address: typed (FUNC, IFUNC) before untyped, sized before unsized, then
//   exported (global, weak) before local, fewer leading underscores, global before weak, shorter,
//   alphabetic. (libc's `read` is weak and `__read` global: people say `read`.)
// - Size 0 extends to the next symbol or the end of its code range; in a partial table (only
//   exported functions known) at most to 1 KiB, lest it names strangers' code.
// - A symbol inside another wins for its bytes; the outer one resumes behind it. An untyped label
//   inside a typed, sized function is dropped.
// - An address behind a symbol's end and before the next is a miss, not the symbol before it.
//
// Threads: immutable after Build(). Cost: ~12 bytes + 4-8 (guide) + name + 2 per function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/types.h"

namespace pyrometer::symbolize {

class SymbolIndex {
 public:
  // Which name (stable within this index) and how far into the function.
  struct Hit {
    uint32_t name = 0;
    uint64_t offset = 0;
  };

  // nullopt: outside all symbols.
  std::optional<Hit> Find(ElfAddress address) const;
  // Valid as long as the index. Precondition: an id from Find().
  std::string_view name(uint32_t id) const;

  bool empty() const { return ranges_.empty(); }
  // Disjoint ranges, slightly more than functions.
  size_t range_count() const { return ranges_.size(); }
  size_t memory_bytes() const;

 private:
  friend class SymbolIndexBuilder;
  static constexpr uint32_t kResumed = 1u << 31;  // flag in Range::size: the function starts elsewhere

  struct Range {
    uint32_t start;  // from the span's base
    uint32_t size;   // bytes; high bit kResumed
    uint32_t name;   // byte offset in names_
  };
  struct Span {
    uint64_t base = 0;         // address of the first range
    uint32_t first_range = 0;  // its ranges: [first_range, end_range)
    uint32_t end_range = 0;
    uint32_t last_start = 0;   // start of the last range
    uint32_t first_guide = 0;  // its buckets in guide_
    uint32_t shift = 0;        // bucket = (address - base) >> shift
  };
  // For ranges with kResumed: how far before the range the function starts.
  struct Resumed {
    uint32_t range;
    uint64_t distance;
  };

  uint64_t DistanceToFunctionStart(uint32_t range) const;

  std::vector<Span> spans_;
  std::vector<Range> ranges_;
  std::vector<uint32_t> guide_;
  std::vector<Resumed> resumed_;  // sorted by range
  std::string names_;
};

// What is known of a symbol beside its name; decides between several for one address.
struct SymbolRank {
  bool typed = true;      // marked as a function
  bool global = false;    // STB_GLOBAL
  bool exported = false;  // global or weak
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

  SymbolIndex Build() &&;

 private:
  struct Pending {
    uint64_t start;
    uint64_t size;
    uint32_t name;  // byte offset in names_
    SymbolRank rank;
  };
  struct CodeRange {
    uint64_t start, end;
  };
  struct Flat {  // a disjoint range before packing
    uint64_t start, end, function_start;
    uint32_t name;
  };

  std::string_view NameAt(uint32_t offset) const;
  bool Better(const Pending& a, const Pending& b) const;
  std::vector<Pending> ChooseNames();
  static std::vector<Flat> Flatten(const std::vector<Pending>& symbols);

  std::vector<Pending> symbols_;
  std::vector<CodeRange> code_;
  std::vector<uint64_t> boundaries_;
  std::string names_;
  uint64_t max_extension_ = ~uint64_t{0};
  size_t dropped_ = 0;
};

}  // namespace pyrometer::symbolize

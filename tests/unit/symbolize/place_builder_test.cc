// Lines and inlined functions from builder to answers, against a plain model: an array with one entry per byte.
#include "userspace/symbolize/place_builder.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {
namespace {

using dwarf::AddressRange;
using dwarf::LineRow;

std::string Text(const SymbolIndex& index, uint64_t address) {
  std::vector<SymbolIndex::Frame> frames;
  index.Frames(ElfAddress(address), &frames);
  std::string text;
  for (const SymbolIndex::Frame& frame : frames) {
    text += StrFormat("%s%s %s:%d", text.empty() ? "" : " < ", index.name(frame.function), index.file(frame.file),
                      frame.line);
  }
  return text;
}

TEST(PlaceBuilderTest, TheExampleOfTheHeader) {
  PlaceBuilder places(1u << 20);
  places.AddCode(0x1000, 0x5000);
  const uint32_t file = places.File("/src/shop.cc");
  EXPECT_TRUE(places.Sequence({{0x1000, file, 10}, {0x1008, file, 12}}, 0x1020));
  const uint32_t total = places.Function("_ZN4shop5TotalEv", 7);
  const uint32_t call = places.Inline(0, total, file, 12);
  const std::vector<AddressRange> own = {{0x1000, 0x1020}};
  const std::vector<ScopeRange> inlined = {{0x1008, 0x1010, call}};
  places.Scopes(places.Function("main", 9), own, inlined);
  const SymbolIndex index = SymbolIndexBuilder().Build(&places);
  EXPECT_EQ(Text(index, 0x0fff), "");
  EXPECT_EQ(Text(index, 0x1000), "main /src/shop.cc:10");
  EXPECT_EQ(Text(index, 0x1008), "_ZN4shop5TotalEv /src/shop.cc:12 < main /src/shop.cc:12");
  EXPECT_EQ(Text(index, 0x1010), "main /src/shop.cc:12");
  EXPECT_EQ(Text(index, 0x101f), "main /src/shop.cc:12");
  EXPECT_EQ(Text(index, 0x1020), "");
  EXPECT_EQ(index.start_line(index.Find(ElfAddress(0x1001))->function), 9u);
  EXPECT_TRUE(index.Verify().ok());
}

TEST(PlaceBuilderTest, SymbolsNameWhatTheyCoverAndDebugInformationTheRest) {
  PlaceBuilder places(1u << 20);
  const std::vector<AddressRange> own = {{0x1000, 0x1020}, {0x2000, 0x2010}};
  places.Scopes(places.Function("f", 3), own, {});
  const std::vector<AddressRange> other = {{0x3000, 0x3010}};
  places.Scopes(places.Function("only_in_debug_information", 5), other, {});
  SymbolIndexBuilder builder;
  builder.Add(ElfAddress(0x1000), 0x18, {}, "f");
  builder.Add(ElfAddress(0x2000), 0x10, {}, "f.cold");
  builder.Add(ElfAddress(0x2ff0), 0, {.typed = false}, "assembler");
  const SymbolIndex index = std::move(builder).Build(&places);
  const auto name = [&](uint64_t address) {
    const auto hit = index.Find(ElfAddress(address));
    return hit.has_value() ? std::string(index.name(hit->function)) : "";
  };
  EXPECT_EQ(name(0x1017), "f");
  EXPECT_EQ(name(0x1018), "f") << "behind the symbol's end debug information goes on";
  EXPECT_EQ(index.Find(ElfAddress(0x1018))->offset, 0x18u);
  EXPECT_EQ(name(0x1020), "");
  EXPECT_EQ(name(0x2000), "f.cold");
  EXPECT_EQ(name(0x2fff), "assembler");
  EXPECT_EQ(name(0x3000), "only_in_debug_information") << "an unsized symbol ends where a known function begins";
  EXPECT_EQ(index.start_line(index.Find(ElfAddress(0x1000))->function), 3u);
}

TEST(PlaceBuilderTest, CodeOutsideOfSectionsIsDropped) {
  PlaceBuilder places(1u << 20);
  places.AddCode(0x1000, 0x100);
  const uint32_t file = places.File("a.c");
  places.Sequence({{0, file, 1}}, 0x50);         // discarded: the linker left address 0
  places.Sequence({{0x10f0, file, 2}}, 0x1200);  // reaches beyond
  const std::vector<AddressRange> own = {{0, 0x50}, {0x10f0, ~uint64_t{0}}};
  places.Scopes(places.Function("f", 1), own, {});
  const SymbolIndex index = SymbolIndexBuilder().Build(&places);
  EXPECT_EQ(Text(index, 0), "");
  EXPECT_EQ(Text(index, 0x10ff), "f a.c:2");
  EXPECT_EQ(Text(index, 0x1100), "");
}

TEST(PlaceBuilderTest, BeyondItsMemoryItSaysSo) {
  PlaceBuilder places(256u << 10);
  bool more = true;
  for (int i = 0; i < 100'000 && more; ++i) {
    const uint64_t at = 0x1000 + static_cast<uint64_t>(i) * 64;
    more = places.Sequence({{at, places.File(StrFormat("/some/long/folder/file_%d.c", i)), 1}}, at + 64);
  }
  EXPECT_FALSE(more);
  EXPECT_FALSE(places.complete());
  EXPECT_LT(places.memory_bytes(), 2u << 20);
}

// Random overlapping ranges and sequences, compared byte by byte with the rules of the header.
TEST(PlaceBuilderTest, AgreesWithAPlainModel) {
  constexpr uint64_t kBase = 0x400000, kSize = 3000;
  std::mt19937 random(7);
  for (int round = 0; round < 150; ++round) {
    PlaceBuilder places(16u << 20);
    places.AddCode(kBase, kSize);
    struct Byte {
      std::vector<uint32_t> chain;  // of inlined functions, innermost first
      std::string outermost;
      uint32_t file = 0, line = 0;
    };
    std::vector<Byte> model(kSize);
    std::map<uint32_t, std::vector<uint32_t>> chains = {{0, {}}};
    std::map<uint32_t, std::string> names;
    const auto range = [&](uint64_t low, uint64_t high) {
      uint64_t a = low + random() % (high - low), b = low + random() % (high - low);
      if (a > b) std::swap(a, b);
      return AddressRange{kBase + a, kBase + b + 1};
    };
    // Functions do not overlap here (folding has a test of its own); what is inlined into them may.
    uint64_t at = random() % 50;
    while (at + 10 < kSize) {
      const uint64_t end = std::min<uint64_t>(kSize, at + 10 + random() % 400);
      const std::string function = StrFormat("f%d", static_cast<int>(at));
      std::vector<AddressRange> own = {{kBase + at, kBase + end}};
      std::vector<ScopeRange> inlined;
      for (uint64_t i = at; i < end; ++i) model[i].outermost = function;
      std::vector<uint32_t> calls = {0};
      for (unsigned i = random() % 12; i > 0; --i) {
        const uint32_t parent = calls[random() % calls.size()];
        const std::string name = StrFormat("i%d", static_cast<int>(random() % 20));
        const uint32_t call = places.Inline(parent, places.Function(name, 0), 0, 0);
        names[call] = name;
        chains[call] = chains[parent];
        chains[call].insert(chains[call].begin(), call);
        calls.push_back(call);
        for (unsigned part = random() % 3; part > 0; --part) {
          const AddressRange where = range(at, end);
          inlined.push_back({where.low, where.high, call});
          for (uint64_t k = where.low - kBase; k < where.high - kBase; ++k) model[k].chain = chains[call];
        }
      }
      places.Scopes(places.Function(function, 1), own, inlined);
      at = end + (random() % 2 == 0 ? 0 : random() % 60);
    }
    // Line sequences, some overlapping: the one that starts first keeps its bytes.
    std::vector<std::pair<AddressRange, std::vector<LineRow>>> sequences;
    for (unsigned i = random() % 12; i > 0; --i) {
      const AddressRange where = range(0, kSize);
      std::vector<LineRow> rows;
      for (uint64_t row = where.low; row < where.high; row += 1 + random() % 40) {
        rows.push_back({row, places.File(StrFormat("file%d", static_cast<int>(random() % 5))),
                        static_cast<uint32_t>(random() % 100)});
      }
      sequences.emplace_back(where, rows);
      places.Sequence(rows, where.high);
    }
    std::stable_sort(sequences.begin(), sequences.end(),
                     [](const auto& a, const auto& b) { return a.first.low < b.first.low; });
    uint64_t decided = kBase;
    for (const auto& [where, rows] : sequences) {
      for (size_t r = 0; r < rows.size(); ++r) {
        const uint64_t end = r + 1 < rows.size() ? rows[r + 1].address : where.high;
        for (uint64_t k = std::max(rows[r].address, decided); k < end; ++k) {
          model[k - kBase].file = rows[r].file;
          model[k - kBase].line = rows[r].line;
        }
      }
      decided = std::max(decided, where.high);
    }

    const SymbolIndex index = SymbolIndexBuilder().Build(&places);
    for (uint64_t k = 0; k < kSize; ++k) {
      const Byte& byte = model[k];
      std::vector<std::string> expected;
      for (const uint32_t call : byte.chain) expected.push_back(names[call]);
      if (!byte.outermost.empty() || byte.file != 0) expected.push_back(byte.outermost);
      std::vector<SymbolIndex::Frame> frames;
      index.Frames(ElfAddress(kBase + k), &frames);
      std::vector<std::string> ours;
      for (const SymbolIndex::Frame& frame : frames) ours.emplace_back(index.name(frame.function));
      ASSERT_EQ(ours, expected) << "round " << round << StrFormat(" address %#x", kBase + k);
      if (!frames.empty()) {
        ASSERT_EQ(frames[0].line, byte.file == 0 ? 0 : byte.line) << round << StrFormat(" address %#x", kBase + k);
        ASSERT_EQ(frames[0].file != 0, byte.file != 0);
      }
    }
  }
}

TEST(PlaceBuilderTest, FoldedFunctionsKeepTheFirst) {
  PlaceBuilder places(1u << 20);
  const std::vector<AddressRange> first = {{0x1000, 0x1020}}, second = {{0x1000, 0x1040}};
  places.Scopes(places.Function("first", 1), first, {});
  places.Scopes(places.Function("second", 1), second, {});
  const SymbolIndex index = SymbolIndexBuilder().Build(&places);
  EXPECT_EQ(index.name(index.Find(ElfAddress(0x1010))->function), "first");
  EXPECT_EQ(index.name(index.Find(ElfAddress(0x1030))->function), "second");
}

TEST(PlaceBuilderTest, CodeFarApartGetsSpansOfItsOwn) {
  PlaceBuilder places(1u << 20);
  const uint32_t file = places.File("far.c");
  for (uint64_t i = 1; i < 40; ++i) {
    const uint64_t at = i << 33;
    places.Sequence({{at, file, static_cast<uint32_t>(i)}}, at + 16);
    const std::vector<AddressRange> own = {{at, at + 16}};
    places.Scopes(places.Function(StrFormat("f%d", i), 0), own, {});
  }
  const SymbolIndex index = SymbolIndexBuilder().Build(&places);
  for (uint64_t i = 1; i < 40; ++i) {
    EXPECT_EQ(Text(index, (i << 33) + 15), StrFormat("f%d far.c:%d", i, i));
    EXPECT_EQ(Text(index, (i << 33) + 16), "");
    EXPECT_EQ(Text(index, (i << 33) - 1), "");
  }
}

}  // namespace
}  // namespace pyrometer::symbolize

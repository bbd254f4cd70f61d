#include "userspace/symbolize/symbol_index.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <string>

namespace pyrometer::symbolize {
namespace {

constexpr SymbolRank kGlobal{.typed = true, .global = true, .exported = true};
constexpr SymbolRank kWeak{.typed = true, .global = false, .exported = true};
constexpr SymbolRank kLocal{.typed = true};
constexpr SymbolRank kUntyped{.typed = false, .global = true, .exported = true};

// "name+offset", or "-" for a miss.
std::string At(const SymbolIndex& index, uint64_t address) {
  const auto hit = index.Find(ElfAddress(address));
  if (!hit.has_value()) return "-";
  return std::string(index.name(hit->function)) + "+" + std::to_string(hit->offset);
}

TEST(SymbolIndexTest, EmptyIndexKnowsNothing) {
  EXPECT_EQ(At(SymbolIndex(), 0), "-");
  const SymbolIndex index = SymbolIndexBuilder().Build();
  EXPECT_TRUE(index.empty());
  EXPECT_EQ(At(index, ~uint64_t{0}), "-");
}

TEST(SymbolIndexTest, EdgesOfFunctionsAndTheGapBetween) {
  SymbolIndexBuilder builder;
  builder.Add(ElfAddress(0x2000), 0x10, kGlobal, "second");
  builder.Add(ElfAddress(0x1000), 0x20, kGlobal, "first");
  const SymbolIndex index = std::move(builder).Build();
  EXPECT_EQ(At(index, 0xfff), "-");
  EXPECT_EQ(At(index, 0x1000), "first+0");
  EXPECT_EQ(At(index, 0x101f), "first+31");
  EXPECT_EQ(At(index, 0x1020), "-");  // a gap is a miss, not "first+32"
  EXPECT_EQ(At(index, 0x1fff), "-");
  EXPECT_EQ(At(index, 0x200f), "second+15");
  EXPECT_EQ(At(index, 0x2010), "-");
  EXPECT_EQ(At(index, 0), "-");
  EXPECT_EQ(At(index, ~uint64_t{0}), "-");
}

TEST(SymbolIndexTest, AliasesPreferWhatPeopleSay) {
  const auto chosen = [](std::vector<std::tuple<uint64_t, SymbolRank, std::string>> symbols) {
    std::string first;
    // The order in the file must not matter.
    for (int turn = 0; turn < 2; ++turn) {
      SymbolIndexBuilder builder;
      for (const auto& [size, rank, name] : symbols) builder.Add(ElfAddress(0x1000), size, rank, name);
      const std::string name = At(std::move(builder).Build(), 0x1004);
      EXPECT_TRUE(turn == 0 || name == first) << name << " " << first;
      first = name;
      std::reverse(symbols.begin(), symbols.end());
    }
    return first;
  };
  EXPECT_EQ(chosen({{8, kGlobal, "__read"}, {8, kWeak, "read"}}), "read+4");
  EXPECT_EQ(chosen({{8, kGlobal, "__libc_malloc"}, {8, kGlobal, "malloc"}, {8, kLocal, "mal"}}), "malloc+4");
  EXPECT_EQ(chosen({{8, kGlobal, "zeta"}, {8, kWeak, "beta"}}), "zeta+4");
  EXPECT_EQ(chosen({{8, kUntyped, "label"}, {8, kLocal, "a_long_local_function"}}), "a_long_local_function+4");
  EXPECT_EQ(chosen({{0, kGlobal, "a"}, {8, kGlobal, "sized"}}), "sized+4");
  EXPECT_EQ(chosen({{8, kGlobal, "_ZN1AC2Ev"}, {8, kGlobal, "_ZN1AC1Ev"}}), "_ZN1AC1Ev+4");
}

TEST(SymbolIndexTest, SizeZeroReachesToTheNextSymbolOrTheEndOfItsSection) {
  SymbolIndexBuilder builder;
  builder.AddCode(ElfAddress(0x1000), 0x100);
  builder.AddCode(ElfAddress(0x2000), 0x100);
  builder.Add(ElfAddress(0x1000), 0, kGlobal, "a");
  builder.Add(ElfAddress(0x1040), 0, kGlobal, "b");
  builder.Add(ElfAddress(0x2000), 0, kGlobal, "c");
  builder.AddBoundary(ElfAddress(0x2080));
  builder.Add(ElfAddress(0x3000), 0x10, kGlobal, "in_no_code");
  const SymbolIndex index = std::move(builder).Build();
  EXPECT_EQ(At(index, 0x103f), "a+63");
  EXPECT_EQ(At(index, 0x10ff), "b+191");
  EXPECT_EQ(At(index, 0x1100), "-");
  EXPECT_EQ(At(index, 0x207f), "c+127");
  EXPECT_EQ(At(index, 0x2080), "-");
  EXPECT_EQ(At(index, 0x3004), "-");
}

TEST(SymbolIndexTest, ExtensionIsBoundedInPartialTables) {
  SymbolIndexBuilder builder;
  builder.set_max_extension(1024);
  builder.Add(ElfAddress(0x1000), 0, kGlobal, "exported");
  const SymbolIndex index = std::move(builder).Build();
  EXPECT_EQ(At(index, 0x13ff), "exported+1023");
  EXPECT_EQ(At(index, 0x1400), "-");
}

TEST(SymbolIndexTest, InnerSymbolsWinAndTheOuterOneResumes) {
  SymbolIndexBuilder builder;
  builder.Add(ElfAddress(0x1000), 0x100, kGlobal, "outer");
  builder.Add(ElfAddress(0x1020), 0x20, kGlobal, "inner");
  builder.Add(ElfAddress(0x1028), 0x08, kLocal, "innermost");
  builder.Add(ElfAddress(0x1080), 0, kUntyped, "label");          // in a sized function: dropped
  builder.Add(ElfAddress(0x10f0), 0x20, kGlobal, "overhanging");  // reaches beyond outer's end
  const SymbolIndex index = std::move(builder).Build();
  EXPECT_EQ(At(index, 0x101f), "outer+31");
  EXPECT_EQ(At(index, 0x1027), "inner+7");
  EXPECT_EQ(At(index, 0x1028), "innermost+0");
  EXPECT_EQ(At(index, 0x1030), "inner+16");
  EXPECT_EQ(At(index, 0x1040), "outer+64");
  EXPECT_EQ(At(index, 0x1080), "outer+128");
  EXPECT_EQ(At(index, 0x10f0), "overhanging+0");
  EXPECT_EQ(At(index, 0x110f), "overhanging+31");
  EXPECT_EQ(At(index, 0x1110), "-");
}

TEST(SymbolIndexTest, AddressesFarApartAndAtTheEnds) {
  SymbolIndexBuilder builder;
  builder.Add(ElfAddress(0), 0x10, kGlobal, "zero");
  builder.Add(ElfAddress(0x100000000), 0x10, kGlobal, "4GiB");
  builder.Add(ElfAddress(0xffffffff81000000), 0x10, kGlobal, "kernel");
  builder.Add(ElfAddress(0xfffffffffffffff0), ~uint64_t{0}, kGlobal, "last");
  const SymbolIndex index = std::move(builder).Build();
  EXPECT_EQ(At(index, 0), "zero+0");
  EXPECT_EQ(At(index, 0x10000000f), "4GiB+15");
  EXPECT_EQ(At(index, 0x100000010), "-");
  EXPECT_EQ(At(index, 0xffffffff81000001), "kernel+1");
  EXPECT_EQ(At(index, 0xfffffffffffffff8), "last+8");
}

// The same rules, said in the slow way: of all symbols over an address the one that starts last.
std::string Naive(const std::map<uint64_t, std::pair<uint64_t, std::string>>& symbols, uint64_t address) {
  for (auto it = symbols.upper_bound(address); it != symbols.begin();) {
    --it;
    if (address - it->first < it->second.first) return it->second.second + "+" + std::to_string(address - it->first);
  }
  return "-";
}

TEST(SymbolIndexTest, AgreesWithTheNaiveSearchOnRandomTables) {
  std::mt19937_64 random(20261123);
  for (int round = 0; round < 60; ++round) {
    SymbolIndexBuilder builder;
    std::map<uint64_t, std::pair<uint64_t, std::string>> symbols;
    const uint64_t span = uint64_t{1} << (6 + random() % 36);
    const size_t count = 1 + random() % 300;
    for (size_t i = 0; i < count; ++i) {
      const uint64_t start = random() % span;
      const uint64_t size = 1 + random() % (random() % 8 == 0 ? 4096 : 64);
      const std::string name = "f" + std::to_string(i);
      if (symbols.contains(start)) continue;
      symbols[start] = {size, name};
      builder.Add(ElfAddress(start), size, kGlobal, name);
    }
    const SymbolIndex index = std::move(builder).Build();
    const auto check = [&](uint64_t address) { ASSERT_EQ(At(index, address), Naive(symbols, address)) << round; };
    for (int i = 0; i < 300; ++i) check(random() % (span + 5000));
    for (const auto& [start, entry] : symbols) {
      check(start);
      check(start - 1);
      check(start + entry.first - 1);
      check(start + entry.first);
    }
  }
}

TEST(SymbolIndexTest, AMillionHostileSymbolsTakeBoundedTimeAndMemory) {
  const auto started = std::chrono::steady_clock::now();
  for (const bool nested : {true, false}) {
    SymbolIndexBuilder builder;
    constexpr uint64_t kCount = 1'000'000;
    for (uint64_t i = 0; i < kCount; ++i) {
      // Nested: each begins later and ends earlier. Otherwise all overlap all.
      builder.Add(ElfAddress(i * 4), nested ? (kCount - i) * 8 : 1u << 30, kGlobal, "x");
    }
    const SymbolIndex index = std::move(builder).Build();
    EXPECT_LE(index.range_count(), 2 * kCount);
    EXPECT_LT(index.memory_bytes(), 120u << 20);
    EXPECT_EQ(At(index, 4 * kCount - 4), "x+0");
    EXPECT_TRUE(!nested || At(index, 8 * kCount - 1) == "x+7999999");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(60));
}

TEST(SymbolIndexTest, LimitsAreCounted) {
  SymbolIndexBuilder builder;
  for (size_t i = 0; i < SymbolIndexBuilder::kMaxSymbols; ++i) {
    ASSERT_TRUE(builder.Add(ElfAddress(i * 16), 16, kGlobal, "f"));
  }
  EXPECT_FALSE(builder.Add(ElfAddress(1), 1, kGlobal, "one too many"));
  EXPECT_EQ(builder.dropped(), 1u);
}

}  // namespace
}  // namespace pyrometer::symbolize

#include "userspace/symbolize/symbolizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/vdso.h"

namespace pyrometer::symbolize {
namespace {

namespace fs = std::filesystem;

ElfAddress AddressOf(const std::string& fixture, const std::string& name) {
  for (const NmSymbol& symbol : RunNm("--defined-only", Fixture(fixture))) {
    if (symbol.name == name) return ElfAddress(symbol.address);
  }
  ADD_FAILURE() << name;
  return {};
}

uint64_t Answers(const Symbolizer& symbolizer, MissReason reason) {
  return symbolizer.stats().answers[static_cast<size_t>(reason)];
}

class SymbolizerTest : public testing::Test {
 protected:
  SymbolizerTest() { options_.debug_folders.clear(); }

  Symbolizer::Options options_;
  BuildId pie_ = *elf::ElfFile::Open(Fixture("fixture_pie"))->ReadBuildId();
  ElfAddress checkout_ = AddressOf("fixture_pie", "_ZN4shop8CheckoutEi");
};

TEST_F(SymbolizerTest, NamesDemangledAndRawWithOffset) {
  Symbolizer symbolizer(options_);
  const Symbol symbol = symbolizer.Symbolize(pie_, SourceOf(Fixture("fixture_pie")), ElfAddress(checkout_.value + 3));
  ASSERT_TRUE(symbol.found()) << MissReasonName(symbol.miss);
  EXPECT_EQ(symbol.name(), "shop::Checkout(int)");
  EXPECT_EQ(symbol.system_name(), "_ZN4shop8CheckoutEi");
  EXPECT_EQ(symbol.offset, 3u);
  EXPECT_EQ(symbol.miss, MissReason::kNone);
  const ElfAddress hot = AddressOf("fixture_pie", "hot_a");
  EXPECT_EQ(symbolizer.Symbolize(pie_, SourceOf(Fixture("fixture_pie")), hot).system_name(), "hot_a");
}

TEST_F(SymbolizerTest, OneTableServesEveryProcess) {
  Symbolizer symbolizer(options_);
  symbolizer.Prepare(pie_, SourceOf(Fixture("fixture_pie")));
  // Another process's view of the same binary, already gone.
  EXPECT_TRUE(symbolizer.Symbolize(pie_, SourceOf("/proc/999999/root/gone"), checkout_).found());
  EXPECT_EQ(symbolizer.stats().tables_built, 1u);
  EXPECT_EQ(symbolizer.stats().tables, 1u);
}

// This program has more than nothing of debug information.
TEST_F(SymbolizerTest, MuchDebugInformationIsReadLater) {
  options_.defer_debug_bytes = 1;
  Symbolizer symbolizer(options_);
  const BuildId own = *elf::ElfFile::Open("/proc/self/exe")->ReadBuildId();
  const BinarySource source = SourceOf("/proc/self/exe");
  const auto first = symbolizer.Get(own, source);
  EXPECT_TRUE(first->debug_deferred());
  EXPECT_FALSE(first->index().has_places());
  ASSERT_GT(first->index().function_count(), 0u);
  ASSERT_TRUE(symbolizer.FinishDeferred(120'000'000'000));
  const auto later = symbolizer.Get(own, source);
  EXPECT_FALSE(later->debug_deferred());
  EXPECT_TRUE(later->index().has_places());
  EXPECT_EQ(symbolizer.stats().tables_built, 2u);
  EXPECT_EQ(symbolizer.stats().tables_deferred, 0u);
}

TEST_F(SymbolizerTest, EndsWhileDebugInformationIsBeingRead) {
  options_.defer_debug_bytes = 1;
  Symbolizer symbolizer(options_);
  EXPECT_TRUE(symbolizer.Get(*elf::ElfFile::Open("/proc/self/exe")->ReadBuildId(), SourceOf("/proc/self/exe"))
                  ->debug_deferred());
}

TEST_F(SymbolizerTest, EveryAnswerIsCountedByReason) {
  Symbolizer symbolizer(options_);
  const BinarySource pie = SourceOf(Fixture("fixture_pie"));
  symbolizer.Symbolize(pie_, pie, checkout_);
  EXPECT_EQ(symbolizer.Symbolize(pie_, pie, ElfAddress(0x10)).miss, MissReason::kOutsideSymbols);
  EXPECT_EQ(symbolizer.Symbolize(BuildId{"aa"}, SourceOf("/gone"), checkout_).miss, MissReason::kFileGone);
  EXPECT_EQ(symbolizer.Symbolize(BuildId{"bb"}, pie, checkout_).miss, MissReason::kBuildIdMismatch);
  const BuildId stripped = *elf::ElfFile::Open(Fixture("fixture_nopie_stripped"))->ReadBuildId();
  EXPECT_EQ(symbolizer.Symbolize(stripped, SourceOf(Fixture("fixture_nopie_stripped")), ElfAddress(0x401200)).miss,
            MissReason::kNoSymbols);
  EXPECT_EQ(symbolizer.CountMiss(MissReason::kNoMapping).miss, MissReason::kNoMapping);
  for (const MissReason reason : {MissReason::kNone, MissReason::kOutsideSymbols, MissReason::kFileGone,
                                  MissReason::kBuildIdMismatch, MissReason::kNoSymbols, MissReason::kNoMapping}) {
    EXPECT_EQ(Answers(symbolizer, reason), 1u) << MissReasonName(reason);
  }
}

TEST_F(SymbolizerTest, OffsetsInTheFile) {
  Symbolizer symbolizer(options_);
  const auto file = elf::ElfFile::Open(Fixture("fixture_nopie"));
  const BuildId id = *file->ReadBuildId();
  const ElfAddress hot = AddressOf("fixture_nopie", "hot_a");
  const BinarySource source = SourceOf(Fixture("fixture_nopie"));
  EXPECT_EQ(symbolizer.SymbolizeOffset(id, source, *file->ToFileOffset(hot)).name(), "hot_a");
  EXPECT_EQ(symbolizer.SymbolizeOffset(id, source, FileOffset(1u << 30)).miss, MissReason::kNoMapping);
}

TEST_F(SymbolizerTest, AnUnreachableBinaryIsTriedAgainThroughANewWay) {
  Symbolizer symbolizer(options_);
  EXPECT_EQ(symbolizer.Symbolize(pie_, SourceOf("/gone"), checkout_).miss, MissReason::kFileGone);
  symbolizer.Symbolize(pie_, SourceOf("/gone"), checkout_);
  EXPECT_EQ(symbolizer.stats().tables_built, 1u) << "the same way is not tried at once again";
  EXPECT_TRUE(symbolizer.Symbolize(pie_, SourceOf(Fixture("fixture_pie")), checkout_).found());
  EXPECT_EQ(symbolizer.stats().tables_built, 2u);
}

TEST_F(SymbolizerTest, AFailureIsForgottenAfterAWhile) {
  options_.retry_ns = 0;
  Symbolizer symbolizer(options_);
  const TempFolder temp;
  const std::string path = temp.path() + "/late";
  EXPECT_FALSE(symbolizer.Symbolize(pie_, SourceOf(path), checkout_).found());
  fs::copy_file(Fixture("fixture_pie"), path);
  EXPECT_TRUE(symbolizer.Symbolize(pie_, SourceOf(path), checkout_).found());
}

TEST_F(SymbolizerTest, TablesAreEvictedLeastRecentlyUsedFirst) {
  std::vector<std::string> names = {"fixture_pie", "fixture_nopie", "libfixture.so", "fixture_ibt"};
  std::vector<BuildId> ids;
  std::vector<size_t> bytes;
  for (const std::string& name : names) {
    ids.push_back(*elf::ElfFile::Open(Fixture(name))->ReadBuildId());
    Symbolizer alone(options_);
    alone.Prepare(ids.back(), SourceOf(Fixture(name)));
    bytes.push_back(alone.stats().table_bytes);
  }
  options_.table_cache_bytes = bytes[0] + std::max(bytes[1], bytes[2]) + 16;
  Symbolizer symbolizer(options_);
  const auto held = symbolizer.Get(ids[0], SourceOf(Fixture(names[0])));
  symbolizer.Prepare(ids[1], SourceOf(Fixture(names[1])));
  symbolizer.Prepare(ids[0], SourceOf(Fixture(names[0])));  // used again: 1 is now the oldest
  symbolizer.Prepare(ids[2], SourceOf(Fixture(names[2])));
  EXPECT_EQ(symbolizer.stats().tables_built, 3u);
  EXPECT_EQ(symbolizer.stats().tables_evicted, 1u);
  EXPECT_LE(symbolizer.stats().table_bytes, options_.table_cache_bytes);
  symbolizer.Prepare(ids[0], SourceOf(Fixture(names[0])));
  EXPECT_EQ(symbolizer.stats().tables_built, 3u) << "0 was kept";
  symbolizer.Prepare(ids[3], SourceOf(Fixture(names[3])));
  symbolizer.Prepare(ids[2], SourceOf(Fixture(names[2])));
  EXPECT_TRUE(symbolizer.SymbolizeIn(*held, checkout_).found()) << "a held table survives its eviction";
}

TEST_F(SymbolizerTest, NamesAreBoundedAndOutliveTheirEviction) {
  options_.name_cache_bytes = 600;
  Symbolizer symbolizer(options_);
  const BinarySource source = SourceOf(Fixture("fixture_pie"));
  const Symbol kept = symbolizer.Symbolize(pie_, source, checkout_);
  for (const char* name : {"hot_a", "asm_outer", "asm_inner", "fixture_main", "main", "_start"}) {
    EXPECT_EQ(symbolizer.Symbolize(pie_, source, AddressOf("fixture_pie", name)).name(), name);
  }
  EXPECT_LE(symbolizer.stats().name_bytes, 600u);
  EXPECT_LT(symbolizer.stats().names, 4u);
  EXPECT_EQ(kept.name(), "shop::Checkout(int)");
  EXPECT_EQ(symbolizer.Symbolize(pie_, source, checkout_).name(), "shop::Checkout(int)");
}

TEST_F(SymbolizerTest, ManyThreadsAskAtOnce) {
  options_.name_cache_bytes = 2000;  // names come and go meanwhile
  Symbolizer symbolizer(options_);
  const std::vector<std::string> names = {"hot_a", "asm_outer", "asm_unsized", "fixture_main", "_start"};
  std::vector<ElfAddress> addresses;
  for (const std::string& name : names) addresses.push_back(AddressOf("fixture_pie", name));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const BinarySource source = SourceOf(Fixture("fixture_pie"));
      for (int i = 0; i < 2000; ++i) {
        const size_t which = static_cast<size_t>(i + t) % names.size();
        wrong += symbolizer.Symbolize(pie_, source, addresses[which]).name() != names[which];
        if (i % 500 == 0) symbolizer.SymbolizeKernel(VirtualAddress(0xffffffff81000000));
        if (i % 100 == 0) symbolizer.SymbolizeJit({.tgid = 1}, VirtualAddress(0x1000));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(symbolizer.stats().tables_built, 1u);
}

TEST_F(SymbolizerTest, OurOwnVdso) {
  const auto vdso = OwnVdso();
  if (vdso.status().code() == StatusCode::kNotFound) GTEST_SKIP() << vdso.status();
  ASSERT_TRUE(vdso.ok()) << vdso.status();
  Symbolizer symbolizer(options_);
  // Every exported function of the vdso under its own name or an alias.
  const auto file = elf::ElfFile::FromBytes(vdso->source.image, "[vdso]");
  const elf::Section* table = file->FindSection(uint32_t{SHT_DYNSYM});
  ASSERT_NE(table, nullptr);
  std::set<std::string> found;
  EXPECT_TRUE(file->ForEachSymbol(*table,
                                  [&](uint64_t, const std::vector<elf::RawSymbol>& symbols) {
                                    for (const elf::RawSymbol& raw : symbols) {
                                      if (raw.type != STT_FUNC || raw.section == SHN_UNDEF) continue;
                                      const Symbol symbol =
                                          symbolizer.Symbolize(vdso->build_id, vdso->source, raw.address);
                                      EXPECT_TRUE(symbol.found()) << MissReasonName(symbol.miss);
                                      found.insert(std::string(symbol.name()));
                                    }
                                  })
                  .ok());
  EXPECT_TRUE(found.contains("clock_gettime") || found.contains("__kernel_clock_gettime"));
  EXPECT_EQ(ReadVdso(static_cast<uint32_t>(::getpid()))->build_id, vdso->build_id);
  EXPECT_FALSE(ReadVdso(999'999'999).ok());
}

TEST_F(SymbolizerTest, KernelAnswersAreCounted) {
  Symbolizer symbolizer(options_);
  const Symbol symbol = symbolizer.SymbolizeKernel(VirtualAddress(1));
  EXPECT_FALSE(symbol.found());
  EXPECT_EQ(Answers(symbolizer, symbol.miss), 1u);
}

TEST_F(SymbolizerTest, OurOwnPerfMapIsFoundRememberedAndForgotten) {
  options_.perf_map.refresh_ns = 0;
  options_.perf_map_retry_ns = 0;
  Symbolizer symbolizer(options_);
  const ProcessKey self{.tgid = static_cast<uint32_t>(::getpid())};
  const std::string path = StrFormat("/tmp/perf-%d.map", ::getpid());
  fs::remove(path);
  EXPECT_EQ(symbolizer.SymbolizeJit(self, VirtualAddress(0x1000)).miss, MissReason::kPerfMapAbsent);
  std::ofstream(path) << "1000 10 jitted\n";
  EXPECT_EQ(symbolizer.SymbolizeJit(self, VirtualAddress(0x1004)).name(), "jitted");
  EXPECT_EQ(symbolizer.stats().perf_maps, 1u);
  fs::remove(path);
  EXPECT_EQ(symbolizer.SymbolizeJit(self, VirtualAddress(0x1004)).name(), "jitted") << "held open";
  symbolizer.Forget(self);
  EXPECT_EQ(symbolizer.stats().perf_maps, 0u);
  EXPECT_EQ(symbolizer.stats().perf_map_bytes, 0u);
  EXPECT_EQ(symbolizer.SymbolizeJit(self, VirtualAddress(0x1004)).miss, MissReason::kPerfMapAbsent);
}

TEST_F(SymbolizerTest, PerfMapsOfManyProcessesAreBounded) {
  const TempFolder proc;
  options_.perf_map.proc_root = proc.path();
  options_.perf_map_cache_bytes = 20'000;
  Symbolizer symbolizer(options_);
  for (uint32_t tgid = 1; tgid <= 20; ++tgid) {
    const std::string folder = proc.path() + "/" + std::to_string(tgid);
    fs::create_directories(folder + "/root/tmp");
    std::ofstream(folder + "/status") << "Uid:\t" << ::getuid() << "\t" << ::getuid() << "\t0\t0\n";
    std::ofstream map(folder + "/root/tmp/perf-" + std::to_string(tgid) + ".map");
    for (int i = 0; i < 40; ++i) map << std::hex << 0x1000 + i * 16 << " 10 function\n";
    map.close();
    EXPECT_TRUE(symbolizer.SymbolizeJit({.tgid = tgid}, VirtualAddress(0x1000)).found());
    EXPECT_LE(symbolizer.stats().perf_map_bytes, 20'000u);
  }
  EXPECT_GE(symbolizer.stats().perf_maps, 1u);
  EXPECT_LT(symbolizer.stats().perf_maps, 8u);
}

TEST(MissReasonTest, EveryReasonHasANameAndARemedy) {
  std::set<std::string_view> names;
  for (size_t i = 1; i < kMissReasonCount; ++i) {
    const auto reason = static_cast<MissReason>(i);
    EXPECT_FALSE(MissReasonName(reason).empty()) << i;
    EXPECT_FALSE(MissRemedy(reason).empty()) << i;
    EXPECT_TRUE(names.insert(MissReasonName(reason)).second) << i;
  }
  EXPECT_EQ(MissReasonName(MissReason::kNone), "");
}

}  // namespace
}  // namespace pyrometer::symbolize

// Debug information made to hurt: references in circles, nests without bottom, tables that everybody shares, files
// of gigabytes without content, files that change under us. Time and memory stay bounded, the reason is told, and what
// can be read is.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_symbols.h"
#include "userspace/symbolize/dwarf/constants.h"
#include "userspace/symbolize/dwarf/reader.h"
#include "userspace/symbolize/symbol_index.h"
#include "userspace/symbolize/symbolizer.h"

namespace pyrometer::symbolize {
namespace {

using namespace dwarf;  // the numbers of the standard
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr uint64_t kLimitBytes = 64u << 20;

std::string Uleb(uint64_t value) {
  std::string bytes;
  do {
    bytes.push_back(static_cast<char>((value & 0x7f) | (value > 0x7f ? 0x80 : 0)));
    value >>= 7;
  } while (value != 0);
  return bytes;
}
template <typename T>
std::string Number(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// One abbreviation: code, tag, children, (attribute, form) pairs.
std::string Abbreviation(uint64_t code, uint64_t tag, bool children,
                         const std::vector<std::pair<uint64_t, uint64_t>>& attributes) {
  std::string bytes = Uleb(code) + Uleb(tag) + std::string(1, children ? '\1' : '\0');
  for (const auto& [attribute, form] : attributes) bytes += Uleb(attribute) + Uleb(form);
  return bytes + std::string(2, '\0');
}

// A unit of version 4: header and entries.
std::string UnitOf(const std::string& entries, uint32_t abbrev_offset = 0) {
  const std::string rest = Number<uint16_t>(4) + Number<uint32_t>(abbrev_offset) + Number<uint8_t>(8) + entries;
  return Number(static_cast<uint32_t>(rest.size())) + rest;
}
constexpr uint32_t kUnitHeaderBytes = 11;

struct Result {
  Status status;
  Reader::Counters counters;
  SymbolIndex index;
  double seconds = 0;
  bool complete = true;
};

Result ReadSections(const std::string& info, const std::string& abbrev, const std::string& line = "",
                    const std::string& ranges = "", const std::string& str = "") {
  DebugSections sections;
  std::vector<std::unique_ptr<elf::ByteSource>> sources;
  const auto section = [&](const std::string& bytes) {
    sources.push_back(elf::MakeMemorySource(std::make_shared<const std::string>(bytes), "hostile"));
    return Section(sources.back().get(), 0, bytes.size());
  };
  sections.info = section(info);
  sections.abbrev = section(abbrev);
  sections.line = section(line);
  sections.ranges = section(ranges);
  sections.str = section(str);
  const auto started = steady_clock::now();
  PlaceBuilder places(kLimitBytes);
  Reader reader(sections, {}, &places);
  reader.Read();
  Result result;
  result.status = reader.status();
  result.counters = reader.counters();
  result.complete = places.complete();
  EXPECT_LE(places.memory_bytes(), 2 * kLimitBytes);
  result.index = SymbolIndexBuilder().Build(&places);
  result.seconds = std::chrono::duration<double>(steady_clock::now() - started).count();
  return result;
}

std::string AllNames(const SymbolIndex& index, uint64_t address) {
  std::vector<SymbolIndex::Frame> frames;
  index.Frames(ElfAddress(address), &frames);
  std::string names;
  for (const SymbolIndex::Frame& frame : frames) names += std::string(index.name(frame.function)) + ";";
  return names;
}

TEST(HostileDwarfTest, ReferencesInCirclesEnd) {
  const std::string abbrev =
      Abbreviation(1, kTagCompileUnit, true, {}) +
      Abbreviation(2, kTagSubprogram, true,
                   {{kAtLowPc, kFormAddress}, {kAtHighPc, kFormData4}, {kAtAbstractOrigin, kFormRef4}}) +
      Abbreviation(3, kTagInlinedSubroutine, false,
                   {{kAtLowPc, kFormAddress}, {kAtHighPc, kFormData4}, {kAtAbstractOrigin, kFormRef4}}) +
      Abbreviation(4, kTagSubprogram, false, {{kAtSpecification, kFormRef4}}) +
      Abbreviation(5, kTagSubprogram, false, {{kAtSpecification, kFormRefAddress}}) + std::string(1, '\0');
  // 12: the function, which names itself; 29: a call that names itself; then two declarations that name each other,
  // and one that names itself by its place in the section.
  const uint32_t function = kUnitHeaderBytes + 1, call = function + 17, first = call + 17 + 1, second = first + 5,
                 third = second + 5;
  std::string entries = "\1";
  entries += "\2" + Number<uint64_t>(0x1000) + Number<uint32_t>(0x100) + Number(function);
  entries += "\3" + Number<uint64_t>(0x1010) + Number<uint32_t>(0x10) + Number(call);
  entries += std::string(1, '\0');
  entries += "\4" + Number(second);
  entries += "\4" + Number(first);
  entries += "\5" + Number(third);
  entries += "\2" + Number<uint64_t>(0x2000) + Number<uint32_t>(0x100) + Number(first);
  entries += "\3" + Number<uint64_t>(0x2010) + Number<uint32_t>(0x10) + Number(third);
  entries += std::string(2, '\0');
  const Result result = ReadSections(UnitOf(entries), abbrev);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.counters.functions, 2u);
  EXPECT_EQ(result.counters.inlined, 2u);
  EXPECT_EQ(AllNames(result.index, 0x1010), ";;") << "two frames without names";
  EXPECT_LT(result.seconds, 1);
}

TEST(HostileDwarfTest, NestsAreCutAtTheirDepth) {
  const std::string abbrev = Abbreviation(1, kTagCompileUnit, true, {}) +
                             Abbreviation(2, kTagSubprogram, true,
                                          {{kAtLowPc, kFormAddress}, {kAtHighPc, kFormData4}, {kAtName, kFormString}}) +
                             Abbreviation(3, kTagInlinedSubroutine, true,
                                          {{kAtLowPc, kFormAddress}, {kAtHighPc, kFormData4}, {kAtName, kFormString}}) +
                             Abbreviation(4, 0x0b, true, {}) + std::string(1, '\0');
  for (const bool inlined : {false, true}) {
    std::string entries = "\1\2" + Number<uint64_t>(0x1000) + Number<uint32_t>(0x100) + std::string("f\0", 2);
    constexpr int kLevels = 1'000'000;
    const std::string level =
        inlined ? "\3" + Number<uint64_t>(0x1010) + Number<uint32_t>(0x10) + std::string("g\0", 2) : "\4";
    for (int i = 0; i < kLevels; ++i) entries += level;
    entries += std::string(kLevels + 2, '\0');
    // Behind the nest life goes on.
    const std::string units = UnitOf(entries) + UnitOf("\1\2" + Number<uint64_t>(0x2000) + Number<uint32_t>(0x10) +
                                                       std::string("after\0\0\0", 8));
    const Result result = ReadSections(units, abbrev);
    EXPECT_LT(result.seconds, 5);
    EXPECT_EQ(AllNames(result.index, 0x2000), "after;");
    std::vector<SymbolIndex::Frame> frames;
    result.index.Frames(ElfAddress(0x1010), &frames);
    EXPECT_LE(frames.size(), Reader::kMaxInlineDepth + 1);
    EXPECT_GE(frames.size(), 1u);
    EXPECT_EQ(result.index.name(frames.back().function), "f");
  }
}

TEST(HostileDwarfTest, AbbreviationsWithoutEndAreRefused) {
  std::string huge;
  for (uint64_t code = 1; code < 3'000'000; ++code) huge += Abbreviation(code, kTagSubprogram, true, {{kAtName, 1}});
  huge += std::string(1, '\0');
  const Result result = ReadSections(UnitOf("\1"), huge);
  EXPECT_EQ(result.status.code(), StatusCode::kResourceExhausted) << result.status;
  EXPECT_EQ(result.counters.failed_units, 1u);
  EXPECT_LT(result.seconds, 10);
  // One without its end.
  EXPECT_EQ(ReadSections(UnitOf("\1"), std::string(1000, '\1')).status.code(), StatusCode::kDataLoss);
}

TEST(HostileDwarfTest, UnitsThatEachNameAnotherPlaceInOneTableStayWithinTheBudget) {
  // 200,000 units of 21 bytes; each parses the rest of a table of 1 MiB: 200 GB without a budget.
  std::string abbrev;
  for (int i = 0; i < 60'000; ++i)
    abbrev += Abbreviation(static_cast<uint64_t>(i) + 1, kTagCompileUnit, false, {{3, 8}, {17, 1}});
  abbrev += std::string(1, '\0');
  std::string info;
  const std::string one = Abbreviation(1, kTagCompileUnit, false, {{3, 8}, {17, 1}});
  for (uint32_t i = 0; i < 200'000; ++i) {
    info += UnitOf(std::string{static_cast<char>(i % 100 + 1), '\0'} + Number<uint64_t>(0),
                   i % 100 * static_cast<uint32_t>(one.size()));
  }
  const Result result = ReadSections(info, abbrev);
  EXPECT_EQ(result.status.code(), StatusCode::kResourceExhausted) << result.status;
  EXPECT_LT(result.seconds, 20);
}

TEST(HostileDwarfTest, RangeListsThatEverybodySharesStayWithinTheBudget) {
  std::string ranges;
  for (uint64_t i = 1; i < 40'000; ++i) ranges += Number(i * 16) + Number(i * 16 + 8);
  ranges += std::string(16, '\0');
  const std::string abbrev = Abbreviation(1, kTagCompileUnit, true, {}) +
                             Abbreviation(2, kTagSubprogram, true, {{kAtRanges, kFormSectionOffset}}) +
                             Abbreviation(3, kTagInlinedSubroutine, false, {{kAtRanges, kFormSectionOffset}}) +
                             std::string(1, '\0');
  std::string entries = "\1\2" + Number<uint32_t>(0);
  for (int i = 0; i < 400'000; ++i) entries += "\3" + Number<uint32_t>(0);
  entries += std::string(2, '\0');
  const Result result = ReadSections(UnitOf(entries), abbrev, "", ranges);
  EXPECT_FALSE(result.status.ok());
  EXPECT_LT(result.seconds, 30);
}

TEST(HostileDwarfTest, LineProgramsThatMakeMoreThanTheirBytes) {
  // Special opcodes that never leave their address, then one that leaps.
  std::string program = std::string("\0\x09\x02", 3) + Number<uint64_t>(0x1000);
  for (int i = 0; i < 2'000'000; ++i) program += "\x0d\xf0";
  program += std::string("\0\x01\x01", 3);
  const std::string header = Number<uint8_t>(1) + Number<uint8_t>(1) + Number<uint8_t>(1) + Number<int8_t>(-5) +
                             Number<uint8_t>(14) + Number<uint8_t>(13) + std::string("\0\1\1\1\1\0\0\0\1\0\0\1", 12) +
                             std::string(1, '\0') + std::string("a.c\0\0\0\0", 7) + std::string(1, '\0');
  std::string rest = Number<uint16_t>(4) + Number(static_cast<uint32_t>(header.size())) + header + program;
  const std::string line = Number(static_cast<uint32_t>(rest.size())) + rest;
  const std::string abbrev =
      Abbreviation(1, kTagCompileUnit, false, {{kAtStatementList, kFormSectionOffset}}) + std::string(1, '\0');
  const Result result = ReadSections(UnitOf("\1" + Number<uint32_t>(0)), abbrev, line);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_LT(result.seconds, 10);
  std::vector<SymbolIndex::Frame> frames;
  EXPECT_EQ(result.index.Frames(ElfAddress(0x1001), &frames), 1u);
  // 50,000 units that each run it from elsewhere: the budget ends that.
  std::string info;
  for (int i = 0; i < 50'000; ++i) info += UnitOf("\1" + Number<uint32_t>(0));
  EXPECT_LT(ReadSections(info, abbrev, line).seconds, 20);
}

TEST(HostileDwarfTest, FunctionsOfImpossibleLengthCostNothing) {
  const std::string abbrev =
      Abbreviation(1, kTagCompileUnit, true, {}) +
      Abbreviation(2, kTagSubprogram, false,
                   {{kAtLowPc, kFormAddress}, {kAtHighPc, kFormAddress}, {kAtName, kFormString}}) +
      std::string(1, '\0');
  const std::string entries = "\1\2" + Number<uint64_t>(1) + Number(~uint64_t{0}) + std::string("f\0\0", 3);
  const Result result = ReadSections(UnitOf(entries), abbrev);
  EXPECT_LT(result.index.memory_bytes(), 1u << 20);
  EXPECT_EQ(AllNames(result.index, 0x1000), "f;");
}

// An ELF file around one .debug_info section that lies in a hole of a sparse file.
std::string SparseElf(const std::string& path, uint64_t section_bytes, const std::string& first_bytes) {
  const std::string names("\0.debug_info\0.debug_abbrev\0.shstrtab\0", 37);
  constexpr uint64_t kInfoAt = 4096;
  Elf64_Shdr sections[4] = {};
  sections[1] = {.sh_name = 1, .sh_type = SHT_PROGBITS, .sh_offset = kInfoAt, .sh_size = section_bytes};
  sections[2] = {.sh_name = 13, .sh_type = SHT_PROGBITS, .sh_offset = 1024, .sh_size = 64};
  sections[3] = {.sh_name = 27, .sh_type = SHT_STRTAB, .sh_offset = 2048, .sh_size = names.size()};
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_shoff = 512;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 4;
  header.e_shstrndx = 3;
  std::string image(4096, '\0');
  std::memcpy(image.data(), &header, sizeof(header));
  std::memcpy(image.data() + 512, sections, sizeof(sections));
  std::memcpy(image.data() + 2048, names.data(), names.size());
  std::ofstream(path, std::ios::binary) << image << first_bytes;
  EXPECT_EQ(::truncate(path.c_str(), static_cast<off_t>(kInfoAt + section_bytes)), 0);
  return path;
}

uint64_t PeakRssBytes() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) << 10;
}

TEST(HostileDwarfTest, ASparseFileOfGigabytesIsNotRead) {
  const TempFolder temp;
  const std::string path = temp.path() + "/sparse";
  const uint64_t before = PeakRssBytes();
  const auto started = steady_clock::now();
  constexpr uint64_t kBytes = 4ull << 30;
  // Nothing but a hole; a unit that claims it all; one that claims 200 MB.
  for (const std::string& first :
       {std::string(), Number<uint32_t>(0xfffffff0 - 4), Number<uint32_t>(0xffffffff) + Number<uint64_t>(kBytes - 12),
        Number<uint32_t>(200'000'000) + Number<uint16_t>(4) + Number<uint32_t>(0) + Number<uint8_t>(8)}) {
    SparseElf(path, kBytes, first);
    Symbolizer symbolizer(Symbolizer::Options{});
    const Symbol symbol = symbolizer.Symbolize({}, SourceOf(path), ElfAddress(0x1000));
    EXPECT_FALSE(symbol.found());
    EXPECT_EQ(symbolizer.stats().answers[static_cast<size_t>(symbol.miss)], 1u) << "counted by reason";
    const auto symbols = BinarySymbols::Build({}, SourceOf(path), BuildOptions{});
    EXPECT_NE(symbols->problem(), MissReason::kNone);
    EXPECT_NE(symbols->problem_detail(), "");
  }
  EXPECT_LT(steady_clock::now() - started, seconds(20));
  EXPECT_LT(PeakRssBytes() - before, 600u << 20);
}

// A program is rebuilt while it is read: its file is truncated, rewritten, replaced by zeros.
TEST(HostileDwarfTest, AFileThatChangesUnderUsNeverEndsUs) {
  const std::string good = std::string(PYROMETER_DWARF_FIXTURES) + "/gcc_v5";
  const std::string other = std::string(PYROMETER_DWARF_FIXTURES) + "/gcc_v4";
  if (::access(good.c_str(), R_OK) != 0) GTEST_SKIP() << "g++ is not installed";
  const TempFolder temp;
  const std::string path = temp.path() + "/program";
  const auto bytes_of = [](const std::string& name) {
    std::ifstream in(name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const std::string contents[] = {bytes_of(good), bytes_of(other), bytes_of(good).substr(0, 20'000),
                                  std::string(40'000, '\0')};
  std::ofstream(path, std::ios::binary) << contents[0];
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (size_t i = 1; !stop; ++i) {
      // In place: the inode that the reader has open changes.
      std::ofstream out(path, std::ios::binary | std::ios::trunc);
      const std::string& content = contents[i % std::size(contents)];
      out.write(content.data(), static_cast<std::streamsize>(content.size() / 2));
      out.flush();
      std::this_thread::yield();
      out.write(content.data() + content.size() / 2, static_cast<std::streamsize>(content.size() - content.size() / 2));
    }
  });
  int whole = 0, failed = 0;
  const auto until = steady_clock::now() + seconds(3);
  while (steady_clock::now() < until) {
    const auto symbols = BinarySymbols::Build({}, SourceOf(path), BuildOptions{});
    const bool good_answer = symbols->problem() == MissReason::kNone && symbols->problem_detail().empty();
    ++(good_answer ? whole : failed);
    if (symbols->problem() != MissReason::kNone) {
      EXPECT_NE(symbols->problem_detail(), "");
    }
    EXPECT_TRUE(symbols->index().empty() || symbols->index().Verify().ok());
  }
  stop = true;
  writer.join();
  std::printf("%d read whole, %d not\n", whole, failed);
  EXPECT_GT(whole + failed, 10);
  EXPECT_GT(failed, 0);
}

}  // namespace
}  // namespace pyrometer::symbolize

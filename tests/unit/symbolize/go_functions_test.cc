#include "userspace/symbolize/go_functions.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_symbols.h"

namespace pyrometer::symbolize {
namespace {

constexpr uint64_t kText = 0x401000;
constexpr uint64_t kTableAddress = 0x600000;

template <typename T>
void Put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Two functions: main.main at kText (0x40 bytes) and main.(*Shop).Pay behind it (0x20 bytes).
std::string GoTable(uint32_t magic, uint64_t text_start) {
  std::string table;
  Put(table, magic);
  Put<uint16_t>(table, 0);
  Put<uint8_t>(table, 1);
  Put<uint8_t>(table, 8);
  const std::string names("main.main\0main.(*Shop).Pay\0", 27);
  if (magic == 0xfffffffb) {
    Put<uint64_t>(table, 2);
    const uint64_t records = 16 + 5 * 8, names_at = records + 2 * 16;
    for (const auto& [address, record] : {std::pair{kText, records}, std::pair{kText + 0x40, records + 16}}) {
      Put<uint64_t>(table, address);
      Put<uint64_t>(table, record);
    }
    Put<uint64_t>(table, kText + 0x60);
    Put<uint64_t>(table, kText);
    Put<uint64_t>(table, names_at);
    Put<uint64_t>(table, kText + 0x40);
    Put<uint64_t>(table, names_at + 10);
    return table + names;
  }
  const bool relative = magic != 0xfffffffa;
  const uint64_t header = 8 + (relative ? 8 : 7) * 8;
  Put<uint64_t>(table, 2);  // functions
  Put<uint64_t>(table, 0);  // files
  if (relative) Put<uint64_t>(table, text_start);
  Put<uint64_t>(table, header);                 // names
  Put<uint64_t>(table, 0);                      // compilation units
  Put<uint64_t>(table, 0);                      // file names
  Put<uint64_t>(table, 0);                      // line tables
  Put<uint64_t>(table, header + names.size());  // pairs
  table += names;
  if (relative) {
    for (const uint32_t word : {0u, 20u, 0x40u, 28u, 0x60u}) Put<uint32_t>(table, word);
    for (const uint32_t word : {0u, 0u, 0x40u, 10u}) Put<uint32_t>(table, word);
  } else {
    for (const uint64_t word : {kText, uint64_t{40}, kText + 0x40, uint64_t{52}, kText + 0x60}) {
      Put<uint64_t>(table, word);
    }
    Put<uint64_t>(table, kText);
    Put<uint32_t>(table, 0);
    Put<uint64_t>(table, kText + 0x40);
    Put<uint32_t>(table, 10);
  }
  return table;
}

// A stripped program holding that table; `start_relocation`: what a relocation puts at the text's start.
std::string GoProgram(const std::string& table, uint64_t start_relocation = 0) {
  std::string image(sizeof(Elf64_Ehdr), '\0');
  const std::string section_names("\0.text\0.gopclntab\0.rela.dyn\0.shstrtab\0", 38);
  Elf64_Shdr sections[5] = {};
  sections[1] = {.sh_name = 1,
                 .sh_type = SHT_PROGBITS,
                 .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                 .sh_addr = kText,
                 .sh_size = 0x1000};
  sections[2] = {.sh_name = 7,
                 .sh_type = SHT_PROGBITS,
                 .sh_flags = SHF_ALLOC,
                 .sh_addr = kTableAddress,
                 .sh_offset = image.size(),
                 .sh_size = table.size()};
  image += table;
  const Elf64_Rela relocation = {.r_offset = kTableAddress + 24,
                                 .r_info = ELF64_R_INFO(0, R_X86_64_RELATIVE),
                                 .r_addend = static_cast<Elf64_Sxword>(start_relocation)};
  sections[3] = {.sh_name = 18,
                 .sh_type = SHT_RELA,
                 .sh_flags = SHF_ALLOC,
                 .sh_offset = image.size(),
                 .sh_size = sizeof(relocation),
                 .sh_entsize = sizeof(relocation)};
  image.append(reinterpret_cast<const char*>(&relocation), sizeof(relocation));
  sections[4] = {.sh_name = 28, .sh_type = SHT_STRTAB, .sh_offset = image.size(), .sh_size = section_names.size()};
  image += section_names;
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_shoff = image.size();
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 5;
  header.e_shstrndx = 4;
  std::memcpy(image.data(), &header, sizeof(header));
  image.append(reinterpret_cast<const char*>(sections), sizeof(sections));
  return image;
}

std::shared_ptr<const BinarySymbols> Build(const std::string& image) {
  BinarySource source;
  source.path = "/go";
  source.image = std::make_shared<const std::string>(image);
  return BinarySymbols::Build({}, source, BuildOptions{.debug_folders = {}});
}

std::string At(const BinarySymbols& symbols, uint64_t address) {
  const auto hit = symbols.index().Find(ElfAddress(address));
  return hit.has_value() ? StrFormat("%s+%d", symbols.index().name(hit->function), hit->offset) : "-";
}

class GoFunctionsTest : public testing::TestWithParam<uint32_t> {};

TEST_P(GoFunctionsTest, EveryLayout) {
  const auto symbols = Build(GoProgram(GoTable(GetParam(), kText)));
  EXPECT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
  EXPECT_TRUE(symbols->origin().go_functions);
  EXPECT_EQ(At(*symbols, kText - 1), "-");
  EXPECT_EQ(At(*symbols, kText), "main.main+0");
  EXPECT_EQ(At(*symbols, kText + 0x3f), "main.main+63");
  EXPECT_EQ(At(*symbols, kText + 0x40), "main.(*Shop).Pay+0");
  EXPECT_EQ(At(*symbols, kText + 0x5f), "main.(*Shop).Pay+31");
  EXPECT_EQ(At(*symbols, kText + 0x60), "-");
}

TEST_P(GoFunctionsTest, EveryTruncationAndEveryWordReplaced) {
  const std::string table = GoTable(GetParam(), kText);
  for (size_t n = 0; n < table.size(); ++n) (void)Build(GoProgram(table.substr(0, n)));
  for (size_t i = 0; i + 4 <= table.size(); ++i) {
    for (const uint32_t value : {0u, 1u, 0x7fffffffu, 0xffffffffu}) {
      std::string corrupt = table;
      std::memcpy(corrupt.data() + i, &value, sizeof(value));
      const auto symbols = Build(GoProgram(corrupt));
      EXPECT_LE(symbols->index().memory_bytes(), 1u << 20);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, GoFunctionsTest, testing::Values(0xfffffffb, 0xfffffffa, 0xfffffff0, 0xfffffff1));

TEST(GoFunctionsPieTest, TheTextsStartMayComeFromARelocation) {
  EXPECT_EQ(At(*Build(GoProgram(GoTable(0xfffffff1, 0), kText)), kText + 0x41), "main.(*Shop).Pay+1");
  // Without it no name is better than wrong ones.
  const auto symbols = Build(GoProgram(GoTable(0xfffffff1, 0), 0));
  EXPECT_TRUE(symbols->index().empty());
  EXPECT_EQ(symbols->problem(), MissReason::kUnsupportedElf);
  EXPECT_EQ(Build(GoProgram(GoTable(0xffffffee, kText)))->problem(), MissReason::kUnsupportedElf);
}

// Debian's own Go programs, stripped as they are shipped, beside Go's own reader.
TEST(GoFunctionsOracleTest, AgreesWithGoToolAddr2line) {
  if (::access("/usr/bin/go", X_OK) != 0) GTEST_SKIP() << "golang-go is not installed";
  std::string program;
  for (const char* path : {"/usr/sbin/runc", "/usr/bin/podman", "/usr/bin/containerd"}) {
    if (program.empty() && ::access(path, R_OK) == 0) program = path;
  }
  if (program.empty()) GTEST_SKIP() << "no Go program is installed";
  const auto symbols = BinarySymbols::Build({}, SourceOf(program), BuildOptions{.debug_folders = {}});
  ASSERT_TRUE(symbols->origin().go_functions) << symbols->problem_detail();
  const auto file = elf::ElfFile::Open(program);
  const elf::Section* text = file->FindSection(".text");
  const auto table = file->ReadSection(*file->FindSection(".gopclntab"));
  ASSERT_TRUE(table.ok() && table->size() > 32) << table.status();
  uint32_t magic;
  uint64_t text_start;
  std::memcpy(&magic, table->data(), sizeof(magic));
  std::memcpy(&text_start, table->data() + 24, sizeof(text_start));
  // Go 1.18 and 1.19 take the section's start for the start of Go's code, which is wrong in programs with C
  // code before it; so ask such a tool for the address that it mistakes for ours.
  const uint64_t shift = magic == 0xfffffff0 ? text_start - text->address.value : 0;
  const TempFolder temp;
  std::mt19937_64 random(3);
  std::vector<uint64_t> addresses;
  for (int i = 0; i < 3000; ++i) addresses.push_back(text->address.value + random() % text->size);
  int fewest = 3000, same = 0;
  for (const uint64_t moved : {shift, uint64_t{0}}) {
    std::ofstream list(temp.path() + "/addresses");
    for (const uint64_t address : addresses) list << StrFormat("%#x\n", address - moved);
    list.close();
    const std::vector<std::string> answers =
        Lines("cd " + temp.path() + " && HOME=" + temp.path() + " go tool addr2line " + program + " <addresses");
    ASSERT_EQ(answers.size(), 2 * addresses.size());
    int different = 0, equal = 0;
    for (size_t i = 0; i < addresses.size(); ++i) {
      const auto hit = symbols->index().Find(ElfAddress(addresses[i]));
      const std::string ours = hit.has_value() ? std::string(symbols->index().name(hit->function)) : "?";
      // C functions, which Go's table does not have, come from .dynsym.
      if (answers[2 * i] == "?" || ours.find('.') == std::string::npos) continue;
      ++(ours == answers[2 * i] ? equal : different);
    }
    if (different < fewest) {
      fewest = different;
      same = equal;
    }
  }
  std::printf("%s: %d same, %d different\n", program.c_str(), same, fewest);
  EXPECT_EQ(fewest, 0);
  EXPECT_GT(same, 2500);
}

// The same program with and without DWARF: Go's own tables must say the same of every line and inlined call.
TEST(GoFunctionsOracleTest, LinesAndInlinedCallsAgreeWithDwarf) {
  const std::string folder = PYROMETER_DWARF_FIXTURES;
  if (::access((folder + "/go_stripped").c_str(), R_OK) != 0) GTEST_SKIP() << "golang-go is not installed";
  const auto full = BinarySymbols::Build({}, SourceOf(folder + "/go_full"), BuildOptions{});
  const auto stripped = BinarySymbols::Build({}, SourceOf(folder + "/go_stripped"), BuildOptions{});
  EXPECT_EQ(stripped->problem_detail(), "");
  ASSERT_TRUE(full->origin().dwarf);
  ASSERT_TRUE(stripped->origin().go_functions);
  const auto file = elf::ElfFile::Open(folder + "/go_full");
  const elf::Section* text = file->FindSection(".text");
  const auto frames_of = [](const BinarySymbols& symbols, uint64_t address) {
    std::vector<SymbolIndex::Frame> frames;
    symbols.index().Frames(ElfAddress(address), &frames);
    std::string answer;
    for (const SymbolIndex::Frame& frame : frames) {
      std::string_view name = symbols.index().name(frame.function);
      if (name.ends_with(".abi0")) name.remove_suffix(5);  // the linker's mark, in its symbol table only
      answer += StrFormat("%s %s:%d\n", name, symbols.index().file(frame.file), frame.line);
    }
    return frames.empty() || frames.back().function == 0 ? "" : answer;
  };
  int compared = 0, different = 0, inlined = 0;
  for (uint64_t address = text->address.value; address < text->address.value + text->size; address += 7) {
    const std::string by_dwarf = frames_of(*full, address);
    if (by_dwarf.empty()) continue;  // padding, which Go's tables give to the function before
    const std::string by_table = frames_of(*stripped, address);
    // Of methods that the compiler makes up DWARF tells less, and calls their file "./<autogenerated>".
    if (by_table.find("<autogenerated>") != std::string::npos) continue;
    ++compared;
    inlined += std::count(by_dwarf.begin(), by_dwarf.end(), '\n') > 1;
    different += by_dwarf != by_table;
  }
  std::printf("%d addresses, %d with inlined calls, %d different\n", compared, inlined, different);
  EXPECT_GT(inlined, 5000);
  // Go's linker gives single instructions another line in DWARF (3 of these with Go 1.19).
  EXPECT_LE(different, 20);
}

TEST(GoFunctionsOracleTest, PositionIndependentProgramsHaveInlinedCallsToo) {
  const std::string path = std::string(PYROMETER_DWARF_FIXTURES) + "/go_stripped_pie";
  if (::access(path.c_str(), R_OK) != 0) GTEST_SKIP() << "golang-go is not installed";
  const auto symbols = BinarySymbols::Build({}, SourceOf(path), BuildOptions{});
  EXPECT_TRUE(symbols->origin().go_functions);
  EXPECT_GT(symbols->index().inlined_count(), 1000u);
  EXPECT_GT(symbols->index().file_count(), 100u);
}

}  // namespace
}  // namespace pyrometer::symbolize

#include "userspace/elf/elf_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::elf {
namespace {

using testing::HasSubstr;

std::string Fixture(const std::string& name) { return std::string(PYROMETER_ELF_FIXTURES) + "/" + name; }

// Output of a command whose words are all ours.
std::string OutputOf(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  std::array<char, 4096> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  EXPECT_EQ(::pclose(pipe), 0) << command;
  return output;
}

std::map<std::string, RawSymbol> SymbolsOf(const ElfFile& file, uint32_t table_type) {
  std::map<std::string, RawSymbol> symbols;
  const Section* table = file.FindSection(table_type);
  if (table == nullptr) return symbols;
  const Section* strings = file.LinkedStrings(*table);
  EXPECT_NE(strings, nullptr);
  StringTableReader names(file, *strings);
  const Status status = file.ForEachSymbol(*table, [&](uint64_t, const std::vector<RawSymbol>& piece) {
    for (const RawSymbol& symbol : piece) {
      const auto name = names.At(symbol.name);
      EXPECT_TRUE(name.ok()) << name.status();
      if (name.ok()) symbols[std::string(*name)] = symbol;
    }
  });
  EXPECT_TRUE(status.ok()) << status;
  return symbols;
}

TEST(ElfFileTest, HeadersOfAPositionIndependentProgram) {
  const auto file = ElfFile::Open(Fixture("fixture_pie"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->is_64bit());
  EXPECT_EQ(file->type(), ET_DYN);
  EXPECT_EQ(file->machine(), EM_X86_64);
  EXPECT_TRUE(file->section_problem().ok());
  const Section* text = file->FindSection(".text");
  ASSERT_NE(text, nullptr);
  EXPECT_TRUE(text->executable());
  EXPECT_FALSE(file->FindSection(".data")->executable());
  EXPECT_EQ(file->ToElfAddress(text->offset), text->address);
  EXPECT_EQ(file->ToFileOffset(text->address), text->offset);
  EXPECT_EQ(file->FindSection(".no such section"), nullptr);
}

TEST(ElfFileTest, FileOffsetsAndAddressesDifferWithoutPie) {
  const auto file = ElfFile::Open(Fixture("fixture_nopie"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->type(), ET_EXEC);
  const Section* text = file->FindSection(".text");
  EXPECT_GE(text->address.value, 0x400000u);
  EXPECT_EQ(file->ToElfAddress(FileOffset(text->offset.value + 5)), ElfAddress(text->address.value + 5));
  EXPECT_EQ(file->ToFileOffset(ElfAddress(0x10)), std::nullopt);
  EXPECT_EQ(file->ToElfAddress(FileOffset(uint64_t{1} << 40)), std::nullopt);
}

TEST(ElfFileTest, BuildIdIsWhatReadelfSays) {
  for (const std::string& path : {Fixture("fixture_pie"), Fixture("libfixture.so"), Fixture("fixture_split.debug"),
                                  Fixture("fixture32"), std::string("/bin/sh")}) {
    const auto file = ElfFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto id = file->ReadBuildId();
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_FALSE(id->is_fallback());
    EXPECT_THAT(OutputOf("readelf -n " + path + " 2>/dev/null"), HasSubstr("Build ID: " + id->hex)) << path;
  }
}

TEST(ElfFileTest, FallbackBuildIdSurvivesStrippingAndTellsBinariesApart) {
  const auto whole = ElfFile::Open(Fixture("fixture_nopie"))->ReadBuildId();
  const auto stripped = ElfFile::Open(Fixture("fixture_nopie_stripped"))->ReadBuildId();
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_TRUE(whole->is_fallback());
  EXPECT_EQ(whole->hex.size(), 5u + 32u);
  EXPECT_EQ(*whole, *stripped);
  // One byte of code changed: another identity.
  std::string bytes = *ReadFile(Fixture("fixture_nopie"));
  const Section text = *ElfFile::Open(Fixture("fixture_nopie"))->FindSection(".text");
  bytes[text.offset.value + 7] ^= 1;
  const auto changed = ElfFile::FromBytes(std::make_shared<const std::string>(bytes), "changed")->ReadBuildId();
  EXPECT_NE(*whole, *changed);
}

TEST(ElfFileTest, NoteParserHandlesAlignmentsAndForeignNotes) {
  // A "Go" note before, padded to 4; then the GNU one.
  const std::string foreign("\x03\0\0\0\x05\0\0\0\x04\0\0\0Go\0\0abcde\0\0\0", 24);
  const std::string gnu("\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\xde\xad\xbe\xef", 20);
  EXPECT_EQ(FindBuildIdNote(foreign + gnu).hex, "deadbeef");
  EXPECT_EQ(FindBuildIdNote(gnu).hex, "deadbeef");
  EXPECT_TRUE(FindBuildIdNote(foreign).empty());
  for (size_t n = 0; n < gnu.size(); ++n) EXPECT_TRUE(FindBuildIdNote(gnu.substr(0, n)).empty()) << n;
  // A length that would wrap a 32-bit sum.
  const std::string huge("\xff\xff\xff\xff\xff\xff\xff\xff\x03\0\0\0GNU\0", 16);
  EXPECT_TRUE(FindBuildIdNote(huge).empty());
}

TEST(ElfFileTest, SymbolsAreThoseOfNm) {
  for (const char* name : {"fixture_pie", "fixture_nopie", "libfixture.so", "fixture32"}) {
    const auto file = ElfFile::Open(Fixture(name));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto symbols = SymbolsOf(*file, SHT_SYMTAB);
    std::istringstream lines(OutputOf("nm --defined-only --format=posix " + Fixture(name)));
    int compared = 0;
    for (std::string line; std::getline(lines, line);) {
      std::istringstream fields(line);
      std::string symbol, kind, value;
      fields >> symbol >> kind >> value;
      ASSERT_TRUE(symbols.contains(symbol)) << symbol;
      EXPECT_EQ(symbols.at(symbol).address.value, std::stoull(value, nullptr, 16)) << symbol;
      ++compared;
    }
    EXPECT_GE(compared, 4) << name;
  }
}

TEST(ElfFileTest, ThirtyTwoBitFilesAreRead) {
  const auto file = ElfFile::Open(Fixture("fixture32"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_FALSE(file->is_64bit());
  EXPECT_EQ(file->machine(), EM_386);
  const auto symbols = SymbolsOf(*file, SHT_SYMTAB);
  EXPECT_EQ(symbols.at("in_32bit").type, STT_FUNC);
  EXPECT_EQ(symbols.at("in_32bit").size, 2u);
}

TEST(ElfFileTest, DynamicSymbolsAndRelocations) {
  const auto file = ElfFile::Open(Fixture("libfixture.so"));
  const auto symbols = SymbolsOf(*file, SHT_DYNSYM);
  EXPECT_TRUE(symbols.contains("hot_a"));
  EXPECT_EQ(symbols.at("strlen").section, SHN_UNDEF);
  const Section* section = file->FindSection(".rela.plt");
  ASSERT_NE(section, nullptr);
  const auto relocations = file->ReadRelocations(*section, 1000);
  ASSERT_TRUE(relocations.ok()) << relocations.status();
  EXPECT_EQ(relocations->size(), section->size / sizeof(Elf64_Rela));
  EXPECT_EQ(relocations->at(0).type, static_cast<uint32_t>(R_X86_64_JUMP_SLOT));
  EXPECT_EQ(file->ReadRelocations(*section, 1).status().code(), StatusCode::kResourceExhausted);
}

TEST(ElfFileTest, CompressedSectionsEqualThePlainOnes) {
  const auto plain = ElfFile::Open(Fixture("fixture_plain"));
  ASSERT_TRUE(plain.ok());
  const auto expected = plain->ReadSection(*plain->FindSection(".debug_info"));
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::map<std::string, std::string> forms = {
      {"fixture_zlib", ".debug_info"}, {"fixture_zlib_gnu", ".zdebug_info"}, {"fixture_zstd", ".debug_info"}};
  for (const auto& [name, section_name] : forms) {
    if (!std::filesystem::exists(Fixture(name))) {
      EXPECT_EQ(name, "fixture_zstd");
      std::printf("this binutils has no zstd: %s not checked\n", name.c_str());
      continue;
    }
    const auto file = ElfFile::Open(Fixture(name));
    const Section* section = file->FindSection(section_name);
    ASSERT_NE(section, nullptr) << name;
    EXPECT_LT(section->size, expected->size());
    const auto content = file->ReadSection(*section);
    ASSERT_TRUE(content.ok()) << content.status();
    EXPECT_EQ(*content, *expected) << name;
    EXPECT_EQ(file->ReadSection(*section, expected->size() - 1).status().code(), StatusCode::kResourceExhausted);
  }
}

TEST(ElfFileTest, DebugLinkNamesFileAndChecksum) {
  const auto file = ElfFile::Open(Fixture("fixture_split"));
  const auto link = file->ReadDebugLink();
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ(link->file_name, "fixture_split.debug");
  const auto debug = ElfFile::Open(Fixture("fixture_split.debug"));
  EXPECT_EQ(*Crc32OfSource(debug->source(), 1 << 30), link->crc32);
  EXPECT_EQ(Crc32OfSource(debug->source(), 100).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(debug->ReadDebugLink().status().code(), StatusCode::kNotFound);
}

TEST(ElfFileTest, DebugAltLink) {
  const auto link = ElfFile::Open(Fixture("fixture_altlink"))->ReadDebugAltLink();
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ(link->path, "/usr/lib/debug/.dwz/common.debug");
  EXPECT_EQ(link->build_id.hex, "0102030405060708");
}

TEST(ElfFileTest, MiniDebugInfoIsAnElfFileOfItsOwn) {
  const auto file = ElfFile::Open(Fixture("fixture_mini"));
  EXPECT_EQ(file->FindSection(SHT_SYMTAB), nullptr);
  const auto mini = file->ReadMiniDebugInfo();
  ASSERT_TRUE(mini.ok()) << mini.status();
  EXPECT_TRUE(SymbolsOf(*mini, SHT_SYMTAB).contains("_ZL10only_locali"));
  EXPECT_EQ(ElfFile::Open(Fixture("fixture_pie"))->ReadMiniDebugInfo().status().code(), StatusCode::kNotFound);
}

TEST(ElfFileTest, ReadsTheVdsoFromMemory) {
  const auto* start = reinterpret_cast<const char*>(::getauxval(AT_SYSINFO_EHDR));
  if (start == nullptr) GTEST_SKIP() << "this kernel maps no vdso";
  const auto bytes = std::make_shared<const std::string>(start, 4096);  // its first page: headers, dynamic symbols
  const auto file = ElfFile::FromBytes(bytes, "[vdso]");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_FALSE(file->ReadBuildId()->empty());
}

TEST(ElfFileTest, HeldDescriptorOfADeletedFileStaysReadable) {
  const std::string path = testing::TempDir() + "/elf_deleted_" + std::to_string(::getpid());
  std::filesystem::copy_file(Fixture("fixture_pie"), path);
  const auto before = ElfFile::Open(path)->ReadBuildId();
  SharedFd fd = std::make_shared<const UniqueFd>(*OpenForReading(path));
  ASSERT_TRUE(std::filesystem::remove(path));
  const auto file = ElfFile::FromFd(fd, path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->ReadBuildId(), *before);
}

TEST(ElfFileTest, OnlyRegularFilesAreOpened) {
  EXPECT_EQ(ElfFile::Open("/dev/zero").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ElfFile::Open("/").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ElfFile::Open("/no/such/file").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ElfFile::FromFd(nullptr, "none").status().code(), StatusCode::kInvalidArgument);
  const std::string fifo = testing::TempDir() + "/elf_fifo_" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(ElfFile::Open(fifo).status().code(), StatusCode::kInvalidArgument);  // and does not wait for a writer
  std::filesystem::remove(fifo);
}

// Parameter: the table's size; above kWholeTableBytes it is read through a window.
class StringTableReaderTest : public testing::TestWithParam<size_t> {};

TEST_P(StringTableReaderTest, AnyOrderAcrossWindowsAndOverlongNames) {
  // Three names, far apart, in a table larger than a window; one longer than its limit.
  std::string bytes(GetParam(), 'z');
  bytes[0] = '\0';
  bytes.replace(1, 4, std::string("one\0", 4));
  bytes.replace((256 << 10) - 2, 6, std::string("seam\0!", 6));  // crosses the first window's end
  bytes.replace((1 << 20), 5, std::string("\0far\0", 5));
  const std::string header = ReadFile(Fixture("fixture_pie"))->substr(0, sizeof(Elf64_Ehdr));
  std::string image = header + bytes;
  auto* ehdr = reinterpret_cast<Elf64_Ehdr*>(image.data());
  ehdr->e_phnum = 0;
  ehdr->e_shoff = 0;
  ehdr->e_shnum = 0;
  const auto file = ElfFile::FromBytes(std::make_shared<const std::string>(image), "strings");
  ASSERT_TRUE(file.ok()) << file.status();
  Section section;
  section.type = SHT_STRTAB;
  section.offset = FileOffset(header.size());
  section.size = bytes.size();
  StringTableReader reader(*file, section);
  EXPECT_EQ(*reader.At(1), "one");
  EXPECT_EQ(*reader.At((256 << 10) - 2), "seam");
  EXPECT_EQ(*reader.At((1 << 20) + 1), "far");
  EXPECT_EQ(*reader.At(2), "ne");
  EXPECT_EQ(*reader.At(0), "");
  EXPECT_EQ(*reader.At(bytes.size()), "");
  EXPECT_EQ(*reader.At(~uint64_t{0}), "");
  EXPECT_EQ(reader.At(1000)->size(), StringTableReader::kMaxNameBytes);
  section.offset = FileOffset(~uint64_t{0} - 10);
  StringTableReader outside(*file, section);
  EXPECT_FALSE(outside.At(5).ok());
}

INSTANTIATE_TEST_SUITE_P(Sizes, StringTableReaderTest,
                         testing::Values(2u << 20, StringTableReader::kWholeTableBytes + 4096));

}  // namespace
}  // namespace pyrometer::elf

// Files made to hurt: every reader must answer within bounds, with a value or a Status.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>

#include "userspace/base/file.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::elf {
namespace {

std::string Fixture(const std::string& name) { return std::string(PYROMETER_ELF_FIXTURES) + "/" + name; }

// Asks everything an ElfFile offers, reading at most a bounded amount; the answers do not matter.
// Returns how many of them were OK, so that a test can tell that something was reached.
int Exercise(const std::string& bytes) {
  const auto file = ElfFile::FromBytes(std::make_shared<const std::string>(bytes), "hostile");
  if (!file.ok()) return 0;
  int good = 1;
  constexpr uint64_t kMaxBytes = 8 << 20;
  good += file->ReadBuildId().ok();
  good += file->ReadDebugLink().ok();
  good += file->ReadDebugAltLink().ok();
  good += file->ReadMiniDebugInfo().ok();
  (void)file->ToElfAddress(FileOffset(0x1000));
  (void)file->ToElfAddress(FileOffset(~uint64_t{0}));
  (void)file->ToFileOffset(file->entry());
  (void)file->ReadMemory(file->entry(), 64, 64);
  uint64_t symbols = 0;
  for (const Section& section : file->sections()) {
    if (section.type == SHT_SYMTAB || section.type == SHT_DYNSYM) {
      const Section* strings = file->LinkedStrings(section);
      good += file->ForEachSymbol(section,
                                  [&](uint64_t, const std::vector<RawSymbol>& piece) {
                                    symbols += piece.size();
                                    if (strings == nullptr) return;
                                    StringTableReader names(*file, *strings);
                                    for (const RawSymbol& symbol : piece) (void)names.At(symbol.name);
                                  })
                  .ok();
    } else if (section.type == SHT_RELA) {
      good += file->ReadRelocations(section, 10'000).ok();
    } else if ((section.flags & SHF_COMPRESSED) != 0) {
      good += file->ReadSection(section, kMaxBytes).ok();
    }
  }
  EXPECT_LE(symbols, bytes.size());  // tables may overlap, but never hold more than the file
  return good;
}

// fixture32 and a stripped binary with packed minidebuginfo are small enough for all their bytes.
class HostileElfTest : public testing::TestWithParam<const char*> {
 protected:
  std::string bytes_ = *ReadFile(Fixture(GetParam()));
};

TEST_P(HostileElfTest, EveryTruncation) {
  EXPECT_GT(Exercise(bytes_), 2);
  const size_t step = bytes_.size() > 8192 ? 7 : 1;
  for (size_t n = 0; n < bytes_.size(); n += n < 2048 ? 1 : step) Exercise(bytes_.substr(0, n));
}

TEST_P(HostileElfTest, EveryByteOfTheHeadersReplaced) {
  const auto file = ElfFile::FromBytes(std::make_shared<const std::string>(bytes_), "whole");
  ASSERT_TRUE(file.ok());
  const size_t header = file->is_64bit() ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
  const size_t program = file->segments().size() * (file->is_64bit() ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr));
  const size_t section = file->sections().size() * (file->is_64bit() ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr));
  ASSERT_GT(section, 0u);
  // Linkers put the program headers after the ELF header and the section headers at the very end.
  for (size_t i = 0; i < bytes_.size(); ++i) {
    if (i >= header + program && i < bytes_.size() - section) continue;
    for (const char value : {'\x00', '\x01', '\x7f', '\x80', '\xff'}) {
      std::string corrupt = bytes_;
      corrupt[i] = value;
      Exercise(corrupt);
    }
  }
}

TEST_P(HostileElfTest, EveryWordOfTheHeadersReplacedByExtremes) {
  const auto file = ElfFile::FromBytes(std::make_shared<const std::string>(bytes_), "whole");
  ASSERT_TRUE(file.ok());
  const size_t section = file->sections().size() * (file->is_64bit() ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr));
  for (size_t i = 0; i + 8 <= bytes_.size(); i += 4) {
    if (i >= 1024 && i < bytes_.size() - section) continue;
    for (const uint64_t value : {~uint64_t{0}, ~uint64_t{0} - 4095, uint64_t{1} << 63, uint64_t{0x7fffffffffffffff},
                                 uint64_t{0xffffffff}, uint64_t{bytes_.size()}, uint64_t{bytes_.size() - 1}}) {
      std::string corrupt = bytes_;
      std::memcpy(corrupt.data() + i, &value, sizeof(value));
      Exercise(corrupt);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, HostileElfTest,
                         testing::Values("fixture32", "fixture_mini", "fixture_altlink", "fixture_split"));

uint64_t MaxResidentKib() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss);
}

// A sparse file of 4 GiB: `header` at the start, holes after.
class SparseFile {
 public:
  explicit SparseFile(const std::string& header)
      : path_(testing::TempDir() + "/elf_sparse_" + std::to_string(::getpid())) {
    EXPECT_TRUE(WriteFileAtomically(path_, header).ok());
    EXPECT_EQ(::truncate(path_.c_str(), off_t{4} << 30), 0);
  }
  ~SparseFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(SparseElfTest, FourGibibytesOfHolesCostNothing) {
  // Three sections: null, a symbol table and its strings, each of nearly 1 GiB in the hole.
  std::string header(4096, '\0');
  auto* ehdr = reinterpret_cast<Elf64_Ehdr*>(header.data());
  std::memcpy(ehdr->e_ident, ELFMAG, SELFMAG);
  ehdr->e_ident[EI_CLASS] = ELFCLASS64;
  ehdr->e_ident[EI_DATA] = ELFDATA2LSB;
  ehdr->e_type = ET_DYN;
  ehdr->e_machine = EM_X86_64;
  ehdr->e_phoff = 1024;
  ehdr->e_phentsize = sizeof(Elf64_Phdr);
  ehdr->e_phnum = 1;
  ehdr->e_shoff = 2048;
  ehdr->e_shentsize = sizeof(Elf64_Shdr);
  ehdr->e_shnum = 4;
  auto* phdr = reinterpret_cast<Elf64_Phdr*>(header.data() + 1024);
  *phdr = {PT_LOAD, PF_R | PF_X, 0, 0, 0, uint64_t{4} << 30, uint64_t{4} << 30, 4096};
  auto* shdr = reinterpret_cast<Elf64_Shdr*>(header.data() + 2048);
  shdr[1].sh_type = SHT_SYMTAB;
  shdr[1].sh_offset = 4096;
  shdr[1].sh_size = kMaxSymbolTableBytes / 24 * 24;
  shdr[1].sh_entsize = sizeof(Elf64_Sym);
  shdr[1].sh_link = 2;
  shdr[2].sh_type = SHT_STRTAB;
  shdr[2].sh_offset = uint64_t{2} << 30;
  shdr[2].sh_size = uint64_t{1} << 30;
  shdr[3].sh_type = SHT_PROGBITS;
  shdr[3].sh_flags = SHF_COMPRESSED;
  shdr[3].sh_offset = 4096;
  shdr[3].sh_size = uint64_t{3} << 30;
  const SparseFile sparse(header);

  const auto started = std::chrono::steady_clock::now();
  const uint64_t resident = MaxResidentKib();
  const auto file = ElfFile::Open(sparse.path());
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->sections().size(), 4u);
  uint64_t symbols = 0;
  EXPECT_TRUE(file->ForEachSymbol(file->sections()[1],
                                  [&](uint64_t, const std::vector<RawSymbol>& piece) { symbols += piece.size(); })
                  .ok());
  EXPECT_LT(symbols, 10'000u);
  StringTableReader names(*file, file->sections()[2]);
  EXPECT_EQ(*names.At(12345), "");
  EXPECT_EQ(file->ReadSection(file->sections()[2]).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(file->ReadSection(file->sections()[3]).status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(file->ReadBuildId().ok());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  EXPECT_LT(MaxResidentKib() - resident, 32u << 10);
  EXPECT_LT(took.count(), 5.0);  // 64 MiB of zeros are hashed; everything else is a few reads
  std::printf("%.0f ms\n", took.count() * 1e3);
}

TEST(ChangingElfTest, TruncatedWhileOpenGivesAStatus) {
  const std::string path = testing::TempDir() + "/elf_shrinks_" + std::to_string(::getpid());
  std::filesystem::copy_file(Fixture("fixture_pie"), path);
  const auto file = ElfFile::Open(path);
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(::truncate(path.c_str(), 100), 0);
  EXPECT_EQ(file->ReadSection(*file->FindSection(".text")).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(file->ForEachSymbol(*file->FindSection(SHT_SYMTAB), [](uint64_t, const std::vector<RawSymbol>&) {}).code(),
            StatusCode::kDataLoss);
  std::filesystem::remove(path);
}

TEST(ChangingElfTest, BigEndianAndGarbageSayWhy) {
  std::string bytes = *ReadFile(Fixture("fixture32"));
  bytes[EI_DATA] = ELFDATA2MSB;
  EXPECT_EQ(ElfFile::FromBytes(std::make_shared<const std::string>(bytes), "be").status().code(),
            StatusCode::kUnimplemented);
  EXPECT_EQ(
      ElfFile::FromBytes(std::make_shared<const std::string>("#!/bin/sh\necho no ELF\n"), "script").status().code(),
      StatusCode::kInvalidArgument);
  EXPECT_EQ(ElfFile::FromBytes(std::make_shared<const std::string>(), "empty").status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyrometer::elf

// Whatever a file says, building its table ends, in bounded memory, with names or a reason.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <random>
#include <string>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"
#include "userspace/symbolize/binary_symbols.h"

namespace pyrometer::symbolize {
namespace {

std::shared_ptr<const BinarySymbols> BuildFromImage(std::string image) {
  BinarySource source;
  source.path = "/hostile";
  source.image = std::make_shared<const std::string>(std::move(image));
  return BinarySymbols::Build({}, source, BuildOptions{.debug_folders = {}, .max_memory_bytes = 16u << 20});
}

void Check(const std::string& image) {
  const auto symbols = BuildFromImage(image);
  EXPECT_LE(symbols->index().memory_bytes(), 16u << 20);
  for (const uint64_t address : {uint64_t{0}, uint64_t{0x1180}, uint64_t{0x8049005}, ~uint64_t{0}}) {
    const auto hit = symbols->index().Find(ElfAddress(address));
    EXPECT_TRUE(!hit.has_value() || symbols->index().name(hit->function).size() <= 10'000u);
  }
}

class HostileSymbolsTest : public testing::TestWithParam<const char*> {
 protected:
  std::string bytes_ = *ReadFile(Fixture(GetParam()));
};

TEST_P(HostileSymbolsTest, EveryTruncation) {
  const size_t step = bytes_.size() / 2000 + 1;
  for (size_t n = 0; n < bytes_.size(); n += n < 1024 ? 1 : step) Check(bytes_.substr(0, n));
}

TEST_P(HostileSymbolsTest, EveryWordReplaced) {
  for (size_t i = 0; i + 4 <= bytes_.size(); i += 4) {
    const uint32_t value = i % 12 == 0 ? 0xffffffffu : (i % 12 == 4 ? 0x7ffffff0u : 1u);
    std::string corrupt = bytes_;
    std::memcpy(corrupt.data() + i, &value, sizeof(value));
    Check(corrupt);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, HostileSymbolsTest, testing::Values("fixture32", "fixture_mini", "fixture_stripped"));

TEST(HostileStringsTest, ATableWithoutAnyTerminatorCostsNoMoreThanItsNames) {
  // 200,000 symbols, each naming a string that never ends, in a table of 20 MiB.
  constexpr size_t kSymbols = 200'000, kStrings = 20u << 20;
  std::string image(4096, '\0');
  const auto header = *ReadFile(Fixture("fixture_pie"));
  std::memcpy(image.data(), header.data(), sizeof(Elf64_Ehdr));
  Elf64_Ehdr ehdr;
  std::memcpy(&ehdr, image.data(), sizeof(ehdr));
  ehdr.e_phnum = 0;
  ehdr.e_shoff = 1024;
  ehdr.e_shnum = 4;
  ehdr.e_shstrndx = 0;
  std::memcpy(image.data(), &ehdr, sizeof(ehdr));
  Elf64_Shdr sections[4] = {};
  sections[1] = {
      .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_addr = 0x1000, .sh_size = 1u << 30};
  sections[2] = {.sh_type = SHT_SYMTAB,
                 .sh_offset = 4096,
                 .sh_size = kSymbols * sizeof(Elf64_Sym),
                 .sh_link = 3,
                 .sh_entsize = sizeof(Elf64_Sym)};
  sections[3] = {.sh_type = SHT_STRTAB, .sh_offset = 4096 + kSymbols * sizeof(Elf64_Sym), .sh_size = kStrings};
  std::memcpy(image.data() + 1024, sections, sizeof(sections));
  for (size_t i = 0; i < kSymbols; ++i) {
    Elf64_Sym symbol = {};
    symbol.st_name = static_cast<Elf64_Word>(i * 97 % kStrings);
    symbol.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
    symbol.st_shndx = 1;
    symbol.st_value = 0x1000 + i * 16;
    symbol.st_size = 16;
    image.append(reinterpret_cast<const char*>(&symbol), sizeof(symbol));
  }
  // No two names are equal: equal ones are kept once.
  std::mt19937 random(1);
  for (size_t i = 0; i < kStrings; ++i) image.push_back(static_cast<char>('a' + random() % 26));
  const auto started = std::chrono::steady_clock::now();
  const auto symbols = BuildFromImage(image);
  // 16 MiB of names were taken, then the limit spoke.
  EXPECT_LE(symbols->index().memory_bytes(), 16u << 20);
  EXPECT_FALSE(symbols->problem_detail().empty());
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(10));
}

}  // namespace
}  // namespace pyrometer::symbolize

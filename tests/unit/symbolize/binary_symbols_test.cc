#include "userspace/symbolize/binary_symbols.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"

namespace pyrometer::symbolize {
namespace {

namespace fs = std::filesystem;

// Where fixture functions are, by the unstripped file itself.
std::map<std::string, ElfAddress> AddressesIn(const std::string& fixture) {
  std::map<std::string, ElfAddress> addresses;
  for (const NmSymbol& symbol : RunNm("--defined-only", Fixture(fixture))) {
    addresses[symbol.name] = ElfAddress(symbol.address);
  }
  return addresses;
}

std::string NameAt(const BinarySymbols& symbols, ElfAddress address) {
  const auto hit = symbols.index().Find(address);
  return hit.has_value() ? std::string(symbols.index().name(hit->function)) : "-";
}

std::shared_ptr<const BinarySymbols> BuildFrom(const std::string& path, const BuildId& id = {}) {
  return BinarySymbols::Build(id, SourceOf(path), BuildOptions{.debug_folders = {}});
}

class EveryKindOfBinary : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(EveryKindOfBinary, NamesTheSameFunctions) {
  const auto [fixture, original] = GetParam();
  const auto symbols = BuildFrom(Fixture(fixture));
  ASSERT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
  const auto addresses = AddressesIn(original);
  for (const char* name : {"hot_a", "_ZL10only_locali", "_ZN4shop8CheckoutEi", "_ZN4shop6BasketIiE5TotalEi",
                           "asm_unsized", "asm_untyped", "asm_inner", "asm_outer", "fixture_main"}) {
    ASSERT_TRUE(addresses.contains(name)) << name;
    EXPECT_EQ(NameAt(*symbols, addresses.at(name)), name);
  }
  // Within functions: one byte in, and the tail of the outer one behind the inner one.
  EXPECT_EQ(NameAt(*symbols, ElfAddress(addresses.at("asm_inner").value + 2)), "asm_outer");
  EXPECT_EQ(NameAt(*symbols, ElfAddress(addresses.at("asm_untyped").value + 2)), "asm_untyped");
  EXPECT_EQ(NameAt(*symbols, ElfAddress(0x10)), "-");
}

INSTANTIATE_TEST_SUITE_P(Fixtures, EveryKindOfBinary,
                         testing::Values(std::pair("fixture_pie", "fixture_pie"),
                                         std::pair("fixture_nopie", "fixture_nopie"),
                                         std::pair("libfixture.so", "libfixture.so"),
                                         std::pair("fixture_ibt", "fixture_ibt"),
                                         std::pair("fixture_split", "fixture_pie"),          // debug link, beside
                                         std::pair("fixture_nopie_split", "fixture_nopie"),  // in .debug/, by checksum
                                         std::pair("fixture_mini", "fixture_pie")));

TEST(BinarySymbolsTest, OriginsAreTold) {
  EXPECT_TRUE(BuildFrom(Fixture("fixture_pie"))->origin().symbol_table);
  EXPECT_TRUE(BuildFrom(Fixture("fixture_mini"))->origin().mini_debug_info);
  const auto split = BuildFrom(Fixture("fixture_split"));
  EXPECT_TRUE(split->origin().debug_file);
  EXPECT_EQ(split->origin().debug_file_name, Fixture("fixture_split.debug"));
  EXPECT_TRUE(BuildFrom(Fixture("libfixture.so"))->origin().dynamic_symbols);
}

TEST(BinarySymbolsTest, PltStubsAreNamed) {
  for (const char* fixture : {"fixture_pie", "fixture_ibt", "libfixture.so", "fixture_nopie", "fixture_stripped"}) {
    const auto symbols = BuildFrom(Fixture(fixture));
    // The independent word: objdump names stubs itself.
    int compared = 0;
    for (const std::string& line : Lines("objdump -d --section=.plt --section=.plt.sec --section=.plt.got " +
                                         Fixture(fixture) + " 2>/dev/null")) {
      const size_t open = line.find('<'), close = line.find("@plt>:");
      if (open == std::string::npos || close == std::string::npos) continue;
      const std::string name = line.substr(open + 1, close - open - 1);
      const ElfAddress address(std::stoull(line.substr(0, open), nullptr, 16));
      EXPECT_EQ(NameAt(*symbols, address), name + "@plt") << fixture;
      EXPECT_EQ(NameAt(*symbols, ElfAddress(address.value + 5)), name + "@plt") << fixture;
      ++compared;
    }
    EXPECT_GE(compared, 3) << fixture;
  }
}

TEST(BinarySymbolsTest, StrippedBinariesSayWhy) {
  const auto symbols = BuildFrom(Fixture("fixture_stripped"));
  EXPECT_EQ(symbols->problem(), MissReason::kNoSymbols);
  EXPECT_FALSE(symbols->problem_detail().empty());
  EXPECT_FALSE(symbols->build_id().empty());
}

TEST(BinarySymbolsTest, WrongFilesSayWhy) {
  EXPECT_EQ(BuildFrom("/no/such/binary")->problem(), MissReason::kFileGone);
  EXPECT_EQ(BuildFrom("/etc/passwd")->problem(), MissReason::kNotElf);
  EXPECT_EQ(BuildFrom("/dev/zero")->problem(), MissReason::kNotElf);
  EXPECT_EQ(BuildFrom(Fixture("fixture_pie"), BuildId{"0123456789"})->problem(), MissReason::kBuildIdMismatch);
  EXPECT_EQ(BinarySymbols::Build({}, BinarySource{}, {})->problem(), MissReason::kFileGone);
  BinarySource big_endian = SourceOf("x");
  std::string image = *ReadFile(Fixture("fixture32"));
  image[EI_DATA] = ELFDATA2MSB;
  big_endian.image = std::make_shared<const std::string>(image);
  EXPECT_EQ(BinarySymbols::Build({}, big_endian, {})->problem(), MissReason::kUnsupportedElf);
}

TEST(BinarySymbolsTest, MemoryLimitIsAReason) {
  const auto symbols = BinarySymbols::Build({}, SourceOf(Fixture("libfixture.so")),
                                            BuildOptions{.debug_folders = {}, .max_memory_bytes = 300});
  EXPECT_EQ(symbols->problem(), MissReason::kLimitReached);
  EXPECT_TRUE(symbols->index().empty());
}

TEST(BinarySymbolsTest, LaterOpenersServeWhenEarlierOnesFail) {
  const BuildId id = *elf::ElfFile::Open(Fixture("fixture_pie"))->ReadBuildId();
  BinarySource source;
  source.path = "/replaced";
  source.openers = {FileInRoot("", "/no/such/file"), FileInRoot("", "/etc/passwd"),
                    FileInRoot("", Fixture("libfixture.so")), FileInRoot("", Fixture("fixture_pie"))};
  const auto symbols = BinarySymbols::Build(id, source, {});
  EXPECT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
  source.openers.pop_back();
  EXPECT_EQ(BinarySymbols::Build(id, source, {})->problem(), MissReason::kNotElf);
}

TEST(BinarySymbolsTest, AHeldDescriptorOutlivesTheFile) {
  const TempFolder temp;
  fs::copy_file(Fixture("fixture_pie"), temp.path() + "/program");
  BinarySource source;
  source.path = temp.path() + "/program";
  source.openers = {HeldFile(std::make_shared<const UniqueFd>(*OpenForReading(source.path)))};
  fs::remove(source.path);
  EXPECT_EQ(BinarySymbols::Build({}, source, {})->problem(), MissReason::kNone);
}

TEST(BinarySymbolsTest, MapFilesReachADeletedBinary) {
  // Our own mapping of a file that is deleted then.
  const TempFolder temp;
  const std::string path = temp.path() + "/program";
  fs::copy_file(Fixture("fixture_pie"), path);
  const auto mapped = MappedFile::Map(path);
  ASSERT_TRUE(mapped.ok());
  fs::remove(path);
  uint64_t start = 0, end = 0;
  const std::string maps = *ReadFile("/proc/self/maps");
  const size_t at = maps.find(path);
  ASSERT_NE(at, std::string::npos);
  ASSERT_EQ(std::sscanf(maps.c_str() + maps.rfind('\n', at) + 1, "%lx-%lx", &start, &end), 2);
  BinarySource source;
  source.path = path;
  source.openers = {MapFile(static_cast<uint32_t>(::getpid()), VirtualAddress(start), VirtualAddress(end))};
  const auto symbols = BinarySymbols::Build({}, source, {});
  if (symbols->problem() == MissReason::kNoPermission) GTEST_SKIP() << "map_files needs CAP_CHECKPOINT_RESTORE or root";
  EXPECT_EQ(symbols->problem(), MissReason::kNone) << symbols->problem_detail();
}

TEST(BinarySymbolsTest, OffsetsBecomeAddresses) {
  const auto symbols = BuildFrom(Fixture("fixture_nopie"));
  const auto file = elf::ElfFile::Open(Fixture("fixture_nopie"));
  const elf::Section* text = file->FindSection(".text");
  EXPECT_EQ(symbols->ToElfAddress(text->offset), text->address);
  EXPECT_EQ(symbols->ToElfAddress(FileOffset(1u << 30)), std::nullopt);
}

}  // namespace
}  // namespace pyrometer::symbolize

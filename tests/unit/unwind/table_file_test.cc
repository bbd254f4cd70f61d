// Tables on disk: what is read is what was written, or nothing.
#include "userspace/unwind/table_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>
#include <filesystem>
#include <random>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/unwind/table_builder.h"

namespace pyrometer::unwind {
namespace {

using ::testing::HasSubstr;

UnwindTable SmallTable() {
  UnwindTable table;
  table.rules.push_back({.kind = PYRO_UNWIND_NONE});
  table.rules.push_back(
      {.kind = PYRO_UNWIND_REGISTER, .reg = PYRO_REG_RSP, .bx_saved = PYRO_SAVED_LOST, .offset = 8, .ra_at = -8});
  UnwindPart part;
  part.base = ElfAddress(0x1000);
  part.pages = 1;
  part.words = {3, 5, 0, 0x00100001, 0x00800000};
  table.parts.push_back(part);
  table.stats.functions = 1;
  table.stats.rows = 2;
  return table;
}

bool Same(const UnwindTable& a, const UnwindTable& b) {
  if (a.rules.size() != b.rules.size() || a.parts.size() != b.parts.size()) return false;
  if (std::memcmp(a.rules.data(), b.rules.data(), a.rules.size() * sizeof(UnwindRule)) != 0) return false;
  for (size_t i = 0; i < a.parts.size(); ++i) {
    if (a.parts[i].base != b.parts[i].base || a.parts[i].pages != b.parts[i].pages ||
        a.parts[i].words != b.parts[i].words) {
      return false;
    }
  }
  return std::memcmp(&a.stats, &b.stats, sizeof(a.stats)) == 0;
}

UnwindTable OwnTable() { return BuildUnwindTable(*elf::ElfFile::Open("/proc/self/exe"), {}).value(); }

TEST(TableFile, RoundTrip) {
  for (const UnwindTable& table : {SmallTable(), OwnTable(), UnwindTable()}) {
    const auto again = ParseTable(SerializeTable(table));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(Same(table, *again));
  }
}

// The bytes that docs/formats/unwind_table.md describes.
TEST(TableFile, GoldenBytes) {
  const std::string bytes = SerializeTable(SmallTable());
  ASSERT_EQ(bytes.size(), 104u + 2 * 16 + 16 + 5 * 4);
  EXPECT_EQ(HexEncode(bytes.substr(0, 16)), "5059524f554e57440100000002000000");
  EXPECT_EQ(HexEncode(bytes.substr(24, 8)), "0200000001000000");                   // rules, parts
  EXPECT_EQ(HexEncode(bytes.substr(32, 16)), "01000000000000000200000000000000");  // functions, rows
  EXPECT_EQ(HexEncode(bytes.substr(104, 32)),
            "00000000000000000000000000000000"
            "01070003080000000000f8ff00000000");
  EXPECT_EQ(HexEncode(bytes.substr(136)),
            "0010000000000000"
            "0100000005000000"
            "0300000005000000000000000100100000008000");
}

TEST(TableFile, EveryTruncationAndEveryFlippedBitIsNoticed) {
  const std::string bytes = SerializeTable(SmallTable());
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(ParseTable(bytes.substr(0, n)).ok()) << n;
  EXPECT_FALSE(ParseTable(bytes + "x").ok());
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    EXPECT_FALSE(ParseTable(flipped).ok()) << i;
  }
}

TEST(TableFile, RightChecksumsMakeNoWrongTables) {
  const std::string bytes = SerializeTable(SmallTable());
  std::mt19937 random(5);
  int accepted = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::string mutated = bytes;
    for (uint32_t k = 0; k <= random() % 3; ++k) {
      const size_t at = 24 + random() % (mutated.size() - 24);
      mutated[at] = static_cast<char>(random() % 4 == 0 ? random() : mutated[at] ^ (1 << random() % 8));
    }
    const uint64_t checksum = XXH3_64bits(mutated.data() + 24, mutated.size() - 24);
    std::memcpy(mutated.data() + 16, &checksum, sizeof(checksum));
    const auto table = ParseTable(mutated);
    if (!table.ok()) continue;
    ++accepted;
    for (const UnwindPart& part : table->parts) {
      // Ask everything: with the library's assertions or a sanitizer an index outside would not pass.
      for (uint32_t page = 0; page < part.pages; ++page) {
        for (uint64_t offset = 0; offset < 512; offset += 37) {
          const UnwindRule* rule = FindRule(*table, ElfAddress(part.base.value + page * 512 + offset));
          ASSERT_NE(rule, nullptr);
          ASSERT_LE(rule->kind, PYRO_UNWIND_UNSUPPORTED);
          ASSERT_LT(rule->reg, PYRO_REGISTERS);
        }
      }
    }
  }
  EXPECT_GT(accepted, 100) << "mutations of offsets and statistics are legal";
}

TEST(TableFile, OtherVersions) {
  std::string bytes = SerializeTable(SmallTable());
  bytes[8] = 2;
  const auto table = ParseTable(bytes);
  EXPECT_EQ(table.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(table.status())), HasSubstr("version 2.2"));
}

class Cache : public ::testing::Test {
 protected:
  Cache() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-cache-XXXXXX").string();
    folder_ = std::string(mkdtemp(pattern.data())) + "/unwind";
  }
  ~Cache() override { std::filesystem::remove_all(std::filesystem::path(folder_).parent_path()); }
  std::string folder_;
};

TEST_F(Cache, KeepsAndFinds) {
  const BuildId id{"0123456789abcdef"};
  {
    TableCache cache(folder_, 1 << 20);
    EXPECT_FALSE(cache.Has(id));
    EXPECT_FALSE(cache.Load(id).has_value());
    ASSERT_TRUE(cache.Store(id, SmallTable()).ok());
    EXPECT_TRUE(cache.Has(id));
    EXPECT_TRUE(Same(*cache.Load(id), SmallTable()));
  }
  TableCache again(folder_, 1 << 20);
  EXPECT_TRUE(again.Has(id));
  EXPECT_TRUE(Same(*again.Load(id), SmallTable()));
}

TEST_F(Cache, DamagedFilesCountAsAbsent) {
  const BuildId id{"0123456789abcdef"};
  TableCache cache(folder_, 1 << 20);
  ASSERT_TRUE(cache.Store(id, SmallTable()).ok());
  const std::string path = folder_ + "/0123456789abcdef.unwind";
  ASSERT_TRUE(WriteFileAtomically(path, "nonsense").ok());
  EXPECT_FALSE(cache.Load(id).has_value());
  std::filesystem::remove(path);
  EXPECT_FALSE(cache.Load(id).has_value());
}

TEST_F(Cache, NamesThatAreNone) {
  TableCache cache(folder_, 1 << 20);
  for (const std::string& name :
       {std::string("../../etc/passwd"), std::string("ab"), std::string(500, 'a'), std::string()}) {
    EXPECT_TRUE(cache.Store({name}, SmallTable()).ok());
    EXPECT_FALSE(cache.Has({name})) << name;
    EXPECT_FALSE(cache.Load({name}).has_value());
  }
  EXPECT_TRUE(cache.Store({"hash:00112233445566778899aabbccddeeff"}, SmallTable()).ok());
  EXPECT_TRUE(cache.Load({"hash:00112233445566778899aabbccddeeff"}).has_value());
}

TEST_F(Cache, StaysWithinItsLimit) {
  const UnwindTable table = OwnTable();
  const size_t size = SerializeTable(table).size();
  TableCache cache(folder_, 4 * size);
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(cache.Store({StrFormat("%016x", i)}, table).ok());
    usleep(10'000);  // so that times of change differ
    ASSERT_TRUE(cache.Load({StrFormat("%016x", 0)}).has_value()) << "read all along, so kept";
  }
  uint64_t total = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) total += entry.file_size();
  EXPECT_LE(total, 4 * size);
  EXPECT_FALSE(cache.Has({StrFormat("%016x", 1)}));
  EXPECT_TRUE(cache.Has({StrFormat("%016x", 11)}));
}

TEST_F(Cache, WithoutAFolderNothingIsKept) {
  TableCache cache("", 1 << 20);
  EXPECT_TRUE(cache.Store({"0123456789abcdef"}, SmallTable()).ok());
  EXPECT_FALSE(cache.Load({"0123456789abcdef"}).has_value());
}

}  // namespace
}  // namespace pyrometer::unwind

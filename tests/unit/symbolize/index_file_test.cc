// The bytes of an index file, damage to them, and the folder they are kept in.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/binary_symbols.h"
#include "userspace/symbolize/index_cache.h"
#include "userspace/symbolize/symbol_index.h"

namespace pyrometer::symbolize {
namespace {

// The shop of docs/formats/symbol_index.md.
SymbolIndex Small(const std::string& build_id = "c0ffee") {
  PlaceBuilder places(1u << 20);
  places.AddCode(0x1000, 0x40);
  const uint32_t file = places.File("a.c");
  places.Sequence({{0x1000, file, 10}, {0x1008, file, 12}}, 0x1020);
  const uint32_t inlined = places.Inline(0, places.Function("tax", 3), file, 12);
  const std::vector<dwarf::AddressRange> own = {{0x1000, 0x1020}};
  const std::vector<ScopeRange> ranges = {{0x1008, 0x1010, inlined}};
  places.Scopes(places.Function("total", 9), own, ranges);
  IndexFacts facts;
  facts.origin = format::kOriginSymbolTable | format::kOriginDwarf;
  facts.machine = 62;
  facts.about = StrFormat("build_id=%s\n", build_id);
  facts.segments = {
      {.offset = 0x1000, .address = 0x1000, .file_bytes = 0x40, .memory_bytes = 0x40, .type = 1, .flags = 5}};
  SymbolIndexBuilder builder;
  builder.Add(ElfAddress(0x1000), 0x20, {}, "total");
  builder.Add(ElfAddress(0x1020), 0x10, {}, "other");
  return std::move(builder).Build(&places, facts);
}

std::string Section(const SymbolIndex& index, uint32_t kind) {
  format::Header header;
  std::memcpy(&header, index.bytes().data(), sizeof(header));
  const format::SectionEntry& section = header.sections[kind];
  EXPECT_EQ(XXH3_64bits(index.bytes().data() + section.offset, section.bytes), section.checksum);
  return HexEncode(index.bytes().substr(section.offset, section.bytes));
}

// docs/formats/symbol_index.md shows these very bytes: a difference is a change of the format and needs a new kVersion.
TEST(IndexFileTest, GoldenBytes) {
  const SymbolIndex index = Small();
  const std::string_view bytes = index.bytes();
  EXPECT_EQ(bytes.substr(0, 8), "PYROSYM\n");
  EXPECT_EQ(HexEncode(bytes.substr(8, 8)), "01000000e8010000") << "version, header bytes";
  EXPECT_EQ(HexEncode(bytes.substr(16, 8)), HexEncode(std::string("\x10\x03\0\0\0\0\0\0", 8))) << "file bytes";
  EXPECT_EQ(HexEncode(bytes.substr(32, 8)), "210000003e000000") << "origin, machine";
  EXPECT_EQ(Section(index, format::kStrings),
            "0000"
            "0300612e63"
            "0300746178"
            "0500746f74616c"
            "05006f74686572");
  EXPECT_EQ(Section(index, format::kFunctions),
            "0000000000000000"
            "0700000003000000"
            "0c00000009000000"
            "1300000000000000");
  EXPECT_EQ(Section(index, format::kSpans),
            "0010000000000000"
            "0000000002000000200000000000000004000000"
            "04000000");
  EXPECT_EQ(Section(index, format::kRangeGuide),
            "000000000100000001000000"
            "02000000");
  EXPECT_EQ(Section(index, format::kRanges),
            "000000002000000002000000"
            "200000001000000003000000");
  EXPECT_EQ(Section(index, format::kResumed), "");
  EXPECT_EQ(Section(index, format::kFiles), "0000000002000000");
  EXPECT_EQ(Section(index, format::kInlined),
            "00000000000000000000000000000000"
            "0000000001000000010000000c000000");
  EXPECT_EQ(Section(index, format::kPlaceSpans),
            "0010000000000000"
            "0000000001000000000000000000000000000000"
            "02000000");
  EXPECT_EQ(Section(index, format::kPlaceBlocks), "0000000000000000");
  EXPECT_EQ(Section(index, format::kPlaceGuide), "0000000001000000");
  EXPECT_EQ(Section(index, format::kPlaceData),
            "00010a"
            "450204"
            "4101"
            "86010117");
  EXPECT_EQ(Section(index, format::kSegments),
            "0010000000000000001000000000000040000000000000004000000000000000"
            "0100000005000000");
  EXPECT_EQ(Section(index, format::kAbout), HexEncode("build_id=c0ffee\n"));
  EXPECT_TRUE(index.Verify().ok());
}

StatusOr<SymbolIndex> Load(std::string bytes) {
  return SymbolIndex::FromBytes(std::make_shared<const std::string>(std::move(bytes)));
}

// What a hostile or damaged index answers does not matter; that it answers does.
void AskEverything(const SymbolIndex& index) {
  std::vector<ElfAddress> addresses;
  for (uint64_t address = 0xff0; address < 0x1050; ++address) addresses.push_back(ElfAddress(address));
  for (const uint64_t address : {uint64_t{0}, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 33}) {
    addresses.push_back(ElfAddress(address));
  }
  SymbolIndex::FrameLists lists;
  std::vector<SymbolIndex::Hit> hits;
  index.Frames(addresses, &lists);
  index.Find(addresses, &hits);
  std::vector<SymbolIndex::Frame> frames;
  for (const ElfAddress address : addresses) {
    (void)index.Find(address);
    ASSERT_LE(index.Frames(address, &frames), SymbolIndex::kMaxFrames + 1);
  }
  for (const SymbolIndex::Frame& frame : frames) {
    ASSERT_LE(index.name(frame.function).size() + index.file(frame.file).size(), 2 * 65536u);
    (void)index.start_line(frame.function);
  }
  (void)index.Verify();
}

TEST(IndexFileTest, EveryTruncationIsRefused) {
  const std::string bytes(Small().bytes());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(Load(bytes.substr(0, length)).status().code(), StatusCode::kDataLoss) << length;
  }
  EXPECT_FALSE(Load(bytes + std::string(8, '\0')).ok());
}

TEST(IndexFileTest, EveryDamagedByteIsNoticedOrHarmless) {
  const std::string bytes(Small().bytes());
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int change : {0x01, 0x80, 0xff}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ change);
      const StatusOr<SymbolIndex> index = Load(damaged);
      if (at < sizeof(format::Header)) {
        EXPECT_FALSE(index.ok()) << "byte " << at << " of the header";
        continue;
      }
      ASSERT_TRUE(index.ok());
      AskEverything(*index);
    }
  }
}

// A header whose checksum is right says nothing about what is behind it.
TEST(IndexFileTest, AnyWordOfAnySectionMayBeAnything) {
  const std::string bytes(Small().bytes());
  std::mt19937 random(3);
  const uint32_t words[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0};
  for (int round = 0; round < 20'000; ++round) {
    std::string hostile = bytes;
    for (int changes = 1 + static_cast<int>(random() % 6); changes > 0; --changes) {
      const size_t at = (random() % (hostile.size() - 40)) / 4 * 4 + (random() % 4 == 0 ? 0 : 40);
      const uint32_t word = random() % 4 == 0 ? random() : words[random() % std::size(words)];
      std::memcpy(hostile.data() + std::min(at, hostile.size() - 4), &word, sizeof(word));
    }
    format::Header header;
    std::memcpy(&header, hostile.data(), sizeof(header));
    header.checksum = 0;
    header.checksum = XXH3_64bits(&header, sizeof(header));
    std::memcpy(hostile.data(), &header, sizeof(header));
    if (const StatusOr<SymbolIndex> index = Load(hostile); index.ok()) AskEverything(*index);
  }
}

TEST(IndexFileTest, AnotherVersionIsToldApart) {
  std::string bytes(Small().bytes());
  bytes[8] = 2;
  EXPECT_EQ(Load(bytes).status().code(), StatusCode::kFailedPrecondition);
}

TEST(IndexFileTest, VerifyReadsEverything) {
  std::string bytes(Small().bytes());
  bytes[bytes.size() - 9] ^= 1;
  const StatusOr<SymbolIndex> index = Load(bytes);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(index->Verify().code(), StatusCode::kDataLoss);
}

class IndexCacheTest : public testing::Test {
 protected:
  IndexCache::Options Options(uint64_t max_bytes = 1u << 20) {
    return {.folder = temp_.path() + "/symbols", .max_bytes = max_bytes};
  }
  std::string PathOf(const std::string& id) const { return temp_.path() + "/symbols/" + id + ".psym"; }
  static void Age(const std::string& path, int64_t seconds) {
    timespec times[2] = {{::time(nullptr) - seconds, 0}, {::time(nullptr) - seconds, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }

  TempFolder temp_;
};

TEST_F(IndexCacheTest, WhatWasStoredIsLoaded) {
  IndexCache cache(Options());
  ASSERT_TRUE(cache.status().ok()) << cache.status();
  EXPECT_FALSE(cache.Load({"c0ffee"}).has_value());
  const StatusOr<SymbolIndex> stored = cache.Store({"c0ffee"}, Small());
  ASSERT_TRUE(stored.ok()) << stored.status();
  const auto loaded = cache.Load({"c0ffee"});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->bytes(), Small().bytes());
  EXPECT_EQ(loaded->name(loaded->Find(ElfAddress(0x1008))->function), "total");
  struct stat info;
  ASSERT_EQ(::stat((temp_.path() + "/symbols").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  EXPECT_EQ(cache.counters().hits, 1u);
  EXPECT_EQ(cache.counters().misses, 1u);
  EXPECT_EQ(cache.counters().stored, 1u);
}

TEST_F(IndexCacheTest, FallbackIdsHaveFilesToo) {
  IndexCache cache(Options());
  ASSERT_TRUE(cache.Store({"hash:00ff"}, Small("hash:00ff")).ok());
  EXPECT_TRUE(cache.Load({"hash:00ff"}).has_value());
  EXPECT_EQ(::access(PathOf("hash-00ff").c_str(), R_OK), 0);
}

TEST_F(IndexCacheTest, NamesThatAreNoBuildIdsTouchNoFile) {
  IndexCache cache(Options());
  for (const char* id : {"", "../../etc/passwd", "abcG", "ab/cd", "hash:", "hash:../x", "AB"}) {
    EXPECT_FALSE(cache.Store({id}, Small()).ok()) << id;
    EXPECT_FALSE(cache.Load({id}).has_value()) << id;
  }
}

TEST_F(IndexCacheTest, DamagedFilesOtherVersionsAndOtherBinariesAreRemoved) {
  IndexCache cache(Options());
  for (const int at : {0, 8, 100}) {
    ASSERT_TRUE(cache.Store({"c0ffee"}, Small()).ok());
    {
      std::fstream file(PathOf("c0ffee"), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(at);
      file.put('\x7f');
    }
    EXPECT_FALSE(cache.Load({"c0ffee"}).has_value());
    EXPECT_NE(::access(PathOf("c0ffee").c_str(), F_OK), 0);
  }
  ASSERT_TRUE(cache.Store({"c0ffee"}, Small("beef")).ok());
  EXPECT_FALSE(cache.Load({"c0ffee"}).has_value());
  std::ofstream(PathOf("abcd"));  // empty
  EXPECT_FALSE(cache.Load({"abcd"}).has_value());
  EXPECT_EQ(cache.counters().damaged, 5u);
}

TEST_F(IndexCacheTest, TheFolderStaysWithinItsBytesLeastRecentlyUsedFirst) {
  const uint64_t one = Small("aa01").bytes().size();
  IndexCache cache(Options(3 * one + 100));
  std::vector<std::string> ids = {"aa01", "aa02", "aa03"};
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(cache.Store({ids[i]}, Small(ids[i])).ok());
    Age(PathOf(ids[i]), 100 - static_cast<int64_t>(i));
  }
  const auto held = cache.Load({"aa02"});
  ASSERT_TRUE(cache.Load({"aa01"}).has_value());  // used: now the youngest
  std::ofstream(temp_.path() + "/symbols/somebody_elses") << "kept";
  std::ofstream(PathOf("aa09") + ".tmp.123") << "left behind";
  Age(PathOf("aa09") + ".tmp.123", 7200);
  Age(PathOf("aa02"), 50);
  ASSERT_TRUE(cache.Store({"aa04"}, Small("aa04")).ok());
  EXPECT_NE(::access(PathOf("aa03").c_str(), F_OK), 0) << "used 98 s ago";
  EXPECT_EQ(::access(PathOf("aa02").c_str(), F_OK), 0);
  ASSERT_TRUE(cache.Store({"aa05"}, Small("aa05")).ok());
  EXPECT_NE(::access(PathOf("aa02").c_str(), F_OK), 0);
  EXPECT_EQ(::access(PathOf("aa01").c_str(), F_OK), 0);
  EXPECT_EQ(cache.counters().evicted, 2u);
  EXPECT_EQ(::access((temp_.path() + "/symbols/somebody_elses").c_str(), F_OK), 0);
  EXPECT_NE(::access((PathOf("aa09") + ".tmp.123").c_str(), F_OK), 0);
  EXPECT_EQ(held->name(held->Find(ElfAddress(0x1020))->function), "other") << "mapped ones survive";
  EXPECT_EQ(IndexCache(Options(one - 1)).Store({"aa06"}, Small("aa06")).status().code(),
            StatusCode::kResourceExhausted);
}

TEST_F(IndexCacheTest, AFolderThatOthersMayWriteIsRefused) {
  ASSERT_EQ(::mkdir((temp_.path() + "/symbols").c_str(), 0700), 0);
  ASSERT_EQ(::chmod((temp_.path() + "/symbols").c_str(), 0777), 0);
  IndexCache cache(Options());
  EXPECT_EQ(cache.status().code(), StatusCode::kPermissionDenied);
  EXPECT_FALSE(cache.Store({"c0ffee"}, Small()).ok());
  EXPECT_FALSE(cache.Load({"c0ffee"}).has_value());
  EXPECT_FALSE(IndexCache(IndexCache::Options{}).status().ok()) << "no folder";
}

TEST_F(IndexCacheTest, BinariesAreBuiltOnceAndMappedThen) {
  IndexCache cache(Options(64u << 20));
  BuildOptions options;
  options.cache = &cache;
  options.scratch_folder = cache.folder();
  const auto built = BinarySymbols::Build({}, SourceOf(Fixture("fixture_pie")), options);
  EXPECT_FALSE(built->from_cache());
  const auto loaded = BinarySymbols::Build(built->build_id(), SourceOf("/nonexistent"), options);
  EXPECT_TRUE(loaded->from_cache()) << "the binary itself is not needed any more";
  EXPECT_EQ(loaded->problem(), MissReason::kNone);
  EXPECT_EQ(loaded->index().bytes(), built->index().bytes());
  EXPECT_EQ(loaded->origin().symbol_table, built->origin().symbol_table);
  EXPECT_EQ(loaded->origin().dwarf, built->origin().dwarf);
  EXPECT_EQ(loaded->build_id().hex, built->build_id().hex);
  EXPECT_EQ(loaded->ToElfAddress(FileOffset(0x1100)), built->ToElfAddress(FileOffset(0x1100)));
  EXPECT_TRUE(loaded->ToElfAddress(FileOffset(0x1100)).has_value());
  // A stripped binary without any name is nothing to keep.
  const auto stripped = BinarySymbols::Build({}, SourceOf(Fixture("fixture_nopie_stripped")), options);
  EXPECT_EQ(stripped->problem() == MissReason::kNone, cache.counters().stored == 2);
}

TEST_F(IndexCacheTest, ADebugFileThatCameLaterIsRead) {
  IndexCache cache(Options(64u << 20));
  BuildOptions options;
  options.cache = &cache;
  options.debug_folders = {temp_.path() + "/debug"};
  const auto before = BinarySymbols::Build({}, SourceOf(Fixture("fixture_mini")), options);
  ASSERT_EQ(before->problem(), MissReason::kNone) << before->problem_detail();
  EXPECT_FALSE(before->origin().dwarf);
  const std::string& id = before->build_id().hex;
  const std::string folder = temp_.path() + "/debug/.build-id/" + id.substr(0, 2);
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(Fixture("fixture_split.debug"), folder + "/" + id.substr(2) + ".debug");
  const auto after = BinarySymbols::Build(before->build_id(), SourceOf(Fixture("fixture_mini")), options);
  EXPECT_FALSE(after->from_cache());
  EXPECT_TRUE(after->origin().dwarf);
  const auto again = BinarySymbols::Build(before->build_id(), SourceOf(Fixture("fixture_mini")), options);
  EXPECT_TRUE(again->from_cache());
  EXPECT_EQ(again->origin().debug_file_name, after->origin().debug_file_name);
}

}  // namespace
}  // namespace pyrometer::symbolize

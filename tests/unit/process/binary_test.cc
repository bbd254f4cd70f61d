#include "userspace/process/binary.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/process/proc_text.h"

namespace pyrometer::process {
namespace {

namespace fs = std::filesystem;

class BinaryTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/pyrometer-binary-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Copy(const std::string& name) {
    const std::string path = folder_ + "/" + name;
    fs::copy_file("/proc/self/exe", path, fs::copy_options::overwrite_existing);
    return path;
  }

  // A record that names the file as it is now, in our own process, at addresses where nothing is mapped.
  static Mapping MappingOf(const std::string& path) {
    struct stat info;
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    Mapping mapping;
    mapping.key.tgid = static_cast<uint32_t>(::getpid());
    mapping.start = VirtualAddress(0x10000);
    mapping.end = VirtualAddress(0x20000);
    mapping.device_major = major(info.st_dev);
    mapping.device_minor = minor(info.st_dev);
    mapping.inode = info.st_ino;
    mapping.protection = kProtRead | kProtExec;
    mapping.path = path;
    return mapping;
  }

  std::string folder_;
};

TEST_F(BinaryTest, OneFileIsOneBinaryWithItsHeaders) {
  const auto table = BinaryTable::Create({});
  const std::string path = Copy("a");
  const auto first = table->ForMapping(MappingOf(path), {});
  const auto second = table->ForMapping(MappingOf(path), {});
  EXPECT_EQ(first, second);
  EXPECT_EQ(table->counters().opened, 1u);
  ASSERT_TRUE(first->problem().ok()) << first->problem();
  EXPECT_FALSE(first->segments().empty());
  EXPECT_FALSE(first->build_id().empty());
  EXPECT_EQ(first->path(), path);
  EXPECT_FALSE(first->deleted());
  EXPECT_TRUE(first->Open().ok());
  EXPECT_EQ(first->RootPrefix(), StrFormat("/proc/%d/root", ::getpid()));
}

TEST_F(BinaryTest, ElfAddressIsWhatTheLinkerSays) {
  const auto table = BinaryTable::Create({});
  Dl_info info;
  const auto here = reinterpret_cast<uint64_t>(&BinaryTable::Create);
  ASSERT_NE(::dladdr(reinterpret_cast<void*>(here), &info), 0);
  const auto base = reinterpret_cast<uint64_t>(info.dli_fbase);
  const auto maps = ReadFile("/proc/self/maps");
  ASSERT_TRUE(maps.ok());
  bool checked = false;
  ForEachMap(*maps, [&](const MapsEntry& entry) {
    if (here < entry.start.value || here >= entry.end.value) return true;
    Mapping mapping = MappingOf("/proc/self/exe");
    mapping.start = entry.start;
    mapping.end = entry.end;
    mapping.path = std::string(entry.path);
    const auto binary = table->ForMapping(mapping, {});
    EXPECT_EQ(binary->ToElfAddress(FileOffset(entry.offset.value + here - entry.start.value)), ElfAddress(here - base));
    EXPECT_EQ(binary->ToElfAddress(FileOffset(1ull << 60)), std::nullopt);
    checked = true;
    return false;
  });
  EXPECT_TRUE(checked);
}

TEST_F(BinaryTest, ReplacedFileIsAnotherBinary) {
  const auto table = BinaryTable::Create({});
  const std::string path = Copy("a");
  const auto old = table->ForMapping(MappingOf(path), {});
  Copy("b");
  fs::rename(folder_ + "/b", path);
  const auto fresh = table->ForMapping(MappingOf(path), {});
  EXPECT_NE(old, fresh);
  EXPECT_NE(old->identity()->inode, fresh->identity()->inode);
  EXPECT_TRUE(old->Open().ok());  // gone from disk, still held
}

TEST_F(BinaryTest, FileWrittenInPlaceIsAnotherBinary) {
  const auto table = BinaryTable::Create({});
  const std::string path = Copy("a");
  const auto old = table->ForMapping(MappingOf(path), {});
  std::ofstream(path, std::ios::app) << "more";
  const auto fresh = table->ForMapping(MappingOf(path), {});
  EXPECT_NE(old, fresh);
}

TEST_F(BinaryTest, WrongInodeIsNeverTakenForTheFile) {
  const auto table = BinaryTable::Create({});
  Mapping mapping = MappingOf(Copy("a"));
  mapping.inode += 1'000'000;
  const auto binary = table->ForMapping(mapping, {});
  EXPECT_FALSE(binary->problem().ok());
  EXPECT_FALSE(binary->identity());
  EXPECT_TRUE(binary->segments().empty());
  EXPECT_FALSE(binary->Open().ok());
  EXPECT_EQ(table->counters().unreachable, 1u);
}

TEST_F(BinaryTest, RecordWithBuildIdOnlyIsCheckedByIt) {
  const auto table = BinaryTable::Create({});
  const std::string path = Copy("a");
  const auto held = table->ForMapping(MappingOf(path), {});
  const BuildId build_id = held->build_id();
  Mapping record = MappingOf(path);
  record.device_major = record.device_minor = 0;
  record.inode = 0;
  record.build_id = build_id;
  EXPECT_EQ(table->ForMapping(record, {})->build_id(), build_id);
  const uint64_t opened = table->counters().opened;
  table->ForMapping(record, {});
  EXPECT_EQ(table->counters().opened, opened);  // known by build ID and path: no file touched

  record.build_id.hex = std::string(40, 'a');
  const auto stranger = table->ForMapping(record, {});
  EXPECT_FALSE(stranger->problem().ok());
  EXPECT_EQ(stranger->build_id().hex, std::string(40, 'a'));  // still worth looking up elsewhere
  EXPECT_EQ(table->ForMapping(record, {}), stranger);         // one object, however often it is seen
}

TEST_F(BinaryTest, HeldFilesAreBoundedAndReopenedOnlyIfTheSame) {
  const auto table = BinaryTable::Create({.max_held_files = 2});
  std::vector<std::shared_ptr<const Binary>> binaries;
  for (int i = 0; i < 5; ++i) binaries.push_back(table->ForMapping(MappingOf(Copy(StrFormat("f%d", i))), {}));
  EXPECT_EQ(table->counters().held_files, 2u);
  EXPECT_EQ(table->counters().evicted, 3u);
  EXPECT_TRUE(binaries[0]->Open().ok());  // closed, opened again, found the same
  EXPECT_EQ(table->counters().held_files, 2u);
  EXPECT_EQ(table->counters().evicted, 4u);
  fs::remove(folder_ + "/f1");
  Copy("f1");
  const auto replaced = binaries[1]->Open();
  EXPECT_EQ(replaced.status().code(), StatusCode::kNotFound) << replaced.status();
}

TEST_F(BinaryTest, FifosDirectoriesAndTextDoNotStopUs) {
  const auto table = BinaryTable::Create({});
  const std::string fifo = folder_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(table->ForMapping(MappingOf(fifo), {})->problem().ok());
  EXPECT_FALSE(table->ForMapping(MappingOf(folder_), {})->problem().ok());
  const std::string text = folder_ + "/text";
  ASSERT_TRUE(WriteFileAtomically(text, "not an ELF file").ok());
  const auto binary = table->ForMapping(MappingOf(text), {});
  EXPECT_FALSE(binary->problem().ok());
  EXPECT_TRUE(binary->identity());
  EXPECT_TRUE(binary->build_id().empty());
}

TEST_F(BinaryTest, ForgetsWhatNobodyUses) {
  const auto table = BinaryTable::Create({.max_binaries = 4});
  std::vector<std::shared_ptr<const Binary>> kept;
  for (int i = 0; i < 6; ++i) kept.push_back(table->ForMapping(MappingOf(Copy(StrFormat("f%d", i))), {}));
  EXPECT_EQ(table->counters().binaries, 4u);
  EXPECT_EQ(table->counters().over_limit, 2u);
  for (const auto& binary : kept) EXPECT_TRUE(binary->problem().ok());  // over the limit, yet usable
}

TEST(StripDeleted, OnlyTheKernelsSuffix) {
  bool deleted = false;
  EXPECT_EQ(StripDeleted("/x (deleted)", &deleted), "/x");
  EXPECT_TRUE(deleted);
  EXPECT_EQ(StripDeleted("/x (deleted) ", &deleted), "/x (deleted) ");
  EXPECT_FALSE(deleted);
}

}  // namespace
}  // namespace pyrometer::process

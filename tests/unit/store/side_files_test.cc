// Uploaded symbols in backups.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/store/store_testing.h"
#include "userspace/base/file.h"
#include "userspace/store/side_files.h"

namespace pyrometer::store {
namespace {

using ::testing::HasSubstr;

class SideFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = MustOpen(data_);
    BatchBuilder b("agent", 1);
    b.Cpu(b.Series("cpu", {{"service", "shop"}}), kT0, {{b.Stack({"main"}), 3}});
    ASSERT_TRUE(store->Append(b.batch).ok());
  }
  void Put(const std::string& name, const std::string& content) {
    const std::filesystem::path path = data_ + "/symbols/.build-id/" + name;
    std::filesystem::create_directories(path.parent_path());
    ASSERT_TRUE(WriteFileAtomically(path, content).ok());
  }
  BackupInfo Backup() { return Value(MustOpen(data_)->Backup(backups_)); }
  // Content of a file in what backup `id` restores; "(absent)" when it is not there.
  std::string Restored(uint32_t id, const std::string& name) {
    const std::string into = folder_.path() + "/restored" + std::to_string(++restores_);
    const StatusOr<BackupInfo> info = RestoreBackup(backups_, id, into);
    if (!info.ok()) return std::string(Message(info.status()));
    EXPECT_EQ(SampleSum(*MustOpen(into)), 3u);
    const StatusOr<std::string> content = ReadFile(into + "/symbols/.build-id/" + name);
    return content.ok() ? *content : "(absent)";
  }
  std::vector<std::string> Contents() const {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(backups_ + "/files")) paths.push_back(entry.path());
    return paths;
  }

  const TempFolder folder_;
  const std::string data_ = folder_.path() + "/data";
  const std::string backups_ = folder_.path() + "/backups";
  int restores_ = 0;
};

TEST_F(SideFilesTest, BackupsWithoutSymbolsHaveNone) {
  Backup();
  EXPECT_FALSE(std::filesystem::exists(backups_ + "/files"));
  EXPECT_EQ(Restored(0, "aa/bb.debug"), "(absent)");
}

TEST_F(SideFilesTest, EachBackupHasTheFilesOfItsMoment) {
  Put("aa/01.debug", "first");
  Put("aa/02.debug", "second");
  const uint64_t bytes = Backup().bytes;
  Put("aa/01.debug", "first, replaced");
  std::filesystem::remove(data_ + "/symbols/.build-id/aa/02.debug");
  Put("bb/03.debug", "third");
  Put("bb/index", "made again when needed");
  Backup();
  EXPECT_EQ(Restored(1, "aa/01.debug"), "first");
  EXPECT_EQ(Restored(1, "aa/02.debug"), "second");
  EXPECT_EQ(Restored(1, "bb/03.debug"), "(absent)");
  EXPECT_EQ(Restored(2, "aa/01.debug"), "first, replaced");
  EXPECT_EQ(Restored(2, "aa/02.debug"), "(absent)");
  EXPECT_EQ(Restored(0, "bb/03.debug"), "third");
  EXPECT_EQ(Restored(0, "bb/index"), "(absent)");
  const std::vector<BackupInfo> listed = Value(ListBackups(backups_, true));
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].bytes, bytes);
}

TEST_F(SideFilesTest, ContentsAreSharedAndNotReadAgain) {
  Put("aa/01.debug", "same");
  Put("aa/02.debug", "same");
  Backup();
  EXPECT_EQ(Contents().size(), 2u) << "one content, one list";
  Backup();
  EXPECT_EQ(Contents().size(), 2u);
  // A file of the same size and time counts as the same.
  const std::string path = data_ + "/symbols/.build-id/aa/01.debug";
  const auto time = std::filesystem::last_write_time(path);
  std::ofstream(path) << "SAME";
  std::filesystem::last_write_time(path, time);
  Backup();
  EXPECT_EQ(Restored(0, "aa/01.debug"), "same");
}

TEST_F(SideFilesTest, AFlippedBitIsFound) {
  Put("aa/01.debug", "some symbols");
  Backup();
  for (const std::string& path : Contents()) {
    SCOPED_TRACE(path);
    const std::string good = Value(ReadFile(path));
    std::string bad = good;
    bad[bad.size() / 2] ^= 1;
    std::ofstream(path) << bad;
    const Status listed = ListBackups(backups_, true).status();
    EXPECT_EQ(listed.code(), StatusCode::kDataLoss) << listed;
    const std::string into = folder_.path() + "/damaged";
    const Status restored = RestoreBackup(backups_, 0, into).status();
    EXPECT_EQ(restored.code(), StatusCode::kDataLoss) << restored;
    EXPECT_THAT(std::string(Message(restored)), HasSubstr("use another backup"));
    EXPECT_FALSE(std::filesystem::exists(into)) << "no half store is left";
    std::ofstream(path) << good;
  }
  EXPECT_EQ(Restored(0, "aa/01.debug"), "some symbols");
}

TEST_F(SideFilesTest, AListCannotReachOutOfItsFolder) {
  Put("aa/01.debug", "x");
  const SideFiles saved = Value(SaveSideFiles(data_, backups_, ""));
  EXPECT_EQ(RestoreSideFiles(backups_, "../../etc/passwd", folder_.path() + "/n").code(), StatusCode::kDataLoss);
  EXPECT_TRUE(RestoreSideFiles(backups_, saved.name, folder_.path() + "/n").ok());
}

}  // namespace
}  // namespace pyrometer::store

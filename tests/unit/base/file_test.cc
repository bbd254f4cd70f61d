#include "userspace/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

namespace pyrometer {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/pyrometer-file-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(FileTest, WritesAtomicallyAndReadsBack) {
  const std::string path = folder_ + "/a";
  ASSERT_TRUE(WriteFileAtomically(path, "first").ok());
  ASSERT_TRUE(WriteFileAtomically(path, "second").ok());
  EXPECT_EQ(*ReadFile(path), "second");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1) << "a temporary file was left";
}

TEST_F(FileTest, FullDiskLeavesNothingBehind) {
  // /dev/full accepts the open and fails every write with ENOSPC.
  UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full);
  EXPECT_EQ(WriteAll(full.get(), "x", "/dev/full").code(), StatusCode::kResourceExhausted);
}

TEST_F(FileTest, MissingFolderIsNamed) {
  const Status status = WriteFileAtomically(folder_ + "/none/a", "x");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(Message(status).find("/none/a"), std::string_view::npos);
}

TEST_F(FileTest, ReadsProcFilesThatClaimToBeEmpty) { EXPECT_FALSE(ReadFile("/proc/self/maps")->empty()); }

TEST_F(FileTest, RefusesMoreThanTheLimit) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/big", std::string(200'000, 'x')).ok());
  EXPECT_EQ(ReadFile(folder_ + "/big", 100'000).status().code(), StatusCode::kResourceExhausted);
}

TEST_F(FileTest, MapsEmptyAndFullFilesAndRefusesFolders) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/empty", "").ok());
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/full", "abc").ok());
  EXPECT_TRUE(MappedFile::Map(folder_ + "/empty")->bytes().empty());
  EXPECT_EQ(MappedFile::Map(folder_ + "/full")->bytes().size(), 3u);
  EXPECT_EQ(MappedFile::Map(folder_).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyrometer

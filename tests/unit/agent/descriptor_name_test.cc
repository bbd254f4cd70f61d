#include "userspace/agent/descriptor_name.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>

#include "userspace/base/owned.h"
#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

uint32_t Tid() { return static_cast<uint32_t>(::syscall(SYS_gettid)); }

std::string NameOf(int fd, uint64_t inode) {
  return DescriptorName(static_cast<uint32_t>(::getpid()), Tid(), fd, inode);
}

uint64_t InodeOf(int fd) {
  struct stat status {};
  EXPECT_EQ(::fstat(fd, &status), 0);
  return status.st_ino;
}

class DescriptorNameTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/descriptor-XXXXXX";
    fd_ = UniqueFd(::mkstemp(name.data()));
    ASSERT_TRUE(fd_);
    path_ = name;
  }
  void TearDown() override { ::unlink(path_.c_str()); }

  UniqueFd fd_;
  std::string path_;
};

TEST_F(DescriptorNameTest, FilesPipesAndTheRest) {
  EXPECT_EQ(NameOf(fd_.get(), InodeOf(fd_.get())), std::filesystem::canonical(path_).string());
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd in(ends[0]), out(ends[1]);
  EXPECT_EQ(NameOf(in.get(), InodeOf(in.get())), StrFormat("pipe:[%d]", InodeOf(in.get())));
}

TEST_F(DescriptorNameTest, AnotherFileThanTheOneThatWasSeen) {
  EXPECT_EQ(NameOf(fd_.get(), InodeOf(fd_.get()) + 1), "(closed since)");
}

TEST_F(DescriptorNameTest, ClosedAndEnded) {
  const int fd = fd_.get();
  const uint64_t inode = InodeOf(fd);
  fd_.Reset();
  EXPECT_EQ(NameOf(fd, inode), "(closed since)");
  EXPECT_EQ(DescriptorName(static_cast<uint32_t>(::getpid()), 4'194'304 + 7, fd, inode), "(ended since)");
}

TEST_F(DescriptorNameTest, LongPathsLoseTheirMiddle) {
  std::string folder = ::testing::TempDir() + "/long";
  for (int i = 0; i < 5; ++i) folder += "/" + std::string(100, static_cast<char>('a' + i));
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/end";
  const UniqueFd fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_TRUE(fd);
  const std::string name = NameOf(fd.get(), InodeOf(fd.get()));
  EXPECT_LE(name.size(), kMaxNameBytes);
  EXPECT_THAT(name, ::testing::HasSubstr("…"));
  EXPECT_TRUE(name.ends_with("/end"));
  std::filesystem::remove_all(::testing::TempDir() + "/long");
}

}  // namespace
}  // namespace pyrometer::agent

#include "userspace/containers/container_probe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::containers {
namespace {

namespace fs = std::filesystem;

// A /proc whose "root" and "ns/mnt" are links to files of ours: identities are inodes, as in the real one.
class ProbeTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/pyrometer-probe-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    for (const char* name : {"host-root", "other-root"}) fs::create_directories(folder_ + "/" + name);
    for (const char* name : {"host-mnt", "other-mnt"}) {
      ASSERT_TRUE(WriteFileAtomically(folder_ + "/" + name, "").ok());
    }
    AddProcess(1, "host-root", "host-mnt");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void AddProcess(uint32_t pid, const std::string& root, const std::string& mounts) {
    const std::string proc = StrFormat("%s/proc/%d", folder_, pid);
    fs::create_directories(proc + "/ns");
    fs::create_directory_symlink(folder_ + "/" + root, proc + "/root");
    fs::create_symlink(folder_ + "/" + mounts, proc + "/ns/mnt");
  }
  ContainerProbe Probe() {
    return ContainerProbe({.proc_root = folder_ + "/proc", .state_roots = {folder_ + "/state"}});
  }

  std::string folder_;
  const ContainerIdentity shop_ = {.runtime = Runtime::kRunc, .certain = false, .container_id = "shop-probe-test"};
};

TEST_F(ProbeTest, OtherRootInOtherMountsIsAContainer) {
  AddProcess(10, "other-root", "other-mnt");
  const ProbeResult result = Probe().Decide(shop_, {10});
  EXPECT_EQ(result.verdict, ProbeVerdict::kContainer);
  EXPECT_EQ(result.runtime, Runtime::kRunc);
}

TEST_F(ProbeTest, ChrootOrPrivateMountsAloneAreNot) {
  AddProcess(10, "other-root", "host-mnt");
  AddProcess(11, "host-root", "other-mnt");
  AddProcess(12, "host-root", "host-mnt");
  for (uint32_t pid : {10, 11, 12}) EXPECT_EQ(Probe().Decide(shop_, {pid}).verdict, ProbeVerdict::kHost) << pid;
}

TEST_F(ProbeTest, OneForeignProcessDecides) {
  AddProcess(10, "host-root", "host-mnt");  // runc itself, before it enters
  AddProcess(11, "other-root", "other-mnt");
  EXPECT_EQ(Probe().Decide(shop_, {10, 11}).verdict, ProbeVerdict::kContainer);
}

TEST_F(ProbeTest, NobodyToLookAt) {
  EXPECT_EQ(Probe().Decide(shop_, {}).verdict, ProbeVerdict::kUndecided);
  EXPECT_EQ(Probe().Decide(shop_, {77}).verdict, ProbeVerdict::kUndecided);
}

TEST_F(ProbeTest, StateOnDiskIsEnough) {
  fs::create_directories(folder_ + "/state/shop-probe-test");
  EXPECT_EQ(Probe().Decide(shop_, {}).verdict, ProbeVerdict::kUndecided);  // not yet written
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/state/shop-probe-test/state.json", "{}").ok());
  EXPECT_EQ(Probe().Decide(shop_, {}).verdict, ProbeVerdict::kContainer);
}

TEST_F(ProbeTest, NamesDoNotLeadOutOfTheStateFolder) {
  fs::create_directories(folder_ + "/state");
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/state.json", "{}").ok());
  ContainerIdentity evil = shop_;
  for (const char* id : {"..", ".", "", "../x"}) {
    evil.container_id = id;
    EXPECT_EQ(Probe().Decide(evil, {}).verdict, ProbeVerdict::kUndecided) << id;
  }
}

}  // namespace
}  // namespace pyrometer::containers

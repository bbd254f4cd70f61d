// A real podman container, by its cgroup and by what podman keeps on disk.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/containers/eventually.h"
#include "tests/support/run_program.h"
#include "tests/support/runc_container.h"
#include "userspace/base/strings.h"
#include "userspace/containers/container_index.h"
#include "userspace/containers/oci_bundle.h"

namespace pyrometer::containers {
namespace {

using test_support::HaveProgram;
using test_support::ProgramResult;
using test_support::RuncContainer;
using test_support::RunProgram;
namespace fs = std::filesystem;

class PodmanTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = RuncContainer::WhyNot()) GTEST_SKIP() << *why;
    if (!HaveProgram("podman")) GTEST_SKIP() << "podman is not installed";
    char folder[] = "/tmp/pyrometer-podman-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    scratch_ = folder;
    name_ = StrFormat("podshop-%d", ::getpid());
    had_parent_ = fs::exists("/sys/fs/cgroup/pids/libpod_parent") ||
                  fs::exists(test_support::Cgroup2MountPoint() + "/libpod_parent");
  }
  void TearDown() override {
    if (scratch_.empty()) return;
    if (!image_.empty()) Podman({"rm", "-f", "-t", "0", name_});
    if (!image_.empty()) Podman({"rmi", "-f", image_});
    std::error_code error;
    fs::remove_all(scratch_, error);
    // podman leaves its parent cgroups; conmon may still be in one for a moment. Somebody else's podman may use
    // them too, then they stay.
    if (image_.empty() || had_parent_) return;
    for (const auto& entry : fs::directory_iterator("/sys/fs/cgroup")) RemoveParent(entry.path().string());
    RemoveParent("/sys/fs/cgroup");
  }
  static void RemoveParent(const std::string& mount) {
    const std::string parent = mount + "/libpod_parent";
    if (!fs::exists(parent)) return;
    Eventually([&] {
      ::rmdir((parent + "/conmon").c_str());
      return ::rmdir(parent.c_str()) == 0;
    });
  }
  // runc, because crun refuses hybrid hosts; own storage, so that the user's is not touched.
  ProgramResult Podman(std::vector<std::string> arguments) {
    std::vector<std::string> all = {"podman",    "--root", scratch_ + "/root",         "--runroot", scratch_ + "/run",
                                    "--runtime", "runc",   "--cgroup-manager=cgroupfs"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProgram(all, {.timeout_ns = 60 * kNsPerSecond});
  }

  std::string scratch_;
  std::string name_;
  std::string image_;
  bool had_parent_ = false;  // before the test
};

TEST_F(PodmanTest, NamedFromStorageOnDisk) {
  ASSERT_TRUE(test_support::MakeRootfs(scratch_ + "/rootfs", {}).ok());
  const std::string archive = scratch_ + "/image.tar";
  ASSERT_EQ(RunProgram({"tar", "-C", scratch_ + "/rootfs", "-cf", archive, "."}).exit_code, 0);
  const ProgramResult imported = Podman({"import", "-q", archive, "localhost/pyrometer-peer:1"});
  if (imported.exit_code != 0) GTEST_SKIP() << "podman cannot make an image here: " << imported.output;
  image_ = "localhost/pyrometer-peer:1";

  auto index = ContainerIndex::Start({});
  ASSERT_TRUE(index.ok()) << index.status();
  (*index)->AddClient(MakeBundleClient({.containers_storages = {scratch_ + "/run", scratch_ + "/root"}}));
  // Limits that an agent without CAP_SYS_RESOURCE may set.
  const ProgramResult run = Podman({"run", "-d", "--name", name_, "--network=none", "--ulimit", "nofile=1024:1024",
                                    "--ulimit", "nproc=1024:1024", image_, "/bin/sleep", "60"});
  if (run.exit_code != 0) GTEST_SKIP() << "podman cannot run a container here: " << run.output;
  EXPECT_TRUE(Eventually([&] { return (*index)->FindByName(name_).ok(); }));
  const auto matches = (*index)->FindByName(name_);
  ASSERT_TRUE(matches.ok()) << matches.status();
  ASSERT_EQ(matches->size(), 1u);
  const ContainerInfo& info = *(*matches)[0].info;
  EXPECT_EQ(info.identity.runtime, Runtime::kPodman);
  EXPECT_TRUE(IsFullContainerId(info.identity.container_id));
  EXPECT_EQ(Label(info, "container.name"), name_);
  EXPECT_EQ(Label(info, "image"), image_);
  EXPECT_EQ(Label(info, "service"), name_);
  EXPECT_FALSE((*matches)[0].v2_ids.empty());
}

}  // namespace
}  // namespace pyrometer::containers

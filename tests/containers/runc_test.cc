// Plain runc: containers named by nothing but their cgroup, found by the index as they come and go.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "tests/containers/eventually.h"
#include "tests/support/runc_container.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/containers/container_index.h"

namespace pyrometer::containers {
namespace {

using test_support::Cgroup2MountPoint;
using test_support::RuncContainer;

class RuncTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = RuncContainer::WhyNot()) GTEST_SKIP() << *why;
    name_ = StrFormat("shop-%d", ::getpid());
  }

  std::unique_ptr<ContainerIndex> Start(ContainerIndex::Options options = {}) {
    options.node = "here";
    StatusOr<std::unique_ptr<ContainerIndex>> index = ContainerIndex::Start(options);
    EXPECT_TRUE(index.ok()) << index.status();
    return index.ok() ? *std::move(index) : nullptr;
  }

  std::string name_;
};

TEST_F(RuncTest, RunningContainerIsFoundByItsCgroupId) {
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  auto index = Start();
  const auto info = index->Lookup(shop->cgroup_id(), CgroupId(0));
  EXPECT_TRUE(info->resolved);
  EXPECT_EQ(info->cgroup_path, "/" + name_);
  EXPECT_EQ(info->name, name_);
  EXPECT_EQ(Label(*info, "container.name"), name_);
  EXPECT_EQ(Label(*info, "container.id"), name_);
  EXPECT_EQ(Label(*info, "container.runtime"), "runc");
  EXPECT_EQ(Label(*info, "service"), name_);
  EXPECT_EQ(Label(*info, "node"), "here");
  EXPECT_EQ(info->metadata_state, MetadataState::kNotNeeded);
}

TEST_F(RuncTest, ContainerStartedLaterIsNamedWithoutBeingAskedFor) {
  auto index = Start();
  EXPECT_TRUE(index->counters().inotify);
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  EXPECT_TRUE(Eventually([&] {
    for (const ContainerMatch& match : index->List()) {
      if (match.info->name == name_) return true;
    }
    return false;
  }));
}

// It lived for half a second and its cgroup is gone before anybody asks: still named.
TEST_F(RuncTest, ShortContainerKeepsItsName) {
  auto index = Start();
  CgroupId id;
  {
    auto shop = RuncContainer::Start({.name = name_, .arguments = {"/bin/sleep", "0.5"}});
    ASSERT_TRUE(shop.ok()) << shop.status();
    id = shop->cgroup_id();
    ASSERT_TRUE(shop->WaitUntilExited(kPatienceNs).ok());
    ASSERT_TRUE(shop->Stop().ok());
  }
  struct stat info;
  ASSERT_NE(::stat((Cgroup2MountPoint() + "/" + name_).c_str(), &info), 0) << "the cgroup was left behind";
  EXPECT_TRUE(Eventually([&] { return index->Lookup(id, CgroupId(0))->removed; }));
  const auto after = index->Lookup(id, CgroupId(0));
  EXPECT_TRUE(after->resolved);
  EXPECT_EQ(after->cgroup_path, "/" + name_);
  EXPECT_EQ(after->name, name_);
}

TEST_F(RuncTest, ContainerThatEndedWasNamedWhileItRan) {
  auto index = Start({.refresh_ns = 100 * kNsPerMs});
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  const CgroupId id = shop->cgroup_id();
  ASSERT_TRUE(Eventually([&] { return index->Lookup(id, CgroupId(0))->name == name_; }));
  ASSERT_TRUE(shop->Stop().ok());
  EXPECT_TRUE(Eventually([&] { return index->Lookup(id, CgroupId(0))->removed; }));
  EXPECT_EQ(index->Lookup(id, CgroupId(0))->name, name_);
  EXPECT_THAT(index->List(), testing::Not(testing::Contains(testing::Truly(
                                 [&](const ContainerMatch& match) { return match.info->name == name_; }))));
}

TEST_F(RuncTest, V1IdAloneIsEnough) {
  auto index = Start();
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  const auto matches = index->FindByName(name_);
  ASSERT_TRUE(matches.ok()) << matches.status();
  ASSERT_EQ(matches->size(), 1u);
  if ((*matches)[0].v1_ids.empty()) GTEST_SKIP() << "no v1 controller on this host";
  const auto info = index->Lookup(CgroupId(1), (*matches)[0].v1_ids[0]);
  EXPECT_EQ(info->name, name_);
  EXPECT_TRUE(info->v1);
}

TEST_F(RuncTest, FindByNameGivesEveryCgroupOfTheContainer) {
  auto index = Start();
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  const std::string below = shop->cgroup_folder() + "/worker";
  ASSERT_EQ(::mkdir(below.c_str(), 0755), 0);
  const auto matches = index->FindByName(name_);
  struct stat info;
  EXPECT_EQ(::stat(below.c_str(), &info), 0);
  EXPECT_EQ(::rmdir(below.c_str()), 0);
  ASSERT_TRUE(matches.ok()) << matches.status();
  ASSERT_EQ(matches->size(), 1u);
  EXPECT_THAT((*matches)[0].v2_ids, testing::UnorderedElementsAre(shop->cgroup_id(), CgroupId(info.st_ino)));
  EXPECT_EQ((*matches)[0].info->cgroup_path, "/" + name_);
  EXPECT_EQ(index->Lookup(CgroupId(info.st_ino), CgroupId(0))->name, name_);
}

TEST_F(RuncTest, UnknownNameSuggestsCloseOnes) {
  auto index = Start();
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  const auto matches = index->FindByName(name_ + "x");
  EXPECT_EQ(matches.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(matches.status())), testing::HasSubstr(name_ + "x"));
  EXPECT_THAT(std::string(Message(matches.status())), testing::HasSubstr("running: " + name_));
}

TEST_F(RuncTest, OwnCgroupOfHostProcessesIsNoContainer) {
  const std::string folder = Cgroup2MountPoint() + "/" + name_ + "-cgroup";
  ASSERT_EQ(::mkdir(folder.c_str(), 0755), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  {
    const std::string procs = folder + "/cgroup.procs";
    FILE* file = std::fopen(procs.c_str(), "w");
    ASSERT_NE(file, nullptr);
    std::fprintf(file, "%d", child);
    std::fclose(file);
  }
  auto index = Start({.refresh_ns = 50 * kNsPerMs});
  struct stat info;
  ASSERT_EQ(::stat(folder.c_str(), &info), 0);
  ::usleep(300'000);  // several probes
  const auto found = index->Lookup(CgroupId(info.st_ino), CgroupId(0));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(Eventually([&] { return ::rmdir(folder.c_str()) == 0; }));
  EXPECT_TRUE(found->resolved);
  EXPECT_FALSE(found->is_container());
  EXPECT_EQ(Label(*found, "service"), "host");
  EXPECT_EQ(Label(*found, "container.name"), "");
}

TEST_F(RuncTest, WithoutInotifyAWalkFindsIt) {
  auto index = Start({.refresh_ns = 100 * kNsPerMs, .use_inotify = false});
  EXPECT_FALSE(index->counters().inotify);
  auto shop = RuncContainer::Start({.name = name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  EXPECT_TRUE(Eventually([&] { return index->counters().containers >= 1; }));
  ASSERT_TRUE(shop->Stop().ok());
  EXPECT_TRUE(Eventually([&] { return index->Lookup(shop->cgroup_id(), CgroupId(0))->removed; }));
}

TEST_F(RuncTest, CgroupPathOfACustomParent) {
  auto index = Start();
  auto shop = RuncContainer::Start({.name = name_, .cgroup_path = "/pyrometer-" + name_ + "/" + name_});
  ASSERT_TRUE(shop.ok()) << shop.status();
  const auto matches = index->FindByName(name_);
  EXPECT_TRUE(matches.ok()) << matches.status();
  const auto by_path = index->FindByCgroupPath("/pyrometer-" + name_);
  ASSERT_TRUE(by_path.ok()) << by_path.status();
  EXPECT_EQ(by_path->v2_ids.size(), 2u);
  EXPECT_EQ(index->FindByCgroupPath("/nowhere").status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(shop->Stop().ok());
  // runc removes its own cgroup, not the parent that it made.
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(Cgroup2MountPoint()).parent_path())) {
    ::rmdir((entry.path() / ("pyrometer-" + name_)).c_str());
  }
  ::rmdir((Cgroup2MountPoint() + "/pyrometer-" + name_).c_str());
}

}  // namespace
}  // namespace pyrometer::containers

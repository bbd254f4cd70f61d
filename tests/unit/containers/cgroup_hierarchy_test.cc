#include "userspace/containers/cgroup_hierarchy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>

namespace pyrometer::containers {
namespace {

constexpr char kHybrid[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime shared:9 master:1 - cgroup cgroup rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

TEST(ParseCgroupMounts, Layouts) {
  const CgroupMounts hybrid = ParseCgroupMounts(kHybrid, "");
  EXPECT_EQ(hybrid.v2_mount, "/sys/fs/cgroup/unified");
  EXPECT_EQ(hybrid.v1_mount, "/sys/fs/cgroup/memory");
  EXPECT_EQ(hybrid.v1_controller, "memory");
  EXPECT_FALSE(hybrid.pure_v2());
  EXPECT_EQ(ParseCgroupMounts(kHybrid, "cpuacct").v1_mount, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(ParseCgroupMounts(kHybrid, "pids").v1_mount, "");

  const CgroupMounts pure =
      ParseCgroupMounts("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "");
  EXPECT_EQ(pure.v2_mount, "/sys/fs/cgroup");
  EXPECT_TRUE(pure.pure_v2());

  const CgroupMounts v1 = ParseCgroupMounts("32 31 0:29 / /cg\\040roup/pids rw - cgroup cgroup rw,pids\n", "");
  EXPECT_EQ(v1.v2_mount, "");
  EXPECT_EQ(v1.v1_mount, "/cg roup/pids");

  EXPECT_EQ(ParseCgroupMounts("garbage\n1 2 3 - cgroup2\n - cgroup2 x y\n", "").v2_mount, "");
}

// An ordinary folder serves as a hierarchy: ids are inodes there too, only without kernfs handles.
TEST(CgroupHierarchy, WalksAndFinds) {
  char folder[] = "/tmp/pyrometer-cgroup-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  namespace fs = std::filesystem;
  fs::create_directories(std::string(folder) + "/a/b");
  fs::create_directories(std::string(folder) + "/c");
  const CgroupHierarchy hierarchy(folder);
  EXPECT_FALSE(hierarchy.has_handles());
  std::map<std::string, CgroupId> seen;
  EXPECT_EQ(hierarchy.Walk(100, [&](const std::string& path, CgroupId id) { seen[path] = id; }), 4u);
  EXPECT_THAT(seen, testing::UnorderedElementsAre(testing::Key("/"), testing::Key("/a"), testing::Key("/a/b"),
                                                  testing::Key("/c")));
  EXPECT_EQ(hierarchy.IdOf("/a/b"), seen["/a/b"]);
  EXPECT_EQ(hierarchy.IdOf("/none"), std::nullopt);
  EXPECT_EQ(hierarchy.PathOf(seen["/a"]), std::nullopt);
  EXPECT_EQ(hierarchy.Walk(2, [](const std::string&, CgroupId) {}), 2u);
  EXPECT_TRUE(hierarchy.Processes("/a", 8).empty());
  fs::remove_all(folder);
  EXPECT_EQ(CgroupHierarchy("/nonexistent").Walk(10, [](const std::string&, CgroupId) {}), 0u);
}

TEST(CgroupHierarchy, HandlesLeadToPathsOnTheRealOne) {
  const StatusOr<CgroupMounts> mounts = FindCgroupMounts();
  if (!mounts.ok()) GTEST_SKIP() << mounts.status();
  for (const std::string& mount : {mounts->v2_mount, mounts->v1_mount}) {
    if (mount.empty()) continue;
    const CgroupHierarchy hierarchy(mount);
    if (!hierarchy.has_handles()) GTEST_SKIP() << "needs CAP_DAC_READ_SEARCH";
    const std::optional<CgroupId> root = hierarchy.IdOf("");
    ASSERT_TRUE(root);
    EXPECT_EQ(hierarchy.PathOf(*root), "/");
    EXPECT_EQ(hierarchy.PathOf(CgroupId(1ull << 60)), std::nullopt);
  }
}

}  // namespace
}  // namespace pyrometer::containers

#include "userspace/agent/target_filter.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>

namespace pyrometer::agent {
namespace {

using Kind = kernel::SampleTarget::Kind;

ProcessKey Process(uint32_t tgid) { return {.tgid = tgid, .start_time_ns = 1}; }
std::string NoContainer(uint64_t, uint64_t) { return ""; }

TEST(TargetFilter, EverythingIsEverything) {
  TargetFilter filter({}, NoContainer, [](uint32_t) { return 0u; });
  EXPECT_TRUE(filter.Contains(Process(7), 1, 0));
}

TEST(TargetFilter, ProcessesAndTheirDescendants) {
  std::map<uint32_t, uint32_t> parents = {{10, 1}, {11, 10}, {12, 11}, {20, 1}};
  int asked = 0;
  TargetFilter filter({.kind = Kind::kProcesses, .tgids = {10}, .cgroup_ids = {}, .cgroup_v1_ids = {}}, NoContainer,
                      [&](uint32_t tgid) {
                        ++asked;
                        return parents[tgid];
                      });
  EXPECT_TRUE(filter.Contains(Process(10), 0, 0));
  EXPECT_TRUE(filter.Contains(Process(12), 0, 0));
  EXPECT_FALSE(filter.Contains(Process(20), 0, 0));
  // The answer stays when the parents are gone, and is not asked for again.
  parents.clear();
  asked = 0;
  EXPECT_TRUE(filter.Contains(Process(12), 0, 0));
  EXPECT_EQ(asked, 0);
  // The same number, another process.
  EXPECT_FALSE(filter.Contains({.tgid = 12, .start_time_ns = 2}, 0, 0));
}

TEST(TargetFilter, ALoopOfParentsEnds) {
  TargetFilter filter({.kind = Kind::kProcesses, .tgids = {10}, .cgroup_ids = {}, .cgroup_v1_ids = {}}, NoContainer,
                      [](uint32_t tgid) { return tgid == 2 ? 3u : 2u; });
  EXPECT_FALSE(filter.Contains(Process(2), 0, 0));
}

TEST(TargetFilter, ContainersWithWhatLiesBelowThem) {
  const auto container_of = [](uint64_t id, uint64_t v1_id) -> std::string {
    return id == 44 || id == 45 ? "abc" : v1_id == 7 ? "def" : "";
  };
  TargetFilter filter({.kind = Kind::kCgroups, .tgids = {}, .cgroup_ids = {44, 60}, .cgroup_v1_ids = {}}, container_of,
                      [](uint32_t) { return 0u; });
  EXPECT_TRUE(filter.Contains(Process(1), 44, 0));
  EXPECT_TRUE(filter.Contains(Process(1), 45, 0));   // below the container's
  EXPECT_TRUE(filter.Contains(Process(1), 60, 0));   // no container, but named
  EXPECT_FALSE(filter.Contains(Process(1), 61, 0));  // neither
  EXPECT_FALSE(filter.Contains(Process(1), 0, 7));   // another container
  EXPECT_FALSE(filter.Contains(Process(1), 0, 0));   // an unknown id is nobody's
}

TEST(TargetFilter, ParentByProc) {
  EXPECT_EQ(TargetFilter::ParentByProc(static_cast<uint32_t>(::getpid())), static_cast<uint32_t>(::getppid()));
  EXPECT_EQ(TargetFilter::ParentByProc(UINT32_MAX), 0u);
}

}  // namespace
}  // namespace pyrometer::agent

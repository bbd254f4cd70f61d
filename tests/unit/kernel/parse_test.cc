// Text of the kernel: CPU lists, mounts.
#include <gtest/gtest.h>

#include "userspace/kernel/cpus.h"
#include "userspace/kernel/tcp_latency.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

using Cpus = std::vector<uint32_t>;

TEST(ParseCpuList, WhatTheKernelWrites) {
  EXPECT_EQ(*ParseCpuList("0\n"), (Cpus{0}));
  EXPECT_EQ(*ParseCpuList("0-3\n"), (Cpus{0, 1, 2, 3}));
  EXPECT_EQ(*ParseCpuList("0-1,4,6-7"), (Cpus{0, 1, 4, 6, 7}));
  EXPECT_EQ(*ParseCpuList("\n"), Cpus{});
  EXPECT_EQ(*ParseCpuList("3,1,1-2"), (Cpus{1, 2, 3}));
}

TEST(ParseCpuList, RefusesTheRest) {
  for (const char* text : {"a", "1-", "-1", "3-1", "1,,2", "0-4294967295", "8192", "1-2-3"}) {
    EXPECT_FALSE(ParseCpuList(text).ok()) << text;
  }
}

TEST(ChooseV1Controller, PrefersMemoryWhereverItIsMounted) {
  EXPECT_EQ(ChooseV1Controller(""), PYRO_V1_NONE);
  EXPECT_EQ(ChooseV1Controller("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"), PYRO_V1_NONE);
  EXPECT_EQ(ChooseV1Controller("31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"),
            PYRO_V1_NONE);
  EXPECT_EQ(ChooseV1Controller("32 25 0:28 / /c/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                               "33 25 0:29 / /c/memory rw,relatime shared:10 - cgroup cgroup rw,memory\n"),
            PYRO_V1_MEMORY);
  EXPECT_EQ(ChooseV1Controller("33 25 0:29 / /c/pids rw - cgroup cgroup rw,pids\n"
                               "32 25 0:28 / /c/cpu rw - cgroup cgroup rw,cpuacct,cpu\n"),
            PYRO_V1_CPU);
}

TEST(PeerAddress, BothFamilies) {
  TcpKey key;
  key.peer = {10, 0, 0, 7};
  EXPECT_EQ(PeerAddress(key), "10.0.0.7");
  key.family = 6;
  key.peer = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(PeerAddress(key), "2001:db8::1");
  key.direction = TcpDirection::kOther;
  EXPECT_EQ(PeerAddress(key), "other");
}

}  // namespace
}  // namespace pyrometer::kernel

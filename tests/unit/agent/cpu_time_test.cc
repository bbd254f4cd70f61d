#include "userspace/agent/cpu_time.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/clock.h"

namespace pyrometer::agent {
namespace {

TEST(CpuTime, AllCpusWithoutIdleIowaitAndSteal) {
  //                      user nice system idle iowait irq softirq steal guest guest_nice
  EXPECT_EQ(ParseStatCpuTicks("cpu  100 20 300 9999 8888 4 5 7777 50 0\ncpu0 1 1 1 1\n"), 100u + 20 + 300 + 4 + 5);
  EXPECT_EQ(ParseStatCpuTicks("cpu  100 20"), std::nullopt);
  EXPECT_EQ(ParseStatCpuTicks("cpu0 1 2 3 4 5 6 7 8\n"), std::nullopt);
  EXPECT_EQ(ParseStatCpuTicks(""), std::nullopt);
}

TEST(CpuTime, NamesOfProcessesMayHoldAnything) {
  EXPECT_EQ(ParseProcessCpuTicks("12 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 11 22 33 44 20 0"), 11u + 22 + 33 + 44);
  EXPECT_EQ(ParseProcessCpuTicks("12 (a R 1 2 3 4 5 6 7 8 9 10 11 22 33 44"), std::nullopt);
  EXPECT_EQ(ParseProcessCpuTicks("12 (a) R 1 2 3 4 5 6 7 8 9 10 11 22 -1 44"), std::nullopt);
}

TEST(CpuTime, ReadsThisMachine) {
  const StatusOr<uint64_t> machine = MachineCpuTimeNs();
  ASSERT_TRUE(machine.ok()) << machine.status();
  const StatusOr<uint64_t> own = ProcessCpuTimeNs(::getpid());
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_GE(*machine, *own);
  EXPECT_FALSE(ProcessCpuTimeNs(-5).ok());
}

TEST(CpuTime, ChildrenCountOnceTheyWereWaitedFor) {
  const uint64_t before = EndedChildrenCpuTimeNs();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    timespec used{};
    do ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    while (used.tv_nsec < 50'000'000 && used.tv_sec == 0);
    ::_exit(0);
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_GE(EndedChildrenCpuTimeNs() - before, 45'000'000u);
}

TEST(CpuTime, ATreeIsAtLeastItsRoot) {
  const StatusOr<uint64_t> own = ProcessCpuTimeNs(::getpid());
  ASSERT_TRUE(own.ok());
  EXPECT_GE(ProcessTreeCpuTimeNs(::getpid()), *own);
  EXPECT_EQ(ProcessTreeCpuTimeNs(-5), 0u);
}

TEST(CpuTime, ExpectedSamples) {
  EXPECT_EQ(ExpectedSamples(2 * kNsPerSecond, 99), 198u);
  EXPECT_EQ(ExpectedSamples(0, 99), 0u);
  EXPECT_EQ(ExpectedSamples(uint64_t{1} << 62, 10'000), 46116860184274u);
}

}  // namespace
}  // namespace pyrometer::agent

// The counter of a command: on the processor's own event where the machine gives one, on the kernel's clock of tasks
// anywhere.
#include "userspace/kernel/instruction_counter.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/kernel/harness.h"

namespace pyrometer::kernel {
namespace {

using ::pyrometer::testing::Child;
using ::pyrometer::testing::Workload;

uint64_t ChildrenUserNs() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return static_cast<uint64_t>(usage.ru_utime.tv_sec) * 1'000'000'000 +
         static_cast<uint64_t>(usage.ru_utime.tv_usec) * 1000;
}

class InstructionCounterTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS("unprivileged_perf"); }
};

TEST_F(InstructionCounterTest, CountsFromTheExecOnWithAllChildrenAndAfterTheirEnd) {
  const std::string spin = Workload("spin_fp") + " 0.3 >/dev/null";
  Child command({"/bin/sh", "-c", spin + " & " + spin + " & wait"});
  const auto counter =
      InstructionCounter::Open(command.pid(), {.type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_TASK_CLOCK});
  ASSERT_TRUE(counter.ok()) << counter.status();
  ASSERT_TRUE(counter->Read().ok());
  EXPECT_EQ(*counter->Read(), 0u) << "nothing was executed yet";
  const uint64_t before_ns = ChildrenUserNs();
  command.Go();
  EXPECT_EQ(command.Wait(), 0);
  const uint64_t used_ns = ChildrenUserNs() - before_ns;
  const auto count = counter->Read();
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_GT(used_ns, 0u);
  EXPECT_GT(*count, used_ns * 3 / 4) << "both children, not one";
  EXPECT_LT(*count, used_ns * 3 / 2);
}

TEST_F(InstructionCounterTest, InstructionsAreCountedOrSaidToBeUncountable) {
  Child command({Workload("spin_fp"), "0.1"});
  const auto counter = InstructionCounter::Open(command.pid());
  if (!counter.ok()) {
    EXPECT_EQ(counter.status().code(), StatusCode::kFailedPrecondition) << counter.status();
    return;
  }
  command.Go();
  EXPECT_EQ(command.Wait(), 0);
  const auto count = counter->Read();
  if (!count.ok()) {
    EXPECT_EQ(count.status().code(), StatusCode::kUnavailable) << count.status();
    return;
  }
  EXPECT_GT(*count, 1'000'000u);
}

TEST_F(InstructionCounterTest, NoSuchProcess) {
  EXPECT_FALSE(
      InstructionCounter::Open(0x7ffffff0, {.type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_TASK_CLOCK}).ok());
}

}  // namespace
}  // namespace pyrometer::kernel

// The frame pointer walk on stacks made here: complete ones, and every way in which one can be broken.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "bpf/lib/user_stack.h"

namespace {

// The memory of the "process": words by address; what is absent faults.
std::map<uint64_t, uint64_t> memory;
int reads = 0;

constexpr uint64_t kStack = 0x7ffd00000000, kCode = 0x555500001000;

class UserStack : public ::testing::Test {
 protected:
  void SetUp() override {
    memory.clear();
    reads = 0;
  }

  // Frames of 64 bytes; frame i returns to kCode + 16 * (i + 1). The last one's caller has a zero frame pointer.
  static pyro_user_regs Build(int frames) {
    for (int i = 0; i < frames; ++i) {
      const uint64_t fp = kStack + 64 * static_cast<uint64_t>(i);
      memory[fp] = i + 1 < frames ? fp + 64 : 0;
      memory[fp + 8] = kCode + 16 * static_cast<uint64_t>(i + 1);
    }
    return {.ip = kCode, .sp = kStack - 32, .fp = kStack, .cs = 0x33};
  }

  uint32_t Walk(const pyro_user_regs& regs, uint32_t limit = PYRO_MAX_USER_FRAMES) {
    frames_.assign(PYRO_MAX_USER_FRAMES + 1, 0xdead);
    const uint32_t n = pyro_walk_user_stack(&regs, frames_.data(), limit, &stop_);
    EXPECT_LE(n, limit);
    EXPECT_EQ(frames_[PYRO_MAX_USER_FRAMES], 0xdeadu) << "written past the end";
    EXPECT_LT(stop_, PYRO_STOP_COUNT);
    return n;
  }

  std::vector<__u64> frames_;  // __u64 is not uint64_t for g++
  uint8_t stop_ = 99;
};

TEST_F(UserStack, WholeStackLeafFirst) {
  const pyro_user_regs regs = Build(5);
  ASSERT_EQ(Walk(regs), 6u);
  EXPECT_EQ(stop_, PYRO_STOP_END);
  for (uint64_t i = 0; i < 6; ++i) EXPECT_EQ(frames_[i], kCode + 16 * i);
  EXPECT_EQ(reads, 5);
}

TEST_F(UserStack, LimitsAreTruncationOnlyWhenThereIsMore) {
  const pyro_user_regs regs = Build(5);
  EXPECT_EQ(Walk(regs, 6), 6u);
  EXPECT_EQ(stop_, PYRO_STOP_END);
  EXPECT_EQ(Walk(regs, 5), 5u);
  EXPECT_EQ(stop_, PYRO_STOP_TRUNCATED);
  EXPECT_EQ(Walk(regs, 1), 1u);
  EXPECT_EQ(stop_, PYRO_STOP_TRUNCATED);
  EXPECT_EQ(Walk(regs, 0), 0u);
  EXPECT_EQ(stop_, PYRO_STOP_NOT_TAKEN);
}

TEST_F(UserStack, DeepestStackEndsAtTheArray) {
  EXPECT_EQ(Walk(Build(1000)), static_cast<uint32_t>(PYRO_MAX_USER_FRAMES));
  EXPECT_EQ(stop_, PYRO_STOP_TRUNCATED);
  EXPECT_LE(reads, PYRO_MAX_USER_FRAMES);
}

TEST_F(UserStack, ZeroReturnAddressIsTheEnd) {
  const pyro_user_regs regs = Build(3);
  memory[kStack + 64 + 8] = 0;
  EXPECT_EQ(Walk(regs), 2u);
  EXPECT_EQ(stop_, PYRO_STOP_END);
}

TEST_F(UserStack, PageNotInMemory) {
  const pyro_user_regs regs = Build(3);
  memory.erase(kStack + 128);
  EXPECT_EQ(Walk(regs), 3u);
  EXPECT_EQ(stop_, PYRO_STOP_UNREADABLE);
}

TEST_F(UserStack, FramePointerThatIsNone) {
  pyro_user_regs regs = Build(3);
  for (const uint64_t fp :
       {kStack + 4, kStack - 64, kStack + (uint64_t{1} << 21), uint64_t{0xffffffff80000000}, uint64_t{8}}) {
    regs.fp = fp;
    EXPECT_EQ(Walk(regs), 1u) << std::hex << fp;
    EXPECT_EQ(stop_, PYRO_STOP_BAD_FRAME) << std::hex << fp;
    EXPECT_EQ(reads, 0);
  }
}

TEST_F(UserStack, LoopEndsAtOnce) {
  const pyro_user_regs regs = Build(3);
  memory[kStack + 64] = kStack;  // back to the first
  EXPECT_EQ(Walk(regs), 3u);
  EXPECT_EQ(stop_, PYRO_STOP_BAD_FRAME);
  memory[kStack] = kStack;  // to itself
  EXPECT_EQ(Walk(regs), 2u);
  EXPECT_EQ(stop_, PYRO_STOP_BAD_FRAME);
}

TEST_F(UserStack, ReturnIntoTheKernelOrTheFirstPage) {
  const pyro_user_regs regs = Build(3);
  memory[kStack + 64 + 8] = 0xffffffff81000000;
  EXPECT_EQ(Walk(regs), 2u);
  EXPECT_EQ(stop_, PYRO_STOP_BAD_RETURN);
  memory[kStack + 64 + 8] = 17;
  EXPECT_EQ(Walk(regs), 2u);
  EXPECT_EQ(stop_, PYRO_STOP_BAD_RETURN);
}

TEST_F(UserStack, CompatCodeGivesItsLeafOnly) {
  pyro_user_regs regs = Build(3);
  regs.cs = 0x23;
  EXPECT_EQ(Walk(regs), 1u);
  EXPECT_EQ(stop_, PYRO_STOP_COMPAT);
}

TEST_F(UserStack, KernelAddressAsInstructionPointer) {
  pyro_user_regs regs = Build(3);
  regs.ip = 0xffffffff81000000;
  EXPECT_EQ(Walk(regs), 0u);
  EXPECT_EQ(stop_, PYRO_STOP_BAD_RETURN);
}

TEST_F(UserStack, NoFrameAtAll) {
  EXPECT_EQ(Walk({.ip = kCode, .sp = kStack, .fp = 0, .cs = 0x33}), 1u);
  EXPECT_EQ(stop_, PYRO_STOP_END);
}

}  // namespace

long pyro_test_read_user(void* to, __u32 bytes, __u64 from) {
  ++reads;
  for (uint32_t i = 0; i < bytes; i += 8) {
    const auto word = memory.find(from + i);
    if (word == memory.end()) return -14;
    std::memcpy(static_cast<char*>(to) + i, &word->second, 8);
  }
  return 0;
}

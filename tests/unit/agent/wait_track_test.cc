#include "userspace/agent/wait_track.h"

#include <gtest/gtest.h>

namespace pyrometer::agent {
namespace {

class WithCause : public ::testing::Test {
 protected:
  std::string LeafOf(const kernel::SlowCall& call) {
    const profile::StackId caller =
        window_.InternStack(profile::kEmptyStack, {.kind = profile::FrameKind::kNative, .address = 7});
    const profile::StackId stack = WaitTrack::WithCause(call, caller, window_);
    EXPECT_EQ(window_.stacks()[stack].parent, caller);
    const RawFrame& leaf = window_.frames()[window_.stacks()[stack].frame];
    EXPECT_EQ(leaf.kind, profile::FrameKind::kSynthetic);
    return window_.reasons()[leaf.reason];
  }

  RawWindow window_{0, 10};
};

TEST_F(WithCause, LargestPartOfTheTime) {
  kernel::SlowCall call;
  call.latency_ns = 40'000'400;
  call.waited_ns[PYRO_WAIT_LOCK] = 39'000'000;
  call.waited_ns[PYRO_WAIT_RUNNABLE] = 1'000'000;
  EXPECT_EQ(LeafOf(call), "[lock]");
}

TEST_F(WithCause, ACallThatOnlyRan) {
  kernel::SlowCall call;
  call.latency_ns = 5'000'000;
  EXPECT_EQ(LeafOf(call), "[running]");
}

TEST_F(WithCause, RanMoreThanItWaited) {
  kernel::SlowCall call;
  call.latency_ns = 5'000'000;
  call.waited_ns[PYRO_WAIT_BLOCK_IO] = 2'000'000;
  EXPECT_EQ(LeafOf(call), "[running]");
}

TEST_F(WithCause, PartsBeyondTheWhole) {  // the switch and the call read the clock one after the other
  kernel::SlowCall call;
  call.latency_ns = 999;
  call.waited_ns[PYRO_WAIT_NETWORK] = 1'000;
  EXPECT_EQ(LeafOf(call), "[network]");
}

}  // namespace
}  // namespace pyrometer::agent

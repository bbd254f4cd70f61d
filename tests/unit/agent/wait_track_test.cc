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

TEST(SplitOf, PartsAddUpToTheCall) {
  kernel::SlowCall call;
  call.latency_ns = 40'000'400;
  call.waited_ns[PYRO_WAIT_LOCK] = 39'000'000;
  call.waited_ns[PYRO_WAIT_RUNNABLE] = 400'000;
  EXPECT_EQ(WaitTrack::SplitOf(call),
            (std::vector<profile::TimePart>{{"lock", 39'000'000}, {"running", 600'400}, {"runnable", 400'000}}));
}

TEST(CauseOf, WhatIsKnown) {
  kernel::OpenCall call;
  EXPECT_EQ(WaitTrack::CauseOf(call), "running");
  call.blocked = true;  // nobody saw since when
  EXPECT_EQ(WaitTrack::CauseOf(call), "");
  call.waits = true;
  call.cause = PYRO_WAIT_NETWORK;
  EXPECT_EQ(WaitTrack::CauseOf(call), "network");
}

class Wakers : public ::testing::Test {
 protected:
  static constexpr ProcessKey kProcess{.tgid = 10, .start_time_ns = 5}, kWaker{.tgid = 20, .start_time_ns = 6};
  static inline const RawWindow::CallKey kCall{1, 0, "read"};

  // Of thread 11, in [begin, end).
  void Call(uint64_t begin_ns, uint64_t end_ns) {
    kernel::SlowCall call;
    call.process = kProcess;
    call.tid = 11;
    call.time_ns = end_ns;
    call.latency_ns = end_ns - begin_ns;
    window_.AddExemplar(kCall, {.time_ns = end_ns, .value = end_ns - begin_ns, .tid = 11});
    join_.AddCall(call, kCall);
  }
  void Wait(uint64_t begin_ns, uint64_t end_ns, std::string_view by, ProcessKey process = kProcess) {
    kernel::WaitSample wait;
    wait.process = process;
    wait.tid = 11;
    wait.time_ns = end_ns;
    wait.wait_ns = end_ns - begin_ns;
    wait.cause = PYRO_WAIT_POLL;
    wait.waker = by.empty() ? PYRO_WAKER_INTERRUPT : PYRO_WAKER_TASK;
    wait.waker_process = kWaker;
    wait.waker_tid = 21;
    wait.waker_comm = by;
    wait.waker_kernel_frames = frames_;
    join_.AddWait(wait);
  }
  void Join() {
    join_.Join([this](uint64_t) -> RawWindow& { return window_; }, &resolver_);
  }
  const profile::Waker& WakerOf(uint64_t end_ns) { return window_.FindExemplar(kCall, 11, end_ns)->waker; }

  RawWindow window_{0, 10};
  process::ProcessTable processes_{{}};
  SampleResolver resolver_{&processes_};
  WakerJoin join_;
  std::vector<uint64_t> frames_{0xffffffff81000010, 0xffffffff81000020};
};

TEST_F(Wakers, TheLongestWaitOfEachCall) {
  Call(100, 200);
  Call(300, 400);
  Wait(110, 120, "short");
  Wait(130, 180, "long");
  Wait(181, 190, "last");
  Wait(310, 390, "");
  Join();
  EXPECT_EQ(WakerOf(200).comm, "long");
  EXPECT_EQ(WakerOf(200).wait_ns, 50u);
  EXPECT_EQ(WakerOf(200).cause, "poll");
  EXPECT_EQ(WakerOf(200).tid, 21u);
  EXPECT_NE(WakerOf(200).stack, profile::kEmptyStack);
  EXPECT_EQ(WakerOf(400).comm, "");
  EXPECT_EQ(WakerOf(400).wait_ns, 80u);
}

TEST_F(Wakers, EitherMayComeFirstByARound) {
  Call(100, 200);
  Join();
  Wait(110, 190, "late");
  Join();
  EXPECT_EQ(WakerOf(200).comm, "late");
  Wait(310, 390, "early");
  Join();
  Call(300, 400);
  Join();
  EXPECT_EQ(WakerOf(400).comm, "early");
}

TEST_F(Wakers, NobodyElsesWaits) {
  Call(100, 200);
  Wait(110, 190, "other", {.tgid = 10, .start_time_ns = 99});  // the number of a process that has ended
  Wait(90, 190, "before");
  Wait(110, 210, "after");
  Join();
  EXPECT_EQ(WakerOf(200).wait_ns, 0u);
  Join();
  Wait(110, 190, "too late");
  Join();
  EXPECT_EQ(WakerOf(200).wait_ns, 0u);
}

}  // namespace
}  // namespace pyrometer::agent

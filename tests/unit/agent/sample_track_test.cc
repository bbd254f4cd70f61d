#include "userspace/agent/sample_track.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::agent {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

class SampleTrackTest : public testing::Test {
 protected:
  void Add(SampleTrack& track, uint64_t time_ns) {
    static constexpr std::array<uint64_t, 2> kKernelFrames = {0xffffffff81000010, 0xffffffff81000020};
    kernel::CpuSample sample;
    sample.time_ns = time_ns;
    sample.process = {1, 1};
    sample.cgroup_id = 44;
    sample.process_comm = "shop";
    sample.kernel_frames = kKernelFrames;
    sample.user_stop = PYRO_STOP_NOT_TAKEN;
    sample.period_ns = 10;
    track.Collect(sample);
  }

  process::ProcessTable processes_{process::ProcessTable::Options{}};
  SampleResolver resolver_{&processes_};
};

TEST_F(SampleTrackTest, CutsWindowsByTheTimeOfTheSample) {
  SampleTrack track(&resolver_, 10 * kSecond);
  Add(track, 5 * kSecond);
  Add(track, 9 * kSecond);
  Add(track, 10 * kSecond);
  track.Fold(/*monotonic_to_unix_ns=*/1000 * kSecond, UINT64_MAX);
  EXPECT_TRUE(track.TakeClosed(1010 * kSecond, kSecond).empty()) << "within the grace time";
  const auto closed = track.TakeClosed(1011 * kSecond, kSecond);
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].start_ns(), 1000 * kSecond);
  EXPECT_EQ(closed[0].sample_count(), 2u);
  for (const auto& [stack, sums] : closed[0].samples().begin()->second) {
    EXPECT_EQ(sums.offsets_ms.size(), sums.count);
  }
  // A late sample of a window that is gone is not lost: the oldest open window takes it.
  Add(track, 9 * kSecond);
  track.Fold(1000 * kSecond, UINT64_MAX);
  const auto rest = track.TakeAll(1012 * kSecond);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].start_ns(), 1010 * kSecond);
  EXPECT_EQ(rest[0].sample_count(), 2u);
  EXPECT_EQ(rest[0].duration_ns(), static_cast<uint64_t>(2 * kSecond));
  EXPECT_EQ(track.samples(), 4u);
}

TEST_F(SampleTrackTest, ReturnAddressesPointIntoTheCallerTheLeafDoesNot) {
  SampleTrack track(&resolver_, 0);
  Add(track, 1);
  track.Fold(0, UINT64_MAX);
  const auto windows = track.TakeAll(UnixNowNs());
  ASSERT_EQ(windows.size(), 1u);
  const RawWindow& window = windows[0];
  const auto& stack = window.samples().begin()->second.begin()->first;
  const auto leaf = window.stacks()[stack];
  EXPECT_EQ(window.frames()[leaf.frame].address, 0xffffffff81000010u);
  EXPECT_EQ(window.frames()[window.stacks()[leaf.parent].frame].address, 0xffffffff8100001fu);
}

class ResolverTest : public testing::Test {
 protected:
  static constexpr uint64_t kCode = 0x10000, kPlace = 0x100000, kEnd = 0x200000;

  void SetUp() override {
    processes_.OnFork({.parent = {}, .child = kProcess, .time_ns = 1});
    Map("[vdso]", kCode, kPlace, 2);
    Map("[vdso]", kPlace, kEnd, 2);
  }
  // Code made at run time unless it has a name.
  void Map(const std::string& path, uint64_t start, uint64_t end, uint64_t time_ns) {
    process::Mapping mapping;
    mapping.key = kProcess;
    mapping.time_ns = time_ns;
    mapping.start = VirtualAddress(start);
    mapping.end = VirtualAddress(end);
    mapping.protection = process::kProtRead | process::kProtExec;
    mapping.path = path;
    processes_.OnMapping(mapping);
  }
  profile::StackId Intern(const std::vector<uint64_t>& user, kernel::StopReason stop = PYRO_STOP_END) {
    return resolver_.Intern(
        {.process = kProcess, .tid = 7, .time_ns = 10, .kernel_frames = {}, .user_frames = user, .user_stop = stop},
        window_);
  }
  // Outermost first: "v" + offset in the vdso's page, "j" + address, "?".
  std::string Text(profile::StackId stack) const {
    std::string text;
    for (; stack != profile::kEmptyStack; stack = window_.stacks()[stack].parent) {
      const RawFrame& frame = window_.frames()[window_.stacks()[stack].frame];
      const char kind = frame.kind == FrameKind::kNative      ? 'v'
                        : frame.kind == FrameKind::kJit       ? 'j'
                        : frame.kind == FrameKind::kSynthetic ? 's'
                                                              : '?';
      text = StrFormat("%c%x ", kind, frame.address) + text;
    }
    return text;
  }

  using FrameKind = profile::FrameKind;
  static constexpr ProcessKey kProcess{5'000'000, 12'345'678'901};
  process::ProcessTable processes_{process::ProcessTable::Options{}};
  SampleResolver resolver_{&processes_};
  RawWindow window_{0, 10};
};

TEST_F(ResolverTest, StacksWithCallersInCommonShareThem) {
  const profile::StackId first = Intern({kCode + 5, kCode + 0x21, kCode + 0x31});
  EXPECT_EQ(Text(first), "v30 v20 v5 ");
  const profile::StackId second = Intern({kCode + 6, kCode + 0x21, kCode + 0x31});
  EXPECT_EQ(Text(second), "v30 v20 v6 ");
  EXPECT_EQ(window_.stacks()[first].parent, window_.stacks()[second].parent);
  // The same address is the code itself in the leaf, and the call before it in a caller.
  EXPECT_EQ(Text(Intern({kCode + 0x21, kCode + 0x31})), "v30 v21 ");
  EXPECT_EQ(Text(Intern({kCode + 0x31})), "v31 ");
  EXPECT_EQ(Text(Intern({kCode + 5, kCode + 0x21, kCode + 0x31, kCode + 0x41})), "v40 v30 v20 v5 ");
  EXPECT_EQ(Text(Intern({kCode + 5, (kCode + 0x21) | PYRO_FRAME_EXACT, kCode + 0x31, kCode + 0x41})),
            "v40 v30 v21 v5 ");
  EXPECT_EQ(Intern({kCode + 5, kCode + 0x21, kCode + 0x31}), first);
}

TEST_F(ResolverTest, CutStacksHaveAnotherRoot) {
  const std::vector<uint64_t> user = {kCode + 5, kCode + 0x21, kCode + 0x31};
  const profile::StackId whole = Intern(user);
  EXPECT_EQ(Text(Intern(user, PYRO_STOP_TRUNCATED)), "s0 v30 v20 v5 ");
  EXPECT_EQ(Text(Intern(user, PYRO_STOP_UNREADABLE)), "s0 v30 v20 v5 ");
  EXPECT_NE(Intern(user, PYRO_STOP_UNREADABLE), Intern(user, PYRO_STOP_TRUNCATED));
  EXPECT_EQ(Intern(user), whole);
}

TEST_F(ResolverTest, CallersAreResolvedAnewWhenTheMappingsChange) {
  const std::vector<uint64_t> user = {kCode + 5, kPlace + 0x21, kCode + 0x31};
  EXPECT_EQ(Text(Intern(user)), "v30 v20 v5 ");
  EXPECT_TRUE(resolver_.TakeJitProcesses().empty());
  Map("", kPlace, kEnd, 3);  // another piece of code at the same place
  EXPECT_EQ(Text(Intern(user)), StrFormat("v30 j%x v5 ", kPlace + 0x20));
  EXPECT_EQ(resolver_.TakeJitProcesses().size(), 1u);
  // Its map is to be read again, although its frames are known.
  EXPECT_EQ(Text(Intern(user)), StrFormat("v30 j%x v5 ", kPlace + 0x20));
  EXPECT_EQ(resolver_.TakeJitProcesses().size(), 1u);
  EXPECT_EQ(Text(Intern({kCode + 5, kCode + 0x31})), "v30 v5 ");
  EXPECT_TRUE(resolver_.TakeJitProcesses().empty()) << "not in this stack";
}

TEST_F(ResolverTest, WhatIsNotKnownIsAskedForAgain) {
  const std::vector<uint64_t> user = {kCode + 5, kEnd + 0x21, kCode + 0x31};
  EXPECT_EQ(Text(Intern(user)), "v30 ?0 v5 ");
  Map("", kEnd, kEnd + 0x1000, 4);
  EXPECT_EQ(Text(Intern(user)), StrFormat("v30 j%x v5 ", kEnd + 0x20));
}

TEST_F(SampleTrackTest, ASampleWithoutAnyFrameIsStillASample) {
  SampleTrack track(&resolver_, 0);
  kernel::CpuSample sample;
  sample.time_ns = 1;
  sample.period_ns = 10;
  track.Collect(sample);
  track.Fold(0, UINT64_MAX);
  const auto windows = track.TakeAll(UnixNowNs());
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].sample_count(), 1u);
  EXPECT_EQ(windows[0].reasons()[windows[0].frames()[1].reason], kNoStackFrame);
}

}  // namespace
}  // namespace pyrometer::agent

#include "userspace/agent/sample_track.h"

#include <gtest/gtest.h>

#include <array>

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

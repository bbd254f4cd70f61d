// Timing system calls part of the time: the estimate's mean is the truth, whatever the calls' lengths.
#include "userspace/agent/duty_cycle.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/profile/histogram.h"

namespace pyrometer::agent {
namespace {

using kernel::SyscallSlice;
using kernel::SyscallWindow;

TEST(PlanSlices, GivesEachInstantTheSameChance) {
  constexpr uint64_t kWindow = 1000;
  for (const uint64_t on : {1u, 130u, 999u, 1000u}) {
    std::vector<uint64_t> covered(kWindow);
    for (uint64_t at = 0; at < kWindow; ++at) {
      for (const auto& [begin, end] : PlanSlices(kWindow, on, at)) {
        ASSERT_LE(end, kWindow);
        for (uint64_t i = begin; i < end; ++i) ++covered[i];
      }
    }
    for (const uint64_t times : covered) ASSERT_EQ(times, on);
  }
}

TEST(MeasuredSlices, CountOnlyInstantsFromWhichACallEndsInItsSlice) {
  const MeasuredSlices measured = {.slices = {{.begin_ns = 100, .entries_end_ns = 200, .end_ns = 250},
                                              {.begin_ns = 1000, .entries_end_ns = 1010, .end_ns = 1010}},
                                   .window_ns = 2000};
  EXPECT_EQ(measured.MeasureNs(0), 110u);
  EXPECT_EQ(measured.MeasureNs(5), 105u);
  EXPECT_EQ(measured.MeasureNs(50), 100u);
  EXPECT_EQ(measured.MeasureNs(120), 30u);
  EXPECT_EQ(measured.MeasureNs(2000), 0u);
}

// One window: calls of one length at random instants, of which the slices see some.
SyscallWindow Seen(const MeasuredSlices& measured, uint64_t length, int calls, std::mt19937_64& random) {
  SyscallWindow window;
  uint64_t count = 0;
  for (int i = 0; i < calls; ++i) {
    const uint64_t begin = std::uniform_int_distribution<uint64_t>(0, measured.window_ns - 1)(random);
    for (const SyscallSlice& slice : measured.slices) {
      if (begin >= slice.begin_ns && begin < slice.entries_end_ns && begin + length < slice.end_ns) ++count;
    }
  }
  if (count == 0) return window;
  window.latency = {.buckets = {{.index = profile::BucketIndex(length), .count = count}},
                    .count = count,
                    .sum_ns = count * length,
                    .max_ns = length};
  window.errors = {{.error = 11, .count = count / 2}};
  window.waited_ns[0] = count * length / 4;
  window.waited_calls = count;
  return window;
}

TEST(ScaleToWindow, KeepsTheMeanForCallsOfEveryLength) {
  constexpr uint64_t kWindow = 10'000'000'000, kOn = 1'000'000'000;
  constexpr int kWindows = 4000, kCalls = 50;
  std::mt19937_64 random(7);
  for (const uint64_t length : {uint64_t{300}, uint64_t{90'000'000}, uint64_t{400'000'000}}) {
    double count = 0, sum = 0, waited = 0;
    for (int i = 0; i < kWindows; ++i) {
      const uint64_t at = std::uniform_int_distribution<uint64_t>(0, kWindow - 1)(random);
      MeasuredSlices measured = {.slices = {}, .window_ns = kWindow};
      for (const auto& [begin, end] : PlanSlices(kWindow, kOn, at)) {
        measured.slices.push_back({.begin_ns = begin, .entries_end_ns = end, .end_ns = end + kTailNs});
      }
      SyscallWindow window = Seen(measured, length, kCalls, random);
      ScaleToWindow(measured, random, window);
      count += static_cast<double>(window.latency.count);
      sum += static_cast<double>(window.latency.sum_ns);
      waited += static_cast<double>(window.waited_ns[0]);
      ASSERT_LE(window.waited_ns[0], window.latency.sum_ns);
    }
    // 20,000 of 200,000 calls seen: a standard deviation of the estimate of under 1 %.
    EXPECT_NEAR(count / (double{kWindows} * kCalls), 1, 0.03) << length;
    EXPECT_NEAR(sum / (double{kWindows} * kCalls * static_cast<double>(length)), 1, 0.03) << length;
    EXPECT_NEAR(waited * 4 / (double{kWindows} * kCalls * static_cast<double>(length)), 1, 0.03) << length;
  }
}

TEST(ScaleToWindow, LeavesOutAndCountsWhatIsTooLongForASlice) {
  const MeasuredSlices measured = {
      .slices = {{.begin_ns = 0, .entries_end_ns = 1'000'000'000, .end_ns = 1'000'000'000}},
      .window_ns = 10'000'000'000};
  std::mt19937_64 random(7);
  SyscallWindow window;
  window.latency = {.buckets = {{.index = profile::BucketIndex(1000), .count = 10},
                                {.index = profile::BucketIndex(980'000'000), .count = 3}},
                    .count = 13,
                    .sum_ns = 10 * 1000 + 3 * uint64_t{980'000'000},
                    .max_ns = 980'000'000};
  EXPECT_EQ(ScaleToWindow(measured, random, window), 3u);
  ASSERT_EQ(window.latency.buckets.size(), 1u);
  EXPECT_EQ(window.latency.count, 100u);
  EXPECT_LT(window.latency.max_ns, 1100u);
  EXPECT_NEAR(static_cast<double>(window.latency.sum_ns), 100'000, 4'000);
}

// Counts slices and nothing else.
class FakeProbe final : public kernel::SyscallLatency {
 public:
  Status Drain(const std::function<void(const SyscallWindow&)>&) override { return OkStatus(); }
  Status PollExemplars(const std::function<void(const kernel::SlowCall&)>&) override { return OkStatus(); }
  Status ReadOpenCalls(const std::function<void(const kernel::OpenCall&)>&) override { return OkStatus(); }
  Status OpenCallsStatus() const override { return OkStatus(); }
  StatusOr<SyscallSlice> Pause(uint64_t) override {
    EXPECT_TRUE(counting.exchange(false));
    const uint64_t now = MonotonicNowNs();
    return SyscallSlice{.begin_ns = begin_ns, .entries_end_ns = now, .end_ns = now};
  }
  Status Resume() override {
    if (fail) return PermissionDeniedError("not today");
    EXPECT_FALSE(counting.exchange(true));
    begin_ns = MonotonicNowNs();
    return OkStatus();
  }
  Status Stop() override { return OkStatus(); }
  kernel::SyscallCounters Counters() const override { return {}; }
  int TaskStates() const override { return -1; }

  std::atomic<bool> counting = true, fail = false;
  uint64_t begin_ns = MonotonicNowNs();
};

constexpr uint64_t kWindowNs = 200'000'000;

void Sleep(uint64_t ns) { std::this_thread::sleep_for(std::chrono::nanoseconds(ns)); }

TEST(DutyCycle, MeasuresAllOfTheTimeWithinTheBudget) {
  FakeProbe probe;
  DutyCycle duty(&probe, {.budget_cores = 0.5, .window_ns = kWindowNs, .seed = 1});
  for (int i = 0; i < 3; ++i) {
    Sleep(10'000'000);
    const auto measured = duty.EndWindow();
    ASSERT_TRUE(measured.ok());
    EXPECT_FALSE(measured->has_value());
    EXPECT_EQ(duty.BeginWindow(10), 1.0);
  }
  EXPECT_TRUE(probe.counting);
}

TEST(DutyCycle, MeasuresAShareBeyondItAndGoesBack) {
  FakeProbe probe;
  DutyCycle duty(&probe, {.budget_cores = 0.1, .window_ns = kWindowNs, .seed = 1});
  Sleep(50'000'000);
  ASSERT_TRUE(duty.EndWindow().ok());
  // As many calls as keep a core busy for the whole window: a tenth is affordable.
  double share = duty.BeginWindow(static_cast<uint64_t>(1e9 / kCallCostNs));
  EXPECT_LT(share, 0.1);
  EXPECT_GE(share, kLeastShare);
  for (int i = 0; i < 4; ++i) {
    Sleep(kWindowNs);
    const auto measured = duty.EndWindow();
    ASSERT_TRUE(measured.ok()) << measured.status();
    EXPECT_FALSE(probe.counting);
    ASSERT_TRUE(measured->has_value());
    ASSERT_FALSE((*measured)->slices.empty());
    EXPECT_GE((*measured)->window_ns, kWindowNs);
    EXPECT_GT((*measured)->MeasureNs(0), 0u);
    EXPECT_LT((*measured)->MeasureNs(0), (*measured)->window_ns);
    const auto calls = static_cast<uint64_t>(static_cast<double>((*measured)->window_ns) / kCallCostNs);
    share = duty.BeginWindow(calls);
    EXPECT_NEAR(share, 0.1, 0.01);
  }
  Sleep(kWindowNs);
  ASSERT_TRUE(duty.EndWindow().ok());
  EXPECT_EQ(duty.BeginWindow(1), 1.0);
  EXPECT_TRUE(probe.counting);
  Sleep(20'000'000);
  // The window in which it went back was measured from there on.
  const auto back = duty.EndWindow();
  ASSERT_TRUE(back.ok());
  ASSERT_TRUE(back->has_value());
  EXPECT_EQ((*back)->slices.size(), 1u);
  EXPECT_EQ(duty.BeginWindow(1), 1.0);
  const auto whole = duty.EndWindow();
  ASSERT_TRUE(whole.ok());
  EXPECT_FALSE(whole->has_value());
}

TEST(DutyCycle, ReportsWhenItCannotAttachAgain) {
  FakeProbe probe;
  DutyCycle duty(&probe, {.budget_cores = 0.1, .window_ns = kWindowNs, .seed = 1});
  Sleep(10'000'000);
  ASSERT_TRUE(duty.EndWindow().ok());
  probe.fail = true;
  duty.BeginWindow(1'000'000'000);
  Sleep(kWindowNs);
  EXPECT_EQ(duty.EndWindow().status().code(), StatusCode::kPermissionDenied);
}

TEST(DutyCycle, StopsInTheMiddleOfASlice) {
  FakeProbe probe;
  {
    const uint64_t begin_ns = MonotonicNowNs();
    DutyCycle duty(&probe, {.budget_cores = 0.8, .window_ns = 3600 * kNsPerSecond, .seed = 1});
    Sleep(10'000'000);
    ASSERT_TRUE(duty.EndWindow().ok());
    // As many calls as cost one core, however long that sleep was.
    duty.BeginWindow(static_cast<uint64_t>(static_cast<double>(MonotonicNowNs() - begin_ns) / kCallCostNs));
    Sleep(20'000'000);
    duty.Stop();
    const auto measured = duty.EndWindow();
    ASSERT_TRUE(measured.ok());
    EXPECT_EQ(duty.BeginWindow(1), duty.BeginWindow(1));
  }
  EXPECT_FALSE(probe.counting);
}

}  // namespace
}  // namespace pyrometer::agent

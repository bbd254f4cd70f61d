#include "userspace/agent/raw_window.h"

#include <gtest/gtest.h>

namespace pyrometer::agent {
namespace {

using profile::FrameKind;

TEST(RawWindow, FoldsEqualStacksOfOneGroup) {
  RawWindow window(1000, 10);
  const std::vector<RawFrame> stack = {{.kind = FrameKind::kKernel, .address = 0xffff},
                                       {.kind = FrameKind::kNative, .origin = 1, .address = 0x10}};
  window.AddSample({44, 0, "a"}, window.InternStack(stack), 1, 10);
  window.AddSample({44, 0, "a"}, window.InternStack(stack), 2, 20);
  window.AddSample({44, 0, "b"}, window.InternStack(stack), 1, 10);
  window.AddSample({45, 0, "a"}, window.InternStack(std::vector<RawFrame>{stack[1]}), 1, 10);
  EXPECT_EQ(window.sample_count(), 5u);
  EXPECT_EQ(window.samples().size(), 3u);
  EXPECT_EQ(window.frames().size(), 3u);  // none, native, kernel
  EXPECT_EQ(window.stacks().size(), 3u);  // empty, native, native;kernel
  const auto& sums = window.samples().at({44, 0, "a"});
  ASSERT_EQ(sums.size(), 1u);
  EXPECT_EQ(sums.begin()->second.count, 3u);
  EXPECT_EQ(sums.begin()->second.value, 30u);
}

TEST(RawWindow, KeepsWhenSamplesWereTaken) {
  constexpr int64_t kStart = 1'000'000'000'000;
  RawWindow window(kStart, 10'000'000'000);
  const profile::StackId stack = window.InternStack(std::vector<RawFrame>{{.kind = FrameKind::kKernel, .address = 1}});
  window.AddSampleAt({}, stack, 10, kStart + 20'999'999);
  window.AddSampleAt({}, stack, 10, kStart);
  window.AddSampleAt({}, stack, 10, kStart - 5'000'000);  // came late
  const RawWindow::Sums& sums = window.samples().begin()->second.begin()->second;
  EXPECT_EQ(sums.count, 3u);
  EXPECT_EQ(sums.value, 30u);
  EXPECT_EQ(sums.offsets_ms, (std::vector<uint16_t>{20, 0, 0}));
  EXPECT_EQ(window.sample_count(), 3u);
  RawWindow::Sums both = sums;
  both.Add(sums);
  EXPECT_EQ(both.count, 6u);
  EXPECT_EQ(both.offsets_ms.size(), 6u);
  // 16 bits of milliseconds do not hold windows of a minute and more.
  RawWindow minutes(kStart, 70'000'000'000);
  minutes.AddSampleAt({}, minutes.InternStack(std::vector<RawFrame>{}), 10, kStart + 1);
  EXPECT_TRUE(minutes.samples().begin()->second.begin()->second.offsets_ms.empty());
}

TEST(RawWindow, CodeMadeByTwoProcessesIsNotTheSame) {
  RawWindow window(0, 10);
  const uint32_t a = window.OriginOf(ProcessKey{1, 100});
  const uint32_t b = window.OriginOf(ProcessKey{1, 200});  // the number was used again
  EXPECT_NE(a, b);
  EXPECT_EQ(window.OriginOf(ProcessKey{1, 100}), a);
  const RawFrame in_a{.kind = FrameKind::kJit, .origin = a, .address = 0x10};
  const RawFrame in_b{.kind = FrameKind::kJit, .origin = b, .address = 0x10};
  EXPECT_NE(window.InternStack(std::vector<RawFrame>{in_a}), window.InternStack(std::vector<RawFrame>{in_b}));
}

TEST(RawWindow, ReasonsAreKeptOnce) {
  RawWindow window(0, 10);
  const uint16_t reason = window.ReasonOf("no mapping");
  EXPECT_EQ(window.ReasonOf("no mapping"), reason);
  EXPECT_EQ(window.reasons()[reason], "no mapping");
  EXPECT_EQ(window.reasons()[0], "");
}

}  // namespace
}  // namespace pyrometer::agent

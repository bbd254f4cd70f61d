#include "userspace/agent/naming.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "userspace/agent/sample_resolver.h"

namespace pyrometer::agent {

// Found by name below.
extern "C" __attribute__((noinline)) int pyrometer_naming_test_landmark(int x) { return x * 3 + 1; }

// Gives the address behind one of its own instructions; with x = 0 below, an address within it.
constexpr int kInnerLine = __LINE__ + 3;
extern "C" inline __attribute__((always_inline)) uint64_t pyrometer_naming_test_inner() {
  uint64_t here;
  asm volatile("lea 0(%%rip), %0" : "=r"(here));
  return here;
}
constexpr int kOuterLine = __LINE__ + 2;
extern "C" __attribute__((noinline)) uint64_t pyrometer_naming_test_outer(int x) {
  return pyrometer_naming_test_inner() + static_cast<uint64_t>(x) - 1;
}

// Entered by a made-up return address: the byte before it is no code of anybody.
extern "C" void pyrometer_naming_test_entered();
asm(R"(
  .text
  .p2align 6
  nop
  .globl pyrometer_naming_test_entered
  .type pyrometer_naming_test_entered, @function
pyrometer_naming_test_entered:
  ret
  .size pyrometer_naming_test_entered, . - pyrometer_naming_test_entered
)");

namespace {

ProcessKey Self(process::ProcessTable& table) {
  for (const ProcessKey& key : table.Running()) {
    if (key.tgid == static_cast<uint32_t>(::getpid())) return key;
  }
  return {};
}

TEST(Naming, NamesOwnCodeThroughTheWholeWay) {
  process::ProcessTable table{process::ProcessTable::Options{}};
  ASSERT_TRUE(table.ScanAll().ok());
  SampleResolver resolver(&table);
  RawWindow window(0, 10);
  const std::vector<uint64_t> user = {reinterpret_cast<uint64_t>(&pyrometer_naming_test_landmark) + 2};
  const SampleResolver::Stack stack{.process = Self(table), .time_ns = 0, .kernel_frames = {}, .user_frames = user};
  window.AddSample({1, 0, "self"}, resolver.Intern(stack, window), 5, 50);

  Naming naming;
  profile::Dictionary dictionary;
  NamingCounts counts;
  const auto stacks = naming.Name(window, &dictionary, &counts);
  const profile::StackId named = stacks[window.samples().begin()->second.begin()->first];
  EXPECT_EQ(dictionary.FrameName(dictionary.stack(named).frame), "pyrometer_naming_test_landmark");
  const profile::Frame& frame = dictionary.frame(dictionary.stack(named).frame);
  EXPECT_EQ(frame.kind, profile::FrameKind::kNative);
  EXPECT_FALSE(dictionary.string(dictionary.mapping(frame.mapping).build_id).empty());
  EXPECT_TRUE(counts.misses.empty());
}

TEST(Naming, MadeUpReturnAddressesNameWhatTheyEnter) {
  process::ProcessTable table{process::ProcessTable::Options{}};
  ASSERT_TRUE(table.ScanAll().ok());
  SampleResolver resolver(&table);
  RawWindow window(0, 10);
  const auto entered = reinterpret_cast<uint64_t>(&pyrometer_naming_test_entered);
  const std::vector<uint64_t> user = {reinterpret_cast<uint64_t>(&pyrometer_naming_test_landmark), entered};
  const SampleResolver::Stack stack{.process = Self(table), .kernel_frames = {}, .user_frames = user};
  const profile::StackId id = resolver.Intern(stack, window);
  Naming naming;
  profile::Dictionary dictionary;
  NamingCounts counts;
  const auto stacks = naming.Name(window, &dictionary, &counts);
  const profile::StackId caller = dictionary.stack(stacks[id]).parent;
  EXPECT_EQ(dictionary.FrameName(dictionary.stack(caller).frame), "pyrometer_naming_test_entered");
}

TEST(Naming, InlinedFunctionsAreLinesOfTheirFrameInnermostFirst) {
  process::ProcessTable table{process::ProcessTable::Options{}};
  ASSERT_TRUE(table.ScanAll().ok());
  SampleResolver resolver(&table);
  RawWindow window(0, 10);
  const std::vector<uint64_t> user = {pyrometer_naming_test_outer(0)};
  const SampleResolver::Stack stack{.process = Self(table), .time_ns = 0, .kernel_frames = {}, .user_frames = user};
  window.AddSample({1, 0, "self"}, resolver.Intern(stack, window), 5, 50);
  Naming naming;
  profile::Dictionary dictionary;
  NamingCounts counts;
  const auto stacks = naming.Name(window, &dictionary, &counts);
  const profile::StackId named = stacks[window.samples().begin()->second.begin()->first];
  const profile::Frame& frame = dictionary.frame(dictionary.stack(named).frame);
  ASSERT_EQ(frame.lines.size(), 2u);
  const auto name = [&](size_t line) {
    return dictionary.string(dictionary.function(frame.lines[line].function).name);
  };
  const auto file = [&](size_t line) {
    return dictionary.string(dictionary.function(frame.lines[line].function).file);
  };
  EXPECT_EQ(name(0), "pyrometer_naming_test_inner");
  EXPECT_EQ(name(1), "pyrometer_naming_test_outer");
  EXPECT_TRUE(file(0).ends_with("naming_test.cc")) << file(0);
  EXPECT_EQ(frame.lines[0].line, kInnerLine);
  EXPECT_EQ(frame.lines[1].line, kOuterLine);
}

TEST(Naming, WhatIsInlinedComesFirstOnAStackUpsideDown) {
  process::ProcessTable table{process::ProcessTable::Options{}};
  ASSERT_TRUE(table.ScanAll().ok());
  SampleResolver resolver(&table);
  RawWindow window(0, 10);
  const std::vector<uint64_t> user = {pyrometer_naming_test_outer(0)};
  const SampleResolver::Stack stack{.process = Self(table), .time_ns = 0, .kernel_frames = {}, .user_frames = user};
  const profile::StackId upright = resolver.Intern(stack, window);
  RawFrame frame = window.frames()[window.stacks()[upright].frame];
  frame.upside_down = true;
  const profile::StackId turned = window.InternStack(profile::kEmptyStack, frame);
  ASSERT_NE(turned, upright);
  Naming naming;
  profile::Dictionary dictionary;
  NamingCounts counts;
  const auto stacks = naming.Name(window, &dictionary, &counts);
  const profile::StackNode outer = dictionary.stack(stacks[turned]), inner = dictionary.stack(outer.parent);
  EXPECT_EQ(dictionary.FrameName(outer.frame), "pyrometer_naming_test_outer");
  EXPECT_EQ(dictionary.FrameName(inner.frame), "pyrometer_naming_test_inner");
  EXPECT_EQ(inner.parent, profile::kEmptyStack);
  EXPECT_EQ(dictionary.frame(outer.frame).lines[0].line, kOuterLine);
  // Stores know code by binary and address: these must not stand for the frame as it is everywhere else.
  EXPECT_EQ(dictionary.mapping(dictionary.frame(outer.frame).mapping).build_id, 0u);
  EXPECT_EQ(dictionary.frame(dictionary.stack(stacks[upright]).frame).lines.size(), 2u);
}

TEST(Naming, AMissKeepsItsReasonAndCountsItsSamples) {
  process::ProcessTable table{process::ProcessTable::Options{}};
  SampleResolver resolver(&table);
  RawWindow window(0, 10);
  // No process has this number: above the kernel's limit of 2^22.
  const std::vector<uint64_t> user = {0x1234};
  const SampleResolver::Stack stack{.process = {5'000'000, 1}, .time_ns = 1, .kernel_frames = {}, .user_frames = user};
  window.AddSample({1, 0, "gone"}, resolver.Intern(stack, window), 3, 30);
  Naming naming;
  profile::Dictionary dictionary;
  NamingCounts counts;
  const auto stacks = naming.Name(window, &dictionary, &counts);
  const profile::StackId named = stacks[window.samples().begin()->second.begin()->first];
  const profile::Frame& frame = dictionary.frame(dictionary.stack(named).frame);
  EXPECT_NE(frame.miss, 0u);
  ASSERT_EQ(counts.misses.size(), 1u);
  EXPECT_EQ(counts.misses.begin()->first, dictionary.string(frame.miss));
  EXPECT_EQ(counts.misses.begin()->second, 3u);
}

}  // namespace
}  // namespace pyrometer::agent

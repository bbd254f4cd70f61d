#include "userspace/profile/profile.h"

#include <gtest/gtest.h>

namespace pyrometer::profile {
namespace {

Profile OneSample(std::string_view function, int64_t value) {
  Profile p;
  p.value_types = {{"cpu", "nanoseconds"}};
  const FunctionId id = p.dictionary.InternFunction({.name = p.dictionary.InternString(function)});
  const FrameId frame = p.dictionary.InternFrame({.lines = {{.function = id}}});
  p.Add(0, p.dictionary.InternStack(kEmptyStack, frame), {value});
  return p;
}

TEST(Profile, AddsUpEqualSamples) {
  Profile p = OneSample("a", 5);
  p.Add(0, 1, {7});
  EXPECT_EQ(p.sample_count(), 1u);
  EXPECT_EQ(p.values(0)[0], 12);
  EXPECT_EQ(p.Total(0), 12);
}

TEST(Profile, MergesByContentNotById) {
  Profile a = OneSample("a", 1);
  a.time_ns = 100;
  a.duration_ns = 10;
  a.accounting = {.taken = 2, .delivered = 1, .dropped = {{"ring full", 1}}};
  Profile b = OneSample("b", 2);
  b.time_ns = 50;
  b.duration_ns = 10;
  b.accounting = {.taken = 1, .delivered = 1};
  ASSERT_TRUE(a.Merge(b).ok());
  ASSERT_TRUE(a.Merge(OneSample("a", 3)).ok());
  EXPECT_EQ(a.sample_count(), 2u);
  EXPECT_EQ(a.Total(0), 6);
  EXPECT_EQ(a.time_ns, 50);
  EXPECT_EQ(a.duration_ns, 60u);
  EXPECT_EQ(a.accounting.taken, a.accounting.delivered + a.accounting.DroppedTotal());
}

TEST(Profile, RefusesToAddDifferentThings) {
  Profile a = OneSample("a", 1);
  Profile b;
  b.value_types = {{"alloc", "bytes"}};
  EXPECT_EQ(a.Merge(b).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyrometer::profile

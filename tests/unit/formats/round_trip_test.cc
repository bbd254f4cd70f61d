#include <gtest/gtest.h>

#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/format.h"

namespace pyrometer::formats {
namespace {

constexpr int kRandomProfiles = 60;

profile::Profile Again(const profile::Profile& profile, Format format) {
  const StatusOr<std::string> bytes = Serialize(profile, format);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  if (!bytes.ok()) return {};
  StatusOr<profile::Profile> again = Parse(*bytes, format);
  EXPECT_TRUE(again.ok()) << again.status();
  return again.ok() ? *std::move(again) : profile::Profile{};
}

TEST(RoundTrip, JsonLosesNothing) {
  std::mt19937_64 random(1);
  for (int i = 0; i < kRandomProfiles; ++i) {
    profile::Profile p = i == 0 ? ShopProfile() : RandomProfile(random);
    const profile::Profile again = Again(p, Format::kJson);
    ASSERT_EQ(Describe(again), Describe(p)) << "profile " << i;
    ASSERT_EQ(*Serialize(again, Format::kJson), *Serialize(p, Format::kJson)) << "profile " << i;
  }
}

TEST(RoundTrip, PprofLosesMissReasonsOnly) {
  EXPECT_EQ(Describe(Again(ShopProfile(), Format::kPprof), {.miss = false}), Describe(ShopProfile(), {.miss = false}));
  EXPECT_NE(Describe(Again(ShopProfile(), Format::kPprof)), Describe(ShopProfile()));
  std::mt19937_64 random(2);
  for (int i = 0; i < kRandomProfiles; ++i) {
    const profile::Profile p = RandomProfile(random);
    ASSERT_EQ(Describe(Again(p, Format::kPprof)), Describe(p)) << "profile " << i;
  }
}

// Lossy formats must lose everything the first time: a second trip changes nothing more.
TEST(RoundTrip, FoldedIsStable) {
  std::mt19937_64 random(3);
  for (int i = 0; i < kRandomProfiles; ++i) {
    const profile::Profile p = RandomProfile(random);
    const profile::Profile once = Again(p, Format::kFolded);
    ASSERT_EQ(once.Total(0), p.Total(p.default_value)) << "profile " << i;
    ASSERT_EQ(*Serialize(once, Format::kFolded), *Serialize(p, Format::kFolded)) << "profile " << i;
  }
}

TEST(RoundTrip, SpeedscopeIsStable) {
  std::mt19937_64 random(4);
  for (int i = 0; i < kRandomProfiles; ++i) {
    const profile::Profile p = RandomProfile(random);
    const profile::Profile once = Again(p, Format::kSpeedscope);
    ASSERT_EQ(once.value_types.size(), p.value_types.size());
    ASSERT_EQ(once.value_types[once.default_value].type, p.value_types[p.default_value].type);
    ASSERT_EQ(once.Total(once.default_value), p.Total(p.default_value)) << "profile " << i;
    ASSERT_EQ(Describe(Again(once, Format::kSpeedscope)), Describe(once)) << "profile " << i;
  }
}

TEST(RoundTrip, LargestNumbersSurvive) {
  profile::Profile p;
  p.value_types = {{"v", "count"}};
  p.time_ns = INT64_MAX;
  p.period = INT64_MIN;
  p.accounting.taken = UINT64_MAX;
  const profile::FrameId frame = AddFrame(&p, "f", profile::FrameKind::kKernel, "[kernel]", UINT64_MAX);
  p.Add(0, p.dictionary.InternStack(profile::kEmptyStack, frame), {INT64_MIN});
  p.Add(0, profile::kEmptyStack, {INT64_MAX});
  EXPECT_EQ(Describe(Again(p, Format::kJson)), Describe(p));
  EXPECT_EQ(Describe(Again(p, Format::kPprof)), Describe(p));
}

}  // namespace
}  // namespace pyrometer::formats

#include "userspace/profile/label_set.h"

#include <gtest/gtest.h>

namespace pyrometer::profile {
namespace {

TEST(LabelSet, IsSortedAndFindsByName) {
  const LabelSet set = *LabelSet::Make({{"service", "shop"}, {"node", "n1"}, {"image", ""}});
  EXPECT_EQ(set.ToString(), R"({node="n1",service="shop"})");
  EXPECT_EQ(set.Get("service"), "shop");
  EXPECT_EQ(set.Get("image"), "");
  EXPECT_FALSE(set.Has("image"));
}

TEST(LabelSet, RefusesBadLabelsByName) {
  EXPECT_FALSE(LabelSet::Make({{"", "x"}}).ok());
  EXPECT_FALSE(LabelSet::Make({{"a", "1"}, {"a", "2"}}).ok());
  EXPECT_FALSE(LabelSet::Make({{"a", "\xff"}}).ok());
  const auto too_long = LabelSet::Make({{"team", std::string(kMaxLabelValueBytes + 1, 'x')}});
  ASSERT_FALSE(too_long.ok());
  EXPECT_NE(Message(too_long.status()).find("'team'"), std::string_view::npos);
  EXPECT_FALSE(LabelSet::Make(std::vector<Label>(kMaxLabelsPerSet + 1, Label{"a", "b"})).ok());
}

TEST(LabelSet, LenientRepairsWhatStrangersSend) {
  const LabelSet set =
      LabelSet::MakeLenient({{"a", "\xff"}, {"a", "second"}, {"", "x"}, {"b", std::string(5000, 'x')}});
  EXPECT_EQ(set.Get("a"), "\xEF\xBF\xBD");
  EXPECT_EQ(set.Get("b").size(), kMaxLabelValueBytes);
  EXPECT_EQ(set.labels().size(), 2u);
  // A cut never splits a character.
  const LabelSet cut = LabelSet::MakeLenient({{"k", std::string(kMaxLabelValueBytes - 1, 'x') + "€"}});
  EXPECT_EQ(cut.Get("k").size(), kMaxLabelValueBytes - 1);
}

TEST(LabelSet, WithSetsAndRemoves) {
  const LabelSet set = *LabelSet::Make({{"a", "1"}});
  EXPECT_EQ(set.With("b", "2").ToString(), R"({a="1",b="2"})");
  EXPECT_EQ(set.With("a", "2").ToString(), R"({a="2"})");
  EXPECT_EQ(set.With("a", "").ToString(), "{}");
}

TEST(LabelSet, EscapesValues) { EXPECT_EQ(LabelSet::Make({{"a", "q\"\\\n"}})->ToString(), R"({a="q\"\\\n"})"); }

}  // namespace
}  // namespace pyrometer::profile

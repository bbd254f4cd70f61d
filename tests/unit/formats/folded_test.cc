#include "ui-export/formats/folded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/formats/test_profile.h"

namespace pyrometer::formats {
namespace {

using profile::FrameKind;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Folded, WritesTheDefaultValueAndSaysWhatIsLost) {
  std::vector<std::string> notes;
  const StatusOr<std::string> text = WriteFolded(ShopProfile(), {}, &notes);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text,
            "__x64_sys_read_[k] 20202020\n"
            "_start;main;__x64_sys_read_[k] 40404040\n"
            "_start;main;hot_a(int) 545454540\n"
            "_start;main;hot_b(int);std::vector<Item>::push_back_[i] 303030300\n"
            "_start;main;hot_b(int);std::vector<Item>::push_back_[i];malloc 60606060\n"
            "js::render_[j] 30303030\n"
            "x.so+0xabc 10101010\n");
  EXPECT_THAT(notes, ElementsAre(HasSubstr("only cpu (nanoseconds)"), HasSubstr("names only")));
}

TEST(Folded, OptionsChooseValueRootsAndSuffixes) {
  const StatusOr<std::string> text = WriteFolded(
      ShopProfile(),
      {.value_index = 0, .annotate_kinds = false, .root_labels = std::vector<std::string>{"container.name", "comm"}},
      nullptr);
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, HasSubstr("shop;shop;_start;main;hot_a(int) 54\n"));
  EXPECT_THAT(*text, HasSubstr("web;node;js::render 3\n"));
  EXPECT_THAT(*text, HasSubstr("host;cron;__x64_sys_read 2\n"));
  EXPECT_EQ(WriteFolded(ShopProfile(), {.value_index = 2}, nullptr).status().code(), StatusCode::kInvalidArgument);
}

TEST(Folded, ReadsSuffixesIntoKinds) {
  const StatusOr<profile::Profile> p = ReadFolded("main;f;g_[i];read_[k] 2\njs_[j];[truncated] 1\n", nullptr);
  ASSERT_TRUE(p.ok()) << p.status();
  const profile::Dictionary& d = p->dictionary;
  const std::vector<profile::FrameId> frames = d.FramesLeafFirst(p->sample(0).stack);
  ASSERT_EQ(frames.size(), 3u);
  EXPECT_EQ(d.frame(frames[0]).kind, FrameKind::kKernel);
  EXPECT_EQ(d.FrameName(frames[0]), "read");
  ASSERT_EQ(d.frame(frames[1]).lines.size(), 2u) << "g is inlined into f";
  EXPECT_EQ(d.FrameName(frames[1], 0), "g");
  EXPECT_EQ(d.FrameName(frames[1], 1), "f");
  EXPECT_EQ(d.frame(frames[2]).kind, FrameKind::kUnknown);
  const std::vector<profile::FrameId> second = d.FramesLeafFirst(p->sample(1).stack);
  EXPECT_EQ(d.frame(second[0]).kind, FrameKind::kSynthetic);
  EXPECT_EQ(d.frame(second[1]).kind, FrameKind::kJit);
}

TEST(Folded, NamesWithSeparatorsSurvive) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}};
  const std::string name = "operator;\n100% x";
  p.Add(0, p.dictionary.InternStack(0, AddFrame(&p, name, FrameKind::kNative)), {3});
  const StatusOr<std::string> text = WriteFolded(p, {}, nullptr);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, "operator%3B%0A100% x 3\n");
  const StatusOr<profile::Profile> again = ReadFolded(*text, nullptr);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->dictionary.FrameName(again->dictionary.stack(again->sample(0).stack).frame), name);
}

TEST(Folded, AcceptsWhatOtherToolsWrite) {
  std::vector<std::string> notes;
  const StatusOr<profile::Profile> p =
      ReadFolded("# a comment\r\nperf;main;operator new(unsigned long)  12\r\n\r\nperf;main 2.6\n  a b;c\t4", &notes);
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->sample_count(), 3u);
  EXPECT_EQ(p->Total(0), 12 + 3 + 4);
  EXPECT_THAT(notes, Contains(HasSubstr("rounded")));
}

TEST(Folded, TwoCountsAreAComparison) {
  const StatusOr<profile::Profile> p = ReadFolded("a;b 10 12\na;c 0 5\n", nullptr);
  ASSERT_TRUE(p.ok()) << p.status();
  ASSERT_EQ(p->value_types.size(), 2u);
  EXPECT_EQ(p->value_types[0].type, "before");
  EXPECT_EQ(p->Total(0), 10);
  EXPECT_EQ(p->Total(1), 17);
  // One line without a second count: then the first number belongs to the name.
  const StatusOr<profile::Profile> plain = ReadFolded("a;b 10 12\na;c 5\n", nullptr);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->value_types.size(), 1u);
  EXPECT_EQ(plain->Total(0), 17);
}

TEST(Folded, ErrorsNameTheLine) {
  for (const char* bad : {"a;b", "a;b x", "12", "a;b 99999999999999999999", "a;b 1e400", "a;b nan", "a;b 0x10"}) {
    const StatusOr<profile::Profile> p = ReadFolded(std::string("ok 1\n") + bad + "\n", nullptr);
    ASSERT_FALSE(p.ok()) << bad;
    EXPECT_THAT(std::string(Message(p.status())), HasSubstr("line 2 is not a folded stack")) << bad;
  }
  EXPECT_EQ(ReadFolded("\n \n# nothing\n", nullptr).status().code(), StatusCode::kInvalidArgument);
}

TEST(Folded, AStackWithoutFramesHasAPlaceholder) {
  const StatusOr<profile::Profile> p = ReadFolded("[no stack] 4\n", nullptr);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(p->sample(0).stack, profile::kEmptyStack);
  EXPECT_EQ(*WriteFolded(*p, {}, nullptr), "[no stack] 4\n");
}

}  // namespace
}  // namespace pyrometer::formats

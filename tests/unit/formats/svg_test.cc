#include "ui-export/formats/svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdlib>

#include "tests/unit/formats/test_profile.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

struct Box {
  std::string name;
  double x = 0;
  double y = 0;
  double width = 0;
};

// Every box, read back from the text as a viewer without scripts sees it.
std::vector<Box> Boxes(const std::string& svg) {
  std::vector<Box> boxes;
  for (const std::string_view line : Split(svg, '\n')) {
    if (!line.starts_with("<g class=\"f\"><title>")) continue;
    const auto number = [&line](std::string_view key) {
      const size_t at = line.find(key);
      return at == std::string_view::npos ? -1.0
                                          : std::strtod(std::string(line.substr(at + key.size(), 12)).c_str(), nullptr);
    };
    const std::string_view tip = line.substr(20);
    boxes.push_back(
        {std::string(tip.substr(0, tip.find("&#10;"))), number("<rect x=\""), number(" y=\""), number(" width=\"")});
  }
  return boxes;
}

TEST(Svg, BoxesNestAndFill) {
  const StatusOr<std::string> svg = WriteSvg(ShopProfile(), {}, nullptr);
  ASSERT_TRUE(svg.ok());
  const std::vector<Box> boxes = Boxes(*svg);
  std::map<std::string, Box> by_name;
  for (const Box& box : boxes) by_name[box.name] = box;
  // Several containers: they are the first row below the root.
  const double full = 1176;
  EXPECT_NEAR(by_name["all"].width, full, 1);
  EXPECT_NEAR(by_name["shop"].width, full * 0.94, 1);
  EXPECT_NEAR(by_name["web"].width, full * 0.04, 1);
  EXPECT_NEAR(by_name["hot_a(int)"].width, full * 0.54, 1);
  EXPECT_NEAR(by_name["std::vector&lt;Item&gt;::push_back"].width, full * 0.36, 1);
  EXPECT_GT(by_name["main"].y, by_name["_start"].y);
  EXPECT_NEAR(by_name["hot_a(int)"].x + by_name["hot_a(int)"].width, by_name["hot_b(int)"].x, 1);
  EXPECT_THAT(*svg, HasSubstr("1.01 s cpu over 10.00 s from 2025-11-23 22:40:00 UTC · 102 samples taken, 2 dropped"));
  EXPECT_THAT(*svg, HasSubstr("/srv/shop · shop.cc:20&#10;545.5 ms total (54.00 %), 545.5 ms self (54.00 %)"));
  EXPECT_THAT(*svg, HasSubstr(">kernel 6.0 %<"));
}

TEST(Svg, NamesAreEscapedAndClipped) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}};
  const std::string name = "<&\">\x01" + std::string(500, 'x') + "\xff";
  p.Add(0, p.dictionary.InternStack(0, AddFrame(&p, name, profile::FrameKind::kNative)), {1});
  const StatusOr<std::string> svg = WriteSvg(p, {.title = "a<b>"}, nullptr);
  ASSERT_TRUE(svg.ok());
  EXPECT_THAT(*svg, HasSubstr("a&lt;b&gt;"));
  EXPECT_THAT(*svg, HasSubstr("&lt;&amp;&quot;&gt; xxx"));
  EXPECT_THAT(*svg, HasSubstr("xxx…</text>"));
  EXPECT_THAT(*svg, Not(HasSubstr("\x01")));
  EXPECT_TRUE(IsUtf8(*svg));
}

TEST(Svg, IsWellFormedXml) {
  if (std::system("python3 -c 'import xml.dom.minidom' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "python3 is not installed";
  std::mt19937_64 random(7);
  for (int i = 0; i < 5; ++i) {
    const std::string path = testing::TempDir() + "svg_test.svg";
    ASSERT_TRUE(WriteProfile(i == 0 ? ShopProfile() : RandomProfile(random), Format::kSvg, path).ok());
    EXPECT_EQ(
        std::system(("python3 -c 'import sys,xml.dom.minidom;xml.dom.minidom.parse(sys.argv[1])' " + path).c_str()), 0);
    ::unlink(path.c_str());
  }
}

TEST(Svg, WhatIsNotDrawnIsSaid) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}};
  p.Add(0, p.dictionary.InternStack(0, AddFrame(&p, "wide", profile::FrameKind::kNative)), {1'000'000});
  p.Add(0, p.dictionary.InternStack(0, AddFrame(&p, "narrow", profile::FrameKind::kNative)), {1});
  p.Add(0, p.dictionary.InternStack(0, AddFrame(&p, "minus", profile::FrameKind::kNative)), {-5});
  std::vector<std::string> notes;
  const StatusOr<std::string> svg = WriteSvg(p, {}, &notes);
  ASSERT_TRUE(svg.ok());
  EXPECT_THAT(*svg, Not(HasSubstr("narrow")));
  EXPECT_THAT(notes, Contains(HasSubstr("1 boxes too narrow")));
  EXPECT_THAT(notes, Contains(HasSubstr("negative values")));
}

TEST(Svg, AnEmptyProfileDrawsItsRoot) {
  profile::Profile p;
  p.value_types = {{"cpu", "nanoseconds"}};
  const StatusOr<std::string> svg = WriteSvg(p, {}, nullptr);
  ASSERT_TRUE(svg.ok());
  EXPECT_EQ(Boxes(*svg).size(), 1u);
}

TEST(FormatValue, ByUnit) {
  EXPECT_EQ(FormatValue(1'500'000, "nanoseconds"), "1.5 ms");
  EXPECT_EQ(FormatValue(-2048, "bytes"), "-2.0 KiB");
  EXPECT_EQ(FormatValue(12345, "count"), "12,345");
  EXPECT_EQ(FormatValue(INT64_MIN, "count"), "-9,223,372,036,854,775,808");
}

}  // namespace
}  // namespace pyrometer::formats

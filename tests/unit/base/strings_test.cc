#include "userspace/base/strings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pyrometer {
namespace {

using testing::ElementsAre;

TEST(Split, KeepsEmptyParts) {
  EXPECT_THAT(Split("a::b", ':'), ElementsAre("a", "", "b"));
  EXPECT_THAT(Split("", ':'), ElementsAre(""));
}

TEST(ParseUint64, TakesWholeStringsOnly) {
  EXPECT_EQ(ParseUint64("42"), 42u);
  EXPECT_EQ(ParseUint64("ffffffffffffffff", 16), UINT64_MAX);
  for (const char* bad : {"", "-1", "4x", " 4", "18446744073709551616"}) EXPECT_FALSE(ParseUint64(bad)) << bad;
}

TEST(Hex, RoundTripsAndRefusesBadInput) {
  EXPECT_EQ(HexEncode(std::string_view("\x00\xff", 2)), "00ff");
  EXPECT_EQ(HexDecode("00ff"), std::string("\x00\xff", 2));
  EXPECT_FALSE(HexDecode("0"));
  EXPECT_FALSE(HexDecode("zz"));
}

TEST(ToUtf8, ReplacesOnlyBadBytes) {
  EXPECT_EQ(ToUtf8("naïve €😀"), "naïve €😀");
  EXPECT_EQ(ToUtf8("a\xff"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(ToUtf8("\xC3"), "\xEF\xBF\xBD");                                  // truncated sequence
  EXPECT_EQ(ToUtf8("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");                  // overlong '/'
  EXPECT_EQ(ToUtf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // surrogate
  EXPECT_TRUE(IsUtf8(ToUtf8("\xF4\x90\x80\x80")));                            // above U+10FFFF
}

TEST(Format, UnitsReadWell) {
  EXPECT_EQ(FormatBytes(12), "12 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatDurationNs(850), "850 ns");
  EXPECT_EQ(FormatDurationNs(12'300), "12.3 µs");
  EXPECT_EQ(FormatDurationNs(4'000'000), "4.0 ms");
  EXPECT_EQ(FormatDurationNs(185 * 1'000'000'000ull), "3m05s");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(999), "999");
}

}  // namespace
}  // namespace pyrometer

#include "userspace/regression/same_code.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pyrometer::regression {
namespace {

StatusOr<CodeComparison> Compare(const std::string& before, const std::string& after) {
  const auto one = elf::ElfFile::Open(std::string(SAME_CODE_FOLDER) + "/same_code_" + before);
  const auto other = elf::ElfFile::Open(std::string(SAME_CODE_FOLDER) + "/same_code_" + after);
  if (!one.ok()) return one.status();
  if (!other.ok()) return other.status();
  return CompareCode(*one, *other);
}

TEST(SameCode, AFileIsLikeItself) {
  const auto compared = Compare("plain", "plain");
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_TRUE(compared->same) << compared->difference;
  EXPECT_GE(compared->functions, 4u);
}

TEST(SameCode, AnotherOrderIsTheSame) {
  const auto compared = Compare("plain", "REORDERED");
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_TRUE(compared->same) << compared->difference;
}

TEST(SameCode, ChangesAreNot) {
  for (const auto& [variant, difference] : {std::pair{"OTHER_TEXT", "data differ"},
                                            {"OTHER_CALL", "report differs"},
                                            {"OTHER_TABLE", "data differ"},
                                            {"ONE_MORE", "one_more is in one of them only"}}) {
    const auto compared = Compare("plain", variant);
    ASSERT_TRUE(compared.ok()) << compared.status();
    EXPECT_FALSE(compared->same) << variant;
    EXPECT_EQ(compared->difference, difference);
    EXPECT_EQ(Compare(variant, "plain")->same, false);
  }
}

TEST(SameCode, WithoutSymbolsNothingIsSaid) {
  EXPECT_EQ(Compare("plain", "stripped").status().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace pyrometer::regression

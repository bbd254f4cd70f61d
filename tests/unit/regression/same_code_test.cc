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
  EXPECT_GE(compared->functions.size(), 4u);
}

TEST(SameCode, AnotherOrderIsTheSame) {
  const auto compared = Compare("plain", "REORDERED");
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_TRUE(compared->same) << compared->difference;
}

TEST(SameCode, ChangesAreNot) {
  for (const auto& [variant, difference] : {std::pair{"OTHER_TEXT", "data differ"},
                                            {"OTHER_CALL", "report differs"},
                                            {"OTHER_TABLE", "kTable differs"},
                                            {"OTHER_LIMIT", "kSteps differs"},
                                            {"OTHER_STEP", "kSteps differs"},
                                            {"OTHER_TURN", "kSteps differs"},
                                            {"ONE_MORE", "one_more is in one of them only"}}) {
    const auto compared = Compare("plain", variant);
    ASSERT_TRUE(compared.ok()) << compared.status();
    EXPECT_FALSE(compared->same) << variant;
    EXPECT_EQ(compared->difference, difference);
    EXPECT_EQ(Compare(variant, "plain")->same, false);
  }
}

TEST(SameCode, FunctionByFunction) {
  const auto one = elf::ElfFile::Open(std::string(SAME_CODE_FOLDER) + "/same_code_plain");
  const auto other = elf::ElfFile::Open(std::string(SAME_CODE_FOLDER) + "/same_code_OTHER_CALL");
  const auto more = elf::ElfFile::Open(std::string(SAME_CODE_FOLDER) + "/same_code_ONE_MORE");
  ASSERT_TRUE(one.ok() && other.ok() && more.ok());
  const auto changed = CompareCode(*one, *other);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_TRUE(changed->functions.at("first"));
  EXPECT_TRUE(changed->functions.at("main"));
  EXPECT_FALSE(changed->functions.at("report"));
  EXPECT_TRUE(changed->objects_same);
  const auto added = CompareCode(*one, *more), removed = CompareCode(*more, *one);
  ASSERT_TRUE(added.ok() && removed.ok());
  EXPECT_FALSE(added->functions.at("one_more"));
  EXPECT_FALSE(removed->functions.at("one_more"));
  EXPECT_TRUE(added->functions.at("first"));
}

TEST(SameCode, WithoutSymbolsNothingIsSaid) {
  EXPECT_EQ(Compare("plain", "stripped").status().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace pyrometer::regression

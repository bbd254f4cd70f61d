// With the binaries that same_code_test compares.
#include "userspace/regression/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pyrometer::regression {
namespace {

using ::testing::HasSubstr;

std::string File(const std::string& variant) { return std::string(SAME_CODE_FOLDER) + "/same_code_" + variant; }

// A regression of one function of `variant`, by 0.6 % of the total, with as many instructions as before.
Report Slower(const std::string& variant, const std::string& function) {
  Report report;
  report.decision = Decision::kRegression;
  report.reason = "1 function became slower";
  report.baseline = File("plain") + " 7";
  report.candidate = File(variant) + " 7";
  ReportFinding finding;
  finding.function = {.name = function, .module = "same_code_plain", .file = "", .line = 0};
  finding.effect.excess = 0.006;
  report.findings = {finding};
  report.instructions.tested = true;
  report.instructions.excess_interval = {-0.0001, 0.0002};
  return report;
}

Report Judged(Report report, const std::string& variant) {
  SuspectLayout({File("plain"), "/usr/lib/libc.so.6", "[vdso]"}, {File(variant), "/usr/lib/libc.so.6", "[vdso]"},
                &report);
  return report;
}

bool IsLayout(const Report& report) {
  EXPECT_EQ(report.decision == Decision::kPass, report.findings.empty());
  EXPECT_EQ(report.decision == Decision::kPass, !report.layout.empty());
  EXPECT_EQ(report.layout.empty(), report.layout_reason.empty());
  return report.decision == Decision::kPass;
}

TEST(Layout, AnotherOrderOfTheSameCodeIsNoRegression) {
  Report report = Slower("REORDERED", "first");
  report.instructions = {};
  report = Judged(report, "REORDERED");
  EXPECT_TRUE(IsLayout(report));
  EXPECT_THAT(report.reason, HasSubstr("1 function is slower, but the code is the same on both sides"));
}

TEST(Layout, OtherArgumentsAreMoreWork) {
  Report report = Slower("REORDERED", "first");
  report.candidate += "0";
  EXPECT_FALSE(IsLayout(Judged(report, "REORDERED")));
}

TEST(Layout, WhereNoMoreIsExecutedAnUnchangedFunctionIsNotToBlame) {
  // report() changed, first() did not.
  const Report report = Judged(Slower("OTHER_CALL", "first"), "OTHER_CALL");
  EXPECT_TRUE(IsLayout(report));
  EXPECT_THAT(report.layout_reason, HasSubstr("no more instructions were executed, and the code of it is the same"));
}

TEST(Layout, AChangedFunctionIsToBlame) {
  EXPECT_FALSE(IsLayout(Judged(Slower("OTHER_CALL", "report"), "OTHER_CALL")));
}

TEST(Layout, WithoutInstructionsAnUnchangedFunctionMayBeCalledMoreOften) {
  Report report = Slower("OTHER_CALL", "first");
  report.instructions.excess_interval.high = 0.0007;
  EXPECT_FALSE(IsLayout(Judged(report, "OTHER_CALL"))) << "more were executed";
  report.instructions = {};
  EXPECT_FALSE(IsLayout(Judged(report, "OTHER_CALL"))) << "not known";
}

TEST(Layout, OtherNumbersInATableAreOtherWork) {
  EXPECT_FALSE(IsLayout(Judged(Slower("OTHER_LIMIT", "first"), "OTHER_LIMIT")));
}

TEST(Layout, WhatElseWouldExplainTheInstructionsIsNoLayout) {
  Report report = Slower("OTHER_CALL", "first");
  report.faster = report.findings;
  EXPECT_FALSE(IsLayout(Judged(report, "OTHER_CALL"))) << "another function saved what this one needs";
  report = Slower("OTHER_CALL", "first");
  report.findings[0].inclusive = true;
  EXPECT_FALSE(IsLayout(Judged(report, "OTHER_CALL"))) << "with what it calls";
  report = Slower("OTHER_CALL", "first");
  report.findings[0].function = {};
  EXPECT_FALSE(IsLayout(Judged(report, "OTHER_CALL"))) << "the whole program";
}

TEST(Layout, WhatCannotBeComparedStaysARegression) {
  Report report = Slower("stripped", "first");
  EXPECT_FALSE(IsLayout(Judged(report, "stripped")));
}

}  // namespace
}  // namespace pyrometer::regression

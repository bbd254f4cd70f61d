#include "userspace/regression/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/regression/made_up_program.h"

namespace pyrometer::regression {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

Report Made(const RunSet& runs) {
  const CountTable counts = CountFunctions(runs);
  const Analysis analysis(counts, runs.MakeDesign(), {.draws = 1000, .seed = 7});
  return MakeReport(runs, analysis, Judge(runs, analysis, {}), {.alpha = 0.01, .seed = 7});
}

Report Regression(const std::string& name = "scan") {
  return Made(MadeUpProgram().Others().Source(name, "src/scan.c", 42).Stack({"main", name}, 300, 450).Make(16, 1));
}

TEST(Report, JsonHoldsTheFindings) {
  const json report = json::parse(RenderReport(Regression(), ReportFormat::kJson));
  EXPECT_EQ(report["format"], "pyrometer-ci-report");
  EXPECT_EQ(report["decision"], "regression");
  EXPECT_EQ(report["runs"]["baseline"], 16);
  EXPECT_EQ(report["seed"], 7);
  ASSERT_EQ(report["findings"].size(), 1u);
  const json& finding = report["findings"][0];
  EXPECT_EQ(finding["function"]["name"], "scan");
  EXPECT_EQ(finding["function"]["file"], "src/scan.c");
  EXPECT_EQ(finding["function"]["line"], 42);
  EXPECT_EQ(finding["callers"][0]["function"]["name"], "main");
  EXPECT_GT(finding["effect"]["ratio"], 1.3);
  EXPECT_LT(finding["effect"]["p_slower"], 0.01);
}

TEST(Report, ANewFunctionHasNoRatio) {
  const json report = json::parse(
      RenderReport(Made(MadeUpProgram().Others().Stack({"main", "fresh"}, 0, 400).Make(16, 2)), ReportFormat::kJson));
  ASSERT_EQ(report["findings"].size(), 1u);
  EXPECT_TRUE(report["findings"][0]["effect"]["ratio"].is_null());
  EXPECT_TRUE(report["findings"][0]["effect"]["new"]);
}

TEST(Report, SarifNamesPlaceAndFunction) {
  const json sarif = json::parse(RenderReport(Regression(), ReportFormat::kSarif));
  EXPECT_EQ(sarif["version"], "2.1.0");
  const json& result = sarif["runs"][0]["results"][0];
  EXPECT_EQ(result["ruleId"], sarif["runs"][0]["tool"]["driver"]["rules"][0]["id"]);
  EXPECT_EQ(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "src/scan.c");
  EXPECT_EQ(result["locations"][0]["physicalLocation"]["region"]["startLine"], 42);
  EXPECT_EQ(result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], "scan");
}

TEST(Report, CodeQualityKnowsAFindingAgain) {
  const json one = json::parse(RenderReport(Regression(), ReportFormat::kCodeQuality));
  const json two = json::parse(RenderReport(Regression(), ReportFormat::kCodeQuality));
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0]["fingerprint"], two[0]["fingerprint"]);
  EXPECT_NE(one[0]["fingerprint"],
            json::parse(RenderReport(Regression("other"), ReportFormat::kCodeQuality))[0]["fingerprint"]);
  EXPECT_EQ(one[0]["location"]["path"], "src/scan.c");
  EXPECT_EQ(one[0]["location"]["lines"]["begin"], 42);
}

TEST(Report, JUnitCountsFailuresAndErrors) {
  Report report = Regression();
  report.started_ns = 1'764'000'000'123'456'789;
  report.wall_ns = 12'345'678'901;
  EXPECT_THAT(RenderReport(report, ReportFormat::kJUnit),
              HasSubstr("time=\"12.346\" timestamp=\"2025-11-24T16:00:00\""));
  EXPECT_THAT(RenderReport(Regression(), ReportFormat::kJUnit), HasSubstr("tests=\"2\" failures=\"1\" errors=\"0\""));
  EXPECT_THAT(RenderReport(Made(MadeUpProgram().Others().Make(16, 3)), ReportFormat::kJUnit),
              HasSubstr("tests=\"1\" failures=\"0\" errors=\"0\""));
  EXPECT_THAT(RenderReport(Made(MadeUpProgram().Others(0.5).Make(16, 3)), ReportFormat::kJUnit),
              HasSubstr("tests=\"1\" failures=\"0\" errors=\"1\""));
}

TEST(Report, MarkdownSaysWhatWasFound) {
  const std::string text = RenderReport(Regression(), ReportFormat::kMarkdown);
  EXPECT_THAT(text, testing::StartsWith("<!-- pyrometer ci -->\n### Performance regression"));
  EXPECT_THAT(text, HasSubstr("| scan (app) | +"));
  EXPECT_THAT(RenderReport(Made(MadeUpProgram().Others().Make(16, 3)), ReportFormat::kMarkdown),
              HasSubstr("### No regression"));
}

TEST(Report, NamesFromOutsideCannotWriteMarkup) {
  const Report report = Regression("f<script>\n|`::error::]]>&\"%\xff");
  const std::string markdown = RenderReport(report, ReportFormat::kMarkdown);
  EXPECT_THAT(markdown, Not(HasSubstr("<script>")));
  EXPECT_THAT(markdown, HasSubstr("\\|\\`"));
  const std::string junit = RenderReport(report, ReportFormat::kJUnit);
  EXPECT_THAT(junit, Not(HasSubstr("<script>")));
  EXPECT_THAT(junit, HasSubstr("&lt;script&gt;"));
  EXPECT_FALSE(json::parse(RenderReport(report, ReportFormat::kJson), nullptr, false).is_discarded());
  EXPECT_FALSE(json::parse(RenderReport(report, ReportFormat::kSarif), nullptr, false).is_discarded());
  const std::string annotations = GitHubAnnotations(report);
  EXPECT_EQ(std::count(annotations.begin(), annotations.end(), '\n'), 1) << annotations;
  EXPECT_THAT(annotations, testing::StartsWith("::error title=Performance regression,file=src/scan.c,line=42::"));
}

TEST(Report, AtMostTenAnnotations) {
  MadeUpProgram program;
  program.Others();
  for (int i = 0; i < 15; ++i) program.Stack({"main", "slow" + std::to_string(i)}, 100, 300);
  const Report report = Made(program.Make(16, 4));
  EXPECT_GT(report.findings.size(), 10u);
  const std::string annotations = GitHubAnnotations(report);
  EXPECT_EQ(std::count(annotations.begin(), annotations.end(), '\n'), 10);
}

TEST(Report, TheExtensionIsTheFormat) {
  EXPECT_EQ(*ReportFormatFor("a/report.json"), ReportFormat::kJson);
  EXPECT_EQ(*ReportFormatFor("gl.codequality.json"), ReportFormat::kCodeQuality);
  EXPECT_EQ(*ReportFormatFor("r.md"), ReportFormat::kMarkdown);
  EXPECT_EQ(*ReportFormatFor("r.xml"), ReportFormat::kJUnit);
  EXPECT_EQ(*ReportFormatFor("r.sarif"), ReportFormat::kSarif);
  EXPECT_EQ(ReportFormatFor("r.docx").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyrometer::regression

// What is said of programs whose change is known.
#include "userspace/regression/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/regression/made_up_program.h"

namespace pyrometer::regression {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Said {
  Decision decision;
  std::string reason;
  std::vector<std::string> guilty, moved, faster, first_callers;
  size_t pairs_needed;
};

Said Judged(const RunSet& runs, double level = 0.01) {
  const CountTable counts = CountFunctions(runs);
  const Analysis analysis(counts, runs.MakeDesign(), {.level = level, .draws = 2000});
  const Verdict verdict = Judge(runs, analysis, {});
  Said said{verdict.decision, verdict.reason, {}, {}, {}, {}, verdict.pairs_needed};
  const auto name = [&](FunctionIndex function) { return runs.functions()[function].name; };
  for (const Finding& finding : verdict.findings) said.guilty.push_back(name(finding.function));
  for (const Finding& finding : verdict.moved) said.moved.push_back(name(finding.function));
  for (const FunctionIndex function : verdict.faster) said.faster.push_back(name(function));
  if (!verdict.findings.empty()) {
    for (const Finding::Caller& caller : verdict.findings[0].callers)
      said.first_callers.push_back(name(caller.function));
  }
  return said;
}

// A few small programs of 6,000 samples a run; what they have in common is Others().
TEST(Verdict, UnchangedPasses) {
  const Said said = Judged(MadeUpProgram().Others().Stack({"main", "work"}, 300, 300).Make(16, 1));
  EXPECT_EQ(said.decision, Decision::kPass) << said.reason;
  EXPECT_THAT(said.guilty, IsEmpty());
  EXPECT_THAT(said.moved, IsEmpty());
}

TEST(Verdict, NamesTheFunctionAndNotItsCallers) {
  const Said said = Judged(MadeUpProgram().Others().Stack({"main", "serve", "parse", "scan"}, 300, 420).Make(16, 2));
  EXPECT_EQ(said.decision, Decision::kRegression);
  EXPECT_THAT(said.guilty, ElementsAre("scan")) << "its callers serve and parse are slower only through it";
  EXPECT_THAT(said.first_callers, ElementsAre("parse"));
}

TEST(Verdict, OfALibraryFunctionTheProgramsCallerIsTold) {
  const Said said = Judged(MadeUpProgram()
                               .Others()
                               .Stack({"main", "render", "libc.so!qsort", "libc.so!memcpy"}, 200, 400)
                               .Stack({"main", "save", "libc.so!memcpy"}, 200, 200)
                               .Make(16, 3));
  EXPECT_THAT(said.guilty, ElementsAre("memcpy"));
  ASSERT_THAT(said.first_callers, Contains("render"));
  EXPECT_EQ(said.first_callers[0], "render");
}

TEST(Verdict, ManySmallCalleesMakeTheirCallerGuilty) {
  // Thirty callees, each too small to be tested, together 8 % more of the total: handle is slower with what it calls.
  MadeUpProgram program;
  program.Others();
  for (int i = 0; i < 120; ++i) program.Stack({"main", "handle", "tiny" + std::to_string(i)}, 3, 6);
  const Said said = Judged(program.Make(16, 4));
  EXPECT_EQ(said.decision, Decision::kRegression);
  EXPECT_THAT(said.guilty, Contains("handle"));
  EXPECT_THAT(said.guilty, testing::Not(Contains("main")));
}

TEST(Verdict, ARenamedFunctionMoved) {
  const Said said =
      Judged(MadeUpProgram().Others().Stack({"main", "parse"}, 500, 0).Stack({"main", "ParseAll"}, 0, 500).Make(16, 5));
  EXPECT_EQ(said.decision, Decision::kPass) << said.reason;
  EXPECT_THAT(said.moved, ElementsAre("ParseAll"));
}

TEST(Verdict, ARenamedCallerMoved) {
  const Said said = Judged(MadeUpProgram()
                               .Others()
                               .Stack({"main", "run_old", "inner"}, 500, 0)
                               .Stack({"main", "run_new", "inner"}, 0, 500)
                               .Make(16, 6));
  EXPECT_EQ(said.decision, Decision::kPass) << said.reason << testing::PrintToString(said.guilty);
  EXPECT_THAT(said.moved, ElementsAre("run_new"));
}

TEST(Verdict, AnInlinedFunctionMoved) {
  const Said said = Judged(MadeUpProgram()
                               .Others()
                               .Stack({"main", "outer"}, 300, 600)
                               .Stack({"main", "outer", "inner"}, 300, 0)
                               .Make(16, 7));
  EXPECT_EQ(said.decision, Decision::kPass) << said.reason << testing::PrintToString(said.guilty);
  EXPECT_THAT(said.moved, ElementsAre("outer"));
}

TEST(Verdict, AnOutlinedFunctionMoved) {
  const Said said = Judged(MadeUpProgram()
                               .Others()
                               .Stack({"main", "outer"}, 600, 300)
                               .Stack({"main", "outer", "inner"}, 0, 300)
                               .Make(16, 8));
  EXPECT_EQ(said.decision, Decision::kPass) << said.reason << testing::PrintToString(said.guilty);
  EXPECT_THAT(said.moved, ElementsAre("inner"));
}

MadeUpProgram Split(double first, double second) {
  return MadeUpProgram()
      .Others()
      .Stack({"main", "whole"}, 600, 0)
      .Stack({"main", "first"}, 0, first)
      .Stack({"main", "second"}, 0, second);
}

TEST(Verdict, ASplitFunctionMoved) {
  const Said said = Judged(Split(350, 250).Make(16, 9));
  EXPECT_EQ(said.decision, Decision::kPass) << said.reason << testing::PrintToString(said.guilty);
  EXPECT_THAT(said.moved, testing::UnorderedElementsAre("first", "second"));
}

TEST(Verdict, ASplitFunctionThatBecameSlowerDidNotOnlyMove) {
  const Said said = Judged(Split(550, 450).Make(16, 10));
  EXPECT_EQ(said.decision, Decision::kRegression) << "600 samples became 1000";
}

TEST(Verdict, ARenameDoesNotHideARegressionBesideIt) {
  const Said said = Judged(MadeUpProgram()
                               .Others()
                               .Stack({"main", "parse"}, 500, 0)
                               .Stack({"main", "ParseAll"}, 0, 500)
                               .Stack({"main", "slow"}, 300, 450)
                               .Make(16, 11));
  EXPECT_EQ(said.decision, Decision::kRegression);
  EXPECT_THAT(said.guilty, ElementsAre("slow"));
  EXPECT_THAT(said.moved, ElementsAre("ParseAll"));
}

TEST(Verdict, AnImprovementElsewhereDoesNotPayForARegression) {
  const Said said = Judged(
      MadeUpProgram().Others().Stack({"main", "better"}, 900, 300).Stack({"main", "worse"}, 300, 500).Make(16, 12));
  EXPECT_EQ(said.decision, Decision::kRegression);
  EXPECT_THAT(said.guilty, ElementsAre("worse"));
  EXPECT_THAT(said.faster, ElementsAre("better"));
}

TEST(Verdict, AnAlikeSlowdownOfEverythingIsTheProgramsOwn) {
  MadeUpProgram program;
  for (int i = 0; i < 60; ++i) program.Stack({"main", "f" + std::to_string(i)}, 100, 130);
  const Said said = Judged(program.Make(16, 13));
  EXPECT_EQ(said.decision, Decision::kRegression);
  EXPECT_THAT(said.guilty, ElementsAre("")) << "no function, the whole";
  EXPECT_THAT(said.reason, HasSubstr("as a whole"));
}

// Too little to decide is never a pass.
TEST(Verdict, StarvedOfSamples) {
  const Said said = Judged(MadeUpProgram().Others(0.8).Make(16, 14));
  EXPECT_EQ(said.decision, Decision::kUndecided);
}

TEST(Verdict, StarvedOfRuns) {
  const Said said = Judged(MadeUpProgram().Others().Make(4, 15));
  EXPECT_EQ(said.decision, Decision::kUndecided);
  EXPECT_THAT(said.reason, HasSubstr("too few"));
}

TEST(Verdict, FewSamplesSayHowManyPairsWouldDo) {
  const Said said = Judged(MadeUpProgram().Others(2).Stack({"main", "big"}, 20, 20).Make(6, 16), 0.01);
  EXPECT_EQ(said.decision, Decision::kUndecided) << said.reason;
  EXPECT_GT(said.pairs_needed, 6u);
}

TEST(Verdict, OneSideWithoutSamples) {
  const Said said = Judged(MadeUpProgram().Stack({"main"}, 3000, 0).Make(8, 17));
  EXPECT_EQ(said.decision, Decision::kUndecided);
  EXPECT_THAT(said.reason, HasSubstr("candidate gave no samples"));
}

TEST(Verdict, LostSamples) {
  const RunSet whole = MadeUpProgram().Others().Make(16, 18);
  RunSet runs;
  for (const FunctionFacts& function : whole.functions()) {
    if (!function.name.empty()) runs.InternFunction(function);
  }
  for (size_t i = 1; i < whole.nodes().size(); ++i) runs.InternNode(whole.nodes()[i].parent, whole.nodes()[i].function);
  for (regression::Run run : whole.runs()) {
    run.facts.lost_samples = run.facts.samples / 10;
    runs.AddRun(run);
  }
  const Said said = Judged(runs);
  EXPECT_EQ(said.decision, Decision::kUndecided);
  EXPECT_THAT(said.reason, HasSubstr("lost"));
}

}  // namespace
}  // namespace pyrometer::regression

#include "userspace/regression/changed_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/regression/made_up_program.h"

namespace pyrometer::regression {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::string_view kDiff = R"(diff --git a/src/scan.c b/src/scan.c
index 1111111..2222222 100644
--- a/src/scan.c
+++ b/src/scan.c
@@ -10,4 +10,4 @@ int scan(void)
 context
-removed
+added
+added
 context
--- not a header
@@ -40,2 +41,0 @@
-gone
-gone
diff --git a/lib/old.c b/lib/old.c
deleted file mode 100644
--- a/lib/old.c
+++ /dev/null
@@ -1 +0,0 @@
-all of it
diff --git a/new.c b/new.c
--- /dev/null
+++ b/new.c	2026-01-01 00:00:00
@@ -0,0 +1,2 @@
+one
+two
\ No newline at end of file
)";

TEST(ChangedLines, ReadsWhatGitWrites) {
  const ChangedLines changed = *ChangedLines::Parse(kDiff);
  ASSERT_EQ(changed.files().size(), 3u);
  EXPECT_EQ(changed.files()[0].path, "src/scan.c");
  // "--- not a header" lies in a hunk of 4 lines: a removed line.
  EXPECT_THAT(changed.files()[0].lines, ElementsAre(11, 12, 14, 42));
  EXPECT_EQ(changed.files()[1].path, "lib/old.c");
  EXPECT_EQ(changed.files()[2].path, "new.c");
  EXPECT_THAT(changed.files()[2].lines, ElementsAre(1, 2));
}

TEST(ChangedLines, NothingAndNonsense) {
  EXPECT_THAT(ChangedLines::Parse("")->files(), IsEmpty());
  EXPECT_THAT(ChangedLines::Parse("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n")->files(), IsEmpty());
  EXPECT_EQ(ChangedLines::Parse("hello").status().code(), StatusCode::kInvalidArgument);
  // Numbers beyond any file, hunks cut short, hunks without a file.
  EXPECT_THAT(ChangedLines::Parse("--- a/x\n+++ b/x\n@@ -1 +99999999999999999999 @@\n+x\n")->files()[0].lines,
              IsEmpty());
  EXPECT_THAT(ChangedLines::Parse("--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n+x")->files()[0].lines, ElementsAre(1));
  EXPECT_FALSE(ChangedLines::Parse("@@ -1 +1 @@\n+x\n").ok());
}

TEST(ChangedLines, FindsTheFileThatDebugInformationMeans) {
  const ChangedLines changed =
      *ChangedLines::Parse("--- a/src/scan.c\n+++ b/src/scan.c\n--- a/test/scan.c\n+++ b/test/scan.c\n");
  EXPECT_EQ(changed.Find("/build/pkg/src/scan.c"), &changed.files()[0]);
  EXPECT_EQ(changed.Find("./test/scan.c"), &changed.files()[1]);
  EXPECT_EQ(changed.Find("/build/other/scan.c"), nullptr);
  EXPECT_EQ(changed.Find("/build/src/miniscan.c"), nullptr);
  EXPECT_EQ(changed.Find(""), nullptr);
}

class Ranked : public testing::Test {
 protected:
  // Three functions became slower: scan most, then parse and copy, which parse calls.
  void Rank(std::string_view diff) {
    runs_ = MadeUpProgram()
                .Others()
                .Source("scan", "/b/src/scan.c", 10)
                .Source("helper", "/b/src/scan.c", 50)
                .Source("parse", "/b/src/parse.c", 10)
                .Source("copy", "/b/src/copy.c", 10)
                .Stack({"main", "scan"}, 300, 600)
                .Stack({"main", "helper"}, 100, 100)
                .Stack({"main", "parse"}, 300, 400)
                .Stack({"main", "parse", "copy"}, 300, 500)
                .Make(16, 1);
    const CountTable counts = CountFunctions(runs_);
    const Analysis analysis(counts, runs_.MakeDesign(), {.draws = 1000, .seed = 7});
    verdict_ = Judge(runs_, analysis, {});
    RankByChange(runs_, *ChangedLines::Parse(diff), &verdict_);
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const Finding& finding : verdict_.findings) names.push_back(runs_.functions()[finding.function].name);
    return names;
  }
  ChangeRelation Relation(size_t i) const { return verdict_.findings[i].change.relation; }

  RunSet runs_;
  Verdict verdict_;
};

TEST_F(Ranked, WithoutChangesAsBefore) {
  Rank("");
  EXPECT_THAT(Names(), ElementsAre("scan", "copy", "parse"));
  EXPECT_EQ(Relation(0), ChangeRelation::kNone);
}

TEST_F(Ranked, OwnLinesComeFirst) {
  Rank("--- a/src/parse.c\n+++ b/src/parse.c\n@@ -20,0 +20,1 @@\n+x\n");
  EXPECT_THAT(Names(), ElementsAre("parse", "copy", "scan"));
  EXPECT_EQ(Relation(0), ChangeRelation::kItself);
  EXPECT_EQ(verdict_.findings[0].change.line, 20);
  EXPECT_EQ(Relation(1), ChangeRelation::kCalledByChanged);
  EXPECT_EQ(Relation(2), ChangeRelation::kNone);
}

TEST_F(Ranked, ThenWhoCallsWhatChanged) {
  Rank("--- a/src/copy.c\n+++ b/src/copy.c\n@@ -20,0 +20,1 @@\n+x\n");
  EXPECT_THAT(Names(), ElementsAre("copy", "parse", "scan"));
  EXPECT_EQ(Relation(1), ChangeRelation::kCallsChanged);
}

TEST_F(Ranked, LinesOfTheNextFunctionAreNotOurs) {
  Rank("--- a/src/scan.c\n+++ b/src/scan.c\n@@ -60,0 +60,1 @@\n+x\n");
  EXPECT_THAT(Names(), ElementsAre("scan", "copy", "parse"));
  EXPECT_EQ(Relation(0), ChangeRelation::kSameFile);
}

TEST_F(Ranked, LinesBeforeAnyFunctionAreTheFiles) {
  Rank("--- a/src/scan.c\n+++ b/src/scan.c\n@@ -1,0 +1,1 @@\n+#include <x>\n");
  EXPECT_EQ(Relation(0), ChangeRelation::kSameFile);
}

}  // namespace
}  // namespace pyrometer::regression

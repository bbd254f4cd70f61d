#include "userspace/regression/run_set.h"

#include <gtest/gtest.h>

#include "tests/unit/regression/made_up_program.h"
#include "userspace/regression/count_table.h"

namespace pyrometer::regression {
namespace {

profile::FrameId Frame(profile::Profile& profile, const std::string& file, const std::vector<std::string>& inlined,
                       uint64_t address) {
  profile::Dictionary& d = profile.dictionary;
  profile::Frame frame;
  frame.kind = profile::FrameKind::kNative;
  frame.mapping = d.InternMapping({.file = d.InternString(file)});
  frame.address = ElfAddress(address);
  for (const std::string& name : inlined) {
    frame.lines.push_back({.function = d.InternFunction(
                               {.name = d.InternString(name), .file = d.InternString("a.cc"), .start_line = 7})});
  }
  return d.InternFrame(frame);
}

TEST(RunSet, FoldsAddressesIntoFunctionsAndExpandsInlines) {
  profile::Profile profile;
  profile.value_types = {{"samples", "count"}};
  const profile::FrameId main = Frame(profile, "/opt/app", {"main"}, 1);
  // One frame of two functions: inner() inlined into outer(int).
  const profile::FrameId both = Frame(profile, "/opt/app", {"inner()", "outer(int)"}, 2);
  const profile::FrameId again = Frame(profile, "/opt/app", {"inner()", "outer(long)"}, 3);
  const profile::StackId root = profile.dictionary.InternStack(profile::kEmptyStack, main);
  profile.Add(0, profile.dictionary.InternStack(root, both), {5});
  profile.Add(0, profile.dictionary.InternStack(root, again), {2});
  profile.Add(0, root, {1});
  RunSet runs;
  runs.Add(Side::kCandidate, 3, {.cpu_ns = 4}, profile);
  ASSERT_EQ(runs.functions().size(), 4u) << "none, main, outer, inner";
  EXPECT_EQ(runs.functions()[2].name, "outer");
  EXPECT_EQ(runs.functions()[2].module, "app");
  EXPECT_EQ(runs.functions()[2].file, "a.cc");
  EXPECT_EQ(runs.functions()[2].line, 7);
  ASSERT_EQ(runs.runs().size(), 1u);
  EXPECT_EQ(runs.runs()[0].facts.samples, 8u);
  const CountTable counts = CountFunctions(runs);
  EXPECT_EQ(counts.exclusive(0, 3), 7) << "inner";
  EXPECT_EQ(counts.inclusive(0, 2), 7) << "outer";
  EXPECT_EQ(counts.exclusive(0, 1), 1) << "main";
}

TEST(RunSet, AppendKeepsCountsAndRenumbersBlocks) {
  const RunSet one = MadeUpProgram().Others().Make(4, 1);
  const RunSet two = MadeUpProgram().Stack({"main", "late"}, 50, 50).Others().Make(4, 2);
  RunSet both;
  both.Append(one, Side::kBaseline);
  both.Append(two, Side::kCandidate);
  ASSERT_EQ(both.runs().size(), one.runs().size() + two.runs().size());
  for (size_t r = 0; r < two.runs().size(); ++r) {
    const regression::Run& run = both.runs()[one.runs().size() + r];
    EXPECT_EQ(run.side, Side::kCandidate);
    EXPECT_EQ(run.SampleTotal(), two.runs()[r].SampleTotal());
  }
  EXPECT_EQ(both.runs().back().block, 3u);
  EXPECT_TRUE(both.MakeDesign(true).IsValid());
}

TEST(RunSet, TwoNamesOfOneProgramAreMatched) {
  RunSet runs;
  for (const Side side : {Side::kBaseline, Side::kCandidate}) {
    const std::string module = side == Side::kBaseline ? "app-old" : "app-new";
    const NodeIndex main = runs.InternNode(0, runs.InternFunction({.name = "main", .module = module}));
    const NodeIndex copy = runs.InternNode(main, runs.InternFunction({.name = "memcpy", .module = "libc.so"}));
    regression::Run run;
    run.side = side;
    run.counts = {{main, 100}, {copy, 200}};
    // A sample in the shell, by chance on one side only.
    if (side == Side::kBaseline) {
      run.counts.emplace_back(runs.InternNode(0, runs.InternFunction({.name = "main", .module = "dash"})), 1);
    }
    runs.AddRun(run);
  }
  const RunSet matched = MatchExecutables(runs);
  ASSERT_EQ(matched.functions().size(), 4u);
  EXPECT_EQ(matched.functions()[1].module, "app-old");
  ASSERT_EQ(matched.runs()[0].counts.size(), 3u);
  EXPECT_EQ(matched.runs()[1].counts, (decltype(regression::Run::counts){{1, 100}, {2, 200}}));
}

TEST(RunSet, UnlikeProgramsAreLeftApart) {
  RunSet runs;
  for (const auto& [side, module] :
       {std::pair{Side::kBaseline, "a"}, {Side::kBaseline, "b"}, {Side::kCandidate, "c"}}) {
    regression::Run run;
    run.side = side;
    run.counts = {{runs.InternNode(0, runs.InternFunction({.name = "main", .module = module})), 1}};
    runs.AddRun(run);
  }
  EXPECT_EQ(MatchExecutables(runs).functions().size(), 4u) << "which of a and b would be c?";
}

TEST(MachineClass, SaysWhatDiffers) {
  MachineClass one = ThisMachine();
  EXPECT_GT(one.cpus, 0u);
  EXPECT_FALSE(one.kernel.empty());
  EXPECT_EQ(one.WhyDiffers(one), "");
  MachineClass other = one;
  other.cpus += 2;
  EXPECT_NE(one.WhyDiffers(other).find("number of CPUs"), std::string::npos);
  one.kernel = "6.1.0-18-amd64";
  other = one;
  other.kernel = "6.1.0-21-amd64";
  EXPECT_EQ(one.WhyDiffers(other), "") << "an update of the same series";
  other.kernel = "6.12.1";
  EXPECT_NE(one.WhyDiffers(other).find("6.12.1"), std::string::npos);
}

}  // namespace
}  // namespace pyrometer::regression

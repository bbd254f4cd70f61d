#include "userspace/regression/google_benchmark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/regression/made_up_program.h"
#include "userspace/regression/report.h"

namespace pyrometer::regression {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(GoogleBenchmark, ListsNames) {
  EXPECT_THAT(*ParseBenchmarkList("BM_Scan/8\nBM_Copy<int, long>/threads:2\n\n"),
              ElementsAre("BM_Scan/8", "BM_Copy<int, long>/threads:2"));
  EXPECT_EQ(ParseBenchmarkList("").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ParseBenchmarkList("a\xff\n").status().code(), StatusCode::kInvalidArgument);
  std::string many;
  for (int i = 0; i < 2000; ++i) many += "B" + std::to_string(i) + "\n";
  EXPECT_EQ(ParseBenchmarkList(many).status().code(), StatusCode::kInvalidArgument);
}

TEST(GoogleBenchmark, AFilterMatchesOneName) {
  EXPECT_EQ(ExactBenchmarkFilter("BM_Scan<int>/8/real_time"), "^BM_Scan<int>/8/real_time$");
  EXPECT_EQ(ExactBenchmarkFilter("a.b(c)|d[e]*"), "^a\\.b\\(c\\)\\|d\\[e\\]\\*$");
}

// As version 1.7.1 writes it, with two repetitions and an aggregate.
constexpr std::string_view kOutput = R"({"context": {"num_cpus": 2}, "benchmarks": [
  {"name": "BM_Scan/8", "run_type": "iteration", "iterations": 1000, "real_time": 2.5, "cpu_time": 2.0, "time_unit": "us"},
  {"name": "BM_Scan/8", "run_type": "iteration", "iterations": 1200, "real_time": 3.5, "cpu_time": 3.0, "time_unit": "us"},
  {"name": "BM_Scan/8_mean", "run_type": "aggregate", "iterations": 2, "real_time": 9, "cpu_time": 9, "time_unit": "us"}]})";

TEST(GoogleBenchmark, ReadsTimes) {
  const BenchmarkTimes times = *ParseBenchmarkTimes(kOutput);
  EXPECT_EQ(times.iterations, 2200u);
  EXPECT_DOUBLE_EQ(times.cpu_ns, 2500);
  EXPECT_DOUBLE_EQ(times.real_ns, 3000);
}

TEST(GoogleBenchmark, RefusesWhatIsNone) {
  for (const std::string_view text :
       {"", "[]", "{}", R"({"benchmarks": []})", R"({"benchmarks": [3]})",
        R"({"benchmarks": [{"iterations": 1, "real_time": 1, "cpu_time": 1, "time_unit": "weeks"}]})",
        R"({"benchmarks": [{"iterations": 0, "real_time": 1, "cpu_time": 1, "time_unit": "ns"}]})",
        R"({"benchmarks": [{"iterations": 1, "real_time": 0, "cpu_time": 0, "time_unit": "ns"}]})"}) {
    EXPECT_EQ(ParseBenchmarkTimes(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
  const Status failed =
      ParseBenchmarkTimes(R"({"benchmarks": [{"error_occurred": true, "error_message": "no input"}]})").status();
  EXPECT_EQ(failed.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(failed)), HasSubstr("no input"));
}

// A benchmark runs for a time: a slower one does less, and its samples stay the same.
// `trying`: the share of the time that goes to finding out how many iterations to make, which are reported nowhere.
RunSet OfFixedTime(double slower, uint64_t seed, double trying = 0) {
  const RunSet made =
      MadeUpProgram().Stack({"main", "scan"}, 7000, 7000).Stack({"main", "copy"}, 3000, 3000).Make(16, seed);
  RunSet runs;
  for (FunctionIndex f = 1; f < made.functions().size(); ++f) runs.InternFunction(made.functions()[f]);
  for (NodeIndex n = 1; n < made.nodes().size(); ++n) runs.InternNode(made.nodes()[n].parent, made.nodes()[n].function);
  std::mt19937_64 engine(seed);
  for (Run run : made.runs()) {
    const double work = std::exp(0.01 * std::normal_distribution<double>()(engine));
    const double factor = run.side == Side::kCandidate ? slower : 1;
    run.facts.iterations = static_cast<uint64_t>(1e6 * work / factor);
    run.facts.iteration_cpu_ns = 1000 * factor / work;
    run.facts.iteration_real_ns = 1100 * factor / work;
    for (auto& [node, count] : run.counts) {
      const bool scan = made.functions()[made.nodes()[node].function].name == "scan";
      // Of the work of an iteration scan does more; the time of the run is the same.
      const double expected =
          (scan ? 7000 * (1 + (factor - 1) / 0.7) : 3000) / factor * (1 + (run.side == Side::kBaseline ? trying : 0));
      count = std::poisson_distribution<uint64_t>(expected)(engine);
    }
    runs.AddRun(std::move(run));
  }
  return runs;
}

TEST(GoogleBenchmark, KnownWorkIsTheMeasure) {
  for (const double trying : {0.0, 0.4}) {
    const RunSet runs = OfFixedTime(1.3, 1, trying);
    const CountTable counts = CountFunctions(runs);
    const Analysis analysis(counts, runs.MakeDesign(), {.draws = 1000, .seed = 7});
    const Verdict verdict = Judge(runs, analysis, {});
    EXPECT_EQ(verdict.decision, Decision::kRegression);
    EXPECT_NEAR(analysis.total().ratio, 1.3, 0.05);
    ASSERT_GE(verdict.findings.size(), 1u);
    EXPECT_EQ(runs.functions()[verdict.findings[0].function].name, "scan");
    EXPECT_EQ(verdict.findings.size(), 1u);  // copy does as before, though it has fewer samples
    EXPECT_NEAR(verdict.findings[0].effect.ratio, 1 + 0.3 / 0.7, 0.05);
  }
}

TEST(GoogleBenchmark, StartAndEndOfTheProcessDoNotCount) {
  profile::Profile profile;
  profile.value_types = {{"samples", "count"}};
  profile::Dictionary& d = profile.dictionary;
  const auto frame = [&](std::string_view name, std::string_view system_name) {
    return d.InternFrame({.kind = profile::FrameKind::kNative,
                          .address = ElfAddress(d.frame_count()),
                          .lines = {{d.InternFunction({d.InternString(name), d.InternString(system_name), 0, 0})}}});
  };
  const auto main = d.InternStack(profile::kEmptyStack, frame("main", ""));
  const auto loads = d.InternStack(main, frame("load", ""));
  const auto loop = d.InternStack(main, frame("BM_A(benchmark::State&)", ""));
  const auto work = d.InternStack(loop, frame("work", ""));
  profile.Add(0, loads, {7});
  EXPECT_EQ(InsideBenchmarks(profile).Total(0), 7);  // no such function: all of it
  profile.Add(0, loop, {1});
  profile.Add(0, work, {90});
  profile.Add(0, d.InternStack(main, frame("BM_B", "_Z4BM_BRN9benchmark5StateE")), {20});
  profile.accounting.taken = 118;
  const profile::Profile inside = InsideBenchmarks(profile);
  EXPECT_EQ(inside.Total(0), 111);
  EXPECT_EQ(inside.sample_count(), 3u);
  EXPECT_EQ(inside.accounting.taken, 118u);
}

TEST(GoogleBenchmark, OneReportOfSeveral) {
  const auto made = [](double slower, uint64_t seed) {
    const RunSet runs = OfFixedTime(slower, seed);
    const CountTable counts = CountFunctions(runs);
    const Analysis analysis(counts, runs.MakeDesign(), {.draws = 1000, .seed = 7});
    return MakeReport(runs, analysis, Judge(runs, analysis, {}), {.alpha = 0.005, .seed = 7});
  };
  const Report both = MergeBenchmarks({{"BM_A", made(1, 2), 1100, 1100}, {"BM_B", made(1.5, 3), 1100, 1650}}, 0.01);
  EXPECT_EQ(both.decision, Decision::kRegression);
  EXPECT_EQ(both.reason, "1 of 2 benchmarks became slower: BM_B");
  EXPECT_EQ(both.alpha, 0.01);
  ASSERT_FALSE(both.findings.empty());
  EXPECT_EQ(both.findings[0].benchmark, "BM_B");
  EXPECT_THAT(Sentence(both.findings[0]), testing::StartsWith("BM_B: scan takes "));
  ASSERT_EQ(both.benchmarks.size(), 2u);
  EXPECT_EQ(both.benchmarks[0].decision, Decision::kPass);
  ASSERT_EQ(both.flames.size(), 2u);
  EXPECT_EQ(both.flames[1].title, "BM_B");
  EXPECT_EQ(MergeBenchmarks({{"BM_A", made(1, 2), 1, 1}}, 0.01).decision, Decision::kPass);
}

}  // namespace
}  // namespace pyrometer::regression

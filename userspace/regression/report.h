// What a check says, in the forms that people and their tools read. JSON is the canonical one and holds everything
// (docs/formats/ci-report.md); the others are made from the same report.
//
//   const Report report = MakeReport(runs, analysis, verdict, facts);
//   ASSIGN_OR_RETURN(const ReportFormat format, ReportFormatFor("out.sarif"));
//   RETURN_IF_ERROR(WriteFileAtomically("out.sarif", RenderReport(report, format)));
//
// All text from outside (function names, commands) is escaped for its format.
//
// Threads: pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/regression/flame_diff.h"
#include "userspace/regression/verdict.h"

namespace pyrometer::regression {

struct ReportFunction {
  std::string name;
  std::string module;
  std::string file;  // "" unknown
  int32_t line = 0;  // 0 unknown
};

struct ReportFinding {
  ReportFunction function;  // name "" is the whole program
  bool inclusive = false;
  Effect effect;
  struct Caller {
    ReportFunction function;
    double excess = 0;
  };
  std::vector<Caller> callers;
  std::vector<ReportFunction> moved_from;
  // With --diff: what the change has to do with it; kNone without.
  ChangeRelation change = ChangeRelation::kNone;
  std::string change_text;  // "its own lines changed (src/scan.c:42)"; "" for kNone
  std::string benchmark;    // it is of; "" without --benchmark
};

// One benchmark of a program that holds several (--benchmark).
struct BenchmarkReport {
  std::string name;
  Decision decision = Decision::kPass;
  std::string reason, remedy;
  size_t baseline_runs = 0, candidate_runs = 0;
  Effect total;  // CPU time of an iteration
  double baseline_real_ns = 0,
         candidate_real_ns = 0;  // of an iteration, by the benchmark's own clock; mean of the runs
  double detectable_share = 0;
};

struct Report {
  Decision decision = Decision::kPass;
  std::string reason;
  std::string remedy;               // undecided: what would decide it; "" otherwise
  std::string baseline, candidate;  // the commands
  std::string how;
  int64_t started_ns = 0;  // Unix time of the first run; of the check, where nothing was run
  uint64_t wall_ns = 0;    // of all runs together
  size_t baseline_runs = 0, candidate_runs = 0;
  uint64_t samples = 0, lost_samples = 0;
  double alpha = 0;
  double min_effect = 0;
  double level = 0;  // the part of alpha that the last look used
  uint64_t seed = 0;
  double detectable_share = 0;
  Effect total;
  Effect instructions;  // of the whole runs, in user mode; not tested where the machine has no counter of them
  std::vector<ReportFinding> findings, moved, faster;
  // Slower, and no regression: it comes from where code and data lie. With a reason then.
  std::vector<ReportFinding> layout;
  std::string layout_reason;
  size_t findings_left_out = 0;
  size_t functions_tested = 0;
  std::vector<uint64_t> baseline_cpu_ns, candidate_cpu_ns;  // per run, in the order they were taken
  std::vector<FlameDiff> flames;                            // of the HTML page
  // With --benchmark; findings then name theirs, and `total` and the times of runs are not known.
  std::vector<BenchmarkReport> benchmarks;
  std::vector<std::string> only_in_baseline, only_in_candidate;  // benchmarks that one side lacks
};

struct ReportFacts {
  double alpha = 0.01;
  uint64_t seed = 1;
  // Source files below this folder are named from there, as tools that show the report beside the code expect.
  std::string source_root;
};

Report MakeReport(const RunSet& runs, const Analysis& analysis, const Verdict& verdict, const ReportFacts& facts);

// The reports of several benchmarks as one: a regression where any is one, a pass where all are. `alpha` is that of all
// together. Precondition: not empty.
struct NamedReport {
  std::string name;
  Report report;
  double baseline_real_ns = 0, candidate_real_ns = 0;
};
Report MergeBenchmarks(std::vector<NamedReport> reports, double alpha);

enum class ReportFormat { kJson, kMarkdown, kJUnit, kSarif, kCodeQuality, kHtml };
// By extension: .md, .xml (JUnit), .sarif, .codequality.json (GitLab), .html, .json. INVALID_ARGUMENT names them.
StatusOr<ReportFormat> ReportFormatFor(std::string_view path);
std::string RenderReport(const Report& report, ReportFormat format);

// Workflow commands that GitHub shows beside the code, at most ten; "" when nothing became slower.
std::string GitHubAnnotations(const Report& report);

// The HTML page (report_html.cc): everything the JSON report has, and the differential flame graph. It needs no
// network.
std::string RenderHtml(const Report& report);

// "parse_row() takes 12.3 % more (10.1 to 14.6), 1.8 % of the total CPU time, p = 0.0002"
std::string Sentence(const ReportFinding& finding);

}  // namespace pyrometer::regression

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
};

struct Report {
  Decision decision = Decision::kPass;
  std::string reason;
  std::string remedy;               // undecided: what would decide it; "" otherwise
  std::string baseline, candidate;  // the commands
  std::string how;
  size_t baseline_runs = 0, candidate_runs = 0;
  uint64_t samples = 0, lost_samples = 0;
  double alpha = 0;
  double min_effect = 0;
  double level = 0;  // the part of alpha that the last look used
  uint64_t seed = 0;
  double detectable_share = 0;
  Effect total;
  std::vector<ReportFinding> findings, moved, faster;
  size_t findings_left_out = 0;
  size_t functions_tested = 0;
};

struct ReportFacts {
  double alpha = 0.01;
  uint64_t seed = 1;
};

Report MakeReport(const RunSet& runs, const Analysis& analysis, const Verdict& verdict, const ReportFacts& facts);

enum class ReportFormat { kJson, kMarkdown, kJUnit, kSarif, kCodeQuality };
// By extension: .md, .xml (JUnit), .sarif, .codequality.json (GitLab), .json. INVALID_ARGUMENT names them.
StatusOr<ReportFormat> ReportFormatFor(std::string_view path);
std::string RenderReport(const Report& report, ReportFormat format);

// Workflow commands that GitHub shows beside the code, at most ten; "" when nothing became slower.
std::string GitHubAnnotations(const Report& report);

// "parse_row() takes 12.3 % more (10.1 to 14.6), 1.8 % of the total CPU time, p = 0.0002"
std::string Sentence(const ReportFinding& finding);

}  // namespace pyrometer::regression

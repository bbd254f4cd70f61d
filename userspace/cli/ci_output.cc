#include "userspace/cli/ci_output.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <random>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/cli/git.h"
#include "userspace/cli/terminal.h"
#include "userspace/regression/count_table.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::cli {
namespace {

using regression::Analysis;
using regression::Decision;
using regression::Report;
using regression::RunSet;

constexpr size_t kRowsShown = 10;
constexpr size_t kMaxDiffBytes = 64u << 20;

std::string RenderFindings(const std::vector<regression::ReportFinding>& findings) {
  Table table({{"change", Table::Align::kRight},
               {"95 % interval", Table::Align::kRight},
               {"of total", Table::Align::kRight},
               {"p", Table::Align::kRight},
               {"function"}});
  for (size_t i = 0; i < std::min(findings.size(), kRowsShown); ++i) {
    const regression::ReportFinding& finding = findings[i];
    const regression::Effect& effect = finding.effect;
    std::string name = finding.function.name.empty() ? "the whole program" : finding.function.name;
    if (!finding.function.module.empty()) name += StrFormat(" (%s)", finding.function.module);
    if (!finding.benchmark.empty()) name = finding.benchmark + ": " + name;
    if (finding.inclusive) name += ", with what it calls";
    if (!finding.callers.empty()) name += ", called by " + finding.callers.front().function.name;
    if (!finding.change_text.empty()) name += "; " + finding.change_text;
    const auto percent = [](double ratio) { return StrFormat("%+.1f %%", 100 * (ratio - 1)); };
    table.AddRow({effect.is_new     ? "new"
                  : effect.vanished ? "gone"
                                    : percent(effect.ratio),
                  effect.is_new || effect.vanished
                      ? ""
                      : percent(effect.ratio_interval.low) + " … " + percent(effect.ratio_interval.high),
                  StrFormat("%+.2f %%", 100 * effect.excess),
                  StrFormat("%.2g", effect.excess < 0 ? effect.p_faster : effect.p), name});
  }
  std::string out = table.ToString();
  if (findings.size() > kRowsShown)
    out += StrFormat("and %d more; -o report.json has all\n", findings.size() - kRowsShown);
  return out;
}

std::string RenderBenchmarks(const Report& report) {
  Table table({{"benchmark"},
               {"verdict"},
               {"CPU time", Table::Align::kRight},
               {"95 % interval", Table::Align::kRight},
               {"real time", Table::Align::kRight}});
  const auto percent = [](double ratio) { return StrFormat("%+.1f %%", 100 * (ratio - 1)); };
  for (const regression::BenchmarkReport& one : report.benchmarks) {
    const std::string real =
        one.baseline_real_ns > 0 ? percent(one.candidate_real_ns / one.baseline_real_ns) : std::string();
    table.AddRow({one.name, std::string(DecisionName(one.decision)), percent(one.total.ratio),
                  percent(one.total.ratio_interval.low) + " … " + percent(one.total.ratio_interval.high), real});
  }
  std::string out = table.ToString();
  for (const auto& [names, side] :
       {std::pair{&report.only_in_baseline, "baseline"}, {&report.only_in_candidate, "candidate"}}) {
    if (!names->empty()) out += StrFormat("only the %s has %s\n", side, Join(*names, ", "));
  }
  return out;
}

void PrintReport(const Report& report) {
  const char* word = report.decision == Decision::kPass         ? "pass"
                     : report.decision == Decision::kRegression ? "REGRESSION"
                                                                : "CANNOT DECIDE";
  std::printf("%s: %s\n", word, report.reason.c_str());
  if (!report.remedy.empty()) std::printf("%s\n", report.remedy.c_str());
  if (!report.findings.empty()) std::printf("\n%s", RenderFindings(report.findings).c_str());
  if (!report.layout.empty()) {
    std::printf("\nslower by layout, it seems\n%s", RenderFindings(report.layout).c_str());
  }
  if (!report.moved.empty()) {
    std::printf("\nmoved, not slower\n");
    for (const regression::ReportFinding& finding : report.moved) {
      std::vector<std::string> from;
      for (const auto& function : finding.moved_from) from.push_back(function.name);
      std::printf("  %s, from %s\n", finding.function.name.c_str(), Join(from, ", ").c_str());
    }
  }
  if (!report.faster.empty()) std::printf("\nfaster\n%s", RenderFindings(report.faster).c_str());
  if (report.baseline_runs == 0) return;
  std::printf("\n");
  if (!report.benchmarks.empty()) std::printf("%s\n", RenderBenchmarks(report).c_str());
  if (report.total.tested) {
    std::printf("total CPU time: %+.1f %% (%+.1f to %+.1f)\n", 100 * (report.total.ratio - 1),
                100 * (report.total.ratio_interval.low - 1), 100 * (report.total.ratio_interval.high - 1));
  }
  if (!report.instructions.tested) {
    if (report.benchmarks.empty()) std::printf("instructions: not counted\n");
  } else {
    std::printf("instructions: %+.2f %% (%+.2f to %+.2f)\n", 100 * (report.instructions.ratio - 1),
                100 * (report.instructions.ratio_interval.low - 1),
                100 * (report.instructions.ratio_interval.high - 1));
  }
  if (std::isfinite(report.detectable_share)) {
    std::printf("a slowdown of one function by %.2f %% of the total would have been seen\n",
                100 * report.detectable_share);
  }
  std::printf("%zu and %zu runs, %s samples (%s), %zu figures tested at a false-alarm rate of %.2g %%, seed %llu\n",
              report.baseline_runs, report.candidate_runs, FormatCount(report.samples).c_str(), report.how.c_str(),
              report.functions_tested, 100 * report.alpha, static_cast<unsigned long long>(report.seed));
}

}  // namespace

Status CanWrite(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return ErrnoError(errno, StrFormat("cannot write into the folder %s of %s", folder.string(), path));
  }
  return OkStatus();
}

// Formats of all -o, before any work is done.
StatusOr<std::vector<regression::ReportFormat>> ResolveReports(const CiFlags& flags) {
  std::vector<regression::ReportFormat> formats;
  for (const std::string& path : flags.outputs) {
    ASSIGN_OR_RETURN(const auto format, regression::ReportFormatFor(path));
    RETURN_IF_ERROR(CanWrite(path));
    formats.push_back(format);
  }
  return formats;
}

StatusOr<std::optional<regression::ChangedLines>> ReadChange(const CiFlags& flags) {
  if (flags.diff.empty()) return std::nullopt;
  std::string text;
  if (::access(flags.diff.c_str(), F_OK) == 0) {
    ASSIGN_OR_RETURN(text, ReadFile(flags.diff, kMaxDiffBytes));
  } else {
    if (flags.diff.starts_with('-')) return InvalidArgumentError("--diff: a range does not begin with -");
    auto diff =
        GitOutput({"diff", "--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/", flags.diff, "--"});
    if (!diff.ok()) {
      return InvalidArgumentError(
          StrFormat("--diff: %s is no file that can be read, and no range that `git diff` knows here", flags.diff));
    }
    text = *std::move(diff);
  }
  auto changed = regression::ChangedLines::Parse(text);
  if (!changed.ok()) return WithContext(changed.status(), "--diff " + flags.diff);
  return *std::move(changed);
}

Examined Examine(const RunSet& runs, const CiFlags& flags, const ExamineOptions& options) {
  const RunSet matched = regression::MatchExecutables(runs);
  const regression::CountTable counts = regression::CountFunctions(matched);
  const Analysis analysis(counts, matched.MakeDesign(options.one_block),
                          {.level = options.level,
                           .min_effect = flags.min_effect_percent / 100,
                           .draws = options.draws,
                           .seed = options.seed});
  regression::Verdict verdict = regression::Judge(matched, analysis, {});
  if (options.changed != nullptr) regression::RankByChange(matched, *options.changed, &verdict);
  std::error_code unknown;
  const std::string root =
      flags.source_root.empty() ? std::filesystem::current_path(unknown).string() : flags.source_root;
  return {regression::MakeReport(matched, analysis, verdict,
                                 {.alpha = flags.alpha, .seed = options.seed, .source_root = root}),
          analysis.RulesOutMinEffect()};
}

uint64_t SeedOf(const CiFlags& flags) {
  if (flags.seed) return *flags.seed;
  std::random_device device;
  // 53 bits: a reader of the JSON report keeps them exactly.
  return (uint64_t{device()} << 32 | device()) >> 11;
}

void ShowNotes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
}

int FinishCheck(const Report& report, const CiFlags& flags, const std::vector<regression::ReportFormat>& formats) {
  for (size_t i = 0; i < formats.size(); ++i) {
    const Status written = WriteFileAtomically(flags.outputs[i], regression::RenderReport(report, formats[i]));
    if (!written.ok()) return Fail(written);
    std::fprintf(stderr, "wrote %s\n", flags.outputs[i].c_str());
  }
  if (flags.json) {
    std::fputs(regression::RenderReport(report, regression::ReportFormat::kJson).c_str(), stdout);
  } else {
    PrintReport(report);
  }
  if (flags.github) std::fputs(regression::GitHubAnnotations(report).c_str(), stdout);
  switch (report.decision) {
    case Decision::kPass:
      return kExitDone;
    case Decision::kRegression:
      return kExitRegression;
    case Decision::kUndecided:
      return kExitUndecided;
  }
  return kExitUndecided;
}

int FinishUndecided(const std::string& reason, const std::string& remedy, const CiFlags& flags,
                    const std::vector<regression::ReportFormat>& formats) {
  Report report;
  report.decision = Decision::kUndecided;
  report.reason = reason;
  report.remedy = remedy;
  report.started_ns = UnixNowNs();
  report.alpha = flags.alpha;
  report.min_effect = flags.min_effect_percent / 100;
  report.detectable_share = std::numeric_limits<double>::infinity();
  report.baseline = flags.baseline;
  report.candidate = flags.candidate;
  return FinishCheck(report, flags, formats);
}

int FinishTooFewPairs(double alpha, const CiFlags& flags, const std::vector<regression::ReportFormat>& formats) {
  size_t enough = flags.pairs;
  while (regression::PlanLooks(enough, alpha).empty()) enough += regression::kPairsPerBlock;
  enough = regression::PlanLooks(enough, alpha).back().pairs;
  return FinishUndecided(
      StrFormat("%d pairs of runs are too few for a false-alarm rate of %.2g %%", flags.pairs, 100 * alpha),
      StrFormat("at least %d pairs are needed (--pairs); nothing was run", enough), flags, formats);
}

}  // namespace pyrometer::cli

#include "userspace/regression/report.h"

#include <algorithm>
#include <cmath>

#include "userspace/base/strings.h"

namespace pyrometer::regression {
namespace {

ReportFunction Describe(const RunSet& runs, FunctionIndex index) {
  if (index == 0) return {};
  const FunctionFacts& facts = runs.functions()[index];
  return {facts.name, facts.module, facts.file, facts.line};
}

ReportFinding Describe(const RunSet& runs, const Finding& finding) {
  ReportFinding result{
      .function = Describe(runs, finding.function), .inclusive = finding.inclusive, .effect = finding.effect};
  for (const Finding::Caller& caller : finding.callers) {
    result.callers.push_back({Describe(runs, caller.function), caller.excess});
  }
  for (const FunctionIndex from : finding.moved_from) result.moved_from.push_back(Describe(runs, from));
  return result;
}

}  // namespace

Report MakeReport(const RunSet& runs, const Analysis& analysis, const Verdict& verdict, const ReportFacts& facts) {
  Report report;
  report.decision = verdict.decision;
  report.reason = verdict.reason;
  if (verdict.decision == Decision::kUndecided) {
    const size_t pairs = std::min(analysis.design().count(Side::kBaseline), analysis.design().count(Side::kCandidate));
    report.remedy =
        verdict.pairs_needed > pairs
            ? StrFormat("about %d pairs of runs would decide (--pairs), or runs that take longer", verdict.pairs_needed)
            : "runs that take longer, or a higher frequency (-F), would decide";
  }
  report.baseline = runs.origin(Side::kBaseline).command;
  report.candidate = runs.origin(Side::kCandidate).command;
  report.how = runs.origin(Side::kCandidate).how;
  report.baseline_runs = analysis.design().count(Side::kBaseline);
  report.candidate_runs = analysis.design().count(Side::kCandidate);
  for (const Run& run : runs.runs()) {
    report.samples += run.facts.samples;
    report.lost_samples += run.facts.lost_samples;
  }
  report.alpha = facts.alpha;
  report.min_effect = analysis.options().min_effect;
  report.level = analysis.options().level;
  report.seed = facts.seed;
  report.detectable_share = verdict.detectable_share;
  report.total = analysis.total();
  report.functions_tested = analysis.tested();
  for (const Finding& finding : verdict.findings) report.findings.push_back(Describe(runs, finding));
  report.findings_left_out = verdict.findings_left_out;
  for (const Finding& finding : verdict.moved) report.moved.push_back(Describe(runs, finding));
  for (const FunctionEffect& effect : analysis.functions()) {
    if (!effect.exclusive.faster) continue;
    report.faster.push_back({.function = Describe(runs, effect.function), .effect = effect.exclusive});
  }
  std::stable_sort(report.faster.begin(), report.faster.end(),
                   [](const ReportFinding& a, const ReportFinding& b) { return a.effect.excess < b.effect.excess; });
  return report;
}

std::string Sentence(const ReportFinding& finding) {
  const Effect& effect = finding.effect;
  if (finding.function.name.empty()) {
    return StrFormat("the program as a whole takes %.1f %% more CPU time (%.1f to %.1f), p = %.2g",
                     100 * (effect.ratio - 1), 100 * (effect.ratio_interval.low - 1),
                     100 * (effect.ratio_interval.high - 1), effect.p);
  }
  const std::string with_callees = finding.inclusive ? " with what it calls" : "";
  const std::string of_total = StrFormat("%.2f %% of the total CPU time", 100 * effect.excess);
  if (effect.is_new) {
    return StrFormat("%s is new%s and takes %s, p = %.2g", finding.function.name, with_callees, of_total, effect.p);
  }
  if (effect.vanished) {
    return StrFormat("%s%s is gone; it took %.2f %% of the total CPU time, p = %.2g", finding.function.name,
                     with_callees, -100 * effect.excess, effect.p_faster);
  }
  const double change = 100 * (effect.ratio - 1);
  const double low = 100 * (effect.ratio_interval.low - 1), high = 100 * (effect.ratio_interval.high - 1);
  if (change < 0) {
    return StrFormat("%s%s takes %.1f %% less (%.1f to %.1f), %.2f %% of the total CPU time, p = %.2g",
                     finding.function.name, with_callees, -change, -high, -low, -100 * effect.excess, effect.p_faster);
  }
  return StrFormat("%s%s takes %.1f %% more (%.1f to %.1f), %s, p = %.2g", finding.function.name, with_callees, change,
                   low, high, of_total, effect.p);
}

}  // namespace pyrometer::regression

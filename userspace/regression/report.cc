#include "userspace/regression/report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "userspace/base/strings.h"

namespace pyrometer::regression {
namespace {

class Describer {
 public:
  Describer(const RunSet& runs, std::string source_root) : runs_(runs), root_(std::move(source_root)) {
    if (!root_.empty() && !root_.ends_with('/')) root_ += '/';
  }

  ReportFunction Function(FunctionIndex index) const {
    if (index == 0) return {};
    const FunctionFacts& facts = runs_.functions()[index];
    std::string file = facts.file;
    if (!root_.empty() && file.starts_with(root_)) file.erase(0, root_.size());
    return {facts.name, facts.module, std::move(file), facts.line};
  }

  ReportFinding Describe(const Finding& finding) const {
    ReportFinding result{
        .function = Function(finding.function), .inclusive = finding.inclusive, .effect = finding.effect};
    for (const Finding::Caller& caller : finding.callers) {
      result.callers.push_back({Function(caller.function), caller.excess});
    }
    for (const FunctionIndex from : finding.moved_from) result.moved_from.push_back(Function(from));
    result.change = finding.change.relation;
    result.change_text = ChangeText(finding.change);
    return result;
  }

 private:
  std::string ChangeText(const ChangeLink& change) const {
    if (change.relation == ChangeRelation::kNone) return "";
    const ReportFunction function = Function(change.function);
    const std::string where = change.line > 0 ? StrFormat("%s:%d", function.file, change.line) : function.file;
    switch (change.relation) {
      case ChangeRelation::kNone:
        break;
      case ChangeRelation::kItself:
        return StrFormat("its own lines changed (%s)", where);
      case ChangeRelation::kCallsChanged:
        return StrFormat("it calls %s, which changed (%s)", function.name, where);
      case ChangeRelation::kCalledByChanged:
        return StrFormat("it is called by %s, which changed (%s)", function.name, where);
      case ChangeRelation::kSameFile:
        return StrFormat("its file changed (%s)", where);
    }
    return "";
  }

  const RunSet& runs_;
  std::string root_;
};

}  // namespace

Report MakeReport(const RunSet& runs, const Analysis& analysis, const Verdict& verdict, const ReportFacts& facts) {
  const Describer describer(runs, facts.source_root);
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
    if (report.started_ns == 0 || run.facts.started_ns < report.started_ns) report.started_ns = run.facts.started_ns;
    report.wall_ns += run.facts.wall_ns;
    report.samples += run.facts.samples;
    report.lost_samples += run.facts.lost_samples;
    (run.side == Side::kBaseline ? report.baseline_cpu_ns : report.candidate_cpu_ns).push_back(run.facts.cpu_ns);
  }
  report.alpha = facts.alpha;
  report.min_effect = analysis.options().min_effect;
  report.level = analysis.options().level;
  report.seed = facts.seed;
  report.detectable_share = verdict.detectable_share;
  report.total = analysis.total();
  report.instructions = analysis.instructions();
  report.functions_tested = analysis.tested();
  for (const Finding& finding : verdict.findings) report.findings.push_back(describer.Describe(finding));
  report.findings_left_out = verdict.findings_left_out;
  for (const Finding& finding : verdict.moved) report.moved.push_back(describer.Describe(finding));
  const std::set<FunctionIndex> faster(verdict.faster.begin(), verdict.faster.end());
  for (const FunctionEffect& effect : analysis.functions()) {
    if (!faster.contains(effect.function)) continue;
    report.faster.push_back({.function = describer.Function(effect.function), .effect = effect.exclusive});
  }
  std::stable_sort(report.faster.begin(), report.faster.end(),
                   [](const ReportFinding& a, const ReportFinding& b) { return a.effect.excess < b.effect.excess; });
  report.flames.push_back(MakeFlameDiff(runs, analysis));
  return report;
}

namespace {

std::string Statement(const ReportFinding& finding) {
  const Effect& effect = finding.effect;
  if (finding.function.name.empty()) {
    return StrFormat("%s takes %.1f %% more CPU time%s (%.1f to %.1f), p = %.2g",
                     finding.benchmark.empty() ? "the program as a whole" : "the benchmark as a whole",
                     100 * (effect.ratio - 1), finding.benchmark.empty() ? "" : " per iteration",
                     100 * (effect.ratio_interval.low - 1), 100 * (effect.ratio_interval.high - 1), effect.p);
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

}  // namespace

Report MergeBenchmarks(std::vector<NamedReport> reports, double alpha) {
  Report all = reports.front().report;
  all.findings.clear();
  all.moved.clear();
  all.faster.clear();
  all.flames.clear();
  all.baseline_cpu_ns.clear();
  all.candidate_cpu_ns.clear();
  all.remedy.clear();
  all.total = {};
  all.instructions = {};
  all.alpha = alpha;
  all.wall_ns = all.samples = all.lost_samples = all.findings_left_out = all.functions_tested = 0;
  all.detectable_share = 0;
  std::vector<std::string> slower, undecided;
  for (NamedReport& one : reports) {
    Report& report = one.report;
    all.benchmarks.push_back({one.name, report.decision, report.reason, report.remedy, report.baseline_runs,
                              report.candidate_runs, report.total, one.baseline_real_ns, one.candidate_real_ns,
                              report.detectable_share});
    if (report.decision == Decision::kRegression) slower.push_back(one.name);
    if (report.decision == Decision::kUndecided) {
      undecided.push_back(one.name);
      if (all.remedy.empty()) all.remedy = report.remedy;
    }
    const auto take = [&one](std::vector<ReportFinding>& from, std::vector<ReportFinding>* to) {
      for (ReportFinding& finding : from) {
        finding.benchmark = one.name;
        to->push_back(std::move(finding));
      }
    };
    take(report.findings, &all.findings);
    take(report.moved, &all.moved);
    take(report.faster, &all.faster);
    for (FlameDiff& flame : report.flames) {
      flame.title = one.name;
      all.flames.push_back(std::move(flame));
    }
    all.started_ns = std::min(all.started_ns, report.started_ns);
    all.wall_ns += report.wall_ns;
    all.samples += report.samples;
    all.lost_samples += report.lost_samples;
    all.findings_left_out += report.findings_left_out;
    all.functions_tested += report.functions_tested;
    all.baseline_runs = std::max(all.baseline_runs, report.baseline_runs);
    all.candidate_runs = std::max(all.candidate_runs, report.candidate_runs);
    all.level = std::min(all.level, report.level);
    all.detectable_share = std::max(all.detectable_share, report.detectable_share);
  }
  const auto some = [](const std::vector<std::string>& names) {
    return names.size() == 1 ? names[0] : StrFormat("%s and %d more", names[0], names.size() - 1);
  };
  if (!slower.empty()) {
    all.decision = Decision::kRegression;
    all.reason = StrFormat("%d of %d benchmarks became slower: %s", slower.size(), reports.size(), some(slower));
    all.remedy.clear();
  } else if (!undecided.empty()) {
    all.decision = Decision::kUndecided;
    all.reason =
        StrFormat("%d of %d benchmarks could not be decided: %s", undecided.size(), reports.size(), some(undecided));
  } else {
    all.decision = Decision::kPass;
    all.reason =
        StrFormat("no function became slower in %d benchmark%s", reports.size(), reports.size() == 1 ? "" : "s");
  }
  return all;
}

std::string Sentence(const ReportFinding& finding) {
  std::string text = Statement(finding);
  if (!finding.benchmark.empty()) text = finding.benchmark + ": " + text;
  if (!finding.change_text.empty()) text += "; " + finding.change_text;
  return text;
}

}  // namespace pyrometer::regression

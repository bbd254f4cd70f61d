#include "userspace/regression/verdict.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "userspace/base/strings.h"
#include "userspace/regression/function_name.h"

namespace pyrometer::regression {
namespace {

constexpr size_t kMaxCallers = 3;
// Of a gain, that may remain when moved work is added up: the counts of both ends are noisy.
constexpr double kMovedRemainder = 0.25;

std::vector<double> CountNodes(const RunSet& runs, const std::vector<bool>& chosen) {
  std::vector<double> counts;
  for (const Run& run : runs.runs()) {
    double sum = 0;
    for (const auto& [node, count] : run.counts) sum += chosen[node] ? static_cast<double>(count) : 0;
    counts.push_back(sum);
  }
  return counts;
}

class Judgement {
 public:
  Judgement(const RunSet& runs, const Analysis& analysis) : runs_(runs), nodes_(runs.nodes()), analysis_(analysis) {
    const size_t functions = runs.functions().size();
    callers_.resize(functions);
    for (size_t i = 1; i < nodes_.size(); ++i) {
      const FunctionIndex caller = nodes_[nodes_[i].parent].function;
      if (caller != 0 && caller != nodes_[i].function) callers_[nodes_[i].function].insert(caller);
    }
    for (const FunctionEffect& effect : analysis.functions()) {
      const Effect &own = effect.exclusive, &all = effect.inclusive;
      if (own.faster || (own.vanished && own.excess < 0)) lost_own_.push_back({effect.function, &own});
      if (own.slower || (own.is_new && own.excess > 0)) gained_own_.push_back({effect.function, &own});
      if (all.vanished && all.excess < 0) vanished_.push_back({effect.function, &all});
    }
  }

  void Explain(Verdict* verdict) {
    std::vector<Finding> own, with_callees;
    for (const FunctionEffect& effect : analysis_.functions()) {
      if (effect.exclusive.slower) own.push_back({.function = effect.function, .effect = effect.exclusive});
      if (effect.inclusive.slower && !effect.exclusive.slower) {
        with_callees.push_back({.function = effect.function, .inclusive = true, .effect = effect.inclusive});
      }
    }
    const auto larger_excess = [](const Finding& a, const Finding& b) { return a.effect.excess > b.effect.excess; };
    std::stable_sort(own.begin(), own.end(), larger_excess);
    // Callees before their callers, whose inclusive counts hold theirs.
    std::stable_sort(with_callees.begin(), with_callees.end(), [](const Finding& a, const Finding& b) {
      return a.effect.candidate_count < b.effect.candidate_count;
    });
    verdict->findings_left_out = Shorten(&own) + Shorten(&with_callees);

    std::vector<bool> settled(runs_.functions().size());
    const auto settle = [&](Finding finding) {
      settled[finding.function] = true;
      finding.callers = Callers(finding);
      (finding.moved_from.empty() ? verdict->findings : verdict->moved).push_back(std::move(finding));
    };
    std::map<FunctionIndex, std::vector<FunctionIndex>> moved = MovedOwn(own);
    for (Finding& finding : own) {
      finding.moved_from = std::move(moved[finding.function]);
      settle(std::move(finding));
    }
    const size_t guilty_themselves = verdict->findings.size();
    for (Finding& finding : with_callees) {
      const Effect rest = analysis_.Measure(CountNodes(runs_, Below(finding.function, settled)));
      if (!rest.slower) continue;
      finding.moved_from = FormerSelves(finding);
      settle(std::move(finding));
    }
    std::stable_sort(verdict->findings.begin() + static_cast<std::ptrdiff_t>(guilty_themselves),
                     verdict->findings.end(), larger_excess);
  }

 private:
  static size_t Shorten(std::vector<Finding>* findings) {
    const size_t out = findings->size() - std::min(findings->size(), kMaxFindings);
    findings->resize(findings->size() - out);
    return out;
  }

  // Nodes on a stack below `function`, itself included, that no settled function leads to.
  std::vector<bool> Below(FunctionIndex function, const std::vector<bool>& settled) const {
    std::vector<bool> below(nodes_.size()), cut(nodes_.size());
    for (size_t i = 1; i < nodes_.size(); ++i) {
      const StackNode& node = nodes_[i];
      cut[i] = cut[node.parent] || (below[node.parent] && settled[node.function]);
      below[i] = !cut[i] && (below[node.parent] || node.function == function);
    }
    return below;
  }

  struct Change {
    FunctionIndex function = 0;
    const Effect* effect = nullptr;
  };

  bool CallEachOther(FunctionIndex a, FunctionIndex b) const {
    return callers_[a].contains(b) || callers_[b].contains(a);
  }
  // May work have gone from one to the other?
  bool Related(FunctionIndex a, FunctionIndex b) const {
    if (a == b) return false;
    const FunctionFacts &one = runs_.functions()[a], &other = runs_.functions()[b];
    if (CallEachOther(a, b)) return true;
    if (!one.file.empty() && one.file == other.file) return true;
    const std::string_view scope = ScopeOf(one.name);
    if (!scope.empty() && scope == ScopeOf(other.name)) return true;
    return std::any_of(callers_[a].begin(), callers_[a].end(),
                       [&](FunctionIndex caller) { return callers_[b].contains(caller); });
  }
  // The same where gain and loss need not be equal: then it takes more than neighbourhood to hold one for the cause of
  // the other.
  bool CloselyRelated(const Change& gain, const Change& loss) const {
    return CallEachOther(gain.function, loss.function) ||
           ((gain.effect->is_new || loss.effect->vanished) && Related(gain.function, loss.function));
  }

  Effect MeasureOwn(const std::vector<FunctionIndex>& functions) const {
    const CountTable& counts = analysis_.counts();
    std::vector<double> sums(counts.runs());
    for (size_t run = 0; run < sums.size(); ++run) {
      for (const FunctionIndex function : functions) sums[run] += counts.exclusive(run, function);
    }
    return analysis_.Measure(sums);
  }
  double Remainder(double gain) const { return std::max(analysis_.options().min_effect, kMovedRemainder * gain); }

  // For each function of `own` whose gain is explained by what related functions lost: those.
  std::map<FunctionIndex, std::vector<FunctionIndex>> MovedOwn(const std::vector<Finding>& own) const {
    std::map<FunctionIndex, std::vector<FunctionIndex>> moved;
    std::set<FunctionIndex> spent;
    // First where gain and loss are equal: renamed, inlined, handed on whole.
    const auto accept_equal = [&](const Finding& finding, const std::vector<FunctionIndex>& losers) {
      std::vector<FunctionIndex> all = losers;
      all.push_back(finding.function);
      const Effect together = MeasureOwn(all);
      if (together.slower || std::abs(together.excess) > Remainder(finding.effect.excess)) return false;
      moved[finding.function] = losers;
      spent.insert(losers.begin(), losers.end());
      return true;
    };
    for (const Finding& finding : own) {
      std::vector<FunctionIndex> losers;
      bool found = false;
      for (const Change& loss : lost_own_) {
        if (found || spent.contains(loss.function) || !Related(finding.function, loss.function)) continue;
        losers.push_back(loss.function);
        found = accept_equal(finding, {loss.function});
      }
      if (!found && losers.size() > 1) accept_equal(finding, losers);
    }
    // Then groups: split into several, merged, or moved and improved. All gains that may come from the same losses
    // are added up with them, so that one cannot hide behind the other.
    for (const Change& gain : gained_own_) {
      if (moved.contains(gain.function)) continue;
      std::vector<FunctionIndex> losers, gainers, all;
      double gained = 0;
      for (const Change& loss : lost_own_) {
        if (!spent.contains(loss.function) && CloselyRelated(gain, loss)) losers.push_back(loss.function);
      }
      for (const Change& other : gained_own_) {
        const bool from_same = std::any_of(lost_own_.begin(), lost_own_.end(), [&](const Change& loss) {
          return std::find(losers.begin(), losers.end(), loss.function) != losers.end() && CloselyRelated(other, loss);
        });
        if (moved.contains(other.function) || !from_same) continue;
        gainers.push_back(other.function);
        gained += other.effect->excess;
      }
      if (losers.empty()) continue;
      all = losers;
      all.insert(all.end(), gainers.begin(), gainers.end());
      const Effect together = MeasureOwn(all);
      if (together.slower || together.excess > Remainder(gained)) continue;
      for (const FunctionIndex function : gainers) moved[function] = losers;
      spent.insert(losers.begin(), losers.end());
    }
    return moved;
  }

  // For a function that is slower with its callees: the vanished functions whose stacks it took over, empty when they
  // do not explain it.
  std::vector<FunctionIndex> FormerSelves(const Finding& finding) const {
    const Change gain{finding.function, &finding.effect};
    std::vector<FunctionIndex> from;
    std::vector<bool> by_own(runs_.functions().size()), by_stack(runs_.functions().size());
    by_stack[finding.function] = true;
    for (const Change& loss : vanished_) {
      if (!Related(finding.function, loss.function)) continue;
      by_stack[loss.function] = true;
      from.push_back(loss.function);
    }
    // An outlined function takes from its caller's own samples.
    for (const Change& loss : lost_own_) {
      if (!finding.effect.is_new || by_stack[loss.function] || !CloselyRelated(gain, loss)) continue;
      by_own[loss.function] = true;
      from.push_back(loss.function);
    }
    if (from.empty()) return from;
    std::vector<bool> chosen(nodes_.size()), on_stack(nodes_.size());
    for (size_t i = 1; i < nodes_.size(); ++i) {
      on_stack[i] = on_stack[nodes_[i].parent] || by_stack[nodes_[i].function];
      chosen[i] = on_stack[i] || by_own[nodes_[i].function];
    }
    const Effect together = analysis_.Measure(CountNodes(runs_, chosen));
    if (together.slower || together.excess > Remainder(finding.effect.excess)) from.clear();
    return from;
  }

  std::vector<Finding::Caller> Callers(const Finding& finding) const {
    const bool library = IsLibraryModule(runs_.functions()[finding.function].module);
    // Nodes that count for the finding, by the caller they came from.
    std::map<FunctionIndex, std::vector<bool>> by_caller;
    std::vector<FunctionIndex> caller_of(nodes_.size());
    for (size_t i = 1; i < nodes_.size(); ++i) {
      const StackNode& node = nodes_[i];
      if (node.function == finding.function) {
        NodeIndex at = node.parent;
        while (at != 0 && (nodes_[at].function == finding.function ||
                           (library && IsLibraryModule(runs_.functions()[nodes_[at].function].module)))) {
          at = nodes_[at].parent;
        }
        caller_of[i] = nodes_[at].function;
      } else if (finding.inclusive) {
        caller_of[i] = caller_of[node.parent];
      }
      if (caller_of[i] == 0) continue;
      std::vector<bool>& chosen = by_caller[caller_of[i]];
      chosen.resize(nodes_.size());
      chosen[i] = true;
    }
    std::vector<Finding::Caller> callers;
    for (const auto& [caller, chosen] : by_caller) {
      const double excess = analysis_.Measure(CountNodes(runs_, chosen)).excess;
      if (excess > 0) callers.push_back({caller, excess});
    }
    std::stable_sort(callers.begin(), callers.end(),
                     [](const Finding::Caller& a, const Finding::Caller& b) { return a.excess > b.excess; });
    callers.resize(std::min(callers.size(), kMaxCallers));
    return callers;
  }

  const RunSet& runs_;
  const std::vector<StackNode>& nodes_;
  const Analysis& analysis_;
  std::vector<std::set<FunctionIndex>> callers_;  // direct, per function
  std::vector<Change> lost_own_, gained_own_, vanished_;
};

// Why the counts cannot be trusted or say nothing; "" when they can be judged.
std::string WhyUseless(const RunSet& runs, const Analysis& analysis, const VerdictOptions& options) {
  uint64_t samples[2] = {0, 0}, lost = 0;
  for (const Run& run : runs.runs()) {
    samples[static_cast<size_t>(run.side)] += run.facts.samples;
    lost += run.facts.lost_samples;
  }
  for (const size_t side : {0, 1}) {
    if (samples[side] == 0) {
      return StrFormat(
          "the %s gave no samples: it used too little CPU time, or went on in a process that outlived the command",
          side == 0 ? "baseline" : "candidate");
    }
  }
  const uint64_t all = samples[0] + samples[1] + lost;
  if (static_cast<double>(lost) > options.largest_lost_share * static_cast<double>(all)) {
    return StrFormat("%d of %d samples were lost: lower the frequency (-F)", lost, all);
  }
  if (analysis.test().arrangements * analysis.options().level < 1) {
    return StrFormat("%d and %d runs can be arranged in %.0f ways only, too few for a false-alarm rate of %.2f %%",
                     analysis.design().count(Side::kBaseline), analysis.design().count(Side::kCandidate),
                     analysis.test().arrangements, 100 * analysis.options().level);
  }
  return "";
}

}  // namespace

std::string_view DecisionName(Decision decision) {
  switch (decision) {
    case Decision::kPass:
      return "pass";
    case Decision::kRegression:
      return "regression";
    case Decision::kUndecided:
      return "undecided";
  }
  return "undecided";
}

Verdict Judge(const RunSet& runs, const Analysis& analysis, const VerdictOptions& options) {
  Verdict verdict;
  verdict.detectable_share = analysis.DetectableShare();
  verdict.pairs_needed = analysis.PairsFor(options.largest_detectable);
  verdict.reason = WhyUseless(runs, analysis, options);
  if (!verdict.reason.empty()) {
    verdict.decision = Decision::kUndecided;
    return verdict;
  }

  Judgement(runs, analysis).Explain(&verdict);
  if (verdict.findings.empty() && analysis.total().slower) verdict.findings.push_back({.effect = analysis.total()});
  // What another function took over is not faster.
  std::set<FunctionIndex> handed_on;
  for (const Finding& moved : verdict.moved) handed_on.insert(moved.moved_from.begin(), moved.moved_from.end());
  std::vector<const FunctionEffect*> faster;
  for (const FunctionEffect& effect : analysis.functions()) {
    if (effect.exclusive.faster && !handed_on.contains(effect.function)) faster.push_back(&effect);
  }
  std::stable_sort(faster.begin(), faster.end(), [](const FunctionEffect* a, const FunctionEffect* b) {
    return a->exclusive.excess < b->exclusive.excess;
  });
  for (const FunctionEffect* effect : faster) verdict.faster.push_back(effect->function);

  if (!verdict.findings.empty()) {
    verdict.decision = Decision::kRegression;
    const size_t count = verdict.findings.size() + verdict.findings_left_out;
    verdict.reason = verdict.findings.front().function == 0
                         ? "the program as a whole became slower, and no one function explains it"
                         : StrFormat("%d function%s became slower", count, count == 1 ? "" : "s");
  } else if (!(verdict.detectable_share <= options.largest_detectable)) {
    verdict.decision = Decision::kUndecided;
    verdict.reason =
        StrFormat("nothing was found, but a function could have become slower by %.1f %% of the total unseen",
                  100 * verdict.detectable_share);
    if (!(verdict.detectable_share < 1)) verdict.reason = "there are too few samples to see anything";
  } else {
    verdict.reason =
        verdict.moved.empty() ? "no function became slower" : "work moved between functions, nothing became slower";
  }
  return verdict;
}

}  // namespace pyrometer::regression

#include "userspace/regression/drift.h"

#include <algorithm>

#include "userspace/base/strings.h"

namespace pyrometer::regression {

std::string WhyDrifts(const RunSet& runs, Side side, const AnalysisOptions& options) {
  RunSet halves;
  for (FunctionIndex f = 1; f < runs.functions().size(); ++f) halves.InternFunction(runs.functions()[f]);
  for (NodeIndex n = 1; n < runs.nodes().size(); ++n) {
    halves.InternNode(runs.nodes()[n].parent, runs.nodes()[n].function);
  }
  std::vector<Run> ours;
  for (const Run& run : runs.runs()) {
    if (run.side == side) ours.push_back(run);
  }
  if (ours.size() < 4) return "";
  std::stable_sort(ours.begin(), ours.end(),
                   [](const Run& a, const Run& b) { return a.facts.started_ns < b.facts.started_ns; });
  for (size_t i = 0; i < ours.size(); ++i) {
    ours[i].side = i < ours.size() / 2 ? Side::kBaseline : Side::kCandidate;
    ours[i].block = 0;
    halves.AddRun(std::move(ours[i]));
  }
  const CountTable counts = CountFunctions(halves);
  const Analysis analysis(counts, halves.MakeDesign(/*one_block=*/true), options);

  const auto sentence = [&](std::string_view what, double ratio) {
    return StrFormat(
        "%s changed while the runs of the %s were taken: by %+.1f %% from their first half to their second", what,
        side == Side::kBaseline ? "baseline" : "candidate", 100 * (ratio - 1));
  };
  const FunctionEffect* worst = nullptr;
  const auto moved = [](const FunctionEffect& effect) {
    const Effect& own = effect.exclusive;
    return own.slower || own.faster ? std::max(own.excess, -own.excess) : 0;
  };
  for (const FunctionEffect& effect : analysis.functions()) {
    if (moved(effect) > 0 && (worst == nullptr || moved(effect) > moved(*worst))) worst = &effect;
  }
  if (worst != nullptr) {
    return sentence(halves.functions()[worst->function].name + "'s part", worst->exclusive.ratio);
  }
  if (analysis.total().slower || analysis.total().faster) return sentence("the total CPU time", analysis.total().ratio);
  return "";
}

}  // namespace pyrometer::regression

#include "userspace/regression/flame_diff.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace pyrometer::regression {
namespace {

// Mean samples per run at and below each node, after size factors, by side.
std::vector<double> Mean(const RunSet& runs, const Analysis& analysis, Side side) {
  std::vector<double> mean(runs.nodes().size());
  const auto count = static_cast<double>(analysis.design().count(side));
  for (size_t r = 0; r < runs.runs().size(); ++r) {
    const Run& run = runs.runs()[r];
    if (run.side != side) continue;
    const double scale = 1 / (std::exp(analysis.log_size_factors()[r]) * count);
    const std::vector<double> total = NodeTotals(runs, run);
    for (size_t i = 0; i < total.size(); ++i) mean[i] += total[i] * scale;
  }
  return mean;
}

}  // namespace

FlameDiff MakeFlameDiff(const RunSet& runs, const Analysis& analysis) {
  const std::vector<StackNode>& nodes = runs.nodes();
  std::vector<double> baseline = Mean(runs, analysis, Side::kBaseline),
                      candidate = Mean(runs, analysis, Side::kCandidate);
  const double whole = baseline[0] > 0 ? baseline[0] : 1;
  for (double& value : baseline) value /= whole;
  for (double& value : candidate) value /= whole;

  const auto width = [&](size_t i) { return std::max(baseline[i], candidate[i]); };
  double least = kLeastFlameShare;
  std::vector<double> widths;
  for (size_t i = 1; i < nodes.size(); ++i) {
    if (width(i) >= least) widths.push_back(width(i));
  }
  if (widths.size() >= kMaxFlameNodes) {
    // A parent is as wide as its child at least, so what is wide enough hangs together.
    const auto nth = widths.begin() + static_cast<std::ptrdiff_t>(kMaxFlameNodes - 1);
    std::nth_element(widths.begin(), nth, widths.end(), std::greater<>());
    least = std::max(least, std::nextafter(*nth, 2.0));
  }

  FlameDiff flame;
  flame.functions.emplace_back();
  flame.nodes.push_back({.baseline = baseline[0], .candidate = candidate[0]});
  std::vector<uint32_t> function_of(runs.functions().size()), node_of(nodes.size());
  for (size_t i = 1; i < nodes.size(); ++i) {
    // A node whose parent was left out is as small or smaller.
    if (width(i) < least || (nodes[i].parent != 0 && node_of[nodes[i].parent] == 0)) {
      flame.left_out += width(i) > 0 ? 1 : 0;
      continue;
    }
    uint32_t& function = function_of[nodes[i].function];
    if (function == 0) {
      function = static_cast<uint32_t>(flame.functions.size());
      const FunctionFacts& facts = runs.functions()[nodes[i].function];
      flame.functions.push_back({.name = facts.name, .module = facts.module});
    }
    node_of[i] = static_cast<uint32_t>(flame.nodes.size());
    flame.nodes.push_back(
        {.parent = node_of[nodes[i].parent], .function = function, .baseline = baseline[i], .candidate = candidate[i]});
  }
  for (const FunctionEffect& effect : analysis.functions()) {
    if (function_of[effect.function] == 0) continue;
    FlameDiff::Function& function = flame.functions[function_of[effect.function]];
    function.p_slower = effect.inclusive.slower ? effect.inclusive.p : 1;
    function.p_faster = effect.inclusive.faster ? effect.inclusive.p_faster : 1;
    function.own_p_slower = effect.exclusive.p;
    function.own_p_faster = effect.exclusive.p_faster;
    function.own_excess = effect.exclusive.excess;
  }
  return flame;
}

}  // namespace pyrometer::regression

// The differential flame graph of a check: the call tree of both sides with what each stack took on either, and how
// certain it is that its function changed.
//
//   const FlameDiff flame = MakeFlameDiff(runs, analysis);
//
// Widths are shares of the baseline's total after size factors, so that what did not change is as wide on both sides
// although one slower function makes all other shares fall. Certainty is that of the check: the adjusted p-values of
// the node's function, not a test of each node; a box is coloured only where the check would stand by it.
//
// Nodes below kLeastFlameShare of the total on both sides are left out, their share stays in their parent.
//
// Threads: pure. Cost: one pass over (run, stack) pairs; 40 bytes per node.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "userspace/regression/analysis.h"
#include "userspace/regression/run_set.h"

namespace pyrometer::regression {

// Half a pixel of a wide window.
inline constexpr double kLeastFlameShare = 0.0003;
// A page of more boxes is slow to open; the widest are kept.
inline constexpr size_t kMaxFlameNodes = 20'000;

struct FlameDiff {
  struct Function {
    std::string name;
    std::string module;
    // Adjusted p-values of a change by more than the minimum effect, with callees; 1 where the check found none. It is
    // what boxes are coloured by.
    double p_slower = 1, p_faster = 1;
    // Adjusted p-values of its own samples; 1 where they were not tested.
    double own_p_slower = 1, own_p_faster = 1;
    // Own samples, as shares of the baseline's total.
    double own_excess = 0;
  };
  // With what they call; parents stand before children, node 0 is the root and its own parent.
  struct Node {
    uint32_t parent = 0;
    uint32_t function = 0;  // index into functions; 0 of the root means nothing
    double baseline = 0;
    double candidate = 0;
  };
  std::string title;  // the benchmark; "" where there is one graph only
  std::vector<Function> functions;
  std::vector<Node> nodes;
  size_t left_out = 0;  // nodes too small to be drawn
};

// `analysis` is of `runs`.
FlameDiff MakeFlameDiff(const RunSet& runs, const Analysis& analysis);

}  // namespace pyrometer::regression

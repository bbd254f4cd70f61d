// Did the runs of one side change while they were taken? Two files are compared as if the machine had been the same all
// the while; where one of them shows that it was not, the comparison has nothing to stand on.
//
//   if (std::string why = WhyDrifts(runs, Side::kBaseline, {.level = 0.01}); !why.empty()) …undecided
//
// The first half of the side's runs, in the order they were taken, is held against the second by the test of a check,
// in both directions; so runs without a drift are refused in at most 2 × level of cases. With fewer than 10 runs
// nothing can be seen at 1 %, and "" is returned. It does not see what is the same within a file and differs between
// two.
//
// Threads: pure. Cost: one analysis.
#pragma once

#include <string>

#include "userspace/regression/analysis.h"
#include "userspace/regression/run_set.h"

namespace pyrometer::regression {

// "" or a sentence that names what changed.
std::string WhyDrifts(const RunSet& runs, Side side, const AnalysisOptions& options);

}  // namespace pyrometer::regression

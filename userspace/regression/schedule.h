// When a check looks at its runs, and in which order it takes them.
//
//   for (const Look& look : PlanLooks(16, 0.01)) …            // 8 pairs at 0.2 %, 12 at 0.3 %, 16 at 0.5 %
//   std::vector<Side> order = DrawBlock(&random);              // four runs: baseline twice, candidate twice
//
// Each look may end the check with a regression, at a part of alpha of its own; their sum is alpha, so looking often
// costs nothing in false alarms (union bound; no theory of sequential tests is needed).
//
// Threads: pure.
#pragma once

#include <cstddef>
#include <vector>

#include "userspace/regression/max_t_test.h"
#include "userspace/regression/random.h"

namespace pyrometer::regression {

inline constexpr size_t kPairsPerBlock = 2;

struct Look {
  size_t pairs = 0;
  double level = 0;
};

// Looks after half, three quarters and all of `pairs` with 0.2, 0.3 and 0.5 of alpha. A look too early for any
// arrangement of labels to be that rare is left out, and its share goes to the next. Empty when even the last is: fewer
// than 6 pairs at 1 %. `pairs` is rounded up to whole blocks.
std::vector<Look> PlanLooks(size_t pairs, double alpha);

// The order of one block, each of the six equally likely.
std::vector<Side> DrawBlock(Random* random);

}  // namespace pyrometer::regression

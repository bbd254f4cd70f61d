// Quantiles and bounds that the statistics of this room need, over Boost.Math.
//
// Threads: pure functions. Cost: below 2 µs a call.
#pragma once

#include <cstdint>

namespace pyrometer::regression {

// Preconditions: 0 < p < 1, degrees_of_freedom > 0.
double NormalQuantile(double p);
double StudentQuantile(double p, double degrees_of_freedom);

struct Interval {
  double low = 0;
  double high = 0;
};

// Of a rate from `count` events of a Poisson process, exact (Garwood), as a number of events; `confidence` such as
// 0.99 is two-sided. low is 0 for count 0.
Interval PoissonInterval(double count, double confidence);

// Of a probability from `hits` in `trials`, exact (Clopper–Pearson), two-sided.
Interval BinomialInterval(uint64_t hits, uint64_t trials, double confidence);
// One-sided: the probability is below this with `confidence`.
double BinomialUpperBound(uint64_t hits, uint64_t trials, double confidence);

}  // namespace pyrometer::regression

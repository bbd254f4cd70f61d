#include "userspace/regression/distributions.h"

#include <boost/math/distributions/beta.hpp>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>

#include "userspace/base/check.h"

namespace pyrometer::regression {

double NormalQuantile(double p) {
  CHECK(p > 0 && p < 1);
  return boost::math::quantile(boost::math::normal(), p);
}

double StudentQuantile(double p, double degrees_of_freedom) {
  CHECK(p > 0 && p < 1 && degrees_of_freedom > 0);
  return boost::math::quantile(boost::math::students_t(degrees_of_freedom), p);
}

Interval PoissonInterval(double count, double confidence) {
  const double tail = (1 - confidence) / 2;
  Interval interval;
  if (count > 0) interval.low = boost::math::quantile(boost::math::chi_squared(2 * count), tail) / 2;
  interval.high = boost::math::quantile(boost::math::chi_squared(2 * count + 2), 1 - tail) / 2;
  return interval;
}

Interval BinomialInterval(uint64_t hits, uint64_t trials, double confidence) {
  CHECK(hits <= trials);
  const double tail = (1 - confidence) / 2;
  const auto k = static_cast<double>(hits), n = static_cast<double>(trials);
  Interval interval{0, 1};
  if (hits > 0) interval.low = boost::math::quantile(boost::math::beta_distribution(k, n - k + 1), tail);
  if (hits < trials) interval.high = boost::math::quantile(boost::math::beta_distribution(k + 1, n - k), 1 - tail);
  return interval;
}

double BinomialUpperBound(uint64_t hits, uint64_t trials, double confidence) {
  return BinomialInterval(hits, trials, 2 * confidence - 1).high;
}

}  // namespace pyrometer::regression

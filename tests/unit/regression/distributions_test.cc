// Against published tables.
#include "userspace/regression/distributions.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pyrometer::regression {
namespace {

TEST(Distributions, Quantiles) {
  EXPECT_NEAR(NormalQuantile(0.975), 1.959964, 1e-6);
  EXPECT_NEAR(NormalQuantile(0.5), 0, 1e-12);
  EXPECT_NEAR(StudentQuantile(0.975, 10), 2.228139, 1e-6);
  EXPECT_NEAR(StudentQuantile(0.95, 1), 6.313752, 1e-6);
}

TEST(Distributions, PoissonIntervals) {
  EXPECT_EQ(PoissonInterval(0, 0.95).low, 0);
  EXPECT_NEAR(PoissonInterval(0, 0.95).high, 3.688879, 1e-5);
  EXPECT_NEAR(PoissonInterval(10, 0.95).low, 4.795389, 1e-5);
  EXPECT_NEAR(PoissonInterval(10, 0.95).high, 18.390356, 1e-5);
}

TEST(Distributions, BinomialIntervals) {
  EXPECT_NEAR(BinomialInterval(3, 10, 0.95).low, 0.0667395, 1e-6);
  EXPECT_NEAR(BinomialInterval(3, 10, 0.95).high, 0.6524529, 1e-6);
  EXPECT_EQ(BinomialInterval(0, 10, 0.95).low, 0);
  EXPECT_EQ(BinomialInterval(10, 10, 0.95).high, 1);
  EXPECT_NEAR(BinomialUpperBound(0, 300, 0.95), 1 - std::pow(0.05, 1.0 / 300), 1e-9);
}

}  // namespace
}  // namespace pyrometer::regression

#include "userspace/regression/schedule.h"

#include <cmath>
#include <span>

namespace pyrometer::regression {

std::vector<Look> PlanLooks(size_t pairs, double alpha) {
  constexpr double kArrangementsPerBlock = 6;  // of two and two
  constexpr double kShares[] = {0.2, 0.3, 0.5};
  const size_t blocks = (pairs + kPairsPerBlock - 1) / kPairsPerBlock;
  const size_t at[] = {(blocks + 1) / 2, (3 * blocks + 3) / 4, blocks};
  std::vector<Look> looks;
  double level = 0;
  for (size_t i = 0; i < 3; ++i) {
    level += alpha * kShares[i];
    if (i < 2 && at[i] >= at[i + 1]) continue;
    const double rarest = std::pow(kArrangementsPerBlock, -static_cast<double>(at[i]));
    if (rarest > level) continue;
    looks.push_back({.pairs = at[i] * kPairsPerBlock, .level = level});
    level = 0;
  }
  return looks;
}

std::vector<Side> DrawBlock(Random* random) {
  std::vector<Side> order = {Side::kBaseline, Side::kBaseline, Side::kCandidate, Side::kCandidate};
  random->Shuffle(std::span(order));
  return order;
}

}  // namespace pyrometer::regression

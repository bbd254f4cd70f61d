// Where a table of points in time changed its level, and stayed there.
//
//   RunTable table(30, 200);                                   // 30 versions, 200 functions, values as logarithms
//   for (const ChangePoint& change : FindChangePoints(table, {.level = 0.01})) use(change.column, change.at);
//
// The points of a column are cut where the means before and after differ most in units of their common standard error,
// over windows of all lengths from all points down to ten, and that is held against what the same points give in other
// orders: the largest over all columns, so the chance of any change point in a history without one is at most `level`.
// Both parts are then looked at in the same way (E-divisive does it so, with another distance). Under the hypothesis
// the order of the points says nothing; a slow drift is a change too, and is cut in the middle.
//
// Only what stays counts: a part has at least `least_points` points, its median must have moved along with its mean,
// and of a short part nearly all points must have. Single outliers do not bring that about.
//
// Ten points are the fewest that can show one change at 1 %: fewer have too few orders.
//
// Threads: pure. Cost: draws × points × columns steps for each part that is looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "userspace/regression/max_t_test.h"

namespace pyrometer::regression {

struct ChangePoint {
  size_t column = 0;
  size_t at = 0;     // the first point of the new level
  size_t begin = 0;  // the levels beside it: [begin, at) and [at, end), as far as the next changes
  size_t end = 0;
  double difference = 0;  // mean after − mean before
  double p = 1;           // adjusted for all columns
};

struct ChangePointOptions {
  double level = 0.01;
  size_t least_points = 3;
  size_t draws = 2'000;
  uint64_t seed = 1;
};

// Ascending by column, then by place. Priors of the table are not used.
std::vector<ChangePoint> FindChangePoints(const RunTable& table, const ChangePointOptions& options);

}  // namespace pyrometer::regression

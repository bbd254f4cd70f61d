// A stack of a given depth, over and over: main > descend_even > descend_odd > … > bottom.
//
//   deep DEPTH SECONDS
//
// DEPTH descend_ frames of two sizes (48 bytes and 200 bytes of locals), with work on the way down and up so that
// samples hit every level, prologues and epilogues included. Built in many ways: see CMakeLists.txt.
#include "tests/workloads/shape.h"

static SHAPE_FRAME uint64_t bottom(uint64_t x) { return shape_burn(x, 2000); }

static uint64_t descend_odd(uint64_t x, unsigned left);

static SHAPE_FRAME uint64_t descend_even(uint64_t x, unsigned left) {
  volatile uint64_t local[4] = {x, left, x + left, x ^ left};
  uint64_t below = left <= 1 ? bottom(x + local[0]) : descend_odd(x + local[1], left - 1);
  return shape_burn(below, 20) + local[left & 3];
}

static SHAPE_FRAME uint64_t descend_odd(uint64_t x, unsigned left) {
  volatile uint64_t local[24];
  local[left % 24] = x;
  uint64_t below = left <= 1 ? bottom(x) : descend_even(shape_burn(x, 20), left - 1);
  return below + local[left % 24];
}

int main(int argc, char** argv) {
  const unsigned depth = argc > 1 ? (unsigned)atoi(argv[1]) : 30;
  const double seconds = shape_seconds(argc, argv, 2);
  uint64_t x = 1;
  while (shape_time_left(seconds)) {
    for (int i = 0; i < 100; ++i) x = descend_even(x, depth);
  }
  return x == 0;
}

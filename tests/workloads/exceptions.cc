// Exceptions thrown through 20 frames, each with a destructor to run: most samples are in libgcc's unwinder.
//
//   exceptions SECONDS
//
// Chain: main > attempt > climb > … > climb, then (libstdc++, libgcc) or nothing.
#include "tests/workloads/shape.h"

namespace {
volatile uint64_t sink;
struct Guard {
  ~Guard() { sink = shape_burn(sink, 50); }
};
}  // namespace

SHAPE_FRAME uint64_t climb(uint64_t x, unsigned left) {
  const Guard guard;
  if (left == 0) throw x;
  return climb(shape_burn(x, 20), left - 1) + 1;
}

SHAPE_FRAME uint64_t attempt(uint64_t x) {
  try {
    return climb(x, 20);
  } catch (const uint64_t thrown) {
    return thrown;
  }
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 1;
  while (shape_time_left(seconds)) {
    for (int i = 0; i < 10; ++i) x = attempt(x);
  }
  return x == 0;
}

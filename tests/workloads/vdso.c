// Asks the clock all the time: most samples are in the vdso.
//
//   vdso SECONDS
//
// Chain: main > ask > (libc's clock_gettime) > (vdso).
#include "tests/workloads/shape.h"

static SHAPE_FRAME uint64_t ask(void) {
  struct timespec t;
  uint64_t sum = 0;
  for (int i = 0; i < 1000; ++i) {
    clock_gettime(CLOCK_MONOTONIC, &t);
    sum += (uint64_t)t.tv_nsec;
  }
  return sum;
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 1;
  while (shape_time_left(seconds)) x += ask();
  return x == 0;
}

// Frames whose size is known only at run time, and frames realigned to 64 bytes.
//
//   frames SECONDS
//
// Chain: main > with_alloca > aligned > with_alloca > … > with_alloca > small: ten with_alloca, nine aligned.
#include <alloca.h>
#include <string.h>

#include "tests/workloads/shape.h"

static SHAPE_FRAME uint64_t small(uint64_t x) { return shape_burn(x, 2000); }

static uint64_t aligned(uint64_t x, unsigned left);

static SHAPE_FRAME uint64_t with_alloca(uint64_t x, unsigned left) {
  const size_t bytes = 16 + (x & 0xff);
  volatile char* room = alloca(bytes);
  room[0] = (char)x;
  room[bytes - 1] = (char)left;
  const uint64_t below = left == 0 ? small(x) : aligned(shape_burn(x, 50), left - 1);
  return below + (uint64_t)room[0];
}

static SHAPE_FRAME uint64_t aligned(uint64_t x, unsigned left) {
  volatile uint64_t local[16] __attribute__((aligned(64)));
  memset((void*)local, (int)left, sizeof local);
  local[left & 15] = (uint64_t)&local[0] & 63;  // 0, or the frame is not aligned
  return with_alloca(x + local[left & 15], left) + shape_burn(x, 50);
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 1;
  while (shape_time_left(seconds)) {
    for (int i = 0; i < 100; ++i) x = with_alloca(x, 9);
  }
  return x == 0;
}

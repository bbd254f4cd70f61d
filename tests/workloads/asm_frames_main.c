// C code without frame pointers that calls hand-written code without unwind information (asm_frames.S) and is called
// by it.
//
//   asm_frames SECONDS
//
// Chains: main > outer > through_asm > inner > through_asm > innermost; main > outer > asm_leaf.
#include "tests/workloads/shape.h"

uint64_t through_asm(uint64_t (*function)(uint64_t), uint64_t x);
uint64_t asm_leaf(uint64_t x, unsigned rounds);

static SHAPE_FRAME uint64_t innermost(uint64_t x) { return shape_burn(x, 3000); }
static SHAPE_FRAME uint64_t inner(uint64_t x) { return through_asm(innermost, x) ^ shape_burn(x, 100); }
static SHAPE_FRAME uint64_t outer(uint64_t x) { return through_asm(inner, x) + asm_leaf(x, 3000); }

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 1;
  while (shape_time_left(seconds)) {
    for (int i = 0; i < 100; ++i) x = outer(x);
  }
  return x == 0;
}

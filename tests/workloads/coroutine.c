// Two stacks in one thread: makecontext and swapcontext. A coroutine's stack ends at libc's __start_context.
//
//   coroutine SECONDS
//
// Chains: __start_context > body > step > step > …; main > resume > (libc).
#include <ucontext.h>

#include "tests/workloads/shape.h"

static ucontext_t outside, inside;
static volatile uint64_t value = 1;

static SHAPE_FRAME uint64_t step(uint64_t x, unsigned left) {
  return shape_burn(left == 0 ? x : step(x + left, left - 1), 300);
}

static SHAPE_FRAME void body(void) {
  while (1) {
    value = step(value, 8);
    swapcontext(&inside, &outside);
  }
}

static SHAPE_FRAME void resume(void) {
  swapcontext(&outside, &inside);
  value = step(value, 2);
  SHAPE_KEEP();
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  const size_t bytes = 1 << 16;
  if (getcontext(&inside) != 0) return 1;
  inside.uc_stack.ss_sp = malloc(bytes);
  inside.uc_stack.ss_size = bytes;
  inside.uc_link = NULL;
  makecontext(&inside, body, 0);
  while (shape_time_left(seconds)) resume();
  return value == 0;
}

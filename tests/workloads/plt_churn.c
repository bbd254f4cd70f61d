// Spends its time in PLT stubs and in functions of a few instructions behind them.
//
//   plt_churn SECONDS
//
// Chain: main > hop > plt_63 > plt_31 > plt_15 > … Linked with lazy binding: the first round goes through
// _dl_runtime_resolve.
#include "tests/workloads/shape.h"

uint64_t plt_63(uint64_t), plt_42(uint64_t), plt_21(uint64_t), plt_10(uint64_t), plt_5(uint64_t);

SHAPE_FRAME uint64_t hop(uint64_t x) {
  x = plt_63(x);
  x += plt_42(x);
  x += plt_21(x);
  x += plt_10(x);
  return x + plt_5(x);
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 1;
  while (shape_time_left(seconds)) {
    for (int i = 0; i < 1000; ++i) x = hop(x);
  }
  return x == 0;
}

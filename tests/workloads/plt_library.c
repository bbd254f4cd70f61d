// 64 tiny functions that call one another through the PLT (exported, hence interposable): plt_0 … plt_63. plt_N calls
// plt_N/2, so that a call of plt_63 goes six deep. plt_churn and dlopen_churn use it.
#include <stdint.h>

#define TINY(n, next)                                                              \
  uint64_t plt_##next(uint64_t x);                                                 \
  __attribute__((noinline, noclone, visibility("default"))) uint64_t plt_##n(uint64_t x) { \
    return plt_##next(x + n) + 1;                                                  \
  }

__attribute__((noinline, noclone, visibility("default"))) uint64_t plt_0(uint64_t x) { return x * 3; }

#define TINY2(a, b, n) TINY(a, n) TINY(b, n)
TINY(1, 0)
TINY2(2, 3, 1) TINY2(4, 5, 2) TINY2(6, 7, 3) TINY2(8, 9, 4) TINY2(10, 11, 5) TINY2(12, 13, 6) TINY2(14, 15, 7)
TINY2(16, 17, 8) TINY2(18, 19, 9) TINY2(20, 21, 10) TINY2(22, 23, 11) TINY2(24, 25, 12) TINY2(26, 27, 13)
TINY2(28, 29, 14) TINY2(30, 31, 15) TINY2(32, 33, 16) TINY2(34, 35, 17) TINY2(36, 37, 18) TINY2(38, 39, 19)
TINY2(40, 41, 20) TINY2(42, 43, 21) TINY2(44, 45, 22) TINY2(46, 47, 23) TINY2(48, 49, 24) TINY2(50, 51, 25)
TINY2(52, 53, 26) TINY2(54, 55, 27) TINY2(56, 57, 28) TINY2(58, 59, 29) TINY2(60, 61, 30) TINY2(62, 63, 31)

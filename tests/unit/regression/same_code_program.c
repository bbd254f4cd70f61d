// What same_code_test compares: built as it is, with its functions in another order, and with one of several changes.
#include <stdio.h>
#include <stdlib.h>

static const double kScale = 1.5;
static const int kTable[] = {3, 1, 4, 1, 5, 9, 2, 6,
#ifdef OTHER_TABLE
                             5, 3, 7
#else
                             5, 3, 5
#endif
};
volatile int sink;
__attribute__((used)) static int twice(int x) { return 2 * x; }
__attribute__((used)) static int square(int x) { return x * x; }
// Constants with addresses among them lie in a section of their own.
static const struct {
  int limit;
  int (*step)(int);
} kSteps[] = {
#if defined(OTHER_LIMIT)
    {32, twice}, {16, square}, {5, abs}
#elif defined(OTHER_STEP)
    {8, twice}, {16, twice}, {5, abs}
#elif defined(OTHER_TURN)
    {8, square}, {16, twice}, {5, abs}
#else
    {8, twice}, {16, square}, {5, abs}
#endif
};

__attribute__((noinline)) int first(int x) {
  for (int i = 0; i < 11; ++i) sink += kTable[i] * x;
  for (int i = 0; i < 3 && x < kSteps[i].limit; ++i) sink += kSteps[i].step(x);
  return x + sink;
}
#ifdef REORDERED
__attribute__((noinline)) static void report(int x);
int main(int argc, char** argv) {
  (void)argv;
  report(argc);
  return first(argc) == 12345;
}
#endif
__attribute__((noinline)) static double scaled(int x) { return x * kScale + (double)abs(sink); }
__attribute__((noinline)) static void report(int x) {
#ifdef OTHER_TEXT
  printf("value: %d, %f\n", first(x), scaled(x));
#else
  printf("value is %d, %f\n", first(x), scaled(x));
#endif
#ifdef OTHER_CALL
  if (x > 100) exit(3);
#else
  if (x > 100) abort();
#endif
}
#ifndef REORDERED
int main(int argc, char** argv) {
  (void)argv;
  report(argc);
  return first(argc) == 12345;
}
#endif
#ifdef ONE_MORE
__attribute__((noinline, used)) int one_more(int x) { return x ^ 77; }
#endif

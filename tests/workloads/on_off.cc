// Busy and idle in turn, in step with the clock on the wall.
//
//   on_off PERIOD_MS
//
// Runs `busy` in every even PERIOD_MS milliseconds since the Unix epoch and sleeps in the odd ones, until it is killed.
// With 20 it switches 50 times a second, which windows of seconds do not show.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

namespace {

int64_t NowNs() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

volatile uint64_t g_sink;

}  // namespace

__attribute__((noinline)) void busy(int64_t until_ns) {
  while (NowNs() < until_ns) {
    uint64_t x = g_sink;
    for (int i = 0; i < 2000; ++i) x = x * 6364136223846793005u + 1;
    g_sink = x;
  }
}

int main(int argc, char** argv) {
  const int64_t period_ns = argc == 2 ? atoll(argv[1]) * 1'000'000 : 0;
  if (period_ns <= 0) {
    fprintf(stderr, "usage: on_off PERIOD_MS\n");
    return 2;
  }
  for (;;) {
    const int64_t turn = NowNs() / period_ns;
    const int64_t end = (turn + 1) * period_ns;
    if (turn % 2 == 0) {
      busy(end);
    } else {
      const timespec until = {end / 1'000'000'000, end % 1'000'000'000};
      clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, nullptr);
    }
  }
}

// Signal handlers that run longer than what they interrupt: SIGUSR1 on the interrupted stack, SIGUSR2 on an alternate
// stack, SIGALRM by a timer in the midst of arbitrary code.
//
//   signals SECONDS
//
// Chains: main > raise_both > (libc) > (signal frame) > on_normal or on_alternate > handler_work;
// main > interrupted > leaf > (signal frame) > on_timer > handler_work.
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "tests/workloads/shape.h"

static volatile uint64_t sink;

static SHAPE_FRAME void handler_work(unsigned rounds) {
  sink = shape_burn(sink, rounds);
  SHAPE_KEEP();
}
static SHAPE_FRAME void on_normal(int number) {
  handler_work(30000 + (unsigned)number);
  SHAPE_KEEP();
}
static SHAPE_FRAME void on_alternate(int number) {
  handler_work(30000 + (unsigned)number);
  SHAPE_KEEP();
}
static SHAPE_FRAME void on_timer(int number) {
  handler_work(300000 + (unsigned)number);
  SHAPE_KEEP();
}

static SHAPE_FRAME uint64_t leaf(uint64_t x) { return shape_burn(x, 40); }
static SHAPE_FRAME uint64_t interrupted(uint64_t x) {
  for (int i = 0; i < 2000; ++i) x = leaf(x) + 1;
  return x;
}
static SHAPE_FRAME void raise_both(void) {
  raise(SIGUSR1);
  raise(SIGUSR2);
  SHAPE_KEEP();
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  struct sigaction normal, alternate, timer;
  memset(&normal, 0, sizeof normal);
  normal.sa_flags = SA_RESTART;
  alternate = timer = normal;
  normal.sa_handler = on_normal;
  alternate.sa_handler = on_alternate;
  alternate.sa_flags |= SA_ONSTACK;
  timer.sa_handler = on_timer;
  const suseconds_t period_us = 2000 << (shape_shift < 8 ? shape_shift : 8);
  const struct itimerval every = {{0, period_us}, {0, period_us}};
  if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGUSR1, &normal, NULL) != 0 ||
      sigaction(SIGUSR2, &alternate, NULL) != 0 || sigaction(SIGALRM, &timer, NULL) != 0 ||
      setitimer(ITIMER_REAL, &every, NULL) != 0) {
    perror("signals");
    return 1;
  }
  uint64_t x = 1;
  while (shape_time_left(seconds)) {
    raise_both();
    x = interrupted(x);
  }
  return x == 0;
}

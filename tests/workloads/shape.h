// What the workloads of known shape share (tests/bench/unwind_quality names their chains). C and C++.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

// Its own frame, its own name: no inlining, no clones, and no tail call from it (SHAPE_KEEP after the last call).
#define SHAPE_FRAME __attribute__((noinline, noclone))
#define SHAPE_KEEP() __asm__ volatile("" ::: "memory")

// SHAPE_SHIFT in the environment divides all loops by 2^SHIFT, for runs under the single-step oracle.
static unsigned shape_shift;
__attribute__((constructor, unused)) static void shape_read_shift(void) {
  const char* text = getenv("SHAPE_SHIFT");
  shape_shift = text != NULL ? (unsigned)atoi(text) & 31 : 0;
}

// About 1 µs per 1000 rounds; the result depends on every round.
static inline uint64_t shape_burn(uint64_t x, unsigned rounds) {
  rounds = (rounds >> shape_shift) + 1;
  for (unsigned i = 0; i < rounds; ++i) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    __asm__ volatile("" : "+r"(x));
  }
  return x;
}

// The last argument of every workload: seconds to run, 0 until killed. True while there is time left.
static inline int shape_time_left(double seconds) {
  static struct timespec start;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (start.tv_sec == 0) start = now;
  return seconds <= 0 || (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds;
}

static inline double shape_seconds(int argc, char** argv, int position) {
  return argc > position ? atof(argv[position]) : 0;
}

// A deep stack most of whose pages are not in memory, while its innermost function computes.
//
//   cold_stack SECONDS
//
// The stack is a shared mapping of a file, as coroutine libraries and checkpoints make them: its pages can be dropped at any
// time (here by MADV_DONTNEED, elsewhere by reclaim) and come back from the file when they are touched. 40 frames of 1 KiB:
// `bottom` under 39 times `descend`, under `on_cold_stack`.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { kStackBytes = 128 << 10, kDepth = 39, kPage = 4096 };

static char* stack;
static double seconds;
static volatile uint64_t sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

__attribute__((noinline)) void bottom(void) {
  const double end = now() + seconds;
  while (now() < end) {
    // All pages above the one that this frame lies in, and the next for what is called from here.
    char* here = (char*)((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)(kPage - 1));
    char* cold = here + 2 * kPage;
    if (cold < stack + kStackBytes) madvise(cold, (size_t)(stack + kStackBytes - cold), MADV_DONTNEED);
    uint64_t x = sink;
    for (int i = 0; i < 3000000; ++i) x = x * 6364136223846793005u + 1;
    sink = x;
  }
}

__attribute__((noinline)) int descend(int depth) {
  volatile char frame[1000];
  frame[0] = (char)depth;
  if (depth == 0) {
    bottom();
  } else {
    descend(depth - 1);
  }
  return frame[0];
}

__attribute__((noinline)) void on_cold_stack(void) { sink += (uint64_t)descend(kDepth - 1); }

int main(int argc, char** argv) {
  seconds = argc > 1 ? atof(argv[1]) : 1;
  FILE* file = tmpfile();
  if (!file || ftruncate(fileno(file), kStackBytes) != 0) return 1;
  stack = mmap(NULL, kStackBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  if (stack == MAP_FAILED) return 1;
  static ucontext_t here, there;
  getcontext(&there);
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = kStackBytes;
  there.uc_link = &here;
  makecontext(&there, on_cold_stack, 0);
  puts("ready");
  fflush(stdout);
  swapcontext(&here, &there);
  return 0;
}

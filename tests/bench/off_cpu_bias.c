/* A known mixture of waits: tests/bench/off_cpu_bias builds and starts this.
 *
 *   off_cpu_bias NAME SECONDS
 *
 * For SECONDS, 8 threads NAME-short sleep 2 ms again and again and 4 threads NAME-middle wait 20 ms for a futex; one
 * thread NAME-long waits once, for all of it, in poll. Prints how long they waited by their own clocks: "SHORT MIDDLE
 * LONG", ns. Build: cc -O2 -fno-omit-frame-pointer -pthread.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kShort, kMiddle, kLong, kKinds };
static const char* const kNames[kKinds] = {"short", "middle", "long"};
static const int kThreads[kKinds] = {8, 4, 1};

static const char* name;
static uint64_t end_ns;
static int end_ms;

static uint64_t Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void Wait(int kind) {
  static uint32_t never;
  const struct timespec two = {0, 2000000}, twenty = {0, 20000000};
  if (kind == kShort) nanosleep(&two, NULL);
  if (kind == kMiddle) syscall(SYS_futex, &never, FUTEX_WAIT_PRIVATE, 0, &twenty, NULL, 0);
  if (kind == kLong) poll(NULL, 0, end_ms);
}

static void* Run(void* argument) {
  const int kind = (int)(intptr_t)argument;
  char own[16];
  uint64_t* waited = malloc(sizeof *waited);
  snprintf(own, sizeof own, "%s-%s", name, kNames[kind]);
  pthread_setname_np(pthread_self(), own);
  *waited = 0;
  do {
    const uint64_t start = Now();
    Wait(kind);
    *waited += Now() - start;
  } while (Now() < end_ns);
  return waited;
}

int main(int argc, char** argv) {
  pthread_t threads[16];
  int count = 0, at = 0;
  if (argc != 3) return 2;
  name = argv[1];
  end_ms = (int)(atof(argv[2]) * 1000);
  end_ns = Now() + (uint64_t)end_ms * 1000000u;
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int i = 0; i < kThreads[kind]; ++i) {
      if (pthread_create(&threads[count++], NULL, Run, (void*)(intptr_t)kind) != 0) return 1;
    }
  }
  for (int kind = 0; kind < kKinds; ++kind) {
    uint64_t sum = 0;
    for (int i = 0; i < kThreads[kind]; ++i) {
      void* waited;
      pthread_join(threads[at++], &waited);
      sum += *(uint64_t*)waited;
      free(waited);
    }
    printf("%llu%c", (unsigned long long)sum, kind + 1 < kKinds ? ' ' : '\n');
  }
  return 0;
}

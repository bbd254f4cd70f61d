/* Burns MS milliseconds of CPU time in a function whose name no other program has, then ends, execs or forks.
 *
 *   short_life MS                        burn, end
 *   short_life MS exec PROGRAM ARG…      burn, become PROGRAM
 *   short_life MS fork N                 N children one after the other, each burns; no exec
 *
 * tests/bench/short_processes builds it many times: cc -O2 -fomit-frame-pointer -DUNIQUE=burn_NAME -DSALT=N. SALT makes the code
 * differ: the linker's build ID does not cover symbol names, and equal code under two names is one binary.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

static int64_t cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

__attribute__((noinline, noclone)) void UNIQUE(double ms) {
  /* Since the process began, so that an exec chain does not count what came before: relative. */
  const int64_t end = cpu_ns() + (int64_t)(ms * 1e6);
  uint64_t x = sink;
  do {
    for (int i = 0; i < 20000; ++i) x = x * 6364136223846793005u + 1442695040888963407u + 2 * SALT;
  } while (cpu_ns() < end);
  sink = x;
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const double ms = atof(argv[1]);
  if (argc > 3 && strcmp(argv[2], "fork") == 0) {
    for (int i = 0; i < atoi(argv[3]); ++i) {
      const pid_t child = fork();
      if (child == 0) {
        UNIQUE(ms);
        _exit(0);
      }
      if (child < 0 || waitpid(child, NULL, 0) != child) return 1;
    }
    return 0;
  }
  UNIQUE(ms);
  if (argc > 3 && strcmp(argv[2], "exec") == 0) {
    execv(argv[3], argv + 3);
    return 127;
  }
  return 0;
}

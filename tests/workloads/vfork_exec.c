// vfork and exec of itself, over and over: the child borrows the parent's memory until it execs, then burns 5 ms.
//
//   vfork_exec SECONDS
//
// Chains: main > launch > spawn; in the children main > short_life.
#define _GNU_SOURCE
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/workloads/shape.h"

static SHAPE_FRAME uint64_t short_life(void) { return shape_burn(1, 5000000); }

static SHAPE_FRAME pid_t spawn(char** arguments) {
  const pid_t child = vfork();
  if (child == 0) {
    execv("/proc/self/exe", arguments);
    _exit(127);
  }
  return child;
}

static SHAPE_FRAME uint64_t launch(uint64_t x) {
  char child[] = "child";
  char* arguments[] = {child, child, NULL};
  const pid_t pid = spawn(arguments);
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
    fprintf(stderr, "vfork_exec: child failed\n");
    exit(1);
  }
  return shape_burn(x, 1000000);
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "child") == 0) return short_life() == 0;
  const double seconds = shape_seconds(argc, argv, 1);
  uint64_t x = 1;
  while (shape_time_left(seconds)) x = launch(x);
  return x == 0;
}

// Starts N short processes one after the other; each runs itself again through execve and burns MS milliseconds of CPU.
//
//   fork_storm N MS
//
// Prints the number of children that ended with status 0.
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

uint64_t CpuNs() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

}  // namespace

// What each child does; not inlined, so that its samples can be told.
__attribute__((noinline)) void short_life(long ms) {
  while (CpuNs() < static_cast<uint64_t>(ms) * 1000000u) {
  }
  asm volatile("" ::: "memory");
}

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "child") == 0) {
    short_life(std::atol(argv[2]));
    return 0;
  }
  if (argc != 3) {
    std::fprintf(stderr, "usage: fork_storm N MS\n");
    return 2;
  }
  long good = 0;
  for (long i = 0; i < std::atol(argv[1]); ++i) {
    const pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "fork_storm", "child", argv[2], static_cast<char*>(nullptr));
      _exit(127);
    }
    int status = 1;
    if (child > 0 && waitpid(child, &status, 0) == child && status == 0) ++good;
  }
  std::printf("%ld\n", good);
  return 0;
}

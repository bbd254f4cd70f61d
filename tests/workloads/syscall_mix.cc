// Makes exactly N system calls of known kinds with known delays.
//
//   syscall_mix [--wait] GETPPID NANOSLEEP_20MS PIPE_READ_5MS BAD_CLOSE
//
// getppid as often as said; nanosleep of 20 ms; read of one byte from a pipe that a second process feeds each
// 5 ms; close(-1), which fails with EBADF. With --wait it first waits until standard input is readable or closed, so
// that a test can attach or move it into a cgroup before anything is counted. Calls through syscall(2): no C library in
// between, none of these calls is made for another purpose, and the child (the feeder) uses other calls only. Prints
// "done".
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

// Kept with frame pointers and not inlined: exemplar stacks of slow reads must show it.
__attribute__((noinline)) long slow_read(int fd) {
  char byte;
  const long n = syscall(SYS_read, fd, &byte, 1);
  asm volatile("" ::: "memory");
  return n;
}

int main(int argc, char** argv) {
  int first = 1;
  const bool wait = argc > 1 && std::strcmp(argv[1], "--wait") == 0;
  if (wait) ++first;
  if (argc - first != 4) {
    std::fprintf(stderr, "usage: syscall_mix [--wait] GETPPID NANOSLEEP PIPE_READ BAD_CLOSE\n");
    return 2;
  }
  const long getppids = std::atol(argv[first]), sleeps = std::atol(argv[first + 1]);
  const long reads = std::atol(argv[first + 2]), closes = std::atol(argv[first + 3]);
  if (wait) {
    // Not by reading: the wait must not count as a read.
    fd_set ready;
    FD_ZERO(&ready);
    FD_SET(0, &ready);
    select(1, &ready, nullptr, nullptr, nullptr);
  }
  int pipe_fds[2];
  pid_t feeder = -1;
  if (reads > 0) {
    if (pipe(pipe_fds) != 0) return 1;
    feeder = fork();
    if (feeder == 0) {
      for (long i = 0; i < reads; ++i) {
        // clock_nanosleep: nanosleep is the parent's.
        timespec pause = {0, 5000000};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
        if (write(pipe_fds[1], "x", 1) != 1) _exit(1);
      }
      _exit(0);
    }
  }
  for (long i = 0; i < getppids; ++i) syscall(SYS_getppid);
  for (long i = 0; i < reads; ++i) {
    if (slow_read(pipe_fds[0]) != 1) return 1;
  }
  const timespec pause = {0, 20000000};
  for (long i = 0; i < sleeps; ++i) syscall(SYS_nanosleep, &pause, nullptr);
  for (long i = 0; i < closes; ++i) syscall(SYS_close, -1);
  if (feeder > 0) waitpid(feeder, nullptr, 0);
  std::puts("done");
  return 0;
}

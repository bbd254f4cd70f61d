// What the latency probes cost a system call and a switch of threads, by switching them on and off in one process.
//
//   latency_probes [ROUNDS]      as root; prints a markdown table
//
// Beside tests/bench/latency_overhead, which measures the whole agent and peers from outside, this resolves a few
// nanoseconds: each round measures without, with and without the probes, and a figure is the median of what they
// added, with its quartiles. On one CPU, in CPU time:
//   getppid    a call that never waits
//   ping-pong  a byte to and fro between two processes over pipes, CPU time of one of them per round trip: 2 calls of
//              which 1 waits, 1 switch away and back
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "userspace/kernel/off_cpu.h"
#include "userspace/kernel/syscall_latency.h"

namespace {

using pyrometer::kernel::OffCpu;
using pyrometer::kernel::SyscallLatency;

constexpr int kCalls = 400'000;
constexpr int kRoundTrips = 20'000;

double Now(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

double Getppid() {
  const double start = Now(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < kCalls; ++i) syscall(SYS_getppid);
  return (Now(CLOCK_THREAD_CPUTIME_ID) - start) / kCalls;
}

double PingPong() {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) Die("pipe");
  const pid_t child = fork();
  if (child < 0) Die("fork");
  char byte = 0;
  if (child == 0) {
    for (int i = 0; i < kRoundTrips; ++i) {
      if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  const double start = Now(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < kRoundTrips; ++i) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) Die("ping-pong");
  }
  const double spent = Now(CLOCK_THREAD_CPUTIME_ID) - start;
  for (const int fd : {there[0], there[1], back[0], back[1]}) close(fd);
  waitpid(child, nullptr, 0);
  return spent / kRoundTrips;
}

struct Figure {
  std::vector<double> added, base;

  void Add(double before, double with, double after) {
    base.push_back((before + after) / 2);
    added.push_back(with - base.back());
  }
  void Print() {
    std::sort(added.begin(), added.end());
    std::sort(base.begin(), base.end());
    const size_t n = added.size();
    std::printf(" %+.0f (%.0f … %.0f), of %.0f |", added[n / 2], added[n / 4], added[3 * n / 4], base[n / 2]);
  }
};

void Measure(const char* name, bool calls, bool waits, int rounds) {
  Figure call, round_trip;
  for (int i = 0; i < rounds; ++i) {
    const double call_before = Getppid(), round_trip_before = PingPong();
    double call_with = 0, round_trip_with = 0;
    {
      std::unique_ptr<SyscallLatency> syscalls;
      std::unique_ptr<OffCpu> off_cpu;
      if (calls) {
        auto probe = SyscallLatency::Start({.split = waits});
        if (!probe.ok()) Die(std::string(probe.status().message()).c_str());
        syscalls = *std::move(probe);
      }
      if (waits) {
        auto probe = OffCpu::Start({.task_states = syscalls ? syscalls->TaskStates() : -1});
        if (!probe.ok()) Die(std::string(probe.status().message()).c_str());
        off_cpu = *std::move(probe);
      }
      call_with = Getppid();
      round_trip_with = PingPong();
    }
    call.Add(call_before, call_with, Getppid());
    round_trip.Add(round_trip_before, round_trip_with, PingPong());
  }
  std::printf("| %s |", name);
  call.Print();
  round_trip.Print();
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 15;
  cpu_set_t first;
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  sched_setaffinity(0, sizeof(first), &first);  // refused: then the figures are noisier
  std::printf("| probes | ns per getppid | ns per round trip over pipes |\n|---|---|---|\n");
  Measure("system calls", true, false, rounds);
  Measure("system calls with their split", true, true, rounds);
  Measure("waits alone", false, true, rounds);
  return 0;
}

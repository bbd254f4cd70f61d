// Waits for one known cause in many calls of one kind, and measures each of them itself.
//
//   latency_truth MODE ROUNDS [MICROSECONDS]
//
// Prepares what it needs, then waits (in select) until standard input is closed, makes its calls, and prints one line
// of JSON: `times` of each call by CLOCK_MONOTONIC around it; of the same calls `cpuNs` by the thread's CPU clock and
// `queuedNs` by /proc/thread-self/schedstat (-1 without it; `queues` by call), so that what is left of their time is
// what they were blocked, and by getrusage `callSwitches`, voluntary ones, and `preempted`, calls with any other; and
// of the whole process, while it made them, `switches` (voluntary too) and `majorFaults`. Files lie in the current
// folder. Modes:
//   sleep    nanosleep of MICROSECONDS
//   pipe     read of a pipe that another thread answers after MICROSECONDS, one byte each way
//   fsync    fsync after a write of 1 MiB
//   convoy   four threads, ROUNDS each, take a lock that is held for MICROSECONDS: each futex call
//   touch    a read of a page of a mapped file that is not in memory (no system call)
//   spin     getppid until MICROSECONDS of CPU time are used per round; one time a round, `calls` says of how many
//   calls
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kFileBytes = 32 << 20;
constexpr int kConvoyThreads = 4;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

long Now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1'000'000'000L + t.tv_nsec;
}

// Not nanosleep, which is what a mode counts.
void Pause(long us) {
  const timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &t, nullptr);
}

// Of one thread, which alone may use it.
class Meter {
 public:
  Meter() : schedstat_(open("/proc/thread-self/schedstat", O_RDONLY)) {}
  template <typename Call>
  void Time(Call call) {
    const rusage before = Usage();
    const long queued = Queued(), cpu = Now(CLOCK_THREAD_CPUTIME_ID), start = Now();
    call();
    times.push_back(Now() - start);
    cpu_ns += Now(CLOCK_THREAD_CPUTIME_ID) - cpu;
    const rusage after = Usage();
    switches += after.ru_nvcsw - before.ru_nvcsw;
    preempted += after.ru_nivcsw != before.ru_nivcsw;
    queues.push_back(queued < 0 ? 0 : Queued() - queued);
    if (queued_ns >= 0) queued_ns = queued < 0 ? -1 : queued_ns + queues.back();
  }
  void Merge(const Meter& other) {
    times.insert(times.end(), other.times.begin(), other.times.end());
    queues.insert(queues.end(), other.queues.begin(), other.queues.end());
    cpu_ns += other.cpu_ns;
    switches += other.switches;
    preempted += other.preempted;
    queued_ns = queued_ns < 0 || other.queued_ns < 0 ? -1 : queued_ns + other.queued_ns;
  }

  std::vector<long> times, queues;  // of each call
  long cpu_ns = 0, queued_ns = 0, switches = 0, preempted = 0;

 private:
  // getrusage, which no mode counts.
  static rusage Usage() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage;
  }
  // pread64, which no mode counts.
  long Queued() const {
    char text[64] = {};
    long ran = 0, queued = 0;
    if (schedstat_ < 0 || pread(schedstat_, text, sizeof(text) - 1, 0) <= 0) return -1;
    return std::sscanf(text, "%ld %ld", &ran, &queued) == 2 ? queued : -1;
  }
  int schedstat_;
};

void Pipe(long rounds, long us, Meter& meter) {
  int ask[2], answer[2];
  if (pipe(ask) != 0 || pipe(answer) != 0) Die("pipe");
  std::thread other([&] {
    char byte;
    const iovec piece{&byte, 1};
    for (long i = 0; i < rounds; ++i) {
      if (syscall(SYS_readv, ask[0], &piece, 1) != 1) Die("readv");
      Pause(us);
      if (syscall(SYS_writev, answer[1], &piece, 1) != 1) Die("writev");
    }
  });
  char byte = 0;
  for (long i = 0; i < rounds; ++i) {
    if (write(ask[1], &byte, 1) != 1) Die("write");
    meter.Time([&] {
      if (syscall(SYS_read, answer[0], &byte, 1) != 1) Die("read");
    });
  }
  other.join();
}

// A mutex whose every futex call is timed by the thread that makes it. 0 free, 1 taken, 2 taken and waited for. All
// that wait are woken, so that most calls are waits and the median is one.
class TimedMutex {
 public:
  void Lock(Meter& meter) {
    uint32_t state = 0;
    if (word_.compare_exchange_strong(state, 1)) return;
    while (word_.exchange(2) != 0) {
      meter.Time([&] { syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 2, nullptr, nullptr, 0); });
    }
  }
  void Unlock(Meter& meter) {
    if (word_.exchange(0) != 2) return;
    meter.Time([&] { syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, kConvoyThreads, nullptr, nullptr, 0); });
  }

 private:
  std::atomic<uint32_t> word_{0};
};

// Threads are neither joined nor do they end before the process does: the C library makes futex calls for both.
void Convoy(long rounds, long us, Meter& meter) {
  static TimedMutex mutex;
  static std::atomic<int> done{0};
  static std::vector<Meter*> meters(kConvoyThreads);
  for (int i = 0; i < kConvoyThreads; ++i) {
    std::thread([=] {
      Meter own;
      meters[static_cast<size_t>(i)] = &own;
      for (long round = 0; round < rounds; ++round) {
        mutex.Lock(own);
        Pause(us);
        mutex.Unlock(own);
      }
      ++done;
      while (true) pause();
    }).detach();
  }
  while (done.load() < kConvoyThreads) Pause(1000);
  for (const Meter* own : meters) meter.Merge(*own);
}

void Fsync(long rounds, int fd, Meter& meter) {
  std::vector<char> data(1 << 20, 'x');
  for (long i = 0; i < rounds; ++i) {
    data[0] = static_cast<char>(i);
    if (pwrite(fd, data.data(), data.size(), 0) != static_cast<ssize_t>(data.size())) Die("pwrite");
    meter.Time([&] {
      if (syscall(SYS_fsync, fd) != 0) Die("fsync");
    });
  }
}

void Touch(long rounds, int fd, Meter& meter) {
  size_t at = 0;
  for (long i = 0; i < rounds; ++i) {
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) Die("posix_fadvise");
    auto* memory = static_cast<char*>(mmap(nullptr, kFileBytes, PROT_READ, MAP_SHARED, fd, 0));
    if (memory == MAP_FAILED || madvise(memory, kFileBytes, MADV_RANDOM) != 0) Die("mmap");
    // Far apart: no page comes in with another.
    at = (at + 61 * kPage) % (kFileBytes - kPage);
    meter.Time([&] { *static_cast<volatile char*>(memory + at); });
    munmap(memory, kFileBytes);
  }
}

long Spin(long rounds, long us, Meter& meter) {
  long calls = 0;
  for (long i = 0; i < rounds; ++i) {
    const long end = Now(CLOCK_THREAD_CPUTIME_ID) + us * 1000;
    meter.Time([&] {
      while (Now(CLOCK_THREAD_CPUTIME_ID) < end) syscall(SYS_getppid), ++calls;
    });
  }
  return calls;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: latency_truth MODE ROUNDS [MICROSECONDS]\n");
    return 2;
  }
  const std::string mode = argv[1];
  const long rounds = std::atol(argv[2]), us = argc > 3 ? std::atol(argv[3]) : 1000;
  const int fd = open("latency_truth.data", O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) Die("latency_truth.data");
  if (mode == "touch") {
    const std::vector<char> block(1 << 20, 'd');
    for (size_t done = 0; done < kFileBytes; done += block.size()) {
      if (write(fd, block.data(), block.size()) != static_cast<ssize_t>(block.size())) Die("write");
    }
    if (fsync(fd) != 0) Die("fsync");
  }
  // Not by reading: the wait must not count as a read.
  fd_set ready;
  FD_ZERO(&ready);
  FD_SET(0, &ready);
  select(1, &ready, nullptr, nullptr, nullptr);

  rusage before{}, after{};
  Meter meter;
  long calls = -1;
  getrusage(RUSAGE_SELF, &before);
  if (mode == "sleep") {
    const timespec t{us / 1'000'000, us % 1'000'000 * 1000};
    for (long i = 0; i < rounds; ++i) meter.Time([&] { syscall(SYS_nanosleep, &t, nullptr); });
  } else if (mode == "pipe") {
    Pipe(rounds, us, meter);
  } else if (mode == "fsync") {
    Fsync(rounds, fd, meter);
  } else if (mode == "convoy") {
    Convoy(rounds, us, meter);
  } else if (mode == "touch") {
    Touch(rounds, fd, meter);
  } else if (mode == "spin") {
    calls = Spin(rounds, us, meter);
  } else {
    std::fprintf(stderr, "latency_truth: no mode %s\n", mode.c_str());
    return 2;
  }
  getrusage(RUSAGE_SELF, &after);
  std::printf(
      "{\"mode\":\"%s\",\"calls\":%ld,\"cpuNs\":%ld,\"queuedNs\":%ld,\"callSwitches\":%ld,\"preempted\":%ld,"
      "\"switches\":%ld,\"majorFaults\":%ld,\"times\":[",
      mode.c_str(), calls < 0 ? static_cast<long>(meter.times.size()) : calls, meter.cpu_ns, meter.queued_ns,
      meter.switches, meter.preempted, after.ru_nvcsw - before.ru_nvcsw, after.ru_majflt - before.ru_majflt);
  for (size_t i = 0; i < meter.times.size(); ++i) std::printf("%s%ld", i == 0 ? "" : ",", meter.times[i]);
  std::printf("],\"queues\":[");
  for (size_t i = 0; i < meter.queues.size(); ++i) std::printf("%s%ld", i == 0 ? "" : ",", meter.queues[i]);
  std::printf("]}\n");
  return 0;
}

// Waits for a known cause, and says for how long by its own clock.
//
//   waits MODE ROUNDS [MICROSECONDS] [FILE]
//
// First waits until standard input is closed, so that a test can attach before anything is counted. Then the main
// thread makes ROUNDS calls of the mode's system call, which wait about MICROSECONDS each, and prints
// "MODE CALLS NANOSECONDS SWITCHES QUEUED": the time around each call by CLOCK_MONOTONIC, and by the kernel's own
// accounts how often its threads gave up their CPU meanwhile, and how long the main thread waited for one (nanoseconds;
// -1 where the kernel does not tell):
//   sleep    nanosleep
//   mixture  nanosleep: per round 20 of MICROSECONDS, 2 of five times that, and in all one of 300 ms
//   pipe     read of a pipe that a second thread answers after MICROSECONDS, one byte each way
//   futex    FUTEX_WAIT on a word that a second thread sets and wakes after MICROSECONDS
//   tcp      recvfrom of a loopback connection, answered after MICROSECONDS
//   fsync    fsync after a write of 64 KiB to FILE
//   fault    write of cold pages of FILE, mapped, to a pipe: the pages are read in the call (nothing is said of time)
//   touch    the same pages touched by user code
//   spin     getppid until MICROSECONDS of CPU time are used per round: it never blocks, but may have to queue
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kPage = 4096;

long Now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1'000'000'000L + t.tv_nsec;
}

void Sleep(long us) {
  const timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  syscall(SYS_nanosleep, &t, nullptr);
}

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

long Switches() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nvcsw;
}

// By pread: reads are counted.
long Queued() {
  const int fd = open("/proc/thread-self/schedstat", O_RDONLY);
  char text[128] = "";
  long ran = 0, queued = -1;
  if (fd < 0) return -1;
  const ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
  close(fd);
  return got > 0 && std::sscanf(text, "%ld %ld", &ran, &queued) == 2 ? queued : -1;
}

struct Sum {
  long calls = 0, ns = 0;
  template <typename Call>
  void Time(Call call) {
    const long start = Now();
    call();
    ns += Now() - start;
    ++calls;
  }
};

Sum Pipe(long rounds, long us) {
  int ask[2], answer[2];
  if (pipe(ask) != 0 || pipe(answer) != 0) Die("pipe");
  std::thread other([&] {
    char byte;
    for (long i = 0; i < rounds; ++i) {
      // The answering thread's own calls are others: what is counted is the main thread's read.
      iovec piece{&byte, 1};
      if (syscall(SYS_readv, ask[0], &piece, 1) != 1) Die("readv");
      Sleep(us);
      if (syscall(SYS_writev, answer[1], &piece, 1) != 1) Die("writev");
    }
  });
  Sum sum;
  char byte = 0;
  for (long i = 0; i < rounds; ++i) {
    if (syscall(SYS_write, ask[1], &byte, 1) != 1) Die("write");
    sum.Time([&] {
      if (syscall(SYS_read, answer[0], &byte, 1) != 1) Die("read");
    });
  }
  other.join();
  return sum;
}

Sum Futex(long rounds, long us) {
  std::atomic<uint32_t> word{0};
  std::atomic<long> asked{0};
  std::thread other([&] {
    for (long i = 1; i <= rounds; ++i) {
      while (asked.load() < i) Sleep(50);
      Sleep(us);
      word.store(1);
      syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }
  });
  Sum sum;
  for (long i = 1; i <= rounds; ++i) {
    word.store(0);
    asked.store(i);
    sum.Time([&] { syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0); });
    while (word.load() == 0) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
  }
  other.join();
  return sum;
}

Sum Tcp(long rounds, long us) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    Die("listen");
  }
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(client, reinterpret_cast<sockaddr*>(&address), length) != 0) Die("connect");
  const int server = accept(listener, nullptr, nullptr);
  std::thread other([&] {
    char byte;
    for (long i = 0; i < rounds; ++i) {
      if (read(server, &byte, 1) != 1) Die("read");
      Sleep(us);
      if (write(server, &byte, 1) != 1) Die("write");
    }
  });
  Sum sum;
  char byte = 0;
  for (long i = 0; i < rounds; ++i) {
    if (write(client, &byte, 1) != 1) Die("write");
    sum.Time([&] {
      if (syscall(SYS_recvfrom, client, &byte, 1, 0, nullptr, nullptr) != 1) Die("recvfrom");
    });
  }
  other.join();
  return sum;
}

Sum Fsync(long rounds, const char* path) {
  const int fd = open(path, O_RDWR | O_CREAT, 0600);
  if (fd < 0) Die(path);
  std::vector<char> data(1 << 16, 'x');
  Sum sum;
  for (long i = 0; i < rounds; ++i) {
    data[0] = static_cast<char>(i);
    if (pwrite(fd, data.data(), data.size(), 0) != static_cast<ssize_t>(data.size())) Die("pwrite");
    sum.Time([&] {
      if (syscall(SYS_fsync, fd) != 0) Die("fsync");
    });
  }
  return sum;
}

Sum Fault(long rounds, const char* path, bool in_call) {
  const int fd = open(path, O_RDONLY);
  struct stat info {};
  if (fd < 0 || fstat(fd, &info) != 0) Die(path);
  const auto size = static_cast<size_t>(info.st_size);
  int out[2];
  if (pipe(out) != 0) Die("pipe");
  Sum sum;
  size_t at = 0;
  for (long i = 0; i < rounds; ++i) {
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) Die("posix_fadvise");
    auto* memory = static_cast<char*>(mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0));
    if (memory == MAP_FAILED || madvise(memory, size, MADV_RANDOM) != 0) Die("mmap");
    // Far apart: no page comes in with another.
    at = (at + 61 * kPage) % (size - kPage);
    sum.Time([&] {
      if (in_call) {
        if (syscall(SYS_write, out[1], memory + at, 64) != 64) Die("write");
      } else {
        *static_cast<volatile char*>(memory + at);
      }
    });
    char drained[64];
    if (in_call && syscall(SYS_read, out[0], drained, 64) != 64) Die("read");
    munmap(memory, size);
  }
  return sum;
}

Sum Spin(long rounds, long us) {
  Sum sum;
  for (long i = 0; i < rounds; ++i) {
    const long end = Now(CLOCK_THREAD_CPUTIME_ID) + us * 1000;
    sum.Time([&] {
      while (Now(CLOCK_THREAD_CPUTIME_ID) < end) syscall(SYS_getppid);
    });
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: waits MODE ROUNDS [MICROSECONDS] [FILE]\n");
    return 2;
  }
  const std::string mode = argv[1];
  const long rounds = std::atol(argv[2]), us = argc > 3 ? std::atol(argv[3]) : 1000;
  const char* file = argc > 4 ? argv[4] : "";
  // Not by reading: the wait must not count as a read.
  fd_set ready;
  FD_ZERO(&ready);
  FD_SET(0, &ready);
  select(1, &ready, nullptr, nullptr, nullptr);

  const long queued_before = Queued(), before = Switches();
  Sum sum;
  if (mode == "sleep") {
    for (long i = 0; i < rounds; ++i) sum.Time([&] { Sleep(us); });
  } else if (mode == "mixture") {
    sum.Time([] { Sleep(300'000); });
    for (long i = 0; i < rounds; ++i) {
      for (int j = 0; j < 20; ++j) sum.Time([&] { Sleep(us); });
      for (int j = 0; j < 2; ++j) sum.Time([&] { Sleep(5 * us); });
    }
  } else if (mode == "pipe") {
    sum = Pipe(rounds, us);
  } else if (mode == "futex") {
    sum = Futex(rounds, us);
  } else if (mode == "tcp") {
    sum = Tcp(rounds, us);
  } else if (mode == "fsync") {
    sum = Fsync(rounds, file);
  } else if (mode == "fault" || mode == "touch") {
    sum = Fault(rounds, file, mode == "fault");
  } else if (mode == "spin") {
    sum = Spin(rounds, us);
  } else {
    std::fprintf(stderr, "waits: no mode %s\n", mode.c_str());
    return 2;
  }
  const long switches = Switches() - before;
  const long queued = queued_before < 0 ? -1 : Queued() - queued_before;
  std::printf("%s %ld %ld %ld %ld\n", mode.c_str(), sum.calls, sum.ns, switches, queued);
  return 0;
}

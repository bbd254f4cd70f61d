// A read that is sometimes slow, for a reason two threads away: docs/slow_read.md finds it, tests/e2e/waits_test.py
// replays that.
//
//   slow_read SECONDS
//
// The main thread reads a pipe. A thread "producer" writes to it every 2 ms, holding a mutex. A thread "compactor"
// takes the same mutex every 60 ms and holds it for 40 ms, while it writes to a slow disk (it sleeps). Prints
// "slow_read READS SLOW": how many reads returned, and how many of them took 30 ms or more.
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace {

std::mutex index_mutex;
std::atomic<bool> stopping{false};
int records[2];

void SleepMs(long ms) {
  const timespec t{ms / 1000, ms % 1000 * 1'000'000};
  nanosleep(&t, nullptr);
}

long NowMs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

__attribute__((noinline)) void WriteSegment() { SleepMs(40); }

__attribute__((noinline)) void CompactIndex() {
  index_mutex.lock();
  WriteSegment();
  index_mutex.unlock();
}

__attribute__((noinline)) void AppendRecord() {
  index_mutex.lock();
  const char record = 'r';
  if (write(records[1], &record, 1) != 1) std::exit(1);
  index_mutex.unlock();
}

__attribute__((noinline)) bool ReadRecord() {
  char record;
  return read(records[0], &record, 1) == 1;
}

}  // namespace

int main(int argc, char** argv) {
  const long until = NowMs() + 1000 * (argc > 1 ? std::atol(argv[1]) : 5);
  if (pipe(records) != 0) return 1;
  std::thread producer([] {
    pthread_setname_np(pthread_self(), "producer");
    while (!stopping.load()) {
      AppendRecord();
      SleepMs(2);
    }
  });
  std::thread compactor([] {
    pthread_setname_np(pthread_self(), "compactor");
    while (!stopping.load()) {
      CompactIndex();
      SleepMs(60);
    }
  });
  long reads = 0, slow = 0;
  while (NowMs() < until) {
    const long began = NowMs();
    if (!ReadRecord()) return 1;
    ++reads;
    slow += NowMs() - began >= 30;
  }
  stopping = true;
  producer.join();
  compactor.join();
  std::printf("slow_read %ld %ld\n", reads, slow);
}

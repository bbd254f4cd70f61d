// Threads by pthread_create and std::thread: four that live long, and a stream of short ones.
//
//   threads SECONDS
//
// Chains: clone3 > (libc) > posix_entry > level > … > level; clone3 > (libc) > (libstdc++) > std_entry > level > …
#include <pthread.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/workloads/shape.h"

namespace {
std::atomic<bool> stop{false};
}  // namespace

SHAPE_FRAME uint64_t level(uint64_t x, unsigned left) {
  return shape_burn(left == 0 ? x : level(x + left, left - 1), 100);
}

SHAPE_FRAME void* posix_entry(void*) {
  uint64_t x = 1;
  while (!stop) x = level(x, 12);
  return reinterpret_cast<void*>(x & 1);
}

SHAPE_FRAME void std_entry() {
  uint64_t x = 1;
  while (!stop) x = level(x, 12);
  SHAPE_KEEP();
}

SHAPE_FRAME void short_entry() {
  volatile uint64_t x = level(1, 12);
  for (int i = 0; i < 200; ++i) x = level(x, 12);
}

int main(int argc, char** argv) {
  const double seconds = shape_seconds(argc, argv, 1);
  pthread_t posix[2];
  std::vector<std::thread> standard;
  for (pthread_t& t : posix) pthread_create(&t, nullptr, posix_entry, nullptr);
  for (int i = 0; i < 2; ++i) standard.emplace_back(std_entry);
  while (shape_time_left(seconds)) std::thread(short_entry).join();
  stop = true;
  for (const pthread_t t : posix) pthread_join(t, nullptr);
  for (std::thread& t : standard) t.join();
  return 0;
}

#include "userspace/base/yielding_mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace pyrometer {
namespace {

TEST(YieldingMutex, OneHolderAtATime) {
  YieldingMutex mutex;
  int64_t sum = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        const std::lock_guard lock(mutex);
        ++sum;
        if (i % 16 == 0 && mutex.contended()) mutex.Yield();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sum, 40'000);
  EXPECT_FALSE(mutex.contended());
}

TEST(YieldingMutex, NobodyWaitsNobodyComes) {
  YieldingMutex mutex;
  const std::lock_guard lock(mutex);
  mutex.Yield();  // would hang if it waited for somebody
  EXPECT_FALSE(mutex.contended());
}

// With std::mutex, unlocked and locked again, this takes thousands of turns.
TEST(YieldingMutex, OneTurnIsEnough) {
  for (int round = 0; round < 100; ++round) {
    YieldingMutex mutex;
    std::atomic<bool> had{false};
    mutex.lock();
    std::thread other([&] {
      const std::lock_guard lock(mutex);
      had = true;
    });
    while (!mutex.contended()) std::this_thread::yield();
    mutex.Yield();
    EXPECT_TRUE(had);
    mutex.unlock();
    other.join();
  }
}

}  // namespace
}  // namespace pyrometer

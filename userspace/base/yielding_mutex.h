// A mutex for long work that can be interrupted: its holder lets those go first that wait.
//
//   const std::lock_guard lock(mutex);
//   for (…) {
//     …a piece of work that leaves everything in order…
//     if (mutex.contended()) mutex.Yield();   // what the mutex guards may be another now
//   }
//
// std::mutex alone does not do: unlocked and locked again at once, it goes to its old holder nearly always. Otherwise
// it is one, barging included, so that short sections do not pay for a hand-over (a wake-up each).
//
// Threads: any. Cost: three uncontended atomic operations above std::mutex.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace pyrometer {

class YieldingMutex {
 public:
  YieldingMutex() = default;
  YieldingMutex(const YieldingMutex&) = delete;
  YieldingMutex& operator=(const YieldingMutex&) = delete;

  void lock() {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    mutex_.lock();
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    taken_.fetch_add(1, std::memory_order_release);
    taken_.notify_all();
  }
  void unlock() { mutex_.unlock(); }

  // Whether somebody waits for it now.
  bool contended() const { return waiting_.load(std::memory_order_relaxed) != 0; }

  // Precondition: held, and held again when it returns. At least one of those that wait has had it meanwhile.
  void Yield() {
    if (!contended()) return;
    const uint32_t seen = taken_.load(std::memory_order_acquire);
    unlock();
    taken_.wait(seen, std::memory_order_acquire);
    lock();
  }

 private:
  std::mutex mutex_;
  std::atomic<uint32_t> waiting_{0};  // in lock(), without it
  std::atomic<uint32_t> taken_{0};    // how often it was
};

}  // namespace pyrometer

// Holds this process to its memory budget where counting what is in use does not: a heap keeps pages that have
// something small left in them, and after an hour of full load (scripts/store-soak) twice as much was resident as was
// in use.
//
//   MemoryWatch watch({.budget_bytes = memory, .let_go = [&] { store->LetGoOfCaches(); }});
//
// Above three quarters of the budget free pages go back to the kernel (malloc_trim), then again each time a sixteenth
// of the budget has been added. Where that leaves more than fifteen sixteenths in use, `let_go` is called too.
//
// Threads: one of its own ("pyro-memory"). Cost: a read of /proc per `interval_ns`; a trim walks the free pieces of the
// heaps and holds each one's lock meanwhile. How long was not measured.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "userspace/base/clock.h"

namespace pyrometer::server {

class MemoryWatch {
 public:
  struct Options {
    uint64_t budget_bytes = 0;  // 0: nothing is watched
    // Gives up what can be read again. May be empty.
    std::function<void()> let_go;
    uint64_t interval_ns = 100 * kNsPerMs;
    // Tests set them.
    std::function<uint64_t()> resident;
    std::function<void()> trim;
  };
  explicit MemoryWatch(Options options);
  ~MemoryWatch();

  // One look, as the thread takes them.
  void Look();
  uint64_t trims() const { return trims_.load(); }
  uint64_t let_go() const { return let_go_.load(); }

 private:
  uint64_t TrimNow();

  const Options options_;
  uint64_t next_trim_bytes_;
  std::atomic<uint64_t> trims_{0}, let_go_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace pyrometer::server

#include "userspace/server/memory_watch.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/base/process_usage.h"
#include "userspace/base/thread.h"

namespace pyrometer::server {
namespace {

MemoryWatch::Options WithDefaults(MemoryWatch::Options options) {
  if (!options.resident) options.resident = ResidentBytes;
  if (!options.trim) options.trim = [] { ::malloc_trim(0); };
  return options;
}

}  // namespace

MemoryWatch::MemoryWatch(Options options)
    : options_(WithDefaults(std::move(options))), next_trim_bytes_(options_.budget_bytes / 4 * 3) {
  if (options_.budget_bytes == 0) return;
  thread_ = std::thread([this] {
    NameThisThread("pyro-memory");
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, std::chrono::nanoseconds(options_.interval_ns), [&] { return stopping_; })) {
      lock.unlock();
      Look();
      lock.lock();
    }
  });
}

MemoryWatch::~MemoryWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

uint64_t MemoryWatch::TrimNow() {
  options_.trim();
  ++trims_;
  return options_.resident();
}

void MemoryWatch::Look() {
  const uint64_t budget = options_.budget_bytes, step = budget / 16;
  if (options_.resident() < next_trim_bytes_) return;
  uint64_t resident = TrimNow();
  if (resident > budget - step && options_.let_go) {
    options_.let_go();
    ++let_go_;
    resident = TrimNow();
  }
  next_trim_bytes_ = std::max(budget / 4 * 3, resident + step);
}

}  // namespace pyrometer::server

// When a process that grows gives memory back, and what it gives up where that is not enough.
#include "userspace/server/memory_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "userspace/base/process_usage.h"

namespace pyrometer::server {
namespace {

constexpr uint64_t kBudget = 1600;

// A process of `used` bytes, of which only those of `cache` can be given up, and `free` ones that a trim gives back.
struct Process {
  uint64_t used = 0, cache = 0, free = 0;
  MemoryWatch watch{{.budget_bytes = kBudget,
                     .let_go = [this] { free += std::exchange(cache, 0); },
                     .interval_ns = 3600 * kNsPerSecond,
                     .resident = [this] { return used + cache + free; },
                     .trim = [this] { free = 0; }}};
};

TEST(MemoryWatch, LeavesASmallProcessAlone) {
  Process process{.used = 700, .free = 499};
  process.watch.Look();
  EXPECT_EQ(process.watch.trims(), 0u);
}

TEST(MemoryWatch, TrimsAgainOnlyWhenASixteenthHasBeenAdded) {
  Process process{.used = 1190, .free = 10};
  process.watch.Look();
  EXPECT_EQ(process.watch.trims(), 1u);
  process.used = 1289;
  process.watch.Look();
  EXPECT_EQ(process.watch.trims(), 1u);
  process.used = 1290;
  process.watch.Look();
  EXPECT_EQ(process.watch.trims(), 2u);
  EXPECT_EQ(process.watch.let_go(), 0u);
  // It shrank: the next trim is at three quarters again.
  process.used = 100;
  process.free = 1300;
  process.watch.Look();
  process.free = 1100;
  process.watch.Look();
  EXPECT_EQ(process.watch.trims(), 4u);
}

TEST(MemoryWatch, EmptiesCachesOnlyWhereFreePagesAreNotEnough) {
  Process process{.used = 1000, .cache = 501, .free = 90};
  process.watch.Look();
  EXPECT_EQ(process.watch.let_go(), 1u);
  EXPECT_EQ(process.watch.trims(), 2u);
  EXPECT_EQ(process.cache + process.free, 0u);
}

TEST(MemoryWatch, PagesThatAHeapKeptAreGivenBack) {
  constexpr size_t kPiece = 4000, kPieces = 50'000;
  std::vector<std::unique_ptr<char[]>> pieces;
  for (size_t i = 0; i < kPieces; ++i) {
    pieces.push_back(std::make_unique<char[]>(kPiece));
    std::memset(pieces.back().get(), 1, kPiece);
  }
  // Every eighth stays: no page of the heap's end is free.
  for (size_t i = 0; i < kPieces; ++i) {
    if (i % 8 != 7) pieces[i].reset();
  }
  const uint64_t before = ResidentBytes();
  MemoryWatch watch({.budget_bytes = before, .interval_ns = 3600 * kNsPerSecond});
  watch.Look();
  EXPECT_EQ(watch.trims(), 1u);
  EXPECT_LT(ResidentBytes(), before - kPiece * kPieces / 2);
}

TEST(MemoryWatch, LooksByItself) {
  std::atomic<uint64_t> trims{0};
  const MemoryWatch watch(
      {.budget_bytes = kBudget, .interval_ns = kNsPerMs, .resident = [] { return kBudget; }, .trim = [&] { ++trims; }});
  while (trims == 0) std::this_thread::yield();
}

}  // namespace
}  // namespace pyrometer::server

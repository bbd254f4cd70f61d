// How a store divides its memory (StoreOptions::memory_budget_bytes) among those who hold some of it for long.
#pragma once

#include <cstdint>

namespace pyrometer::store {

// In thirty-seconds of the budget. What asks for more than its share waits, lets go of what it can have again, or
// fails.
struct MemoryShares {
  static constexpr uint64_t kWhole = 32;

  static constexpr uint64_t kRocks = 11;        // block cache and write buffers together
  static constexpr uint64_t kTries = 4;         // whole tries loaded on demand; least recently used leave
  static constexpr uint64_t kFunctions = 6;     // views of tries as functions; they leave by chance
  static constexpr uint64_t kDefinitions = 4;   // what the writer knows of names, functions and frames
  static constexpr uint64_t kNameReader = 1;    // the same for readers
  static constexpr uint64_t kSeriesReader = 1;  // labels of series
  static constexpr uint64_t kFlight = 3;        // batches between their arrival and their acknowledgement
  static constexpr uint64_t kHousekeeping = 2;  // the rows of one piece of an hour while they are sorted

  static constexpr uint64_t Of(uint64_t budget_bytes, uint64_t share) { return budget_bytes / kWhole * share; }
};

static_assert(MemoryShares::kRocks + MemoryShares::kTries + MemoryShares::kFunctions + MemoryShares::kDefinitions +
                  MemoryShares::kNameReader + MemoryShares::kSeriesReader + MemoryShares::kFlight +
                  MemoryShares::kHousekeeping ==
              MemoryShares::kWhole);

}  // namespace pyrometer::store

// When within each second samples were taken: heat maps that show what a window's sum hides, as a job that runs for 20
// ms every 40 ms.
//
//   ASSIGN_OR_RETURN(SubSecondMap map, SubSecond(engine, selector, range, kNsPerSecond, 20 * kNsPerMs));
//
// Each column is a step of time (aligned to multiples of step_ns since the Unix epoch), each cell in it `cell_ns` of
// it. Samples are timed to the millisecond by the agent's clock; a store keeps that for a day
// (TenantLimits::offsets_retention_ns). Windows whose START lies in the range count, with all of their samples.
//
// Threads: any. Cost: about 10 ns per sample.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "userspace/query/engine.h"

namespace pyrometer::query {

// Cells of one answer; 15 minutes at 20 ms are 45,000.
inline constexpr size_t kMaxCells = 1u << 20;

struct SubSecondMap {
  struct Column {
    int64_t time_ns = 0;          // start of the step
    std::vector<uint64_t> cells;  // samples; step_ns / cell_ns of them
  };
  std::vector<Column> columns;  // ascending in time; those without samples are left out
  uint64_t timed = 0;           // samples in them
  uint64_t samples = 0;         // of the selection; those above `timed` came without a time, or it is not kept any more
};

// INVALID_ARGUMENT: cells below a millisecond, steps that are no multiple of cells, more than kMaxCells; types that
// have no samples simply have none.
StatusOr<SubSecondMap> SubSecond(const Engine& engine, const Selector& selector, TimeRange range, uint64_t step_ns,
                                 uint64_t cell_ns);

}  // namespace pyrometer::query

// The generator's data as a profiler without a store of its own would keep it: one row per series, window and stack in
// ClickHouse. store_size prints what that takes beside what our store takes.
//
//   ASSIGN_OR_RETURN(ClickHouseRows found, MeasureClickHouseRows(fleet, windows));
//
// Two layouts, both ordered by (series, time, stack):
//   hash   stack = a 64-bit hash of the stack's names; a table hash -> array of "function file:line"
//   dense  stack = the service's stacks numbered as they come; a table number -> array of frame numbers, and one of
//   frames
// and a table of the series' labels. Each is merged into one part, with LZ4 and then with ZSTD.
//
// The server is of this machine's clickhouse-server, on loopback, in a folder of its own in /tmp that goes away. Cost
// of the whole hour: minutes, 3 GiB of disk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/fleet.h"
#include "userspace/base/status.h"

namespace pyrometer::bench {

struct ClickHouseRows {
  struct Layout {
    std::string name;                 // "dense, ZSTD"
    uint64_t rows_bytes = 0;          // of the samples
    uint64_t stack_column_bytes = 0;  // of those, without marks
    uint64_t dictionary_bytes = 0;    // stacks, frames, series
  };
  std::string version;
  std::vector<Layout> layouts;
};

// Errors: FAILED_PRECONDITION without clickhouse-server; DATA_LOSS when the server does not have exactly what was sent.
StatusOr<ClickHouseRows> MeasureClickHouseRows(const testing::Fleet& fleet, int windows);

}  // namespace pyrometer::bench

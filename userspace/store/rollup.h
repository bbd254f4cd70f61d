// Exact sums of one group of series over one hour or one day: a row per stack.
//
//   Rollup sum;
//   sum.Add(rows, …);
//   std::string bytes = EncodeRollup(sum);
//
// Decoders answer DATA_LOSS for bytes that no encoder writes. Threads: none shared. Cost: 6 ns per row.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/chunk.h"

namespace pyrometer::store {

enum class RollupSpan : uint8_t {
  kHour = 0,
  kDay = 1,
};

struct RollupHeader {
  uint64_t points = 0;           // (series, window) pairs
  uint64_t period_ns = 0;        // of all of them; 0 when they differ
  uint64_t first_offset_ns = 0;  // start of the earliest window, from the span's start
  uint64_t end_offset_ns = 0;    // end of the latest window
  uint64_t count = 0;            // sums over all rows
  uint64_t value = 0;
  bool values_derived = false;  // every value is count × period
  bool operator==(const RollupHeader&) const = default;
};
struct Rollup {
  RollupHeader header;         // values_derived is set by encoding
  std::vector<StackSum> rows;  // sorted by leaf, each leaf once, none empty
};
std::string EncodeRollup(const Rollup& rollup);
// Header alone: what a time line needs.
Status DecodeRollupHeader(std::string_view bytes, RollupHeader* header);
// Decodes into `*rollup` (its memory is reused).
Status DecodeRollup(std::string_view bytes, Rollup* rollup);

// Adds `more` to `*sum`; both sorted. Periods that differ become 0.
void MergeRollup(const Rollup& more, Rollup* sum);
void MergeRollupHeader(const RollupHeader& more, RollupHeader* sum);

}  // namespace pyrometer::store

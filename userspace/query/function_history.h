// What one function took over a long time, by the hour, from the store's index of functions: no stacks are read but
// those of the last hour or two, which the index does not have yet.
//
//   ASSIGN_OR_RETURN(Selector s, ParseSelector("cpu{service=\"shop\"}"));
//   ASSIGN_OR_RETURN(std::vector<FunctionPoint> points, FunctionHistory(engine, s, "json_parse", range));
//
// A function is its name here, in whatever binary; one that calls itself counts a sample once. Hours whose START lies
// in the range count, as a whole. The index knows whole services: a selector that takes a part of one (a node, a
// process name) is INVALID_ARGUMENT. Points that arrive late count once housekeeping has taken them up.
//
// Threads: any. Cost: 90 days of one service: 90 records; tests/bench/store_bench measures it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "userspace/query/engine.h"

namespace pyrometer::query {

struct FunctionPoint {
  int64_t time_ns = 0;  // start of the hour
  uint64_t self = 0;    // in the type's unit
  uint64_t total = 0;
  bool operator==(const FunctionPoint&) const = default;
};
// Hours without it are left out. For profile types.
StatusOr<std::vector<FunctionPoint>> FunctionHistory(const Engine& engine, const Selector& selector,
                                                     std::string_view name, TimeRange range);

}  // namespace pyrometer::query

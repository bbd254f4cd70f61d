// Pieces of SQL, and sums that come in pieces. Inside this room only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/store/chunk.h"
#include "userspace/store/clickhouse/point_rows.h"
#include "userspace/store/reader.h"
#include "userspace/store/stack_accumulator.h"

namespace pyrometer::store::clickhouse {

inline Status Malformed() { return InternalError("ClickHouse: malformed answer"); }

// Where a sum may need more than 64 bits, its upper and lower halves are summed up apart: they cannot overflow as long
// as there are fewer rows than this.
inline constexpr uint64_t kHalf = uint64_t{1} << 32;
inline uint64_t FromHalves(uint64_t high, uint64_t low) { return SaturatingAdd(SaturatingMultiply(high, kHalf), low); }

template <typename T>
std::string List(const std::vector<T>& numbers) {
  std::string out;
  for (const T number : numbers) {
    if (!out.empty()) out.push_back(',');
    out += std::to_string(number);
  }
  return out;
}
template <typename T>
std::string In(std::string_view column, const std::vector<T>& numbers) {
  return numbers.empty() ? "0" : StrFormat("%s IN (%s)", column, List(numbers));
}

// What of a range is not before an hour, nor after what ClickHouse's days can name (the year 2149).
inline TimeRange From(TimeRange range, uint32_t hour) {
  range.from_ns = std::max(range.from_ns, HourStart(hour));
  range.to_ns = std::min(range.to_ns, int64_t{UINT16_MAX} * kDayLengthNs);
  return range;
}

// The condition on rows whose time lies in a range; "0" for none.
inline std::string During(TimeRange range) {
  const int64_t from = std::max<int64_t>(range.from_ns, 0);
  if (range.to_ns <= from) return "0";
  // Days have 16 bits there.
  constexpr int64_t kLastDay = UINT16_MAX;
  return StrFormat("day >= toDate(%d) AND day <= toDate(%d) AND time_ns >= %d AND time_ns < %d",
                   std::min(from / kDayLengthNs, kLastDay), std::min((range.to_ns - 1) / kDayLengthNs, kLastDay), from,
                   range.to_ns);
}

// What the rows of one sum say, table after table.
class RowSum {
 public:
  explicit RowSum(size_t leaves) : accumulator_(leaves) {}

  void Head(uint64_t points, int64_t first_ns, int64_t end_ns, uint64_t period_min, uint64_t period_max) {
    if (points == 0) return;
    const uint64_t period = period_min == period_max ? period_min : 0;
    if (sums_.points == 0) {
      sums_.period_ns = period;
      sums_.first_ns = first_ns;
    }
    if (period != sums_.period_ns) sums_.period_ns = 0;
    sums_.first_ns = std::min(sums_.first_ns, first_ns);
    sums_.end_ns = std::max(sums_.end_ns, end_ns);
    sums_.points += points;
  }
  // In any order.
  Status Add(std::vector<StackSum> rows) {
    std::sort(rows.begin(), rows.end(), [](const StackSum& a, const StackSum& b) { return a.leaf < b.leaf; });
    return accumulator_.Add(rows);
  }
  StackSums Finish() {
    sums_.sums = accumulator_.Finish();
    return std::move(sums_);
  }

 private:
  StackAccumulator accumulator_;
  StackSums sums_;
};

}  // namespace pyrometer::store::clickhouse

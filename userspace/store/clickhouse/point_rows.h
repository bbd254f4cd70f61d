// Rows of the tables of points and of rollups. Inside this room only.
//
// Stacks of a row are sorted, and each is written as the difference from the one before it: arrayCumSum gives them
// back. Counts that do not fit 32 bits are in wide_counts, all of the row. Values are left out when they are count ×
// period. Parts of the time of all exemplars of a row lie one after the other, exemplar_parts says how many each has;
// an exemplar without a waker has zeros for it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/profile/histogram.h"
#include "userspace/store/chunk.h"
#include "userspace/store/clickhouse/row_binary.h"
#include "userspace/store/names.h"
#include "userspace/store/series.h"
#include "userspace/store/stager.h"

namespace pyrometer::store::clickhouse {

// In the order of PutPointRow.
inline constexpr std::string_view kPointColumnNames =
    "day, tenant, trie, grp, series, kind, time_ns, duration_ns, period_ns, count, value, leaves, counts, wide_counts, "
    "vals, offset_leaves, offset_counts, offsets_ms, buckets, bucket_counts, max, errnos, error_counts, "
    "exemplar_times, exemplar_values, exemplar_leaves, exemplar_comms, exemplar_tids, exemplar_calls, "
    "exemplar_weights, exemplar_typical, exemplar_parts, part_causes, part_ns, waker_waits, waker_leaves, waker_comms, "
    "waker_causes, waker_tids, points, first_ns, end_ns, agent, sequence";

inline constexpr int64_t kDayLengthNs = kHoursPerDay * kHourNs;
// Days since the Unix epoch.
inline uint32_t DayOf(int64_t time_ns) { return static_cast<uint32_t>(time_ns / kDayLengthNs); }

// time + duration, at most INT64_MAX.
int64_t EndOf(int64_t time_ns, uint64_t duration_ns);

struct PointRow {
  TenantId tenant = 0;
  TrieId trie = 0;
  GroupId group = 0;
  SeriesId series = 0;  // 0: sums of the group's hour
  PointKind kind = PointKind::kProfile;
  TotalRecord total;
  uint64_t period_ns = 0;
  const std::vector<StackSum>* stacks = nullptr;            // may be null
  const std::vector<OffsetsChunk::Row>* offsets = nullptr;  // may be null
  const HistogramChunk* histogram = nullptr;                // may be null
  uint64_t points = 1;
  int64_t first_ns = 0;
  int64_t end_ns = 0;
  NameId agent = 0;
  uint64_t sequence = 0;
};
void PutPointRow(const PointRow& row, std::string* out);

// Makes rows of points while they are staged.
class RowEncoder : public PointEncoder {
 public:
  bool NamesAgents() const override { return true; }
  void Encode(StagedPoint point, StagedBatch* staged) override;
};

}  // namespace pyrometer::store::clickhouse

#include "userspace/store/clickhouse/point_rows.h"

#include <algorithm>

namespace pyrometer::store::clickhouse {

int64_t EndOf(int64_t time_ns, uint64_t duration_ns) {
  int64_t end = 0;
  const bool over =
      __builtin_add_overflow(time_ns, static_cast<int64_t>(std::min<uint64_t>(duration_ns, INT64_MAX)), &end);
  return over ? INT64_MAX : end;
}

void PutPointRow(const PointRow& row, std::string* bytes) {
  static const std::vector<StackSum> no_stacks;
  static const std::vector<OffsetsChunk::Row> no_offsets;
  static const HistogramChunk no_histogram;
  const std::vector<StackSum>& stacks = row.stacks == nullptr ? no_stacks : *row.stacks;
  const std::vector<OffsetsChunk::Row>& offset_rows = row.offsets == nullptr ? no_offsets : *row.offsets;
  const HistogramChunk& histogram = row.histogram == nullptr ? no_histogram : *row.histogram;

  RowWriter out(bytes);
  out.U16(static_cast<uint16_t>(DayOf(row.total.time_ns)));
  out.U32(row.tenant);
  out.U32(row.trie);
  out.U32(row.group);
  out.U32(row.series);
  out.U8(static_cast<uint8_t>(row.kind));
  out.U64(static_cast<uint64_t>(row.total.time_ns));
  out.U64(row.total.duration_ns);
  out.U64(row.period_ns);
  out.U64(row.total.count);
  out.U64(row.total.value);

  std::vector<uint32_t> leaves, counts;
  std::vector<uint64_t> wide_counts, values;
  bool wide = false, derived = true;
  LeafId before = 0;
  for (const StackSum& stack : stacks) {
    leaves.push_back(stack.leaf - before);
    before = stack.leaf;
    wide = wide || stack.count > UINT32_MAX;
    uint64_t product = 0;
    derived = derived && !__builtin_mul_overflow(stack.count, row.period_ns, &product) && product == stack.value;
  }
  for (const StackSum& stack : stacks) {
    if (wide) {
      wide_counts.push_back(stack.count);
    } else {
      counts.push_back(static_cast<uint32_t>(stack.count));
    }
    if (!derived) values.push_back(stack.value);
  }
  out.Array(leaves);
  out.Array(counts);
  out.Array(wide_counts);
  out.Array(values);

  std::vector<uint32_t> offset_leaves, offset_counts;
  std::vector<uint16_t> offsets;
  before = 0;
  for (const OffsetsChunk::Row& one : offset_rows) {
    offset_leaves.push_back(one.leaf - before);
    before = one.leaf;
    offset_counts.push_back(static_cast<uint32_t>(one.offsets_ms.size()));
    offsets.insert(offsets.end(), one.offsets_ms.begin(), one.offsets_ms.end());
  }
  out.Array(offset_leaves);
  out.Array(offset_counts);
  out.Array(offsets);

  std::vector<uint16_t> buckets;
  std::vector<uint64_t> bucket_counts;
  for (const profile::Histogram::Bucket& bucket : histogram.histogram.buckets()) {
    buckets.push_back(static_cast<uint16_t>(bucket.index));
    bucket_counts.push_back(bucket.count);
  }
  out.Array(buckets);
  out.Array(bucket_counts);
  out.U64(histogram.histogram.max());
  std::vector<int32_t> errnos;
  std::vector<uint64_t> error_counts;
  for (const auto& [error_number, count] : histogram.errors) {
    errnos.push_back(error_number);
    error_counts.push_back(count);
  }
  out.Array(errnos);
  out.Array(error_counts);
  std::vector<int64_t> times;
  std::vector<uint64_t> exemplar_values;
  std::vector<uint32_t> exemplar_leaves, comms, tids;
  std::vector<std::string_view> calls;
  std::vector<uint64_t> weights, part_ns, waker_waits;
  std::vector<uint8_t> typical;
  std::vector<uint32_t> parts, part_causes, waker_leaves, waker_comms, waker_causes, waker_tids;
  for (const StoredHistogramExemplar& exemplar : histogram.exemplars) {
    times.push_back(exemplar.time_ns);
    exemplar_values.push_back(exemplar.value);
    exemplar_leaves.push_back(exemplar.leaf);
    comms.push_back(exemplar.comm);
    tids.push_back(exemplar.tid);
    calls.push_back(exemplar.call);
    weights.push_back(exemplar.weight);
    typical.push_back(exemplar.typical ? 1 : 0);
    parts.push_back(static_cast<uint32_t>(exemplar.split.size()));
    for (const auto& [cause, ns] : exemplar.split) {
      part_causes.push_back(cause);
      part_ns.push_back(ns);
    }
    waker_waits.push_back(exemplar.waker.wait_ns);
    waker_leaves.push_back(exemplar.waker.leaf);
    waker_comms.push_back(exemplar.waker.comm);
    waker_causes.push_back(exemplar.waker.cause);
    waker_tids.push_back(exemplar.waker.tid);
  }
  out.Array(times);
  out.Array(exemplar_values);
  out.Array(exemplar_leaves);
  out.Array(comms);
  out.Array(tids);
  out.Strings(calls);
  out.Array(weights);
  out.Array(typical);
  out.Array(parts);
  out.Array(part_causes);
  out.Array(part_ns);
  out.Array(waker_waits);
  out.Array(waker_leaves);
  out.Array(waker_comms);
  out.Array(waker_causes);
  out.Array(waker_tids);
  out.U64(row.points);
  out.U64(static_cast<uint64_t>(row.first_ns));
  out.U64(static_cast<uint64_t>(row.end_ns));
  out.U32(row.agent);
  out.U64(row.sequence);
}

void RowEncoder::Encode(StagedPoint point, StagedBatch* staged) {
  std::string& rows = staged->rows[{point.place.trie, DayOf(point.total.time_ns)}];
  const size_t before = rows.size();
  PutPointRow({.tenant = staged->tenant,
               .trie = point.place.trie,
               .group = point.place.group,
               .series = point.place.id,
               .kind = point.kind,
               .total = point.total,
               .period_ns = point.window.period_ns,
               .stacks = &point.window.rows,
               .offsets = &point.offsets.rows,
               .histogram = &point.histogram,
               .first_ns = point.total.time_ns,
               .end_ns = EndOf(point.total.time_ns, point.total.duration_ns),
               .agent = staged->agent,
               .sequence = staged->sequence},
              &rows);
  const uint64_t bytes = rows.size() - before;
  staged->bytes += bytes;
  staged->hours[{point.hour, point.place.trie}].bytes += bytes;
}

}  // namespace pyrometer::store::clickhouse

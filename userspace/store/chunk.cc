#include "userspace/store/chunk.h"

#include <algorithm>

#include "userspace/base/check.h"

namespace pyrometer::store {
namespace {

constexpr uint8_t kExplicitValues = 1;  // bit of the first byte of a profile chunk

Status Damaged(std::string_view what) { return DataLossError(std::string("damaged ") + std::string(what)); }

}  // namespace

std::string EncodePointKey(const PointKey& key) {
  std::string out;
  out.reserve(20);
  PutBigEndian32(key.series, &out);
  PutBigEndian64(static_cast<uint64_t>(key.time_ns), &out);
  PutBigEndian64(key.ordinal, &out);
  return out;
}

StatusOr<PointKey> DecodePointKey(std::string_view bytes) {
  Decoder in(bytes);
  PointKey key;
  key.series = in.BigEndian32();
  key.time_ns = static_cast<int64_t>(in.BigEndian64());
  key.ordinal = in.BigEndian64();
  if (!in.ok() || !in.done() || key.time_ns < 0) return Damaged("point key");
  return key;
}

std::string PointKeyPrefix(SeriesId series, int64_t time_ns) {
  std::string out;
  PutBigEndian32(series, &out);
  PutBigEndian64(static_cast<uint64_t>(std::max<int64_t>(time_ns, 0)), &out);
  return out;
}

std::string EncodeProfileChunk(const ProfileChunk& chunk) {
  const bool derived = std::all_of(chunk.rows.begin(), chunk.rows.end(), [&](const StackSum& row) {
    return row.value == SaturatingMultiply(row.count, chunk.period_ns);
  });
  std::string out;
  out.reserve(16 + chunk.rows.size() * 3);
  out.push_back(static_cast<char>(derived ? 0 : kExplicitValues));
  PutVarint(chunk.duration_ns, &out);
  PutVarint(chunk.period_ns, &out);
  PutVarint(chunk.rows.size(), &out);
  // Columns, not rows: equal kinds of numbers side by side compress better.
  NodeId previous = 0;
  for (const StackSum& row : chunk.rows) {
    DCHECK(row.node >= previous);
    PutVarint(row.node - previous, &out);
    previous = row.node;
  }
  for (const StackSum& row : chunk.rows) PutVarint(row.count, &out);
  if (!derived) {
    for (const StackSum& row : chunk.rows) PutVarint(row.value, &out);
  }
  return out;
}

Status DecodeProfileChunk(std::string_view bytes, ProfileChunkHeader* header, std::vector<StackSum>* rows) {
  Decoder in(bytes);
  const uint8_t flags = in.Byte();
  if ((flags & ~kExplicitValues) != 0) return Damaged("profile chunk: unknown flags");
  header->values_derived = (flags & kExplicitValues) == 0;
  header->duration_ns = in.Varint();
  header->period_ns = in.Varint();
  header->rows = in.Count(header->values_derived ? 2 : 3);
  rows->resize(header->rows);
  uint64_t node = 0;
  for (size_t i = 0; i < header->rows; ++i) {
    const uint64_t delta = in.Varint();
    if (i > 0 && delta == 0) in.Fail();  // each node once
    if (delta > UINT32_MAX) in.Fail();
    node += delta;
    if (node > UINT32_MAX) in.Fail();
    if (!in.ok()) return Damaged("profile chunk: stacks");
    (*rows)[i].node = static_cast<NodeId>(node);
  }
  for (StackSum& row : *rows) row.count = in.Varint();
  if (header->values_derived) {
    for (StackSum& row : *rows) row.value = SaturatingMultiply(row.count, header->period_ns);
  } else {
    for (StackSum& row : *rows) row.value = in.Varint();
  }
  if (!in.ok() || !in.done()) return Damaged("profile chunk");
  return OkStatus();
}

std::string EncodeHistogramChunk(const HistogramChunk& chunk, int64_t time_ns) {
  std::string out;
  out.push_back(0);  // flags: none yet
  PutVarint(chunk.duration_ns, &out);
  const auto& buckets = chunk.histogram.buckets();
  PutVarint(buckets.size(), &out);
  uint32_t previous = 0;
  for (const auto& bucket : buckets) {
    PutVarint(bucket.index - previous, &out);
    previous = bucket.index;
  }
  for (const auto& bucket : buckets) PutVarint(bucket.count, &out);
  PutVarint(chunk.histogram.sum(), &out);
  PutVarint(chunk.histogram.max(), &out);
  PutVarint(chunk.errors.size(), &out);
  for (const auto& [error_number, count] : chunk.errors) {
    PutZigzag(error_number, &out);
    PutVarint(count, &out);
  }
  PutVarint(chunk.exemplars.size(), &out);
  for (const StoredHistogramExemplar& exemplar : chunk.exemplars) {
    PutZigzag(static_cast<int64_t>(static_cast<uint64_t>(exemplar.time_ns) - static_cast<uint64_t>(time_ns)), &out);
    PutVarint(exemplar.value, &out);
    PutVarint(exemplar.node, &out);
    PutVarint(exemplar.comm, &out);
    PutVarint(exemplar.tid, &out);
  }
  return out;
}

StatusOr<HistogramChunk> DecodeHistogramChunk(std::string_view bytes, int64_t time_ns) {
  Decoder in(bytes);
  HistogramChunk chunk;
  if (in.Byte() != 0) return Damaged("histogram chunk: unknown flags");
  chunk.duration_ns = in.Varint();
  const size_t buckets = in.Count(2);
  if (buckets > profile::kHistogramBuckets) return Damaged("histogram chunk: buckets");
  std::vector<uint32_t> indices(buckets);
  uint64_t index = 0;
  for (size_t i = 0; i < buckets; ++i) {
    const uint32_t delta = in.Varint32();
    index += delta;
    if ((i > 0 && delta == 0) || index >= profile::kHistogramBuckets) return Damaged("histogram chunk: buckets");
    indices[i] = static_cast<uint32_t>(index);
  }
  for (const uint32_t i : indices) {
    const uint64_t count = in.Varint();
    if (count == 0) return Damaged("histogram chunk: empty bucket");
    chunk.histogram.AddBucket(i, count);
  }
  chunk.histogram.AddSum(in.Varint());
  chunk.histogram.ObserveMax(in.Varint());
  const size_t errors = in.Count(2);
  for (size_t i = 0; i < errors && in.ok(); ++i) {
    const int64_t error_number = in.Zigzag();
    if (error_number < INT32_MIN || error_number > INT32_MAX) return Damaged("histogram chunk: errno");
    if (!chunk.errors.emplace(static_cast<int32_t>(error_number), in.Varint()).second) {
      return Damaged("histogram chunk: errno twice");
    }
  }
  const size_t exemplars = in.Count(5);
  chunk.exemplars.resize(exemplars);
  for (StoredHistogramExemplar& exemplar : chunk.exemplars) {
    exemplar.time_ns = static_cast<int64_t>(static_cast<uint64_t>(in.Zigzag()) + static_cast<uint64_t>(time_ns));
    exemplar.value = in.Varint();
    exemplar.node = in.Varint32();
    exemplar.comm = in.Varint32();
    exemplar.tid = in.Varint32();
  }
  if (!in.ok() || !in.done()) return Damaged("histogram chunk");
  return chunk;
}

std::string EncodeTotal(const TotalRecord& total) {
  std::string out;
  out.push_back(static_cast<char>(total.kind));
  PutVarint(total.duration_ns, &out);
  PutVarint(total.count, &out);
  PutVarint(total.value, &out);
  return out;
}

StatusOr<TotalRecord> DecodeTotal(std::string_view bytes) {
  Decoder in(bytes);
  TotalRecord total;
  const uint8_t kind = in.Byte();
  if (kind > static_cast<uint8_t>(PointKind::kCounter)) return Damaged("total: unknown kind");
  total.kind = static_cast<PointKind>(kind);
  total.duration_ns = in.Varint();
  total.count = in.Varint();
  total.value = in.Varint();
  if (!in.ok() || !in.done()) return Damaged("total");
  return total;
}

}  // namespace pyrometer::store

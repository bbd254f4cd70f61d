// Records of one (series, window): stack samples, histograms, totals; and the key they share.
// Layout byte by byte in docs/formats/store.md; tests/unit/store/chunk_test.cc holds exact bytes.
//
//   std::string value = EncodeProfileChunk({.duration_ns = …, .rows = {{.node = 7, .count = 3, .value = …}}});
//   RETURN_IF_ERROR(DecodeProfileChunk(value, [&](NodeId node, uint64_t count, uint64_t value) {…}));
//
// Every decoder answers DATA_LOSS for bytes that no encoder writes. Threads: none shared.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/histogram.h"
#include "userspace/store/codec.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

// Key of points in `profiles`, `histograms` and `totals`: series, window start, a number that no
// other point has (two batches may hold the same series and window).
struct PointKey {
  SeriesId series = 0;
  int64_t time_ns = 0;  // ≥ 0
  uint64_t ordinal = 0;
  bool operator==(const PointKey&) const = default;
};
std::string EncodePointKey(const PointKey& key);  // 20 bytes, big endian
StatusOr<PointKey> DecodePointKey(std::string_view bytes);
// Where the points of `series` that start at `time_ns` or later begin; negative times count as 0.
std::string PointKeyPrefix(SeriesId series, int64_t time_ns);

struct ProfileChunk {
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  std::vector<StackSum> rows;  // sorted by node, each node once
};
// Rows whose values are all count × period need no value column.
std::string EncodeProfileChunk(const ProfileChunk& chunk);

struct ProfileChunkHeader {
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  bool values_derived = false;  // value = count × period
  size_t rows = 0;
};
// Decodes into `*rows` (reused, replaced).
Status DecodeProfileChunk(std::string_view bytes, ProfileChunkHeader* header, std::vector<StackSum>* rows);

struct StoredHistogramExemplar {
  int64_t time_ns = 0;
  uint64_t value = 0;
  NodeId node = 0;
  uint32_t comm = 0;  // string id
  uint32_t tid = 0;
};
struct HistogramChunk {
  uint64_t duration_ns = 0;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;
  std::vector<StoredHistogramExemplar> exemplars;
};
// `time_ns`: of the window; exemplar times are stored relative to it.
std::string EncodeHistogramChunk(const HistogramChunk& chunk, int64_t time_ns);
StatusOr<HistogramChunk> DecodeHistogramChunk(std::string_view bytes, int64_t time_ns);

// What a total belongs to. Stored: append only.
enum class PointKind : uint8_t {
  kProfile = 0,
  kHistogram = 1,
  kCounter = 2,
};
struct TotalRecord {
  PointKind kind = PointKind::kProfile;
  uint64_t duration_ns = 0;
  uint64_t count = 0;
  uint64_t value = 0;
  bool operator==(const TotalRecord&) const = default;
};
std::string EncodeTotal(const TotalRecord& total);
StatusOr<TotalRecord> DecodeTotal(std::string_view bytes);

// a + b, stopping at the largest number: hostile sums must not wrap around to small ones.
inline uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}
inline uint64_t SaturatingMultiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

}  // namespace pyrometer::store

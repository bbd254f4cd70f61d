// One (series, window) of stack samples as it arrives, and the histogram and total records. What housekeeping makes of
// a closed hour is in cells.h and rollup.h. Layout byte by byte in docs/formats/store.md; exact bytes in
// tests/unit/store/chunk_test.cc.
//
//   std::string value = EncodeWindowChunk({.offset_ns = …, .rows = {{.leaf = 7, .count = 3, .value = …}}});
//   RETURN_IF_ERROR(DecodeWindowChunk(value, &header, &rows));
//
// Every decoder answers DATA_LOSS for bytes that no encoder writes. Threads: none shared. Cost: 6 to 8 ns per row,
// either way.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/histogram.h"
#include "userspace/store/bits.h"
#include "userspace/store/codec.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

inline constexpr int64_t kHourNs = 3600ll * 1'000'000'000;
inline constexpr uint32_t kHoursPerDay = 24;

// Hours since the Unix epoch; precondition: time_ns ≥ 0.
inline uint32_t HourOf(int64_t time_ns) { return static_cast<uint32_t>(time_ns / kHourNs); }
inline int64_t HourStart(uint32_t hour) { return int64_t{hour} * kHourNs; }

struct WindowChunk {
  uint64_t offset_ns = 0;  // of the window's start from its hour's, < kHourNs
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  std::vector<StackSum> rows;  // sorted by leaf, each leaf once, every count ≥ 1 unless values are explicit
};
// Rows whose values are all count × period need no value column.
std::string EncodeWindowChunk(const WindowChunk& chunk);

struct WindowHeader {
  uint64_t offset_ns = 0;
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  bool values_derived = false;  // value = count × period
};
// The header alone: what decides whether the window is asked for.
Status DecodeWindowHeader(std::string_view bytes, WindowHeader* header);
// Decodes into `*rows` (reused, replaced).
Status DecodeWindowChunk(std::string_view bytes, WindowHeader* header, std::vector<StackSum>* rows);

// Where within the window the samples of each stack were taken; beside a window chunk, in its own family.
struct OffsetsChunk {
  uint64_t offset_ns = 0;  // as in the window's chunk
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  struct Row {
    LeafId leaf = 0;
    std::vector<uint16_t> offsets_ms;  // sorted, not empty; from the window's start
    bool operator==(const Row&) const = default;
  };
  std::vector<Row> rows;  // sorted by leaf
};
std::string EncodeOffsetsChunk(const OffsetsChunk& chunk);
StatusOr<OffsetsChunk> DecodeOffsetsChunk(std::string_view bytes);

struct StoredHistogramExemplar {
  int64_t time_ns = 0;
  uint64_t value = 0;
  LeafId leaf = 0;
  uint32_t comm = 0;  // string id
  uint32_t tid = 0;
  std::string call;  // hardly two are alike: not in the dictionary of names, which keeps them for ever
  uint64_t weight = 0;
  bool typical = false;
  std::vector<std::pair<uint32_t, uint64_t>> split;  // string id of the cause, nanoseconds
  struct Waker {
    uint64_t wait_ns = 0;  // 0: none
    LeafId leaf = 0;
    uint32_t comm = 0;  // string ids
    uint32_t cause = 0;
    uint32_t tid = 0;
    bool operator==(const Waker&) const = default;
  } waker;
};
struct HistogramChunk {
  int64_t time_ns = 0;  // of the window
  uint64_t duration_ns = 0;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;
  std::vector<StoredHistogramExemplar> exemplars;
};
// One or more windows of one series that start within one hour, in the order given.
std::string EncodeHistograms(const std::vector<HistogramChunk>& chunks, uint32_t hour);
StatusOr<std::vector<HistogramChunk>> DecodeHistograms(std::string_view bytes, uint32_t hour);

// What a total belongs to. Stored: append only.
enum class PointKind : uint8_t {
  kProfile = 0,
  kHistogram = 1,
  kCounter = 2,
};
struct TotalRecord {
  int64_t time_ns = 0;  // of the window
  uint64_t duration_ns = 0;
  uint64_t count = 0;
  uint64_t value = 0;
  bool operator==(const TotalRecord&) const = default;
};
struct TotalsRecord {
  PointKind kind = PointKind::kProfile;
  std::vector<TotalRecord> windows;
};
// One or more windows of one series that start within one hour, in the order given.
std::string EncodeTotals(const TotalsRecord& totals, uint32_t hour);
StatusOr<TotalsRecord> DecodeTotals(std::string_view bytes, uint32_t hour);

// a + b, stopping at the largest number: hostile sums must not wrap around to small ones.
inline uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}
inline uint64_t SaturatingMultiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

// Leaves sorted ascending: the first, then differences less one, each in an adaptive Rice code. Shared by all records
// that list stacks. `count` comes from the record's header.
class LeafColumn {
 public:
  void Put(LeafId leaf, BitWriter* out);
  // Fails the reader when the id leaves 32 bits.
  LeafId Get(BitReader* in);

 private:
  AdaptiveRice gaps_{8};
  uint64_t next_ = 0;  // smallest possible next id
};
// Counts ≥ 1 of which most are 1: runs of ones, then what a larger one has above two.
class CountColumn {
 public:
  void Put(uint64_t count, BitWriter* out);
  void Finish(BitWriter* out);
  uint64_t Get(BitReader* in);
  // Reading: no announced number is left over.
  bool AtEnd() const { return !in_run_ || run_ == 0; }

 private:
  AdaptiveRice runs_{0, 3};
  AdaptiveRice above_{1, 2};
  uint64_t run_ = 0;
  bool in_run_ = false;  // reading: run_ more ones, then a larger one
};

}  // namespace pyrometer::store

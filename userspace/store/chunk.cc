#include "userspace/store/chunk.h"

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/base/clock.h"
#include "userspace/store/bits.h"

namespace pyrometer::store {
namespace {

// Flags of window and offsets chunks.
constexpr uint8_t kExplicitValues = 1;
constexpr uint8_t kCountsPlusOne = 2;  // some count is 0
constexpr uint8_t kWholeSeconds = 4;   // times are stored in seconds
// Flags of totals and histograms, above the kind.
constexpr uint8_t kTotalsSeconds = 4;
constexpr uint8_t kTotalsSameDuration = 8;
constexpr uint8_t kHistogramCalls = 32;       // exemplars say which call they are of
constexpr uint8_t kHistogramDetails = 64;     // exemplars have weights, splits, wakers
constexpr uint8_t kTotalsValuePerCount = 16;  // value = count × one number

Status Damaged(std::string_view what) { return DataLossError("damaged " + std::string(what)); }

bool WholeSeconds(uint64_t ns) { return ns % kNsPerSecond == 0; }

// The three numbers that window and offsets chunks begin with, after the flags.
void PutWindowTimes(const WindowHeader& header, bool seconds, std::string* out) {
  const uint64_t unit = seconds ? kNsPerSecond : 1;
  PutVarint(header.offset_ns / unit, out);
  PutVarint(header.duration_ns / unit, out);
  PutVarint(header.period_ns, out);
}
void GetWindowTimes(Decoder* in, bool seconds, WindowHeader* header) {
  const uint64_t unit = seconds ? kNsPerSecond : 1;
  header->offset_ns = SaturatingMultiply(in->Varint(), unit);
  header->duration_ns = SaturatingMultiply(in->Varint(), unit);
  header->period_ns = in->Varint();
  const bool whole = WholeSeconds(header->offset_ns) && WholeSeconds(header->duration_ns);
  if (header->offset_ns >= static_cast<uint64_t>(kHourNs) || seconds != whole) in->Fail();
}

}  // namespace

void LeafColumn::Put(LeafId leaf, BitWriter* out) {
  DCHECK(leaf >= next_);
  gaps_.Put(leaf - next_, out);
  next_ = uint64_t{leaf} + 1;
}

LeafId LeafColumn::Get(BitReader* in) {
  const uint64_t gap = gaps_.Get(in);
  if (gap > UINT32_MAX - std::min<uint64_t>(next_, UINT32_MAX) || next_ > UINT32_MAX) {
    in->Fail();
    return 0;
  }
  const auto leaf = static_cast<LeafId>(next_ + gap);
  next_ = uint64_t{leaf} + 1;
  return leaf;
}

void CountColumn::Put(uint64_t count, BitWriter* out) {
  DCHECK(count >= 1);
  if (count == 1) {
    ++run_;
    return;
  }
  runs_.Put(run_, out);
  above_.Put(count - 2, out);
  run_ = 0;
}

void CountColumn::Finish(BitWriter* out) {
  if (run_ > 0) runs_.Put(run_, out);
}

uint64_t CountColumn::Get(BitReader* in) {
  if (!in_run_) {
    run_ = runs_.Get(in);
    in_run_ = true;
  }
  if (run_ > 0) {
    --run_;
    return 1;
  }
  in_run_ = false;
  const uint64_t above = above_.Get(in);
  if (above > UINT64_MAX - 2) return in->Fail();
  return above + 2;
}

std::string EncodeWindowChunk(const WindowChunk& chunk) {
  const bool derived = std::all_of(chunk.rows.begin(), chunk.rows.end(), [&](const StackSum& row) {
    return row.value == SaturatingMultiply(row.count, chunk.period_ns);
  });
  const bool zeros =
      std::any_of(chunk.rows.begin(), chunk.rows.end(), [](const StackSum& row) { return row.count == 0; });
  const bool seconds = WholeSeconds(chunk.offset_ns) && WholeSeconds(chunk.duration_ns);
  std::string out;
  out.reserve(24 + chunk.rows.size() * (derived ? 1 : 6));
  out.push_back(static_cast<char>((derived ? 0 : kExplicitValues) | (zeros ? kCountsPlusOne : 0) |
                                  (seconds ? kWholeSeconds : 0)));
  PutWindowTimes({chunk.offset_ns, chunk.duration_ns, chunk.period_ns}, seconds, &out);
  PutVarint(chunk.rows.size(), &out);
  BitWriter bits(&out);
  LeafColumn leaves;
  for (const StackSum& row : chunk.rows) leaves.Put(row.leaf, &bits);
  CountColumn counts;
  for (const StackSum& row : chunk.rows) counts.Put(row.count + (zeros ? 1 : 0), &bits);
  counts.Finish(&bits);
  if (!derived) {
    AdaptiveRice values(chunk.period_ns);
    for (const StackSum& row : chunk.rows) values.Put(row.value, &bits);
  }
  bits.Finish();
  return out;
}

Status DecodeWindowHeader(std::string_view bytes, WindowHeader* header) {
  Decoder in(bytes);
  const uint8_t flags = in.Byte();
  header->values_derived = (flags & kExplicitValues) == 0;
  GetWindowTimes(&in, (flags & kWholeSeconds) != 0, header);
  return in.ok() ? OkStatus() : Damaged("window chunk: header");
}

Status DecodeWindowChunk(std::string_view bytes, WindowHeader* header, std::vector<StackSum>* rows) {
  Decoder in(bytes);
  const uint8_t flags = in.Byte();
  if ((flags & ~(kExplicitValues | kCountsPlusOne | kWholeSeconds)) != 0) return Damaged("window chunk: flags");
  header->values_derived = (flags & kExplicitValues) == 0;
  GetWindowTimes(&in, (flags & kWholeSeconds) != 0, header);
  const uint64_t count = in.Varint();
  // A row takes at least one bit for its leaf.
  if (!in.ok() || count > uint64_t{in.remaining()} * 8) return Damaged("window chunk: row count");
  rows->resize(count);
  BitReader bits(in.Rest());
  LeafColumn leaves;
  for (StackSum& row : *rows) row.leaf = leaves.Get(&bits);
  CountColumn counts;
  const uint64_t shift = (flags & kCountsPlusOne) != 0 ? 1 : 0;
  for (StackSum& row : *rows) row.count = counts.Get(&bits) - shift;
  if (header->values_derived) {
    for (StackSum& row : *rows) row.value = SaturatingMultiply(row.count, header->period_ns);
  } else {
    AdaptiveRice values(header->period_ns);
    for (StackSum& row : *rows) row.value = values.Get(&bits);
  }
  if (!bits.done() || !counts.AtEnd()) return Damaged("window chunk");
  return OkStatus();
}

std::string EncodeOffsetsChunk(const OffsetsChunk& chunk) {
  const bool seconds = WholeSeconds(chunk.offset_ns) && WholeSeconds(chunk.duration_ns);
  std::string out;
  out.push_back(static_cast<char>(seconds ? kWholeSeconds : 0));
  PutWindowTimes({chunk.offset_ns, chunk.duration_ns, chunk.period_ns}, seconds, &out);
  PutVarint(chunk.rows.size(), &out);
  BitWriter bits(&out);
  LeafColumn leaves;
  for (const OffsetsChunk::Row& row : chunk.rows) leaves.Put(row.leaf, &bits);
  CountColumn counts;
  for (const OffsetsChunk::Row& row : chunk.rows) counts.Put(row.offsets_ms.size(), &bits);
  counts.Finish(&bits);
  const uint64_t length_ms = chunk.duration_ns / kNsPerMs;
  for (const OffsetsChunk::Row& row : chunk.rows) {
    // n sorted numbers spread over the window: their mean distance is known.
    const int k = RiceParameter(length_ms * 64 / (row.offsets_ms.size() + 1));
    uint16_t previous = 0;
    for (const uint16_t offset : row.offsets_ms) {
      PutRice(static_cast<uint64_t>(offset - previous), k, &bits);
      previous = offset;
    }
  }
  bits.Finish();
  return out;
}

StatusOr<OffsetsChunk> DecodeOffsetsChunk(std::string_view bytes) {
  Decoder in(bytes);
  const uint8_t flags = in.Byte();
  if ((flags & ~kWholeSeconds) != 0) return Damaged("offsets chunk: flags");
  OffsetsChunk chunk;
  WindowHeader header;
  GetWindowTimes(&in, (flags & kWholeSeconds) != 0, &header);
  chunk.offset_ns = header.offset_ns;
  chunk.duration_ns = header.duration_ns;
  chunk.period_ns = header.period_ns;
  const uint64_t count = in.Varint();
  if (!in.ok() || count > uint64_t{in.remaining()} * 8) return Damaged("offsets chunk: row count");
  chunk.rows.resize(count);
  BitReader bits(in.Rest());
  LeafColumn leaves;
  for (OffsetsChunk::Row& row : chunk.rows) row.leaf = leaves.Get(&bits);
  CountColumn counts;
  uint64_t total = 0;
  std::vector<uint64_t> sizes(count);
  for (uint64_t& size : sizes) {
    size = counts.Get(&bits);
    total = SaturatingAdd(total, size);
  }
  // Each offset takes at least one bit.
  if (!counts.AtEnd() || total > bits.remaining()) return Damaged("offsets chunk: sizes");
  const uint64_t length_ms = chunk.duration_ns / kNsPerMs;
  for (size_t i = 0; i < count; ++i) {
    const int k = RiceParameter(std::min<uint64_t>(length_ms, UINT32_MAX) * 64 / (sizes[i] + 1));
    chunk.rows[i].offsets_ms.resize(sizes[i]);
    uint64_t previous = 0;
    for (uint16_t& offset : chunk.rows[i].offsets_ms) {
      previous += GetRice(k, &bits);
      if (previous > UINT16_MAX) return Damaged("offsets chunk: offset");
      offset = static_cast<uint16_t>(previous);
    }
  }
  if (!bits.done()) return Damaged("offsets chunk");
  return chunk;
}

namespace {

struct WindowTimes {
  int64_t time_ns;
  uint64_t duration_ns;
};

// Starts and lengths of the windows of one record. Starts need not be sorted, but mostly are: differences.
template <typename Windows>
uint8_t PutTimes(const Windows& windows, uint32_t hour, std::string* out) {
  const bool seconds = std::all_of(windows.begin(), windows.end(), [&](const auto& w) {
    return WholeSeconds(static_cast<uint64_t>(w.time_ns)) && WholeSeconds(w.duration_ns);
  });
  const bool same = std::all_of(windows.begin(), windows.end(),
                                [&](const auto& w) { return w.duration_ns == windows.front().duration_ns; });
  const auto unit = static_cast<int64_t>(seconds ? kNsPerSecond : 1);
  PutVarint(windows.size(), out);
  int64_t previous = HourStart(hour);
  for (const auto& window : windows) {
    DCHECK(HourOf(window.time_ns) == hour);
    PutZigzag((window.time_ns - previous) / unit, out);
    previous = window.time_ns;
  }
  for (const auto& window : windows) {
    PutVarint(window.duration_ns / static_cast<uint64_t>(unit), out);
    if (same) break;
  }
  return (seconds ? kTotalsSeconds : 0) | (same ? kTotalsSameDuration : 0);
}

template <typename Windows>
void GetTimes(Decoder* in, uint8_t flags, uint32_t hour, size_t min_bytes_each, Windows* windows) {
  windows->resize(in->Count(min_bytes_each));
  const auto unit = static_cast<int64_t>((flags & kTotalsSeconds) != 0 ? kNsPerSecond : 1);
  int64_t previous = HourStart(hour);
  for (auto& window : *windows) {
    int64_t step = 0;
    if (__builtin_mul_overflow(in->Zigzag(), unit, &step) || __builtin_add_overflow(previous, step, &previous) ||
        previous < HourStart(hour) || previous >= HourStart(hour) + kHourNs) {
      in->Fail();
      return;
    }
    window.time_ns = previous;
  }
  uint64_t duration = 0;
  const bool same = (flags & kTotalsSameDuration) != 0;
  for (size_t i = 0; i < windows->size(); ++i) {
    if (i == 0 || !same) duration = SaturatingMultiply(in->Varint(), static_cast<uint64_t>(unit));
    (*windows)[i].duration_ns = duration;
  }
}

bool SayCalls(const std::vector<HistogramChunk>& chunks) {
  return std::any_of(chunks.begin(), chunks.end(), [](const HistogramChunk& chunk) {
    return std::any_of(chunk.exemplars.begin(), chunk.exemplars.end(),
                       [](const StoredHistogramExemplar& exemplar) { return !exemplar.call.empty(); });
  });
}

bool SayDetails(const std::vector<HistogramChunk>& chunks) {
  return std::any_of(chunks.begin(), chunks.end(), [](const HistogramChunk& chunk) {
    return std::any_of(chunk.exemplars.begin(), chunk.exemplars.end(), [](const StoredHistogramExemplar& exemplar) {
      return exemplar.weight != 0 || exemplar.typical || !exemplar.split.empty() || exemplar.waker.wait_ns != 0;
    });
  });
}

void PutDetails(const StoredHistogramExemplar& exemplar, std::string* out) {
  out->push_back(static_cast<char>(exemplar.typical ? 1 : 0));
  PutVarint(exemplar.weight, out);
  PutVarint(exemplar.split.size(), out);
  for (const auto& [cause, ns] : exemplar.split) {
    PutVarint(cause, out);
    PutVarint(ns, out);
  }
  PutVarint(exemplar.waker.wait_ns, out);
  if (exemplar.waker.wait_ns == 0) return;
  PutVarint(exemplar.waker.leaf, out);
  PutVarint(exemplar.waker.comm, out);
  PutVarint(exemplar.waker.cause, out);
  PutVarint(exemplar.waker.tid, out);
}

void GetDetails(Decoder* in, StoredHistogramExemplar* exemplar) {
  const uint8_t typical = in->Byte();
  if (typical > 1) in->Fail();
  exemplar->typical = typical != 0;
  exemplar->weight = in->Varint();
  exemplar->split.resize(in->Count(2));
  for (auto& [cause, ns] : exemplar->split) {
    cause = in->Varint32();
    ns = in->Varint();
  }
  exemplar->waker.wait_ns = in->Varint();
  if (exemplar->waker.wait_ns == 0) return;
  exemplar->waker.leaf = in->Varint32();
  exemplar->waker.comm = in->Varint32();
  exemplar->waker.cause = in->Varint32();
  exemplar->waker.tid = in->Varint32();
}

}  // namespace

std::string EncodeHistograms(const std::vector<HistogramChunk>& chunks, uint32_t hour) {
  std::string times;
  uint8_t flags = PutTimes(chunks, hour, &times);
  const bool calls = SayCalls(chunks);
  if (calls) flags |= kHistogramCalls;
  const bool details = SayDetails(chunks);
  if (details) flags |= kHistogramDetails;
  std::string out(1, static_cast<char>(flags));
  out += times;
  for (const HistogramChunk& chunk : chunks) {
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
      PutZigzag(static_cast<int64_t>(static_cast<uint64_t>(exemplar.time_ns) - static_cast<uint64_t>(chunk.time_ns)),
                &out);
      PutVarint(exemplar.value, &out);
      PutVarint(exemplar.leaf, &out);
      PutVarint(exemplar.comm, &out);
      PutVarint(exemplar.tid, &out);
      if (calls) PutString(exemplar.call, &out);
      if (details) PutDetails(exemplar, &out);
    }
  }
  return out;
}

namespace {

Status DecodeHistogram(Decoder* in, bool calls, bool details, HistogramChunk* chunk) {
  const size_t buckets = in->Count(2);
  if (buckets > profile::kHistogramBuckets) return Damaged("histograms: buckets");
  std::vector<uint32_t> indices(buckets);
  uint64_t index = 0;
  for (size_t i = 0; i < buckets; ++i) {
    const uint32_t delta = in->Varint32();
    index += delta;
    if ((i > 0 && delta == 0) || index >= profile::kHistogramBuckets) return Damaged("histograms: buckets");
    indices[i] = static_cast<uint32_t>(index);
  }
  for (const uint32_t i : indices) {
    const uint64_t count = in->Varint();
    if (count == 0) return Damaged("histograms: empty bucket");
    chunk->histogram.AddBucket(i, count);
  }
  chunk->histogram.AddSum(in->Varint());
  chunk->histogram.ObserveMax(in->Varint());
  const size_t errors = in->Count(2);
  for (size_t i = 0; i < errors && in->ok(); ++i) {
    const int64_t error_number = in->Zigzag();
    if (error_number < INT32_MIN || error_number > INT32_MAX) return Damaged("histograms: errno");
    if (!chunk->errors.emplace(static_cast<int32_t>(error_number), in->Varint()).second) {
      return Damaged("histograms: errno twice");
    }
  }
  chunk->exemplars.resize(in->Count(5));
  for (StoredHistogramExemplar& exemplar : chunk->exemplars) {
    exemplar.time_ns =
        static_cast<int64_t>(static_cast<uint64_t>(in->Zigzag()) + static_cast<uint64_t>(chunk->time_ns));
    exemplar.value = in->Varint();
    exemplar.leaf = in->Varint32();
    exemplar.comm = in->Varint32();
    exemplar.tid = in->Varint32();
    if (calls) exemplar.call = in->String();
    if (details) GetDetails(in, &exemplar);
  }
  return in->ok() ? OkStatus() : Damaged("histograms");
}

}  // namespace

StatusOr<std::vector<HistogramChunk>> DecodeHistograms(std::string_view bytes, uint32_t hour) {
  Decoder in(bytes);
  const uint8_t flags = in.Byte();
  if ((flags & ~(kTotalsSeconds | kTotalsSameDuration | kHistogramCalls | kHistogramDetails)) != 0)
    return Damaged("histograms: flags");
  const bool calls = (flags & kHistogramCalls) != 0;
  const bool details = (flags & kHistogramDetails) != 0;
  std::vector<HistogramChunk> chunks;
  // Start, buckets, sum, max, errors, exemplars.
  GetTimes(&in, flags, hour, 6, &chunks);
  if (!in.ok()) return Damaged("histograms: times");
  for (HistogramChunk& chunk : chunks) RETURN_IF_ERROR(DecodeHistogram(&in, calls, details, &chunk));
  if (calls != SayCalls(chunks) || details != SayDetails(chunks)) return Damaged("histograms: flags");
  if (!in.done()) return Damaged("histograms: length");
  return chunks;
}

std::string EncodeTotals(const TotalsRecord& totals, uint32_t hour) {
  std::string times;
  uint8_t flags = PutTimes(totals.windows, hour, &times);
  // Samples of one period: then values follow from counts.
  const auto counted = std::find_if(totals.windows.begin(), totals.windows.end(),
                                    [](const TotalRecord& window) { return window.count != 0; });
  const uint64_t per_count = counted == totals.windows.end() ? 0 : counted->value / counted->count;
  bool derived = totals.kind == PointKind::kProfile;
  for (const TotalRecord& window : totals.windows) {
    uint64_t product = 0;
    derived = derived && !__builtin_mul_overflow(window.count, per_count, &product) && product == window.value;
  }
  if (derived) flags |= kTotalsValuePerCount;
  std::string out(1, static_cast<char>(flags | static_cast<uint8_t>(totals.kind)));
  out += times;
  for (const TotalRecord& window : totals.windows) PutVarint(window.count, &out);
  if (derived) {
    PutVarint(per_count, &out);
  } else {
    for (const TotalRecord& window : totals.windows) PutVarint(window.value, &out);
  }
  return out;
}

StatusOr<TotalsRecord> DecodeTotals(std::string_view bytes, uint32_t hour) {
  Decoder in(bytes);
  TotalsRecord totals;
  const uint8_t flags = in.Byte();
  const uint8_t kind = flags & 3;
  if (kind > static_cast<uint8_t>(PointKind::kCounter) || flags >= 32) return Damaged("totals: kind");
  totals.kind = static_cast<PointKind>(kind);
  GetTimes(&in, flags, hour, 2, &totals.windows);
  for (TotalRecord& window : totals.windows) window.count = in.Varint();
  if ((flags & kTotalsValuePerCount) != 0) {
    const uint64_t per_count = in.Varint();
    for (TotalRecord& window : totals.windows) window.value = SaturatingMultiply(window.count, per_count);
  } else {
    for (TotalRecord& window : totals.windows) window.value = in.Varint();
  }
  if (!in.ok() || !in.done()) return Damaged("totals");
  return totals;
}

}  // namespace pyrometer::store

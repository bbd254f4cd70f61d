#include "userspace/store/cells.h"

#include <algorithm>
#include <cmath>

#include "userspace/base/check.h"
#include "userspace/base/clock.h"

namespace pyrometer::store {
namespace {

constexpr uint8_t kExplicitValues = 1;
constexpr uint8_t kCountsPlusOne = 2;
constexpr uint8_t kWholeSeconds = 4;
constexpr uint8_t kOnePeriod = 8;

Status Damaged(std::string_view what) { return DataLossError("damaged cells block: " + std::string(what)); }

// Distances between `chosen` sorted cells of `cells`: each at least one, the mean is known to both sides.
int PlaceParameter(uint64_t cells, uint64_t chosen) { return RiceParameter((cells - chosen) * 64 / (chosen + 1)); }

void PutSubset(const std::vector<uint32_t>& chosen, uint64_t cells, BitWriter* out) {
  const int k = PlaceParameter(cells, chosen.size());
  uint32_t next = 0;
  for (const uint32_t cell : chosen) {
    PutRice(cell - next, k, out);
    next = cell + 1;
  }
}

// A stack that is in most cells is told by where it is not.
bool TellAbsent(uint64_t cells, uint64_t present) { return present > cells / 2; }

// Samples above one per cell: a few are dropped one by one onto the cells (distances again); many are told cell
// by cell, as what they are above zero or as what they differ from the mean, whichever takes less.
enum class AboveForm { kNone, kDrops, kEach };
AboveForm FormOf(uint64_t cells, uint64_t above) {
  if (above == 0) return AboveForm::kNone;
  return above < cells ? AboveForm::kDrops : AboveForm::kEach;
}
int DropParameter(uint64_t cells, uint64_t above) { return RiceParameter(cells * 64 / (above + 1)); }
uint64_t MeanAbove(uint64_t cells, uint64_t above) { return above / cells; }
int EachParameter(uint64_t mean) { return RiceParameter(std::min(mean, uint64_t{1} << 44) * 64); }
// A Poisson count differs from its mean by 0.8 of its root on average; zigzag doubles that.
int DeviationParameter(uint64_t mean) {
  return RiceParameter(static_cast<uint64_t>(1.6 * 64 * std::sqrt(static_cast<double>(mean))));
}
uint64_t ZigzagOf(uint64_t value, uint64_t mean) { return value >= mean ? (value - mean) * 2 : (mean - value) * 2 - 1; }

int RiceBits(uint64_t value, int k) {
  const uint64_t upper = value >> k;
  return upper < kRiceEscape ? static_cast<int>(upper) + 1 + k : kRiceEscape + 7 + BitWidth(value);
}

void PutAbove(const CellRow* rows, uint64_t shift, uint64_t cells, uint64_t above, BitWriter* out) {
  const auto above_one = [&](size_t i) { return rows[i].count + shift - 1; };
  switch (FormOf(cells, above)) {
    case AboveForm::kNone:
      return;
    case AboveForm::kDrops: {
      const int k = DropParameter(cells, above);
      size_t previous = 0;
      for (size_t i = 0; i < cells; ++i) {
        for (uint64_t n = above_one(i); n > 0; --n) {
          PutRice(i - previous, k, out);
          previous = i;
        }
      }
      return;
    }
    case AboveForm::kEach: {
      const uint64_t mean = MeanAbove(cells, above);
      const int plain = EachParameter(mean), deviation = DeviationParameter(mean);
      uint64_t plain_bits = 0, deviation_bits = 0;
      bool representable = true;
      for (size_t i = 0; i < cells; ++i) {
        plain_bits += static_cast<uint64_t>(RiceBits(above_one(i), plain));
        representable = representable && above_one(i) < UINT64_MAX / 4;
        if (representable) deviation_bits += static_cast<uint64_t>(RiceBits(ZigzagOf(above_one(i), mean), deviation));
      }
      const bool from_mean = representable && deviation_bits < plain_bits;
      out->Put(from_mean ? 1 : 0, 1);
      for (size_t i = 0; i < cells; ++i) {
        if (from_mean) {
          PutRice(ZigzagOf(above_one(i), mean), deviation, out);
        } else {
          PutRice(above_one(i), plain, out);
        }
      }
    }
  }
}

// Per series its windows; most series of a service have the same ones.
void PutWindows(const std::vector<CellWindow>& windows, bool seconds, bool one_period, std::string* out) {
  const uint64_t unit = seconds ? kNsPerSecond : 1;
  std::vector<std::pair<size_t, size_t>> series;  // ranges of windows
  for (size_t begin = 0; begin < windows.size();) {
    size_t end = begin;
    while (end < windows.size() && windows[end].series == windows[begin].series) ++end;
    series.emplace_back(begin, end);
    begin = end;
  }
  PutVarint(series.size(), out);
  if (one_period && !windows.empty()) PutVarint(windows.front().period_ns, out);
  SeriesId next = 0;
  std::pair<size_t, size_t> last{0, 0};
  const auto same = [&](std::pair<size_t, size_t> a, std::pair<size_t, size_t> b) {
    return std::equal(
        windows.begin() + static_cast<ptrdiff_t>(a.first), windows.begin() + static_cast<ptrdiff_t>(a.second),
        windows.begin() + static_cast<ptrdiff_t>(b.first), windows.begin() + static_cast<ptrdiff_t>(b.second),
        [](const CellWindow& x, const CellWindow& y) {
          return x.offset_ns == y.offset_ns && x.duration_ns == y.duration_ns && x.period_ns == y.period_ns;
        });
  };
  for (const auto& range : series) {
    PutVarint(windows[range.first].series - next, out);
    next = windows[range.first].series;
    if (last.second > 0 && same(last, range)) {
      PutVarint(0, out);  // as the series before
      continue;
    }
    last = range;
    PutVarint(range.second - range.first, out);
    uint64_t offset = 0, duration = 0, period = 0;
    for (size_t i = range.first; i < range.second; ++i) {
      const CellWindow& window = windows[i];
      PutVarint((window.offset_ns - offset) / unit, out);
      PutZigzag(static_cast<int64_t>(window.duration_ns / unit) - static_cast<int64_t>(duration / unit), out);
      if (!one_period) PutZigzag(static_cast<int64_t>(window.period_ns - period), out);
      offset = window.offset_ns;
      duration = window.duration_ns;
      period = window.period_ns;
    }
  }
}

Status GetWindows(Decoder* in, bool seconds, bool one_period, std::vector<CellWindow>* windows) {
  const uint64_t unit = seconds ? kNsPerSecond : 1;
  const size_t series_count = in->Count(2);
  const uint64_t only_period = one_period && series_count > 0 ? in->Varint() : 0;
  uint64_t series = 0;
  size_t last_begin = 0, last_end = 0;
  for (size_t s = 0; s < series_count && in->ok(); ++s) {
    const uint64_t step = in->Varint();
    series += step;
    if (step > UINT32_MAX || series > UINT32_MAX || (s > 0 && step == 0)) return Damaged("series");
    const uint64_t count = in->Varint();
    const size_t begin = windows->size();
    const size_t more = count == 0 ? last_end - last_begin : count;
    if ((count == 0 && more == 0) || more > kMaxBlockCells - begin) return Damaged("windows");
    if (count == 0) {
      for (size_t i = 0; i < more; ++i) {
        windows->push_back((*windows)[last_begin + i]);
        windows->back().series = static_cast<SeriesId>(series);
      }
      continue;
    }
    if (count > in->remaining()) return Damaged("windows");
    uint64_t offset = 0, duration = 0, period = only_period;
    for (size_t i = 0; i < count; ++i) {
      offset = SaturatingAdd(offset, SaturatingMultiply(in->Varint(), unit));
      duration += static_cast<uint64_t>(in->Zigzag()) * unit;
      if (!one_period) period += static_cast<uint64_t>(in->Zigzag());
      if (offset >= static_cast<uint64_t>(kHourNs)) return Damaged("window's start");
      windows->push_back({static_cast<SeriesId>(series), offset, duration, period});
    }
    last_begin = begin;
    last_end = windows->size();
  }
  return in->ok() ? OkStatus() : Damaged("windows");
}

}  // namespace

std::string EncodeCells(const CellsBlock& block) {
  CHECK(block.windows.size() <= kMaxBlockCells);
  bool derived = true, zeros = false, seconds = true, one_period = true;
  for (const CellRow& row : block.rows) {
    derived = derived && row.value == SaturatingMultiply(row.count, block.windows[row.cell].period_ns);
    zeros = zeros || row.count == 0;
  }
  for (const CellWindow& window : block.windows) {
    seconds = seconds && window.offset_ns % kNsPerSecond == 0 && window.duration_ns % kNsPerSecond == 0;
    one_period = one_period && window.period_ns == block.windows.front().period_ns;
  }
  const uint64_t shift = zeros ? 1 : 0;
  std::string out(1, static_cast<char>((derived ? 0 : kExplicitValues) | (zeros ? kCountsPlusOne : 0) |
                                       (seconds ? kWholeSeconds : 0) | (one_period ? kOnePeriod : 0)));
  PutWindows(block.windows, seconds, one_period, &out);

  std::string head, detail;
  BitWriter head_bits(&head), detail_bits(&detail);
  LeafColumn leaves;
  AdaptiveRice cell_counts(8), aboves(2), values(1u << 20);
  const uint64_t cells = block.windows.size();
  uint64_t leaf_count = 0;
  std::vector<uint32_t> places;
  for (size_t begin = 0; begin < block.rows.size();) {
    size_t end = begin;
    uint64_t above = 0, value = 0;
    for (; end < block.rows.size() && block.rows[end].leaf == block.rows[begin].leaf; ++end) {
      above += block.rows[end].count + shift - 1;
      value = SaturatingAdd(value, block.rows[end].value);
    }
    const uint64_t present = end - begin;
    leaves.Put(block.rows[begin].leaf, &head_bits);
    cell_counts.Put(present - 1, &head_bits);
    aboves.Put(above, &head_bits);
    if (!derived) values.Put(value, &head_bits);

    places.clear();
    if (!TellAbsent(cells, present)) {
      for (size_t i = begin; i < end; ++i) places.push_back(block.rows[i].cell);
    } else {
      uint32_t cell = 0;
      for (size_t i = begin; i < end; ++i, ++cell) {
        for (; cell < block.rows[i].cell; ++cell) places.push_back(cell);
      }
      for (; cell < cells; ++cell) places.push_back(cell);
    }
    PutSubset(places, cells, &detail_bits);
    PutAbove(&block.rows[begin], shift, present, above, &detail_bits);
    if (!derived) {
      const int k = RiceParameter(std::min(value / present, uint64_t{1} << 44) * 64);
      for (size_t i = begin; i < end; ++i) PutRice(block.rows[i].value, k, &detail_bits);
    }
    ++leaf_count;
    begin = end;
  }
  head_bits.Finish();
  detail_bits.Finish();
  PutVarint(leaf_count, &out);
  PutString(head, &out);
  return out + detail;
}

Status CellsReader::Open(std::string_view bytes) {
  Decoder in(bytes);
  const uint8_t flags = in.Byte();
  if (flags >= 16) return Damaged("flags");
  explicit_values_ = (flags & kExplicitValues) != 0;
  count_shift_ = (flags & kCountsPlusOne) != 0 ? 1 : 0;
  windows_.clear();
  RETURN_IF_ERROR(GetWindows(&in, (flags & kWholeSeconds) != 0, (flags & kOnePeriod) != 0, &windows_));
  leaf_count_ = in.Varint();
  head_ = in.String();
  if (!in.ok()) return Damaged("head");
  detail_ = in.Rest();
  // A stack takes at least three bits in the head.
  if (leaf_count_ > uint64_t{head_.size()} * 8 / 3) return Damaged("number of stacks");
  return OkStatus();
}

Status CellsReader::ReadStacks() {
  stacks_.resize(leaf_count_);
  BitReader in(head_);
  LeafColumn leaves;
  AdaptiveRice cell_counts(8), aboves(2), values(1u << 20);
  const uint64_t cells = windows_.size();
  uint64_t rows = 0;
  for (Stack& stack : stacks_) {
    stack.leaf = leaves.Get(&in);
    stack.cells = cell_counts.Get(&in) + 1;
    stack.above = aboves.Get(&in);
    stack.value = explicit_values_ ? values.Get(&in) : 0;
    rows += stack.cells;
    if (!in.ok() || stack.cells == 0 || stack.cells > cells) return Damaged("stacks");
    // Whatever a stack's rows take, a block was never written with more.
    if (rows > 2 * kMaxBlockRows + kMaxBlockCells) return Damaged("number of rows");
  }
  return in.done() ? OkStatus() : Damaged("stacks");
}

void CellsReader::ReadPlaces(const Stack& stack, BitReader* in) {
  const uint64_t cells = windows_.size();
  const bool absent = TellAbsent(cells, stack.cells);
  const uint64_t told = absent ? cells - stack.cells : stack.cells;
  const int k = PlaceParameter(cells, told);
  at_.resize(stack.cells);
  uint64_t next = 0;
  size_t filled = 0;
  for (uint64_t i = 0; i < told; ++i) {
    const uint64_t gap = GetRice(k, in);
    // What is told, and all that lies between when that is what counts, must fit.
    if (gap >= cells - next || (absent && gap > stack.cells - filled)) {
      in->Fail();
      return;
    }
    if (absent) {
      for (uint64_t cell = next; cell < next + gap; ++cell) at_[filled++] = static_cast<uint32_t>(cell);
    } else {
      at_[filled++] = static_cast<uint32_t>(next + gap);
    }
    next += gap + 1;
  }
  if (absent) {
    if (cells - next != stack.cells - filled) {
      in->Fail();
      return;
    }
    for (uint64_t cell = next; cell < cells; ++cell) at_[filled++] = static_cast<uint32_t>(cell);
  }
}

void CellsReader::ReadCounts(const Stack& stack, BitReader* in) {
  above_.assign(stack.cells, 0);
  switch (FormOf(stack.cells, stack.above)) {
    case AboveForm::kNone:
      return;
    case AboveForm::kDrops: {
      const int k = DropParameter(stack.cells, stack.above);
      uint64_t at = 0;
      for (uint64_t i = 0; i < stack.above; ++i) {
        const uint64_t gap = GetRice(k, in);
        if (gap >= stack.cells - at) {
          in->Fail();
          return;
        }
        at += gap;
        ++above_[at];
      }
      return;
    }
    case AboveForm::kEach: {
      const uint64_t mean = MeanAbove(stack.cells, stack.above);
      const bool from_mean = in->Get(1) != 0;
      const int k = from_mean ? DeviationParameter(mean) : EachParameter(mean);
      uint64_t left = stack.above;
      for (uint64_t& above : above_) {
        const uint64_t number = GetRice(k, in);
        if (!from_mean) {
          above = number;
        } else if (number % 2 == 0) {
          above = SaturatingAdd(mean, number / 2);
        } else if (number / 2 < mean) {
          above = mean - number / 2 - 1;
        } else {
          in->Fail();
        }
        if (above > left) in->Fail();
        if (!in->ok()) return;
        left -= above;
      }
      if (left != 0) in->Fail();
    }
  }
}

}  // namespace pyrometer::store

// A closed hour of one service, stack by stack: the dense form of stack samples at rest.
//
// Fresh samples lie window by window (chunk.h): per (series, window) a sorted list of stacks with counts. There each
// window pays anew for saying which of the service's 20,000 stacks occurred in it, at 6.9 bits per (window, stack). But
// a stack's frequency hardly changes within an hour. So housekeeping turns the matrix round:
//
//                  cells: the (series, window) pairs of the hour, numbered 0, 1, 2, …
//                  0  1  2  3  4  5  6  7 …
//     stack  1     4  2  3  5  1  4  2  3      in D = 8 of C cells, n = 24 samples
//     stack  2     .  1  .  .  .  1  .  .      in D = 2 cells, n = 2
//     stack  3     .  .  .  .  1  .  .  .
//
// For each stack first D and n, then which cells and how much in each. With D and C known the distances between
// its cells are geometric with a known mean: a Rice code whose parameter need not be stored or learnt. The same for the
// n - D samples above one per cell. Measured on the generator's hour: 5.7 bits per (window, stack) against 5.42 of
// entropy.
//
//   CellsBlock block{.hour = 471'000};
//   block.windows.push_back({.series = 3, .offset_ns = 0, …});      // sorted by (series, offset)
//   block.rows.push_back({.leaf = 7, .cell = 0, .count = 2, …});    // sorted by (leaf, cell)
//   std::string bytes = EncodeCells(block);
//
//   CellsReader reader;
//   RETURN_IF_ERROR(reader.Open(bytes));                            // which windows there are
//   RETURN_IF_ERROR(reader.Read([&](LeafId leaf, uint32_t cell, uint64_t count, uint64_t value) {…}));
//
// Decoders answer DATA_LOSS for bytes that no encoder writes. Threads: none shared. Cost: 5 ns per row to read, 10 to
// write. Not promised: reading some windows cheaper than all (blocks are bounded by kMaxBlockRows instead).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/bits.h"
#include "userspace/store/chunk.h"

namespace pyrometer::store {

// Housekeeping begins a new block beyond this; a block of one million rows takes 700 KB and 5 ms to read.
inline constexpr size_t kMaxBlockRows = 1u << 20;
inline constexpr size_t kMaxBlockCells = 1u << 20;

struct CellWindow {
  SeriesId series = 0;
  uint64_t offset_ns = 0;  // of its start from the hour's
  uint64_t duration_ns = 0;
  uint64_t period_ns = 0;
  bool operator==(const CellWindow&) const = default;
};
struct CellRow {
  LeafId leaf = 0;
  uint32_t cell = 0;  // index into windows
  uint64_t count = 0;
  uint64_t value = 0;
  bool operator==(const CellRow&) const = default;
};
struct CellsBlock {
  std::vector<CellWindow> windows;  // sorted by (series, offset)
  std::vector<CellRow> rows;        // sorted by (leaf, cell), each pair once; no row with count and value 0
};
std::string EncodeCells(const CellsBlock& block);

class CellsReader {
 public:
  // `bytes` must outlive the reader. Reads the windows.
  Status Open(std::string_view bytes);
  const std::vector<CellWindow>& windows() const { return windows_; }

  // Calls `visit(leaf, cell, count, value)` for each row, in order.
  template <typename Visit>
  Status Read(Visit&& visit);

 private:
  struct Stack {
    LeafId leaf;
    uint64_t cells;
    uint64_t above;  // samples above one per cell
    uint64_t value;  // sum; only with explicit values
  };
  Status ReadStacks();
  // Which cells `stack` is in, into at_.
  void ReadPlaces(const Stack& stack, BitReader* in);
  // How much above one in each, into above_.
  void ReadCounts(const Stack& stack, BitReader* in);

  std::vector<CellWindow> windows_;
  std::vector<Stack> stacks_;
  std::string_view head_, detail_;
  uint64_t leaf_count_ = 0;
  bool explicit_values_ = false;
  uint64_t count_shift_ = 0;
  std::vector<uint32_t> at_;
  std::vector<uint64_t> above_;
};

template <typename Visit>
Status CellsReader::Read(Visit&& visit) {
  RETURN_IF_ERROR(ReadStacks());
  BitReader in(detail_);
  for (const Stack& stack : stacks_) {
    ReadPlaces(stack, &in);
    ReadCounts(stack, &in);
    if (!in.ok()) break;
    if (!explicit_values_) {
      for (size_t i = 0; i < at_.size(); ++i) {
        const uint64_t count = above_[i] + 1;
        visit(stack.leaf, at_[i], count, SaturatingMultiply(count, windows_[at_[i]].period_ns));
      }
      continue;
    }
    const int k = RiceParameter(std::min(stack.value / stack.cells, uint64_t{1} << 44) * 64);
    for (size_t i = 0; i < at_.size(); ++i) {
      const uint64_t value = GetRice(k, &in);
      visit(stack.leaf, at_[i], above_[i] + 1 - count_shift_, value);
    }
  }
  return in.done() ? OkStatus() : DataLossError("damaged cells block");
}

}  // namespace pyrometer::store

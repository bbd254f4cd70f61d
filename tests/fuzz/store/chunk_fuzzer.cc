// Every record that holds points: the first byte says which one, the rest is the record. What a decoder accepts must be
// something that the encoder writes: written again and read again it is the same.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/check.h"
#include "userspace/store/cells.h"
#include "userspace/store/chunk.h"
#include "userspace/store/function_index.h"
#include "userspace/store/names.h"
#include "userspace/store/rollup.h"

namespace pyrometer::store {
namespace {

constexpr uint32_t kHour = 471'000;

void Windows(std::string_view bytes) {
  WindowHeader header;
  std::vector<StackSum> rows;
  if (!DecodeWindowHeader(bytes, &header).ok() || !DecodeWindowChunk(bytes, &header, &rows).ok()) return;
  for (size_t i = 1; i < rows.size(); ++i) CHECK(rows[i - 1].leaf < rows[i].leaf);
  const std::string again = EncodeWindowChunk(
      {.offset_ns = header.offset_ns, .duration_ns = header.duration_ns, .period_ns = header.period_ns, .rows = rows});
  WindowHeader header_again;
  std::vector<StackSum> rows_again;
  CHECK(DecodeWindowChunk(again, &header_again, &rows_again).ok());
  CHECK(rows_again == rows);
}

void Offsets(std::string_view bytes) {
  const StatusOr<OffsetsChunk> chunk = DecodeOffsetsChunk(bytes);
  if (!chunk.ok()) return;
  const StatusOr<OffsetsChunk> again = DecodeOffsetsChunk(EncodeOffsetsChunk(*chunk));
  CHECK(again.ok());
  CHECK(again->rows == chunk->rows);
}

void Histograms(std::string_view bytes) {
  const StatusOr<std::vector<HistogramChunk>> chunks = DecodeHistograms(bytes, kHour);
  if (!chunks.ok()) return;
  const StatusOr<std::vector<HistogramChunk>> again = DecodeHistograms(EncodeHistograms(*chunks, kHour), kHour);
  CHECK(again.ok());
  CHECK(again->size() == chunks->size());
  for (size_t i = 0; i < chunks->size(); ++i) {
    CHECK((*again)[i].histogram == (*chunks)[i].histogram);
    CHECK((*again)[i].errors == (*chunks)[i].errors);
    CHECK((*again)[i].exemplars.size() == (*chunks)[i].exemplars.size());
  }
}

void Totals(std::string_view bytes) {
  const StatusOr<TotalsRecord> record = DecodeTotals(bytes, kHour);
  if (!record.ok()) return;
  const StatusOr<TotalsRecord> again = DecodeTotals(EncodeTotals(*record, kHour), kHour);
  CHECK(again.ok());
  CHECK(again->kind == record->kind && again->windows == record->windows);
}

void Cells(std::string_view bytes) {
  CellsReader reader;
  if (!reader.Open(bytes).ok()) return;
  CellsBlock block{.windows = reader.windows(), .rows = {}};
  if (!reader
           .Read([&](LeafId leaf, uint32_t cell, uint64_t count, uint64_t value) {
             CHECK(cell < block.windows.size());
             block.rows.push_back({leaf, cell, count, value});
           })
           .ok()) {
    return;
  }
  for (size_t i = 1; i < block.rows.size(); ++i) {
    const CellRow &a = block.rows[i - 1], &b = block.rows[i];
    CHECK(a.leaf < b.leaf || (a.leaf == b.leaf && a.cell < b.cell));
  }
}

void Rollups(std::string_view bytes) {
  Rollup rollup;
  if (!DecodeRollup(bytes, &rollup).ok()) return;
  Rollup again;
  CHECK(DecodeRollup(EncodeRollup(rollup), &again).ok());
  CHECK(again.rows == rollup.rows);
  Rollup sum = rollup;
  MergeRollup(again, &sum);
  CHECK(sum.rows.size() == rollup.rows.size());
}

void Functions(std::string_view bytes) {
  const StatusOr<std::vector<FunctionEntry>> entries = DecodeFunctionEntries(bytes);
  if (!entries.ok()) return;
  std::string again;
  for (const FunctionEntry& entry : *entries) AppendFunctionEntry(entry, &again);
  CHECK(again == bytes);
}

void Frames(std::string_view bytes) {
  const StatusOr<FrameRecord> frame = DecodeFrame(bytes);
  if (!frame.ok()) return;
  const StatusOr<FrameRecord> again = DecodeFrame(EncodeFrame(*frame));
  CHECK(again.ok());
  CHECK(*again == *frame);
}

}  // namespace
}  // namespace pyrometer::store

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pyrometer::store;
  if (size == 0) return 0;
  constexpr void (*kDecoders[])(std::string_view) = {Windows, Offsets, Histograms, Totals,
                                                     Cells,   Rollups, Functions,  Frames};
  kDecoders[data[0] % std::size(kDecoders)](std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1));
  return 0;
}

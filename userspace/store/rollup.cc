#include "userspace/store/rollup.h"

#include <algorithm>

#include "userspace/store/bits.h"

namespace pyrometer::store {
namespace {

constexpr uint8_t kExplicitValues = 1;
constexpr uint8_t kCountsPlusOne = 2;

Status Damaged(std::string_view what) { return DataLossError("damaged rollup: " + std::string(what)); }

void ReadHeader(Decoder* in, uint8_t* flags, RollupHeader* header) {
  *flags = in->Byte();
  header->values_derived = (*flags & kExplicitValues) == 0;
  for (uint64_t* number : {&header->points, &header->period_ns, &header->first_offset_ns, &header->end_offset_ns,
                           &header->count, &header->value}) {
    *number = in->Varint();
  }
  if (*flags >= 4 || header->end_offset_ns < header->first_offset_ns) in->Fail();
}

}  // namespace

std::string EncodeRollup(const Rollup& rollup) {
  bool derived = true, zeros = false;
  for (const StackSum& row : rollup.rows) {
    derived = derived && row.value == SaturatingMultiply(row.count, rollup.header.period_ns);
    zeros = zeros || row.count == 0;
  }
  std::string out(1, static_cast<char>((derived ? 0 : kExplicitValues) | (zeros ? kCountsPlusOne : 0)));
  for (const uint64_t number : {rollup.header.points, rollup.header.period_ns, rollup.header.first_offset_ns,
                                rollup.header.end_offset_ns, rollup.header.count, rollup.header.value}) {
    PutVarint(number, &out);
  }
  PutVarint(rollup.rows.size(), &out);
  BitWriter bits(&out);
  LeafColumn leaves;
  AdaptiveRice counts(16), values(1u << 20);
  for (const StackSum& row : rollup.rows) {
    leaves.Put(row.leaf, &bits);
    counts.Put(row.count - (zeros ? 0 : 1), &bits);
    if (!derived) values.Put(row.value, &bits);
  }
  bits.Finish();
  return out;
}

Status DecodeRollupHeader(std::string_view bytes, RollupHeader* header) {
  Decoder in(bytes);
  uint8_t flags = 0;
  ReadHeader(&in, &flags, header);
  return in.ok() ? OkStatus() : Damaged("header");
}

Status DecodeRollup(std::string_view bytes, Rollup* rollup) {
  Decoder in(bytes);
  uint8_t flags = 0;
  ReadHeader(&in, &flags, &rollup->header);
  const uint64_t count = in.Varint();
  // A row takes at least a bit each for leaf and count.
  if (!in.ok() || count > uint64_t{in.remaining()} * 4) return Damaged("number of rows");
  rollup->rows.resize(count);
  BitReader bits(in.Rest());
  LeafColumn leaves;
  AdaptiveRice counts(16), values(1u << 20);
  const uint64_t shift = (flags & kCountsPlusOne) != 0 ? 0 : 1;
  for (StackSum& row : rollup->rows) {
    row.leaf = leaves.Get(&bits);
    row.count = counts.Get(&bits) + shift;
    row.value =
        rollup->header.values_derived ? SaturatingMultiply(row.count, rollup->header.period_ns) : values.Get(&bits);
  }
  return bits.done() ? OkStatus() : Damaged("rows");
}

void MergeRollupHeader(const RollupHeader& more, RollupHeader* sum) {
  if (more.points == 0) return;
  if (sum->points == 0) {
    *sum = more;
    return;
  }
  sum->points += more.points;
  if (sum->period_ns != more.period_ns) sum->period_ns = 0;
  sum->first_offset_ns = std::min(sum->first_offset_ns, more.first_offset_ns);
  sum->end_offset_ns = std::max(sum->end_offset_ns, more.end_offset_ns);
  sum->count = SaturatingAdd(sum->count, more.count);
  sum->value = SaturatingAdd(sum->value, more.value);
  sum->values_derived = sum->values_derived && more.values_derived && sum->period_ns != 0;
}

void MergeRollup(const Rollup& more, Rollup* sum) {
  MergeRollupHeader(more.header, &sum->header);
  std::vector<StackSum> merged;
  merged.reserve(sum->rows.size() + more.rows.size());
  auto a = sum->rows.begin();
  for (const StackSum& row : more.rows) {
    while (a != sum->rows.end() && a->leaf < row.leaf) merged.push_back(*a++);
    if (a != sum->rows.end() && a->leaf == row.leaf) {
      merged.push_back({row.leaf, SaturatingAdd(a->count, row.count), SaturatingAdd(a->value, row.value)});
      ++a;
    } else {
      merged.push_back(row);
    }
  }
  merged.insert(merged.end(), a, sum->rows.end());
  sum->rows = std::move(merged);
}

}  // namespace pyrometer::store

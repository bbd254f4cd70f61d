// The totals of a group's hour: three varints. Inside this room only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/store/chunk.h"
#include "userspace/store/codec.h"

namespace pyrometer::store {

struct GroupTotal {
  uint64_t points = 0;  // (series, window) pairs
  uint64_t count = 0;
  uint64_t value = 0;
  bool operator==(const GroupTotal&) const = default;
  void Plus(const GroupTotal& more) {
    points += more.points;
    count = SaturatingAdd(count, more.count);
    value = SaturatingAdd(value, more.value);
  }
};

inline std::string EncodeGroupTotal(const GroupTotal& total) {
  std::string out;
  PutVarint(total.points, &out);
  PutVarint(total.count, &out);
  PutVarint(total.value, &out);
  return out;
}
inline StatusOr<GroupTotal> DecodeGroupTotal(std::string_view bytes) {
  Decoder in(bytes);
  GroupTotal total;
  total.points = in.Varint();
  total.count = in.Varint();
  total.value = in.Varint();
  if (!in.ok() || !in.done()) return DataLossError("damaged total of a group");
  return total;
}

}  // namespace pyrometer::store

// Keys of what has a time. Big endian, so that byte order is number order. Inside this room only.
//
//   windows, offsets   hour trie series ordinal           an hour of a service lies together, and so does an hour
//   cells              hour trie ordinal
//   totals, histograms 's' trie series hour ordinal       a series over time lies together
//                      'g' trie group hour                a group's sums by hour
//   rollups            'h' or 'd' trie group hour         stacks of a group by hour or day (the day's first hour)
//   functions          trie type name day                 a function over time lies together
//
// Hours and days are counted since the Unix epoch; ordinals are unique in the store. Threads: pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/store/codec.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

// The first key after every key that starts with `prefix`.
inline std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

inline std::string NumbersKey(std::initializer_list<uint32_t> numbers) {
  std::string key;
  for (const uint32_t number : numbers) PutBigEndian32(number, &key);
  return key;
}
inline std::string LetterKey(char letter, std::initializer_list<uint32_t> numbers) {
  std::string key(1, letter);
  for (const uint32_t number : numbers) PutBigEndian32(number, &key);
  return key;
}

struct WindowKey {
  uint32_t hour = 0;
  TrieId trie = 0;
  SeriesId series = 0;
  uint64_t ordinal = 0;
  bool operator==(const WindowKey&) const = default;
};
inline std::string EncodeWindowKey(const WindowKey& key) {
  std::string out = NumbersKey({key.hour, key.trie, key.series});
  PutBigEndian64(key.ordinal, &out);
  return out;
}
inline StatusOr<WindowKey> DecodeWindowKey(std::string_view bytes) {
  Decoder in(bytes);
  WindowKey key;
  key.hour = in.BigEndian32();
  key.trie = in.BigEndian32();
  key.series = in.BigEndian32();
  key.ordinal = in.BigEndian64();
  if (!in.ok() || !in.done()) return DataLossError("damaged key of a window");
  return key;
}

struct CellsKey {
  uint32_t hour = 0;
  TrieId trie = 0;
  uint64_t ordinal = 0;
};
inline std::string EncodeCellsKey(const CellsKey& key) {
  std::string out = NumbersKey({key.hour, key.trie});
  PutBigEndian64(key.ordinal, &out);
  return out;
}
inline StatusOr<CellsKey> DecodeCellsKey(std::string_view bytes) {
  Decoder in(bytes);
  CellsKey key;
  key.hour = in.BigEndian32();
  key.trie = in.BigEndian32();
  key.ordinal = in.BigEndian64();
  if (!in.ok() || !in.done()) return DataLossError("damaged key of a cells block");
  return key;
}

inline constexpr char kSeriesLetter = 's';
inline constexpr char kGroupLetter = 'g';
inline constexpr char kHourLetter = 'h';
inline constexpr char kDayLetter = 'd';

// Of totals and histograms of a series; ordinal 0 is what housekeeping made.
struct PointKey {
  TrieId trie = 0;
  SeriesId series = 0;
  uint32_t hour = 0;
  uint64_t ordinal = 0;
  bool operator==(const PointKey&) const = default;
};
inline std::string EncodePointKey(const PointKey& key) {
  std::string out = LetterKey(kSeriesLetter, {key.trie, key.series, key.hour});
  PutBigEndian64(key.ordinal, &out);
  return out;
}
inline StatusOr<PointKey> DecodePointKey(std::string_view bytes) {
  Decoder in(bytes);
  PointKey key;
  const char letter = static_cast<char>(in.Byte());
  key.trie = in.BigEndian32();
  key.series = in.BigEndian32();
  key.hour = in.BigEndian32();
  key.ordinal = in.BigEndian64();
  if (!in.ok() || !in.done() || letter != kSeriesLetter) return DataLossError("damaged key of a point");
  return key;
}

// Of sums of a group: totals and histograms ('g'), rollups ('h', 'd').
struct GroupKey {
  char letter = kGroupLetter;
  TrieId trie = 0;
  GroupId group = 0;
  uint32_t hour = 0;
  bool operator==(const GroupKey&) const = default;
};
inline std::string EncodeGroupKey(const GroupKey& key) {
  return LetterKey(key.letter, {key.trie, key.group, key.hour});
}
inline StatusOr<GroupKey> DecodeGroupKey(std::string_view bytes) {
  Decoder in(bytes);
  GroupKey key;
  key.letter = static_cast<char>(in.Byte());
  key.trie = in.BigEndian32();
  key.group = in.BigEndian32();
  key.hour = in.BigEndian32();
  if (!in.ok() || !in.done()) return DataLossError("damaged key of a group's sum");
  return key;
}

}  // namespace pyrometer::store

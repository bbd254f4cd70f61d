// Text helpers shared by all rooms: formatting, splitting, numbers, units.
//
// StrFormat is absl's (it accepts std::string_view); the rest takes and returns
// std vocabulary types. Threads: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_format.h"

namespace pyrometer {

using absl::StrFormat;

// Splits at every `separator`; keeps empty parts. "" gives one empty part.
std::vector<std::string_view> Split(std::string_view text, char separator);
std::string Join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view StripWhitespace(std::string_view text);

// Whole-string decimal (or with base 16: hex without prefix) parse; nullopt on anything else.
std::optional<uint64_t> ParseUint64(std::string_view text, int base = 10);
std::optional<int64_t> ParseInt64(std::string_view text);

std::string HexEncode(std::string_view bytes);
// nullopt when the length is odd or a character is not a hex digit.
std::optional<std::string> HexDecode(std::string_view hex);

// True when `text` is well-formed UTF-8.
bool IsUtf8(std::string_view text);
// Copies `text`, every byte that is not part of well-formed UTF-8 replaced by U+FFFD;
// protobuf and JSON refuse such bytes and process names may hold any.
std::string ToUtf8(std::string_view text);

// "1.5 GiB", "12 B".
std::string FormatBytes(uint64_t bytes);
// "850 ns", "12.3 µs", "4.0 ms", "1.20 s", "3m05s".
std::string FormatDurationNs(uint64_t duration_ns);
// "1,234,567".
std::string FormatCount(uint64_t count);

// For maps keyed by std::string that are looked up by std::string_view.
struct TransparentStringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

}  // namespace pyrometer

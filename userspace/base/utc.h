// Points in time for people and for other tools, in UTC.
//
//   FormatUtc(now_ns, "%Y-%m-%d %H:%M:%S UTC")   "2026-11-23 22:30:00 UTC"
//
// Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pyrometer {

// `format` as of strftime(3), in the C locale.
std::string FormatUtc(int64_t unix_ns, std::string_view format);

}  // namespace pyrometer

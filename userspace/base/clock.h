// Clocks and durations.
//
// Everything the kernel stamps is nanoseconds of CLOCK_MONOTONIC (samples) or CLOCK_BOOTTIME
// (process start); everything stored is nanoseconds since the Unix epoch. ClockOffset converts.
#pragma once

#include <cstdint>
#include <string_view>

#include "userspace/base/status.h"

namespace pyrometer {

inline constexpr uint64_t kNsPerSecond = 1'000'000'000;
inline constexpr uint64_t kNsPerMs = 1'000'000;

int64_t UnixNowNs();
uint64_t MonotonicNowNs();
uint64_t BoottimeNowNs();

// Adding this to a CLOCK_MONOTONIC stamp gives Unix nanoseconds. Re-read now and then: NTP steps
// move it.
int64_t MonotonicToUnixOffsetNs();

// "90", "10s", "1.5m", "2h", "7d", "250ms" -> nanoseconds; a bare number is seconds.
StatusOr<uint64_t> ParseDuration(std::string_view text);

// A point in time: "now", "-15m" or "15m" (ago), Unix seconds or milliseconds, or RFC 3339
// ("2026-11-23T22:30:00Z"). -> Unix nanoseconds.
StatusOr<int64_t> ParseTime(std::string_view text, int64_t now_ns);

}  // namespace pyrometer

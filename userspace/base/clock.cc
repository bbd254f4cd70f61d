#include "userspace/base/clock.h"

#include <time.h>

#include <charconv>
#include <cmath>
#include <string>

#include "absl/time/time.h"
#include "userspace/base/strings.h"

namespace pyrometer {
namespace {

uint64_t ReadClock(clockid_t id) {
  timespec now;
  ::clock_gettime(id, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

// Unix stamps above this are milliseconds: as seconds it would be the year 5138.
constexpr int64_t kLargestStampInSeconds = 100'000'000'000;

}  // namespace

int64_t UnixNowNs() { return static_cast<int64_t>(ReadClock(CLOCK_REALTIME)); }
uint64_t MonotonicNowNs() { return ReadClock(CLOCK_MONOTONIC); }
uint64_t BoottimeNowNs() { return ReadClock(CLOCK_BOOTTIME); }

int64_t MonotonicToUnixOffsetNs() {
  // Two reads of the monotonic clock around the other: the midpoint halves the error of a preemption.
  const int64_t before = static_cast<int64_t>(MonotonicNowNs());
  const int64_t unix_now = UnixNowNs();
  const int64_t after = static_cast<int64_t>(MonotonicNowNs());
  return unix_now - (before + (after - before) / 2);
}

StatusOr<uint64_t> ParseDuration(std::string_view text) {
  const std::string_view stripped = StripWhitespace(text);
  double number = 0;
  const auto [end, error] = std::from_chars(stripped.data(), stripped.data() + stripped.size(), number);
  const std::string_view unit(end, static_cast<size_t>(stripped.data() + stripped.size() - end));
  double scale = 0;
  if (unit.empty() || unit == "s") scale = 1e9;
  if (unit == "ns") scale = 1;
  if (unit == "us" || unit == "µs") scale = 1e3;
  if (unit == "ms") scale = 1e6;
  if (unit == "m" || unit == "min") scale = 60e9;
  if (unit == "h") scale = 3600e9;
  if (unit == "d") scale = 86400e9;
  const double ns = number * scale;
  if (error != std::errc() || scale == 0 || !std::isfinite(ns) || ns < 0 || ns > 9e18) {
    return InvalidArgumentError(
        StrFormat("'%s' is not a duration; write for example 10s, 1.5m, 2h, 7d or 250ms", text));
  }
  return static_cast<uint64_t>(ns);
}

StatusOr<int64_t> ParseTime(std::string_view text, int64_t now_ns) {
  const std::string_view stripped = StripWhitespace(text);
  if (stripped == "now") return now_ns;
  if (const auto stamp = ParseInt64(stripped); stamp && *stamp >= 0) {
    // Bare small numbers would be ambiguous with durations in seconds; a stamp before 2001 is not a profile.
    if (*stamp > kLargestStampInSeconds) return *stamp * static_cast<int64_t>(kNsPerMs);
    if (*stamp > 1'000'000'000) return *stamp * static_cast<int64_t>(kNsPerSecond);
  }
  absl::Time parsed;
  if (absl::ParseTime(absl::RFC3339_full, absl::string_view(stripped.data(), stripped.size()), &parsed, nullptr)) {
    return absl::ToUnixNanos(parsed);
  }
  const std::string_view ago = stripped.starts_with('-') ? stripped.substr(1) : stripped;
  if (const auto duration = ParseDuration(ago); duration.ok()) return now_ns - static_cast<int64_t>(*duration);
  return InvalidArgumentError(
      StrFormat("'%s' is not a time; write now, -15m, Unix seconds or milliseconds, or 2026-01-31T12:00:00Z", text));
}

}  // namespace pyrometer

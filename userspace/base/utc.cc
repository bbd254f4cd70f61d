#include "userspace/base/utc.h"

#include "absl/time/time.h"

namespace pyrometer {

std::string FormatUtc(int64_t unix_ns, std::string_view format) {
  return absl::FormatTime(absl::string_view(format.data(), format.size()), absl::FromUnixNanos(unix_ns),
                          absl::UTCTimeZone());
}

}  // namespace pyrometer

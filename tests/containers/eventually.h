// Waiting for what another thread or process will do, and reading labels.
#pragma once

#include <unistd.h>

#include <functional>
#include <string>
#include <string_view>

#include "userspace/base/clock.h"
#include "userspace/containers/container_index.h"

namespace pyrometer::containers {

inline constexpr uint64_t kPatienceNs = 60 * kNsPerSecond;

inline bool Eventually(const std::function<bool()>& condition) {
  for (const uint64_t end = MonotonicNowNs() + kPatienceNs; MonotonicNowNs() < end; ::usleep(10'000)) {
    if (condition()) return true;
  }
  return condition();
}

// "" when absent.
inline std::string Label(const ContainerInfo& info, std::string_view name) {
  for (const auto& [key, value] : info.labels) {
    if (key == name) return value;
  }
  return "";
}

}  // namespace pyrometer::containers

// CPU lists as the kernel writes them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::kernel {

// "0-3,8,10-11\n" -> {0,1,2,3,8,10,11}; "" -> {}. INVALID_ARGUMENT for anything else, and for CPU numbers of
// kMaxCpus and more.
StatusOr<std::vector<uint32_t>> ParseCpuList(std::string_view text);

// The largest kernels are built for 8,192 CPUs.
inline constexpr uint32_t kMaxCpus = 8192;

// CPUs that are online now, ascending.
StatusOr<std::vector<uint32_t>> OnlineCpus();

}  // namespace pyrometer::kernel

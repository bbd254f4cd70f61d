// The version of this software, set by CMake's project().
#pragma once

#include <string_view>

namespace pyrometer {

extern const std::string_view kVersion;  // "0.1.0"

}  // namespace pyrometer

// speedscope's file format (https://www.speedscope.app). See docs/formats/speedscope.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"
#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

inline constexpr std::string_view kSpeedscopeSchema = "https://www.speedscope.app/file-format-schema.json";

// One "sampled" profile for each value type and container, named like a selector: cpu{container.name="shop"}.
StatusOr<std::string> WriteSpeedscope(const profile::Profile& profile, std::string_view title,
                                      std::vector<std::string>* notes);

// "sampled" and "evented" profiles; several become one, told apart by a label. An error names the profile.
StatusOr<profile::Profile> ReadSpeedscope(const nlohmann::json& document, std::vector<std::string>* notes);

}  // namespace pyrometer::formats

// Pyrometer's own JSON: a Profile as it is, nothing lost. See docs/formats/json.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"
#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// The value of the member "format", by which readers recognise it.
inline constexpr std::string_view kProfileJsonFormat = "pyrometer-profile";
// Grows when a reader of the old version would misread the new one; new members alone do not count.
inline constexpr int64_t kProfileJsonVersion = 1;

StatusOr<std::string> WriteProfileJson(const profile::Profile& profile, std::vector<std::string>* notes);

// FAILED_PRECONDITION for a newer version; INVALID_ARGUMENT names the member that is wrong.
StatusOr<profile::Profile> ReadProfileJson(const nlohmann::json& document);

}  // namespace pyrometer::formats

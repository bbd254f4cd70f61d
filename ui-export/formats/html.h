// One self-contained interactive page: the viewer that ui-export/web builds, with the data inside.
#pragma once

#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// FAILED_PRECONDITION when this program was built without the page (-DPYROMETER_WEB=OFF).
StatusOr<std::string> WriteHtml(const profile::Profile& profile, std::string_view title);

}  // namespace pyrometer::formats

// A flame graph as one SVG picture: complete without scripts (tool tips included); where scripts run,
// a click zooms and Ctrl-F searches. Root on top, children by name, coloured by what executed.
#pragma once

#include <string>
#include <vector>

#include "ui-export/formats/format.h"
#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

StatusOr<std::string> WriteSvg(const profile::Profile& profile, const WriteOptions& options,
                               std::vector<std::string>* notes);

// "12.3 ms", "4.0 MiB", "1,234" as the unit asks; negative values with a sign.
std::string FormatValue(int64_t value, std::string_view unit);

}  // namespace pyrometer::formats

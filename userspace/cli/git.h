// What git says of the repository that the current folder is in.
#pragma once

#include <string>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::cli {

// Standard output of `git ARGUMENTS`, at most 64 MiB; its errors are not shown. NOT_FOUND when it fails or is not
// installed.
StatusOr<std::string> GitOutput(std::vector<std::string> arguments);

}  // namespace pyrometer::cli

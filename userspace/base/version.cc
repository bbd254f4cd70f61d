#include "userspace/base/version.h"

namespace pyrometer {

const std::string_view kVersion = PYROMETER_VERSION;

}  // namespace pyrometer

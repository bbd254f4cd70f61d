// Looks at TLS files before a listener gets them: libraries say only that something failed.
#pragma once

#include <string>

#include "userspace/base/status.h"

namespace pyrometer::server {

// INVALID_ARGUMENT when a file is no certificate or key, or they do not belong together; NOT_FOUND,
// PERMISSION_DENIED when it cannot be read. `client_ca_file` may be empty.
Status CheckTlsFiles(const std::string& cert_file, const std::string& key_file, const std::string& client_ca_file);

}  // namespace pyrometer::server

// pprof's profile.proto. See docs/formats/pprof.md for how our data model maps onto it.
// Use formats/format.h; this header is for tests and for servers that speak pprof over HTTP.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// Serialised message, not compressed.
StatusOr<std::string> WritePprof(const profile::Profile& profile, std::vector<std::string>* notes);

// `bytes` not compressed. Reads the message in two passes over `bytes`, one table entry at a time, so
// that memory stays a small multiple of the input whatever it claims to hold.
StatusOr<profile::Profile> ReadPprof(std::string_view bytes, std::vector<std::string>* notes);

// Comments that carry our accounting through formats without a field for it.
std::string AccountingComment(const profile::Accounting& accounting);
// False when `comment` is an ordinary one or malformed.
bool ParseAccountingComment(std::string_view comment, profile::Accounting* accounting);

}  // namespace pyrometer::formats

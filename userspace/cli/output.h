// The flags -o/--format that record, session, flame and export share.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "ui-export/formats/format.h"
#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::cli {

struct OutputFlags {
  std::vector<std::string> paths;  // -o, may repeat; "-" is standard output
  std::string format;              // --format, for all paths; empty = by extension
};

// Adds -o and --format. The flags live as long as the command.
std::shared_ptr<OutputFlags> AddOutputFlags(CLI::App* command);

// Formats of all paths, checked before any work is done: unknown extension, a folder that does not exist or
// cannot be written.
StatusOr<std::vector<formats::Format>> ResolveOutputs(const OutputFlags& flags);

// Writes each file and says so on stderr, with what the format could not hold.
Status WriteOutputs(const profile::Profile& profile, const OutputFlags& flags,
                    const std::vector<formats::Format>& formats, const std::string& title);

}  // namespace pyrometer::cli

// Folded stacks: one line per stack, "root;…;leaf count". See docs/formats/folded.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ui-export/formats/format.h"
#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// Lines sorted by stack. Stacks with a negative sum are left out, with a note.
StatusOr<std::string> WriteFolded(const profile::Profile& profile, const WriteOptions& options,
                                  std::vector<std::string>* notes);

// Accepts one or two counts per line (two: a comparison, values "before" and "after"), "#" comments,
// CRLF line ends. An error names the line.
StatusOr<profile::Profile> ReadFolded(std::string_view text, std::vector<std::string>* notes);

}  // namespace pyrometer::formats

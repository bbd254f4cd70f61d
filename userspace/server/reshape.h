// Changes to a profile for display; totals stay what they were.
// Threads: pure.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "userspace/profile/profile.h"

namespace pyrometer::server {

// Puts the values of these labels as synthetic frames at the root of each stack, the first label
// outermost; "(no <label>)" for samples without it.
profile::Profile RootAtLabels(const profile::Profile& profile, const std::vector<std::string>& labels);

// Keeps the `max_nodes` stack nodes with the largest totals (of the default value); what was deeper counts
// under one synthetic child "(smaller)" of its nearest kept ancestor. Unchanged when there are not more.
profile::Profile LimitNodes(profile::Profile profile, size_t max_nodes);

}  // namespace pyrometer::server

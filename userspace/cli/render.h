// Profiles as text for a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "userspace/profile/profile.h"
#include "userspace/query/engine.h"

namespace pyrometer::cli {

// "cpu: 12.3 s in 1,234 samples over 10.0 s" and, when anything was lost, a line that says how much and why.
std::string RenderSummary(const profile::Profile& profile);

// The `limit` hottest functions: share, self, total, name, module.
std::string RenderTop(const profile::Profile& profile, size_t limit, query::TopOrder order);

// The same for every container (or service outside containers), most CPU first. Needs samples that carry the
// labels container.name and service.
std::string RenderTopPerContainer(const profile::Profile& profile, size_t limit, query::TopOrder order);

// A tree with bars: every node of at least `min_share` of the whole.
std::string RenderFlame(const profile::Profile& profile, const std::vector<std::string>& root_labels, double min_share);

// Rows of `pyrometer top --json`.
std::string TopJson(const profile::Profile& profile, size_t limit, query::TopOrder order);

// The part of `profile` whose samples carry label set `labels`.
profile::Profile Slice(const profile::Profile& profile, profile::LabelSetId labels);

}  // namespace pyrometer::cli

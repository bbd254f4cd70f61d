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

// Unit of the value that is shown.
const std::string& DefaultUnit(const profile::Profile& profile);

// The rows of a table: share, self, total, name, module.
std::string RenderTop(const profile::TopTable& top, const std::string& unit);

// The `limit` hottest functions of every container (or service outside containers), most CPU first. Needs samples that
// carry the labels container.name and service.
std::string RenderTopPerContainer(const profile::Profile& profile, size_t limit, query::TopOrder order);

// A tree with bars: every box.
std::string RenderFlame(const profile::Profile& profile);

// Rows of `pyrometer top --json`.
std::string TopJson(const profile::TopTable& top, const std::string& unit);

}  // namespace pyrometer::cli

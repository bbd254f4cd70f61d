// Was it only the layout? Where every binary that differs between the sides has the same code in another order, and
// both commands are the same but for paths, a function that takes longer was not made slower by anybody.
#pragma once

#include <set>
#include <string>

#include "userspace/regression/report.h"

namespace pyrometer::cli {

// Moves the findings of a regression to Report::layout and makes it a pass, where that is so. `baseline_files` and
// `candidate_files`: what was mapped while they were sampled. Whatever cannot be compared leaves the report as it was.
void SuspectLayout(const std::set<std::string>& baseline_files, const std::set<std::string>& candidate_files,
                   regression::Report* report);

}  // namespace pyrometer::cli

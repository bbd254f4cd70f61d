// Was it only the layout? A function can take longer because code or data lie elsewhere (alignment, cache sets, branch
// predictors), and then nobody made it slower.
//
// Suspected where both commands are the same but for paths, and either
//  - every binary that differs between the sides has the same code and data in another order, or
//  - the runs executed no more instructions, nothing became faster, and the code of each function that takes longer and
//    all objects by name are the same: then it was neither changed nor called more often.
// What it cannot tell from layout: data that another function laid out worse for an unchanged one, in which that
// function saves as many instructions as the rest needs more.
#pragma once

#include <set>
#include <string>

#include "userspace/regression/report.h"

namespace pyrometer::regression {

// Moves the findings of a regression to Report::layout and makes it a pass, where that is so. `baseline_files` and
// `candidate_files`: what was mapped while they were sampled. Whatever cannot be compared leaves the report as it was.
// Cost: that of comparing code (same_code.h), and only for a regression.
void SuspectLayout(const std::set<std::string>& baseline_files, const std::set<std::string>& candidate_files,
                   Report* report);

}  // namespace pyrometer::regression

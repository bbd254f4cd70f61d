// Runs of a command in a file, so that they can be compared later: what `pyrometer ci record` writes.
//
//   RETURN_IF_ERROR(WriteRunFile("base.pyro", runs));
//   ASSIGN_OR_RETURN(RunSet base, ReadRunFile("base.pyro"));
//
// JSON, described in docs/formats/runs.md: functions, stacks and counts of one side, and how they were made. A file is
// a stranger's: every index is checked, sizes have limits, and the error names what is wrong.
//
// Threads: pure. Cost: about 20 bytes of file per distinct (run, stack).
#pragma once

#include <string>
#include <string_view>

#include "userspace/base/status.h"
#include "userspace/regression/run_set.h"

namespace pyrometer::regression {

// The runs' sides are not kept: whoever reads the file says which side it is.
std::string SerializeRuns(const RunSet& runs);
// All runs as baseline runs of one block each. DATA_LOSS for anything else than a run file, FAILED_PRECONDITION for one
// of a later version.
StatusOr<RunSet> ParseRuns(std::string_view text);

Status WriteRunFile(const std::string& path, const RunSet& runs);
StatusOr<RunSet> ReadRunFile(const std::string& path);

}  // namespace pyrometer::regression

// Change points of a program's functions over its versions: `pyrometer ci check --history`.
//
//   History history = FindHistory(runs, version_of_run, versions, {});
//   for (const HistoryChange& change : history.changes) …    // "since 3f2a: scan() takes 12 % more"
//
// A version is one point, however many runs it has: runs of one day share what the machine did that day. Counts are
// normalised by the size factors of a check (analysis.h), the total CPU time is a column beside the functions.
//
// Threads: pure. Cost: that of FindChangePoints over at most kMaxHistoryColumns functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "userspace/regression/run_set.h"

namespace pyrometer::regression {

inline constexpr size_t kMaxHistoryColumns = 2000;
// Fewer versions cannot show a change at 1 % (change_points.h).
inline constexpr size_t kLeastVersions = 10;

struct HistoryOptions {
  double level = 0.01;
  double min_effect = 0.002;       // of the total: smaller changes are not told
  double min_total_effect = 0.02;  // of the total itself, as a ratio
  size_t draws = 2'000;
  uint64_t seed = 1;
};

struct HistoryChange {
  FunctionIndex function = 0;  // 0: the total CPU time
  size_t version = 0;          // the first with the new level
  double ratio = 1;            // after ÷ before
  double share_before = 0;     // of the total
  double share_after = 0;      // of the total before
  double p = 1;
  bool standing = false;                  // no later change of the same function
  std::vector<FunctionIndex> moved_from;  // it gained what these lost with the same version
};

struct History {
  std::vector<std::string> versions;
  size_t columns = 0;
  std::vector<HistoryChange> changes;  // newest first, then the largest

  // A change for the worse that no later one undid, and that is not moved work.
  bool HasStandingRegression() const;
};

// `version_of_run[i]` is an index into `versions`, which are in order of time; each has a run.
History FindHistory(const RunSet& runs, const std::vector<uint32_t>& version_of_run, std::vector<std::string> versions,
                    const HistoryOptions& options);

}  // namespace pyrometer::regression

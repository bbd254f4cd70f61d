// What a change touched, from a unified diff, to rank the findings of a check by: a function whose own lines changed is
// more likely the cause than one that nobody touched.
//
//   ASSIGN_OR_RETURN(const ChangedLines changed, ChangedLines::Parse(diff));   // as `git diff` writes it
//   RankByChange(runs, changed, &verdict);
//
// It orders findings and says why; it adds and removes none. Debug information knows where a function begins and not
// where it ends: a changed line belongs to the function that begins last before it among those that the profile knows,
// so a line of an unknown function may be held for one of the function above it.
//
// Threads: pure. Cost: linear in the diff.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/regression/verdict.h"

namespace pyrometer::regression {

class ChangedLines {
 public:
  struct File {
    std::string path;            // as in the new version; of a file that is gone as in the old one
    std::vector<int32_t> lines;  // of the new version, ascending: added lines, and the line after removed ones
  };

  // INVALID_ARGUMENT when there is text and no file header in it. An empty diff changed nothing.
  static StatusOr<ChangedLines> Parse(std::string_view diff);

  const std::vector<File>& files() const { return files_; }
  // The file of the diff that a source path of debug information means: equal from the last component on, as far as the
  // shorter one goes, the longest such; null for none.
  const File* Find(std::string_view source_path) const;

 private:
  std::vector<File> files_;
};

// Sets Finding::change of all findings and orders them by it, equal ones as they were.
void RankByChange(const RunSet& runs, const ChangedLines& changed, Verdict* verdict);

}  // namespace pyrometer::regression

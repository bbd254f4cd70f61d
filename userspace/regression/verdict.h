// From the statistics of a check to what is said of it: did the candidate become slower, which functions did it, and
// what only moved.
//
//   const Analysis analysis(counts, design, {.level = 0.01});
//   const Verdict verdict = Judge(runs, analysis, {});
//   if (verdict.decision == Decision::kRegression) use(verdict.findings.front());
//
// It starts from the functions that the test found slower and only takes away from them; it never raises an alarm of
// its own.
//  - Moved: where related functions (same source file, same class, same direct caller, or caller and callee) lost what
//  this one
//    gained, all of them together are measured as if they were one function. If that one is not slower, the work was
//    renamed, inlined, outlined or handed on: "moved, not slower".
//  - Guilty: a function whose own samples rose. A caller is guilty only if it is still slower without the stacks that
//  lead through
//    guilty or moved functions.
//
// Threads: pure. Cost: one pass over all (run, stack) pairs for each finding, at most kMaxFindings of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "userspace/regression/analysis.h"
#include "userspace/regression/run_set.h"

namespace pyrometer::regression {

// More functions than that are one change of something they share; the largest are explained, `findings_left_out`
// counts the rest.
inline constexpr size_t kMaxFindings = 50;

enum class Decision { kPass, kRegression, kUndecided };
// "pass", "regression", "undecided".
std::string_view DecisionName(Decision decision);

// How a finding hangs together with what a diff changed (changed_lines.h), least first.
enum class ChangeRelation : uint8_t { kNone, kSameFile, kCalledByChanged, kCallsChanged, kItself };
struct ChangeLink {
  ChangeRelation relation = ChangeRelation::kNone;
  FunctionIndex function = 0;  // the one whose lines changed; with kSameFile the finding's own
  int32_t line = 0;            // the first changed line there; 0 unknown
};

struct Finding {
  FunctionIndex function = 0;  // 0: the whole program, by its CPU time
  bool inclusive = false;      // the effect is of the function with what it calls
  Effect effect;
  // What brings the excess, most first, at most three: direct callers; for a function of a library or the kernel the
  // nearest functions of the program.
  struct Caller {
    FunctionIndex function = 0;
    double excess = 0;
  };
  std::vector<Caller> callers;
  std::vector<FunctionIndex> moved_from;  // not empty: moved, not slower
  ChangeLink change;                      // set by RankByChange
};

struct VerdictOptions {
  // A check that would have missed a slowdown of one function by this share of the total has decided nothing by finding
  // nothing.
  double largest_detectable = 0.05;
  double largest_lost_share = 0.05;  // of samples lost, above which counts are not trusted
};

struct Verdict {
  Decision decision = Decision::kPass;
  std::string reason;             // one sentence for people
  std::vector<Finding> findings;  // guilty: own samples first, then largest excess first
  size_t findings_left_out = 0;
  std::vector<Finding> moved;
  std::vector<FunctionIndex> faster;  // by own samples, largest gain first
  double detectable_share = 0;        // Analysis::DetectableShare()
  size_t pairs_needed = 0;            // undecided: pairs of runs that would decide; 0 = unknown
};

// `analysis` is of `runs`.
Verdict Judge(const RunSet& runs, const Analysis& analysis, const VerdictOptions& options);

}  // namespace pyrometer::regression

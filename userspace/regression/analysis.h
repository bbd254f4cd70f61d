// The statistics of a check: from counts of functions per run to effects with their certainty.
//
//   CountTable counts = CountFunctions(runs);
//   Analysis analysis(counts, runs.MakeDesign(), {.level = 0.01});
//   for (const FunctionEffect& f : analysis.functions()) if (f.exclusive.slower) …
//
// docs/design/006-ci.md derives it. In short: y = ln(count + ½) − ln(size factor of the run); the difference of y
// between the sides in units of its standard error; the max-T randomisation test over the exclusive and inclusive
// counts of all functions and the total CPU time. A function is `slower` when (a) its adjusted p-value is at most
// `level` and (b) the lower confidence bound of its excess, at the same level for it alone, is above the minimum
// effect.
//
// The chance that any function of an unchanged program is `slower` is at most `level`.
//
// Threads: pure after construction. Cost: that of MaxTTest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "userspace/regression/count_table.h"
#include "userspace/regression/distributions.h"
#include "userspace/regression/max_t_test.h"

namespace pyrometer::regression {

// Functions with fewer samples per run, averaged over all runs of both sides, are not tested: their logarithm says
// little and even a doubling of theirs is below the minimum effect of any check that decides anything.
inline constexpr double kLeastMeanCount = 5;

struct AnalysisOptions {
  double level = 0.01;  // of this test; a look's share of alpha
  // A function that is slower by less than the minimum effect (no false alarm, but not worth one) is `slower` with at
  // most this chance.
  double effect_level = 0.05;
  double min_effect = 0.002;  // of the total CPU time: the smallest slowdown of a function worth failing for
  // The same for the total, as a ratio: layout alone moves whole programs by about as much.
  double min_total_effect = 0.02;
  double power = 0.9;        // that minimum detectable effects are stated for
  double confidence = 0.95;  // of intervals, two-sided, each by itself
  size_t draws = 10'000;
  uint64_t seed = 1;
};

struct Effect {
  bool tested = false;
  // Samples per run after size factors, mean of each side.
  double baseline_count = 0;
  double candidate_count = 0;
  // Of the baseline's total after size factors: what the function takes, and what it takes more.
  double baseline_share = 0;
  double candidate_share = 0;
  double excess = 0;
  Interval excess_interval;
  // candidate ÷ baseline, geometric; 0 and infinity for vanished and new functions.
  double ratio = 1;
  Interval ratio_interval{1, 1};
  double t = 0;
  double p = 1;         // adjusted, one-sided: slower
  double p_faster = 1;  // adjusted, one-sided: faster
  bool slower = false;
  bool faster = false;
  // In one side there is so little of it that a ratio means nothing; the interval of the excess is then Poisson's.
  bool is_new = false;
  bool vanished = false;
  // What this check would have found with AnalysisOptions::power: a ratio minus 1, and as a share of the total.
  double detectable = 0;
  double detectable_share = 0;
};

struct FunctionEffect {
  FunctionIndex function = 0;
  Effect exclusive;
  Effect inclusive;
};

// How the logarithm of a count varies from run to run, by its mean: as counts do, times what sampling in step with the
// program adds to small functions (their slices are hit by turns), and by as much for all, whatever their size.
struct NoiseModel {
  double counting = 1;     // c, at least 1: where samples are independent
  double phi_squared = 0;  // φ²

  double Variance(double mean_count) const { return counting / mean_count + phi_squared; }
};

class Analysis {
 public:
  // Preconditions as MaxTTest's.
  Analysis(const CountTable& counts, Design design, const AnalysisOptions& options);

  // All functions with any sample, tested or not, in the order of their index.
  const std::vector<FunctionEffect>& functions() const { return functions_; }
  // CPU time of the whole runs, without size factors. Not tested where runs do not know their CPU time.
  const Effect& total() const { return total_; }

  // Instructions of the whole runs. Not tested where runs do not know them; never `slower`, since more of them is no
  // harm by itself: they tell what a slowdown comes from.
  const Effect& instructions() const { return instructions_; }

  // The effect of any other set of counts, one per run, as if it were a function: for merged functions and for callers'
  // parts. It is held against the same distribution of the maximum.
  Effect Measure(std::span<const double> counts) const;

  // The largest detectable_share over the functions tested by their exclusive counts: a slowdown of one function by
  // this much of the total would have been seen. Infinite when nothing can be seen.
  double DetectableShare() const;
  // Pairs of runs after which DetectableShare() would be at most `share`, noise staying as it is; 0 = never, the
  // minimum effect alone is above it.
  size_t PairsFor(double share) const;
  // No function is slower by more than the minimum effect, with simultaneous confidence.
  bool RulesOutMinEffect() const;

  const std::vector<double>& log_size_factors() const { return log_size_; }
  const MaxTResult& test() const { return test_; }
  const NoiseModel& noise() const { return noise_; }
  double critical() const { return critical_; }
  const Design& design() const { return design_; }
  const CountTable& counts() const { return counts_; }
  const AnalysisOptions& options() const { return options_; }
  size_t tested() const { return columns_.size(); }

 private:
  enum class Kind : uint8_t { kExclusive, kInclusive, kTotal };
  struct Column {
    Kind kind;
    FunctionIndex function;
  };

  // Holds the columns that have not changed in either direction against the largest t among themselves. Where there are
  // few arrangements, a column that changed much has a large t in many of them, and would hide all others. An unchanged
  // table comes here only after a false "faster" or "slower": what that adds to the chance of a false alarm is small
  // beside it, and is in the figures of tests/bench/ci_simulation.
  void TestTheRest(const RunTable& table);
  RunTable::Prior PriorFor(double mean_count) const;
  double LogCount(double count, size_t run) const;
  Effect Describe(std::span<const double> counts, const MaxTColumn* column) const;
  void Decide(const MaxTColumn& column, Effect* effect) const;
  double Detectable(double standard_error, double degrees, double share) const;
  void DescribeWhole(const MaxTColumn& column, Effect* effect) const;
  void DescribeTotal(const MaxTColumn& column);
  void DescribeInstructions();

  const CountTable& counts_;
  const Design design_;
  const AnalysisOptions options_;
  std::vector<double> log_size_;
  double baseline_total_ = 0;  // mean over baseline runs, after size factors
  NoiseModel noise_;
  std::vector<Column> columns_;
  MaxTResult test_;
  double critical_ = 0;
  std::vector<FunctionEffect> functions_;
  std::vector<std::pair<double, double>> errors_;  // of exclusive columns: (standard error, share)
  Effect total_;
  Effect instructions_;
};

// Logarithm of each run's size factor: how much of everything it has; mean 0. Where runs know the work that was done
// (iterations of a benchmark), that: such a program runs for a time, in which the kernel's interrupts stay as many
// whatever the benchmark does, and functions would take those for the measure. Else Huber's estimate over functions
// (small ones pooled) of the deviations from their own mean, weighted by precision; with fewer than two all zero.
std::vector<double> LogSizeFactors(const CountTable& counts);

}  // namespace pyrometer::regression

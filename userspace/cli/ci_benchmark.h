// `pyrometer ci run --benchmark`: both commands are Google Benchmark programs.
//
// Each benchmark that both have is run alone, in a process of its own, so that samples are its own; benchmarks take
// turns in random order, and of each the sides take turns in blocks as always. A benchmark is decided like a program,
// with the CPU time of an iteration, by the benchmark's own clock, for the total. All benchmarks together raise a false
// alarm in at most alpha of checks: each gets its share.
#pragma once

#include <vector>

#include "userspace/cli/ci_output.h"

namespace pyrometer::cli {

// Returns the exit code.
int RunBenchmarks(const CiFlags& flags, const std::vector<regression::ReportFormat>& formats);

}  // namespace pyrometer::cli

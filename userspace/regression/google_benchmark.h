// What a Google Benchmark program says of itself: which benchmarks it has, and how long an iteration of one took.
//
//   ParseBenchmarkList(output of "./bench --benchmark_list_tests")             -> {"BM_Scan/8", "BM_Scan/64"}
//   ExactBenchmarkFilter("BM_Scan<int>/8")                                      -> "^BM_Scan<int>/8$"
//   ASSIGN_OR_RETURN(BenchmarkTimes times, ParseBenchmarkTimes(text of --benchmark_out));
//
// Such a program runs for a time, not for an amount of work: what it did is its number of iterations.
//
// Threads: pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"

namespace pyrometer::regression {

struct BenchmarkTimes {
  uint64_t iterations = 0;
  double cpu_ns = 0;   // per iteration
  double real_ns = 0;  // per iteration
};

// One name a line. NOT_FOUND when there is none, INVALID_ARGUMENT when the text is no such list.
StatusOr<std::vector<std::string>> ParseBenchmarkList(std::string_view text);

// A regular expression (POSIX extended and ECMAScript alike) that `name` alone matches.
std::string ExactBenchmarkFilter(std::string_view name);

// Of a program that ran one benchmark. Several repetitions are averaged. FAILED_PRECONDITION when the benchmark
// reported an error.
StatusOr<BenchmarkTimes> ParseBenchmarkTimes(std::string_view json);

// Only the samples inside a benchmark: whose stack has a function that takes a benchmark::State. The others, start and
// end of the process, do not grow with the iterations. `profile` itself where no stack has such a function (no
// symbols).
profile::Profile InsideBenchmarks(profile::Profile profile);

}  // namespace pyrometer::regression

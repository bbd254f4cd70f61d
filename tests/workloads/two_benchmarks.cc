// A Google Benchmark program for `pyrometer ci run --benchmark`: three benchmarks, of which two call work_of_a().
//
// SLOW_PERCENT=P in the environment gives work_of_a() P percent more to do; ONLY_HERE=1 adds a benchmark.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>

namespace {

volatile uint64_t sink;

unsigned StepsOfA() {
  const char* percent = std::getenv("SLOW_PERCENT");
  return static_cast<unsigned>(1000 * (1 + (percent != nullptr ? std::atof(percent) : 0) / 100));
}

}  // namespace

// The work is written out in each, as in many_functions.
#define WORK(name)                                               \
  __attribute__((noinline, noclone)) void name(unsigned steps) { \
    uint64_t x = sink;                                           \
    for (unsigned i = 0; i < steps; ++i) {                       \
      x = x * 6364136223846793005u + 1442695040888963407u;       \
      asm volatile("" : "+r"(x));                                \
    }                                                            \
    sink = x;                                                    \
  }
WORK(work_of_a)
WORK(work_of_b)

namespace {

void BM_A(benchmark::State& state) {
  const unsigned steps = StepsOfA();
  for (auto _ : state) work_of_a(steps);
}
void BM_B(benchmark::State& state) {
  for (auto _ : state) work_of_b(1000);
}
// Brackets and commas, which a filter must not take for its own.
template <typename T, int kTimes>
void BM_Both(benchmark::State& state) {
  const unsigned steps = StepsOfA();
  for (auto _ : state) {
    work_of_a(steps);
    for (int i = 0; i < kTimes; ++i) work_of_b(static_cast<unsigned>(state.range(0)));
  }
}
BENCHMARK(BM_A);
BENCHMARK(BM_B);
BENCHMARK_TEMPLATE(BM_Both, int, 3)->Arg(1000);

}  // namespace

int main(int argc, char** argv) {
  if (std::getenv("ONLY_HERE") != nullptr) benchmark::RegisterBenchmark("BM_OnlyHere", BM_B);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

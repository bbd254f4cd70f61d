// A fixed amount of work in 200 functions of known shares: f000 has 20 % of it, f001 5 %, f002 1 %, the other 197 share
// the rest alike. What a regression check has to see.
//
//   many_functions [ROUNDS]            about 2 ms a round (default 500)
//
// SLOW_FUNCTION=N SLOW_PERCENT=P in the environment gives function N P percent more work.
//
// Built with REORDERED it is the same program with its functions in another order; with RENAMED, f000 has another name
// as well: nothing became slower.
#include <cstdint>
#include <cstdlib>

#ifdef RENAMED
#define f000 new_name_of_f000
#define REORDERED
#endif

namespace {

constexpr unsigned kFunctions = 200;
constexpr unsigned kStepsPerRound = 1'000'000;
volatile uint64_t sink;

using Function = void (*)(unsigned);

}  // namespace

// The work is written out in each: of an inlined function a profile would tell that it became slower, called by f000.
#define F1(n)                                                    \
  __attribute__((noinline, noclone)) void f##n(unsigned steps) { \
    uint64_t x = sink;                                           \
    for (unsigned i = 0; i < steps; ++i) {                       \
      x = x * 6364136223846793005u + 1442695040888963407u;       \
      asm volatile("" : "+r"(x));                                \
    }                                                            \
    sink = x;                                                    \
  }
#define N1(n) f##n,
#define TEN(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7) X(n##8) X(n##9)
#define HUNDRED(X, n) \
  TEN(X, n##0)        \
  TEN(X, n##1) TEN(X, n##2) TEN(X, n##3) TEN(X, n##4) TEN(X, n##5) TEN(X, n##6) TEN(X, n##7) TEN(X, n##8) TEN(X, n##9)

#ifdef REORDERED
HUNDRED(F1, 1)
HUNDRED(F1, 0)
#else
HUNDRED(F1, 0)
HUNDRED(F1, 1)
#endif

namespace {
constexpr Function kAll[kFunctions] = {HUNDRED(N1, 0) HUNDRED(N1, 1)};
}

__attribute__((noinline)) void round_of_all(const unsigned* steps) {
  for (unsigned i = 0; i < kFunctions; ++i) kAll[i](steps[i]);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 500;
  unsigned steps[kFunctions];
  for (unsigned i = 0; i < kFunctions; ++i) {
    const double share = i == 0 ? 0.20 : i == 1 ? 0.05 : i == 2 ? 0.01 : 0.74 / (kFunctions - 3);
    steps[i] = static_cast<unsigned>(share * kStepsPerRound);
  }
  const char *which = std::getenv("SLOW_FUNCTION"), *percent = std::getenv("SLOW_PERCENT");
  if (which != nullptr && percent != nullptr) {
    unsigned& slow = steps[static_cast<unsigned>(std::atoi(which)) % kFunctions];
    slow = static_cast<unsigned>(slow * (1 + std::atof(percent) / 100));
  }
  for (int i = 0; i < rounds; ++i) round_of_all(steps);
  return 0;
}

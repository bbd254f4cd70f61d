// Level and power of the regression check on made-up programs, looks included: what docs/ci.md says about false alarms.
//
//   ci_simulation [--checks N] [--only WORD] [--seed N] [--threads N]
//
// A made-up program has functions with Zipf shares in a random call tree. A run draws its counts: Poisson around share
// × speed of the run × noise of the function. The scenarios differ in the noise; "level" rows change nothing between
// the sides and count false alarms with the one-sided 95 % Clopper–Pearson bound; "power" rows slow one function down.
//
// Exit code 1 when a level's bound shows more than 1 % false alarms (the count is above what 1 % would give with 99.9
// %).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/regression/analysis.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::regression {
namespace {

constexpr double kAlpha = 0.01;

struct Scenario {
  std::string name;
  size_t functions = 300;
  size_t pairs = 16;
  double samples = 5000;    // per run
  double phi = 0.01;        // noise of each function from run to run
  double speed_cv = 0.03;   // of the run as a whole
  double drift = 0;         // each function moves by a random amount of this size from first run to last
  double outlier_runs = 0;  // share of runs in which a tenth of all functions takes half as much again
  double neighbour = 0;     // a neighbour comes and goes; functions suffer by up to this
  double systematic = 0;    // share of functions counted with less noise than Poisson's (sampling in step)
  double epsilon = 0;       // slowdown …
  double share = 0.05;      // … of the function nearest to this share
  double min_effect = 0.002;
};

using Engine = std::mt19937_64;

double Gauss(Engine& engine) { return std::normal_distribution<double>()(engine); }

class Program {
 public:
  Program(const Scenario& scenario, Engine& engine) : scenario_(scenario) {
    double sum = 0;
    for (size_t f = 1; f <= scenario.functions; ++f) sum += 1 / std::pow(static_cast<double>(f), 1.1);
    for (size_t f = 1; f <= scenario.functions; ++f) {
      share_.push_back(1 / std::pow(static_cast<double>(f), 1.1) / sum);
      parent_.push_back(f == 1 ? 0 : engine() % (f - 1));
    }
    // Any function may call any: shares are dealt out at random over the tree.
    std::shuffle(share_.begin(), share_.end(), engine);
    for (size_t f = 0; f < share_.size(); ++f) {
      if (std::abs(std::log(share_[f] / scenario.share)) < std::abs(std::log(share_[slow_] / scenario.share)))
        slow_ = f;
      trend_.push_back(Gauss(engine) * scenario.drift);
      suffers_.push_back(std::uniform_real_distribution<double>(0, scenario.neighbour)(engine));
    }
  }

  CountTable Run(const Design& design, Engine& engine) const {
    const size_t runs = design.runs(), functions = share_.size();
    CountTable table(runs, functions + 1);
    bool noisy = engine() % 2 == 0;
    for (size_t r = 0; r < runs; ++r) {
      if (engine() % 5 == 0) noisy = !noisy;
      const double speed = std::exp(Gauss(engine) * scenario_.speed_cv);
      const bool outlier = std::uniform_real_distribution<double>()(engine) < scenario_.outlier_runs;
      double cpu = 0;
      for (size_t f = 0; f < functions; ++f) {
        double mean = share_[f] * scenario_.samples * speed;
        if (f == slow_ && design.side[r] == Side::kCandidate) mean *= 1 + scenario_.epsilon;
        mean *= 1 + trend_[f] * (static_cast<double>(r) / static_cast<double>(runs) - 0.5);
        if (noisy) mean *= 1 + suffers_[f];
        if (outlier && engine() % 10 == 0) mean *= 1.5;
        if (scenario_.phi > 0) {
          const double shape = 1 / (scenario_.phi * scenario_.phi);
          mean *= std::gamma_distribution<double>(shape, 1 / shape)(engine);
        }
        double count;
        if (static_cast<double>(f % 100) < 100 * scenario_.systematic) {
          count = std::floor(mean + std::uniform_real_distribution<double>()(engine));
        } else {
          count = static_cast<double>(std::poisson_distribution<int64_t>(std::max(mean, 1e-9))(engine));
        }
        table.exclusive(r, f + 1) = table.inclusive(r, f + 1) = count;
        table.total(r) += count;
        cpu += mean;
      }
      for (size_t f = functions; f-- > 1;) table.inclusive(r, parent_[f] + 1) += table.inclusive(r, f + 1);
      table.cpu_ns(r) = cpu * 1e6;
    }
    return table;
  }
  size_t slow() const { return slow_ + 1; }

 private:
  const Scenario& scenario_;
  std::vector<double> share_, trend_, suffers_;
  std::vector<size_t> parent_;
  size_t slow_ = 0;
};

struct Outcome {
  bool alarm = false;
  bool right = false;  // the most significant exclusive count is that of the slowed function
  size_t pairs = 0;
  double detectable = 0;        // of the slowed function, at the last look
  double detectable_share = 0;  // printed
};

CountTable FirstRuns(const CountTable& all, size_t runs) {
  CountTable table(runs, all.functions());
  for (size_t r = 0; r < runs; ++r) {
    for (size_t f = 0; f < all.functions(); ++f) {
      table.exclusive(r, f) = all.exclusive(r, f);
      table.inclusive(r, f) = all.inclusive(r, f);
    }
    table.total(r) = all.total(r);
    table.cpu_ns(r) = all.cpu_ns(r);
  }
  return table;
}

Outcome Check(const Scenario& scenario, uint64_t seed) {
  Engine engine(seed);
  Random random(seed);
  const Program program(scenario, engine);
  Design design;
  for (uint32_t block = 0; block < scenario.pairs / kPairsPerBlock; ++block) {
    for (const Side side : DrawBlock(&random)) {
      design.side.push_back(side);
      design.block.push_back(block);
    }
  }
  const CountTable counts = program.Run(design, engine);
  Outcome outcome;
  for (const Look& look : PlanLooks(scenario.pairs, kAlpha)) {
    Design part = design;
    part.side.resize(2 * look.pairs);
    part.block.resize(2 * look.pairs);
    const CountTable seen = FirstRuns(counts, 2 * look.pairs);
    const Analysis analysis(seen, part,
                            {.level = look.level, .min_effect = scenario.min_effect, .draws = 2000, .seed = seed});
    outcome.pairs = look.pairs;
    outcome.detectable_share = analysis.DetectableShare();
    double best = 0;
    size_t named = 0;
    for (const FunctionEffect& effect : analysis.functions()) {
      if (effect.function == program.slow()) outcome.detectable = effect.exclusive.detectable;
      if (effect.exclusive.slower || effect.inclusive.slower) outcome.alarm = true;
      if (effect.exclusive.slower && effect.exclusive.excess > best) {
        best = effect.exclusive.excess;
        named = effect.function;
      }
    }
    outcome.alarm = outcome.alarm || analysis.total().slower;
    outcome.right = named == program.slow();
    if (outcome.alarm || analysis.RulesOutMinEffect()) break;
  }
  return outcome;
}

std::vector<Scenario> Scenarios() {
  std::vector<Scenario> list = {
      {.name = "level: quiet machine"},
      {.name = "level: noisy, 1 % of runs outliers", .phi = 0.03, .speed_cv = 0.05, .outlier_runs = 0.01},
      {.name = "level: noisier, 10 % of runs outliers", .phi = 0.05, .speed_cv = 0.1, .outlier_runs = 0.1},
      {.name = "level: every function drifts by 10 %", .drift = 0.1},
      {.name = "level: a neighbour comes and goes, 15 %", .neighbour = 0.15},
      {.name = "level: sampling in step with the program", .phi = 0.002, .systematic = 0.5},
      {.name = "level: 40 functions, 8 pairs", .functions = 40, .pairs = 8},
      {.name = "level: 1000 functions, 30,000 samples", .functions = 1000, .samples = 30'000},
      {.name = "level: 500 samples a run", .samples = 500},
      {.name = "level: minimum effect 1 % (ends early)", .min_effect = 0.01},
      {.name = "level: a 5 % function is slower, below the minimum effect", .epsilon = 0.02, .min_effect = 0.002},
  };
  for (const double share : {0.01, 0.05, 0.2}) {
    for (const double epsilon : {0.02, 0.05, 0.1, 0.2, 0.5}) {
      list.push_back({.name = StrFormat("power: +%.0f %% of a %.0f %% function", epsilon * 100, share * 100),
                      .epsilon = epsilon,
                      .share = share});
    }
  }
  list.push_back({.name = "power: +10 % of a 5 % function, 30,000 samples, 8 pairs",
                  .pairs = 8,
                  .samples = 30'000,
                  .epsilon = 0.1});
  list.push_back({.name = "power: +10 % of a 5 % function, drift 10 %", .drift = 0.1, .epsilon = 0.1});
  list.push_back({.name = "power: +10 % of a 5 % function, neighbour 15 %", .neighbour = 0.15, .epsilon = 0.1});
  return list;
}

int Main(int argc, char** argv) {
  size_t checks = 1000, threads = std::max(1u, std::thread::hardware_concurrency());
  uint64_t seed = 1;
  std::string only;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--checks") == 0) checks = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--only") == 0) only = argv[i + 1];
    if (std::strcmp(argv[i], "--seed") == 0) seed = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--threads") == 0) threads = std::strtoull(argv[i + 1], nullptr, 10);
  }
  std::printf("%-58s %8s %10s %8s %8s %12s %s\n", "scenario", "checks", "alarms", "bound", "right", "2x MDE seen",
              "mean pairs");
  int failures = 0;
  for (const Scenario& scenario : Scenarios()) {
    if (!only.empty() && scenario.name.find(only) == std::string::npos) continue;
    const bool level = scenario.name.starts_with("level");
    const size_t wanted = level ? checks : std::max<size_t>(30, checks / 5);
    std::vector<Outcome> outcomes(wanted);
    std::atomic<size_t> next{0};
    std::vector<std::thread> workers;
    for (size_t t = 0; t < threads; ++t) {
      workers.emplace_back([&] {
        for (size_t i = next++; i < wanted; i = next++) outcomes[i] = Check(scenario, seed * 1'000'003 + i);
      });
    }
    for (std::thread& worker : workers) worker.join();
    size_t alarms = 0, right = 0, above = 0, above_seen = 0;
    double pairs = 0;
    for (const Outcome& outcome : outcomes) {
      alarms += outcome.alarm ? 1 : 0;
      right += outcome.alarm && outcome.right ? 1 : 0;
      pairs += static_cast<double>(outcome.pairs) / static_cast<double>(wanted);
      if (scenario.epsilon >= 2 * outcome.detectable) {
        ++above;
        above_seen += outcome.alarm ? 1 : 0;
      }
    }
    const double rate = static_cast<double>(alarms) / static_cast<double>(wanted);
    const bool broken = level && BinomialInterval(alarms, wanted, 0.998).low > kAlpha;
    failures += broken ? 1 : 0;
    std::printf("%-58s %8zu %6.2f %%   %5.2f %% %7s %12s %6.1f%s\n", scenario.name.c_str(), wanted, 100 * rate,
                100 * BinomialUpperBound(alarms, wanted, 0.95),
                level || alarms == 0
                    ? "-"
                    : StrFormat("%.0f %%", 100.0 * static_cast<double>(right) / static_cast<double>(alarms)).c_str(),
                above == 0 ? "-" : StrFormat("%d of %d", above_seen, above).c_str(), pairs, broken ? "  TOO MANY" : "");
    std::fflush(stdout);
  }
  return failures > 0 ? 1 : 0;
}

}  // namespace
}  // namespace pyrometer::regression

int main(int argc, char** argv) { return pyrometer::regression::Main(argc, argv); }

// Runs of a program that never was: stacks with a mean number of samples on either side, drawn as Poisson counts around
// the speed of the run.
#pragma once

#include <array>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "userspace/regression/run_set.h"
#include "userspace/regression/schedule.h"

namespace pyrometer::regression {

class MadeUpProgram {
 public:
  // `stack` from the outside in: "main", "work"; functions are of the module "app" unless they are written
  // "module!name".
  MadeUpProgram& Stack(std::vector<std::string> stack, double baseline, double candidate) {
    stacks_.push_back({std::move(stack), {baseline, candidate}});
    return *this;
  }
  // Sixty functions that do not change, called by main.
  MadeUpProgram& Others(double samples_each = 100) {
    for (int i = 0; i < 60; ++i) Stack({"main", "other" + std::to_string(i)}, samples_each, samples_each);
    return *this;
  }
  MadeUpProgram& Source(const std::string& function, const std::string& file, int32_t line) {
    sources_[function] = {file, line};
    return *this;
  }

  RunSet Make(size_t pairs, uint64_t seed) const {
    std::mt19937_64 engine(seed);
    Random random(seed);
    RunSet runs;
    for (const Side side : {Side::kBaseline, Side::kCandidate}) {
      runs.origin(side).command = side == Side::kBaseline ? "./old" : "./new";
      runs.origin(side).how = "made up";
    }
    for (uint32_t block = 0; block < pairs / kPairsPerBlock; ++block) {
      for (const Side side : DrawBlock(&random)) {
        Run run;
        run.side = side;
        run.block = block;
        const double speed = std::exp(0.05 * std::normal_distribution<double>()(engine));
        std::map<NodeIndex, uint64_t> counts;
        double cpu = 0;
        for (const auto& [stack, mean] : stacks_) {
          NodeIndex node = 0;
          for (const std::string& name : stack) node = runs.InternNode(node, runs.InternFunction(Facts(name)));
          const double expected = mean[static_cast<size_t>(side)] * speed;
          cpu += expected;
          if (expected > 0) counts[node] += std::poisson_distribution<uint64_t>(expected)(engine);
        }
        std::erase_if(counts, [](const auto& entry) { return entry.second == 0; });
        run.counts.assign(counts.begin(), counts.end());
        run.facts.samples = run.SampleTotal();
        run.facts.cpu_ns = static_cast<uint64_t>(cpu * 1e6);
        runs.AddRun(std::move(run));
      }
    }
    return runs;
  }

 private:
  struct Place {
    std::string file;
    int32_t line = 0;
  };
  FunctionFacts Facts(const std::string& text) const {
    FunctionFacts facts;
    const size_t mark = text.find('!');
    facts.module = mark == std::string::npos ? "app" : text.substr(0, mark);
    facts.name = mark == std::string::npos ? text : text.substr(mark + 1);
    if (const auto place = sources_.find(facts.name); place != sources_.end()) {
      facts.file = place->second.file;
      facts.line = place->second.line;
    }
    return facts;
  }

  std::vector<std::pair<std::vector<std::string>, std::array<double, 2>>> stacks_;
  std::map<std::string, Place> sources_;
};

}  // namespace pyrometer::regression

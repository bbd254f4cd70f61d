// Runs × functions: how many samples of a run were in a function, alone and with what it called.
//
//   CountTable counts = CountFunctions(runs);
//   counts.exclusive(run, function)
//
// Threads: pure. Cost: linear in (run, stack) pairs and nodes; 16 bytes × runs × functions.
#pragma once

#include <cstddef>
#include <vector>

#include "userspace/regression/run_set.h"

namespace pyrometer::regression {

class CountTable {
 public:
  CountTable(size_t runs, size_t functions)
      : functions_(functions),
        exclusive_(runs * functions),
        inclusive_(runs * functions),
        total_(runs),
        cpu_ns_(runs),
        instructions_(runs),
        work_(runs) {}

  size_t runs() const { return total_.size(); }
  size_t functions() const { return functions_; }
  double& exclusive(size_t run, size_t function) { return exclusive_[run * functions_ + function]; }
  double exclusive(size_t run, size_t function) const { return exclusive_[run * functions_ + function]; }
  // A sample with the function on its stack several times counts once.
  double& inclusive(size_t run, size_t function) { return inclusive_[run * functions_ + function]; }
  double inclusive(size_t run, size_t function) const { return inclusive_[run * functions_ + function]; }
  double& total(size_t run) { return total_[run]; }
  double total(size_t run) const { return total_[run]; }
  // CPU time of the same amount of work: of the run, or of an iteration. 0 = unknown.
  double& cpu_ns(size_t run) { return cpu_ns_[run]; }
  double cpu_ns(size_t run) const { return cpu_ns_[run]; }
  // Executed by the run in user mode. 0 = unknown.
  double& instructions(size_t run) { return instructions_[run]; }
  double instructions(size_t run) const { return instructions_[run]; }
  // Of a benchmark, in proportion to the iterations that its samples come from: samples by the CPU time of an
  // iteration. Not the number that it reports, for it leaves out the iterations before, which find out how many to
  // make. 0 = not known, or the same in all runs.
  double& work(size_t run) { return work_[run]; }
  double work(size_t run) const { return work_[run]; }

 private:
  size_t functions_;
  std::vector<double> exclusive_, inclusive_, total_, cpu_ns_, instructions_, work_;
};

// Functions are numbered as in `runs`; column 0 (no function) stays 0.
CountTable CountFunctions(const RunSet& runs);

// The nodes at which a function begins on its stack (no ancestor is the same function), as a mask per node.
std::vector<bool> OutermostNodes(const RunSet& runs);
// Samples of a run at and below each node.
std::vector<double> NodeTotals(const RunSet& runs, const Run& run);

}  // namespace pyrometer::regression

// Runs of a command in the store: `pyrometer ci record --push` puts them there, `ci compare --baseline-selector` and
// `ci check --history` take them out.
//
// A run is one window of a `cpu` series, so it is seen like any other profile in the page and by every command. Its
// labels: service (what runs), version (the commit), branch, node, machine (the class of it, in words), frequency_hz,
// and session="ci": selectors that do not mention `session` do not count it beside the always-on profile of the
// machine. What else a check needs, CPU time, lost samples and instructions where they were counted, are
// counters of the same labels: ci_run_cpu, ci_run_lost, ci_run_instructions.
//
// Windows of a series begin on whole seconds and no two on one, so that each can be asked for alone. Runs are as old as
// the store keeps windows (--retention); sums of hours are no runs.
//
// Threads: none shared. Cost: a question to the store per run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/cli/connection.h"
#include "userspace/profile/profile.h"
#include "userspace/regression/run_set.h"

namespace pyrometer::cli {

struct RunLabels {
  std::string service;  // what runs: the benchmark
  std::string version;  // the commit
  std::string branch;   // "" unknown
  bool operator==(const RunLabels&) const = default;
};

// Fills what is "" from git (in the current folder) and the command. FAILED_PRECONDITION when there is no version.
Status CompleteRunLabels(const std::vector<std::string>& command, RunLabels* labels);

// Sends runs as they are made; each is durable when Push returns.
class RunPusher {
 public:
  // INVALID_ARGUMENT for labels that no store takes.
  static StatusOr<std::unique_ptr<RunPusher>> Connect(const ConnectionFlags& flags, const RunLabels& labels);
  virtual ~RunPusher() = default;
  virtual Status Push(const profile::Profile& profile, const regression::RunFacts& facts,
                      const regression::RunOrigin& origin) = 0;
};

// Runs of one version on one class of machine.
struct StoredRuns {
  RunLabels labels;
  regression::MachineClass machine;
  uint32_t frequency_hz = 0;
  regression::RunSet runs;  // as baseline runs of one block each, oldest first
};

// What `selector` (type and session may be left out) selects, oldest first.
StatusOr<std::vector<StoredRuns>> FetchRuns(rpc::QueryApi& store, const std::string& selector, const Range& range);

// The class of a machine as a label, and back. A text of another form gives an error.
std::string MachineText(const regression::MachineClass& machine);
StatusOr<regression::MachineClass> ParseMachineText(std::string_view text);

}  // namespace pyrometer::cli

// Runs of a command as a regression check sees them: by function, not by address, with what else is known of each run.
//
//   RunSet runs;
//   runs.Add(Side::kBaseline, /*block=*/0, facts, recording.profile);
//   ASSIGN_OR_RETURN(RunSet stored, ReadRunFile("base.pyro"));
//   runs.Append(stored, Side::kBaseline);
//
// A function is (normalised name, normalised module); function_name.h has the rules. Stacks are a trie of functions,
// with inlined ones as nodes of their own, shared by all runs of either side.
//
// Threads: none shared. Cost: 16 bytes per distinct (run, stack), about 150 per function.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/profile/profile.h"
#include "userspace/regression/max_t_test.h"

namespace pyrometer::regression {

using FunctionIndex = uint32_t;
using NodeIndex = uint32_t;

// What is known of a function apart from samples. The first run that names it decides.
struct FunctionFacts {
  std::string name;    // normalised
  std::string module;  // normalised; "" unknown
  std::string file;    // source file as the debug information says; "" unknown
  int32_t line = 0;    // where the function begins; 0 unknown
  bool operator==(const FunctionFacts&) const = default;
};

struct StackNode {
  NodeIndex parent = 0;
  FunctionIndex function = 0;
  bool operator==(const StackNode&) const = default;
};

struct RunFacts {
  int64_t started_ns = 0;  // Unix time
  uint64_t wall_ns = 0;
  uint64_t cpu_ns = 0;        // user and system time of the command and its children
  uint64_t instructions = 0;  // in user mode, of the same; 0 = not counted: no such counter on the machine
  uint64_t samples = 0;
  uint64_t lost_samples = 0;
  // Of a Google Benchmark program: what it did, and what an iteration took; 0 for others, which do the same each run.
  uint64_t iterations = 0;
  double iteration_cpu_ns = 0;
  double iteration_real_ns = 0;
  bool operator==(const RunFacts&) const = default;
};

struct Run {
  Side side = Side::kBaseline;
  uint32_t block = 0;
  RunFacts facts;
  // Samples that ended at a node, ascending by node.
  std::vector<std::pair<NodeIndex, uint64_t>> counts;

  uint64_t SampleTotal() const;
};

// What must be equal for figures to be comparable; and who is to be asked otherwise.
struct MachineClass {
  std::string cpu;  // "AMD EPYC 7763"
  uint32_t cpus = 0;
  std::string kernel;          // "6.1.0-18-amd64"
  std::string architecture;    // "x86_64"
  std::string governor;        // cpufreq's; "" unknown
  std::string virtualization;  // "kvm", "" none known
  uint64_t memory_bytes = 0;

  // "" when runs of both can be compared, else the reason in words.
  std::string WhyDiffers(const MachineClass& other) const;
  bool operator==(const MachineClass&) const = default;
};
MachineClass ThisMachine();

// How the runs were made; kept in the file.
struct RunOrigin {
  std::string command;  // as a shell would take it
  std::string how;      // "BPF, 4000 Hz"
  uint32_t frequency_hz = 0;
  MachineClass machine;
  bool operator==(const RunOrigin&) const = default;
};

class RunSet {
 public:
  RunSet();

  // Adds what one run recorded. `value_index`: which of the profile's values counts samples.
  void Add(Side side, uint32_t block, RunFacts facts, const profile::Profile& profile, size_t value_index = 0);
  // Copies all runs of `other` as runs of `side`; their blocks follow the ones here.
  void Append(const RunSet& other, Side side);

  const std::vector<FunctionFacts>& functions() const { return functions_; }
  // Node 0 is the root and has no function; parents stand before children.
  const std::vector<StackNode>& nodes() const { return nodes_; }
  const std::vector<Run>& runs() const { return runs_; }
  RunOrigin& origin(Side side) { return origins_[static_cast<size_t>(side)]; }
  const RunOrigin& origin(Side side) const { return origins_[static_cast<size_t>(side)]; }

  // The labels and blocks of the runs as they are. With `one_block`, all runs are taken to be exchangeable.
  Design MakeDesign(bool one_block = false) const;

  FunctionIndex InternFunction(const FunctionFacts& facts);
  NodeIndex InternNode(NodeIndex parent, FunctionIndex function);
  void AddRun(Run run) { runs_.push_back(std::move(run)); }

 private:
  std::vector<FunctionFacts> functions_;  // 0 = none
  std::vector<StackNode> nodes_;
  std::vector<Run> runs_;
  RunOrigin origins_[2];
  std::unordered_map<std::string, FunctionIndex> function_index_;  // name NUL module
  std::unordered_map<uint64_t, NodeIndex> node_index_;             // parent << 32 | function
};

// Where the two sides run one executable each under different names ("app-old", "app-new"), takes them to be the same
// program: its functions get one module on both sides. Returns the new set, or `runs` as it was.
RunSet MatchExecutables(const RunSet& runs);

}  // namespace pyrometer::regression

#include "userspace/regression/run_set.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>

#include "userspace/base/check.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/regression/function_name.h"

namespace pyrometer::regression {
namespace {

// "key : value" of /proc/cpuinfo and /proc/meminfo, the first.
std::string ProcField(const std::string& path, std::string_view key) {
  const auto text = ReadFile(path);
  if (!text.ok()) return "";
  for (const std::string_view line : Split(*text, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || StripWhitespace(line.substr(0, colon)) != key) continue;
    return std::string(StripWhitespace(line.substr(colon + 1)));
  }
  return "";
}

std::string FirstLine(const std::string& path) {
  const auto text = ReadFile(path);
  return text.ok() ? std::string(StripWhitespace(Split(*text, '\n').front())) : "";
}

std::string KernelSeries(std::string_view release) {
  // "6.1.0-18-amd64" and "6.1.0-21-amd64" are one series: updates within it come every week.
  const std::vector<std::string_view> parts = Split(release, '.');
  return parts.size() < 2 ? std::string(release) : std::string(parts[0]) + "." + std::string(parts[1]);
}

}  // namespace

uint64_t Run::SampleTotal() const {
  uint64_t total = 0;
  for (const auto& [node, count] : counts) total += count;
  return total;
}

std::string MachineClass::WhyDiffers(const MachineClass& other) const {
  const auto differ = [](std::string_view what, std::string_view a, std::string_view b) {
    return StrFormat("%s differs: %s against %s", what, a.empty() ? "unknown" : a, b.empty() ? "unknown" : b);
  };
  if (architecture != other.architecture) return differ("the architecture", architecture, other.architecture);
  if (cpu != other.cpu) return differ("the processor", cpu, other.cpu);
  if (cpus != other.cpus) return differ("the number of CPUs", std::to_string(cpus), std::to_string(other.cpus));
  if (virtualization != other.virtualization) {
    return differ("virtualization", virtualization, other.virtualization);
  }
  if (governor != other.governor) return differ("the frequency governor", governor, other.governor);
  if (KernelSeries(kernel) != KernelSeries(other.kernel)) return differ("the kernel", kernel, other.kernel);
  return "";
}

MachineClass ThisMachine() {
  MachineClass machine;
  machine.cpu = ProcField("/proc/cpuinfo", "model name");
  const long cpus = ::sysconf(_SC_NPROCESSORS_ONLN);
  machine.cpus = cpus > 0 ? static_cast<uint32_t>(cpus) : 0;
  struct utsname name {};
  if (::uname(&name) == 0) {
    machine.kernel = name.release;
    machine.architecture = name.machine;
  }
  machine.governor = FirstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  if ((" " + ProcField("/proc/cpuinfo", "flags") + " ").find(" hypervisor ") != std::string::npos) {
    machine.virtualization = "virtual machine";
  }
  const std::string memory = ProcField("/proc/meminfo", "MemTotal");
  if (const auto kib = ParseUint64(std::string_view(memory).substr(0, memory.find(' ')))) {
    machine.memory_bytes = *kib << 10;
  }
  return machine;
}

RunSet::RunSet() : functions_(1), nodes_(1) {}

FunctionIndex RunSet::InternFunction(const FunctionFacts& facts) {
  std::string key = facts.name;
  key += '\0';
  key += facts.module;
  const auto [entry, added] =
      function_index_.try_emplace(std::move(key), static_cast<FunctionIndex>(functions_.size()));
  if (added) functions_.push_back(facts);
  FunctionFacts& known = functions_[entry->second];
  if (known.file.empty()) {
    known.file = facts.file;
    known.line = facts.line;
  }
  return entry->second;
}

NodeIndex RunSet::InternNode(NodeIndex parent, FunctionIndex function) {
  const uint64_t key = uint64_t{parent} << 32 | function;
  const auto [entry, added] = node_index_.try_emplace(key, static_cast<NodeIndex>(nodes_.size()));
  if (added) nodes_.push_back({parent, function});
  return entry->second;
}

void RunSet::Add(Side side, uint32_t block, RunFacts facts, const profile::Profile& profile, size_t value_index) {
  CHECK(value_index < profile.value_types.size());
  const profile::Dictionary& dictionary = profile.dictionary;
  // Functions of a frame, outermost first, as a stack grows.
  std::vector<std::vector<FunctionIndex>> of_frame(dictionary.frame_count());
  const auto functions = [&](profile::FrameId id) -> const std::vector<FunctionIndex>& {
    std::vector<FunctionIndex>& list = of_frame[id];
    if (!list.empty()) return list;
    const profile::Frame& frame = dictionary.frame(id);
    const profile::Mapping& mapping = dictionary.mapping(frame.mapping);
    for (size_t i = std::max<size_t>(1, frame.lines.size()); i-- > 0;) {
      FunctionFacts one;
      one.name = NormalizeFunctionName(dictionary.FrameName(id, i));
      one.module = NormalizeModule(dictionary.string(mapping.file));
      if (i < frame.lines.size()) {
        const profile::Function& function = dictionary.function(frame.lines[i].function);
        one.file = dictionary.string(function.file);
        one.line = static_cast<int32_t>(std::clamp<int64_t>(function.start_line, 0, INT32_MAX));
      }
      list.push_back(InternFunction(one));
    }
    return list;
  };

  Run run;
  run.side = side;
  run.block = block;
  std::vector<NodeIndex> node_of(dictionary.stack_count());
  std::vector<profile::StackId> path;
  std::map<NodeIndex, uint64_t> counts;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const int64_t count = profile.values(i)[value_index];
    if (count <= 0) continue;
    profile::StackId at = profile.sample(i).stack;
    for (path.clear(); at != profile::kEmptyStack && node_of[at] == 0; at = dictionary.stack(at).parent) {
      path.push_back(at);
    }
    NodeIndex node = at == profile::kEmptyStack ? 0 : node_of[at];
    for (; !path.empty(); path.pop_back()) {
      for (const FunctionIndex function : functions(dictionary.stack(path.back()).frame)) {
        node = InternNode(node, function);
      }
      node_of[path.back()] = node;
    }
    counts[node] += static_cast<uint64_t>(count);
  }
  run.counts.assign(counts.begin(), counts.end());
  facts.samples = run.SampleTotal();
  run.facts = std::move(facts);
  runs_.push_back(std::move(run));
}

void RunSet::Append(const RunSet& other, Side side) {
  const auto to = static_cast<size_t>(side);
  std::vector<FunctionIndex> function_of(other.functions_.size());
  for (FunctionIndex i = 1; i < other.functions_.size(); ++i) {
    function_of[i] = InternFunction(other.functions_[i]);
  }
  std::vector<NodeIndex> node_of(other.nodes_.size());
  for (NodeIndex i = 1; i < other.nodes_.size(); ++i) {
    node_of[i] = InternNode(node_of[other.nodes_[i].parent], function_of[other.nodes_[i].function]);
  }
  const uint32_t first_block = runs_.empty() ? 0 : runs_.back().block + 1;
  for (const Run& run : other.runs_) {
    Run copy = run;
    copy.side = side;
    copy.block = first_block + run.block;
    for (auto& [node, count] : copy.counts) node = node_of[node];
    std::sort(copy.counts.begin(), copy.counts.end());
    runs_.push_back(std::move(copy));
  }
  if (!other.runs_.empty()) origins_[to] = other.origins_[static_cast<size_t>(other.runs_.front().side)];
}

Design RunSet::MakeDesign(bool one_block) const {
  Design design;
  for (const Run& run : runs_) {
    design.side.push_back(run.side);
    design.block.push_back(one_block ? 0 : run.block);
  }
  return design;
}

RunSet MatchExecutables(const RunSet& runs) {
  // Programs by side, by samples in their functions.
  std::map<std::string, uint64_t> samples[2];
  for (const Run& run : runs.runs()) {
    auto& of_side = samples[static_cast<size_t>(run.side)];
    for (const auto& [node, count] : run.counts) {
      const std::string& module = runs.functions()[runs.nodes()[node].function].module;
      if (!module.empty() && !IsLibraryModule(module)) of_side[module] += count;
    }
  }
  // A shell or a helper that a few samples happened to hit on one side is not what is compared.
  constexpr uint64_t kLeastOfProgram = 50;
  std::vector<std::string> only[2];
  for (const size_t side : {0, 1}) {
    uint64_t all = 0;
    for (const auto& [module, count] : samples[side]) all += count;
    for (const auto& [module, count] : samples[side]) {
      if (!samples[1 - side].contains(module) && count * kLeastOfProgram >= all) only[side].push_back(module);
    }
  }
  if (only[0].size() != 1 || only[1].size() != 1) return runs;

  RunSet matched;
  std::vector<FunctionIndex> function_of(runs.functions().size());
  std::vector<NodeIndex> node_of(runs.nodes().size());
  for (FunctionIndex i = 1; i < runs.functions().size(); ++i) {
    FunctionFacts facts = runs.functions()[i];
    if (facts.module == only[1][0]) facts.module = only[0][0];
    if (facts.name == "[" + only[1][0] + "]") facts.name = "[" + only[0][0] + "]";
    function_of[i] = matched.InternFunction(facts);
  }
  for (NodeIndex i = 1; i < runs.nodes().size(); ++i) {
    node_of[i] = matched.InternNode(node_of[runs.nodes()[i].parent], function_of[runs.nodes()[i].function]);
  }
  for (const Run& run : runs.runs()) {
    Run copy = run;
    std::map<NodeIndex, uint64_t> counts;
    for (const auto& [node, count] : run.counts) counts[node_of[node]] += count;
    copy.counts.assign(counts.begin(), counts.end());
    matched.AddRun(std::move(copy));
  }
  matched.origin(Side::kBaseline) = runs.origin(Side::kBaseline);
  matched.origin(Side::kCandidate) = runs.origin(Side::kCandidate);
  return matched;
}

}  // namespace pyrometer::regression

#include "userspace/regression/run_file.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::regression {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "pyrometer-runs";
constexpr uint64_t kVersion = 1;
// 100 runs of a program with 50,000 distinct stacks each are 100 MB.
constexpr size_t kMaxFileBytes = 256u << 20;
constexpr size_t kMaxRuns = 10'000;
constexpr size_t kMaxNameBytes = 16u << 10;
// Sums of counts stay exact in a double.
constexpr uint64_t kMaxCount = uint64_t{1} << 40;
constexpr uint64_t kMaxInstructions = uint64_t{1} << 53;  // exact in a double

Status Malformed(std::string_view what) {
  return DataLossError(StrFormat("this is not a file of `pyrometer ci record`, or it is damaged: %s", what));
}

StatusOr<uint64_t> Number(const json& value, std::string_view what, uint64_t limit) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > limit) {
    return Malformed(StrFormat("%s is not a number from 0 to %d", what, limit));
  }
  return value.get<uint64_t>();
}

StatusOr<std::string> Text(const json& value, std::string_view what) {
  if (!value.is_string() || value.get_ref<const std::string&>().size() > kMaxNameBytes) {
    return Malformed(StrFormat("%s is not a text of at most %d bytes", what, kMaxNameBytes));
  }
  return value.get<std::string>();
}

// A member that must be there; null stands for an absent one and fails the checks above.
const json& Member(const json& object, const char* name) {
  static const json kNull;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() ? kNull : *found;
}

json OriginToJson(const RunOrigin& origin) {
  return {{"command", origin.command},
          {"how", origin.how},
          {"frequency_hz", origin.frequency_hz},
          {"machine",
           {{"cpu", origin.machine.cpu},
            {"cpus", origin.machine.cpus},
            {"kernel", origin.machine.kernel},
            {"architecture", origin.machine.architecture},
            {"governor", origin.machine.governor},
            {"virtualization", origin.machine.virtualization},
            {"memory_bytes", origin.machine.memory_bytes}}}};
}

StatusOr<RunOrigin> OriginFromJson(const json& value) {
  constexpr uint64_t kMax32 = std::numeric_limits<uint32_t>::max();
  RunOrigin origin;
  ASSIGN_OR_RETURN(origin.command, Text(Member(value, "command"), "origin.command"));
  ASSIGN_OR_RETURN(origin.how, Text(Member(value, "how"), "origin.how"));
  ASSIGN_OR_RETURN(const uint64_t frequency, Number(Member(value, "frequency_hz"), "origin.frequency_hz", kMax32));
  origin.frequency_hz = static_cast<uint32_t>(frequency);
  const json& machine = Member(value, "machine");
  ASSIGN_OR_RETURN(origin.machine.cpu, Text(Member(machine, "cpu"), "machine.cpu"));
  ASSIGN_OR_RETURN(const uint64_t cpus, Number(Member(machine, "cpus"), "machine.cpus", kMax32));
  origin.machine.cpus = static_cast<uint32_t>(cpus);
  ASSIGN_OR_RETURN(origin.machine.kernel, Text(Member(machine, "kernel"), "machine.kernel"));
  ASSIGN_OR_RETURN(origin.machine.architecture, Text(Member(machine, "architecture"), "machine.architecture"));
  ASSIGN_OR_RETURN(origin.machine.governor, Text(Member(machine, "governor"), "machine.governor"));
  ASSIGN_OR_RETURN(origin.machine.virtualization, Text(Member(machine, "virtualization"), "machine.virtualization"));
  ASSIGN_OR_RETURN(origin.machine.memory_bytes, Number(Member(machine, "memory_bytes"), "machine.memory_bytes",
                                                       std::numeric_limits<int64_t>::max()));
  return origin;
}

StatusOr<Run> RunFromJson(const json& value, size_t nodes) {
  constexpr uint64_t kMaxNs = std::numeric_limits<int64_t>::max();
  Run run;
  ASSIGN_OR_RETURN(const uint64_t started, Number(Member(value, "started_ns"), "started_ns", kMaxNs));
  run.facts.started_ns = static_cast<int64_t>(started);
  ASSIGN_OR_RETURN(run.facts.wall_ns, Number(Member(value, "wall_ns"), "wall_ns", kMaxNs));
  ASSIGN_OR_RETURN(run.facts.cpu_ns, Number(Member(value, "cpu_ns"), "cpu_ns", kMaxNs));
  if (value.contains("instructions")) {
    ASSIGN_OR_RETURN(run.facts.instructions, Number(Member(value, "instructions"), "instructions", kMaxInstructions));
  }
  ASSIGN_OR_RETURN(run.facts.lost_samples, Number(Member(value, "lost_samples"), "lost_samples", kMaxCount));
  const json& counts = Member(value, "counts");
  if (!counts.is_array()) return Malformed("a run has no counts");
  for (const json& pair : counts) {
    if (!pair.is_array() || pair.size() != 2) return Malformed("a count is not a pair of stack and number");
    ASSIGN_OR_RETURN(const uint64_t node, Number(pair[0], "the stack of a count", nodes - 1));
    ASSIGN_OR_RETURN(const uint64_t count, Number(pair[1], "a count", kMaxCount));
    if (!run.counts.empty() && run.counts.back().first >= node) return Malformed("counts are not ascending by stack");
    run.counts.emplace_back(static_cast<NodeIndex>(node), count);
  }
  run.facts.samples = run.SampleTotal();
  if (run.facts.samples > kMaxCount) return Malformed("a run has too many samples");
  return run;
}

}  // namespace

std::string SerializeRuns(const RunSet& runs) {
  json functions = json::array(), nodes = json::array(), list = json::array();
  for (size_t i = 1; i < runs.functions().size(); ++i) {
    const FunctionFacts& function = runs.functions()[i];
    functions.push_back({function.name, function.module, function.file, function.line});
  }
  for (size_t i = 1; i < runs.nodes().size(); ++i) nodes.push_back({runs.nodes()[i].parent, runs.nodes()[i].function});
  for (const Run& run : runs.runs()) {
    list.push_back({{"started_ns", run.facts.started_ns},
                    {"wall_ns", run.facts.wall_ns},
                    {"cpu_ns", run.facts.cpu_ns},
                    {"lost_samples", run.facts.lost_samples},
                    {"counts", run.counts}});
    if (run.facts.instructions > 0) list.back()["instructions"] = run.facts.instructions;
  }
  const Side side = runs.runs().empty() ? Side::kBaseline : runs.runs().front().side;
  const json file = {{"format", kFormat},      {"version", kVersion}, {"origin", OriginToJson(runs.origin(side))},
                     {"functions", functions}, {"nodes", nodes},      {"runs", list}};
  return file.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

StatusOr<RunSet> ParseRuns(std::string_view text) {
  const json file = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded() || !file.is_object()) return Malformed("it is not JSON");
  if (Member(file, "format") != kFormat) return Malformed(StrFormat("\"format\" is not \"%s\"", kFormat));
  ASSIGN_OR_RETURN(const uint64_t version,
                   Number(Member(file, "version"), "version", std::numeric_limits<uint32_t>::max()));
  if (version != kVersion) {
    return FailedPreconditionError(
        StrFormat("the file has version %d of its format, this program reads version %d: use the program that wrote it",
                  version, kVersion));
  }
  RunSet runs;
  ASSIGN_OR_RETURN(runs.origin(Side::kBaseline), OriginFromJson(Member(file, "origin")));
  const json &functions = Member(file, "functions"), &nodes = Member(file, "nodes"), &list = Member(file, "runs");
  if (!functions.is_array() || !nodes.is_array() || !list.is_array())
    return Malformed("functions, nodes or runs are missing");
  for (const json& row : functions) {
    if (!row.is_array() || row.size() != 4) return Malformed("a function is not name, module, file, line");
    FunctionFacts function;
    ASSIGN_OR_RETURN(function.name, Text(row[0], "a function's name"));
    ASSIGN_OR_RETURN(function.module, Text(row[1], "a function's module"));
    ASSIGN_OR_RETURN(function.file, Text(row[2], "a function's file"));
    ASSIGN_OR_RETURN(const uint64_t line, Number(row[3], "a function's line", std::numeric_limits<int32_t>::max()));
    function.line = static_cast<int32_t>(line);
    const size_t expected = runs.functions().size();
    if (runs.InternFunction(function) != expected) return Malformed("a function stands there twice");
  }
  for (const json& row : nodes) {
    if (!row.is_array() || row.size() != 2) return Malformed("a node is not parent and function");
    const size_t expected = runs.nodes().size();
    ASSIGN_OR_RETURN(const uint64_t parent, Number(row[0], "a node's parent", expected - 1));
    ASSIGN_OR_RETURN(const uint64_t function, Number(row[1], "a node's function", runs.functions().size() - 1));
    if (function == 0) return Malformed("a node has no function");
    if (runs.InternNode(static_cast<NodeIndex>(parent), static_cast<FunctionIndex>(function)) != expected) {
      return Malformed("a node stands there twice");
    }
  }
  if (list.size() > kMaxRuns) return Malformed(StrFormat("more than %d runs", kMaxRuns));
  for (const json& value : list) {
    ASSIGN_OR_RETURN(Run run, RunFromJson(value, runs.nodes().size()));
    run.block = static_cast<uint32_t>(runs.runs().size());
    runs.AddRun(std::move(run));
  }
  return runs;
}

Status WriteRunFile(const std::string& path, const RunSet& runs) {
  return WriteFileAtomically(path, SerializeRuns(runs));
}

StatusOr<RunSet> ReadRunFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  auto runs = ParseRuns(text);
  if (!runs.ok()) return WithContext(runs.status(), path);
  return runs;
}

}  // namespace pyrometer::regression

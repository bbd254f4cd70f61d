// `pyrometer doctor`: what this kernel and these privileges allow, what is degraded, and the remedy.
#include <memory>
#include <nlohmann/json.hpp>

#include "userspace/agent/explain_process.h"
#include "userspace/agent/folders.h"
#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/cli/command.h"
#include "userspace/cli/terminal.h"
#include "userspace/kernel/features.h"

namespace pyrometer::cli {
namespace {

using kernel::Feature;
using kernel::FeatureState;

// What the user came for, answered from the features it needs.
struct Ability {
  std::string name;
  FeatureState state;
  std::string because;
};

Ability AbilityFrom(const std::vector<Feature>& features, std::string name, const std::vector<std::string>& needs,
                    const std::vector<std::string>& better_with) {
  Ability ability{std::move(name), FeatureState::kOk, ""};
  const auto weaken = [&](const std::vector<std::string>& names, FeatureState to) {
    for (const std::string& wanted : names) {
      const Feature* feature = kernel::FindFeature(features, wanted);
      if (feature == nullptr || feature->state == FeatureState::kOk) continue;
      if (ability.state == FeatureState::kOk || to == FeatureState::kMissing) ability.state = to;
      if (!ability.because.empty()) ability.because += ", ";
      ability.because += feature->title;
    }
  };
  weaken(needs, FeatureState::kMissing);
  if (ability.state != FeatureState::kMissing) weaken(better_with, FeatureState::kDegraded);
  return ability;
}

// One of the two ways to read sockets is enough; which is used when: userspace/kernel/tcp_latency.h.
Ability NetworkAbility(const std::vector<Feature>& features) {
  const Feature* iterator = kernel::FindFeature(features, "socket_iterator");
  const bool polls = iterator != nullptr && iterator->state == FeatureState::kOk;
  std::vector<std::string> needs = {"tp_btf", "sk_storage"};
  if (!polls) needs.emplace_back("tcp_probe");
  return AbilityFrom(features, "network round-trip time", needs, {"socket_iterator", "tcp_probe"});
}

std::vector<Ability> Abilities(const std::vector<Feature>& features) {
  return {
      AbilityFrom(features, "CPU profiles of the whole machine", {"bpf_perf_event", "ring_buffer"},
                  {"hardware_cycles", "kptr_restrict", "pid_namespace"}),
      AbilityFrom(features, "system-call latency", {"tp_btf", "task_storage"}, {}),
      NetworkAbility(features),
      AbilityFrom(features, "containers by name", {"cgroup2"}, {"cap_dac_read_search"}),
      AbilityFrom(features, "symbols of other users' processes", {"cap_sys_ptrace"}, {}),
      AbilityFrom(features, "`record -- CMD` without privileges", {"unprivileged_perf"}, {}),
  };
}

const char* Mark(FeatureState state) {
  switch (state) {
    case FeatureState::kOk:
      return "ok";
    case FeatureState::kDegraded:
      return "degraded";
    case FeatureState::kMissing:
      return "MISSING";
  }
  return "?";
}

int RunDoctor(bool as_json) {
  const std::vector<Feature> features = kernel::ProbeFeatures();
  const std::vector<Ability> abilities = Abilities(features);
  if (as_json) {
    nlohmann::ordered_json out;
    out["version"] = std::string(kVersion);
    for (const Ability& ability : abilities) {
      out["abilities"].push_back({{"name", ability.name},
                                  {"state", std::string(kernel::FeatureStateName(ability.state))},
                                  {"because", ability.because}});
    }
    for (const Feature& feature : features) {
      out["features"].push_back({{"name", feature.name},
                                 {"title", feature.title},
                                 {"state", std::string(kernel::FeatureStateName(feature.state))},
                                 {"detail", feature.detail},
                                 {"effect", feature.effect},
                                 {"remedy", feature.remedy}});
    }
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return kExitDone;
  }
  Table summary({{"what you can do here"}, {"state"}, {"because of"}});
  for (const Ability& ability : abilities) summary.AddRow({ability.name, Mark(ability.state), ability.because});
  std::printf("%s\n", summary.ToString().c_str());
  Table table({{"feature"}, {"state"}, {"found"}});
  for (const Feature& feature : features) table.AddRow({feature.title, Mark(feature.state), feature.detail});
  std::printf("%s", table.ToString().c_str());
  bool heading = false;
  for (const Feature& feature : features) {
    if (feature.state == FeatureState::kOk || (feature.effect.empty() && feature.remedy.empty())) continue;
    if (!heading) std::printf("\nwhat is not ok, what it means, what to do\n");
    heading = true;
    std::printf("\n  %s: %s\n", feature.title.c_str(), Mark(feature.state));
    if (!feature.effect.empty()) std::printf("    effect: %s\n", feature.effect.c_str());
    if (!feature.remedy.empty()) std::printf("    remedy: %s\n", feature.remedy.c_str());
  }
  return kExitDone;
}

StatusOr<agent::ProcessExplanation> Explain(uint32_t pid) {
  agent::Node::Options options;
  options.process_events = false;
  options.cache_folder = agent::DefaultCacheFolder();
  ASSIGN_OR_RETURN(const std::unique_ptr<agent::Node> node, agent::Node::Start(options));
  return agent::ExplainProcess(static_cast<pid_t>(pid), *node);
}

int RunDoctorOf(uint32_t pid, bool as_json) {
  const StatusOr<agent::ProcessExplanation> explained = Explain(pid);
  if (!explained.ok()) return Fail(explained.status());
  if (as_json) {
    nlohmann::ordered_json out;
    out["pid"] = explained->pid;
    out["comm"] = explained->comm;
    out["code"] = nlohmann::ordered_json::array();
    for (const agent::CodeExplanation& code : explained->code) {
      out["code"].push_back({{"name", code.name},
                             {"buildId", code.build_id},
                             {"codeBytes", code.code_bytes},
                             {"unwinding", code.unwinding},
                             {"names", code.names},
                             {"debugFile", code.debug_file},
                             {"package", code.package},
                             {"missing", code.missing}});
    }
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return kExitDone;
  }
  std::printf("process %u (%s): how its stacks are unwound and where names come from, most code first\n",
              explained->pid, explained->comm.c_str());
  for (const agent::CodeExplanation& code : explained->code) {
    std::printf("\n%s  (%s of code%s%s)\n", code.name.c_str(), FormatBytes(code.code_bytes).c_str(),
                code.package.empty() ? "" : ", package ", code.package.c_str());
    std::printf("  stacks   %s\n", code.unwinding.c_str());
    std::printf("  names    %s\n", code.names.c_str());
    if (!code.debug_file.empty()) std::printf("  debug    %s\n", code.debug_file.c_str());
    if (!code.missing.empty()) std::printf("  missing  %s\n", code.missing.c_str());
    if (!code.build_id.empty()) std::printf("  build ID %s\n", code.build_id.c_str());
  }
  return kExitDone;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "doctor", "Say what this kernel and these privileges allow, and the remedy for what they do not",
                 "pyrometer doctor");
  auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "Print JSON");
  auto pid = std::make_shared<uint32_t>(0);
  command->add_option("--pid", *pid, "Explain one process: its unwind tables, debug files, and what is missing")
      ->check(CLI::Range(1u, 1u << 22))
      ->type_name("PID");
  command->callback([&invocation, as_json, pid] {
    invocation.run = [as_json, pid] { return *pid == 0 ? RunDoctor(*as_json) : RunDoctorOf(*pid, *as_json); };
  });
}

}  // namespace pyrometer::cli

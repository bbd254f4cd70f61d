// `pyrometer doctor`: what this kernel and these privileges allow, what is degraded, and the remedy.
#include <nlohmann/json.hpp>

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

std::vector<Ability> Abilities(const std::vector<Feature>& features) {
  return {
      AbilityFrom(features, "CPU profiles of the whole machine", {"bpf_perf_event", "ring_buffer"},
                  {"hardware_cycles", "kptr_restrict", "pid_namespace"}),
      AbilityFrom(features, "system-call latency", {"tp_btf", "task_storage"}, {}),
      AbilityFrom(features, "network round-trip time", {"tp_btf", "tcp_probe", "sk_storage"}, {}),
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

}  // namespace

void AddDoctorCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "doctor", "Say what this kernel and these privileges allow, and the remedy for what they do not",
                 "pyrometer doctor");
  auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "Print JSON");
  command->callback([&invocation, as_json] { invocation.run = [as_json] { return RunDoctor(*as_json); }; });
}

}  // namespace pyrometer::cli

// `pyrometer record`: a session on this machine, without a store.
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <span>

#include "userspace/agent/folders.h"
#include "userspace/agent/recorder.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/output.h"
#include "userspace/cli/probes.h"
#include "userspace/cli/render.h"
#include "userspace/cli/terminal.h"

namespace pyrometer::cli {
namespace {

constexpr uint64_t kDefaultDurationNs = 10 * kNsPerSecond;
constexpr size_t kTopFunctions = 10;

struct RecordFlags {
  agent::TargetSpec target;
  bool all = false;
  std::string duration;
  uint32_t frequency_hz = 99;
  std::string probes = "cpu";
  size_t top = kTopFunctions;
  std::vector<std::string> command;
  std::shared_ptr<OutputFlags> output;
};

std::atomic<bool> stop_requested{false};
void OnSignal(int) { stop_requested = true; }

StatusOr<agent::RecordOptions> ToOptions(const RecordFlags& flags) {
  agent::RecordOptions options;
  options.target = flags.target;
  options.command = flags.command;
  options.frequency_hz = flags.frequency_hz;
  options.stop = &stop_requested;
  ASSIGN_OR_RETURN(const ProbeSet probes, ParseProbes(flags.probes));
  options.cpu = probes.cpu;
  options.syscalls = probes.syscalls;
  options.tcp = probes.tcp;
  options.waits = probes.waits;
  if (!flags.duration.empty()) {
    auto duration = ParseDuration(flags.duration);
    if (!duration.ok()) return WithContext(duration.status(), "-d");
    if (*duration == 0) return InvalidArgumentError("-d: the duration must be above 0");
    options.duration_ns = *duration;
  } else if (flags.command.empty()) {
    options.duration_ns = kDefaultDurationNs;
  }
  return options;
}

std::string RenderLatency(const std::vector<agent::LatencyRow>& rows, std::string_view what, size_t limit) {
  Table table({{"container or service"},
               {std::string(what)},
               {"count", Table::Align::kRight},
               {"errors", Table::Align::kRight},
               {"p50", Table::Align::kRight},
               {"p95", Table::Align::kRight},
               {"p99", Table::Align::kRight},
               {"max", Table::Align::kRight},
               {"total", Table::Align::kRight}});
  for (const agent::LatencyRow& row : rows) {
    if (limit-- == 0) break;
    uint64_t errors = 0;
    for (const auto& [error, count] : row.errors) errors += count;
    const std::string_view container = row.labels.Get(profile::kLabelContainerName);
    const std::string_view call = row.labels.Get(profile::kLabelSyscall);
    table.AddRow({std::string(container.empty() ? row.labels.Get(profile::kLabelService) : container),
                  std::string(call.empty() ? row.labels.Get(profile::kLabelPeer) : call),
                  FormatCount(row.histogram.count()), FormatCount(errors),
                  FormatDurationNs(row.histogram.Quantile(0.5)), FormatDurationNs(row.histogram.Quantile(0.95)),
                  FormatDurationNs(row.histogram.Quantile(0.99)), FormatDurationNs(row.histogram.max()),
                  FormatDurationNs(row.histogram.sum())});
  }
  return table.ToString();
}

// Sampled waiting time by container or service and cause; every sample of a wait has the value types waits and off_cpu.
std::string RenderWaits(const profile::Profile& profile) {
  constexpr size_t kWaits = 2, kOffCpu = 3;
  struct Sum {
    int64_t waits = 0, ns = 0;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  std::map<std::string, int64_t> whole;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const std::span<const int64_t> values = profile.values(i);
    if (values[kWaits] == 0) continue;
    const profile::LabelSet& labels = profile.dictionary.label_set(profile.sample(i).labels);
    const std::string_view container = labels.Get(profile::kLabelContainerName);
    const std::string owner(container.empty() ? labels.Get(profile::kLabelService) : container);
    Sum& sum = sums[{owner, std::string(labels.Get(profile::kLabelCause))}];
    sum.waits += values[kWaits];
    sum.ns += values[kOffCpu];
    whole[owner] += values[kOffCpu];
  }
  std::vector<std::pair<std::pair<std::string, std::string>, Sum>> rows(sums.begin(), sums.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.ns > b.second.ns; });
  Table table({{"container or service"},
               {"cause"},
               {"waited", Table::Align::kRight},
               {"of its waits", Table::Align::kRight},
               {"samples", Table::Align::kRight}});
  size_t left = 3 * kTopFunctions;
  for (const auto& [key, sum] : rows) {
    if (left-- == 0) break;
    table.AddRow({key.first, key.second, FormatDurationNs(static_cast<uint64_t>(sum.ns)),
                  Percent(static_cast<double>(sum.ns), static_cast<double>(whole[key.first])),
                  FormatCount(static_cast<uint64_t>(sum.waits))});
  }
  return table.ToString();
}

int RunRecord(const RecordFlags& flags) {
  const auto formats = ResolveOutputs(*flags.output);
  if (!formats.ok()) return FailQuery(formats.status());
  auto options = ToOptions(flags);
  if (!options.ok()) return FailUsage(options.status());

  struct sigaction action {};
  action.sa_handler = OnSignal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);

  Progress progress("recording");
  options->on_progress = [&](uint64_t elapsed_ns, uint64_t planned_ns) {
    progress.Update(planned_ns > 0 ? static_cast<double>(elapsed_ns) / static_cast<double>(planned_ns) : 0,
                    planned_ns > 0 ? StrFormat("%s of %s", FormatDurationNs(elapsed_ns), FormatDurationNs(planned_ns))
                                   : FormatDurationNs(elapsed_ns) + ", Ctrl-C ends it");
  };
  auto recording = agent::Recorder(agent::DefaultCacheFolder()).Record(*options);
  progress.Clear();
  if (!recording.ok()) return Fail(recording.status());

  for (const std::string& note : recording->notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  if (recording->command_status) {
    const int status = *recording->command_status;
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
      std::fprintf(stderr, "note: the command ended with exit code %d\n", WEXITSTATUS(status));
    } else if (WIFSIGNALED(status)) {
      std::fprintf(stderr, "note: the command was ended by signal %d (%s)\n", WTERMSIG(status),
                   ::strsignal(WTERMSIG(status)));
    }
  }
  const Status written = WriteOutputs(recording->profile, *flags.output, *formats, "");
  if (!written.ok()) return Fail(written);
  const bool to_stdout =
      std::find(flags.output->paths.begin(), flags.output->paths.end(), "-") != flags.output->paths.end();
  if (to_stdout) return kExitDone;

  std::printf("%s", RenderSummary(recording->profile).c_str());
  std::printf("%s\n\n", recording->how.c_str());
  if (options->cpu && flags.top > 0) {
    if (recording->profile.sample_count() == 0) {
      std::printf("no samples: what was recorded used no CPU time that a tick of 1/%d s would hit\n",
                  options->frequency_hz);
    } else {
      std::printf("%s", RenderTopPerContainer(recording->profile, flags.top, query::TopOrder::kSelf).c_str());
    }
  }
  if (options->syscalls) {
    std::printf("\nsystem calls, per container\n%s",
                RenderLatency(recording->syscalls, "call", 3 * kTopFunctions).c_str());
  }
  if (options->tcp) {
    std::printf("\nTCP round-trip time, per container\n%s",
                RenderLatency(recording->tcp_rtt, "peer", 3 * kTopFunctions).c_str());
  }
  if (options->waits && recording->profile.value_types.size() > 2) {
    std::printf("\nwaits, by cause (samples, weighted)\n%s", RenderWaits(recording->profile).c_str());
  }
  return kExitDone;
}

}  // namespace

void AddRecordCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, "record", "Profile this machine, one target, or a command, and write the profile",
                                 "pyrometer record --container shop -d 30s -o shop.html\n"
                                 "  pyrometer record -o build.pb.gz -- make -j2");
  auto flags = std::make_shared<RecordFlags>();
  auto* target = command->add_option_group("target");
  target->add_flag("--all", flags->all, "Everything this machine runs (default)");
  target->add_option("--pid", flags->target.pid, "One process and its children")->check(CLI::PositiveNumber);
  target->add_option("--container", flags->target.container, "One container, by name or id prefix");
  target->add_option("--cgroup", flags->target.cgroup, "One cgroup, by its path below the cgroup2 mount");
  target->require_option(0, 1);
  command->add_option("-d,--duration", flags->duration, "How long: 10s, 1.5m (default: 10s, or until the command ends)")
      ->type_name("TIME");
  command->add_option("-F,--frequency", flags->frequency_hz, "Samples per second and busy CPU (default 99)")
      ->check(CLI::Range(1, 50'000))
      ->type_name("HZ");
  command->add_option("--probes", flags->probes, "What to measure, by commas: cpu, syscalls, tcp, waits (default cpu)")
      ->type_name("LIST");
  command->add_option("--top", flags->top, "Hottest functions printed per container, 0 = none (default 10)")
      ->type_name("N");
  flags->output = AddOutputFlags(command);
  command->add_option("COMMAND", flags->command, "After --: a command to run and record");
  command->callback([&invocation, flags] {
    if (!flags->command.empty() &&
        (flags->all || flags->target.pid != 0 || !flags->target.container.empty() || !flags->target.cgroup.empty())) {
      throw CLI::ValidationError("COMMAND",
                                 "a command is its own target: leave out --all, --pid, --container, --cgroup");
    }
    invocation.run = [flags] { return RunRecord(*flags); };
  });
}

}  // namespace pyrometer::cli

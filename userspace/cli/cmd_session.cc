// `pyrometer session start|list|stop`: profiling on demand on a remote node, through the store.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/cli/command.h"
#include "userspace/cli/connection.h"
#include "userspace/cli/output.h"
#include "userspace/cli/probes.h"
#include "userspace/cli/render.h"
#include "userspace/cli/terminal.h"

namespace pyrometer::cli {
namespace {

constexpr size_t kTopFunctions = 10;
constexpr auto kPollInterval = std::chrono::milliseconds(250);
// After the session's time: a window of grace, the spool, the store's sync.
constexpr uint64_t kFinishGraceNs = 30 * kNsPerSecond;

std::atomic<bool> stop_requested{false};
void OnSignal(int) { stop_requested = true; }

struct StartFlags {
  std::shared_ptr<ConnectionFlags> connection;
  rpc::SessionSpec spec;
  bool all = false;
  std::string duration = "30s";
  std::string probes = "cpu";
  size_t top = kTopFunctions;
  bool json = false;
  std::shared_ptr<OutputFlags> output;
};

// A store with one node needs no --node.
StatusOr<std::string> ChooseNode(rpc::QueryApi& store, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  ASSIGN_OR_RETURN(const auto nodes, store.ListNodes());
  std::vector<std::string> online;
  for (const rpc::NodeInfo& node : nodes) {
    if (node.online) online.push_back(node.node);
  }
  if (online.size() == 1) return online[0];
  if (online.empty()) return UnavailableError("no node is connected to this store; start `pyrometer agent` on one");
  return InvalidArgumentError(StrFormat("--node is needed: %s are connected", Join(online, ", ")));
}

StatusOr<rpc::SessionInfo> WaitForEnd(rpc::QueryApi& store, const rpc::SessionInfo& started) {
  Progress progress(StrFormat("session %s on %s", started.spec.id, started.spec.node));
  const uint64_t begun_ns = MonotonicNowNs();
  bool stopping = false;
  while (true) {
    ASSIGN_OR_RETURN(const rpc::SessionInfo info, store.GetSession(started.spec.id));
    if (rpc::IsFinal(info.state)) return info;
    const uint64_t elapsed_ns = MonotonicNowNs() - begun_ns;
    if (elapsed_ns > started.spec.duration_ns + kFinishGraceNs) {
      return DeadlineExceededError(StrFormat(
          "session %s should have ended %s ago; the node may be slow or away, look with `pyrometer session list`",
          info.spec.id, FormatDurationNs(elapsed_ns - started.spec.duration_ns)));
    }
    if (stop_requested && !stopping) {
      stopping = true;
      RETURN_IF_ERROR(store.StopSession(info.spec.id).status());
    }
    progress.Update(static_cast<double>(elapsed_ns) / static_cast<double>(started.spec.duration_ns),
                    StrFormat("%s of %s, %s samples", FormatDurationNs(elapsed_ns),
                              FormatDurationNs(started.spec.duration_ns), FormatCount(info.samples)));
    std::this_thread::sleep_for(kPollInterval);
  }
}

// Profile type of what a probe of sessions takes.
std::string_view TypeOf(std::string_view probe) { return probe == "cpu" ? profile::kTypeCpu : profile::kTypeOffCpu; }

std::string QueryOf(const rpc::SessionInfo& session, std::string_view probe) {
  return StrFormat("%s{session=\"%s\"}", TypeOf(probe), session.spec.id);
}

StatusOr<profile::Profile> Taken(rpc::QueryApi& store, const rpc::SessionInfo& session, std::string_view probe) {
  // Windows are aligned, so the first may start before the session did.
  return store.MergeProfile({.query = QueryOf(session, probe),
                             .from_ns = session.started_ns - static_cast<int64_t>(60 * kNsPerSecond),
                             .to_ns = UnixNowNs() + static_cast<int64_t>(60 * kNsPerSecond),
                             .by = {std::string(profile::kLabelNode), std::string(profile::kLabelContainerName),
                                    std::string(profile::kLabelService), std::string(profile::kLabelComm)},
                             .min_ns = 0,
                             .max_ns = 0});
}

void PrintTaken(const profile::Profile& profile, const rpc::SessionInfo& session, std::string_view probe, size_t top) {
  std::printf("%s", RenderSummary(profile).c_str());
  std::printf("it stays in the store: pyrometer flame '%s'\n\n", QueryOf(session, probe).c_str());
  if (profile.sample_count() == 0) {
    std::printf(probe == "cpu" ? "no samples: the target used no CPU time that a tick would hit\n"
                               : "no samples: the target did not wait, or no wait of it has ended\n");
  } else if (top > 0) {
    std::printf("%s", RenderTopPerContainer(profile, top, query::TopOrder::kSelf).c_str());
  }
}

int RunStart(StartFlags flags) {
  const auto formats = ResolveOutputs(*flags.output);
  if (!formats.ok()) return FailQuery(formats.status());
  const auto duration = ParseDuration(flags.duration);
  if (!duration.ok()) return FailUsage(WithContext(duration.status(), "-d"));
  if (*duration == 0) return FailUsage(InvalidArgumentError("-d: the duration must be above 0"));
  flags.spec.duration_ns = *duration;
  const auto probes = ParseProbes(flags.probes);
  if (!probes.ok()) return FailUsage(probes.status());
  if (probes->syscalls || probes->tcp) {
    return FailUsage(InvalidArgumentError(
        "--probes: a session has cpu and waits; agents measure system calls and TCP all the time"));
  }
  if (probes->cpu) flags.spec.probes.emplace_back("cpu");
  if (probes->waits) flags.spec.probes.emplace_back("waits");

  struct sigaction action {};
  action.sa_handler = OnSignal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);

  const auto store = Connect(*flags.connection);
  if (!store.ok()) return Fail(store.status());
  const auto node = ChooseNode(**store, flags.spec.node);
  if (!node.ok()) return FailQuery(node.status());
  flags.spec.node = *node;
  const auto started = (*store)->StartSession(flags.spec);
  if (!started.ok()) return Fail(started.status());
  const auto ended = WaitForEnd(**store, *started);
  if (!ended.ok()) return Fail(ended.status());
  if (ended->state == rpc::SessionState::kFailed) {
    std::string kept;
    if (ended->samples > 0) {
      kept = StrFormat("; the %s samples until then stay in the store: pyrometer flame '%s'",
                       FormatCount(ended->samples), QueryOf(*ended, flags.spec.probes.front()));
    }
    return Fail(FailedPreconditionError(
        StrFormat("session %s on %s failed: %s%s", ended->spec.id, ended->spec.node, ended->error, kept)));
  }

  const auto profile = Taken(**store, *ended, flags.spec.probes.front());
  if (!profile.ok()) return Fail(profile.status());
  const Status written = WriteOutputs(
      *profile, *flags.output, *formats,
      StrFormat("session %s on %s, %s", ended->spec.id, ended->spec.node, rpc::TargetText(ended->spec.target)));
  if (!written.ok()) return Fail(written);
  if (flags.json) {
    std::printf("%s", TopJson(query::TopFunctions(*profile, flags.top), DefaultUnit(*profile)).c_str());
    return kExitDone;
  }
  std::printf("session %s on %s, %s, %s: %s\n", ended->spec.id.c_str(), ended->spec.node.c_str(),
              rpc::TargetText(ended->spec.target).c_str(), FormatDurationNs(ended->spec.duration_ns).c_str(),
              std::string(rpc::SessionStateName(ended->state)).c_str());
  PrintTaken(*profile, *ended, flags.spec.probes.front(), flags.top);
  for (size_t i = 1; i < flags.spec.probes.size(); ++i) {
    const auto more = Taken(**store, *ended, flags.spec.probes[i]);
    if (!more.ok()) return Fail(more.status());
    std::printf("\n");
    PrintTaken(*more, *ended, flags.spec.probes[i], flags.top);
  }
  return kExitDone;
}

int RunList(const ConnectionFlags& connection, bool json) {
  const auto store = Connect(connection);
  if (!store.ok()) return Fail(store.status());
  const auto sessions = (*store)->ListSessions();
  if (!sessions.ok()) return Fail(sessions.status());
  if (json) {
    nlohmann::ordered_json out = nlohmann::json::array();
    for (const rpc::SessionInfo& info : *sessions) {
      out.push_back({{"id", info.spec.id},
                     {"node", info.spec.node},
                     {"target", rpc::TargetText(info.spec.target)},
                     {"state", std::string(rpc::SessionStateName(info.state))},
                     {"startedMs", info.started_ns / 1'000'000},
                     {"durationNs", info.spec.duration_ns},
                     {"samples", info.samples},
                     {"error", info.error}});
    }
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return kExitDone;
  }
  if (sessions->empty()) {
    std::printf("no sessions; start one with `pyrometer session start`\n");
    return kExitDone;
  }
  Table table({{"id"},
               {"node"},
               {"target"},
               {"state"},
               {"duration", Table::Align::kRight},
               {"samples", Table::Align::kRight},
               {"error"}});
  for (const rpc::SessionInfo& info : *sessions) {
    table.AddRow({info.spec.id, info.spec.node, rpc::TargetText(info.spec.target),
                  std::string(rpc::SessionStateName(info.state)), FormatDurationNs(info.spec.duration_ns),
                  FormatCount(info.samples), info.error});
  }
  std::printf("%s", table.ToString().c_str());
  return kExitDone;
}

int RunStop(const ConnectionFlags& connection, const std::string& id) {
  const auto store = Connect(connection);
  if (!store.ok()) return Fail(store.status());
  const auto info = (*store)->StopSession(id);
  if (!info.ok()) return Fail(info.status());
  std::printf("session %s on %s: %s\n", info->spec.id.c_str(), info->spec.node.c_str(),
              std::string(rpc::SessionStateName(info->state)).c_str());
  return kExitDone;
}

}  // namespace

void AddSessionCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* session = AddCommand(app, "session", "Profile a remote node on demand, through the store",
                                 "pyrometer session start --node web-3 --container shop -d 30s -o shop.html");
  session->require_subcommand(1);

  CLI::App* start = AddCommand(*session, "start", "Start a session, wait for its end, show or write the profile",
                               "pyrometer session start --node web-3 --container shop -d 30s -o shop.html");
  auto flags = std::make_shared<StartFlags>();
  flags->connection = AddConnectionFlags(start);
  start->add_option("--node", flags->spec.node, "Node to profile (may be left out when there is only one)")
      ->type_name("NAME");
  auto* target = start->add_option_group("target");
  target->add_flag("--all", flags->all, "Everything the node runs (default)");
  target->add_option("--pid", flags->spec.target.pid, "One process and its children")->check(CLI::PositiveNumber);
  target->add_option("--container", flags->spec.target.container, "One container, by name or id prefix");
  target->add_option("--cgroup", flags->spec.target.cgroup, "One cgroup, by its path below the cgroup2 mount");
  target->require_option(0, 1);
  start->add_option("-d,--duration", flags->duration, "How long (default 30s)")->type_name("TIME");
  start
      ->add_option("-F,--frequency", flags->spec.frequency_hz, "Samples per second and busy CPU (default: the agent's)")
      ->check(CLI::Range(1, 50'000))
      ->type_name("HZ");
  start
      ->add_option("--probes", flags->probes,
                   "What to measure, by commas: cpu, waits (default cpu); -o and --json have the first")
      ->type_name("LIST");
  start->add_option("--top", flags->top, "Hottest functions printed per container, 0 = none (default 10)")
      ->type_name("N");
  start->add_flag("--json", flags->json, "Print the hottest functions as JSON");
  flags->output = AddOutputFlags(start);
  start->callback([&invocation, flags] { invocation.run = [flags] { return RunStart(*flags); }; });

  CLI::App* list =
      AddCommand(*session, "list", "Sessions that the store knows, newest first", "pyrometer session list");
  auto list_connection = AddConnectionFlags(list);
  auto list_json = std::make_shared<bool>(false);
  list->add_flag("--json", *list_json, "Print JSON");
  list->callback([&invocation, list_connection, list_json] {
    invocation.run = [list_connection, list_json] { return RunList(*list_connection, *list_json); };
  });

  CLI::App* stop =
      AddCommand(*session, "stop", "End a session early; what it took stays", "pyrometer session stop 3f2a");
  auto stop_connection = AddConnectionFlags(stop);
  auto id = std::make_shared<std::string>();
  stop->add_option("ID", *id, "As `session list` shows it")->required();
  stop->callback([&invocation, stop_connection, id] {
    invocation.run = [stop_connection, id] { return RunStop(*stop_connection, *id); };
  });
}

}  // namespace pyrometer::cli

// `pyrometer up`, `agent` and `store`: what runs for long.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "userspace/agent/agent.h"
#include "userspace/base/clock.h"
#include "userspace/base/process_usage.h"
#include "userspace/base/strings.h"
#include "userspace/base/version.h"
#include "userspace/cli/command.h"
#include "userspace/cli/connection.h"
#include "userspace/cli/probes.h"
#include "userspace/cli/store_flags.h"
#include "userspace/cli/terminal.h"
#include "userspace/query/engine.h"
#include "userspace/server/server.h"
#include "userspace/store/clickhouse/clickhouse.h"
#include "userspace/store/store.h"

namespace pyrometer::cli {
namespace {

constexpr uint64_t kHousekeepingIntervalNs = 10 * kNsPerSecond;

struct AgentFlags {
  std::string node;
  std::string probes = "cpu,syscalls,tcp";
  uint32_t frequency_hz = 99;
  std::string spool;
  uint64_t spool_bytes = 1ull << 30;
  double cpu_budget = 0.25;
  double syscall_budget = 0;
  uint64_t unwind_bytes = 128u << 20;
  std::string cache;
};

void AddAgentFlags(CLI::App* command, AgentFlags& flags) {
  command->add_option("-F,--frequency", flags.frequency_hz, "Samples per second and busy CPU (default 99)")
      ->check(CLI::Range(1, 10'000))
      ->type_name("HZ");
  command
      ->add_option("--probes", flags.probes,
                   "What to measure, by commas: cpu, syscalls, tcp, waits (default: all but waits)")
      ->type_name("LIST");
  command->add_option("--node", flags.node, "Name of this node (default: host name)")->type_name("NAME");
  command->add_option("--spool", flags.spool, "Folder for batches the store has not taken yet")->type_name("DIR");
  command->add_option("--spool-size", flags.spool_bytes, "Disk the spool may use (default 1GiB)")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("BYTES");
  command
      ->add_option("--cpu-budget", flags.cpu_budget,
                   "Cores the agent may use before it lowers its frequency (default 0.25, 0 = no budget)")
      ->check(CLI::NonNegativeNumber)
      ->type_name("CORES");
  command
      ->add_option(
          "--syscall-budget", flags.syscall_budget,
          "Cores that timing system calls may cost those who make them; beyond, they are timed part of the time "
          "and estimated (default 0 = time all)")
      ->check(CLI::NonNegativeNumber)
      ->type_name("CORES");
  command
      ->add_option("--unwind-memory", flags.unwind_bytes,
                   "Kernel memory that unwind tables may use (default 128MiB); beyond, frame pointers must do")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{4} << 20, uint64_t{8} << 30))
      ->type_name("BYTES");
  command->add_option("--cache", flags.cache, "Folder for unwind tables and symbols, which can be made again")
      ->type_name("DIR");
}

StatusOr<agent::Agent::Options> ToOptions(const AgentFlags& flags) {
  agent::Agent::Options options;
  options.collecting.frequency_hz = flags.frequency_hz;
  options.collecting.cpu_budget_cores = flags.cpu_budget;
  options.collecting.syscall_budget_cores = flags.syscall_budget;
  ASSIGN_OR_RETURN(const ProbeSet probes, ParseProbes(flags.probes));
  options.collecting.cpu = probes.cpu;
  options.collecting.syscalls = probes.syscalls;
  options.collecting.tcp = probes.tcp;
  options.collecting.waits = probes.waits;
  options.node.name = flags.node;
  options.node.defer_debug_information = true;
  options.node.unwind_bytes = flags.unwind_bytes;
  options.node.cache_folder = flags.cache.empty() ? agent::DefaultCacheFolder() : flags.cache;
  options.spool_folder = flags.spool.empty() ? agent::DefaultStateFolder() + "/spool" : flags.spool;
  options.spool.max_bytes = flags.spool_bytes;
  options.log = [](const std::string& line) { std::fprintf(stderr, "pyrometer: %s\n", line.c_str()); };
  return options;
}

// SIGINT and SIGTERM arrive here instead of ending the process; must be made before any thread starts.
class StopSignal {
 public:
  StopSignal() {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGINT);
    ::sigaddset(&signals, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    fd_.Reset(::signalfd(-1, &signals, SFD_CLOEXEC));
  }
  // True when a signal came within `timeout_ms`.
  bool Wait(int timeout_ms) {
    pollfd waiting{fd_.get(), POLLIN, 0};
    return ::poll(&waiting, 1, timeout_ms) > 0;
  }

 private:
  UniqueFd fd_;
};

// Store, engine and server, in the order they need each other.
struct StoreStack {
  std::unique_ptr<store::Store> store;
  std::unique_ptr<query::Engine> engine;
  std::unique_ptr<server::Server> server;
};

StatusOr<StoreStack> StartStore(const std::string& data, StoreSettings settings, const std::string& mode,
                                const std::string& node) {
  StoreStack stack;
  settings.server.mode = mode;
  settings.server.node = node;
  settings.server.symbols_folder = data + "/symbols";
  settings.server.log = [](const std::string& line) { std::fprintf(stderr, "pyrometer: %s\n", line.c_str()); };
  if (settings.backend.empty()) {
    ASSIGN_OR_RETURN(stack.store, store::Store::Open(data, std::move(settings.store)));
  } else {
    ASSIGN_OR_RETURN(stack.store, store::clickhouse::Open(settings.backend, data, std::move(settings.store)));
  }
  stack.engine = std::make_unique<query::Engine>(stack.store.get());
  ASSIGN_OR_RETURN(stack.server,
                   server::Server::Start(std::move(settings.server), stack.store.get(), stack.engine.get()));
  return stack;
}

// Backups that a running store makes of itself.
struct BackupFlags {
  std::string folder;  // "" = none
  std::string every = "1d";
};

class BackupSchedule {
 public:
  BackupSchedule() = default;
  static StatusOr<BackupSchedule> Make(const BackupFlags& flags) {
    BackupSchedule schedule;
    schedule.folder_ = flags.folder;
    auto every = ParseDuration(flags.every);
    if (!every.ok()) return WithContext(every.status(), "--backup-every");
    schedule.every_ns_ = static_cast<int64_t>(*every);
    // A store that is started often shall not make one at each start.
    if (const auto made = store::ListBackups(flags.folder, false); made.ok() && !made->empty()) {
      schedule.next_ns_ = made->back().time_ns + schedule.every_ns_;
    }
    return schedule;
  }
  void MakeWhenDue(store::Store* store) {
    if (folder_.empty() || UnixNowNs() < next_ns_) return;
    const auto made = store->Backup(folder_);
    if (!made.ok()) std::fprintf(stderr, "pyrometer: backup: %s\n", made.status().ToString().c_str());
    next_ns_ = UnixNowNs() + every_ns_;
  }

 private:
  std::string folder_;
  int64_t every_ns_ = 0;
  int64_t next_ns_ = 0;
};

// Runs until a signal comes, with the store's housekeeping and backups in between.
void ServeUntil(StopSignal& stop, store::Store* store, BackupSchedule backups = {}) {
  bool at_once = true;
  while (!stop.Wait(at_once ? 0 : static_cast<int>(kHousekeepingIntervalNs / kNsPerMs))) {
    at_once = false;
    if (store == nullptr) continue;
    const auto done = store->Housekeep(UnixNowNs());
    if (!done.ok()) {
      std::fprintf(stderr, "pyrometer: housekeeping of the store: %s\n", done.status().ToString().c_str());
    }
    at_once = done.ok() && done->more;
    backups.MakeWhenDue(store);
  }
}

void PrintProbes(const agent::Agent& agent) {
  for (const agent::ProbeReport& probe : agent.Probes()) {
    if (!probe.Limited()) continue;
    std::fprintf(stderr, "pyrometer: %s is %s: %s\n", probe.name.c_str(), probe.state.c_str(), probe.reason.c_str());
  }
}

int RunUp(StoreFlags store_flags, const AgentFlags& agent_flags) {
  StopSignal stop;
  auto options = ToOptions(agent_flags);
  if (!options.ok()) return FailUsage(options.status());
  auto settings = ResolveStoreFlags(store_flags);
  if (!settings.ok()) return FailQuery(settings.status());
  const std::string state = store_flags.data.empty() ? agent::DefaultStateFolder() : store_flags.data;
  store_flags.data = state + "/store";
  if (agent_flags.spool.empty()) options->spool_folder = state + "/spool";
  const std::string node = agent_flags.node.empty() ? agent::HostName() : agent_flags.node;
  auto stack = StartStore(store_flags.data, *std::move(settings), "up", node);
  if (!stack.ok()) return Fail(stack.status());
  options->store = stack->server->grpc_address();
  options->channel = stack->server->InProcessChannel();
  if (!store_flags.token_file.empty()) {
    auto token = rpc::ReadTokenFile(store_flags.token_file);
    if (!token.ok()) return Fail(token.status());
    options->credentials.token = *std::move(token);
  }
  // One process: that its halves found each other is no news.
  options->log = [log = options->log](const std::string& line) {
    if (!line.starts_with("connected")) log(line);
  };
  auto agent = agent::Agent::Start(*std::move(options));
  if (!agent.ok()) return Fail(agent.status());
  PrintProbes(**agent);
  std::printf("%s\n", stack->server->http_url().c_str());
  std::printf(
      "Open it in a browser: the first flame graph is there in some ten seconds. Ctrl-C ends it; data stays in %s.\n",
      state.c_str());
  std::fflush(stdout);
  ServeUntil(stop, stack->store.get());
  (*agent)->Stop();
  stack->server->Shutdown();
  return kExitDone;
}

int RunAgent(const ConnectionFlags& connection, const AgentFlags& flags) {
  StopSignal stop;
  auto options = ToOptions(flags);
  if (!options.ok()) return FailUsage(options.status());
  auto credentials = LoadCredentials(connection);
  if (!credentials.ok()) return Fail(credentials.status());
  options->store = connection.store;
  options->credentials = *std::move(credentials);
  auto agent = agent::Agent::Start(*std::move(options));
  if (!agent.ok()) return Fail(agent.status());
  PrintProbes(**agent);
  std::printf("pyrometer agent %s on %s, streaming to %s\n", std::string(kVersion).c_str(),
              (*agent)->node().name().c_str(), connection.store.c_str());
  std::fflush(stdout);
  ServeUntil(stop, nullptr);
  (*agent)->Stop();
  const agent::Spool::Counters spool = (*agent)->spool();
  if (spool.pending_batches > 0) {
    std::fprintf(stderr, "pyrometer: %s batches (%s) wait in the spool; the next start sends them\n",
                 FormatCount(spool.pending_batches).c_str(), FormatBytes(spool.pending_bytes).c_str());
  }
  return kExitDone;
}

int RunStore(StoreFlags flags, const BackupFlags& backup_flags) {
  RaiseFileLimit();  // each agent has a connection
  StopSignal stop;
  BackupSchedule backups;
  if (!backup_flags.folder.empty()) {
    if (!flags.backend.empty()) {
      return FailUsage(
          InvalidArgumentError("--backup is for profiles in --data; with --backend ClickHouse is to be backed up by "
                               "its own means, all tables "
                               "of the database together"));
    }
    auto schedule = BackupSchedule::Make(backup_flags);
    if (!schedule.ok()) return FailUsage(schedule.status());
    backups = *std::move(schedule);
  }
  if (flags.data.empty()) flags.data = agent::DefaultStateFolder() + "/store";
  auto settings = ResolveStoreFlags(flags);
  if (!settings.ok()) return FailQuery(settings.status());
  auto stack = StartStore(flags.data, *std::move(settings), "store", "");
  if (!stack.ok()) return Fail(stack.status());
  std::printf("%s\n", stack->server->http_url().c_str());
  std::printf("Agents connect with: pyrometer agent --store %s\n", stack->server->grpc_address().c_str());
  std::fflush(stdout);
  ServeUntil(stop, stack->store.get(), std::move(backups));
  stack->server->Shutdown();
  return kExitDone;
}

}  // namespace

void AddUpCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, "up", "Profile this machine and show it: agent, store and page in one process",
                                 "sudo pyrometer up");
  auto store = std::make_shared<StoreFlags>();
  auto agent = std::make_shared<AgentFlags>();
  command->add_option("--data", store->data, "Folder for data (default /var/lib/pyrometer for root)")->type_name("DIR");
  AddAgentFlags(command, *agent);
  AddStoreFlags(command, *store);
  command->callback([&invocation, store, agent] { invocation.run = [store, agent] { return RunUp(*store, *agent); }; });
}

void AddAgentCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "agent", "The node daemon alone, streaming to a central store",
                 "sudo pyrometer agent --store profiles.example:7071 --tls --token-file /etc/pyrometer/token");
  auto connection = AddConnectionFlags(command);
  auto agent = std::make_shared<AgentFlags>();
  AddAgentFlags(command, *agent);
  command->callback([&invocation, connection, agent] {
    invocation.run = [connection, agent] { return RunAgent(*connection, *agent); };
  });
}

void AddStoreCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      AddCommand(app, "store", "The central store: takes profiles from agents, answers questions, serves the page",
                 "pyrometer store --data /srv/pyrometer");
  auto store = std::make_shared<StoreFlags>();
  command->add_option("--data", store->data, "Folder for data (default /var/lib/pyrometer/store for root)")
      ->type_name("DIR");
  AddStoreFlags(command, *store);
  auto backups = std::make_shared<BackupFlags>();
  command->add_option("--backup", backups->folder, "Folder into which the store backs itself up")->type_name("DIR");
  command->add_option("--backup-every", backups->every, "How often (default 1d)")->type_name("TIME");
  AddStoreTools(*command, invocation);
  command->callback([&invocation, command, store, backups] {
    // CLI11 calls this after the callback of `fsck`, `backup` or `restore`.
    if (!command->get_subcommands().empty()) return;
    invocation.run = [store, backups] { return RunStore(*store, *backups); };
  });
}

}  // namespace pyrometer::cli

#include "userspace/agent/node.h"

#include <sys/utsname.h>

#include <algorithm>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>

#include "userspace/base/strings.h"
#include "userspace/rpc/cri/cri_client.h"

namespace pyrometer::agent {
namespace {

profile::LabelSet HostLabels(const std::string& node) {
  return profile::LabelSet::MakeLenient(
      {{std::string(profile::kLabelNode), node}, {std::string(profile::kLabelService), "host"}});
}

void AddIds(const containers::ContainerMatch& match, kernel::SampleTarget* target) {
  for (const CgroupId id : match.v2_ids) target->cgroup_ids.push_back(id.value);
  for (const CgroupId id : match.v1_ids) target->cgroup_v1_ids.push_back(id.value);
}

// Some 15 ms of reading. Compilers and browsers have hundreds of MiB, seconds of it.
constexpr uint64_t kDeferDebugBytes = 2u << 20;

symbolize::Symbolizer::Options SymbolOptions(const Node::Options& options) {
  symbolize::Symbolizer::Options symbols;
  if (!options.cache_folder.empty()) symbols.index_cache.folder = options.cache_folder + "/symbols";
  if (options.defer_debug_information) symbols.defer_debug_bytes = kDeferDebugBytes;
  return symbols;
}

Status NoContainers() {
  return FailedPreconditionError(
      "no cgroup file system is mounted here, so containers and cgroups cannot be told apart; mount cgroup2 at "
      "/sys/fs/cgroup");
}

}  // namespace

std::string HostName() {
  utsname names{};
  return ::uname(&names) == 0 && names.nodename[0] != '\0' ? ToUtf8(names.nodename) : "localhost";
}

Node::Node(const Options& options)
    : name_(options.name.empty() ? HostName() : options.name),
      processes_({.watch_changes = true}),
      naming_(SymbolOptions(options)) {}

StatusOr<std::unique_ptr<Node>> Node::Start(const Options& options) {
  std::unique_ptr<Node> node(new Node(options));
  if (options.unwind_tables) {
    Unwinding::Options unwinding;
    unwinding.processes = &node->processes_;
    unwinding.max_bytes = options.unwind_bytes;
    if (!options.cache_folder.empty()) unwinding.cache_folder = options.cache_folder + "/unwind";
    // Without the right to BPF, stacks that come as copies are still walked by tables.
    auto maps = kernel::UnwindMaps::Create({.max_bytes = options.unwind_bytes});
    if (maps.ok()) unwinding.maps = *std::move(maps);
    node->unwinding_ = Unwinding::Start(unwinding);
  }
  // Events before the scan: what starts meanwhile is seen by one of them.
  if (options.process_events) {
    auto events = kernel::ProcessEvents::Start({.unwind = node->unwind_maps()});
    if (events.ok()) {
      node->events_ = *std::move(events);
    } else {
      node->events_status_ = events.status();
    }
  } else {
    node->events_status_ = FailedPreconditionError("process events were not asked for");
  }
  RETURN_IF_ERROR(node->processes_.ScanAll());

  containers::ContainerIndex::Options indexing;
  indexing.node = node->name_;
  indexing.v1_controller = kernel::V1Controller();
  auto index = containers::ContainerIndex::Start(indexing);
  if (index.ok()) {
    node->containers_ = *std::move(index);
    for (auto& client : containers::MakeDefaultClients()) node->containers_->AddClient(std::move(client));
    for (auto& client : rpc::MakeCriClients()) node->containers_->AddClient(std::move(client));
  }
  return node;
}

kernel::ProcessEventCounters Node::process_event_counters() const {
  return events_ != nullptr ? events_->Counters() : kernel::ProcessEventCounters{};
}

void Node::Apply(kernel::ProcessEvent&& event) {
  std::visit(
      [this](auto&& e) {
        using Event = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<Event, process::ImageStart>) {
          processes_.OnImageStart(e);
        } else if constexpr (std::is_same_v<Event, process::Exec>) {
          processes_.OnExec(e);
        } else if constexpr (std::is_same_v<Event, process::Fork>) {
          processes_.OnFork(e);
        } else if constexpr (std::is_same_v<Event, process::Exit>) {
          processes_.OnExit(e);
        } else if constexpr (std::is_same_v<Event, process::Comm>) {
          processes_.OnComm(e);
        } else if constexpr (std::is_same_v<Event, process::Mapping>) {
          processes_.OnMapping(e);
        } else {
          // Events were lost: /proc is the truth. A failed scan is tried again with the next loss.
          (void)processes_.ScanAll();
        }
      },
      std::move(event));
}

Status Node::PollEvents(std::chrono::milliseconds timeout) {
  if (events_ == nullptr) {
    std::this_thread::sleep_for(timeout);
    if (unwinding_ != nullptr) unwinding_->Sync(MonotonicNowNs());
    return OkStatus();
  }
  // What the table knows after this: everything that old, and each event that came.
  known_until_ns_ = MonotonicNowNs() - kernel::kReorderNs;
  const Status status = events_->Poll(timeout, [&](kernel::ProcessEvent&& event) {
    known_until_ns_ = std::max(known_until_ns_, kernel::TimeOf(event));
    Apply(std::move(event));
  });
  if (unwinding_ != nullptr) unwinding_->Sync(known_until_ns_);
  return status;
}

profile::LabelSet Node::LabelsOf(uint64_t cgroup_id, uint64_t cgroup_v1_id, std::string_view comm) {
  if (containers_ == nullptr || (cgroup_id == 0 && cgroup_v1_id == 0)) {
    return HostLabels(name_).With(profile::kLabelComm, ToUtf8(comm));
  }
  const auto info = containers_->Lookup(CgroupId(cgroup_id), CgroupId(cgroup_v1_id));
  std::vector<profile::Label> labels;
  labels.reserve(info->labels.size() + 1);
  for (const auto& [name, value] : info->labels) labels.push_back({name, value});
  if (!comm.empty()) labels.push_back({std::string(profile::kLabelComm), std::string(comm)});
  return profile::LabelSet::MakeLenient(std::move(labels));
}

Status Node::FindContainer(const std::string& name_or_id, kernel::SampleTarget* target) {
  if (containers_ == nullptr) return NoContainers();
  ASSIGN_OR_RETURN(const auto matches, containers_->FindByName(name_or_id));
  for (const containers::ContainerMatch& match : matches) AddIds(match, target);
  return OkStatus();
}

Status Node::FindCgroup(const std::string& path, kernel::SampleTarget* target) {
  if (containers_ == nullptr) return NoContainers();
  ASSIGN_OR_RETURN(const auto match, containers_->FindByCgroupPath(path));
  AddIds(match, target);
  return OkStatus();
}

}  // namespace pyrometer::agent

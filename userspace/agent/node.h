// What runs on this machine and what it is called: processes, containers, symbols. Shared by the
// always-on collector, sessions and recordings.
//
//   ASSIGN_OR_RETURN(auto node, Node::Start({}));
//   node->PollEvents(50ms);                           // on the collecting thread
//   node->LabelsOf(cgroup_id, v1_id, "nginx");        // {comm,container.name,…,node,service}
//
// Threads: PollEvents from one thread; everything else from any.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/agent/naming.h"
#include "userspace/base/status.h"
#include "userspace/containers/container_index.h"
#include "userspace/kernel/cpu_sampler.h"
#include "userspace/kernel/process_events.h"
#include "userspace/process/process_table.h"
#include "userspace/profile/label_set.h"

namespace pyrometer::agent {

class Node {
 public:
  struct Options {
    std::string name;            // label `node`; empty = host name
    bool process_events = true;  // false: /proc is scanned instead (short processes are then missed)
    std::string symbols_folder;  // where symbol indexes are kept; empty = in memory only
  };

  // Never fails for missing privileges: process_events_status() says what is missing.
  static StatusOr<std::unique_ptr<Node>> Start(const Options& options);

  const std::string& name() const { return name_; }
  process::ProcessTable& processes() { return processes_; }
  containers::ContainerIndex& containers() { return *containers_; }
  Naming& naming() { return naming_; }
  // OK when exec, fork, exit and mappings are reported as they happen.
  const Status& process_events_status() const { return events_status_; }
  kernel::ProcessEventCounters process_event_counters() const;

  // Waits at most `timeout` for process events and takes them into the table.
  Status PollEvents(std::chrono::milliseconds timeout);
  // Takes an event from elsewhere (the unprivileged sampler).
  void Apply(kernel::ProcessEvent&& event);

  // Node, container and service labels of a cgroup, plus `comm`.
  profile::LabelSet LabelsOf(uint64_t cgroup_id, uint64_t cgroup_v1_id, std::string_view comm);
  // Fills the cgroup ids of `target`. NOT_FOUND names close ones.
  Status FindContainer(const std::string& name_or_id, kernel::SampleTarget* target);
  Status FindCgroup(const std::string& path, kernel::SampleTarget* target);

 private:
  explicit Node(const Options& options);

  const std::string name_;
  process::ProcessTable processes_;
  std::unique_ptr<containers::ContainerIndex> containers_;
  Naming naming_;
  Status events_status_;
  std::unique_ptr<kernel::ProcessEvents> events_;
};

// This machine's host name.
std::string HostName();

}  // namespace pyrometer::agent

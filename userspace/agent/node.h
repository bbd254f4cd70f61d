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
#include "userspace/agent/unwinding.h"
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
    std::string name;                    // label `node`; empty = host name
    bool process_events = true;          // false: /proc is scanned instead (short processes are then missed)
    bool unwind_tables = true;           // false: stacks by frame pointers alone
    uint64_t unwind_bytes = 128u << 20;  // limit of unwind tables, kernel memory
    // Names come at once, and lines and inlined calls of binaries with much debug information when that has been read
    // on a thread of low priority; false: whoever asks for a name waits for it.
    bool defer_debug_information = false;
    // For what is costly to make again, in "unwind" and "symbols" below it; "" = nothing is kept.
    std::string cache_folder;
  };

  // Never fails for missing privileges: process_events_status() says what is missing.
  static StatusOr<std::unique_ptr<Node>> Start(const Options& options);

  const std::string& name() const { return name_; }
  process::ProcessTable& processes() { return processes_; }
  containers::ContainerIndex& containers() { return *containers_; }
  Naming& naming() { return naming_; }
  // Null when stacks are walked by frame pointers alone.
  Unwinding* unwinding() { return unwinding_.get(); }
  // Null without BPF too.
  std::shared_ptr<kernel::UnwindMaps> unwind_maps() const { return unwinding_ ? unwinding_->maps() : nullptr; }
  // OK when exec, fork, exit and mappings are reported as they happen.
  const Status& process_events_status() const { return events_status_; }
  kernel::ProcessEventCounters process_event_counters() const;

  // Waits at most `timeout` for process events, takes them into the table, and tells the walk what it means to it.
  Status PollEvents(std::chrono::milliseconds timeout);
  // What happened up to then (CLOCK_MONOTONIC) is in the process table: samples that are younger had better wait.
  // UINT64_MAX when events do not come through PollEvents.
  uint64_t known_until_ns() const { return known_until_ns_; }
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
  std::unique_ptr<Unwinding> unwinding_;
  Status events_status_;
  std::unique_ptr<kernel::ProcessEvents> events_;
  uint64_t known_until_ns_ = UINT64_MAX;  // of the collecting thread
};

// This machine's host name.
std::string HostName();

}  // namespace pyrometer::agent

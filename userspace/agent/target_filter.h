// Whether something belongs to what a recording looks at, asked in user space: for probes that the kernel runs on
// everything, such as off_cpu.
//
//   TargetFilter filter(target, &node);
//   if (filter.Contains(sample.process, sample.cgroup_id, sample.cgroup_v1_id)) …
//
// A process belongs to the processes it descends from, by /proc at its first sample: one whose parents have ended by
// then is not recognised. A cgroup belongs to a container when it is the container's or lies below it.
//
// Threads: one. Cost: a look-up; one read of /proc per generation for a process seen first.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "userspace/base/types.h"
#include "userspace/kernel/cpu_sampler.h"

namespace pyrometer::agent {

class TargetFilter {
 public:
  static constexpr size_t kMaxKnown = 16'384;  // processes remembered; then all are looked up again
  static constexpr int kMaxGenerations = 64;

  // `container_of` gives the container id of a cgroup, "" outside of containers; `parent_of` the parent of a process, 0
  // when it has none or is gone.
  TargetFilter(kernel::SampleTarget target, std::function<std::string(uint64_t, uint64_t)> container_of,
               std::function<uint32_t(uint32_t)> parent_of = ParentByProc);

  bool Contains(const ProcessKey& process, uint64_t cgroup_id, uint64_t cgroup_v1_id);

  static uint32_t ParentByProc(uint32_t tgid);

 private:
  bool Descends(uint32_t tgid) const;
  bool IsListed(uint64_t cgroup_id, uint64_t cgroup_v1_id) const;

  const kernel::SampleTarget target_;
  const std::function<std::string(uint64_t, uint64_t)> container_of_;
  const std::function<uint32_t(uint32_t)> parent_of_;
  std::vector<std::string> containers_;  // that the target's cgroups are
  std::unordered_map<ProcessKey, bool> known_;
};

}  // namespace pyrometer::agent

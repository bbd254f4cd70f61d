#include "userspace/agent/target_filter.h"

#include <algorithm>
#include <utility>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/process/proc_text.h"

namespace pyrometer::agent {
namespace {

using Kind = kernel::SampleTarget::Kind;

constexpr size_t kMaxStatBytes = 4096;

}  // namespace

TargetFilter::TargetFilter(kernel::SampleTarget target, std::function<std::string(uint64_t, uint64_t)> container_of,
                           std::function<uint32_t(uint32_t)> parent_of)
    : target_(std::move(target)), container_of_(std::move(container_of)), parent_of_(std::move(parent_of)) {
  const auto note = [&](uint64_t id, uint64_t v1_id) {
    std::string container = container_of_(id, v1_id);
    if (!container.empty()) containers_.push_back(std::move(container));
  };
  for (const uint64_t id : target_.cgroup_ids) note(id, 0);
  for (const uint64_t id : target_.cgroup_v1_ids) note(0, id);
}

uint32_t TargetFilter::ParentByProc(uint32_t tgid) {
  const auto text = ReadFile(StrFormat("/proc/%d/stat", tgid), kMaxStatBytes);
  if (!text.ok()) return 0;
  const auto stat = process::ParseStat(*text);
  return stat.ok() ? stat->parent_pid : 0;
}

bool TargetFilter::Descends(uint32_t tgid) const {
  for (int i = 0; tgid != 0 && i < kMaxGenerations; ++i) {
    if (std::find(target_.tgids.begin(), target_.tgids.end(), tgid) != target_.tgids.end()) return true;
    tgid = parent_of_(tgid);
  }
  return false;
}

bool TargetFilter::IsListed(uint64_t cgroup_id, uint64_t cgroup_v1_id) const {
  const auto in = [](const std::vector<uint64_t>& ids, uint64_t id) {
    return id != 0 && std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if (in(target_.cgroup_ids, cgroup_id) || in(target_.cgroup_v1_ids, cgroup_v1_id)) return true;
  if (containers_.empty()) return false;
  const std::string container = container_of_(cgroup_id, cgroup_v1_id);
  return !container.empty() && std::find(containers_.begin(), containers_.end(), container) != containers_.end();
}

bool TargetFilter::Contains(const ProcessKey& process, uint64_t cgroup_id, uint64_t cgroup_v1_id) {
  switch (target_.kind) {
    case Kind::kAll:
      return true;
    case Kind::kCgroups:
      return IsListed(cgroup_id, cgroup_v1_id);
    case Kind::kProcesses:
      break;
  }
  if (const auto found = known_.find(process); found != known_.end()) return found->second;
  if (known_.size() >= kMaxKnown) known_.clear();
  return known_[process] = Descends(process.tgid);
}

}  // namespace pyrometer::agent

// What this kernel and these privileges allow, found out by trying, for `pyrometer doctor`.
//
//   for (const Feature& f : ProbeFeatures()) std::cout << f.name << ' ' << FeatureStateName(f.state) << '\n';
//
// Never fails and never aborts, with whatever rights it runs: what cannot be tried is reported as
// missing with the reason. Loads tiny programs and opens perf events for an instant, leaves nothing
// attached. Cost: some tens of milliseconds. Threads: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pyrometer::kernel {

enum class FeatureState {
  kOk,        // works
  kDegraded,  // works with a loss that `effect` names
  kMissing,   // does not work
};
std::string_view FeatureStateName(FeatureState state);  // "ok", "degraded", "missing"

struct Feature {
  std::string name;   // stable key, snake_case: "btf", "tp_btf", "cap_bpf", …
  std::string title;  // for people: "BPF type information (BTF)"
  FeatureState state = FeatureState::kMissing;
  std::string detail;  // what was found: "perf_event_paranoid = 2", "EPERM"
  std::string effect;  // what it means for the user; empty when ok and without consequence
  std::string remedy;  // what to do; empty when there is nothing to do
};

// In a fixed order. Names: btf, bpf_perf_event, tp_btf, task_storage, sk_storage, ring_buffer,
// task_work, sock_ops, socket_iterator, tcp_probe, io_uring, hardware_cycles, kprobe, fentry, perf_event_paranoid, kptr_restrict,
// memlock_limit, cap_bpf, cap_perfmon, cap_sys_ptrace, cap_dac_read_search, cap_sys_admin, cgroup2,
// cgroup1, bpf_stats, unprivileged_perf, side_band_build_id, pid_namespace, lockdown.
std::vector<Feature> ProbeFeatures();

// The feature called `name`; nullptr when there is none.
const Feature* FindFeature(const std::vector<Feature>& features, std::string_view name);

// The kernel lets BPF programs hang work on tasks (6.18): walks that meet pages that are not in memory can be finished.
bool HasTaskWork();

// Names of those capabilities out of CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH that this
// process lacks (CAP_SYS_ADMIN stands for the first two).
std::vector<std::string> MissingCapabilities();

}  // namespace pyrometer::kernel

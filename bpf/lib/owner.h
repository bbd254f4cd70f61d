// Which cgroup a task or a socket belongs to.
#pragma once

#include "bpf/lib/program.h"

// Which cgroup1 controller's ids are reported: enum pyro_v1_controller, set before load. The place of a
// controller in css_set::subsys depends on the kernel's configuration; relocations below resolve it.
const volatile __u32 pyro_v1_controller = PYRO_V1_NONE;

PYRO_INLINE struct cgroup* pyro_v2_cgroup(struct task_struct* task) { return task->cgroups->dfl_cgrp; }

// NULL when no cgroup1 controller was chosen. One branch is left when the program is loaded, and its index is a
// constant then: the verifier allows plain loads, where a variable index would need probe reads (15 to 20 ns each).
PYRO_INLINE struct cgroup* pyro_v1_cgroup(struct task_struct* task) {
  struct css_set* set = task->cgroups;
  struct cgroup_subsys_state* css = 0;
#define PYRO_V1_CASE(ours, theirs)                                                               \
  if (pyro_v1_controller == (ours) && bpf_core_enum_value_exists(enum cgroup_subsys_id, theirs)) \
    css = set->subsys[bpf_core_enum_value(enum cgroup_subsys_id, theirs)];
  PYRO_V1_CASE(PYRO_V1_MEMORY, memory_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_CPU, cpu_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_CPUACCT, cpuacct_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_PIDS, pids_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_FREEZER, freezer_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_DEVICES, devices_cgrp_id)
#undef PYRO_V1_CASE
  return css ? css->cgroup : 0;
}

PYRO_INLINE __u64 pyro_v1_id(struct task_struct* task) {
  struct cgroup* cgroup = pyro_v1_cgroup(task);
  return cgroup ? cgroup->kn->id : 0;
}

PYRO_INLINE void pyro_owner_of(struct task_struct* task, struct pyro_owner* owner) {
  owner->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
  owner->cgroup_v1_id = pyro_v1_id(task);
}

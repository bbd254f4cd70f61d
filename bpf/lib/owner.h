// Which cgroup a task or a socket belongs to.
#pragma once

#include "bpf/lib/program.h"

#define PYRO_V1_NO_INDEX 16  // size of css_set::subsys in kernel_types.h: no such controller

// Which cgroup1 controller's ids are reported: enum pyro_v1_controller, set before load. The place of a
// controller in css_set::subsys depends on the kernel's configuration; relocations below resolve it.
const volatile __u32 pyro_v1_controller = PYRO_V1_NONE;

PYRO_INLINE __u32 pyro_v1_index(void) {
#define PYRO_V1_CASE(ours, theirs)                                   \
  if (pyro_v1_controller == (ours)) {                                \
    return bpf_core_enum_value_exists(enum cgroup_subsys_id, theirs) \
               ? bpf_core_enum_value(enum cgroup_subsys_id, theirs)  \
               : PYRO_V1_NO_INDEX;                                   \
  }
  PYRO_V1_CASE(PYRO_V1_MEMORY, memory_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_CPU, cpu_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_CPUACCT, cpuacct_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_PIDS, pids_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_FREEZER, freezer_cgrp_id)
  PYRO_V1_CASE(PYRO_V1_DEVICES, devices_cgrp_id)
#undef PYRO_V1_CASE
  return PYRO_V1_NO_INDEX;
}

PYRO_INLINE struct cgroup* pyro_v2_cgroup(struct task_struct* task) { return task->cgroups->dfl_cgrp; }

// NULL when no cgroup1 controller was chosen. The css_set pointer is walked by a probe read: the
// verifier refuses a variable index into a kernel struct.
PYRO_INLINE struct cgroup* pyro_v1_cgroup(struct task_struct* task) {
  struct css_set* set = task->cgroups;
  struct cgroup_subsys_state* css = 0;
  __u32 index = pyro_v1_index();
  if (index >= PYRO_V1_NO_INDEX) return 0;
  bpf_probe_read_kernel(&css, sizeof(css), &set->subsys[index]);
  return css ? BPF_CORE_READ(css, cgroup) : 0;
}

PYRO_INLINE __u64 pyro_v1_id(struct task_struct* task) {
  struct cgroup* cgroup = pyro_v1_cgroup(task);
  return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 0;
}

PYRO_INLINE void pyro_owner_of(struct task_struct* task, struct pyro_owner* owner) {
  owner->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
  owner->cgroup_v1_id = pyro_v1_id(task);
}

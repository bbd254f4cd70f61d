// Finding the cgroup1 controller whose ids are reported. Internal; V1Controller() is in cpu_sampler.h.
#pragma once

#include <string_view>

#include "bpf/abi/types.h"

namespace pyrometer::kernel {

// The preferred controller out of those mounted as cgroup1, from the text of /proc/self/mountinfo.
pyro_v1_controller ChooseV1Controller(std::string_view mountinfo);
std::string_view V1ControllerName(pyro_v1_controller controller);
// ChooseV1Controller of this machine; fixed at first use.
pyro_v1_controller MountedV1Controller();

}  // namespace pyrometer::kernel

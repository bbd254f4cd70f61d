#include "userspace/kernel/v1_controller.h"

#include <string>
#include <vector>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/cpu_sampler.h"

namespace pyrometer::kernel {

std::string_view V1ControllerName(pyro_v1_controller controller) {
  switch (controller) {
    case PYRO_V1_NONE:
      return "";
    case PYRO_V1_MEMORY:
      return "memory";
    case PYRO_V1_CPU:
      return "cpu";
    case PYRO_V1_CPUACCT:
      return "cpuacct";
    case PYRO_V1_PIDS:
      return "pids";
    case PYRO_V1_FREEZER:
      return "freezer";
    case PYRO_V1_DEVICES:
      return "devices";
  }
  return "";
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - cgroup cgroup rw,cpu,cpuacct": after " - ": type,
// source, super block options; the controllers are among the options.
pyro_v1_controller ChooseV1Controller(std::string_view mountinfo) {
  pyro_v1_controller best = PYRO_V1_NONE;
  for (const std::string_view line : Split(mountinfo, '\n')) {
    const size_t separator = line.find(" - cgroup ");
    if (separator == std::string_view::npos) continue;
    const std::string_view rest = line.substr(separator + 3);
    const size_t options = rest.rfind(' ');
    for (const std::string_view option : Split(rest.substr(options + 1), ',')) {
      for (int i = PYRO_V1_MEMORY; i <= PYRO_V1_DEVICES; ++i) {
        const auto controller = static_cast<pyro_v1_controller>(i);
        if (option == V1ControllerName(controller) && (best == PYRO_V1_NONE || controller < best)) best = controller;
      }
    }
  }
  return best;
}

pyro_v1_controller MountedV1Controller() {
  static const pyro_v1_controller controller = [] {
    const StatusOr<std::string> mounts = ReadFile("/proc/self/mountinfo");
    // Unreadable: then no id can be matched with a directory either.
    return mounts.ok() ? ChooseV1Controller(*mounts) : PYRO_V1_NONE;
  }();
  return controller;
}

const std::string& V1Controller() {
  static const std::string name(V1ControllerName(MountedV1Controller()));
  return name;
}

}  // namespace pyrometer::kernel

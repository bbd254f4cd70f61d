#include "userspace/cli/probes.h"

#include "userspace/base/strings.h"

namespace pyrometer::cli {

StatusOr<ProbeSet> ParseProbes(std::string_view list) {
  ProbeSet probes;
  for (const std::string_view probe : Split(list, ',')) {
    if (probe == "cpu") {
      probes.cpu = true;
    } else if (probe == "syscalls") {
      probes.syscalls = true;
    } else if (probe == "tcp") {
      probes.tcp = true;
    } else if (probe == "waits" || probe == "off-cpu") {
      probes.waits = true;
    } else {
      return InvalidArgumentError(
          StrFormat("--probes: '%s' is not a probe; known are cpu, syscalls, tcp, waits (or off-cpu)", probe));
    }
  }
  return probes;
}

}  // namespace pyrometer::cli

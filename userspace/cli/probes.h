// The list of a --probes flag, for the commands that have one.
//
//   ASSIGN_OR_RETURN(const ProbeSet probes, ParseProbes("cpu,off-cpu"));
#pragma once

#include <string_view>

#include "userspace/base/status.h"

namespace pyrometer::cli {

struct ProbeSet {
  bool cpu = false;
  bool syscalls = false;
  bool tcp = false;
  bool waits = false;  // "waits", or "off-cpu" as others call it
};

// Fails with INVALID_ARGUMENT, naming the flag, the word and the words that are known.
StatusOr<ProbeSet> ParseProbes(std::string_view list);

}  // namespace pyrometer::cli

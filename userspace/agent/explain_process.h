// What profiling can make of one process: for each file of code that it runs, how stacks go on through it, where its
// names come from, and what is missing for more.
//
//   ASSIGN_OR_RETURN(ProcessExplanation explained, ExplainProcess(pid, *node));
//
// Threads: as Node. Cost: makes the unwind table and symbol index of every file that the process runs and that has none
// yet; seconds for a browser.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "userspace/agent/node.h"
#include "userspace/base/status.h"

namespace pyrometer::agent {

// A file, the vdso, or code without a file.
struct CodeExplanation {
  std::string name;         // path as the process sees it; "[vdso]"; "[generated code]"
  std::string build_id;     // hex; empty = none
  uint64_t code_bytes = 0;  // mapped executable
  std::string unwinding;    // "unwind table, 12,345 rows in 80 KiB, for 99.1% of the code"
  std::string names;        // "4,096 functions from .dynsym"; "no symbols"
  std::string debug_file;   // separate debug information that is used
  std::string package;      // what installed the file; empty = not known
  std::string missing;      // what is missing and what to do about it; empty = nothing
};

struct ProcessExplanation {
  uint32_t pid = 0;
  std::string comm;
  std::vector<CodeExplanation> code;  // most code first
};

// NOT_FOUND when there is no such process; FAILED_PRECONDITION when it has no user code (kernel threads).
StatusOr<ProcessExplanation> ExplainProcess(pid_t pid, Node& node);

struct InstalledPackage {
  std::string name;
  std::string debug_remedy;  // how to get its debug information
};
// The package that installed `path` in the file system below `root` ("" = ours), by the records of dpkg or apk.
std::optional<InstalledPackage> FindPackage(const std::string& root, const std::string& path);

}  // namespace pyrometer::agent

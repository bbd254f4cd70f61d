// Runs a helper program of a test (runc, podman, containerd's ctr) and collects what it printed.
//
//   ProgramResult r = RunProgram({"runc", "--version"});
//   ASSERT_EQ(r.exit_code, 0) << r.output;
//
// Standard input is /dev/null; standard output and standard error go into one text, at most 1 MiB
// of it kept. No shell. After `timeout_ns` the program (the process only, not its children) is
// killed and exit_code is 124. Threads: independent calls.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "userspace/base/clock.h"

namespace pyrometer::test_support {

struct ProgramResult {
  int exit_code = -1;  // 127: could not be started, 124: killed at the time limit, 128+n: died of signal n
  std::string output;  // standard output and error, interleaved
};

struct ProgramOptions {
  uint64_t timeout_ns = 30 * kNsPerSecond;
  std::vector<std::pair<std::string, std::string>> environment;  // added to ours
  std::string output_file;  // not empty: output goes (appended) to this file instead of the result. A program
                            // that leaves children behind with its standard output needs this.
};

ProgramResult RunProgram(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

// True when `name` is an executable in PATH or in the sbin folders.
bool HaveProgram(const std::string& name);

}  // namespace pyrometer::test_support

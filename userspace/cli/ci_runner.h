// Runs the commands of a regression check, recorded one after the other.
//
//   CiRunner runner({.cache_folder = agent::DefaultCacheFolder()});
//   RETURN_IF_ERROR(runner.Run("./bench", Side::kCandidate, /*block=*/0, &runs));
//
// A command is a line for /bin/sh. Its input is empty; its output is kept, not shown, and told when it fails.
//
// Threads: one, and one CiRunner at a time (CPU time is that of the process's children). Cost: the command's time and
// a fifth of a second around it, twice that around the first.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "userspace/agent/recorder.h"
#include "userspace/base/status.h"
#include "userspace/regression/run_set.h"

namespace pyrometer::cli {

// A word as /bin/sh takes it.
std::string ShellQuoted(const std::string& word);

// From now on SIGINT and SIGTERM set this instead of ending the process: commands are ended in order.
const std::atomic<bool>* CatchStopSignals();

// Primes, so that no timer of the program runs in step with them. Five times the samples see half the slowdown in the
// same time, and cost a program of flat stacks 2 % of its time more (tests/bench/ci_frequency), equally on both
// sides. Without BPF a sample carries a copy of the stack, and the kernel's buffers hold few.
inline constexpr uint32_t kCiFrequencyHz = 9973;
inline constexpr uint32_t kCiFrequencyWithoutBpfHz = 1999;

class CiRunner {
 public:
  struct Options {
    uint32_t frequency_hz = 0;  // 0 = as above, or as many as this kernel allows
    std::string cache_folder;   // for unwind tables
    const std::atomic<bool>* stop = nullptr;
  };
  explicit CiRunner(Options options);

  // Called after a run that counts, with what was recorded: adds what the command left behind to what is known of it,
  // and may take away samples that are not to count.
  using After = std::function<Status(profile::Profile*, regression::RunFacts*, const regression::RunOrigin&)>;

  // Records one run and adds it to `runs`, which learns how it was made. With a null `runs` the run is a warm-up.
  // FAILED_PRECONDITION when the command fails, with the end of its output; CANCELLED after `stop`.
  Status Run(const std::string& command, regression::Side side, uint32_t block, regression::RunSet* runs,
             const After& after = nullptr);

  // Files of the code that was sampled on a side.
  const std::set<std::string>& files(regression::Side side) const { return files_[static_cast<size_t>(side)]; }
  // What could not be measured as usual, each once.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  const Options options_;
  agent::Recorder recorder_;
  std::set<std::string> files_[2];
  std::vector<std::string> notes_;
};

}  // namespace pyrometer::cli

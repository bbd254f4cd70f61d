// Who starts, forks, ends, renames itself and maps code: one stream in order of time.
//
//   ASSIGN_OR_RETURN(auto events, ProcessEvents::Start({}));
//   loop: RETURN_IF_ERROR(events->Poll(50ms, [&](ProcessEvent&& e) { std::visit(table, std::move(e)); }));
//
// exec, fork and exit come from BTF tracepoints through a BPF ring (with start time and cgroup);
// executable mappings and renames from one perf side-band event per CPU (mmap2, with the build ID
// where the kernel can read it; such records carry no device and inode). Poll merges them by time stamp; records
// younger than kReorderNs wait for the next Poll, so that nothing older can still arrive.
//
// Does not promise: munmap (perf does not report it; a later mapping replaces), mappings that existed
// before Start (read /proc/PID/maps), pids as seen inside a container: the agent must run in the
// initial PID namespace (features.h checks).
//
// Threads: one. Cost: exec about 2 µs plus a wake-up at most every 2 ms; an executable mmap about 2 µs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <variant>

#include "userspace/base/status.h"
#include "userspace/process/events.h"

namespace pyrometer::kernel {

class UnwindMaps;

inline constexpr uint64_t kReorderNs = 1'000'000;

// Events were lost here: rescan /proc for what is running and mapped.
struct LostEvents {
  uint64_t time_ns = 0;  // when it was noticed
  uint64_t count = 0;    // how many records
};

using ProcessEvent = std::variant<process::ImageStart, process::Exec, process::Fork, process::Exit, process::Comm,
                                  process::Mapping, LostEvents>;

// CLOCK_MONOTONIC stamp of any event.
uint64_t TimeOf(const ProcessEvent& event);

struct ProcessEventCounters {
  uint64_t taken = 0;       // events seen: delivered + pending + lost + malformed + duplicates
  uint64_t delivered = 0;   // given to Poll's callback (without LostEvents)
  uint64_t pending = 0;     // in rings or waiting for order
  uint64_t lost = 0;        // rings full
  uint64_t malformed = 0;   // records that did not decode; not seen yet
  uint64_t duplicates = 0;  // second reports of the same process's end
};

class ProcessEvents {
 public:
  struct Options {
    uint32_t ring_bytes = 1 << 20;  // BPF ring: exec, fork, exit; 330 B per exec, 72 B per others
    uint32_t side_band_pages = 64;  // per CPU, power of two: mmap2 and comm records
    bool build_ids = true;          // ask the kernel for build IDs in mapping records
    bool only_side_band =
        false;  // true: no BPF; exec, fork and exit come from perf too, without start times and cgroups
    // Its map of processes is kept by fork, exec and exit inside the kernel; may be null.
    std::shared_ptr<UnwindMaps> unwind;
  };
  using Callback = std::function<void(ProcessEvent&&)>;

  static StatusOr<std::unique_ptr<ProcessEvents>> Start(const Options& options);
  virtual ~ProcessEvents() = default;

  // Waits at most `timeout` for an exec or for half-full buffers, then delivers what is old enough.
  virtual Status Poll(std::chrono::milliseconds timeout, const Callback& callback) = 0;
  // Detaches; a Poll after it delivers everything that is left.
  virtual Status Stop() = 0;
  virtual ProcessEventCounters Counters() const = 0;
};

}  // namespace pyrometer::kernel

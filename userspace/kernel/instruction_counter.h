// Counts the instructions that a command executes in user mode, with all that it starts, by the processor's own
// counter: exact where a CPU time is not, for neither neighbours nor clock speeds change it.
//
//   ASSIGN_OR_RETURN(InstructionCounter counter, InstructionCounter::Open(child.pid()));  // before its execve
//   …
//   ASSIGN_OR_RETURN(const uint64_t instructions, counter.Read());                        // after it has ended, too
//
// Kernel mode is left out: interrupts that happen to come while it runs are not its doing. It counts from the execve
// on; children made later are counted, those made before are not.
//
// Threads: one. Cost: a file descriptor; nothing while it runs but saving the counter at each switch of tasks.
#pragma once

#include <linux/perf_event.h>
#include <sys/types.h>

#include <cstdint>
#include <utility>

#include "userspace/base/owned.h"
#include "userspace/base/status.h"

namespace pyrometer::kernel {

class InstructionCounter {
 public:
  struct Event {
    uint32_t type = PERF_TYPE_HARDWARE;
    uint64_t config = PERF_COUNT_HW_INSTRUCTIONS;
  };

  // FAILED_PRECONDITION where there is no such counter (most virtual machines); PERMISSION_DENIED where
  // kernel.perf_event_paranoid is above 2. `event`: for tests, on machines without the counter.
  static StatusOr<InstructionCounter> Open(pid_t pid, const Event& event);
  static StatusOr<InstructionCounter> Open(pid_t pid) { return Open(pid, Event{}); }

  // Since the execve. UNAVAILABLE when the processor's counters were shared out meanwhile (more events than
  // counters), so that some of the time was not counted.
  StatusOr<uint64_t> Read() const;

 private:
  explicit InstructionCounter(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace pyrometer::kernel

// From a sample's addresses to a stack of raw frames in a window: which binary, which ELF address, kernel on top.
//
// Threads: none shared (the collector's polling thread). Cost: a look-up in the ProcessTable and two in the window per
// user frame that was not in the thread's last stack as well; tests/bench/unwind_cost.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "userspace/agent/raw_window.h"
#include "userspace/agent/unwinding.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/process/process_table.h"

namespace pyrometer::agent {

class SampleResolver {
 public:
  // Both must outlive the resolver; `unwinding` may be null: copies of stacks are then of no use.
  explicit SampleResolver(process::ProcessTable* processes, Unwinding* unwinding = nullptr)
      : processes_(*processes), unwinding_(unwinding) {}

  struct Stack {
    ProcessKey process;
    uint32_t tid = 0;
    uint64_t time_ns = 0;  // CLOCK_MONOTONIC
    std::span<const uint64_t> kernel_frames;
    std::span<const uint64_t> user_frames;  // as kernel::CpuSample::user_frames
    kernel::StopReason user_stop = PYRO_STOP_NOT_TAKEN;
    kernel::StopReason kernel_stop = PYRO_STOP_NOT_TAKEN;
  };

  // The stack in `window`, with all that it needs. One that was cut by the depth limit gets the synthetic root frame
  // "[truncated]", one that the walk lost "[incomplete: REASON]", so that what is left of them is not mistaken for
  // whole stacks.
  profile::StackId Intern(const Stack& stack, RawWindow& window);

  // Improves on a stack whose walk in the kernel came too early, from the copy that came with it: sets user_frames
  // (valid until the next call), user_stop and `means`. True: a table is being made that would lead further; ask again
  // later.
  bool Rewalk(Stack& stack, uint8_t& means, const pyro_raw_registers* registers, std::string_view copy);

  // Processes whose just-in-time code was seen since the last call: their perf maps should be read while
  // they run.
  std::vector<ProcessKey> TakeJitProcesses();

 private:
  RawFrame ResolveUser(const Stack& stack, uint64_t address, RawWindow& window);
  profile::StackId InternCallers(const Stack& stack, RawWindow& window);
  void NoteJit(const ProcessKey& process);

  process::ProcessTable& processes_;
  Unwinding* const unwinding_;
  std::vector<ProcessKey> jit_processes_;
};

// Names of the synthetic frames, also used by naming.
inline constexpr std::string_view kTruncatedFrame = "[truncated]";
inline constexpr std::string_view kNoStackFrame = "[no stack]";
// Marks frames of the vdso, whose image is the same in every process.
inline constexpr std::string_view kVdsoReason = "vdso";

}  // namespace pyrometer::agent

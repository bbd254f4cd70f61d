// The true call stack of a program at every instruction, for unwinders to be held against.
//
//   StepOptions options{.arguments = {Workload("deep_nofp"), "30", "1"}, .max_points = 10'000};
//   ASSIGN_OR_RETURN(StepSummary summary, RunStepOracle(options, [&](const StepPoint& point) {
//     std::vector<uint64_t> mine = MyUnwinder(point.registers(), [&](uint64_t address, void* to, size_t n) {
//       return point.Read(address, to, n); });
//     EXPECT_EQ(mine, point.Addresses()) << point.Describe();
//     return true;                                        // false ends the run
//   }));
//
// How: the program is started under ptrace and single-stepped from its first instruction, in ld.so or at its entry.
// Calls and returns are seen as they happen: a call pushes (return address, where it lies), and an entry is gone when
// the stack pointer has passed the place it lies at. No unwind information is used, nothing is guessed from memory. So
// the tail jump, the lazy binding of a PLT (_dl_runtime_resolve jumps to its target), returns used as jumps, longjmp
// and exceptions need no case of their own. Seen for themselves are signal delivery and rt_sigreturn, on the
// interrupted and on an alternate stack, and other stacks (swapcontext): each has a list of its own.
//
// Uncertain points are passed over and counted: from an instruction that drops a return address without returning
// (`pop %rdi` in vfork; the last instructions of longjmp and of the unwinder of exceptions) to the jump or return that
// completes it; and where a return address on the stack was overwritten.
//
// Does not promise: threads and children but the main thread (they run, unwatched); two coroutine stacks less than
// kStackReach apart; call gates, 32-bit code. x86-64 only. Needs no root.
//
// Cost: 10-30 µs per instruction. Points are offered at most `visits_per_address` times per instruction address, so
// that loops do not use up the budget.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "userspace/base/status.h"

namespace pyrometer::testing {

// Of the stopped thread, by DWARF register number: 0 rax, rdx, rcx, rbx, rsi, rdi, 6 rbp, 7 rsp, r8 … r15, 16 rip.
using StepRegisters = std::array<uint64_t, 17>;
inline constexpr size_t kDwarfRbp = 6, kDwarfRsp = 7, kDwarfRip = 16;

// One physical frame.
struct TrueFrame {
  uint64_t ip = 0;  // of frame 0 the instruction to be executed next; else where execution goes on after the return
  // Stack pointer when execution is, or will be, at `ip`. The canonical frame address of frame i is frames[i + 1].sp,
  // unless frames[i + 1] was interrupted.
  uint64_t sp = 0;
  bool interrupted = false;  // by a signal: `ip` is no return address, it may be the first of its function
};

enum class PointKind { kBody, kPrologue, kEpilogue, kPlt, kSignalReturn };
inline constexpr size_t kPointKinds = 5;
const char* PointKindName(PointKind kind);

// Valid during the callback.
class StepPoint {
 public:
  virtual ~StepPoint() = default;
  virtual pid_t pid() const = 0;  // ptrace-stopped; its tid, too
  virtual const StepRegisters& registers() const = 0;
  // Innermost first, to the frame that nothing called (the entry point, or a coroutine's first function).
  virtual std::span<const TrueFrame> frames() const = 0;
  // By what surrounds the instruction: `push`, `sub $N,%rsp` and their like since the function was entered; only `pop`,
  // `leave`, `add $N,%rsp` and their like until `ret`; the sections .plt*; the `rt_sigreturn` stub; else a body.
  virtual PointKind kind() const = 0;
  virtual bool crosses_signal() const = 0;  // a frame was interrupted
  // The program's memory; false when not all of it is readable.
  virtual bool Read(uint64_t address, void* to, size_t bytes) const = 0;
  // "0x55… in /path (+0x1234), prologue, 12 frames"
  virtual std::string Describe() const = 0;

  std::vector<uint64_t> Addresses() const {
    std::vector<uint64_t> addresses;
    for (const TrueFrame& frame : frames()) addresses.push_back(frame.ip);
    return addresses;
  }
};

struct StepOptions {
  std::vector<std::string> arguments;    // absolute path of the program first
  std::vector<std::string> environment;  // NAME=value, besides LD_LIBRARY_PATH-free defaults
  uint64_t max_steps = 3'000'000;        // instructions executed, about a minute
  uint64_t max_points = 100'000;         // callbacks
  uint32_t visits_per_address = 3;       // callbacks for one instruction address
  bool from_entry = false;  // run freely through ld.so, to the program's entry point: its stack is empty there
};

struct StepSummary {
  uint64_t steps = 0;
  uint64_t points = 0;          // callbacks
  uint64_t uncertain = 0;       // distinct addresses where points were passed over
  uint64_t signals = 0;         // delivered to handlers
  uint64_t stacks = 1;          // stacks seen
  uint64_t addresses = 0;       // distinct instruction addresses among the points
  uint64_t across_signals = 0;  // points with an interrupted frame
  size_t deepest = 0;
  std::map<PointKind, uint64_t> kinds;  // of the points
  bool exited = false;                  // the program ended by itself
};

// Called at each point; false ends the run (the program is killed).
using StepVisitor = std::function<bool(const StepPoint&)>;

StatusOr<StepSummary> RunStepOracle(const StepOptions& options, const StepVisitor& visit);

}  // namespace pyrometer::testing

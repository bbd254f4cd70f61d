// Latency of system calls, per cgroup and call, counted in the kernel.
//
//   ASSIGN_OR_RETURN(auto probe, SyscallLatency::Start({}));
//   each 10 s: RETURN_IF_ERROR(probe->Drain([&](const SyscallWindow& w) { … }));
//   often:     RETURN_IF_ERROR(probe->PollExemplars([&](const SlowCall& c) { … }));
//
// Every call that entered and returned while the probe was attached is counted exactly once, in the
// window in which it returned: counters in the kernel only grow, Drain subtracts what it reported
// before. Calls that were open when the probe attached, exit and exit_group (which never return) and
// the return of a new child from fork are not in any histogram; Counters() has them by name. When
// there are more keys than `max_octaves`, further ones are counted under the key `folded`.
//
// Slow calls leave an exemplar with the caller's user stack, taken at the return of the call: of those slower than the
// key's own 99th percentile of the last window (at least exemplar_min_ns) about exemplars_per_key per window and key,
// each with the same chance; and those at least as slow as the slowest of the last window. When suddenly many more
// calls are slow than in the last window, the first ones win: never more than kExemplarBurst times as many.
//
// Beside them some calls are drawn among all of a key (SlowCall::weight): about drawn_per_key per window and key, and
// no more than about drawn_per_window of all keys together. The sum of their weights estimates the number of calls
// without bias, that of weight × latency the time, and so on for any share of the calls: each call has the chance 1 /
// weight, known before it is made (bpf/probes/syscall_latency.bpf.c).
//
// Which part of that time the calls waited, and for what, is added when an OffCpu probe runs beside (Options::split); a
// call that does not wait costs nothing more then.
//
// Pause and Resume let it count part of the time: calls that were entered in a slice and returned before its end are
// counted, others are not, by exact instants. While paused nothing is attached, and a call costs nothing.
//
// Calls that have not returned are in no window: ReadOpenCalls has them with their age, also those that are older than
// the probe if their thread is blocked.
//
// Does not promise: kernel stacks in exemplars (at the return there is none left to see), calls of
// user-mode helpers before the first Drain in their right order.
//
// Threads: Drain and PollExemplars from one thread each (they may differ), Pause and Resume from one. Cost
// (tests/bench/latency_overhead): 344 to 363 ns of CPU per system call on a virtual machine where two reads of the
// clock in empty probes cost 242 and a getppid 188; 168 bytes per CPU and octave in use, 152 KiB per CPU for the hot
// ones. Start takes about 100 ms.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/abi/syscall_latency.h"
#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/kernel/latency_histogram.h"
#include "userspace/kernel/wait_causes.h"

namespace pyrometer::kernel {

class UnwindMaps;

struct SyscallKey {
  uint64_t cgroup_id = 0;     // cgroup2 id of the calling task when the call returned; 0 only in the fold key
  uint64_t cgroup_v1_id = 0;  // see CpuSample
  int32_t nr = 0;             // system call number at entry; -1 when it was cancelled
  bool compat = false;        // 32-bit call: `nr` is in the i386 number space
  bool folded = false;        // stands for all keys that found no room; the other members are 0
  auto operator<=>(const SyscallKey&) const = default;
};

// "read", "openat", …; "i386:5" for compat calls, "syscall_999" for numbers without a name, "cancelled" for -1, "other"
// for the fold key.
std::string SyscallName(const SyscallKey& key);
// The x86-64 number of a call; nullopt for a name that is none.
std::optional<int32_t> SyscallNumber(std::string_view name);

struct SyscallError {
  int32_t error = 0;  // errno; 512 … 516 mean that the kernel restarted the call after a signal
  uint64_t count = 0;
};

// What one key did since the last Drain; only keys that did anything.
struct SyscallWindow {
  SyscallKey key;
  LatencyHistogram latency;
  std::vector<SyscallError> errors;  // ascending
  // With Options::split: of latency.sum_ns, what these calls waited for; the rest they ran. The two are read one after
  // the other, so that a call that returns in between has its wait in the next window: over windows they agree exactly.
  WaitTimes waited_ns{};
  uint64_t waited_calls = 0;  // calls that waited at all
};

// What was behind the descriptor of a call when it ended, for the calls that call_arguments.h knows.
struct CallDescriptor {
  pyro_descriptor_kind kind = PYRO_DESCRIPTOR_NONE;
  int32_t fd = -1;
  uint64_t inode = 0;              // of a file
  uint8_t family = 0;              // AF_* of a socket
  uint16_t port = 0;               // of an internet socket's peer; 0: it has none
  std::array<uint8_t, 16> peer{};  // its address; of AF_INET the first 4 bytes
};

// One single call, slow or drawn or both; views are valid during the callback only.
struct SlowCall {
  SyscallKey key;
  bool slow = true;      // chosen as one of the slowest
  uint64_t weight = 0;   // drawn among all calls of its key with a chance of one in so many; 0: not drawn
  uint64_t time_ns = 0;  // when it returned, CLOCK_MONOTONIC
  uint64_t latency_ns = 0;
  int64_t result = 0;  // return value, negative errno on failure
  ProcessKey process;
  uint32_t tid = 0;
  std::string_view comm;
  std::span<const uint64_t> user_frames;  // leaf first; [0] is the instruction after the call
  StopReason user_stop = PYRO_STOP_NOT_TAKEN;
  uint8_t means = 0;  // these three as in CpuSample
  const pyro_raw_registers* raw_registers = nullptr;
  std::string_view raw_stack;
  WaitTimes waited_ns{};                // of latency_ns, in whole microseconds; with Options::split
  std::array<uint64_t, 6> arguments{};  // as passed; all 0 for 32-bit calls
  CallDescriptor descriptor;
  CallDescriptor second_descriptor;  // of calls that have two: splice, sendfile, …
};

// A call that has not returned, as it is now. Views are valid during the callback only.
struct OpenCall {
  SyscallKey key;
  ProcessKey process;
  uint32_t tid = 0;
  std::string_view comm;
  uint64_t age_ns = 0;  // of an older one: since the probe was attached, so at least this
  bool older = false;   // entered before the probe was attached
  bool waits = false;   // with Options::split: its thread does not run, for wait_age_ns so far, because of `cause`
  uint64_t wait_age_ns = 0;
  WaitCause cause = PYRO_WAIT_OTHER;
  bool blocked = false;  // its thread is blocked; without `waits`, nobody saw why
};

inline constexpr uint32_t kExemplarBurst = 4;

// When calls were counted: those that were entered from `begin_ns` and before `entries_end_ns`, and returned before
// `end_ns`. CLOCK_MONOTONIC.
struct SyscallSlice {
  uint64_t begin_ns = 0;
  uint64_t entries_end_ns = 0;
  uint64_t end_ns = 0;
};

struct SyscallCounters {
  uint64_t recorded = 0;       // in a histogram under their own key
  uint64_t folded = 0;         // in the fold key's histogram
  uint64_t lost = 0;           // returned but counted nowhere; not seen yet
  uint64_t no_entry = 0;       // returned without a seen entry (open at attach, or a fork's child)
  uint64_t start_lost = 0;     // entered, but the entry could not be remembered
  uint64_t never_returns = 0;  // exit, exit_group
  uint64_t errors_lost = 0;    // failures whose errno found no room
  uint64_t exemplars_taken = 0, exemplars_delivered = 0,
           exemplars_dropped = 0;  // taken = delivered + dropped + in ring
  uint64_t exemplars_limited = 0;  // slow calls without an exemplar: the key had its share already
  uint64_t paused = 0;             // returned outside of slices, or entered there
  uint64_t waits_lost = 0;         // calls whose waits were added nowhere; not seen yet
};

class SyscallLatency {
 public:
  struct Options {
    uint32_t max_octaves = 16384;          // map entries, 168 B per CPU each, allocated when used
    uint32_t hot_octaves = 1024;           // beside those, 152 B per CPU each, found without a hash; a power of 2
    uint64_t exemplar_min_ns = 1'000'000;  // no exemplars of calls faster than this; 0: all are candidates
    double exemplar_quantile = 0.99;       // of the key's last window
    uint32_t exemplars_per_key = 4;        // per window, about
    uint32_t exemplars_per_window_new_key = 256;  // for all keys without a last window together
    uint32_t drawn_per_key = 2;                   // among all calls, per window and key, about; 0: none
    uint32_t drawn_per_window = 128;              // of all keys together, about
    uint32_t ring_bytes = 1 << 20;
    uint32_t max_user_frames = PYRO_MAX_USER_FRAMES;
    std::shared_ptr<UnwindMaps> unwind;          // as for CpuSampler
    uint32_t idle_windows_before_eviction = 30;  // a key idle for so many Drains gives its entries back
    bool split = false;                          // an OffCpu that shares TaskStates() will run beside
  };
  static StatusOr<std::unique_ptr<SyscallLatency>> Start(const Options& options);
  virtual ~SyscallLatency() = default;

  // Ends the window: calls `callback` for each key with calls since the last Drain, then sets the
  // exemplar thresholds of the next window.
  virtual Status Drain(const std::function<void(const SyscallWindow&)>& callback) = 0;
  // Hands over the slow calls there are; does not wait.
  virtual Status PollExemplars(const std::function<void(const SlowCall&)>& callback) = 0;
  // All calls that are open now, of all threads in our PID namespace. Any thread, and while the probe is attached: it
  // does not see afterwards what returns. FAILED_PRECONDITION with the reason where this kernel does not let us. Cost:
  // one visit of every thread of the machine, about 0.2 µs each.
  virtual Status ReadOpenCalls(const std::function<void(const OpenCall&)>& callback) = 0;
  // Why ReadOpenCalls fails; OK where it does not.
  virtual Status OpenCallsStatus() const = 0;
  // Ends a slice: calls that are entered from now on are not counted, those that are open have `tail_ns` to return.
  // Blocks for that long, and for the kernel to detach. Call it while it counts.
  virtual StatusOr<SyscallSlice> Pause(uint64_t tail_ns) = 0;
  // Begins one, after Pause. Takes some milliseconds.
  virtual Status Resume() = 0;
  // Detaches. What was counted stays for a last Drain.
  virtual Status Stop() = 0;
  virtual SyscallCounters Counters() const = 0;
  // For OffCpu::Options::task_states; the map lives as long as the longer of the two.
  virtual int TaskStates() const = 0;
};

}  // namespace pyrometer::kernel

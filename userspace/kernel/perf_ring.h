// perf events with a ring of their own, and the records in it. Internal to kernel/.
//
// The ring is shared memory that the kernel writes: lengths are checked before use, a record that does not hold
// together is reported as malformed, and a broken chain ends the read instead of running on.
// Threads: one per ring.
#pragma once

#include <linux/perf_event.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bpf/abi/unwind.h"
#include "userspace/base/owned.h"
#include "userspace/base/status.h"
#include "userspace/kernel/process_events.h"

namespace pyrometer::kernel {

// What every non-sample record ends with, given sample_type TID | TIME | CPU and sample_id_all.
struct PerfTrailer {
  uint32_t pid = 0;
  uint32_t tid = 0;
  uint64_t time_ns = 0;
  uint32_t cpu = 0;
};
inline constexpr uint64_t kPerfTrailerSampleType = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU;

// One record: header and what follows it. The view is valid during the callback.
struct PerfRecord {
  uint32_t type = 0;  // PERF_RECORD_*
  uint16_t misc = 0;  // PERF_RECORD_MISC_*
  std::span<const std::byte> body;
};

// A side-band event: mappings, renames, forks and exits; counts nothing.
perf_event_attr SideBandAttr(bool build_ids);

class PerfRing {
 public:
  // Opens an event for (pid, cpu) as perf_event_open(2) does and maps `pages` (a power of two) of ring. The error
  // of perf_event_open is returned as an errno in *open_error besides the Status, for callers that try again.
  static StatusOr<PerfRing> Open(const perf_event_attr& attr, pid_t pid, int cpu, uint32_t pages, int* open_error);

  PerfRing() = default;
  PerfRing(PerfRing&& other) noexcept;
  PerfRing& operator=(PerfRing&& other) noexcept;
  ~PerfRing();

  // Calls visit for each record there is. Returns how many bytes had to be skipped as malformed.
  size_t Read(const std::function<void(const PerfRecord&)>& visit);

  int fd() const { return fd_.get(); }
  Status Enable();
  Status Disable();

 private:
  UniqueFd fd_;
  void* base_ = nullptr;
  size_t map_bytes_ = 0;
  size_t data_bytes_ = 0;
  std::vector<std::byte> wrapped_;  // a record that wraps around the ring's end, put together
};

// Bodies of records; nullopt when too short or malformed.
std::optional<process::Mapping> ParseMmap2(const PerfRecord& record);
struct PerfComm {
  uint32_t tgid = 0;
  uint32_t tid = 0;
  uint64_t time_ns = 0;
  bool exec = false;  // the rename is that of an execve
  std::string comm;
};
std::optional<PerfComm> ParseComm(const PerfRecord& record);
struct PerfTask {
  uint32_t tgid = 0, parent_tgid = 0, tid = 0, parent_tid = 0;
  uint64_t time_ns = 0;
};
// PERF_RECORD_FORK and PERF_RECORD_EXIT.
std::optional<PerfTask> ParseTask(const PerfRecord& record);
// PERF_RECORD_LOST and PERF_RECORD_LOST_SAMPLES: how many.
std::optional<uint64_t> ParseLost(const PerfRecord& record);
std::optional<PerfTrailer> ParseTrailer(const PerfRecord& record);

// A sample with sample_type IP | TID | TIME | CPU | PERIOD | CALLCHAIN, and with REGS_USER | STACK_USER or without.
struct PerfSample {
  uint64_t ip = 0;
  uint32_t tgid = 0;
  uint32_t tid = 0;
  uint64_t time_ns = 0;
  uint32_t cpu = 0;
  uint64_t period = 0;
  std::vector<uint64_t> kernel_frames;
  std::vector<uint64_t> user_frames;
  std::optional<pyro_raw_registers> registers;  // as the thread left user mode
  std::string stack;                            // from its stack pointer on
};
inline constexpr uint64_t kPerfSampleType =
    PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_PERIOD | PERF_SAMPLE_CALLCHAIN;
inline constexpr uint64_t kPerfStackSampleType = kPerfSampleType | PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
// PERF_REG_X86_{AX,BX,CX,DX,SI,DI,BP,SP,IP,R8…R15} (arch/x86/include/uapi/asm/perf_regs.h).
inline constexpr uint64_t kPerfUserRegisters = 0xff01ff;
// `with_stack`: the event asked for kPerfStackSampleType.
std::optional<PerfSample> ParseSample(const PerfRecord& record, bool with_stack = false);

// What perf's records are worth when a BPF program does not tell exec, fork and exit: without start times.
// A comm-exec record becomes an Exec, FORK of a process a Fork, EXIT of a main thread an Exit.
std::optional<ProcessEvent> ToProcessEvent(const PerfRecord& record);

// Events and samples waiting for older ones from other rings.
template <typename T>
class ReorderBuffer {
 public:
  void Add(uint64_t time_ns, T value) { waiting_.emplace(time_ns, std::move(value)); }
  // Hands over, in order, everything stamped at or before `horizon_ns`.
  template <typename Visit>
  void DeliverUntil(uint64_t horizon_ns, Visit visit) {
    while (!waiting_.empty() && waiting_.begin()->first <= horizon_ns) {
      T value = std::move(waiting_.begin()->second);
      waiting_.erase(waiting_.begin());
      visit(std::move(value));
    }
  }
  size_t size() const { return waiting_.size(); }

 private:
  std::multimap<uint64_t, T> waiting_;  // equal stamps keep their order of arrival
};

}  // namespace pyrometer::kernel

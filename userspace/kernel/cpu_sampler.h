// Samples the stacks of every CPU, or of one target, through a BPF program on perf events.
//
//   ASSIGN_OR_RETURN(auto sampler, CpuSampler::Start({.frequency_hz = 99}));
//   while (running) {
//     RETURN_IF_ERROR(sampler->Poll(100ms, [&](const CpuSample& s) { fold(s); }));
//   }
//   RETURN_IF_ERROR(sampler->Stop());                  // no more interrupts
//   RETURN_IF_ERROR(sampler->Poll(0ms, …));            // what was still in the ring
//   CHECK(c.taken == c.delivered + c.DroppedTotal());  // c = sampler->Counters()
//
// Each object has its own BPF programs, ring and perf events: an always-on daemon and any number of
// sessions run side by side. The clock is the hardware cycle counter where there is a PMU, else the
// software clock `cpu-clock` (says source()); both give `frequency_hz` samples per busy CPU second.
// An idle CPU is not sampled, only counted.
//
// User stacks are walked in the interrupt, by unwind tables where Options::unwind has them (bpf/lib/stack_walk.h), else
// by frame pointers; every walk ends with a StopReason. Kernel stacks are taken only when the interrupt hit kernel
// mode.
//
// Does not promise: samples while the CPU runs with interrupts off (cpu-clock then fires late), CPUs that came online
// less than kCpuRefreshSeconds ago.
//
// Threads: Poll from one thread; Counters, AddProcess and SetCgroups from any.
// Cost, measured on a busy 2-CPU virtual machine, besides the timer interrupt itself: 7 µs per sample in
// the interrupt at 99 Hz (caches cold), 2.5 µs at 999 Hz; 1.5 and 0.2 µs per sample in Poll; ring_bytes of
// kernel memory plus 3 KiB per CPU, 5 MiB more for a target of processes. Start takes about 75 ms.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/kernel/cpu_sample.h"

namespace pyrometer::kernel {

class UnwindMaps;

inline constexpr int kCpuRefreshSeconds = 5;  // how often Poll looks for CPUs that came online

// What a sampler looks at.
struct SampleTarget {
  enum class Kind {
    kAll,        // every task on the machine
    kProcesses,  // `tgids`, and what they fork from now on or have forked before
    kCgroups,    // tasks in these cgroups and in cgroups below them
  };
  Kind kind = Kind::kAll;
  std::vector<uint32_t> tgids;
  std::vector<uint64_t> cgroup_ids;     // of cgroup2
  std::vector<uint64_t> cgroup_v1_ids;  // of the controller V1Controller() names
};

class CpuSampler {
 public:
  struct Options {
    uint32_t frequency_hz = 99;     // per busy CPU, 1 … kernel.perf_event_max_sample_rate; 99 avoids lockstep
    SampleTarget target;            // default: everything
    uint32_t ring_bytes = 4 << 20;  // rounded up to a power of two ≥ 4 KiB; 4 MiB is 8,000 samples of 60 frames
    uint32_t max_user_frames = PYRO_MAX_USER_FRAMES;  // 0 … 512; deeper stacks stop as "truncated"
    // Tables and mappings for walks; null: frame pointers alone.
    std::shared_ptr<UnwindMaps> unwind;
    // How much stack a sample carries at most whose process or table is not known yet; a multiple of 8, 0 … 64 KiB, 0 =
    // none. Deeper stacks lose their outer frames. Costs 2 µs (8 KiB) to 20 µs (64 KiB) for such a sample.
    uint32_t raw_stack_bytes = PYRO_MAX_RAW_STACK_BYTES;
    bool kernel_stacks = true;          // false: kernel_stop is "not taken"
    bool force_software_clock = false;  // true: cpu-clock even where a PMU exists
  };
  using Callback = std::function<void(const CpuSample&)>;

  // Loads, attaches and starts. PERMISSION_DENIED names the missing capabilities and the remedy;
  // FAILED_PRECONDITION carries the verifier's last lines; INVALID_ARGUMENT for options out of range.
  static StatusOr<std::unique_ptr<CpuSampler>> Start(const Options& options);

  virtual ~CpuSampler() = default;

  // Waits until the ring is a quarter full or `timeout` has passed, then calls `callback` for every
  // record there is, in order per CPU.
  virtual Status Poll(std::chrono::milliseconds timeout, const Callback& callback) = 0;

  // Ends the interrupts; idempotent. Records in the ring stay readable.
  virtual Status Stop() = 0;

  // Adds a process (and, for kProcesses, its later children) to the target. NOT for other kinds.
  virtual Status AddProcess(uint32_t tgid) = 0;
  // Replaces the target's cgroups. Only for kCgroups.
  virtual Status SetCgroups(const std::vector<uint64_t>& cgroup_ids, const std::vector<uint64_t>& cgroup_v1_ids) = 0;

  virtual SampleCounters Counters() const = 0;
  // "cycles" (hardware) or "cpu-clock" (software).
  virtual std::string_view source() const = 0;
  // CPUs with a sampling event now, ascending.
  virtual std::vector<uint32_t> cpus() const = 0;
};

// Samples per second that an event may be asked for: kernel.perf_event_max_sample_rate, which the kernel lowers by
// itself where samples take long. UINT32_MAX where it cannot be read.
uint32_t MaxSampleRate();

// The cgroup1 controller whose ids probes report as cgroup_v1_id ("memory", "cpu", …); empty when no
// controller is mounted as cgroup1. Fixed at first use.
const std::string& V1Controller();

}  // namespace pyrometer::kernel

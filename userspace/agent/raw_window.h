// Samples of one window as they come from the kernel: addresses resolved to (binary, ELF address),
// not named yet. Naming happens once per distinct frame when the window closes (naming.h), off the
// path of samples.
//
//   RawWindow window(start_ns, 10 * kNsPerSecond);
//   window.AddSample({.cgroup_id = 44, .comm = "shop"}, window.InternStack(frames_leaf_first), 1, 10'101'010);
//
// Threads: none shared; the collector guards it. Cost: two hash look-ups per frame that is interned; 24
// bytes per distinct frame, 32 per stack node, 2 per sample, so a window of 2,000 samples is below 1 MiB.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/types.h"
#include "userspace/kernel/cpu_sample.h"
#include "userspace/process/binary.h"
#include "userspace/profile/batch.h"
#include "userspace/profile/dictionary.h"

namespace pyrometer::agent {

// A frame before naming. `origin` is an index into the window's binaries (native), processes (JIT and
// unknown, which are private to a process) or 0 (kernel, synthetic).
struct RawFrame {
  profile::FrameKind kind = profile::FrameKind::kUnknown;
  bool upside_down = false;  // on a stack whose callers stand above: what is inlined there comes first as well
  // Why there is no binary although user code ran there ("no mapping", …): index into the window's reasons.
  uint16_t reason = 0;
  uint32_t origin = 0;
  uint64_t address = 0;  // ELF address (native), virtual otherwise; look-up address, i.e. call sites already minus 1
  auto operator<=>(const RawFrame&) const = default;
};

// Whose sample: what labels are made of when the window closes.
struct RawGroup {
  uint64_t cgroup_id = 0;
  uint64_t cgroup_v1_id = 0;
  std::string comm;
  std::string type;   // profile type; "" = cpu
  std::string cause;  // label of waits
  auto operator<=>(const RawGroup&) const = default;
};

// The callers of a thread's last stack, outermost first, and where they are interned: the next sample of the thread has
// most of them in common with it.
struct RecentCallers {
  uint64_t image_version = 0;  // ProcessTable::ImageVersion; 0: nothing is kept
  kernel::StopReason stop = PYRO_STOP_NOT_TAKEN;
  size_t first_jit = SIZE_MAX;           // the first one in code made at run time
  std::vector<uint64_t> addresses;       // as kernel::CpuSample::user_frames
  std::vector<profile::StackId> stacks;  // of addresses [0, i]
};

struct RawExemplar {
  uint64_t time_ns = 0;  // CLOCK_MONOTONIC
  uint64_t value = 0;    // nanoseconds
  profile::StackId stack = profile::kEmptyStack;
  std::string comm;
  uint32_t tid = 0;
  std::string call;  // profile::Exemplar::call, and so on
  uint64_t weight = 0;
  bool typical = false;
  std::vector<profile::TimePart> split;
  profile::Waker waker;  // its stack in this window
};

class RawWindow {
 public:
  using Counts = std::map<std::string, uint64_t, std::less<>>;
  static constexpr size_t kMaxRecentThreads = 1024;
  static constexpr uint64_t kMaxOffsetMs = UINT16_MAX;
  struct Sums {
    uint64_t count = 0;
    uint64_t value = 0;
    std::vector<uint16_t> offsets_ms;  // of those samples that came with one, in no order
    void Add(const Sums& more);
  };
  // (cgroup id, v1 id, call name) of exemplars.
  struct CallKey {
    uint64_t cgroup_id = 0;
    uint64_t cgroup_v1_id = 0;
    std::string call;
    auto operator<=>(const CallKey&) const = default;
  };

  // `start_ns`: Unix time.
  RawWindow(int64_t start_ns, uint64_t duration_ns);

  int64_t start_ns() const { return start_ns_; }
  uint64_t duration_ns() const { return duration_ns_; }
  void set_duration_ns(uint64_t duration_ns) { duration_ns_ = duration_ns; }

  uint32_t OriginOf(const std::shared_ptr<const process::Binary>& binary);
  uint32_t OriginOf(ProcessKey process);
  uint16_t ReasonOf(std::string_view reason);

  // The stack of `parent` with one more frame on top.
  profile::StackId InternStack(profile::StackId parent, const RawFrame& frame);
  profile::StackId InternStack(std::span<const RawFrame> leaf_first);
  // For the resolver; at most kMaxRecentThreads, then all are forgotten.
  RecentCallers& RecentCallersOf(uint32_t tid);
  void ForgetRecentCallers() { recent_callers_.clear(); }  // no more samples will come
  void AddSample(const RawGroup& group, profile::StackId stack, uint64_t count, uint64_t value);
  // One sample that was taken at `unix_ns`. When within the window is kept to the millisecond, in windows of up to
  // kMaxOffsetMs; what lies before its start (a late one) counts as its start.
  void AddSampleAt(const RawGroup& group, profile::StackId stack, uint64_t value, int64_t unix_ns);
  void AddExemplar(const CallKey& key, RawExemplar exemplar) { exemplars_[key].push_back(std::move(exemplar)); }
  // The one that was added of this thread and time; nullptr if there is none.
  RawExemplar* FindExemplar(const CallKey& key, uint32_t tid, uint64_t time_ns);
  void CountStop(std::string_view reason) { Count(reason, &stops_); }
  void CountMeans(std::string_view name) { Count(name, &means_); }

  // Read when the window closes. Frame and stack 0 are "none"; parents have lower ids.
  const std::vector<RawFrame>& frames() const { return frames_; }
  const std::vector<profile::StackNode>& stacks() const { return stacks_; }
  const std::vector<std::shared_ptr<const process::Binary>>& binaries() const { return binaries_; }
  const std::vector<ProcessKey>& processes() const { return processes_; }
  const std::vector<std::string>& reasons() const { return reasons_; }
  // Group -> stack -> sums.
  const std::map<RawGroup, std::unordered_map<profile::StackId, Sums>>& samples() const { return samples_; }
  const std::map<CallKey, std::vector<RawExemplar>>& exemplars() const { return exemplars_; }
  const Counts& stops() const { return stops_; }
  const Counts& means() const { return means_; }
  // Of type cpu: waits have accounts of their own.
  uint64_t sample_count() const { return sample_count_; }

 private:
  struct FrameHash {
    size_t operator()(const RawFrame& frame) const;
  };

  static void Count(std::string_view name, Counts* counts);

  int64_t start_ns_;
  uint64_t duration_ns_;
  uint64_t sample_count_ = 0;
  std::vector<RawFrame> frames_;
  std::unordered_map<RawFrame, profile::FrameId, FrameHash> frame_ids_;
  std::vector<profile::StackNode> stacks_;
  std::unordered_map<uint64_t, profile::StackId> stack_ids_;  // parent << 32 | frame
  std::vector<std::shared_ptr<const process::Binary>> binaries_;
  std::unordered_map<const process::Binary*, uint32_t> binary_ids_;
  std::vector<ProcessKey> processes_;
  std::unordered_map<ProcessKey, uint32_t> process_ids_;
  std::vector<std::string> reasons_;
  std::map<RawGroup, std::unordered_map<profile::StackId, Sums>> samples_;
  std::map<CallKey, std::vector<RawExemplar>> exemplars_;
  std::unordered_map<uint32_t, RecentCallers> recent_callers_;  // by tid
  Counts stops_;
  Counts means_;
};

}  // namespace pyrometer::agent

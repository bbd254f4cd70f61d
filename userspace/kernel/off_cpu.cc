#include "userspace/kernel/off_cpu.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <map>
#include <unordered_map>
#include <utility>

#include "bpf/abi/histogram.h"
#include "bpf/abi/off_cpu.h"
#include "bpf/lib/histogram.h"
#include "bpf/off_cpu.skel.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/decode.h"
#include "userspace/kernel/features.h"
#include "userspace/kernel/octave_reader.h"
#include "userspace/kernel/unwind_maps.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

constexpr std::string_view kProbe = "off_cpu";
// How far the rate may be off before T is moved: its own noise at 500 a second is 4.5 %.
constexpr double kRateTolerance = 0.25;
// One step: a burst of a second is not yet the load.
constexpr double kMaxPeriodStep = 4;
constexpr size_t kMostFramesOfOurs = 10;  // 4 on 6.18: two functions, the program, bpf_trace_run1

using Skeleton = UniqueSkeleton<off_cpu_bpf, off_cpu_bpf::destroy>;

struct AddressRange {
  uint64_t begin = 0, end = 0;
};

// Places in the kernel's code that the probe looks for on stacks; 0 where addresses are hidden (kptr_restrict).
struct KernelPlaces {
  AddressRange fault;                 // handle_mm_fault
  AddressRange interrupts;            // entries of interrupts; those of exceptions lie before
  std::vector<AddressRange> tracing;  // what stands between a tracepoint and a program of ours
};

// bpf_trace_run1 and its kind; before 6.2 also the tracepoints' own stubs.
bool IsTracing(std::string_view symbol) {
  return symbol.starts_with("bpf_trace_run") || symbol.starts_with("__bpf_trace_sched_wak") ||
         symbol.starts_with("__traceiter_sched_wak");
}

KernelPlaces FindKernelPlaces() {
  KernelPlaces places;
  std::ifstream symbols("/proc/kallsyms");
  std::vector<uint64_t> addresses;
  for (std::string line; std::getline(symbols, line);) {
    const std::vector<std::string_view> fields = Split(line, ' ');
    if (fields.size() < 3) continue;
    const auto address = ParseUint64(fields[0], 16);
    if (!address || *address == 0) continue;
    addresses.push_back(*address);
    if (fields[2] == "handle_mm_fault") places.fault.begin = *address;
    if (fields[2] == "asm_common_interrupt") places.interrupts.begin = *address;
    if (fields[2] == "__irqentry_text_end") places.interrupts.end = *address;
    if (IsTracing(fields[2])) places.tracing.push_back({.begin = *address});
  }
  std::sort(addresses.begin(), addresses.end());
  const auto end_of = [&](uint64_t begin) {
    const auto next = std::upper_bound(addresses.begin(), addresses.end(), begin);
    return next == addresses.end() ? UINT64_MAX : *next;
  };
  if (places.fault.begin != 0) places.fault.end = end_of(places.fault.begin);
  for (AddressRange& range : places.tracing) range.end = end_of(range.begin);
  return places;
}

struct OwnerKey {
  pyro_owner owner;
  bool folded = false;
  auto Tie() const { return std::tuple(folded, owner.cgroup_id, owner.cgroup_v1_id); }
  bool operator<(const OwnerKey& other) const { return Tie() < other.Tie(); }
};

class OffCpuImpl final : public OffCpu {
 public:
  OffCpuImpl(Options options, Skeleton skeleton, size_t cpus, std::vector<AddressRange> tracing)
      : options_(std::move(options)),
        skeleton_(std::move(skeleton)),
        cpus_(cpus),
        tracing_(std::move(tracing)),
        octaves_(bpf_map__fd(skeleton_->maps.pyro_queue_octaves), cpus, options_.idle_windows_before_eviction) {}

  Status Begin() {
    const std::vector<pyro_wait_total> no_total(cpus_);
    for (uint32_t cause = 0; cause < PYRO_WAIT_CAUSES; ++cause) {
      const pyro_wait_key key = {.owner = {}, .cause = cause, .folded = 1};
      if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_wait_totals), &key, no_total.data(), BPF_ANY) != 0) {
        return ErrnoError(errno, "cannot prepare the sums of waits");
      }
    }
    const std::vector<pyro_octave> no_octave(cpus_);
    for (uint32_t octave = 0; octave < PYRO_LATENCY_OCTAVES; ++octave) {
      const pyro_queue_key key = {.owner = {}, .octave = octave, .folded = 1};
      if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_queue_octaves), &key, no_octave.data(), BPF_ANY) != 0) {
        return ErrnoError(errno, "cannot prepare the histograms of run-queue latency");
      }
    }
    ring_.Reset(ring_buffer__new(bpf_map__fd(skeleton_->maps.pyro_waits), OnSample, this, nullptr));
    if (!ring_) return ErrnoError(errno, "cannot map the ring of waits");
    last_adjusted_ns_ = MonotonicNowNs();
    // What ends a wait before what begins one: else the first waits would lack their wake-ups.
    if (bpf_program__fd(skeleton_->progs.pyro_lock_end) >= 0) {
      ASSIGN_OR_RETURN(lock_end_link_, AttachProgram(skeleton_->progs.pyro_lock_end, kProbe));
      ASSIGN_OR_RETURN(lock_begin_link_, AttachProgram(skeleton_->progs.pyro_lock_begin, kProbe));
    }
    ASSIGN_OR_RETURN(waking_link_, AttachProgram(skeleton_->progs.pyro_waking, kProbe));
    ASSIGN_OR_RETURN(waking_new_link_, AttachProgram(skeleton_->progs.pyro_waking_new, kProbe));
    ASSIGN_OR_RETURN(switch_link_, AttachProgram(skeleton_->progs.pyro_switch, kProbe));
    return OkStatus();
  }

  Status PollSamples(const std::function<void(const WaitSample&)>& callback) override {
    callback_ = &callback;
    const int consumed = ring_buffer__consume(ring_.get());
    callback_ = nullptr;
    if (consumed < 0 && consumed != -EINTR) return ErrnoError(-consumed, "cannot read sampled waits");
    AdjustPeriod();
    return OkStatus();
  }

  Status Drain(const std::function<void(const WaitWindow&)>& callback) override {
    const uint32_t closing = skeleton_->data->pyro_epoch;
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_epoch).store(closing + 1, std::memory_order_relaxed);
    std::map<OwnerKey, WaitWindow> windows;
    const auto window_of = [&](const pyro_owner& owner, bool folded) -> WaitWindow& {
      WaitWindow& window = windows[{owner, folded}];
      window.cgroup_id = owner.cgroup_id;
      window.cgroup_v1_id = owner.cgroup_v1_id;
      window.folded = folded;
      return window;
    };
    RETURN_IF_ERROR(ReadTotals([&](const pyro_wait_key& key, const WaitTotal& delta) {
      if (key.cause < PYRO_WAIT_CAUSES) window_of(key.owner, key.folded != 0).totals[key.cause] = delta;
    }));
    std::map<OwnerKey, std::map<uint32_t, OctaveDelta>> octaves;
    RETURN_IF_ERROR(octaves_.Read(
        closing,
        [&](const pyro_queue_key& key, const OctaveDelta& delta) {
          octaves[{key.owner, key.folded != 0}].emplace(key.octave, delta);
        },
        [](const pyro_queue_key& key) { return key.folded == 0; }));
    for (const auto& [owner, parts] : octaves) {
      WaitWindow& window = window_of(owner.owner, owner.folded);
      for (const auto& [octave, delta] : parts) AppendOctave(octave, delta, window.queue);
    }
    for (const auto& [owner, window] : windows) callback(window);
    return OkStatus();
  }

  Status Stop() override {
    switch_link_.Reset();
    waking_link_.Reset();
    waking_new_link_.Reset();
    lock_begin_link_.Reset();
    lock_end_link_.Reset();
    return OkStatus();
  }

  OffCpuCounters Counters() const override {
    OffCpuCounters out;
    out.delivered = delivered_.load(std::memory_order_relaxed);
    out.dropped_malformed = malformed_.load(std::memory_order_relaxed);
    const auto sum = SumPerCpu<pyro_off_cpu_counters>(skeleton_->maps.pyro_counters);
    out.taken = sum.taken;
    out.dropped_slots = sum.dropped_slots;
    out.dropped_ring = sum.dropped_ring;
    const uint64_t known = out.delivered + out.dropped_malformed + out.dropped_slots + out.dropped_ring;
    out.pending = sum.taken > known ? sum.taken - known : 0;
    out.without_user = sum.without_user;
    out.folded = sum.folded;
    out.lost = sum.lost;
    out.storage_lost = sum.storage_lost;
    out.missed = sum.missed;
    return out;
  }

  uint64_t period_ns() const override { return skeleton_->data->pyro_period_ns; }

 private:
  static int OnSample(void* self, void* data, size_t size) {
    auto* probe = static_cast<OffCpuImpl*>(self);
    WaitSample sample;
    if (!DecodeWaitSample(data, size, sample)) {
      probe->malformed_.fetch_add(1, std::memory_order_relaxed);
      return 0;
    }
    sample.waker_kernel_frames = probe->WithoutOurs(sample.waker_kernel_frames);
    (*probe->callback_)(sample);
    probe->delivered_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }

  // The waker's stack is taken where it runs our program, which is of no interest: from the tracepoint on.
  std::span<const uint64_t> WithoutOurs(std::span<const uint64_t> frames) const {
    size_t ours = 0;
    for (size_t i = 0; i < std::min(frames.size(), kMostFramesOfOurs); ++i) {
      for (const AddressRange& range : tracing_) {
        if (frames[i] >= range.begin && frames[i] < range.end) ours = i + 1;
      }
    }
    return frames.subspan(ours);
  }

  void AdjustPeriod() {
    if (options_.samples_per_second == 0 || !options_.sampling) return;
    const uint64_t now = MonotonicNowNs();
    if (now - last_adjusted_ns_ < kNsPerSecond) return;
    const uint64_t taken = Counters().taken;
    const double rate = static_cast<double>(taken - std::exchange(last_taken_, taken)) * 1e9 /
                        static_cast<double>(now - std::exchange(last_adjusted_ns_, now));
    const double excess = rate / options_.samples_per_second;
    if (excess > 1 - kRateTolerance && excess < 1 + kRateTolerance) return;
    const auto period = static_cast<double>(period_ns());
    const double wanted = period * std::clamp(excess, 1 / kMaxPeriodStep, kMaxPeriodStep);
    const double bounded =
        std::clamp(wanted, static_cast<double>(options_.min_period_ns), static_cast<double>(kMaxPeriodNs));
    std::atomic_ref(skeleton_->data->pyro_period_ns).store(static_cast<uint64_t>(bounded), std::memory_order_relaxed);
  }

  struct TotalSeen {
    WaitTotal total;
    uint32_t idle = 0;
  };

  template <typename Visit>
  Status ReadTotals(Visit visit) {
    const int map = bpf_map__fd(skeleton_->maps.pyro_wait_totals);
    std::vector<pyro_wait_key> idle;
    const auto advance = [&](const pyro_wait_key& key, const pyro_wait_total* values) {
      WaitTotal total;
      for (size_t cpu = 0; cpu < cpus_; ++cpu) {
        total.count += values[cpu].count;
        total.ns += values[cpu].ns;
      }
      TotalSeen& seen = totals_[key];
      if (total.count == seen.total.count && total.ns == seen.total.ns) return false;
      visit(key, WaitTotal{.count = total.count - seen.total.count, .ns = total.ns - seen.total.ns});
      seen = {.total = total, .idle = 0};
      return true;
    };
    RETURN_IF_ERROR((ForEachPerCpu<pyro_wait_key, pyro_wait_total>(
        map, cpus_, [&](const pyro_wait_key& key, const pyro_wait_total* values) {
          if (!advance(key, values) && ++totals_[key].idle >= options_.idle_windows_before_eviction &&
              key.folded == 0) {
            idle.push_back(key);
          }
        })));
    std::vector<pyro_wait_total> values(cpus_);
    for (const pyro_wait_key& key : idle) {
      if (bpf_map_lookup_and_delete_elem(map, &key, values.data()) != 0) continue;
      advance(key, values.data());
      totals_.erase(key);
    }
    return OkStatus();
  }

  const Options options_;
  Skeleton skeleton_;
  const size_t cpus_;
  const std::vector<AddressRange> tracing_;
  OctaveReader<pyro_queue_key> octaves_;
  std::unordered_map<pyro_wait_key, TotalSeen, BytesHash, BytesEqual> totals_;
  UniqueRingBuffer ring_;
  UniqueBpfLink lock_end_link_, lock_begin_link_, waking_link_, waking_new_link_, switch_link_;
  const std::function<void(const WaitSample&)>* callback_ = nullptr;  // set during PollSamples
  std::atomic<uint64_t> delivered_ = 0;
  std::atomic<uint64_t> malformed_ = 0;
  uint64_t last_adjusted_ns_ = 0;
  uint64_t last_taken_ = 0;
};

}  // namespace

bool DecodeWaitSample(const void* data, size_t size, WaitSample& out) {
  if (size < sizeof(pyro_wait_sample)) return false;
  const auto* record = static_cast<const pyro_wait_sample*>(data);
  const size_t frames =
      size_t{record->user_frames} + record->kernel_frames + record->waker_kernel_frames + record->waker_user_frames;
  if (record->user_frames > PYRO_MAX_USER_FRAMES || record->kernel_frames > PYRO_MAX_KERNEL_FRAMES ||
      record->waker_kernel_frames > PYRO_MAX_WAKER_FRAMES || record->waker_user_frames > PYRO_MAX_WAKER_FRAMES ||
      record->user_stop >= PYRO_STOP_COUNT || record->waker_user_stop >= PYRO_STOP_COUNT ||
      record->cause >= PYRO_WAIT_CAUSES || record->waker > PYRO_WAKER_INTERRUPT ||
      size < sizeof(*record) + frames * sizeof(uint64_t)) {
    return false;
  }
  const auto* addresses = reinterpret_cast<const uint64_t*>(record + 1);
  const auto take = [&addresses](size_t count) {
    const std::span<const uint64_t> part(addresses, count);
    addresses += count;
    return part;
  };
  out.time_ns = record->time_ns;
  out.wait_ns = record->wait_ns;
  out.weight_ns = std::max(record->wait_ns, record->period_ns);
  out.cause = static_cast<WaitCause>(record->cause);
  out.process = {.tgid = record->tgid, .start_time_ns = record->start_time_ns};
  out.tid = record->tid;
  out.cgroup_id = record->owner.cgroup_id;
  out.cgroup_v1_id = record->owner.cgroup_v1_id;
  out.nr = record->nr;
  out.compat = record->compat != 0;
  out.comm = CommView(record->comm);
  out.user_frames = take(record->user_frames);
  out.kernel_frames = take(record->kernel_frames);
  out.user_stop = static_cast<StopReason>(record->user_stop);
  out.means = record->means;
  out.waker = static_cast<pyro_waker_kind>(record->waker);
  out.waker_process = {.tgid = record->waker_tgid, .start_time_ns = record->waker_start_time_ns};
  out.waker_tid = record->waker_tid;
  out.waker_comm = CommView(record->waker_comm);
  out.waker_kernel_frames = take(record->waker_kernel_frames);
  out.waker_user_frames = take(record->waker_user_frames);
  out.waker_user_stop = static_cast<StopReason>(record->waker_user_stop);
  return true;
}

StatusOr<std::unique_ptr<OffCpu>> OffCpu::Start(const Options& options) {
  if (options.max_user_frames > PYRO_MAX_USER_FRAMES) {
    return InvalidArgumentError(StrFormat("at most %d user frames can be taken", PYRO_MAX_USER_FRAMES));
  }
  if (options.period_ns == 0 || options.period_ns > kMaxPeriodNs || options.min_period_ns > kMaxPeriodNs) {
    return InvalidArgumentError(StrFormat("the period of sampled waits is 1 to %d ns", kMaxPeriodNs));
  }
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  const uint32_t ring_bytes = RingBytes(options.ring_bytes);
  const std::vector<int> arguments = TracepointArguments({"sched_switch", "contention_begin"});
  const bool has_state = arguments[0] >= 4;
  const bool has_contention = arguments[1] > 0;
  const KernelPlaces places = FindKernelPlaces();
  const auto load = [&](bool task_work) {
    return LoadSkeleton<Skeleton>(kProbe, off_cpu_bpf__open, off_cpu_bpf__load, [&](off_cpu_bpf& s) {
      s.rodata->pyro_switch_has_state = has_state ? 1 : 0;
      s.rodata->pyro_task_work = task_work ? 1 : 0;
      s.rodata->pyro_sampling = options.sampling ? 1 : 0;
      s.rodata->pyro_fault_begin = places.fault.begin;
      s.rodata->pyro_fault_end = places.fault.end;
      s.rodata->pyro_interrupt_begin = places.interrupts.begin;
      s.rodata->pyro_interrupt_end = places.interrupts.end;
      s.rodata->pyro_wake_bytes = ring_bytes / 2;
      s.rodata->pyro_max_user_frames = options.max_user_frames;
      s.rodata->pyro_v1_controller = MountedV1Controller();
      std::copy(CauseByCall().begin(), CauseByCall().end(), s.rodata->pyro_call_causes);
      s.data->pyro_period_ns = options.period_ns;
      bpf_map__set_max_entries(s.maps.pyro_waits, ring_bytes);
      if (!options.sampling) bpf_map__set_max_entries(s.maps.pyro_wait_slots, 1);
      bpf_program__set_autoload(s.progs.pyro_lock_begin, has_contention);
      bpf_program__set_autoload(s.progs.pyro_lock_end, has_contention);
      if (options.task_states >= 0) {
        if (const int error = bpf_map__reuse_fd(s.maps.pyro_task_states, options.task_states); error != 0) {
          return ErrnoError(-error, "cannot share the states of tasks");
        }
      }
      return ShareUnwindMaps(options.unwind.get(), 0, s);
    });
  };
  bool task_work = HasTaskWork();
  StatusOr<Skeleton> skeleton = load(task_work);
  if (!skeleton.ok() && task_work) {
    // Its interface is young: a kernel with another form of it still samples waits.
    task_work = false;
    skeleton = load(false);
  }
  RETURN_IF_ERROR(skeleton.status());
  auto probe = std::make_unique<OffCpuImpl>(options, *std::move(skeleton), cpus, places.tracing);
  RETURN_IF_ERROR(probe->Begin());
  return std::unique_ptr<OffCpu>(std::move(probe));
}

}  // namespace pyrometer::kernel

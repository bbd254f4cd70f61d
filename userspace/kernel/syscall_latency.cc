#include "userspace/kernel/syscall_latency.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iterator>
#include <map>
#include <numeric>
#include <thread>
#include <unordered_map>
#include <utility>

#include "bpf/abi/syscall_latency.h"
#include "bpf/lib/histogram.h"
#include "bpf/syscall_latency.skel.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/call_arguments.h"
#include "userspace/kernel/decode.h"
#include "userspace/kernel/hot_octaves.h"
#include "userspace/kernel/octave_reader.h"
#include "userspace/kernel/unwind_maps.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

constexpr std::string_view kProbe = "syscall_latency";
constexpr pyro_syscall_key kFoldKey = {
    .owner = {.cgroup_id = 0, .cgroup_v1_id = 0}, .nr = 0, .flags = PYRO_SYSCALL_FOLDED};

// Before anything is known of how many calls there will be: log2 of how many calls one is drawn of.
constexpr uint32_t kFirstPeriod = 12;

// Tables of the probe's pyro_gap.
void FillDrawTables(syscall_latency_bpf& s) {
  for (size_t i = 0; i < std::size(s.rodata->pyro_log2_table); ++i) {
    s.rodata->pyro_log2_table[i] =
        static_cast<uint32_t>(std::lround(std::log2(1 + static_cast<double>(i) / 64) * 0x1p16));
  }
  for (size_t i = 0; i <= PYRO_MAX_DRAW_PERIOD; ++i) {
    // Of period 1 each call is drawn: all gaps are 0.
    const double scale = i == 0 ? 0 : -std::log(2.0) / std::log1p(-1 / std::exp2(static_cast<double>(i)));
    s.rodata->pyro_gap_scale[i] = static_cast<uint64_t>(std::llround(scale * 0x1p20));
  }
}

using Skeleton = UniqueSkeleton<syscall_latency_bpf, syscall_latency_bpf::destroy>;

class SyscallLatencyImpl final : public SyscallLatency {
 public:
  SyscallLatencyImpl(Options options, Skeleton skeleton, Status open_calls, size_t cpus)
      : options_(options),
        skeleton_(std::move(skeleton)),
        cpus_(cpus),
        octaves_(bpf_map__fd(skeleton_->maps.pyro_syscall_octaves), cpus, options.idle_windows_before_eviction),
        open_calls_status_(std::move(open_calls)) {}

  Status Begin() {
    if (options_.hot_octaves != 0) {
      ASSIGN_OR_RETURN(hot_, HotOctaves::Map(bpf_map__fd(skeleton_->maps.pyro_hot_keys),
                                             bpf_map__fd(skeleton_->maps.pyro_hot_octaves), options_.hot_octaves, cpus_,
                                             options_.idle_windows_before_eviction));
    }
    // The fold key's entries must exist before the first call can need them.
    const std::vector<pyro_octave> zero(cpus_);
    for (uint32_t octave = 0; octave < PYRO_LATENCY_OCTAVES; ++octave) {
      const pyro_syscall_octave_key key = {.call = kFoldKey, .octave = octave, .pad = 0};
      if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_syscall_octaves), &key, zero.data(), BPF_ANY) != 0) {
        return ErrnoError(errno, "cannot prepare the histograms of system calls");
      }
    }
    if (options_.split) {
      const std::vector<pyro_syscall_waits> none(cpus_);
      if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_syscall_waits), &kFoldKey, none.data(), BPF_ANY) != 0) {
        return ErrnoError(errno, "cannot prepare the waits of system calls");
      }
    }
    RETURN_IF_ERROR(SetSlow(kFoldKey, SlowOfNewKeys()));
    RETURN_IF_ERROR(SetPeriod(kFoldKey, options_.drawn_per_key == 0 ? PYRO_DRAW_NEVER : kFirstPeriod));
    ring_.Reset(ring_buffer__new(bpf_map__fd(skeleton_->maps.pyro_exemplars), OnExemplar, this, nullptr));
    if (!ring_) return ErrnoError(errno, "cannot map the exemplar ring");
    if (open_calls_status_.ok()) {
      auto link = AttachProgram(skeleton_->progs.pyro_open_calls, kProbe);
      if (link.ok()) open_calls_link_ = *std::move(link);
      open_calls_status_ = link.status();
    }
    RETURN_IF_ERROR(Attach());
    slice_begin_ns_ = MonotonicNowNs();
    return OkStatus();
  }

  StatusOr<SyscallSlice> Pause(uint64_t tail_ns) override {
    SyscallSlice slice = {.begin_ns = slice_begin_ns_};
    slice.entries_end_ns = MonotonicNowNs();
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_counting).store(0);
    if (tail_ns != 0) std::this_thread::sleep_for(std::chrono::nanoseconds(tail_ns));
    slice.end_ns = MonotonicNowNs();
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_generation).fetch_add(1);
    RETURN_IF_ERROR(Stop());
    return slice;
  }

  Status Resume() override {
    RETURN_IF_ERROR(Attach());
    slice_begin_ns_ = MonotonicNowNs();
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_counting).store(1);
    return OkStatus();
  }

  Status Drain(const std::function<void(const SyscallWindow&)>& callback) override {
    // New maxima go to the next window from here on.
    const uint32_t closing = skeleton_->data->pyro_epoch;
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_epoch).store(closing + 1, std::memory_order_relaxed);

    std::map<SyscallKey, std::map<uint32_t, OctaveDelta>> octaves;
    const auto add = [&](const pyro_syscall_octave_key& key, const OctaveDelta& delta) {
      MergeOctave(delta, octaves[ToSyscallKey(key.call)][key.octave]);
    };
    if (hot_) RETURN_IF_ERROR(hot_->Read(closing, add));
    RETURN_IF_ERROR(octaves_.Read(
        closing,
        [&](const pyro_syscall_octave_key& key, const OctaveDelta& delta) {
          add(key, delta);
          if (hot_) hot_->MakeRoom(key, std::accumulate(delta.counts.begin(), delta.counts.end(), uint64_t{0}));
        },
        [](const pyro_syscall_octave_key& key) { return (key.call.flags & PYRO_SYSCALL_FOLDED) == 0; }));
    std::map<SyscallKey, std::vector<SyscallError>> errors;
    RETURN_IF_ERROR(ReadErrors(errors));
    std::map<SyscallKey, pyro_syscall_waits> waits;
    if (options_.split) RETURN_IF_ERROR(ReadWaits(waits));

    std::vector<std::pair<pyro_syscall_key, uint64_t>> calls;  // of each key
    for (const auto& [key, parts] : octaves) {
      SyscallWindow window;
      window.key = key;
      for (const auto& [octave, delta] : parts) AppendOctave(octave, delta, window.latency);
      if (const auto found = errors.find(key); found != errors.end()) {
        window.errors = std::move(found->second);
        errors.erase(found);
      }
      if (const auto found = waits.find(key); found != waits.end()) {
        SetWaits(found->second, window);
        waits.erase(found);
      }
      UpdateThreshold(window);
      if (!key.folded) calls.emplace_back(ToAbi(key), window.latency.count);
      callback(window);
    }
    // A failure or a wait counted between two reads belongs to a call of the next window; its key may be quiet in this
    // one.
    for (auto& [key, list] : errors) {
      SyscallWindow window;
      window.key = key;
      window.errors = std::move(list);
      callback(window);
    }
    for (const auto& [key, delta] : waits) {
      SyscallWindow window;
      window.key = key;
      SetWaits(delta, window);
      callback(window);
    }
    ForgetIdle(skeleton_->maps.pyro_syscall_slow, thresholds_);
    RETURN_IF_ERROR(UpdatePeriods(calls));
    return SetSlow(kFoldKey, SlowOfNewKeys());
  }

  Status PollExemplars(const std::function<void(const SlowCall&)>& callback) override {
    callback_ = &callback;
    const int consumed = ring_buffer__consume(ring_.get());
    callback_ = nullptr;
    if (consumed < 0 && consumed != -EINTR) return ErrnoError(-consumed, "cannot read exemplars");
    return OkStatus();
  }

  Status ReadOpenCalls(const std::function<void(const OpenCall&)>& callback) override {
    RETURN_IF_ERROR(open_calls_status_);
    const UniqueFd iterator(bpf_iter_create(bpf_link__fd(open_calls_link_.get())));
    if (!iterator) return ErrnoError(errno, "cannot visit the threads of this machine");
    // The kernel gives whole records: its buffer is larger, and a record that does not fit is kept for the next read.
    std::array<pyro_open_call, 64> records;
    std::string rest;
    while (true) {
      const ssize_t got = read(iterator.get(), records.data(), sizeof(records));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ErrnoError(errno, "cannot read the open system calls");
      if (got == 0) break;
      // Anew for each part: on a busy machine calls begin between the first part and the last.
      const uint64_t now = MonotonicNowNs();
      rest.append(reinterpret_cast<const char*>(records.data()), static_cast<size_t>(got));
      size_t at = 0;
      for (; at + sizeof(pyro_open_call) <= rest.size(); at += sizeof(pyro_open_call)) {
        pyro_open_call record;
        std::memcpy(&record, rest.data() + at, sizeof(record));
        if (record.cause >= PYRO_WAIT_CAUSES) continue;  // never: it is one byte of ours
        callback(ToOpenCall(record, now));
      }
      rest.erase(0, at);
    }
    return OkStatus();
  }

  Status OpenCallsStatus() const override { return open_calls_status_; }

  Status Stop() override {
    enter_link_.Reset();
    exit_link_.Reset();
    return OkStatus();
  }

  SyscallCounters Counters() const override {
    SyscallCounters out;
    out.exemplars_delivered = delivered_.load(std::memory_order_relaxed);
    const auto sum = SumPerCpu<pyro_syscall_counters>(skeleton_->maps.pyro_counters);
    out.recorded = sum.recorded;
    out.folded = sum.folded;
    out.lost = sum.lost;
    out.no_entry = sum.no_entry;
    out.start_lost = sum.start_lost;
    out.never_returns = sum.never_returns;
    out.errors_lost = sum.errors_lost;
    out.exemplars_taken = sum.exemplars_taken;
    out.exemplars_dropped = sum.exemplars_dropped + malformed_.load(std::memory_order_relaxed);
    out.exemplars_limited = sum.exemplars_limited;
    out.waits_lost = sum.waits_lost;
    out.paused = sum.paused;
    return out;
  }

  int TaskStates() const override { return bpf_map__fd(skeleton_->maps.pyro_task_states); }

 private:
  Status Attach() {
    skeleton_->bss->pyro_attached_ns = MonotonicNowNs();
    // Exit first: calls already open are then counted as "no entry" and not half measured. The order
    // does not matter for calls that begin later.
    ASSIGN_OR_RETURN(exit_link_, AttachProgram(skeleton_->progs.pyro_sys_exit, kProbe));
    ASSIGN_OR_RETURN(enter_link_, AttachProgram(skeleton_->progs.pyro_sys_enter, kProbe));
    return OkStatus();
  }

  static int OnExemplar(void* self, void* data, size_t size) {
    auto* probe = static_cast<SyscallLatencyImpl*>(self);
    SlowCall call;
    if (!DecodeSlowCall(data, size, call)) {
      probe->malformed_.fetch_add(1, std::memory_order_relaxed);
      return 0;
    }
    (*probe->callback_)(call);
    probe->delivered_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }

  static OpenCall ToOpenCall(const pyro_open_call& record, uint64_t now) {
    const auto age = [now](uint64_t since) { return since == 0 || since > now ? 0 : now - since; };
    return {.key = ToSyscallKey({.owner = record.owner, .nr = record.nr, .flags = record.flags}),
            .process = {.tgid = record.tgid, .start_time_ns = record.start_time_ns},
            .tid = record.tid,
            .comm = CommView(record.comm),
            .age_ns = age(record.call_ns),
            .older = record.older != 0,
            .waits = record.off_ns != 0,
            .wait_age_ns = age(record.off_ns),
            .cause = static_cast<WaitCause>(record.cause),
            .blocked = record.blocked != 0};
  }

  struct ErrorsSeen {
    uint64_t count = 0;
    uint32_t idle = 0;
  };

  Status ReadErrors(std::map<SyscallKey, std::vector<SyscallError>>& out) {
    const int map = bpf_map__fd(skeleton_->maps.pyro_syscall_errors);
    std::vector<pyro_syscall_error_key> idle;
    const auto advance = [&](const pyro_syscall_error_key& key, const uint64_t* values) {
      uint64_t total = 0;
      for (size_t cpu = 0; cpu < cpus_; ++cpu) total += values[cpu];
      ErrorsSeen& seen = errors_[key];
      if (total == seen.count) return false;
      out[ToSyscallKey(key.call)].push_back({.error = static_cast<int32_t>(key.error), .count = total - seen.count});
      seen = {.count = total, .idle = 0};
      return true;
    };
    RETURN_IF_ERROR((ForEachPerCpu<pyro_syscall_error_key, uint64_t>(
        map, cpus_, [&](const pyro_syscall_error_key& key, const uint64_t* values) {
          if (!advance(key, values) && ++errors_[key].idle >= options_.idle_windows_before_eviction) {
            idle.push_back(key);
          }
        })));
    std::vector<uint64_t> values(cpus_);
    for (const pyro_syscall_error_key& key : idle) {
      if (bpf_map_lookup_and_delete_elem(map, &key, values.data()) != 0) continue;
      advance(key, values.data());
      errors_.erase(key);
    }
    for (auto& [key, list] : out) {
      std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.error < b.error; });
    }
    return OkStatus();
  }

  static void SetWaits(const pyro_syscall_waits& waits, SyscallWindow& window) {
    window.waited_calls = waits.calls;
    std::copy(std::begin(waits.ns), std::end(waits.ns), window.waited_ns.begin());
  }

  struct WaitsSeen {
    pyro_syscall_waits total{};
    uint32_t idle = 0;
  };

  Status ReadWaits(std::map<SyscallKey, pyro_syscall_waits>& out) {
    const int map = bpf_map__fd(skeleton_->maps.pyro_syscall_waits);
    std::vector<pyro_syscall_key> idle;
    const auto advance = [&](const pyro_syscall_key& key, const pyro_syscall_waits* values) {
      pyro_syscall_waits total{}, delta{};
      for (size_t cpu = 0; cpu < cpus_; ++cpu) {
        total.calls += values[cpu].calls;
        for (size_t i = 0; i < PYRO_WAIT_CAUSES; ++i) total.ns[i] += values[cpu].ns[i];
      }
      WaitsSeen& seen = waits_[key];
      bool changed = total.calls != seen.total.calls;
      delta.calls = total.calls - seen.total.calls;
      for (size_t i = 0; i < PYRO_WAIT_CAUSES; ++i) {
        delta.ns[i] = total.ns[i] - seen.total.ns[i];
        changed = changed || delta.ns[i] != 0;
      }
      if (!changed) return false;
      seen = {.total = total, .idle = 0};
      out[ToSyscallKey(key)] = delta;
      return true;
    };
    RETURN_IF_ERROR((ForEachPerCpu<pyro_syscall_key, pyro_syscall_waits>(
        map, cpus_, [&](const pyro_syscall_key& key, const pyro_syscall_waits* values) {
          if (!advance(key, values) && ++waits_[key].idle >= options_.idle_windows_before_eviction &&
              (key.flags & PYRO_SYSCALL_FOLDED) == 0) {
            idle.push_back(key);
          }
        })));
    std::vector<pyro_syscall_waits> values(cpus_);
    for (const pyro_syscall_key& key : idle) {
      if (bpf_map_lookup_and_delete_elem(map, &key, values.data()) != 0) continue;
      advance(key, values.data());
      waits_.erase(key);
    }
    return OkStatus();
  }

  // Nothing is known of how many slow calls they will make: first come, first served.
  pyro_syscall_slow SlowOfNewKeys() const {
    return {.threshold_ns = options_.exemplar_min_ns,
            .budget = options_.exemplars_per_window_new_key,
            .sure_ns = options_.exemplar_min_ns,
            .draw = 0};
  }

  Status SetSlow(const pyro_syscall_key& key, const pyro_syscall_slow& slow) {
    if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_syscall_slow), &key, &slow, BPF_ANY) != 0) {
      return ErrnoError(errno, "cannot set an exemplar threshold");
    }
    return OkStatus();
  }

  void UpdateThreshold(const SyscallWindow& window) {
    // A key whose slow quantile is below the minimum needs no entry of its own unless it has one: the shared
    // one has the same threshold.
    const uint64_t threshold = std::max(options_.exemplar_min_ns, window.latency.Quantile(options_.exemplar_quantile));
    const pyro_syscall_key key = ToAbi(window.key);
    // As many as in the last window are expected again.
    uint64_t expected = 0;
    for (const auto& bucket : window.latency.buckets) {
      if (bucket.index >= pyro_bucket_index(threshold)) expected += bucket.count;
    }
    const double chance = std::min(
        1.0, static_cast<double>(options_.exemplars_per_key) / static_cast<double>(std::max<uint64_t>(expected, 1)));
    const auto known = thresholds_.find(key);
    if (known == thresholds_.end() && window.latency.max_ns < options_.exemplar_min_ns) return;
    // No room is no loss: the key then shares the budget of new keys.
    const pyro_syscall_slow slow = {.threshold_ns = threshold,
                                    .budget = int64_t{options_.exemplars_per_key} * kExemplarBurst,
                                    .sure_ns = std::max(threshold, window.latency.max_ns),
                                    .draw = static_cast<uint64_t>(chance * 0x1p32)};
    if (SetSlow(key, slow).ok()) thresholds_[key] = 0;
  }

  Status SetPeriod(const pyro_syscall_key& key, uint32_t log2_period) {
    if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_syscall_periods), &key, &log2_period, BPF_ANY) != 0) {
      return ErrnoError(errno, "cannot set how many calls are drawn");
    }
    return OkStatus();
  }

  // As many calls as in the last window are expected again.
  Status UpdatePeriods(const std::vector<std::pair<pyro_syscall_key, uint64_t>>& calls) {
    if (options_.drawn_per_key == 0 || calls.empty()) return OkStatus();
    const double of_all = std::max(1u, options_.drawn_per_window);
    const double of_key = std::min<double>(options_.drawn_per_key, of_all / static_cast<double>(calls.size()));
    uint64_t total = 0;
    for (const auto& [key, count] : calls) {
      total += count;
      // No room is no loss: the key then has the period of new ones.
      if (SetPeriod(key, Log2Period(static_cast<double>(count) / of_key)).ok()) periods_[key] = 0;
    }
    ForgetIdle(skeleton_->maps.pyro_syscall_periods, periods_);
    return SetPeriod(kFoldKey, Log2Period(static_cast<double>(total) / of_all));
  }

  static uint32_t Log2Period(double period) {
    const double log2 = std::ceil(std::log2(std::max(period, 1.0)));
    return static_cast<uint32_t>(std::min<double>(log2, PYRO_MAX_DRAW_PERIOD));
  }

  using IdleKeys = std::unordered_map<pyro_syscall_key, uint32_t, BytesHash, BytesEqual>;  // -> Drains since last use

  void ForgetIdle(const bpf_map* map, IdleKeys& keys) {
    for (auto it = keys.begin(); it != keys.end();) {
      if (++it->second <= options_.idle_windows_before_eviction) {
        ++it;
        continue;
      }
      bpf_map_delete_elem(bpf_map__fd(map), &it->first);
      it = keys.erase(it);
    }
  }

  const Options options_;
  Skeleton skeleton_;
  const size_t cpus_;
  OctaveReader<pyro_syscall_octave_key> octaves_;
  std::unique_ptr<HotOctaves> hot_;  // null: none
  std::unordered_map<pyro_syscall_error_key, ErrorsSeen, BytesHash, BytesEqual> errors_;
  std::unordered_map<pyro_syscall_key, WaitsSeen, BytesHash, BytesEqual> waits_;
  IdleKeys thresholds_, periods_;
  UniqueRingBuffer ring_;
  Status open_calls_status_;
  UniqueBpfLink exit_link_, enter_link_, open_calls_link_;
  uint64_t slice_begin_ns_ = 0;
  const std::function<void(const SlowCall&)>* callback_ = nullptr;  // set during PollExemplars
  std::atomic<uint64_t> delivered_ = 0;
  std::atomic<uint64_t> malformed_ = 0;
};

}  // namespace

SyscallKey ToSyscallKey(const pyro_syscall_key& key) {
  return {.cgroup_id = key.owner.cgroup_id,
          .cgroup_v1_id = key.owner.cgroup_v1_id,
          .nr = key.nr,
          .compat = (key.flags & PYRO_SYSCALL_COMPAT) != 0,
          .folded = (key.flags & PYRO_SYSCALL_FOLDED) != 0};
}

pyro_syscall_key ToAbi(const SyscallKey& key) {
  return {.owner = {.cgroup_id = key.cgroup_id, .cgroup_v1_id = key.cgroup_v1_id},
          .nr = key.nr,
          .flags = (key.compat ? PYRO_SYSCALL_COMPAT : 0u) | (key.folded ? PYRO_SYSCALL_FOLDED : 0u)};
}

namespace {

CallDescriptor ToDescriptor(const pyro_descriptor& from) {
  CallDescriptor to = {.kind = static_cast<pyro_descriptor_kind>(from.kind),
                       .fd = from.fd,
                       .inode = from.inode,
                       .family = from.family,
                       .port = from.port};
  std::copy(std::begin(from.peer), std::end(from.peer), to.peer.begin());
  return to;
}

}  // namespace

bool DecodeSlowCall(const void* data, size_t size, SlowCall& out) {
  if (size < sizeof(pyro_syscall_exemplar)) return false;
  const auto* record = static_cast<const pyro_syscall_exemplar*>(data);
  if (record->user_frames > PYRO_MAX_USER_FRAMES || record->user_stop >= PYRO_STOP_COUNT ||
      record->descriptor.kind > PYRO_DESCRIPTOR_SOCKET || record->second_descriptor.kind > PYRO_DESCRIPTOR_SOCKET ||
      record->drawn > PYRO_MAX_DRAW_PERIOD + 1 ||
      !DecodeStackCopy(record + 1, size - sizeof(*record), record->user_frames, record->raw_bytes, out.raw_registers,
                       out.raw_stack)) {
    return false;
  }
  out.key = ToSyscallKey(record->call);
  out.slow = record->slow != 0;
  out.weight = record->drawn == 0 ? 0 : uint64_t{1} << (record->drawn - 1);
  out.time_ns = record->time_ns;
  out.latency_ns = record->latency_ns;
  out.result = record->result;
  out.process = {.tgid = record->tgid, .start_time_ns = record->start_time_ns};
  out.tid = record->tid;
  out.comm = CommView(record->comm);
  out.user_frames = {reinterpret_cast<const uint64_t*>(record + 1), record->user_frames};
  out.user_stop = static_cast<StopReason>(record->user_stop);
  out.means = record->means;
  for (size_t i = 0; i < PYRO_WAIT_CAUSES; ++i) out.waited_ns[i] = uint64_t{record->waited_us[i]} * 1000;
  std::copy(std::begin(record->arguments), std::end(record->arguments), out.arguments.begin());
  out.descriptor = ToDescriptor(record->descriptor);
  out.second_descriptor = ToDescriptor(record->second_descriptor);
  return true;
}

StatusOr<std::unique_ptr<SyscallLatency>> SyscallLatency::Start(const Options& options) {
  if (options.max_user_frames > PYRO_MAX_USER_FRAMES) {
    return InvalidArgumentError(StrFormat("at most %d user frames can be taken", PYRO_MAX_USER_FRAMES));
  }
  if (options.hot_octaves != 0 && !HotOctaves::Possible(options.hot_octaves)) {
    return InvalidArgumentError("hot_octaves must be 0 or a power of two from 8");
  }
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  const uint32_t ring_bytes = RingBytes(options.ring_bytes);
  const auto load = [&](bool open_calls) {
    return LoadSkeleton<Skeleton>(
        kProbe, syscall_latency_bpf__open, syscall_latency_bpf__load, [&](syscall_latency_bpf& s) {
          s.rodata->pyro_exemplar_min_ns = options.exemplar_min_ns;
          s.rodata->pyro_max_user_frames = options.max_user_frames;
          s.rodata->pyro_wake_bytes = ring_bytes / 2;
          s.rodata->pyro_v1_controller = MountedV1Controller();
          s.rodata->pyro_split = options.split ? 1 : 0;
          FillDrawTables(s);
          std::copy(DescriptorByCall().begin(), DescriptorByCall().end(), s.rodata->pyro_call_descriptors);
          if (!options.split) bpf_map__set_max_entries(s.maps.pyro_syscall_waits, 1);
          bpf_map__set_max_entries(s.maps.pyro_syscall_octaves,
                                   std::max(options.max_octaves, 1u) + PYRO_LATENCY_OCTAVES);
          if (options.hot_octaves != 0) {
            s.rodata->pyro_hot_shift = HotOctaves::Shift(options.hot_octaves);
            bpf_map__set_max_entries(s.maps.pyro_hot_keys, options.hot_octaves / PYRO_HOT_WAYS);
            bpf_map__set_max_entries(s.maps.pyro_hot_octaves, options.hot_octaves);
          }
          bpf_map__set_max_entries(s.maps.pyro_exemplars, ring_bytes);
          bpf_program__set_autoload(s.progs.pyro_open_calls, open_calls);
          return ShareUnwindMaps(options.unwind.get(), PYRO_MAX_RAW_STACK_BYTES, s);
        });
  };
  StatusOr<Skeleton> skeleton = load(true);
  Status open_calls;
  if (skeleton.status().code() == StatusCode::kFailedPrecondition) {
    // A kernel that refuses the iterator still counts calls; whatever else is wrong shows again.
    open_calls = WithContext(skeleton.status(), "calls in flight are not seen");
    skeleton = load(false);
  }
  RETURN_IF_ERROR(skeleton.status());
  auto probe = std::make_unique<SyscallLatencyImpl>(options, *std::move(skeleton), std::move(open_calls), cpus);
  RETURN_IF_ERROR(probe->Begin());
  return std::unique_ptr<SyscallLatency>(std::move(probe));
}

}  // namespace pyrometer::kernel

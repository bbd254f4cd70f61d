#include "userspace/kernel/cpu_sampler.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

#include "bpf/abi/cpu_sample.h"
#include "bpf/cpu_sampler.skel.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/cpus.h"
#include "userspace/kernel/decode.h"
#include "userspace/kernel/features.h"
#include "userspace/kernel/unwind_maps.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

constexpr std::string_view kProbe = "cpu_sampler";
constexpr char kMaxRatePath[] = "/proc/sys/kernel/perf_event_max_sample_rate";

using Skeleton = UniqueSkeleton<cpu_sampler_bpf, cpu_sampler_bpf::destroy>;

perf_event_attr SamplingAttr(bool hardware, uint32_t frequency_hz) {
  perf_event_attr attr;
  std::memset(&attr, 0, sizeof(attr));
  attr.size = sizeof(attr);
  attr.type = hardware ? PERF_TYPE_HARDWARE : PERF_TYPE_SOFTWARE;
  attr.config =
      hardware ? static_cast<uint64_t>(PERF_COUNT_HW_CPU_CYCLES) : static_cast<uint64_t>(PERF_COUNT_SW_CPU_CLOCK);
  attr.freq = 1;
  attr.sample_freq = frequency_hz;
  attr.disabled = 1;
  return attr;
}

UniqueFd OpenPerfEvent(const perf_event_attr& attr, uint32_t cpu) {
  perf_event_attr copy = attr;
  return UniqueFd(
      static_cast<int>(syscall(SYS_perf_event_open, &copy, -1, static_cast<int>(cpu), -1, PERF_FLAG_FD_CLOEXEC)));
}

// A perf event with our program on it. The link owns the event's descriptor.
struct CpuEvent {
  int perf_fd = -1;
  UniqueBpfLink link;
};

// Parent of each process, from /proc/PID/stat: "pid (comm) state ppid …", where comm may hold anything.
std::multimap<uint32_t, uint32_t> ChildrenByParent() {
  std::multimap<uint32_t, uint32_t> children;
  UniqueDir proc(opendir("/proc"));
  if (!proc) return children;
  while (const dirent* entry = readdir(proc.get())) {
    const std::optional<uint64_t> pid = ParseUint64(entry->d_name);
    if (!pid) continue;
    const StatusOr<std::string> stat = ReadFile(StrFormat("/proc/%s/stat", entry->d_name), 4096);
    if (!stat.ok()) continue;  // ended meanwhile
    const size_t close = stat->rfind(')');
    if (close == std::string::npos || close + 4 >= stat->size()) continue;
    const std::string_view rest = std::string_view(*stat).substr(close + 4);
    if (const auto parent = ParseUint64(rest.substr(0, rest.find(' ')))) {
      children.emplace(static_cast<uint32_t>(*parent), static_cast<uint32_t>(*pid));
    }
  }
  return children;
}

class CpuSamplerImpl final : public CpuSampler {
 public:
  CpuSamplerImpl(Options options, Skeleton skeleton, bool deferring)
      : options_(std::move(options)), skeleton_(std::move(skeleton)), deferring_(deferring) {}

  Status Begin() {
    if (options_.target.kind == SampleTarget::Kind::kProcesses) {
      // Followers first, then the scan: a child made in between is found by one or the other.
      ASSIGN_OR_RETURN(fork_link_, AttachProgram(skeleton_->progs.pyro_follow_fork, kProbe));
      ASSIGN_OR_RETURN(exit_link_, AttachProgram(skeleton_->progs.pyro_follow_exit, kProbe));
      for (const uint32_t tgid : options_.target.tgids) RETURN_IF_ERROR(AddProcess(tgid));
    }
    if (options_.target.kind == SampleTarget::Kind::kCgroups) {
      RETURN_IF_ERROR(SetCgroups(options_.target.cgroup_ids, options_.target.cgroup_v1_ids));
    }
    ring_.Reset(ring_buffer__new(bpf_map__fd(skeleton_->maps.pyro_samples), OnRecord, this, nullptr));
    if (!ring_) return ErrnoError(errno, "cannot map the sample ring");
    RETURN_IF_ERROR(ChooseSource());
    RETURN_IF_ERROR(RefreshCpus());
    if (events_.empty()) return FailedPreconditionError("no CPU could be given a sampling event");
    return OkStatus();
  }

  Status Poll(std::chrono::milliseconds timeout, const Callback& callback) override {
    if (!stopped_ && std::chrono::steady_clock::now() >= next_refresh_) RETURN_IF_ERROR(RefreshCpus());
    callback_ = &callback;
    const int waited = ring_buffer__poll(ring_.get(), static_cast<int>(timeout.count()));
    // Records are written without a wake-up until the ring is a quarter full: poll alone may see nothing.
    const int consumed = ring_buffer__consume(ring_.get());
    callback_ = nullptr;
    if (waited < 0 && waited != -EINTR) return ErrnoError(-waited, "cannot wait for samples");
    if (consumed < 0 && consumed != -EINTR) return ErrnoError(-consumed, "cannot read samples");
    return OkStatus();
  }

  Status Stop() override {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (auto& [cpu, event] : events_) ioctl(event.perf_fd, PERF_EVENT_IOC_DISABLE, 0);
    events_.clear();
    fork_link_.Reset();
    exit_link_.Reset();
    return OkStatus();
  }

  Status AddProcess(uint32_t tgid) override {
    if (options_.target.kind != SampleTarget::Kind::kProcesses) {
      return FailedPreconditionError("this sampler's target is not a set of processes");
    }
    if (access(StrFormat("/proc/%d", tgid).c_str(), F_OK) != 0) {
      return NotFoundError(StrFormat("there is no process %d", tgid));
    }
    const std::multimap<uint32_t, uint32_t> children = ChildrenByParent();
    std::vector<uint32_t> open = {tgid};
    std::unordered_set<uint32_t> seen;
    const uint8_t one = 1;
    while (!open.empty()) {
      const uint32_t process = open.back();
      open.pop_back();
      if (!seen.insert(process).second) continue;
      if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_target_tgids), &process, &one, BPF_ANY) != 0) {
        return ErrnoError(errno, StrFormat("cannot add process %d to the target", process));
      }
      const auto [first, last] = children.equal_range(process);
      for (auto it = first; it != last; ++it) open.push_back(it->second);
    }
    return OkStatus();
  }

  Status SetCgroups(const std::vector<uint64_t>& cgroup_ids, const std::vector<uint64_t>& cgroup_v1_ids) override {
    if (options_.target.kind != SampleTarget::Kind::kCgroups) {
      return FailedPreconditionError("this sampler's target is not a set of cgroups");
    }
    const std::lock_guard lock(mutex_);
    std::set<std::pair<uint64_t, uint32_t>> wanted;
    for (const uint64_t id : cgroup_ids) wanted.emplace(id, 0);
    for (const uint64_t id : cgroup_v1_ids) wanted.emplace(id, 1);
    const int map = bpf_map__fd(skeleton_->maps.pyro_target_cgroups);
    for (const auto& [id, v1] : wanted) {
      if (cgroups_.contains({id, v1})) continue;
      const pyro_cgroup_key key = {.id = id, .v1 = v1, .pad = 0};
      const uint8_t one = 1;
      if (bpf_map_update_elem(map, &key, &one, BPF_ANY) != 0) {
        return ErrnoError(errno, StrFormat("cannot add cgroup %d to the target", id));
      }
      cgroups_.emplace(id, v1);
    }
    for (auto it = cgroups_.begin(); it != cgroups_.end();) {
      if (wanted.contains(*it)) {
        ++it;
        continue;
      }
      const pyro_cgroup_key key = {.id = it->first, .v1 = it->second, .pad = 0};
      bpf_map_delete_elem(map, &key);  // absent already: just as well
      it = cgroups_.erase(it);
    }
    return OkStatus();
  }

  SampleCounters Counters() const override {
    // Read and delivered first: a sample that arrives in between is then pending, never negative.
    SampleCounters out;
    out.delivered = delivered_.load(std::memory_order_relaxed);
    out.dropped_malformed = malformed_.load(std::memory_order_relaxed);
    const auto sum = SumPerCpu<pyro_cpu_counters>(skeleton_->maps.pyro_counters);
    out.taken = sum.taken;
    out.pending = sum.submitted + sum.deferred_submitted - out.delivered - out.dropped_malformed;
    out.dropped_ring_full = sum.dropped_ring_full + sum.deferred_dropped;
    out.dropped_scratch = sum.dropped_scratch;
    // Walks that wait for their tasks to go on; when sampling has ended nobody waits for them any more.
    const uint64_t waiting = sum.deferred - sum.deferred_submitted - sum.deferred_dropped;
    (stopped_ ? out.dropped_lost : out.pending) += waiting;
    out.deferred = sum.deferred;
    out.raw_copies = sum.raw_copies;
    out.raw_refused = sum.raw_refused;
    out.idle = sum.idle;
    out.filtered = sum.filtered;
    std::copy(std::begin(sum.kernel_stops), std::end(sum.kernel_stops), out.kernel_stops.begin());
    std::copy(std::begin(sum.user_stops), std::end(sum.user_stops), out.user_stops.begin());
    return out;
  }

  std::string_view source() const override { return hardware_ ? "cycles" : "cpu-clock"; }

  std::vector<uint32_t> cpus() const override {
    const std::lock_guard lock(mutex_);
    std::vector<uint32_t> out;
    for (const auto& [cpu, event] : events_) out.push_back(cpu);
    return out;
  }

 private:
  static int OnRecord(void* self, void* data, size_t size) {
    auto* sampler = static_cast<CpuSamplerImpl*>(self);
    CpuSample sample;
    if (!DecodeCpuSample(data, size, kNsPerSecond / sampler->options_.frequency_hz, sample)) {
      sampler->malformed_.fetch_add(1, std::memory_order_relaxed);
      return 0;
    }
    (*sampler->callback_)(sample);
    sampler->delivered_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }

  // Hardware cycles where the machine has a PMU that we may use; virtual machines often have none.
  Status ChooseSource() {
    ASSIGN_OR_RETURN(const std::vector<uint32_t> online, OnlineCpus());
    if (online.empty()) return FailedPreconditionError("the kernel reports no CPU online");
    hardware_ = !options_.force_software_clock &&
                static_cast<bool>(OpenPerfEvent(SamplingAttr(true, options_.frequency_hz), online.front()));
    return OkStatus();
  }

  Status RefreshCpus() {
    const std::lock_guard lock(mutex_);
    next_refresh_ = std::chrono::steady_clock::now() + std::chrono::seconds(kCpuRefreshSeconds);
    ASSIGN_OR_RETURN(const std::vector<uint32_t> online, OnlineCpus());
    // The event of a CPU that went away is dead, also after the CPU has come back.
    std::erase_if(events_,
                  [&](const auto& entry) { return !std::binary_search(online.begin(), online.end(), entry.first); });
    for (const uint32_t cpu : online) {
      if (events_.contains(cpu)) continue;
      UniqueFd fd = OpenPerfEvent(SamplingAttr(hardware_, options_.frequency_hz), cpu);
      if (!fd) {
        const int error = errno;
        if (error == ENODEV) continue;  // went offline since we looked
        return OpenError(error, cpu);
      }
      BpfLog log;
      const int perf_fd = fd.get();
      bpf_program* program = deferring_ ? skeleton_->progs.pyro_cpu_sample_deferring : skeleton_->progs.pyro_cpu_sample;
      UniqueBpfLink link(bpf_program__attach_perf_event(program, perf_fd));
      if (!link) return BpfError(errno, kProbe, StrFormat("attach to CPU %d", cpu), log);
      (void)fd.Release();  // the link closes it
      events_.emplace(cpu, CpuEvent{.perf_fd = perf_fd, .link = std::move(link)});
    }
    return OkStatus();
  }

  Status OpenError(int error, uint32_t cpu) const {
    if (error == EINVAL) {
      if (const uint32_t limit = MaxSampleRate(); limit < options_.frequency_hz) {
        return InvalidArgumentError(
            StrFormat("%d samples per second are more than this kernel allows (%d); ask for fewer, or raise "
                      "kernel.perf_event_max_sample_rate with sysctl",
                      options_.frequency_hz, limit));
      }
    }
    if (error == EACCES || error == EPERM) {
      const BpfLog log;
      return BpfError(error, kProbe, "open perf events for", log);
    }
    return ErrnoError(error, StrFormat("cannot open a sampling event on CPU %d", cpu));
  }

  const Options options_;
  // Order of destruction, last first: events, followers and ring go before the object whose maps they use.
  Skeleton skeleton_;
  UniqueRingBuffer ring_;
  UniqueBpfLink fork_link_, exit_link_;
  mutable std::mutex mutex_;             // guards events_, cgroups_, next_refresh_
  std::map<uint32_t, CpuEvent> events_;  // by CPU
  std::set<std::pair<uint64_t, uint32_t>> cgroups_;
  const bool deferring_;
  std::chrono::steady_clock::time_point next_refresh_;
  bool hardware_ = false;
  std::atomic<bool> stopped_ = false;
  const Callback* callback_ = nullptr;  // set during Poll
  std::atomic<uint64_t> delivered_ = 0;
  std::atomic<uint64_t> malformed_ = 0;
};

}  // namespace

uint32_t MaxSampleRate() {
  const StatusOr<std::string> text = ReadFile(kMaxRatePath);
  const std::optional<uint64_t> limit = text.ok() ? ParseUint64(StripWhitespace(*text)) : std::nullopt;
  return static_cast<uint32_t>(std::clamp<uint64_t>(limit.value_or(UINT32_MAX), 1, UINT32_MAX));
}

StatusOr<std::unique_ptr<CpuSampler>> CpuSampler::Start(const Options& options) {
  if (options.frequency_hz == 0) return InvalidArgumentError("a sampling frequency of 0 takes no samples");
  if (options.max_user_frames > PYRO_MAX_USER_FRAMES) {
    return InvalidArgumentError(StrFormat("at most %d user frames can be taken", PYRO_MAX_USER_FRAMES));
  }
  if (options.raw_stack_bytes > PYRO_MAX_RAW_STACK_BYTES || options.raw_stack_bytes % 8 != 0) {
    return InvalidArgumentError(
        StrFormat("the copy of a stack has at most %d bytes, a multiple of 8", PYRO_MAX_RAW_STACK_BYTES));
  }
  const uint32_t ring_bytes = RingBytes(options.ring_bytes);
  const auto load = [&](bool deferring) {
    return LoadSkeleton<Skeleton>(kProbe, cpu_sampler_bpf__open, cpu_sampler_bpf__load, [&](cpu_sampler_bpf& s) {
      s.rodata->pyro_filter = options.target.kind == SampleTarget::Kind::kAll         ? PYRO_FILTER_ALL
                              : options.target.kind == SampleTarget::Kind::kProcesses ? PYRO_FILTER_PROCESSES
                                                                                      : PYRO_FILTER_CGROUPS;
      s.rodata->pyro_max_user_frames = options.max_user_frames;
      s.rodata->pyro_kernel_stacks = options.kernel_stacks ? 1 : 0;
      s.rodata->pyro_wake_bytes = ring_bytes / 4;
      s.rodata->pyro_raw_ring_bytes = ring_bytes / 2;
      s.rodata->pyro_v1_controller = MountedV1Controller();
      bpf_map__set_max_entries(s.maps.pyro_samples, ring_bytes);
      const bool follow = options.target.kind == SampleTarget::Kind::kProcesses;
      if (!follow) bpf_map__set_max_entries(s.maps.pyro_target_tgids, 1);
      bpf_program__set_autoload(s.progs.pyro_follow_fork, follow);
      bpf_program__set_autoload(s.progs.pyro_follow_exit, follow);
      if (!deferring) bpf_map__set_max_entries(s.maps.pyro_deferred_samples, 1);
      bpf_program__set_autoload(s.progs.pyro_cpu_sample, !deferring);
      bpf_program__set_autoload(s.progs.pyro_cpu_sample_deferring, deferring);
      return ShareUnwindMaps(options.unwind.get(), options.raw_stack_bytes, s);
    });
  };
  bool deferring = HasTaskWork();
  StatusOr<Skeleton> skeleton = load(deferring);
  if (!skeleton.ok() && deferring) {
    // Its interface is young: a kernel with another form of it still samples.
    deferring = false;
    skeleton = load(false);
  }
  RETURN_IF_ERROR(skeleton.status());
  auto sampler = std::make_unique<CpuSamplerImpl>(options, *std::move(skeleton), deferring);
  RETURN_IF_ERROR(sampler->Begin());
  return std::unique_ptr<CpuSampler>(std::move(sampler));
}

}  // namespace pyrometer::kernel

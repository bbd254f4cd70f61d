#include "userspace/kernel/unprivileged_sampler.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/cpus.h"
#include "userspace/kernel/perf_ring.h"

namespace pyrometer::kernel {
namespace {

constexpr char kParanoidPath[] = "/proc/sys/kernel/perf_event_paranoid";
constexpr char kMaxStackPath[] = "/proc/sys/kernel/perf_event_max_stack";

// An event that asks for more than kernel.perf_event_max_stack (127 unless raised) is refused with EOVERFLOW
// (get_callchain_buffers() in kernel/events/callchain.c).
uint32_t StackLimit(uint32_t wanted) {
  const StatusOr<std::string> text = ReadFile(kMaxStackPath);
  const std::optional<int64_t> limit = text.ok() ? ParseInt64(StripWhitespace(*text)) : std::nullopt;
  return limit && *limit > 0 ? static_cast<uint32_t>(std::min<int64_t>(wanted, *limit)) : wanted;
}

// How much of the stack fits into each sample when a ring shall hold what comes in while nobody reads it.
uint32_t StackBytes(const UnprivilegedSampler::Options& options) {
  constexpr uint64_t kUnreadPerSecond = 10;  // 100 ms
  const uint64_t ring = uint64_t{options.ring_pages} * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t bytes = ring * kUnreadPerSecond / std::max(1u, options.frequency_hz);
  return static_cast<uint32_t>(std::clamp<uint64_t>(bytes, 2048, 32768) & ~uint64_t{7});
}

// Build IDs are asked for also because of a kernel bug (seen on 6.18): where two events get the same mapping, one with
// build IDs and one without, the latter's record carries PERF_RECORD_MISC_MMAP_BUILD_ID over the inode's bytes
// (perf_event_mmap_output() does not restore `misc`). A privileged agent beside us would make our records unreadable.
perf_event_attr SampleAttr(const UnprivilegedSampler::Options& options, bool kernel, bool build_ids) {
  perf_event_attr attr;
  std::memset(&attr, 0, sizeof(attr));
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.freq = 1;
  attr.sample_freq = options.frequency_hz;
  attr.sample_type = options.copy_stacks ? kPerfStackSampleType : kPerfSampleType;
  if (options.copy_stacks) {
    attr.sample_regs_user = kPerfUserRegisters;
    attr.sample_stack_user = StackBytes(options);
  }
  attr.sample_max_stack = static_cast<uint16_t>(options.max_user_frames);
  attr.sample_id_all = 1;
  attr.inherit = 1;  // children made from now on; works with a ring because each event has its own CPU
  attr.disabled = 1;
  attr.enable_on_exec = options.enable_on_exec ? 1 : 0;
  attr.mmap = 1;
  attr.mmap2 = 1;
  attr.build_id = build_ids ? 1 : 0;
  attr.comm = 1;
  attr.comm_exec = 1;
  attr.task = 1;
  attr.exclude_kernel = kernel ? 0 : 1;
  attr.exclude_hv = 1;
  attr.exclude_callchain_kernel = kernel ? 0 : 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  attr.watermark = 1;
  return attr;
}

Status Forbidden(int error) {
  const StatusOr<std::string> text = ReadFile(kParanoidPath);
  const auto level = text.ok() ? ParseInt64(StripWhitespace(*text)) : std::nullopt;
  if (level && *level > 2) {
    return PermissionDeniedError(
        StrFormat("kernel.perf_event_paranoid is %d, which forbids profiling without privileges; "
                  "`sudo sysctl kernel.perf_event_paranoid=2` allows one's own processes, or run as root",
                  *level));
  }
  if (error == ENOENT || error == ENOSYS) {
    return FailedPreconditionError("this kernel was built without perf events (CONFIG_PERF_EVENTS)");
  }
  return PermissionDeniedError(
      StrFormat("may not profile this process (kernel.perf_event_paranoid is %s): it belongs to another user, runs a "
                "set-user-ID program, or a security policy forbids perf events; run as root",
                level ? StrFormat("%d", *level) : "not readable"));
}

class UnprivilegedSamplerImpl final : public UnprivilegedSampler {
 public:
  explicit UnprivilegedSamplerImpl(const Options& options) : options_(options) {}

  Status Begin() {
    ASSIGN_OR_RETURN(const std::vector<uint32_t> online, OnlineCpus());
    for (const uint32_t cpu : online) {
      const Status status = OpenCpu(cpu);
      if (!status.ok()) return status;
    }
    if (rings_.empty()) return FailedPreconditionError("no CPU could be given a sampling event");
    ReadComm(static_cast<uint32_t>(options_.pid));
    if (!options_.enable_on_exec) {
      for (PerfRing& ring : rings_) RETURN_IF_ERROR(ring.Enable());
    }
    open_.assign(rings_.size(), true);
    return OkStatus();
  }

  Status Poll(std::chrono::milliseconds timeout, const SampleCallback& on_sample,
              const EventCallback& on_event) override {
    constexpr std::chrono::milliseconds kReorderWait(kReorderNs / kNsPerMs + 1);
    std::vector<pollfd> fds;
    for (size_t i = 0; i < rings_.size(); ++i) {
      // A negative descriptor is skipped by poll(2); rings whose process has ended would hang up for ever.
      fds.push_back({.fd = open_[i] ? rings_[i].fd() : -1, .events = POLLIN, .revents = 0});
    }
    const auto wait = waiting_.size() > 0 ? std::min(timeout, kReorderWait) : timeout;
    if (poll(fds.data(), fds.size(), static_cast<int>(wait.count())) < 0 && errno != EINTR) {
      return ErrnoError(errno, "cannot wait for samples");
    }
    const uint64_t now_ns = MonotonicNowNs();
    for (size_t i = 0; i < rings_.size(); ++i) {
      if (rings_[i].Read([this](const PerfRecord& record) { OnRecord(record); }) != 0) ++malformed_;
      if (fds[i].revents & POLLHUP) open_[i] = false;
    }
    waiting_.DeliverUntil(stopped_ ? UINT64_MAX : now_ns - kReorderNs, [&](Waiting&& waiting) {
      if (auto* sample = std::get_if<PerfSample>(&waiting)) {
        DeliverSample(*sample, on_sample);
      } else if (auto* renamed = std::get_if<PerfComm>(&waiting)) {
        Rename(*renamed, on_event);
      } else if (auto* ended = std::get_if<ThreadEnd>(&waiting)) {
        comms_.erase(ended->tid);
      } else {
        on_event(std::move(std::get<ProcessEvent>(waiting)));
      }
    });
    if (lost_ > lost_reported_) {
      on_event(LostEvents{.time_ns = now_ns, .count = lost_ - lost_reported_});
      lost_reported_ = lost_;
    }
    return OkStatus();
  }

  Status Stop() override {
    stopped_ = true;
    for (PerfRing& ring : rings_) RETURN_IF_ERROR(ring.Disable());
    return OkStatus();
  }

  SampleCounters Counters() const override {
    SampleCounters out;
    out.delivered = delivered_;
    out.pending = samples_waiting_;
    out.dropped_lost = lost_;
    out.dropped_malformed = malformed_;
    out.taken = out.delivered + out.pending + out.DroppedTotal();
    out.user_stops = user_stops_;
    out.kernel_stops = kernel_stops_;
    return out;
  }

  bool samples_kernel() const override { return kernel_; }

 private:
  struct ThreadEnd {
    uint32_t tid = 0;
  };
  using Waiting = std::variant<PerfSample, PerfComm, ThreadEnd, ProcessEvent>;

  Status OpenCpu(uint32_t cpu) {
    uint32_t pages = std::max(options_.ring_pages, 1u);
    while (true) {
      int error = 0;
      Options sized = options_;
      sized.ring_pages = pages;
      StatusOr<PerfRing> ring =
          PerfRing::Open(SampleAttr(sized, kernel_, build_ids_), options_.pid, static_cast<int>(cpu), pages, &error);
      if (ring.ok()) {
        rings_.push_back(*std::move(ring));
        return OkStatus();
      }
      if (error == ENODEV) return OkStatus();  // went offline since we looked
      if (error == EINVAL && build_ids_) {     // kernels before 5.12 refuse the flag, and then nobody can have set it
        build_ids_ = false;
        continue;
      }
      if ((error == EACCES || error == EPERM) && kernel_ && rings_.empty()) {
        kernel_ = false;
        continue;
      }
      if (error == EACCES || error == EPERM || error == ENOENT || error == ENOSYS) return Forbidden(error);
      if (error == ESRCH) return NotFoundError(StrFormat("there is no process %d", options_.pid));
      if (error != 0) return ring.status();
      // Opened, but the ring could not be locked in memory.
      if (pages == 1) return ring.status();
      pages /= 2;
    }
  }

  void OnRecord(const PerfRecord& record) {
    switch (record.type) {
      case PERF_RECORD_SAMPLE: {
        std::optional<PerfSample> sample = ParseSample(record, options_.copy_stacks);
        if (!sample) {
          ++malformed_;
          return;
        }
        ++samples_waiting_;
        const uint64_t time_ns = sample->time_ns;
        waiting_.Add(time_ns, *std::move(sample));
        return;
      }
      case PERF_RECORD_LOST:
      case PERF_RECORD_LOST_SAMPLES:
        lost_ += ParseLost(record).value_or(1);
        return;
      case PERF_RECORD_COMM: {
        std::optional<PerfComm> comm = ParseComm(record);
        if (!comm) {
          ++malformed_;
          return;
        }
        const uint64_t time_ns = comm->time_ns;
        waiting_.Add(time_ns, *std::move(comm));
        return;
      }
      case PERF_RECORD_FORK:
      case PERF_RECORD_EXIT: {
        const std::optional<PerfTask> task = ParseTask(record);
        if (!task) {
          ++malformed_;
          return;
        }
        if (record.type == PERF_RECORD_FORK) {
          // A child starts with its parent's name and tells nobody.
          waiting_.Add(task->time_ns, PerfComm{.tgid = task->tgid,
                                               .tid = task->tid,
                                               .time_ns = 0,
                                               .exec = false,
                                               .comm = std::string(CommOf(task->parent_tid))});
        } else {
          waiting_.Add(task->time_ns, ThreadEnd{.tid = task->tid});
        }
        if (task->tid != task->tgid) return;
        break;
      }
      case PERF_RECORD_MMAP2:
        break;
      default:
        return;  // throttling notes and the like
    }
    if (std::optional<ProcessEvent> event = ToProcessEvent(record)) {
      const uint64_t time_ns = TimeOf(*event);
      waiting_.Add(time_ns, *std::move(event));
    } else {
      ++malformed_;
    }
  }

  void DeliverSample(const PerfSample& in, const SampleCallback& on_sample) {
    CpuSample out;
    out.time_ns = in.time_ns;
    out.cpu = in.cpu;
    out.process.tgid = in.tgid;
    out.tid = in.tid;
    out.comm = CommOf(in.tid);
    out.process_comm = CommOf(in.tgid);
    out.kernel_frames = in.kernel_frames;
    out.user_frames = in.user_frames;
    if (in.registers) {
      out.raw_registers = &*in.registers;
      out.raw_stack = in.stack;
    }
    out.kernel_stop = in.kernel_frames.empty() ? PYRO_STOP_NOT_TAKEN : PYRO_STOP_END;
    out.user_stop = in.kernel_frames.size() + in.user_frames.size() >= options_.max_user_frames ? PYRO_STOP_TRUNCATED
                                                                                                : PYRO_STOP_END;
    out.period_ns = kNsPerSecond / options_.frequency_hz;
    ++user_stops_[out.user_stop];
    ++kernel_stops_[out.kernel_stop];
    --samples_waiting_;
    ++delivered_;
    on_sample(out);
  }

  void Rename(PerfComm& renamed, const EventCallback& on_event) {
    if (renamed.exec) {
      process::Exec exec;
      exec.key.tgid = renamed.tgid;
      exec.time_ns = renamed.time_ns;
      exec.image_start_ns = renamed.time_ns;
      exec.comm = renamed.comm;
      on_event(std::move(exec));
    } else if (renamed.tid == renamed.tgid && renamed.time_ns != 0) {
      process::Comm comm;
      comm.key.tgid = renamed.tgid;
      comm.time_ns = renamed.time_ns;
      comm.comm = renamed.comm;
      on_event(std::move(comm));
    }
    comms_[renamed.tid] = std::move(renamed.comm);
  }

  std::string_view CommOf(uint32_t tid) const {
    const auto found = comms_.find(tid);
    return found == comms_.end() ? std::string_view() : std::string_view(found->second);
  }

  void ReadComm(uint32_t pid) {
    const StatusOr<std::string> comm = ReadFile(StrFormat("/proc/%d/comm", pid), 64);
    if (comm.ok()) comms_[pid] = std::string(StripWhitespace(*comm));
  }

  const Options options_;
  std::vector<PerfRing> rings_;
  std::vector<bool> open_;  // false: its process has ended
  bool kernel_ = true;
  bool build_ids_ = true;  // false once the kernel has refused them
  bool stopped_ = false;
  ReorderBuffer<Waiting> waiting_;
  std::unordered_map<uint32_t, std::string> comms_;  // of living threads
  uint64_t samples_waiting_ = 0;
  uint64_t delivered_ = 0;
  uint64_t malformed_ = 0;
  uint64_t lost_ = 0;
  uint64_t lost_reported_ = 0;
  std::array<uint64_t, kStopReasons> user_stops_{};
  std::array<uint64_t, kStopReasons> kernel_stops_{};
};

}  // namespace

StatusOr<std::unique_ptr<UnprivilegedSampler>> UnprivilegedSampler::Start(const Options& options) {
  if (options.pid <= 0) return InvalidArgumentError("the unprivileged sampler needs a process to follow");
  if (options.frequency_hz == 0) return InvalidArgumentError("a sampling frequency of 0 takes no samples");
  if (options.max_user_frames == 0 || options.max_user_frames > PYRO_MAX_USER_FRAMES) {
    return InvalidArgumentError(StrFormat("the number of user frames must be 1 to %d", PYRO_MAX_USER_FRAMES));
  }
  Options allowed = options;
  allowed.max_user_frames = StackLimit(options.max_user_frames);
  auto sampler = std::make_unique<UnprivilegedSamplerImpl>(allowed);
  RETURN_IF_ERROR(sampler->Begin());
  return std::unique_ptr<UnprivilegedSampler>(std::move(sampler));
}

}  // namespace pyrometer::kernel

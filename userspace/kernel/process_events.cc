#include "userspace/kernel/process_events.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bpf/abi/process_event.h"
#include "bpf/process_events.skel.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/cpu_sampler.h"
#include "userspace/kernel/cpus.h"
#include "userspace/kernel/decode.h"
#include "userspace/kernel/perf_ring.h"
#include "userspace/kernel/unwind_maps.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

constexpr std::string_view kProbe = "process_events";

// Two threads that end at once may both report the end of their process: how many ends are remembered.
constexpr size_t kExitsRemembered = 64;

using Skeleton = UniqueSkeleton<process_events_bpf, process_events_bpf::destroy>;

class ProcessEventsImpl final : public ProcessEvents {
 public:
  ProcessEventsImpl(Options options, Skeleton skeleton) : options_(options), skeleton_(std::move(skeleton)) {}

  Status Begin() {
    RETURN_IF_ERROR(RefreshCpus());
    if (side_band_.empty()) return FailedPreconditionError("no CPU could be given a side-band event");
    if (skeleton_ == nullptr) return OkStatus();
    ring_.Reset(ring_buffer__new(bpf_map__fd(skeleton_->maps.pyro_events), OnRecord, this, nullptr));
    if (!ring_) return ErrnoError(errno, "cannot map the ring of process events");
    // Exit before fork before exec: nothing is born without its end being seen.
    ASSIGN_OR_RETURN(exit_link_, AttachProgram(skeleton_->progs.pyro_exit, kProbe));
    ASSIGN_OR_RETURN(fork_link_, AttachProgram(skeleton_->progs.pyro_fork, kProbe));
    ASSIGN_OR_RETURN(exec_link_, AttachProgram(skeleton_->progs.pyro_exec, kProbe));
    return OkStatus();
  }

  Status Poll(std::chrono::milliseconds timeout, const Callback& callback) override {
    if (!stopped_ && std::chrono::steady_clock::now() >= next_refresh_) RETURN_IF_ERROR(RefreshCpus());
    // What waits for its order must not wait for the next exec too.
    constexpr std::chrono::milliseconds kReorderWait(kReorderNs / kNsPerMs + 1);
    RETURN_IF_ERROR(Wait(reorder_.size() > 0 ? std::min(timeout, kReorderWait) : timeout));

    const uint64_t now_ns = MonotonicNowNs();
    RETURN_IF_ERROR(ReadRings());
    reorder_.DeliverUntil(stopped_ ? UINT64_MAX : now_ns - kReorderNs,
                          [&](Waiting&& waiting) { Deliver(std::move(waiting), callback); });
    if (const uint64_t lost = LostTotal(); lost > lost_reported_) {
      const LostEvents event{.time_ns = now_ns, .count = lost - lost_reported_};
      lost_reported_ = lost;
      callback(event);
    }
    return OkStatus();
  }

  Status Stop() override {
    exec_link_.Reset();
    fork_link_.Reset();
    exit_link_.Reset();
    stopped_ = true;
    for (auto& [cpu, ring] : side_band_) RETURN_IF_ERROR(ring.Disable());
    return OkStatus();
  }

  ProcessEventCounters Counters() const override {
    ProcessEventCounters out;
    out.delivered = delivered_;
    out.lost = LostTotal();
    out.malformed = malformed_;
    uint64_t unread = 0;
    if (skeleton_ != nullptr)
      unread = SumPerCpu<pyro_process_counters>(skeleton_->maps.pyro_counters).submitted - bpf_read_;
    out.pending = reorder_.size() + unread;
    // Side-band records still in their rings cannot be counted without reading them; they join when read.
    out.taken = out.delivered + out.pending + out.lost + out.malformed + dropped_duplicates_;
    out.duplicates = dropped_duplicates_;
    return out;
  }

 private:
  static int OnRecord(void* self, void* data, size_t size) {
    auto* events = static_cast<ProcessEventsImpl*>(self);
    ++events->bpf_read_;
    ProcessEvent event;
    if (!DecodeProcessEvent(data, size, event)) {
      ++events->malformed_;
      return 0;
    }
    const uint64_t time_ns = TimeOf(event);
    events->reorder_.Add(time_ns, Waiting{.event = std::move(event)});
    return 0;
  }

  // An event, or the moment at which an execve dropped the old image (which belongs to the Exec to come).
  struct Waiting {
    ProcessEvent event;
    bool image_start = false;
  };

  Status Wait(std::chrono::milliseconds timeout) {
    std::vector<pollfd> fds;
    if (ring_) fds.push_back({.fd = ring_buffer__epoll_fd(ring_.get()), .events = POLLIN, .revents = 0});
    for (const auto& [cpu, ring] : side_band_) fds.push_back({.fd = ring.fd(), .events = POLLIN, .revents = 0});
    if (poll(fds.data(), fds.size(), static_cast<int>(timeout.count())) < 0 && errno != EINTR) {
      return ErrnoError(errno, "cannot wait for process events");
    }
    return OkStatus();
  }

  Status ReadRings() {
    for (auto& [cpu, ring] : side_band_) {
      malformed_ += ring.Read([this](const PerfRecord& record) { OnSideBand(record); }) != 0 ? 1 : 0;
    }
    if (!ring_) return OkStatus();
    // After the side band: an exec is then never read without the mappings that were made before it.
    const int consumed = ring_buffer__consume(ring_.get());
    if (consumed < 0 && consumed != -EINTR) return ErrnoError(-consumed, "cannot read process events");
    return OkStatus();
  }

  void OnSideBand(const PerfRecord& record) {
    if (record.type == PERF_RECORD_LOST || record.type == PERF_RECORD_LOST_SAMPLES) {
      side_band_lost_ += ParseLost(record).value_or(1);
      return;
    }
    if (record.type != PERF_RECORD_MMAP2 && record.type != PERF_RECORD_COMM && record.type != PERF_RECORD_FORK &&
        record.type != PERF_RECORD_EXIT) {
      return;  // throttling notes and the like
    }
    if (record.type == PERF_RECORD_COMM) {
      const std::optional<PerfComm> comm = ParseComm(record);
      if (comm && comm->tgid != comm->tid && !comm->exec) return;  // a thread's name
    } else if (record.type == PERF_RECORD_FORK || record.type == PERF_RECORD_EXIT) {
      // perf sends these to every event with mmap or comm set; the tracepoints' records say more.
      if (skeleton_ != nullptr) return;
      const std::optional<PerfTask> task = ParseTask(record);
      if (task && task->tgid != task->tid) return;  // a thread
    }
    std::optional<ProcessEvent> event = ToProcessEvent(record);
    if (!event) {
      ++malformed_;
      return;
    }
    const uint64_t time_ns = TimeOf(*event);
    // With BPF the Exec proper is the tracepoint's, which knows start time, cgroup and file name.
    const bool image_start = skeleton_ != nullptr && std::holds_alternative<process::Exec>(*event);
    reorder_.Add(time_ns, Waiting{.event = *std::move(event), .image_start = image_start});
  }

  void Deliver(Waiting&& waiting, const Callback& callback) {
    if (auto* exec = std::get_if<process::Exec>(&waiting.event); exec != nullptr && skeleton_ != nullptr) {
      if (waiting.image_start) {
        image_starts_[exec->key.tgid] = exec->time_ns;
        callback(process::ImageStart{.key = exec->key, .time_ns = exec->time_ns});
        ++delivered_;
        return;
      }
      if (const auto found = image_starts_.find(exec->key.tgid); found != image_starts_.end()) {
        exec->image_start_ns = found->second;
        image_starts_.erase(found);
      }
    } else if (const auto* exit = std::get_if<process::Exit>(&waiting.event)) {
      image_starts_.erase(exit->key.tgid);
      if (skeleton_ != nullptr) {
        if (std::find(exits_.begin(), exits_.end(), exit->key) != exits_.end()) {
          ++dropped_duplicates_;
          return;
        }
        exits_[next_exit_++ % exits_.size()] = exit->key;
      }
    }
    callback(std::move(waiting.event));
    ++delivered_;
  }

  Status RefreshCpus() {
    next_refresh_ = std::chrono::steady_clock::now() + std::chrono::seconds(kCpuRefreshSeconds);
    ASSIGN_OR_RETURN(const std::vector<uint32_t> online, OnlineCpus());
    for (auto it = side_band_.begin(); it != side_band_.end();) {
      if (std::binary_search(online.begin(), online.end(), it->first)) {
        ++it;
        continue;
      }
      malformed_ += it->second.Read([this](const PerfRecord& record) { OnSideBand(record); }) != 0 ? 1 : 0;
      it = side_band_.erase(it);
    }
    for (const uint32_t cpu : online) {
      if (side_band_.contains(cpu)) continue;
      int error = 0;
      StatusOr<PerfRing> ring = PerfRing::Open(SideBandAttr(build_ids_.value_or(options_.build_ids)), -1,
                                               static_cast<int>(cpu), options_.side_band_pages, &error);
      if (!ring.ok() && error == EINVAL && !build_ids_ && options_.build_ids) {
        build_ids_ = false;  // kernels before 5.12 refuse the flag
        ring = PerfRing::Open(SideBandAttr(false), -1, static_cast<int>(cpu), options_.side_band_pages, &error);
      }
      if (!ring.ok()) {
        if (error == ENODEV) continue;  // went offline since we looked
        if (error == EACCES || error == EPERM) {
          const BpfLog log;
          return BpfError(error, kProbe, "open perf events for", log);
        }
        return ring.status();
      }
      side_band_.emplace(cpu, *std::move(ring));
    }
    return OkStatus();
  }

  uint64_t LostTotal() const {
    uint64_t lost = side_band_lost_;
    if (skeleton_ != nullptr) lost += SumPerCpu<pyro_process_counters>(skeleton_->maps.pyro_counters).dropped_ring_full;
    return lost;
  }

  const Options options_;
  Skeleton skeleton_;  // null: side band only
  UniqueRingBuffer ring_;
  UniqueBpfLink exec_link_, fork_link_, exit_link_;
  std::map<uint32_t, PerfRing> side_band_;  // by CPU
  std::optional<bool> build_ids_;           // set once the kernel has refused them
  std::chrono::steady_clock::time_point next_refresh_;
  ReorderBuffer<Waiting> reorder_;
  std::unordered_map<uint32_t, uint64_t> image_starts_;  // tgid -> when its old image was dropped
  std::array<ProcessKey, kExitsRemembered> exits_{};
  size_t next_exit_ = 0;
  bool stopped_ = false;
  uint64_t bpf_read_ = 0;
  uint64_t delivered_ = 0;
  uint64_t malformed_ = 0;
  uint64_t dropped_duplicates_ = 0;
  uint64_t side_band_lost_ = 0;
  uint64_t lost_reported_ = 0;
};

}  // namespace

uint64_t TimeOf(const ProcessEvent& event) {
  return std::visit([](const auto& e) { return e.time_ns; }, event);
}

bool DecodeProcessEvent(const void* data, size_t size, ProcessEvent& out) {
  constexpr size_t kHead = offsetof(pyro_process_event, path);
  if (size < kHead) return false;
  const auto* record = static_cast<const pyro_process_event*>(data);
  if (record->path_bytes > PYRO_PATH_BYTES || size < kHead + record->path_bytes) return false;
  const ProcessKey key = {.tgid = record->tgid, .start_time_ns = record->start_time_ns};
  switch (record->kind) {
    case PYRO_PROCESS_EXEC: {
      process::Exec exec;
      exec.key = key;
      exec.time_ns = record->time_ns;
      exec.comm = CommView(record->comm);
      exec.filename.assign(record->path, record->path_bytes > 0 ? record->path_bytes - 1 : 0);
      exec.cgroup_id = record->owner.cgroup_id;
      out = std::move(exec);
      return true;
    }
    case PYRO_PROCESS_FORK:
      out = process::Fork{.parent = {.tgid = record->parent_tgid, .start_time_ns = record->parent_start_time_ns},
                          .child = key,
                          .time_ns = record->time_ns};
      return true;
    case PYRO_PROCESS_EXIT:
      out = process::Exit{.key = key, .time_ns = record->time_ns};
      return true;
    default:
      return false;
  }
}

StatusOr<std::unique_ptr<ProcessEvents>> ProcessEvents::Start(const Options& options) {
  Skeleton skeleton;
  if (!options.only_side_band) {
    const uint32_t ring_bytes = RingBytes(options.ring_bytes);
    ASSIGN_OR_RETURN(
        skeleton,
        LoadSkeleton<Skeleton>(kProbe, process_events_bpf__open, process_events_bpf__load, [&](process_events_bpf& s) {
          s.rodata->pyro_wake_bytes = ring_bytes / 2;
          s.rodata->pyro_v1_controller = MountedV1Controller();
          bpf_map__set_max_entries(s.maps.pyro_events, ring_bytes);
          return options.unwind == nullptr ? OkStatus()
                                           : options.unwind->Install(s.maps.pyro_unwind_processes, nullptr, nullptr);
        }));
  }
  auto events = std::make_unique<ProcessEventsImpl>(options, std::move(skeleton));
  RETURN_IF_ERROR(events->Begin());
  return std::unique_ptr<ProcessEvents>(std::move(events));
}

}  // namespace pyrometer::kernel

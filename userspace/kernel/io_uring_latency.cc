#include "userspace/kernel/io_uring_latency.h"

#include <bpf/btf.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <map>
#include <unordered_map>
#include <utility>

#include "bpf/abi/io_uring_latency.h"
#include "bpf/io_uring_latency.skel.h"
#include "bpf/lib/histogram.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/octave_reader.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

constexpr std::string_view kProbe = "io_uring_latency";

// By number (linux/io_uring.h); numbers never change meaning.
constexpr std::string_view kOperations[] = {
    "nop",
    "readv",
    "writev",
    "fsync",
    "read_fixed",
    "write_fixed",
    "poll_add",
    "poll_remove",
    "sync_range",
    "sendmsg",
    "recvmsg",
    "timeout",
    "timeout_remove",
    "accept",
    "async_cancel",
    "link_timeout",
    "connect",
    "fallocate",
    "openat",
    "close",
    "files_update",
    "statx",
    "read",
    "write",
    "fadvise",
    "madvise",
    "send",
    "recv",
    "openat2",
    "epoll_ctl",
    "splice",
    "provide_buffers",
    "remove_buffers",
    "tee",
    "shutdown",
    "renameat",
    "unlinkat",
    "mkdirat",
    "symlinkat",
    "linkat",
    "msg_ring",
    "fsetxattr",
    "setxattr",
    "fgetxattr",
    "getxattr",
    "socket",
    "uring_cmd",
    "send_zc",
    "sendmsg_zc",
    "read_multishot",
    "waitid",
    "futex_wait",
    "futex_wake",
    "futex_waitv",
    "fixed_fd_install",
    "ftruncate",
    "bind",
    "listen",
    "recv_zc",
    "epoll_wait",
    "readv_fixed",
    "writev_fixed",
    "pipe",
};

using Skeleton = UniqueSkeleton<io_uring_latency_bpf, io_uring_latency_bpf::destroy>;

// Which of the tracepoints' forms this kernel has.
struct Tracepoints {
  bool any = false;
  bool submit_req = false;       // (request)
  bool submit_sqe = false;       // (request, force_nonblock)
  bool complete = false;         // (ring, request, completion)
  bool complete_values = false;  // (ring, request, user data, result, flags, …)
  bool refused = false;
  bool overflow = false;
};

Tracepoints FindTracepoints() {
  const std::vector<int> arguments =
      TracepointArguments({"io_uring_submit_req", "io_uring_submit_sqe", "io_uring_complete", "io_uring_req_failed",
                           "io_uring_cqe_overflow"});
  return {.any = arguments[2] > 0,
          .submit_req = arguments[0] == 1,
          .submit_sqe = arguments[0] != 1 && arguments[1] == 2,
          .complete = arguments[2] == 3,
          .complete_values = arguments[2] >= 5,
          .refused = arguments[3] == 3,
          .overflow = arguments[4] == 5};
}

// Why these do not do.
Status Check(const Tracepoints& found) {
  if (!found.any) return FailedPreconditionError("this kernel has no tracepoints of io_uring");
  if ((!found.submit_req && !found.submit_sqe) || (!found.complete && !found.complete_values)) {
    return FailedPreconditionError(
        "the tracepoints of io_uring do not tell requests apart in this kernel (6.0 is needed)");
  }
  return OkStatus();
}

// The sum of 1 << value over those of `names` that this kernel's types have as values of some enum.
uint64_t FlagsByName(std::initializer_list<std::string_view> names) {
  BpfLog quiet;
  btf* kernel = btf__load_vmlinux_btf();
  if (kernel == nullptr) return 0;
  uint64_t flags = 0;
  for (uint32_t id = 1; id < btf__type_cnt(kernel); ++id) {
    const btf_type* type = btf__type_by_id(kernel, id);
    if (!btf_is_enum(type)) continue;
    const struct btf_enum* value = btf_enum(type);
    for (int i = 0; i < btf_vlen(type); ++i, ++value) {
      const std::string_view name = btf__name_by_offset(kernel, value->name_off);
      if (value->val < 0 || value->val > 63 || std::find(names.begin(), names.end(), name) == names.end()) continue;
      flags |= uint64_t{1} << value->val;
    }
  }
  btf__free(kernel);
  return flags;
}

IoUringKey ToKey(const pyro_io_uring_key& key) {
  return {.cgroup_id = key.owner.cgroup_id,
          .cgroup_v1_id = key.owner.cgroup_v1_id,
          .opcode = key.opcode,
          .folded = (key.flags & PYRO_IO_URING_FOLDED) != 0};
}

class IoUringLatencyImpl final : public IoUringLatency {
 public:
  IoUringLatencyImpl(Options options, Skeleton skeleton, size_t cpus)
      : options_(options),
        skeleton_(std::move(skeleton)),
        cpus_(cpus),
        octaves_(bpf_map__fd(skeleton_->maps.pyro_io_uring_octaves), cpus, options.idle_windows_before_eviction),
        errors_(bpf_map__fd(skeleton_->maps.pyro_io_uring_errors), cpus, options.idle_windows_before_eviction) {}

  Status Begin() {
    const std::vector<pyro_octave> zero(cpus_);
    for (uint32_t octave = 0; octave < PYRO_LATENCY_OCTAVES; ++octave) {
      const pyro_io_uring_octave_key key = {
          .operation = {.owner = {}, .opcode = 0, .flags = PYRO_IO_URING_FOLDED}, .octave = octave, .pad = 0};
      if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_io_uring_octaves), &key, zero.data(), BPF_ANY) != 0) {
        return ErrnoError(errno, "cannot prepare the histograms of io_uring's operations");
      }
    }
    // Ends first: what is attached last is what makes entries.
    for (const bpf_program* program :
         {skeleton_->progs.pyro_complete, skeleton_->progs.pyro_complete_values, skeleton_->progs.pyro_overflow,
          skeleton_->progs.pyro_refused, skeleton_->progs.pyro_submit_req, skeleton_->progs.pyro_submit_sqe}) {
      if (bpf_program__fd(program) < 0) continue;
      ASSIGN_OR_RETURN(UniqueBpfLink link, AttachProgram(program, kProbe));
      links_.push_back(std::move(link));
    }
    return OkStatus();
  }

  Status Drain(const std::function<void(const IoUringWindow&)>& callback) override {
    const uint32_t closing = skeleton_->data->pyro_epoch;
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_epoch).store(closing + 1, std::memory_order_relaxed);
    std::map<IoUringKey, IoUringWindow> windows;
    const auto window_of = [&](const pyro_io_uring_key& key) -> IoUringWindow& {
      IoUringWindow& window = windows[ToKey(key)];
      window.key = ToKey(key);
      return window;
    };
    std::map<IoUringKey, std::map<uint32_t, OctaveDelta>> octaves;
    RETURN_IF_ERROR(octaves_.Read(
        closing,
        [&](const pyro_io_uring_octave_key& key, const OctaveDelta& delta) {
          window_of(key.operation);
          octaves[ToKey(key.operation)].emplace(key.octave, delta);
        },
        [](const pyro_io_uring_octave_key& key) { return (key.operation.flags & PYRO_IO_URING_FOLDED) == 0; }));
    // A failure counted between the two reads is of an operation of the next window.
    RETURN_IF_ERROR(errors_.Read([&](const pyro_io_uring_error_key& key, uint64_t count) {
      window_of(key.operation).errors.push_back({.error = static_cast<int32_t>(key.error), .count = count});
    }));
    RETURN_IF_ERROR(ForgetEnded());
    for (auto& [key, window] : windows) {
      for (const auto& [octave, delta] : octaves[key]) AppendOctave(octave, delta, window.latency);
      std::sort(window.errors.begin(), window.errors.end(),
                [](const auto& a, const auto& b) { return a.error < b.error; });
      callback(window);
    }
    return OkStatus();
  }

  Status ReadOpen(const std::function<void(const IoUringKey&, uint64_t)>& callback) override {
    const uint64_t now = MonotonicNowNs();
    return ForEachRequest([&](uint64_t, const pyro_io_uring_request& request) {
      callback(ToKey(request.operation), now > request.begin_ns ? now - request.begin_ns : 0);
    });
  }

  Status Stop() override {
    while (!links_.empty()) links_.pop_back();  // submissions first
    return OkStatus();
  }

  IoUringCounters Counters() const override {
    const auto sum = SumPerCpu<pyro_io_uring_counters>(skeleton_->maps.pyro_counters);
    return {.submitted = sum.submitted,
            .ended = sum.ended,
            .silent = sum.silent,
            .untracked = sum.untracked,
            .unseen = sum.unseen + forgotten_.load(std::memory_order_relaxed),
            .further = sum.further,
            .recorded = sum.recorded,
            .folded = sum.folded,
            .lost = sum.lost,
            .no_submission = sum.no_submission,
            .further_unmatched = sum.further_unmatched,
            .errors_lost = sum.errors_lost};
  }

 private:
  // Requests come and go meanwhile: one may be left out, none is made up.
  Status ForEachRequest(const std::function<void(uint64_t, const pyro_io_uring_request&)>& visit) {
    const int map = bpf_map__fd(skeleton_->maps.pyro_io_uring_requests);
    std::vector<uint64_t> addresses(256);
    std::vector<pyro_io_uring_request> requests(addresses.size());
    uint32_t position = 0, next = 0;
    for (bool first = true;;) {
      auto count = static_cast<uint32_t>(addresses.size());
      const int result = bpf_map_lookup_batch(map, first ? nullptr : &position, &next, addresses.data(),
                                              requests.data(), &count, nullptr);
      const int error = result == 0 ? 0 : errno;
      if (error == ENOSPC && addresses.size() < (1u << 20)) {
        addresses.resize(addresses.size() * 2);
        requests.resize(addresses.size());
        continue;
      }
      if (error != 0 && error != ENOENT) return ErrnoError(error, "cannot read io_uring's requests in flight");
      for (uint32_t i = 0; i < count; ++i) visit(addresses[i], requests[i]);
      if (error == ENOENT) return OkStatus();
      position = next;
      first = false;
    }
  }

  // What is left of processes that are gone: the kernel cancels their requests, so that an entry that outlives one by a
  // window has no end to wait for.
  Status ForgetEnded() {
    std::map<uint64_t, uint64_t> orphans;  // address -> begin
    RETURN_IF_ERROR(ForEachRequest([&](uint64_t address, const pyro_io_uring_request& request) {
      if (kill(static_cast<pid_t>(request.tgid), 0) == 0 || errno != ESRCH) return;
      const auto known = orphans_.find(address);
      if (known == orphans_.end() || known->second != request.begin_ns) {
        orphans.emplace(address, request.begin_ns);
        return;
      }
      if (request.multishot != 0) {
        const pyro_io_uring_multishot_key key = {.ring = request.ring, .user_data = request.user_data};
        bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.pyro_io_uring_multishots), &key);
      }
      if (bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.pyro_io_uring_requests), &address) == 0) {
        forgotten_.fetch_add(1, std::memory_order_relaxed);
      }
    }));
    orphans_ = std::move(orphans);
    return OkStatus();
  }

  const Options options_;
  Skeleton skeleton_;
  const size_t cpus_;
  OctaveReader<pyro_io_uring_octave_key> octaves_;
  CountReader<pyro_io_uring_error_key> errors_;
  std::map<uint64_t, uint64_t> orphans_;  // of the last Drain
  std::vector<UniqueBpfLink> links_;
  std::atomic<uint64_t> forgotten_ = 0;
};

}  // namespace

std::string IoUringOperationName(const IoUringKey& key) {
  if (key.folded) return "io_uring:other";
  if (key.opcode < std::size(kOperations)) return StrFormat("io_uring:%s", kOperations[key.opcode]);
  return StrFormat("io_uring:op_%d", key.opcode);
}

Status IoUringLatency::Supported() { return Check(FindTracepoints()); }

StatusOr<std::unique_ptr<IoUringLatency>> IoUringLatency::Start(const Options& options) {
  const Tracepoints found = FindTracepoints();
  RETURN_IF_ERROR(Check(found));
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  ASSIGN_OR_RETURN(
      Skeleton skeleton,
      LoadSkeleton<Skeleton>(
          kProbe, io_uring_latency_bpf__open, io_uring_latency_bpf__load, [&](io_uring_latency_bpf& s) {
            s.rodata->pyro_v1_controller = MountedV1Controller();
            s.rodata->pyro_multishot_flags = FlagsByName({"REQ_F_APOLL_MULTISHOT_BIT", "REQ_F_MULTISHOT_BIT"});
            s.rodata->pyro_overflow_repeats = found.complete_values ? 1 : 0;
            const uint32_t requests = std::max(options.max_requests, 1u);
            bpf_map__set_max_entries(s.maps.pyro_io_uring_requests, requests);
            bpf_map__set_max_entries(s.maps.pyro_io_uring_multishots, requests);
            bpf_map__set_max_entries(s.maps.pyro_io_uring_octaves,
                                     std::max(options.max_octaves, 1u) + PYRO_LATENCY_OCTAVES);
            bpf_program__set_autoload(s.progs.pyro_submit_req, found.submit_req);
            bpf_program__set_autoload(s.progs.pyro_submit_sqe, found.submit_sqe);
            bpf_program__set_autoload(s.progs.pyro_complete, found.complete);
            bpf_program__set_autoload(s.progs.pyro_complete_values, found.complete_values);
            bpf_program__set_autoload(s.progs.pyro_refused, found.refused);
            bpf_program__set_autoload(s.progs.pyro_overflow, found.overflow);
            return OkStatus();
          }));
  auto probe = std::make_unique<IoUringLatencyImpl>(options, std::move(skeleton), cpus);
  RETURN_IF_ERROR(probe->Begin());
  return std::unique_ptr<IoUringLatency>(std::move(probe));
}

}  // namespace pyrometer::kernel

#include "userspace/kernel/tcp_latency.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "bpf/abi/tcp_latency.h"
#include "bpf/lib/histogram.h"
#include "bpf/tcp_latency.skel.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/owned.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/bpf_loader.h"
#include "userspace/kernel/octave_reader.h"
#include "userspace/kernel/v1_controller.h"

namespace pyrometer::kernel {
namespace {

constexpr std::string_view kProbe = "tcp_latency";
constexpr uint64_t kFoldFlowId = 1;

// Between passes over the sockets when nothing received for kPollLinger.
constexpr std::chrono::milliseconds kIdlePoll{100};
constexpr std::chrono::seconds kPollLinger{1};
// A pass takes at most this part of the time, but for the longest pause: 100,000 sockets that receive take some 60 ms
// each second.
constexpr int kPollShare = 100;
constexpr std::chrono::seconds kLongestPause{1};
// Over which kAuto counts packets before it chooses.
constexpr std::chrono::milliseconds kRatePeriod{1000};

using Skeleton = UniqueSkeleton<tcp_latency_bpf, tcp_latency_bpf::destroy>;

TcpKey ToTcpKey(const pyro_tcp_key& key) {
  TcpKey out;
  out.direction = static_cast<TcpDirection>(key.direction);
  if (out.direction == TcpDirection::kOther) {
    out.family = 0;
    return out;
  }
  out.cgroup_id = key.owner.cgroup_id;
  out.cgroup_v1_id = key.owner.cgroup_v1_id;
  out.family = key.family;
  std::copy(std::begin(key.peer), std::end(key.peer), out.peer.begin());
  out.peer_port = key.peer_port;
  out.local_port = key.local_port;
  return out;
}

// The initial network namespace's range; other namespaces have their own, mostly the same.
std::optional<std::pair<uint16_t, uint16_t>> EphemeralPorts() {
  const StatusOr<std::string> text = ReadFile("/proc/sys/net/ipv4/ip_local_port_range");
  if (!text.ok()) return std::nullopt;
  const std::string_view stripped = StripWhitespace(*text);
  const size_t gap = stripped.find_first_of(" \t");
  if (gap == std::string_view::npos) return std::nullopt;
  const auto low = ParseUint64(stripped.substr(0, gap));
  const auto high = ParseUint64(StripWhitespace(stripped.substr(gap)));
  if (!low || !high || *low > 65535 || *high > 65535) return std::nullopt;
  return std::pair(static_cast<uint16_t>(*low), static_cast<uint16_t>(*high));
}

// Length of a kernel tick. The coarse clock moves by ticks, and says so.
uint64_t TickNs() {
  timespec resolution;
  if (clock_getres(CLOCK_MONOTONIC_COARSE, &resolution) != 0) return 0;
  return static_cast<uint64_t>(resolution.tv_sec) * kNsPerSecond + static_cast<uint64_t>(resolution.tv_nsec);
}

uint64_t ThreadCpuNs() {
  timespec used;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0) return 0;
  return static_cast<uint64_t>(used.tv_sec) * kNsPerSecond + static_cast<uint64_t>(used.tv_nsec);
}

static_assert(kRetransmitCauses == PYRO_TCP_RETRANSMIT_CAUSES && kTcpLimits == PYRO_TCP_LIMITS);

class TcpLatencyImpl final : public TcpLatency {
  using Clock = std::chrono::steady_clock;
  using nanoseconds = std::chrono::nanoseconds;

 public:
  // `source`: what `skeleton` was loaded for. `source_status`: why not for kAuto, if that was wanted.
  TcpLatencyImpl(Options options, TcpSource source, Status source_status, Skeleton skeleton, size_t cpus)
      : options_(options),
        mode_(source),
        source_(source == TcpSource::kAuto ? TcpSource::kTcpProbe : source),
        source_status_(std::move(source_status)),
        skeleton_(std::move(skeleton)),
        octaves_(bpf_map__fd(skeleton_->maps.pyro_tcp_octaves), cpus, options.idle_windows_before_eviction),
        cpus_(cpus),
        tick_ns_(TickNs()) {}
  ~TcpLatencyImpl() override { EndPolling(); }

  // `scan`: why the iterator is not there, if it is not.
  Status Begin(Status scan) {
    pyro_tcp_key fold{};
    fold.direction = PYRO_TCP_OTHER;
    pyro_tcp_flow flow{};
    flow.id = kFoldFlowId;
    if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_tcp_flows), &fold, &flow, BPF_ANY) != 0) {
      return ErrnoError(errno, "cannot prepare the table of TCP flows");
    }
    const std::vector<pyro_octave> zero(cpus_);
    for (uint32_t histogram = 0; histogram < PYRO_TCP_HISTOGRAMS; ++histogram) {
      for (uint32_t octave = 0; octave < PYRO_LATENCY_OCTAVES; ++octave) {
        const pyro_tcp_octave_key key = {.flow_id = kFoldFlowId, .histogram = histogram, .octave = octave};
        if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.pyro_tcp_octaves), &key, zero.data(), BPF_ANY) != 0) {
          return ErrnoError(errno, "cannot prepare the histograms of TCP flows");
        }
      }
    }
    // State changes first: a connection made between the two is then known before its first packet. Older ones before
    // packets: what the scan takes in is counted once.
    for (const bpf_program* program : {skeleton_->progs.pyro_tcp_state, skeleton_->progs.pyro_tcp_retransmit,
                                       skeleton_->progs.pyro_tcp_retransmit_synack,
                                       skeleton_->progs.pyro_tcp_send_reset, skeleton_->progs.pyro_tcp_receive_reset}) {
      ASSIGN_OR_RETURN(UniqueBpfLink link, AttachProgram(program, kProbe));
      links_.push_back(std::move(link));
    }
    scan_ = std::move(scan);
    if (scan_.ok()) {
      StatusOr<UniqueBpfLink> link = AttachProgram(skeleton_->progs.pyro_tcp_scan, kProbe);
      if (link.ok()) {
        scan_link_ = *std::move(link);
        scan_ = Scan(PYRO_TCP_SCAN_LISTENERS);
        if (scan_.ok()) scan_ = Scan(PYRO_TCP_SCAN_CONNECTIONS);
      } else {
        scan_ = link.status();
      }
    }
    if (mode_ != TcpSource::kPoll) {
      ASSIGN_OR_RETURN(probe_link_, AttachProgram(skeleton_->progs.pyro_tcp_probe, kProbe));
    }
    if (mode_ == TcpSource::kTcpProbe) return OkStatus();
    RETURN_IF_ERROR(scan_);
    ASSIGN_OR_RETURN(poll_link_, AttachPoll());
    RETURN_IF_ERROR(Poll(PYRO_TCP_POLL_ALL));
    poller_ = std::thread([this] { KeepLooking(); });
    return OkStatus();
  }

  Status Drain(const std::function<void(const TcpWindow&)>& callback) override {
    // What connections carried since their last packet that recorded anything.
    if (scan_link_ && scan_.ok()) scan_ = Scan(PYRO_TCP_SCAN_CONNECTIONS);
    if (poll_link_) {
      const std::lock_guard lock(poll_mutex_);
      RETURN_IF_ERROR(std::exchange(poll_status_, OkStatus()));
      RETURN_IF_ERROR(Poll(PYRO_TCP_POLL_ALL));
    }
    const uint32_t closing = skeleton_->data->pyro_epoch;
    std::atomic_ref<uint32_t>(skeleton_->data->pyro_epoch).store(closing + 1, std::memory_order_relaxed);

    // Histograms before flows: a flow's entry is made before its octaves, so each octave read finds its flow.
    using Octaves = std::map<std::pair<uint32_t, uint32_t>, OctaveDelta>;  // by (histogram, octave)
    std::unordered_map<uint64_t, Octaves> octaves;                         // by flow id
    RETURN_IF_ERROR(octaves_.Read(
        closing,
        [&](const pyro_tcp_octave_key& key, const OctaveDelta& delta) {
          octaves[key.flow_id].emplace(std::pair(key.histogram, key.octave), delta);
        },
        [](const pyro_tcp_octave_key& key) { return key.flow_id != kFoldFlowId; }));

    std::vector<pyro_tcp_key> idle;
    RETURN_IF_ERROR(ForEachFlow([&](const pyro_tcp_key& key, const pyro_tcp_flow& flow) {
      Seen& seen = flows_[key];
      TcpWindow window;
      window.key = ToTcpKey(key);
      bool changed = Advance(seen, flow, window);
      if (const auto found = octaves.find(flow.id); found != octaves.end()) {
        for (const auto& [place, delta] : found->second) {
          LatencyHistogram& histogram = place.first == PYRO_TCP_SRTT      ? window.srtt
                                        : place.first == PYRO_TCP_MIN_RTT ? window.min_rtt
                                        : place.first == PYRO_TCP_RTT_VAR ? window.rtt_variation
                                                                          : window.connect;
          AppendOctave(place.second, delta, histogram);
        }
        changed = true;
      }
      if (changed) {
        seen.idle = 0;
        callback(window);
      } else if (++seen.idle > options_.idle_windows_before_eviction && flow.id != kFoldFlowId) {
        // One window later than its octaves, so that these never outlive it.
        idle.push_back(key);
      }
    }));
    for (const pyro_tcp_key& key : idle) RETURN_IF_ERROR(Evict(key, callback));
    return OkStatus();
  }

  Status Stop() override {
    EndPolling();
    // What open connections did until now.
    const Status polled = poll_link_ ? Poll(PYRO_TCP_POLL_ALL) : OkStatus();
    poll_link_.Reset();
    probe_link_.Reset();
    links_.clear();
    scan_link_.Reset();
    return polled;
  }

  TcpCounters Counters() const override {
    const auto sum = SumPerCpu<pyro_tcp_counters>(skeleton_->maps.pyro_counters);
    return {.packets = sum.packets,
            .samples = sum.samples,
            .folded = sum.folded,
            .lost = sum.lost,
            .storage_lost = sum.storage_lost,
            .found = sum.found,
            .polls = polls_.load(std::memory_order_relaxed),
            .poll_cpu_ns = poll_cpu_ns_.load(std::memory_order_relaxed)};
  }

  Status ScanStatus() const override { return scan_; }
  TcpSource Source() const override { return source_.load(std::memory_order_relaxed); }
  Status SourceStatus() const override { return source_status_; }

 private:
  struct Seen {
    pyro_tcp_flow flow{};
    uint32_t idle = 0;
  };

  StatusOr<UniqueBpfLink> AttachPoll() {
    bpf_iter_link_info info{};
    info.map.map_fd = static_cast<uint32_t>(bpf_map__fd(skeleton_->maps.pyro_tcp_sockets));
    LIBBPF_OPTS(bpf_iter_attach_opts, options);
    options.link_info = &info;
    options.link_info_len = sizeof(info);
    BpfLog log;
    bpf_link* link = bpf_program__attach_iter(skeleton_->progs.pyro_tcp_poll, &options);
    if (link == nullptr) return BpfError(errno, kProbe, "attach the iterator over sockets of", log);
    return UniqueBpfLink(link);
  }

  // Runs an iterator to its end.
  static Status Iterate(const UniqueBpfLink& link, const char* failure) {
    const UniqueFd run(bpf_iter_create(bpf_link__fd(link.get())));
    if (!run) return ErrnoError(errno, failure);
    while (true) {
      char nothing[64];  // they write no output; a read ends when everything was visited
      const ssize_t n = read(run.get(), nothing, sizeof(nothing));
      if (n == 0) return OkStatus();
      if (n < 0 && errno != EINTR && errno != EAGAIN) return ErrnoError(errno, failure);
    }
  }

  Status Scan(pyro_tcp_scan pass) {
    std::atomic_ref<uint32_t>(skeleton_->bss->pyro_scan_pass).store(pass, std::memory_order_relaxed);
    return Iterate(scan_link_, "cannot look through the open files for connections");
  }

  // One at a time: under poll_mutex_ while the thread runs.
  Status Poll(pyro_tcp_poll pass) {
    std::atomic_ref<uint32_t>(skeleton_->bss->pyro_poll_pass).store(pass, std::memory_order_relaxed);
    const uint64_t before = ThreadCpuNs();
    Status status = Iterate(poll_link_, "cannot look through the TCP sockets");
    poll_cpu_ns_.fetch_add(ThreadCpuNs() - before, std::memory_order_relaxed);
    polls_.fetch_add(1, std::memory_order_relaxed);
    return status;
  }

  // The thread's body.
  void KeepLooking() {
    pthread_setname_np(pthread_self(), "pyro-tcp");
    // Not in step with what happens at regular intervals.
    std::minstd_rand random(static_cast<uint32_t>(getpid()));
    std::uniform_real_distribution<double> jitter(0.75, 1.25);
    const nanoseconds interval = std::chrono::milliseconds(std::max(options_.poll_interval_ms, 1u));
    Clock::time_point rated = Clock::now(), active = rated;
    uint64_t rated_packets = Counters().packets;
    std::unique_lock lock(poll_mutex_);
    while (!ending_) {
      nanoseconds pause = kRatePeriod;
      if (Source() == TcpSource::kPoll) {
        const nanoseconds took = PollActive(active);
        pause = Clock::now() - active < kPollLinger ? interval : std::max<nanoseconds>(kIdlePoll, interval);
        pause = std::min<nanoseconds>(std::max(pause, took * kPollShare), kLongestPause);
      }
      if (const Clock::time_point now = Clock::now(); mode_ == TcpSource::kAuto && now - rated >= kRatePeriod) {
        const uint64_t packets = Counters().packets;
        const double seconds = std::chrono::duration<double>(now - rated).count();
        ChooseSource(static_cast<double>(packets - rated_packets) / seconds, now);
        rated = now;
        rated_packets = packets;
        if (Source() == TcpSource::kPoll) pause = std::min(pause, interval);
      }
      poll_wake_.wait_for(lock, std::chrono::duration_cast<nanoseconds>(pause * jitter(random)),
                          [&] { return ending_; });
    }
  }

  // What the pass took. `active` becomes now if any socket reported something.
  nanoseconds PollActive(Clock::time_point& active) {
    const std::atomic_ref<uint32_t> polled(skeleton_->bss->pyro_polled);
    const uint32_t before = polled.load(std::memory_order_relaxed);
    const uint64_t cpu = ThreadCpuNs();
    Status status = Poll(PYRO_TCP_POLL_ACTIVE);
    if (!status.ok() && poll_status_.ok()) poll_status_ = std::move(status);
    if (polled.load(std::memory_order_relaxed) != before) active = Clock::now();
    return nanoseconds(ThreadCpuNs() - cpu);
  }

  // By what either source would cost. Changing over patches the kernel's code on all CPUs: not often.
  void ChooseSource(double packets_per_second, Clock::time_point now) {
    if (packets_per_second >= 0.4 * options_.busy_packets) busy_ = now;
    if (Source() == TcpSource::kTcpProbe) {
      if (packets_per_second < options_.busy_packets) return;
      probe_link_.Reset();
      source_ = TcpSource::kPoll;
    } else if (now - busy_ >= std::chrono::milliseconds(options_.calm_ms)) {
      busy_ = now;  // also after a failure: not again at once
      StatusOr<UniqueBpfLink> link = AttachProgram(skeleton_->progs.pyro_tcp_probe, kProbe);
      if (link.ok()) {
        probe_link_ = *std::move(link);
        source_ = TcpSource::kTcpProbe;
      } else if (poll_status_.ok()) {
        poll_status_ = link.status();
      }
    }
  }

  void EndPolling() {
    if (!poller_.joinable()) return;
    {
      const std::lock_guard lock(poll_mutex_);
      ending_ = true;
    }
    poll_wake_.notify_one();
    poller_.join();
  }

  // The growth of the flow's counters since `seen`; false when there is none.
  bool Advance(Seen& seen, const pyro_tcp_flow& now, TcpWindow& window) const {
    const pyro_tcp_flow& before = seen.flow;
    uint64_t any = 0;
    const auto growth = [&any](uint64_t from, uint64_t to) {
      any |= to - from;
      return to - from;
    };
    window.bytes_sent = growth(before.bytes_sent, now.bytes_sent);
    window.bytes_received = growth(before.bytes_received, now.bytes_received);
    window.opened = growth(before.opened, now.opened);
    window.found = growth(before.found, now.found);
    window.closed = growth(before.closed, now.closed);
    window.failed = growth(before.failed, now.failed);
    for (size_t i = 0; i < kRetransmitCauses; ++i) {
      window.retransmits[i] = growth(before.retransmits[i], now.retransmits[i]);
    }
    window.resets_sent = growth(before.resets[PYRO_TCP_SENT], now.resets[PYRO_TCP_SENT]);
    window.resets_received = growth(before.resets[PYRO_TCP_RECEIVED], now.resets[PYRO_TCP_RECEIVED]);
    window.zero_windows_sent = growth(before.zero_windows[PYRO_TCP_SENT], now.zero_windows[PYRO_TCP_SENT]);
    window.zero_windows_received = growth(before.zero_windows[PYRO_TCP_RECEIVED], now.zero_windows[PYRO_TCP_RECEIVED]);
    for (size_t i = 0; i < kTcpLimits; ++i) {
      window.limited_ns[i] = growth(before.limited_ticks[i], now.limited_ticks[i]) * tick_ns_;
    }
    seen.flow = now;
    return any != 0;
  }

  template <typename Visit>
  Status ForEachFlow(Visit visit) {
    // Keys first: the callback may take its time, and deleting while iterating would restart the iteration.
    const int map = bpf_map__fd(skeleton_->maps.pyro_tcp_flows);
    std::vector<pyro_tcp_key> keys;
    std::unordered_set<pyro_tcp_key, BytesHash, BytesEqual> seen_keys;
    pyro_tcp_key key;
    const pyro_tcp_key* previous = nullptr;
    // An insertion by the probe does not restart the iteration; the bound is against a bug in that belief.
    for (uint32_t i = 0; i < 4 * (options_.max_flows + 1); ++i) {
      pyro_tcp_key next;
      if (bpf_map_get_next_key(map, previous, &next) != 0) {
        if (errno != ENOENT) return ErrnoError(errno, "cannot read the table of TCP flows");
        break;
      }
      key = next;
      previous = &key;
      if (seen_keys.insert(key).second) keys.push_back(key);
    }
    for (const pyro_tcp_key& k : keys) {
      pyro_tcp_flow flow;
      if (bpf_map_lookup_elem(map, &k, &flow) == 0) visit(k, flow);
    }
    return OkStatus();
  }

  Status Evict(const pyro_tcp_key& key, const std::function<void(const TcpWindow&)>& callback) {
    pyro_tcp_flow last;
    const int map = bpf_map__fd(skeleton_->maps.pyro_tcp_flows);
    if (bpf_map_lookup_and_delete_elem(map, &key, &last) != 0) {
      if (errno == ENOENT) return OkStatus();
      return ErrnoError(errno, "cannot delete an idle TCP flow");
    }
    TcpWindow window;
    window.key = ToTcpKey(key);
    if (Advance(flows_[key], last, window)) callback(window);
    flows_.erase(key);
    return OkStatus();
  }

  const Options options_;
  const TcpSource mode_;  // the sources that skeleton_ has
  std::atomic<TcpSource> source_;
  const Status source_status_;
  Skeleton skeleton_;
  OctaveReader<pyro_tcp_octave_key> octaves_;
  const size_t cpus_;
  const uint64_t tick_ns_;
  std::unordered_map<pyro_tcp_key, Seen, BytesHash, BytesEqual> flows_;
  Status scan_;
  UniqueBpfLink scan_link_, poll_link_, probe_link_;
  std::vector<UniqueBpfLink> links_;
  std::atomic<uint64_t> polls_ = 0, poll_cpu_ns_ = 0;
  std::mutex poll_mutex_;     // for the passes, and:
  Status poll_status_;        // the first failure in the thread, until a Drain tells it
  Clock::time_point busy_{};  // last time that there was more traffic than kTcpProbe is for
  bool ending_ = false;
  std::condition_variable poll_wake_;
  std::thread poller_;
};

}  // namespace

std::string PeerAddress(const TcpKey& key) {
  if (key.direction == TcpDirection::kOther) return "other";
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(key.family == 6 ? AF_INET6 : AF_INET, key.peer.data(), text, sizeof(text)) == nullptr) return "other";
  return text;
}

std::string_view RetransmitCauseName(RetransmitCause cause) {
  switch (cause) {
    case RetransmitCause::kRto:
      return "rto";
    case RetransmitCause::kFast:
      return "fast";
    case RetransmitCause::kTailLossProbe:
      return "tlp";
    case RetransmitCause::kHandshake:
      return "handshake";
    case RetransmitCause::kOther:
      return "other";
  }
  return "other";
}

std::string_view TcpLimitName(TcpLimit limit) {
  switch (limit) {
    case TcpLimit::kApplication:
      return "application";
    case TcpLimit::kNetwork:
      return "network";
    case TcpLimit::kReceiver:
      return "receiver";
    case TcpLimit::kSendBuffer:
      return "send buffer";
  }
  return "application";
}

std::string_view TcpSourceName(TcpSource source) {
  switch (source) {
    case TcpSource::kAuto:
      return "auto";
    case TcpSource::kPoll:
      return "poll";
    case TcpSource::kTcpProbe:
      return "tcp_probe";
  }
  return "auto";
}

StatusOr<std::unique_ptr<TcpLatency>> TcpLatency::Start(const Options& options) {
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  const auto load = [&](TcpSource source, bool scan) {
    return LoadSkeleton<Skeleton>(kProbe, tcp_latency_bpf__open, tcp_latency_bpf__load, [&](tcp_latency_bpf& s) {
      s.rodata->pyro_min_interval_us = options.min_interval_us;
      s.rodata->pyro_v1_controller = MountedV1Controller();
      if (const auto ports = EphemeralPorts()) {
        s.rodata->pyro_ephemeral_low = ports->first;
        s.rodata->pyro_ephemeral_high = ports->second;
      }
      bpf_map__set_max_entries(s.maps.pyro_tcp_flows, options.max_flows + 1);
      bpf_map__set_max_entries(s.maps.pyro_tcp_octaves,
                               std::max(options.max_octaves, 1u) + PYRO_TCP_HISTOGRAMS * PYRO_LATENCY_OCTAVES);
      bpf_program__set_autoload(s.progs.pyro_tcp_scan, scan);
      bpf_program__set_autoload(s.progs.pyro_tcp_poll, source != TcpSource::kTcpProbe);
      bpf_program__set_autoload(s.progs.pyro_tcp_probe, source != TcpSource::kPoll);
      return OkStatus();
    });
  };
  using Result = StatusOr<std::unique_ptr<TcpLatency>>;
  const auto start = [&](TcpSource source, Status source_status) -> Result {
    // Without polling, the iterator over files is the one program that may be missing; the rest is of use without it.
    Status scan = OkStatus();
    StatusOr<Skeleton> skeleton = load(source, true);
    if (!skeleton.ok() && source == TcpSource::kTcpProbe) {
      scan = skeleton.status();
      skeleton = load(source, false);
    }
    if (!skeleton.ok()) return skeleton.status();
    auto probe =
        std::make_unique<TcpLatencyImpl>(options, source, std::move(source_status), *std::move(skeleton), cpus);
    RETURN_IF_ERROR(probe->Begin(std::move(scan)));
    return std::unique_ptr<TcpLatency>(std::move(probe));
  };
  if (options.source != TcpSource::kAuto) return start(options.source, OkStatus());
  Result both = start(TcpSource::kAuto, OkStatus());
  if (both.ok()) return both;
  for (const TcpSource source : {TcpSource::kTcpProbe, TcpSource::kPoll}) {
    Result one = start(source, both.status());
    if (one.ok()) return one;
  }
  return both;
}

}  // namespace pyrometer::kernel

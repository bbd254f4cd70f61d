#include "userspace/kernel/tcp_latency.h"

#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
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

static_assert(kRetransmitCauses == PYRO_TCP_RETRANSMIT_CAUSES && kTcpLimits == PYRO_TCP_LIMITS);

class TcpLatencyImpl final : public TcpLatency {
 public:
  TcpLatencyImpl(Options options, Skeleton skeleton, size_t cpus)
      : options_(options),
        skeleton_(std::move(skeleton)),
        octaves_(bpf_map__fd(skeleton_->maps.pyro_tcp_octaves), cpus, options.idle_windows_before_eviction),
        cpus_(cpus),
        tick_ns_(TickNs()) {}

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
    ASSIGN_OR_RETURN(UniqueBpfLink link, AttachProgram(skeleton_->progs.pyro_tcp_probe, kProbe));
    links_.push_back(std::move(link));
    return OkStatus();
  }

  Status Drain(const std::function<void(const TcpWindow&)>& callback) override {
    // What connections carried since their last packet that recorded anything.
    if (scan_link_ && scan_.ok()) scan_ = Scan(PYRO_TCP_SCAN_CONNECTIONS);
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
    links_.clear();
    scan_link_.Reset();
    return OkStatus();
  }

  TcpCounters Counters() const override {
    const auto sum = SumPerCpu<pyro_tcp_counters>(skeleton_->maps.pyro_counters);
    return {.packets = sum.packets,
            .samples = sum.samples,
            .folded = sum.folded,
            .lost = sum.lost,
            .storage_lost = sum.storage_lost,
            .found = sum.found};
  }

  Status ScanStatus() const override { return scan_; }

 private:
  struct Seen {
    pyro_tcp_flow flow{};
    uint32_t idle = 0;
  };

  // Runs the iterator over all open files to its end.
  Status Scan(pyro_tcp_scan pass) {
    std::atomic_ref<uint32_t>(skeleton_->bss->pyro_scan_pass).store(pass, std::memory_order_relaxed);
    const UniqueFd run(bpf_iter_create(bpf_link__fd(scan_link_.get())));
    if (!run) return ErrnoError(errno, "cannot look through the open files for connections");
    while (true) {
      char nothing[64];  // it writes no output; a read ends when all files were visited
      const ssize_t n = read(run.get(), nothing, sizeof(nothing));
      if (n == 0) return OkStatus();
      if (n < 0 && errno != EINTR && errno != EAGAIN) {
        return ErrnoError(errno, "cannot look through the open files for connections");
      }
    }
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
  Skeleton skeleton_;
  OctaveReader<pyro_tcp_octave_key> octaves_;
  const size_t cpus_;
  const uint64_t tick_ns_;
  std::unordered_map<pyro_tcp_key, Seen, BytesHash, BytesEqual> flows_;
  Status scan_;
  UniqueBpfLink scan_link_;
  std::vector<UniqueBpfLink> links_;
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

StatusOr<std::unique_ptr<TcpLatency>> TcpLatency::Start(const Options& options) {
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  const auto load = [&](bool scan) {
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
      return OkStatus();
    });
  };
  // The iterator is the one program that older kernels or fewer rights may refuse; the rest is of use without it.
  Status scan = OkStatus();
  StatusOr<Skeleton> skeleton = load(true);
  if (!skeleton.ok()) {
    scan = skeleton.status();
    skeleton = load(false);
    if (!skeleton.ok()) return skeleton.status();
  }
  auto probe = std::make_unique<TcpLatencyImpl>(options, *std::move(skeleton), cpus);
  RETURN_IF_ERROR(probe->Begin(std::move(scan)));
  return std::unique_ptr<TcpLatency>(std::move(probe));
}

}  // namespace pyrometer::kernel

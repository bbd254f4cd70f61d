#include "userspace/kernel/tcp_latency.h"

#include <arpa/inet.h>

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
#include "userspace/base/file.h"
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

class TcpLatencyImpl final : public TcpLatency {
 public:
  TcpLatencyImpl(Options options, Skeleton skeleton, size_t cpus)
      : options_(options),
        skeleton_(std::move(skeleton)),
        octaves_(bpf_map__fd(skeleton_->maps.pyro_tcp_octaves), cpus, options.idle_windows_before_eviction),
        cpus_(cpus) {}

  Status Begin() {
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
    // State changes first: a connection made between the two is then known before its first packet.
    ASSIGN_OR_RETURN(state_link_, AttachProgram(skeleton_->progs.pyro_tcp_state, kProbe));
    ASSIGN_OR_RETURN(retransmit_link_, AttachProgram(skeleton_->progs.pyro_tcp_retransmit, kProbe));
    ASSIGN_OR_RETURN(probe_link_, AttachProgram(skeleton_->progs.pyro_tcp_probe, kProbe));
    return OkStatus();
  }

  Status Drain(const std::function<void(const TcpWindow&)>& callback) override {
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
    probe_link_.Reset();
    retransmit_link_.Reset();
    state_link_.Reset();
    return OkStatus();
  }

  TcpCounters Counters() const override {
    const auto sum = SumPerCpu<pyro_tcp_counters>(skeleton_->maps.pyro_counters);
    return {.packets = sum.packets,
            .samples = sum.samples,
            .folded = sum.folded,
            .lost = sum.lost,
            .storage_lost = sum.storage_lost};
  }

 private:
  struct Seen {
    pyro_tcp_flow flow{};
    uint32_t idle = 0;
  };

  // The growth of the flow's counters since `seen`; false when there is none.
  static bool Advance(Seen& seen, const pyro_tcp_flow& now, TcpWindow& window) {
    const pyro_tcp_flow& before = seen.flow;
    window.bytes_sent = now.bytes_sent - before.bytes_sent;
    window.bytes_received = now.bytes_received - before.bytes_received;
    window.retransmits = now.segments_retransmitted - before.segments_retransmitted;
    window.opened = now.opened - before.opened;
    window.closed = now.closed - before.closed;
    window.failed = now.failed - before.failed;
    seen.flow = now;
    return (window.bytes_sent | window.bytes_received | window.retransmits | window.opened | window.closed |
            window.failed) != 0;
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
  std::unordered_map<pyro_tcp_key, Seen, BytesHash, BytesEqual> flows_;
  UniqueBpfLink state_link_, retransmit_link_, probe_link_;
};

}  // namespace

std::string PeerAddress(const TcpKey& key) {
  if (key.direction == TcpDirection::kOther) return "other";
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(key.family == 6 ? AF_INET6 : AF_INET, key.peer.data(), text, sizeof(text)) == nullptr) return "other";
  return text;
}

StatusOr<std::unique_ptr<TcpLatency>> TcpLatency::Start(const Options& options) {
  ASSIGN_OR_RETURN(const size_t cpus, PossibleCpus());
  ASSIGN_OR_RETURN(
      Skeleton skeleton,
      LoadSkeleton<Skeleton>(kProbe, tcp_latency_bpf__open, tcp_latency_bpf__load, [&](tcp_latency_bpf& s) {
        s.rodata->pyro_min_interval_us = options.min_interval_us;
        s.rodata->pyro_v1_controller = MountedV1Controller();
        if (const auto ports = EphemeralPorts()) {
          s.rodata->pyro_ephemeral_low = ports->first;
          s.rodata->pyro_ephemeral_high = ports->second;
        }
        bpf_map__set_max_entries(s.maps.pyro_tcp_flows, options.max_flows + 1);
        bpf_map__set_max_entries(s.maps.pyro_tcp_octaves,
                                 std::max(options.max_octaves, 1u) + PYRO_TCP_HISTOGRAMS * PYRO_LATENCY_OCTAVES);
        return OkStatus();
      }));
  auto probe = std::make_unique<TcpLatencyImpl>(options, std::move(skeleton), cpus);
  RETURN_IF_ERROR(probe->Begin());
  return std::unique_ptr<TcpLatency>(std::move(probe));
}

}  // namespace pyrometer::kernel

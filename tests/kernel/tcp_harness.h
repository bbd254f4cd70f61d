// What the tests of the TCP probe share: a wire of a known delay and loss, processes at its ends in cgroups of their
// own, and the sums of what the probe reports.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bpf/lib/histogram.h"
#include "tests/kernel/harness.h"
#include "userspace/base/file.h"
#include "userspace/kernel/tcp_latency.h"

namespace pyrometer::kernel {

// Sum of a flow's windows.
struct Flow {
  std::map<uint32_t, uint64_t> srtt;
  uint64_t srtt_count = 0, srtt_sum = 0, min_rtt_low = UINT64_MAX, connects = 0, connect_sum = 0, variations = 0;
  std::array<uint64_t, kRetransmitCauses> causes{};
  uint64_t retransmits = 0, bytes_sent = 0, bytes_received = 0, opened = 0, found = 0, closed = 0, failed = 0;
  uint64_t resets_sent = 0, resets_received = 0, zero_windows_sent = 0, zero_windows_received = 0;
  std::array<uint64_t, kTcpLimits> limited_ns{};

  void Add(const TcpWindow& w) {
    for (const auto& b : w.srtt.buckets) srtt[b.index] += b.count;
    srtt_count += w.srtt.count;
    srtt_sum += w.srtt.sum_ns;
    if (!w.min_rtt.empty()) min_rtt_low = std::min<uint64_t>(min_rtt_low, pyro_bucket_low(w.min_rtt.buckets[0].index));
    connects += w.connect.count;
    connect_sum += w.connect.sum_ns;
    variations += w.rtt_variation.count;
    for (size_t i = 0; i < kRetransmitCauses; ++i) causes[i] += w.retransmits[i];
    retransmits += w.RetransmitTotal();
    bytes_sent += w.bytes_sent;
    bytes_received += w.bytes_received;
    opened += w.opened;
    found += w.found;
    closed += w.closed;
    failed += w.failed;
    resets_sent += w.resets_sent;
    resets_received += w.resets_received;
    zero_windows_sent += w.zero_windows_sent;
    zero_windows_received += w.zero_windows_received;
    for (size_t i = 0; i < kTcpLimits; ++i) limited_ns[i] += w.limited_ns[i];
  }
  uint64_t Cause(RetransmitCause cause) const { return causes[static_cast<size_t>(cause)]; }
  uint64_t Limit(TcpLimit limit) const { return limited_ns[static_cast<size_t>(limit)]; }
  double MeanMs() const {
    return srtt_count == 0 ? 0 : static_cast<double>(srtt_sum) / static_cast<double>(srtt_count) / 1e6;
  }
};
using Flows = std::map<TcpKey, Flow>;

// The only flow of that cgroup and direction.
inline const Flow* Find(const Flows& flows, uint64_t cgroup, TcpDirection direction, TcpKey* key = nullptr) {
  const Flow* found = nullptr;
  for (const auto& [k, flow] : flows) {
    if (k.cgroup_id != cgroup || k.direction != direction) continue;
    EXPECT_EQ(found, nullptr) << "two flows where one was expected";
    found = &flow;
    if (key != nullptr) *key = k;
  }
  return found;
}

// The wire, for the scope. Arguments of tests/support/tun_relay.cc.
class Wire {
 public:
  explicit Wire(std::vector<std::string> arguments) : relay_(Prepend(std::move(arguments))) {
    relay_.Go();
    const std::string line = relay_.ReadLine();
    char a[64], b[64];
    if (std::sscanf(line.c_str(), "ready %63s %63s", a, b) == 2) {
      a_ = a;
      b_ = b;
    }
  }
  ~Wire() {
    relay_.CloseInput();
    relay_.Wait();
  }
  const std::string& a() const { return a_; }
  const std::string& b() const { return b_; }

 private:
  static std::vector<std::string> Prepend(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), PYROMETER_TUN_RELAY);
    return arguments;
  }
  ::pyrometer::testing::Child relay_;
  std::string a_, b_;
};

// Runs the calling thread in a network namespace; children inherit it.
class InNamespace {
 public:
  explicit InNamespace(const std::string& path) : home_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    const UniqueFd there(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ok_ = there && setns(there.get(), CLONE_NEWNET) == 0;
  }
  ~InNamespace() { EXPECT_EQ(setns(home_.get(), CLONE_NEWNET), 0); }
  bool ok() const { return ok_; }

 private:
  UniqueFd home_;
  bool ok_ = false;
};

inline std::unique_ptr<::pyrometer::testing::Child> StartIn(const std::string& network,
                                                            const ::pyrometer::testing::TestCgroup& cgroup,
                                                            std::vector<std::string> arguments) {
  std::optional<InNamespace> inside;
  if (!network.empty()) inside.emplace(network);
  auto child = std::make_unique<::pyrometer::testing::Child>(std::move(arguments));
  EXPECT_TRUE(cgroup.Add(child->pid()));
  child->Go();
  return child;
}

// Of a server that prints "ready PORT".
inline int PortOf(::pyrometer::testing::Child& server) {
  int port = 0;
  const std::string line = server.ReadLine();
  EXPECT_EQ(std::sscanf(line.c_str(), "ready %d", &port), 1) << line;
  return port;
}

inline void PrintTo(TcpSource source, std::ostream* out) { *out << TcpSourceName(source); }

inline void DrainInto(TcpLatency& probe, Flows& flows) {
  ASSERT_TRUE(probe.Drain([&](const TcpWindow& w) { flows[w.key].Add(w); }).ok());
}

// Each test runs with both of the probe's sources: what it says must not depend on which.
class TcpProbeTest : public ::testing::TestWithParam<TcpSource> {
 protected:
  void SetUp() override {
    if (GetParam() != TcpSource::kTcpProbe) SKIP_UNLESS("socket_iterator");
    if (GetParam() != TcpSource::kPoll) SKIP_UNLESS("tcp_probe");
    SKIP_UNLESS("sk_storage");
  }
  static StatusOr<std::unique_ptr<TcpLatency>> StartProbe(TcpLatency::Options options = {}) {
    options.source = GetParam();
    return TcpLatency::Start(options);
  }
  ::pyrometer::testing::TestCgroup client_group_{"client"}, server_group_{"server"};
};

#define INSTANTIATE_FOR_BOTH_SOURCES(suite)                                                          \
  INSTANTIATE_TEST_SUITE_P(Source, suite, ::testing::Values(TcpSource::kPoll, TcpSource::kTcpProbe), \
                           [](const auto& source) { return std::string(TcpSourceName(source.param)); })

}  // namespace pyrometer::kernel

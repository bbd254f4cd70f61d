// TCP latency over a wire of a known delay, between cgroups of our own.
#include "userspace/kernel/tcp_latency.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <optional>
#include <thread>

#include "bpf/lib/histogram.h"
#include "tests/kernel/harness.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::TestCgroup;
using ::pyrometer::testing::Workload;

// Sum of a flow's windows.
struct Flow {
  std::map<uint32_t, uint64_t> srtt;
  uint64_t srtt_count = 0, srtt_sum = 0, min_rtt_low = UINT64_MAX, connects = 0, connect_sum = 0;
  uint64_t retransmits = 0, bytes_sent = 0, bytes_received = 0, opened = 0, closed = 0, failed = 0;

  void Add(const TcpWindow& w) {
    for (const auto& b : w.srtt.buckets) srtt[b.index] += b.count;
    srtt_count += w.srtt.count;
    srtt_sum += w.srtt.sum_ns;
    if (!w.min_rtt.empty()) min_rtt_low = std::min<uint64_t>(min_rtt_low, pyro_bucket_low(w.min_rtt.buckets[0].index));
    connects += w.connect.count;
    connect_sum += w.connect.sum_ns;
    retransmits += w.retransmits;
    bytes_sent += w.bytes_sent;
    bytes_received += w.bytes_received;
    opened += w.opened;
    closed += w.closed;
    failed += w.failed;
  }
  double MeanMs() const {
    return srtt_count == 0 ? 0 : static_cast<double>(srtt_sum) / static_cast<double>(srtt_count) / 1e6;
  }
};
using Flows = std::map<TcpKey, Flow>;

// The only flow of that cgroup and direction.
const Flow* Find(const Flows& flows, uint64_t cgroup, TcpDirection direction, TcpKey* key = nullptr) {
  const Flow* found = nullptr;
  for (const auto& [k, flow] : flows) {
    if (k.cgroup_id != cgroup || k.direction != direction) continue;
    EXPECT_EQ(found, nullptr) << "two flows where one was expected";
    found = &flow;
    if (key != nullptr) *key = k;
  }
  return found;
}

// The wire, for the scope.
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
  Child relay_;
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

std::unique_ptr<Child> StartIn(const std::string& network, const TestCgroup& cgroup,
                               std::vector<std::string> arguments) {
  std::optional<InNamespace> inside;
  if (!network.empty()) inside.emplace(network);
  auto child = std::make_unique<Child>(std::move(arguments));
  EXPECT_TRUE(cgroup.Add(child->pid()));
  child->Go();
  return child;
}

int PortOf(Child& server) {
  int port = 0;
  const std::string line = server.ReadLine();
  EXPECT_EQ(std::sscanf(line.c_str(), "ready %d", &port), 1) << line;
  return port;
}

void DrainInto(TcpLatency& probe, Flows& flows) {
  ASSERT_TRUE(probe.Drain([&](const TcpWindow& w) { flows[w.key].Add(w); }).ok());
}

class TcpLatencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS("tcp_probe");
    SKIP_UNLESS("sk_storage");
  }
  TestCgroup client_group_{"client"}, server_group_{"server"};

  // 10 ms each way: 20 ms there and back.
  void PingOverTenMilliseconds(const std::string& server_address, int family) {
    Wire wire({"10000"});
    ASSERT_FALSE(wire.a().empty());
    auto probe = TcpLatency::Start({});
    ASSERT_TRUE(probe.ok()) << probe.status();
    const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_pingpong"), "server", server_address, "7777"});
    ASSERT_EQ(PortOf(*server), 7777);
    const auto client =
        StartIn(wire.a(), client_group_, {Workload("tcp_pingpong"), "client", server_address, "7777", "100"});
    const double application_us = std::atof(client->ReadLine().c_str());
    EXPECT_EQ(client->Wait(), 0);
    server->Wait();
    std::this_thread::sleep_for(100ms);  // the FINs are still on the wire
    Flows flows;
    DrainInto(**probe, flows);

    TcpKey out_key, in_key;
    const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut, &out_key);
    const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn, &in_key);
    ASSERT_NE(out, nullptr);
    ASSERT_NE(in, nullptr);
    EXPECT_EQ(PeerAddress(out_key), server_address);
    EXPECT_EQ(out_key.peer_port, 7777);
    EXPECT_EQ(out_key.local_port, 0);
    EXPECT_EQ(out_key.family, family);
    EXPECT_EQ(PeerAddress(in_key), family == 4 ? "10.99.0.1" : "fd99::1");
    EXPECT_EQ(in_key.peer_port, 0);
    EXPECT_EQ(in_key.local_port, 7777);
    EXPECT_EQ(in_key.family, family);
    for (const Flow* flow : {out, in}) {
      EXPECT_GE(flow->srtt_count, 50u);
      // Within 5 % of what the application measured, which on a busy machine is more than the wire alone.
      EXPECT_NEAR(flow->MeanMs(), application_us / 1000, application_us / 1000 * 0.05);
      EXPECT_GE(flow->MeanMs(), 20.0);
      // The minimum knows nothing of waits for the CPU: within 5 % of the wire, less a bucket's width.
      EXPECT_GE(flow->min_rtt_low, 20'000'000u * 15 / 16);
      EXPECT_LE(flow->min_rtt_low, 21'000'000u);
      EXPECT_EQ(flow->opened, 1u);
      EXPECT_EQ(flow->closed, 1u);
      EXPECT_EQ(flow->retransmits, 0u);
      // One byte each way a hundred times, and the FIN counts as one.
      EXPECT_NEAR(static_cast<double>(flow->bytes_sent), 100, 1);
      EXPECT_NEAR(static_cast<double>(flow->bytes_received), 100, 1);
    }
    EXPECT_EQ(out->connects, 1u);
    EXPECT_GE(out->connect_sum, 20'000'000u);
    EXPECT_LT(out->connect_sum, 40'000'000u);
    EXPECT_EQ(in->connects, 0u);
  }
};

TEST_F(TcpLatencyTest, RttOverAKnownWireIpv4) { PingOverTenMilliseconds("10.99.0.2", 4); }
TEST_F(TcpLatencyTest, RttOverAKnownWireIpv6) { PingOverTenMilliseconds("fd99::2", 6); }

TEST_F(TcpLatencyTest, ConnectionsOlderThanTheProbeAreSeen) {
  Wire wire({"5000"});
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_pingpong"), "server", "10.99.0.2", "7778"});
  ASSERT_EQ(PortOf(*server), 7778);
  const auto client =
      StartIn(wire.a(), client_group_, {Workload("tcp_pingpong"), "client", "10.99.0.2", "7778", "150"});
  std::this_thread::sleep_for(300ms);
  auto probe = TcpLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  EXPECT_FALSE(client->ReadLine().empty());
  client->Wait();
  server->Wait();
  std::this_thread::sleep_for(50ms);
  Flows flows;
  DrainInto(**probe, flows);
  TcpKey key;
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut, &key);
  ASSERT_NE(out, nullptr);
  EXPECT_EQ(key.peer_port, 7778);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn, &key);
  ASSERT_NE(in, nullptr);
  EXPECT_EQ(key.local_port, 7778);
  for (const Flow* flow : {out, in}) {
    EXPECT_EQ(flow->opened, 0u);
    EXPECT_EQ(flow->closed, 1u);
    EXPECT_GT(flow->srtt_count, 20u);
    EXPECT_GE(flow->MeanMs(), 10.0);
    // What was sent before we looked is not ours.
    EXPECT_LT(flow->bytes_sent, 150u);
    EXPECT_GT(flow->bytes_sent, 20u);
  }
}

TEST_F(TcpLatencyTest, LostSegmentsAreCountedWhereTheyAreSentAgain) {
  Wire wire({"2000", "25"});
  auto probe = TcpLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_pingpong"), "server", "10.99.0.2", "7779"});
  ASSERT_EQ(PortOf(*server), 7779);
  const auto client =
      StartIn(wire.a(), client_group_, {Workload("tcp_pingpong"), "client", "10.99.0.2", "7779", "50", "0", "1000"});
  EXPECT_FALSE(client->ReadLine().empty());
  client->Wait();
  server->Wait();
  std::this_thread::sleep_for(50ms);
  Flows flows;
  DrainInto(**probe, flows);
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn);
  ASSERT_NE(out, nullptr);
  ASSERT_NE(in, nullptr);
  // 100 messages, every 25th dropped; a drop costs at least one retransmission somewhere.
  EXPECT_GE(out->retransmits + in->retransmits, 3u);
  EXPECT_NEAR(static_cast<double>(out->bytes_sent), 50000, 1);
  EXPECT_NEAR(static_cast<double>(in->bytes_received), 50000, 1);
}

TEST_F(TcpLatencyTest, RefusedConnectionsAreFailures) {
  auto probe = TcpLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto client = StartIn("", client_group_, {Workload("tcp_pingpong"), "client", "127.0.0.1", "1", "1"});
  EXPECT_NE(client->Wait(), 0);
  Flows flows;
  DrainInto(**probe, flows);
  TcpKey key;
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut, &key);
  ASSERT_NE(out, nullptr);
  EXPECT_EQ(PeerAddress(key), "127.0.0.1");
  EXPECT_EQ(key.peer_port, 1);
  EXPECT_EQ(out->failed, 1u);
  EXPECT_EQ(out->opened, 0u);
  EXPECT_EQ(out->closed, 0u);
}

TEST_F(TcpLatencyTest, FlowsWithoutRoomAreFolded) {
  auto probe = TcpLatency::Start({.max_flows = 1});
  ASSERT_TRUE(probe.ok()) << probe.status();
  // Something else on this machine may take the one place first: two connections are folded in any case but one.
  for (int i = 0; i < 3; ++i) {
    const auto server = StartIn("", server_group_, {Workload("tcp_pingpong"), "server", "127.0.0.1", "0"});
    const auto client = StartIn(
        "", client_group_, {Workload("tcp_pingpong"), "client", "127.0.0.1", std::to_string(PortOf(*server)), "10"});
    client->Wait();
    server->Wait();
  }
  Flows flows;
  DrainInto(**probe, flows);
  uint64_t folded_opened = 0;
  for (const auto& [key, flow] : flows) {
    if (key.direction == TcpDirection::kOther) {
      folded_opened += flow.opened;
      EXPECT_EQ(PeerAddress(key), "other");
    }
  }
  EXPECT_GE(folded_opened, 4u);
  const TcpCounters c = (*probe)->Counters();
  EXPECT_GT(c.folded, 0u);
  EXPECT_EQ(c.lost, 0u);
  EXPECT_EQ(c.storage_lost, 0u);
}

TEST_F(TcpLatencyTest, MappedAddressesAreIpv4) {
  auto probe = TcpLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn("", server_group_, {Workload("tcp_pingpong"), "server", "::", "0"});
  const int port = PortOf(*server);
  const auto client =
      StartIn("", client_group_, {Workload("tcp_pingpong"), "client", "127.0.0.1", std::to_string(port), "10"});
  client->Wait();
  server->Wait();
  Flows flows;
  DrainInto(**probe, flows);
  TcpKey key;
  ASSERT_NE(Find(flows, server_group_.id(), TcpDirection::kIn, &key), nullptr);
  EXPECT_EQ(key.family, 4);
  EXPECT_EQ(PeerAddress(key), "127.0.0.1");
  EXPECT_EQ(key.local_port, port);
}

}  // namespace
}  // namespace pyrometer::kernel

// The TCP probe against counts that the kernel or the programs at both ends keep themselves.
#include <chrono>
#include <sstream>
#include <thread>

#include "tests/kernel/tcp_harness.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Workload;

class TcpTruthTest : public TcpProbeTest {};
INSTANTIATE_FOR_BOTH_SOURCES(TcpTruthTest);

// What `nstat` shows of a network namespace: "TcpRetransSegs", "TcpExtTCPFastRetrans", ….
std::map<std::string, uint64_t> NetworkCounters(const std::string& network) {
  const InNamespace inside(network);
  EXPECT_TRUE(inside.ok());
  std::map<std::string, uint64_t> counters;
  for (const char* file : {"/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"}) {
    const StatusOr<std::string> text = ReadFile(file);
    EXPECT_TRUE(text.ok()) << text.status();
    if (!text.ok()) return counters;
    std::istringstream lines(*text);
    std::string names_line, values_line;
    while (std::getline(lines, names_line) && std::getline(lines, values_line)) {
      std::istringstream names(names_line), values(values_line);
      std::string prefix, name, value;
      names >> prefix;
      values >> value;
      prefix.pop_back();  // the colon
      while (names >> name && values >> value) counters[prefix + name] = std::strtoull(value.c_str(), nullptr, 10);
    }
  }
  return counters;
}

struct Ends {
  const Flow* out = nullptr;
  const Flow* in = nullptr;
  uint64_t Cause(RetransmitCause cause) const { return out->Cause(cause) + in->Cause(cause); }
};

// The kernel counts in the namespaces; nothing but the test is in them, so the sums must agree.
void ExpectKernelsCounts(const Wire& wire, const Ends& ends) {
  auto a = NetworkCounters(wire.a()), b = NetworkCounters(wire.b());
  const auto both = [&](const char* name) { return a[name] + b[name]; };
  const uint64_t rto = ends.Cause(RetransmitCause::kRto), fast = ends.Cause(RetransmitCause::kFast),
                 tlp = ends.Cause(RetransmitCause::kTailLossProbe), other = ends.Cause(RetransmitCause::kOther),
                 handshake = ends.Cause(RetransmitCause::kHandshake);
  std::printf(
      "  rto %lu, fast %lu, tlp %lu, handshake %lu, other %lu; nstat: RetransSegs %lu, FastRetrans %lu, "
      "SlowStartRetrans %lu, LossProbes %lu, Timeouts %lu, SynRetrans %lu\n",
      rto, fast, tlp, handshake, other, both("TcpRetransSegs"), both("TcpExtTCPFastRetrans"),
      both("TcpExtTCPSlowStartRetrans"), both("TcpExtTCPLossProbes"), both("TcpExtTCPTimeouts"),
      both("TcpExtTCPSynRetrans"));
  EXPECT_EQ(ends.out->retransmits, a["TcpRetransSegs"]);
  EXPECT_EQ(ends.in->retransmits, b["TcpRetransSegs"]);
  EXPECT_EQ(fast, both("TcpExtTCPFastRetrans"));
  EXPECT_LE(tlp, both("TcpExtTCPLossProbes"));  // a probe may send new data
  EXPECT_EQ(other, 0u);
}

TEST_P(TcpTruthTest, RetransmitsEqualTheKernelsCountByCause) {
  Wire wire({"2000", "40"});
  ASSERT_FALSE(wire.a().empty());
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_many"), "sink", "10.99.0.2", "7801", "0"});
  ASSERT_EQ(PortOf(*server), 7801);
  const auto client = StartIn(wire.a(), client_group_, {Workload("tcp_many"), "push", "10.99.0.2", "7801", "3000000"});
  EXPECT_EQ(client->Wait(), 0);
  EXPECT_EQ(server->ReadLine(), "3000000");
  server->Wait();
  std::this_thread::sleep_for(100ms);
  Flows flows;
  DrainInto(**probe, flows);
  const Ends ends = {Find(flows, client_group_.id(), TcpDirection::kOut),
                     Find(flows, server_group_.id(), TcpDirection::kIn)};
  ASSERT_NE(ends.out, nullptr);
  ASSERT_NE(ends.in, nullptr);
  ExpectKernelsCounts(wire, ends);
  EXPECT_GT(ends.Cause(RetransmitCause::kFast), 10u);
  EXPECT_EQ(ends.out->bytes_sent, 3'000'000u);
  EXPECT_EQ(ends.in->bytes_received, 3'000'000u);
}

// One message at a time: nothing follows a lost one that could tell of the hole, so that timers must.
TEST_P(TcpTruthTest, LossOfSingleMessagesIsFoundByTimers) {
  Wire wire({"2000", "10"});
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_pingpong"), "server", "10.99.0.2", "7802"});
  ASSERT_EQ(PortOf(*server), 7802);
  const auto client =
      StartIn(wire.a(), client_group_, {Workload("tcp_pingpong"), "client", "10.99.0.2", "7802", "60", "0", "1000"});
  EXPECT_EQ(client->Wait(), 0);
  server->Wait();
  std::this_thread::sleep_for(100ms);
  Flows flows;
  DrainInto(**probe, flows);
  const Ends ends = {Find(flows, client_group_.id(), TcpDirection::kOut),
                     Find(flows, server_group_.id(), TcpDirection::kIn)};
  ASSERT_NE(ends.out, nullptr);
  ASSERT_NE(ends.in, nullptr);
  ExpectKernelsCounts(wire, ends);
  EXPECT_GT(ends.Cause(RetransmitCause::kTailLossProbe) + ends.Cause(RetransmitCause::kRto), 5u);
  EXPECT_EQ(ends.out->bytes_sent, 60'000u);
  EXPECT_EQ(ends.in->bytes_sent, 60'000u);
}

TEST_P(TcpTruthTest, LostHandshakesAreCountedAtBothEnds) {
  // The answer to the SYN is lost, then what both ends send when their timers run out, in whichever order.
  Wire wire({"1000", "0", "0xe"});
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_many"), "echo", "10.99.0.2", "7803", "1"});
  ASSERT_EQ(PortOf(*server), 7803);
  const auto client =
      StartIn(wire.a(), client_group_, {Workload("tcp_many"), "ask", "10.99.0.2", "7803", "1", "1", "10"});
  EXPECT_EQ(client->Wait(), 0);
  server->Wait();
  std::this_thread::sleep_for(100ms);
  Flows flows;
  DrainInto(**probe, flows);
  const Ends ends = {Find(flows, client_group_.id(), TcpDirection::kOut),
                     Find(flows, server_group_.id(), TcpDirection::kIn)};
  ASSERT_NE(ends.out, nullptr);
  ASSERT_NE(ends.in, nullptr);
  ExpectKernelsCounts(wire, ends);
  EXPECT_GE(ends.out->Cause(RetransmitCause::kHandshake), 1u);
  EXPECT_GE(ends.in->Cause(RetransmitCause::kHandshake), 1u);
  EXPECT_EQ(ends.out->retransmits, ends.out->Cause(RetransmitCause::kHandshake));
  EXPECT_EQ(ends.out->connects, 1u);
  EXPECT_GE(ends.out->connect_sum, 1'000'000'000u);  // the first timer is a second
}

TEST_P(TcpTruthTest, AReaderThatSleepsClosesItsWindow) {
  Wire wire({"1000"});
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_many"), "sink", "10.99.0.2", "7804", "1000"});
  ASSERT_EQ(PortOf(*server), 7804);
  const auto began = std::chrono::steady_clock::now();
  const auto client = StartIn(wire.a(), client_group_, {Workload("tcp_many"), "push", "10.99.0.2", "7804", "12000000"});
  EXPECT_EQ(client->Wait(), 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  EXPECT_EQ(server->ReadLine(), "12000000");
  server->Wait();
  std::this_thread::sleep_for(100ms);
  Flows flows;
  DrainInto(**probe, flows);
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn);
  ASSERT_NE(out, nullptr);
  ASSERT_NE(in, nullptr);
  EXPECT_GE(out->zero_windows_received, 1u);
  EXPECT_EQ(out->zero_windows_sent, 0u);
  EXPECT_GE(in->zero_windows_sent, 1u);
  EXPECT_EQ(in->zero_windows_received, 0u);
  uint64_t total = 0;
  for (size_t i = 0; i < kTcpLimits; ++i) {
    std::printf("  limited by %s: %.3f s\n", std::string(TcpLimitName(static_cast<TcpLimit>(i))).c_str(),
                static_cast<double>(out->limited_ns[i]) / 1e9);
    total += out->limited_ns[i];
  }
  // The planted second, less the filling of the buffers.
  EXPECT_GT(out->Limit(TcpLimit::kReceiver), 500'000'000u);
  EXPECT_LT(static_cast<double>(out->Limit(TcpLimit::kReceiver)), 1e9 * seconds);
  // The parts are the connection's life, to a few ticks and the process's start.
  EXPECT_NEAR(static_cast<double>(total) / 1e9, seconds, 0.1);
  EXPECT_EQ(out->bytes_sent, 12'000'000u);
  EXPECT_EQ(in->bytes_received, 12'000'000u);
}

TEST_P(TcpTruthTest, ResetsBelongToWhoSendsAndWhoReceivesThem) {
  Wire wire({"1000"});
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_many"), "echo", "10.99.0.2", "7805", "1"});
  ASSERT_EQ(PortOf(*server), 7805);
  const auto client = StartIn(wire.a(), client_group_, {Workload("tcp_many"), "reset", "10.99.0.2", "7805"});
  EXPECT_EQ(client->Wait(), 0);
  server->Wait();
  std::this_thread::sleep_for(50ms);
  Flows flows;
  DrainInto(**probe, flows);
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn);
  ASSERT_NE(out, nullptr);
  ASSERT_NE(in, nullptr);
  EXPECT_EQ(out->resets_sent, 1u);
  EXPECT_EQ(out->resets_received, 0u);
  EXPECT_EQ(in->resets_sent, 0u);
  EXPECT_EQ(in->resets_received, 1u);
  EXPECT_EQ(out->closed, 1u);
  EXPECT_EQ(in->closed, 1u);
}

struct Crowd {
  const char* address;
  int connections;
  int parallel;
  int bytes;
  bool handoff;
};

class TcpCrowdTest : public TcpProbeTest {
 protected:
  void IsCountedExactly(const Crowd& crowd);
};
INSTANTIATE_FOR_BOTH_SOURCES(TcpCrowdTest);

// Every connection and every byte, owned by the container at its end.
void TcpCrowdTest::IsCountedExactly(const Crowd& crowd) {
  Wire wire({"0"});  // its namespace's loopback is ours alone
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  std::vector<std::string> serve = {Workload("tcp_many"), "echo", crowd.address, "0",
                                    std::to_string(crowd.connections)};
  if (crowd.handoff) serve.emplace_back("handoff");
  const auto server = StartIn(wire.a(), server_group_, serve);
  const int port = PortOf(*server);
  const auto client =
      StartIn(wire.a(), client_group_,
              {Workload("tcp_many"), "ask", crowd.address, std::to_string(port), std::to_string(crowd.connections),
               std::to_string(crowd.parallel), std::to_string(crowd.bytes)});
  EXPECT_EQ(client->ReadLine(), std::to_string(crowd.connections));
  EXPECT_EQ(client->Wait(), 0);
  EXPECT_EQ(server->Wait(), 0);
  std::this_thread::sleep_for(100ms);
  Flows flows;
  DrainInto(**probe, flows);
  TcpKey out_key, in_key;
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut, &out_key);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn, &in_key);
  ASSERT_NE(out, nullptr);
  ASSERT_NE(in, nullptr);
  EXPECT_EQ(PeerAddress(out_key), crowd.address);
  EXPECT_EQ(out_key.peer_port, port);
  EXPECT_EQ(in_key.local_port, port);
  const auto connections = static_cast<uint64_t>(crowd.connections);
  const uint64_t bytes = connections * static_cast<uint64_t>(crowd.bytes);
  for (const Flow* flow : {out, in}) {
    EXPECT_EQ(flow->opened, connections);
    EXPECT_EQ(flow->closed, connections);
    EXPECT_EQ(flow->found, 0u);
    EXPECT_EQ(flow->failed, 0u);
    EXPECT_EQ(flow->bytes_sent, bytes);
    EXPECT_EQ(flow->bytes_received, bytes);
  }
  auto counters = NetworkCounters(wire.a());
  EXPECT_EQ(out->retransmits + in->retransmits, counters["TcpRetransSegs"]);
  EXPECT_EQ(out->connects, connections);
  EXPECT_EQ((*probe)->Counters().lost, 0u);
  EXPECT_EQ((*probe)->Counters().storage_lost, 0u);
}

TEST_P(TcpCrowdTest, TenThousandShort) { IsCountedExactly({"127.0.0.1", 10'000, 1, 100, false}); }
TEST_P(TcpCrowdTest, ThousandParallel) { IsCountedExactly({"127.0.0.1", 1000, 1000, 5000, false}); }
TEST_P(TcpCrowdTest, Ipv6) { IsCountedExactly({"::1", 1000, 50, 777, false}); }
TEST_P(TcpCrowdTest, HandedToAnotherProcess) { IsCountedExactly({"127.0.0.1", 200, 10, 100, true}); }

// Connections that were there first, and that send nothing.
TEST_P(TcpTruthTest, SilentConnectionsAreFoundWithTheirDirection) {
  Wire wire({"1000"});
  const auto server = StartIn(wire.b(), server_group_, {Workload("tcp_many"), "echo", "10.99.0.2", "45678", "7"});
  ASSERT_EQ(PortOf(*server), 45678);  // looks ephemeral: only the listener tells the direction
  const auto client = StartIn(wire.a(), client_group_, {Workload("tcp_many"), "hold", "10.99.0.2", "45678", "7"});
  EXPECT_EQ(client->ReadLine(), "open");
  std::this_thread::sleep_for(100ms);  // until all are accepted
  auto probe = StartProbe();
  ASSERT_TRUE(probe.ok()) << probe.status();
  ASSERT_TRUE((*probe)->ScanStatus().ok()) << (*probe)->ScanStatus();
  Flows flows;
  DrainInto(**probe, flows);
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn);
  ASSERT_NE(out, nullptr);
  ASSERT_NE(in, nullptr);
  EXPECT_EQ(out->found, 7u);
  EXPECT_EQ(in->found, 7u);
  EXPECT_GE((*probe)->Counters().found, 14u);
  client->CloseInput();
  client->Wait();
  server->Wait();
  std::this_thread::sleep_for(100ms);
  DrainInto(**probe, flows);
  for (const Flow* flow : {out, in}) {
    EXPECT_EQ(flow->found, 7u);
    EXPECT_EQ(flow->closed, 7u);
    EXPECT_EQ(flow->bytes_sent + flow->bytes_received, 0u);
  }
}

class TcpAutoTest : public TcpProbeTest {
 protected:
  // A connection of `trips` round trips; both ends in `group`.
  static void Chat(const Wire& wire, const ::pyrometer::testing::TestCgroup& group, const std::string& trips) {
    const auto server = StartIn(wire.a(), group, {Workload("tcp_pingpong"), "server", "127.0.0.1", "0"});
    const std::string port = std::to_string(PortOf(*server));
    const auto client = StartIn(wire.a(), group, {Workload("tcp_pingpong"), "client", "127.0.0.1", port, trips});
    EXPECT_EQ(client->Wait(), 0);
    server->Wait();
  }
  static bool Reaches(const TcpLatency& probe, TcpSource source) {
    for (int i = 0; i < 3000 && probe.Source() != source; ++i) std::this_thread::sleep_for(10ms);
    return probe.Source() == source;
  }
};
INSTANTIATE_TEST_SUITE_P(Source, TcpAutoTest, ::testing::Values(TcpSource::kAuto),
                         [](const auto& source) { return std::string(TcpSourceName(source.param)); });

TEST_P(TcpAutoTest, ChangesOverWithTheTrafficAndLosesNothing) {
  const ::pyrometer::testing::TestCgroup busy("busy");
  Wire wire({"0"});
  auto probe = StartProbe({.busy_packets = 5000, .calm_ms = 500});
  ASSERT_TRUE(probe.ok()) << probe.status();
  EXPECT_TRUE((*probe)->SourceStatus().ok()) << (*probe)->SourceStatus();
  EXPECT_TRUE(Reaches(**probe, TcpSource::kTcpProbe));
  // One connection lives through both changes: 100 round trips a second.
  const auto server = StartIn(wire.a(), server_group_, {Workload("tcp_pingpong"), "server", "127.0.0.1", "0"});
  const std::string port = std::to_string(PortOf(*server));
  const auto client =
      StartIn(wire.a(), client_group_, {Workload("tcp_pingpong"), "client", "127.0.0.1", port, "800", "10000"});
  Chat(wire, busy, "30000");
  EXPECT_TRUE(Reaches(**probe, TcpSource::kPoll));
  const uint64_t polls = (*probe)->Counters().polls;
  Chat(wire, busy, "30000");
  EXPECT_GT((*probe)->Counters().polls, polls);
  EXPECT_TRUE(Reaches(**probe, TcpSource::kTcpProbe));
  Chat(wire, busy, "500");
  EXPECT_EQ(client->Wait(), 0);
  server->Wait();
  std::this_thread::sleep_for(100ms);
  ASSERT_TRUE((*probe)->Stop().ok());
  Flows flows;
  DrainInto(**probe, flows);
  const Flow* out = Find(flows, client_group_.id(), TcpDirection::kOut);
  const Flow* in = Find(flows, server_group_.id(), TcpDirection::kIn);
  ASSERT_NE(out, nullptr);
  ASSERT_NE(in, nullptr);
  for (const Flow* flow : {out, in}) {
    EXPECT_EQ(flow->bytes_sent, 800u);
    EXPECT_EQ(flow->bytes_received, 800u);
    EXPECT_EQ(flow->opened, 1u);
    EXPECT_EQ(flow->closed, 1u);
    EXPECT_GT(flow->srtt_count, 100u);
    EXPECT_EQ(flow->variations, flow->srtt_count);
  }
  uint64_t sent = 0, opened = 0, closed = 0;
  for (const auto& [key, flow] : flows) {
    if (key.cgroup_id != busy.id() || key.direction != TcpDirection::kOut) continue;
    sent += flow.bytes_sent;
    opened += flow.opened;
    closed += flow.closed;
  }
  EXPECT_EQ(sent, 60'500u);
  EXPECT_EQ(opened, 3u);
  EXPECT_EQ(closed, 3u);
}

}  // namespace
}  // namespace pyrometer::kernel

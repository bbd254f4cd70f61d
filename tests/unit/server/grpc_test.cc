// Agents and clients against a whole store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/server/live_store.h"
#include "userspace/query/flame_tree.h"

namespace pyrometer::server {
namespace {

using rpc::SessionState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<rpc::QueryClient> Client(const LiveStore& store) {
  auto client = rpc::QueryClient::Connect(store.grpc(), {});
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// CPU samples of everything stored.
int64_t Samples(rpc::QueryClient& client, const std::string& query = "cpu") {
  const StatusOr<profile::Profile> profile =
      client.MergeProfile({.query = query, .from_ns = 0, .to_ns = UnixNowNs() + 1});
  EXPECT_TRUE(profile.ok()) << profile.status();
  return profile.ok() ? profile->Total(0) : -1;
}

TEST(LiveGrpcTest, WhatAgentsSendCanBeAsked) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  EXPECT_EQ(agent.client().welcome().last_sequence, 0u);
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    ASSERT_TRUE(agent.client().Send(WindowBatch(agent, sequence, WindowStart(4 - sequence))).ok());
  }
  ASSERT_TRUE(agent.Wait([&] { return agent.acks.size() == 3; }));
  EXPECT_EQ(agent.acks[2].sequence, 3u);
  const auto client = Client(store);
  EXPECT_EQ(Samples(*client), 330);
  EXPECT_EQ(Samples(*client, "{container.name=\"shop\"}"), 300);
  EXPECT_EQ(Samples(*client, "{container.name=\"nope\"}"), 0);

  const int64_t from = WindowStart(3), to = WindowStart(0);
  const auto profile = client->MergeProfile({.query = "cpu", .from_ns = from, .to_ns = to, .by = {"container.name"}});
  ASSERT_TRUE(profile.ok());
  EXPECT_EQ(profile->accounting.taken, 345u);
  EXPECT_EQ(profile->accounting.delivered, 330u);
  EXPECT_EQ(profile->accounting.dropped.at("ring full"), 15u);

  // What is shown of it, as the stacks have it.
  const auto top = client->MergeTop({.query = "cpu", .from_ns = from, .to_ns = to});
  ASSERT_TRUE(top.ok()) << top.status();
  EXPECT_EQ(top->whole.accounting, profile->accounting);
  EXPECT_EQ(top->whole.Total(0), 330);
  EXPECT_EQ(top->whole.Total(1), profile->Total(1));
  const auto names = [](const profile::TopTable& table) {
    std::string text;
    for (const profile::FunctionCost& row : table.rows) {
      text += StrFormat("%s %d %d\n", row.name, row.self, row.total);
    }
    return text;
  };
  ASSERT_EQ(top->tops.size(), 1u);
  EXPECT_EQ(names(top->tops[0].table), names(query::TopFunctions(*profile, 0)));
  const auto tops = client->MergeTop({.query = "cpu", .from_ns = from, .to_ns = to, .by = {"container.name"}});
  ASSERT_TRUE(tops.ok()) << tops.status();
  const std::vector<profile::LabelledTop> expected = query::TopByLabels(*profile, 0, profile::TopOrder::kSelf);
  ASSERT_EQ(tops->tops.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(tops->tops[i].labels, expected[i].labels);
    EXPECT_EQ(names(tops->tops[i].table), names(expected[i].table));
  }
  const auto tree_text = [](const query::FlameTree& tree) {
    std::string text;
    for (size_t i = 0; i < tree.size(); ++i) {
      text += StrFormat("%d %s %d %d\n", tree.depth[i], tree.names[tree.name[i]], tree.self[i], tree.total[i]);
    }
    return text;
  };
  for (const std::string type : {"cpu", "syscall_latency"}) {
    const auto stacks = client->MergeProfile({.query = type, .from_ns = from, .to_ns = to, .by = {"container.name"}});
    const auto flame = client->MergeFlame(
        {.query = type, .from_ns = from, .to_ns = to, .by = {"container.name"}, .tenant = "", .min_share = 0.2});
    ASSERT_TRUE(stacks.ok() && flame.ok()) << flame.status();
    EXPECT_EQ(tree_text(query::BuildFlameTree(*flame, 1)),
              tree_text(query::BuildFlameTree(*stacks, 1, {.root_labels = {"container.name"}, .min_share = 0.2})));
    const auto table = client->MergeTop({.query = type, .from_ns = from, .to_ns = to});
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_EQ(names(table->tops.at(0).table), names(query::TopFunctions(*stacks, 0)));
    EXPECT_EQ(table->whole.Total(1), stacks->Total(1));
  }
  for (const std::string type : {"cpu", "syscall_latency"}) {
    EXPECT_EQ(client->MergeTop({.query = type, .from_ns = 1, .to_ns = 2})->whole.sample_count(), 0u);
    EXPECT_EQ(client->MergeFlame({.query = type, .from_ns = 1, .to_ns = 2})->sample_count(), 0u);
  }
  EXPECT_EQ(client->MergeTop({.query = "tcp_connections", .from_ns = from, .to_ns = to}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(client->MergeFlame({.query = "cpu{", .from_ns = from, .to_ns = to}).status().code(),
            StatusCode::kInvalidArgument);

  const auto exemplars =
      client->MergeProfile({.query = "syscall_latency", .from_ns = from, .to_ns = to, .min_ns = 10'000'000});
  ASSERT_TRUE(exemplars.ok()) << exemplars.status();
  EXPECT_EQ(exemplars->Total(0), 3);
  EXPECT_EQ(exemplars->Total(1), 60'000'000);
  EXPECT_EQ(client->MergeProfile({.query = "tcp_connections", .from_ns = from, .to_ns = to}).status().code(),
            StatusCode::kInvalidArgument);

  const auto series = client->TimeSeries(
      {.query = "cpu{container.name=\"shop\"}", .from_ns = from, .to_ns = to, .step_ns = 10 * kNsPerSecond});
  ASSERT_TRUE(series.ok());
  ASSERT_EQ(series->series.size(), 1u);
  EXPECT_THAT(series->series[0].counts, ElementsAre(100, 100, 100));
  EXPECT_EQ(series->unit, "nanoseconds");

  const auto histograms =
      client->Histograms({.query = "syscall_latency", .from_ns = from, .to_ns = to, .by = {"syscall"}});
  ASSERT_TRUE(histograms.ok());
  ASSERT_EQ(histograms->size(), 1u);
  EXPECT_EQ((*histograms)[0].histogram.count(), 300u);
  EXPECT_EQ((*histograms)[0].errors.at(11), 9u);

  EXPECT_THAT(client->LabelValues({.label = "service"}).value(), ElementsAre("cron.service", "shop"));
  EXPECT_THAT(client->LabelValues({.label = "service", .query = "{container.name=\"shop\"}"}).value(),
              ElementsAre("shop"));
  EXPECT_EQ(client->LabelValues({}).status().code(), StatusCode::kInvalidArgument);

  const auto nodes = client->ListNodes();
  ASSERT_TRUE(nodes.ok());
  ASSERT_EQ(nodes->size(), 1u);
  EXPECT_EQ((*nodes)[0].node, "n1");
  EXPECT_TRUE((*nodes)[0].online);
  EXPECT_EQ((*nodes)[0].last_sequence, 3u);
  EXPECT_EQ((*nodes)[0].status.cpus, 4u);
  EXPECT_EQ((*nodes)[0].status.probes.at(1).reason, "no BTF");

  const auto status = client->GetStatus();
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->batches, 3u);
  EXPECT_EQ(status->samples, 330u);
}

TEST(LiveGrpcTest, ErrorsReachTheClientWhole) {
  LiveStore store;
  const auto client = Client(store);
  const Status malformed = client->MergeProfile({.query = "cpu{service\"x\"}"}).status();
  EXPECT_EQ(malformed.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(malformed), HasSubstr("\n  cpu{service\"x\"}\n             ^"));
  EXPECT_EQ(client->MergeProfile({.query = "cpu", .from_ns = 5, .to_ns = 4}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(client->GetSession("nope").status().code(), StatusCode::kNotFound);
}

TEST(LiveGrpcTest, ResendsAreAcknowledgedAndNotCountedTwice) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const profile::Batch one = WindowBatch(agent, 1, WindowStart(3)), two = WindowBatch(agent, 2, WindowStart(2));
  ASSERT_TRUE(agent.client().Send(one).ok());
  ASSERT_TRUE(agent.client().Send(two).ok());
  ASSERT_TRUE(agent.Wait([&] { return agent.acks.size() == 2; }));
  agent.Disconnect();
  // The acks were lost on the way, say: all comes again.
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  EXPECT_EQ(agent.client().welcome().last_sequence, 2u);
  ASSERT_TRUE(agent.client().Send(one).ok());
  ASSERT_TRUE(agent.client().Send(two).ok());
  ASSERT_TRUE(agent.client().Send(WindowBatch(agent, 3, WindowStart(1))).ok());
  ASSERT_TRUE(agent.Wait([&] { return agent.acks.size() == 5; }));
  EXPECT_TRUE(agent.acks[2].duplicate);
  EXPECT_TRUE(agent.acks[3].duplicate);
  EXPECT_FALSE(agent.acks[4].duplicate);
  EXPECT_EQ(Samples(*Client(store)), 330);
}

TEST(LiveGrpcTest, TheStoreComesBack) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  ASSERT_TRUE(agent.client().Send(WindowBatch(agent, 1, WindowStart(2))).ok());
  ASSERT_TRUE(agent.Wait([&] { return agent.acks.size() == 1; }));
  store.Close();
  ASSERT_TRUE(agent.Wait([&] { return agent.closed.size() == 1; }));
  store.Open();
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  EXPECT_EQ(agent.client().welcome().last_sequence, 1u);
  ASSERT_TRUE(agent.client().Send(WindowBatch(agent, 2, WindowStart(1))).ok());
  ASSERT_TRUE(agent.Wait([&] { return agent.acks.size() == 2; }));
  EXPECT_EQ(Samples(*Client(store)), 220);
}

TEST(LiveGrpcTest, BatchesThatTheStoreRefusesAreRejectedAndTheRestGoesOn) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  ASSERT_TRUE(agent.client().Send(WindowBatch(agent, 1, 1'000)).ok());  // a window of the year 1970
  ASSERT_TRUE(agent.client().Send(WindowBatch(agent, 2, WindowStart(1))).ok());
  ASSERT_TRUE(agent.Wait([&] { return agent.acks.size() == 1 && agent.rejects.size() == 1; }));
  EXPECT_EQ(agent.rejects[0].first, 1u);
  EXPECT_THAT(agent.rejects[0].second, HasSubstr("clock"));
  EXPECT_EQ(agent.acks[0].sequence, 2u);
  EXPECT_EQ(Samples(*Client(store)), 110);
}

TEST(LiveGrpcTest, ManyAgentsAtATime) {
  LiveStore store;
  constexpr int kAgents = 8, kBatches = 5;
  std::vector<std::unique_ptr<Agent>> agents;
  std::vector<std::thread> threads;
  for (int i = 0; i < kAgents; ++i) agents.push_back(std::make_unique<Agent>(StrFormat("n%d", i)));
  for (auto& agent : agents) {
    threads.emplace_back([&store, &agent] {
      ASSERT_TRUE(agent->Connect(store.grpc()).ok());
      for (uint64_t sequence = 1; sequence <= kBatches; ++sequence) {
        ASSERT_TRUE(agent->client().Send(WindowBatch(*agent, sequence, WindowStart(kBatches + 1 - sequence))).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& agent : agents) {
    ASSERT_TRUE(agent->Wait([&] { return !agent->acks.empty() && agent->acks.back().sequence == kBatches; }));
  }
  const auto client = Client(store);
  EXPECT_EQ(Samples(*client), 110 * kAgents * kBatches);
  EXPECT_EQ(Samples(*client, "{node=\"n3\"}"), 110 * kBatches);
  EXPECT_EQ(client->ListNodes()->size(), static_cast<size_t>(kAgents));
}

TEST(LiveGrpcTest, ASecondConnectionOfOneAgentReplacesTheFirst) {
  LiveStore store;
  Agent first, second;
  ASSERT_TRUE(first.Connect(store.grpc()).ok());
  ASSERT_TRUE(second.Connect(store.grpc()).ok());
  ASSERT_TRUE(first.Wait([&] { return first.closed.size() == 1; }));
  ASSERT_TRUE(second.client().Send(WindowBatch(second, 1, WindowStart(1))).ok());
  ASSERT_TRUE(second.Wait([&] { return second.acks.size() == 1; }));
  const auto nodes = Client(store)->ListNodes();
  ASSERT_EQ(nodes->size(), 1u);
  EXPECT_TRUE((*nodes)[0].online);
}

TEST(LiveGrpcTest, InProcess) {
  LiveStore store({.token = "secret"});
  const auto client = rpc::QueryClient::Connect(store.server().InProcessChannel(), "this process", "secret", {});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE((*client)->GetStatus().ok());
  EXPECT_TRUE(store.server().query_api().GetStatus().ok());
}

// ---- sessions -----------------------------------------------------------------------------------------

StatusOr<rpc::SessionInfo> WaitFor(rpc::QueryApi& api, const std::string& id, SessionState state) {
  for (int i = 0; i < 200; ++i) {
    const StatusOr<rpc::SessionInfo> info = api.GetSession(id);
    if (!info.ok() || info->state == state) return info;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return api.GetSession(id);
}

TEST(LiveSessionTest, FromStartToItsSamples) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const auto client = Client(store);
  const auto started = client->StartSession(
      {.node = "n1", .target = {.container = "shop"}, .duration_ns = 5 * kNsPerSecond, .frequency_hz = 499});
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(started->state, SessionState::kPending);
  ASSERT_TRUE(agent.Wait([&] { return agent.starts.size() == 1; }));
  EXPECT_EQ(agent.starts[0].id, started->spec.id);
  EXPECT_EQ(agent.starts[0].target.container, "shop");
  EXPECT_EQ(agent.starts[0].frequency_hz, 499u);
  const std::string id = started->spec.id;
  ASSERT_TRUE(agent.client().SendSession({.id = id, .state = SessionState::kRunning, .started_ns = 5}).ok());
  EXPECT_EQ(WaitFor(*client, id, SessionState::kRunning)->state, SessionState::kRunning);
  // The agent is done, its last batch not here yet.
  ASSERT_TRUE(
      agent.client().SendSession({.id = id, .state = SessionState::kDone, .samples = 50, .last_sequence = 1}).ok());
  for (int i = 0; i < 100 && client->GetSession(id)->samples != 50; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(client->GetSession(id)->state, SessionState::kRunning);
  profile::Batch batch = WindowBatch(agent, 1, WindowStart(1));
  batch.series[0].labels = batch.series[0].labels.With("session", id);
  ASSERT_TRUE(agent.client().Send(batch).ok());
  const auto done = WaitFor(*client, id, SessionState::kDone);
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->state, SessionState::kDone);
  EXPECT_EQ(done->started_ns, 5);
  EXPECT_EQ(Samples(*client, "cpu{session=\"" + id + "\"}"), 100);
  EXPECT_EQ(Samples(*client), 10) << "sessions are not counted beside the always-on profile";
  EXPECT_EQ(client->ListSessions()->size(), 1u);
}

TEST(LiveSessionTest, Stop) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const auto client = Client(store);
  const auto started = client->StartSession({.node = "n1"});
  ASSERT_TRUE(started.ok()) << started.status();
  ASSERT_TRUE(client->StopSession(started->spec.id).ok());
  ASSERT_TRUE(agent.Wait([&] { return agent.stops.size() == 1; }));
  EXPECT_EQ(agent.stops[0], started->spec.id);
  ASSERT_TRUE(agent.client().SendSession({.id = started->spec.id, .state = SessionState::kStopped}).ok());
  EXPECT_EQ(WaitFor(*client, started->spec.id, SessionState::kStopped)->state, SessionState::kStopped);
}

TEST(LiveSessionTest, NodesThatCannot) {
  LiveStore store;
  const auto client = Client(store);
  const Status nobody = client->StartSession({.node = "n1"}).status();
  EXPECT_EQ(nobody.code(), StatusCode::kNotFound);
  EXPECT_THAT(Message(nobody), HasSubstr("none has connected"));
  Agent agent, other("n2");
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  ASSERT_TRUE(other.Connect(store.grpc()).ok());
  const Status unknown = client->StartSession({.node = "typo"}).status();
  EXPECT_EQ(unknown.code(), StatusCode::kNotFound);
  EXPECT_THAT(Message(unknown), HasSubstr("n1, n2"));
  agent.Disconnect();
  Status offline;
  for (int i = 0; i < 100; ++i) {
    offline = client->StartSession({.node = "n1"}).status();
    if (offline.code() == StatusCode::kUnavailable) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(offline.code(), StatusCode::kUnavailable);
  EXPECT_THAT(Message(offline), HasSubstr("offline"));
  EXPECT_EQ(client->StartSession({}).status().code(), StatusCode::kInvalidArgument);
}

TEST(LiveSessionTest, TheAgentGoesAwayInTheMiddle) {
  LiveStore store;
  Agent agent;
  ASSERT_TRUE(agent.Connect(store.grpc()).ok());
  const auto client = Client(store);
  const auto started = client->StartSession({.node = "n1"});
  ASSERT_TRUE(started.ok());
  agent.Disconnect();
  const auto failed = WaitFor(*client, started->spec.id, SessionState::kFailed);
  ASSERT_TRUE(failed.ok());
  EXPECT_EQ(failed->state, SessionState::kFailed);
  EXPECT_THAT(failed->error, HasSubstr("disconnected"));
}

}  // namespace
}  // namespace pyrometer::server

#include "userspace/rpc/query_client.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "tests/unit/rpc/fake_store.h"
#include "tests/unit/rpc/random_batch.h"

namespace pyrometer::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(QueryClientTest, EveryQuestion) {
  FakeStore store;
  store.query.profile = RandomData(3).Profile();
  const profile::LabelSet labels = profile::LabelSet::Make({{"node", "n1"}}).value();
  store.query.time_series = {
      .unit = "nanoseconds",
      .series = {{.labels = labels, .times_ns = {1, 2}, .values = {1.5, 2.5}, .counts = {3, 4}}}};
  LabelledHistogram histogram{.labels = labels, .errors = {{2, 5}}};
  histogram.histogram.Record(1234, 7);
  store.query.histograms = {histogram};
  store.query.nodes = {{.node = "n1",
                        .agent_id = "a",
                        .version = "v",
                        .online = true,
                        .last_seen_ns = 5,
                        .last_sequence = 6,
                        .status = {.cpus = 2, .kernel = "k", .frequency_hz = 99, .probes = {{"p", "off", "why"}}}}};
  const auto client = QueryClient::Connect(store.target, {});
  ASSERT_TRUE(client.ok()) << client.status();

  const StatusOr<StoreStatus> status = (*client)->GetStatus();
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->version, "test");
  EXPECT_EQ(status->bytes + 10 * status->series + 100 * status->stacks, 321u);
  EXPECT_EQ(status->batches + 10 * status->samples + 100 * status->memory_bytes, 654u);

  const StatusOr<profile::Profile> profile = (*client)->MergeProfile(
      {.query = "cpu{a=\"b\"}", .from_ns = 10, .to_ns = 20, .by = {"comm"}, .min_ns = 3, .max_ns = 4});
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(ProfileText(*profile), ProfileText(store.query.profile));
  EXPECT_EQ(store.query.last_merge.query, "cpu{a=\"b\"}");
  EXPECT_EQ(store.query.last_merge.from_ns, 10);
  EXPECT_EQ(store.query.last_merge.to_ns, 20);
  EXPECT_THAT(store.query.last_merge.by, ElementsAre("comm"));
  EXPECT_EQ(store.query.last_merge.min_ns, 3u);
  EXPECT_EQ(store.query.last_merge.max_ns, 4u);

  const StatusOr<profile::Profile> flame = (*client)->MergeFlame(
      {.query = "cpu", .from_ns = 11, .to_ns = 21, .by = {"a", "b"}, .tenant = "", .min_share = 0.25});
  ASSERT_TRUE(flame.ok()) << flame.status();
  EXPECT_EQ(ProfileText(*flame), ProfileText(store.query.profile));
  const MergeFlameRequest& flamed = store.query.last_flame;
  EXPECT_EQ(std::tuple(flamed.query, flamed.from_ns, flamed.to_ns, flamed.min_share), std::tuple("cpu", 11, 21, 0.25));
  EXPECT_THAT(flamed.by, ElementsAre("a", "b"));

  store.query.top.whole = profile::CopyHeader(store.query.profile);
  store.query.top.whole.Add(0, profile::kEmptyStack, std::vector<int64_t>(store.query.profile.value_types.size(), 9));
  store.query.top.tops = {{.labels = labels,
                           .table = {.rows = {{.name = "f", .kind = profile::FrameKind::kJit, .self = 1, .total = 4}},
                                     .total = 8,
                                     .functions = 7}}};
  const StatusOr<MergeTopReply> top = (*client)->MergeTop({.query = "cpu",
                                                           .from_ns = 12,
                                                           .to_ns = 22,
                                                           .by = {"c"},
                                                           .tenant = "",
                                                           .rows = 5,
                                                           .order = profile::TopOrder::kTotal});
  ASSERT_TRUE(top.ok()) << top.status();
  EXPECT_EQ(ProfileText(top->whole), ProfileText(store.query.top.whole));
  ASSERT_EQ(top->tops.size(), 1u);
  EXPECT_EQ(top->tops[0].labels, labels);
  EXPECT_EQ(top->tops[0].table.rows.at(0).total_percent, 50);
  const MergeTopRequest& topped = store.query.last_top;
  EXPECT_EQ(std::tuple(topped.query, topped.from_ns, topped.to_ns, topped.rows, topped.order),
            std::tuple("cpu", 12, 22, 5u, profile::TopOrder::kTotal));
  EXPECT_THAT(topped.by, ElementsAre("c"));

  const StatusOr<TimeSeriesReply> series =
      (*client)->TimeSeries({.query = "q", .from_ns = 1, .to_ns = 2, .step_ns = 3, .by = {"x", "y"}});
  ASSERT_TRUE(series.ok()) << series.status();
  EXPECT_EQ(series->unit, "nanoseconds");
  ASSERT_EQ(series->series.size(), 1u);
  EXPECT_EQ(series->series[0].labels, labels);
  EXPECT_THAT(series->series[0].times_ns, ElementsAre(1, 2));
  EXPECT_THAT(series->series[0].values, ElementsAre(1.5, 2.5));
  EXPECT_THAT(series->series[0].counts, ElementsAre(3, 4));
  EXPECT_EQ(store.query.last_series.step_ns, 3u);

  const StatusOr<std::vector<LabelledHistogram>> histograms = (*client)->Histograms({.query = "q", .to_ns = 9});
  ASSERT_TRUE(histograms.ok()) << histograms.status();
  ASSERT_EQ(histograms->size(), 1u);
  EXPECT_EQ((*histograms)[0].histogram, histogram.histogram);
  EXPECT_EQ((*histograms)[0].errors, histogram.errors);

  CallExample example;
  example.exemplar = {.time_ns = 4, .value = 50, .comm = "shop", .tid = 6, .call = "read(7)", .weight = 8};
  example.exemplar.typical = true;
  example.exemplar.split = {{"lock", 40}, {"running", 10}};
  example.exemplar.waker = {.comm = "holder", .tid = 9, .cause = "lock", .wait_ns = 39};
  example.frames = {"read", "main"};
  example.waker_frames = {"unlock"};
  example.labels = labels;
  store.query.exemplars = {example};
  const StatusOr<std::vector<CallExample>> examples = (*client)->Exemplars(
      {.query = "q", .from_ns = 1, .to_ns = 2, .min_ns = 3, .max_ns = 4, .drawn = true, .limit = 5});
  ASSERT_TRUE(examples.ok()) << examples.status();
  const ExemplarsRequest& asked = store.query.last_exemplars;
  EXPECT_EQ(std::tuple(asked.query, asked.from_ns, asked.to_ns, asked.min_ns, asked.max_ns, asked.drawn, asked.limit),
            std::tuple("q", 1, 2, 3u, 4u, true, 5u));
  ASSERT_EQ(examples->size(), 1u);
  const CallExample& one = (*examples)[0];
  EXPECT_EQ(std::tuple(one.exemplar.time_ns, one.exemplar.value, one.exemplar.comm, one.exemplar.tid, one.exemplar.call,
                       one.exemplar.weight, one.exemplar.typical),
            std::tuple(4, 50u, "shop", 6u, "read(7)", 8u, true));
  EXPECT_EQ(one.exemplar.split, example.exemplar.split);
  EXPECT_EQ(
      std::tuple(one.exemplar.waker.comm, one.exemplar.waker.tid, one.exemplar.waker.cause, one.exemplar.waker.wait_ns),
      std::tuple("holder", 9u, "lock", 39u));
  EXPECT_EQ(one.frames, example.frames);
  EXPECT_EQ(one.waker_frames, example.waker_frames);
  EXPECT_EQ(one.labels, labels);

  const StatusOr<std::vector<NodeInfo>> nodes = (*client)->ListNodes();
  ASSERT_TRUE(nodes.ok());
  ASSERT_EQ(nodes->size(), 1u);
  EXPECT_EQ((*nodes)[0].node, "n1");
  EXPECT_EQ((*nodes)[0].agent_id, "a");
  EXPECT_TRUE((*nodes)[0].online);
  EXPECT_EQ((*nodes)[0].last_seen_ns, 5);
  EXPECT_EQ((*nodes)[0].last_sequence, 6u);
  EXPECT_EQ((*nodes)[0].status, store.query.nodes[0].status);

  EXPECT_THAT((*client)->LabelValues({.label = "node", .query = "cpu"}).value(), ElementsAre("a", "b"));
  EXPECT_EQ(store.query.last_values.label, "node");

  const SessionSpec spec{.id = "x", .node = "n1", .target = {.pid = 4}, .duration_ns = 5, .frequency_hz = 6};
  EXPECT_EQ((*client)->StartSession(spec).value().spec, spec);
  EXPECT_EQ((*client)->StopSession("s9").value().spec.id, "s9");
  EXPECT_EQ((*client)->StopSession("s9").value().samples, 8u);
  EXPECT_EQ((*client)->ListSessions().value().at(0).error, "why");
  EXPECT_EQ((*client)->ListSessions().value().at(0).state, SessionState::kFailed);
}

TEST(QueryClientTest, ErrorsOfTheStoreArriveAsTheyAre) {
  FakeStore store;
  const auto client = QueryClient::Connect(store.target, {});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ((*client)->GetSession("zz").status(), NotFoundError("no session zz"));
  store.query.fail = InvalidArgumentError("selector: expected '='\n  cpu{é!}\n       ^");
  EXPECT_EQ((*client)->MergeProfile({.query = "x"}).status(), store.query.fail);
  store.query.fail = UnavailableError("node n1 is offline");
  EXPECT_EQ((*client)->StartSession({.node = "n1"}).status(), store.query.fail);
}

TEST(QueryClientTest, NobodyThere) {
  const Status status = QueryClient::Connect("127.0.0.1:1", {}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_THAT(Message(status), HasSubstr("no store answers at 127.0.0.1:1: is `pyrometer up` or `pyrometer store`"));
}

TEST(QueryClientTest, AWrongTokenIsToldAtOnce) {
  FakeStore store({.token = "right"});
  EXPECT_EQ(QueryClient::Connect(store.target, {.token = "wrong"}).status().code(), StatusCode::kUnauthenticated);
  EXPECT_TRUE(QueryClient::Connect(store.target, {.token = "right"}).ok());
}

TEST(QueryClientTest, TheStoreEndsDuringTheSession) {
  FakeStore store;
  const auto client = QueryClient::Connect(store.target, {});
  ASSERT_TRUE(client.ok()) << client.status();
  store.server->Shutdown();
  EXPECT_EQ((*client)->ListNodes().status().code(), StatusCode::kUnavailable);
}

// A listener that answers every connection as a plain HTTP server answers HTTP/2.
TEST(QueryClientTest, TheHttpPortByMistake) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener, 8), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  std::thread answering([listener] {
    for (;;) {
      const int connection = accept(listener, nullptr, nullptr);
      if (connection < 0) return;
      char request[1024];
      if (read(connection, request, sizeof(request)) > 0) {
        const std::string_view reply = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        if (write(connection, reply.data(), reply.size()) < 0) perror("write");
      }
      close(connection);
    }
  });
  const std::string target = StrFormat("127.0.0.1:%d", ntohs(address.sin_port));
  const Status status = QueryClient::Connect(target, {}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_THAT(Message(status), HasSubstr("HTTP port"));
  shutdown(listener, SHUT_RDWR);
  answering.join();
  close(listener);
}

// A store of another time.
class OddStore : public v1::Query::Service {
 public:
  grpc::Status GetStatus(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusReply* reply) override {
    reply->set_protocol(protocol);
    reply->set_version("9.9");
    return grpc::Status::OK;
  }
  uint32_t protocol = 3;
};

TEST(QueryClientTest, AStoreOfAnotherVersion) {
  OddStore service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  const auto server = builder.BuildAndStart();
  const std::string target = StrFormat("127.0.0.1:%d", port);
  Status status = QueryClient::Connect(target, {}).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(Message(status), HasSubstr("(version 9.9) speaks protocol 3"));
  EXPECT_THAT(Message(status), HasSubstr("upgrade this pyrometer"));
  service.protocol = 0;
  status = QueryClient::Connect(target, {}).status();
  EXPECT_THAT(Message(status), HasSubstr("upgrade the store"));
  server->Shutdown();
}

TEST(GrpcServerTest, PortTaken) {
  FakeStore store;
  ASSERT_TRUE(store.status.ok());
  FakeStore second({.address = store.target});
  EXPECT_EQ(second.status.code(), StatusCode::kUnavailable) << second.status;
  EXPECT_THAT(Message(second.status), HasSubstr(store.target));
  EXPECT_THAT(Message(second.status), HasSubstr("--grpc"));
}

TEST(GrpcServerTest, UnixSocket) {
  const std::string address = StrFormat("unix:%s/pyrometer-%d.sock", ::testing::TempDir(), getpid());
  FakeStore store({.address = address});
  ASSERT_TRUE(store.status.ok()) << store.status;
  EXPECT_TRUE(QueryClient::Connect(address, {}).ok());
}

TEST(GrpcServerTest, MalformedAddress) {
  FakeStore store({.address = "nonsense"});
  EXPECT_EQ(store.status.code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyrometer::rpc

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/pyrometer/v1/pyrometer.grpc.pb.h"
#include "tests/unit/rpc/fake_store.h"
#include "tests/unit/rpc/random_batch.h"
#include "userspace/base/version.h"
#include "userspace/rpc/ingest_client.h"

namespace pyrometer::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Hello kHello{.agent_id = "agent-1",
                   .node = "node-1",
                   .status = {.cpus = 2, .kernel = "6.1", .frequency_hz = 99, .probes = {{"cpu_sampler", "ok", ""}}}};

// What an agent hears.
struct Heard {
  Waiter state;
  std::vector<Ack> acks;
  std::vector<std::pair<uint64_t, std::string>> rejects;
  std::vector<SessionSpec> starts;
  std::vector<std::string> stops;
  std::vector<Status> closed;

  IngestClient::Callbacks Callbacks() {
    return {.ack = [this](const Ack& ack) { state.Change([&] { acks.push_back(ack); }); },
            .reject = [this](uint64_t sequence,
                             const std::string& why) { state.Change([&] { rejects.emplace_back(sequence, why); }); },
            .start_session = [this](const SessionSpec& spec) { state.Change([&] { starts.push_back(spec); }); },
            .stop_session = [this](const std::string& id) { state.Change([&] { stops.push_back(id); }); },
            .closed = [this](const Status& status) { state.Change([&] { closed.push_back(status); }); }};
  }
};

TEST(IngestTest, BatchesArriveAndAreAcknowledged) {
  FakeStore store;
  ASSERT_TRUE(store.status.ok()) << store.status;
  store.ingest.last_sequence = 41;
  Heard heard;
  const auto client = IngestClient::Connect(store.target, {}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ((*client)->welcome().last_sequence, 41u);
  EXPECT_EQ((*client)->welcome().version, "test");
  EXPECT_EQ(store.ingest.last_hello.agent_id, "agent-1");
  EXPECT_EQ(store.ingest.last_hello.node, "node-1");
  EXPECT_EQ(store.ingest.last_hello.version, kVersion);
  EXPECT_EQ(store.ingest.last_hello.status, kHello.status);
  RandomData random(1);
  std::vector<profile::Batch> sent;
  for (uint64_t sequence = 42; sequence < 62; ++sequence) {
    sent.push_back(random.Batch(sequence));
    ASSERT_TRUE((*client)->Send(sent.back()).ok());
  }
  ASSERT_TRUE(heard.state.Wait([&] { return heard.acks.size() == 20; }));
  EXPECT_EQ(heard.acks.front().sequence, 42u);
  EXPECT_EQ(heard.acks.back().sequence, 61u);
  ASSERT_EQ(store.ingest.batches.size(), 20u);
  for (size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(BatchText(store.ingest.batches[i]), BatchText(sent[i]));
  EXPECT_TRUE((*client)->status().ok());
}

TEST(IngestTest, WorksInsideOneProcess) {
  FakeStore store({.token = "secret"});
  Heard heard;
  EXPECT_EQ(IngestClient::Connect(store.server->InProcessChannel(), {}, kHello, {}).status().code(),
            StatusCode::kUnauthenticated);
  const auto client =
      IngestClient::Connect(store.server->InProcessChannel(), {.token = "secret"}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE((*client)->Send(RandomData(1).Batch(1)).ok());
  EXPECT_TRUE(heard.state.Wait([&] { return heard.acks.size() == 1; }));
}

TEST(IngestTest, SessionsTravelBothWays) {
  FakeStore store;
  Heard heard;
  auto client = IngestClient::Connect(store.target, {}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  const SessionSpec spec{.id = "s1",
                         .node = "node-1",
                         .target = {.container = "shop"},
                         .duration_ns = 5,
                         .frequency_hz = 199,
                         .probes = {"cpu", "tcp"}};
  ASSERT_TRUE(store.ingest.connections.at(0)->StartSession(spec).ok());
  ASSERT_TRUE(heard.state.Wait([&] { return heard.starts.size() == 1; }));
  EXPECT_EQ(heard.starts[0], spec);
  for (const Target& target : {Target{}, Target{.pid = 7}, Target{.cgroup = "/a"}}) {
    ASSERT_TRUE(store.ingest.connections.at(0)->StartSession({.id = "t", .target = target}).ok());
  }
  ASSERT_TRUE(heard.state.Wait([&] { return heard.starts.size() == 4; }));
  EXPECT_EQ(heard.starts[1].target, Target{});
  EXPECT_EQ(heard.starts[2].target, Target{.pid = 7});
  EXPECT_EQ(heard.starts[3].target, Target{.cgroup = "/a"});
  ASSERT_TRUE(store.ingest.connections.at(0)->StopSession("s1").ok());
  ASSERT_TRUE(heard.state.Wait([&] { return heard.stops.size() == 1; }));
  ASSERT_TRUE((*client)
                  ->SendSession({.id = "s1",
                                 .state = SessionState::kDone,
                                 .error = "e",
                                 .samples = 3,
                                 .last_sequence = 9,
                                 .started_ns = 11})
                  .ok());
  ASSERT_TRUE((*client)->SendStatus(kHello.status).ok());
  ASSERT_TRUE(store.ingest.state.Wait([&] { return store.ingest.statuses.size() == 1; }));
  ASSERT_EQ(store.ingest.updates.size(), 1u);
  const SessionUpdate& update = store.ingest.updates[0];
  EXPECT_EQ(update.id, "s1");
  EXPECT_EQ(update.state, SessionState::kDone);
  EXPECT_EQ(update.error, "e");
  EXPECT_EQ(update.samples, 3u);
  EXPECT_EQ(update.last_sequence, 9u);
  EXPECT_EQ(update.started_ns, 11);
  (*client)->Close();
  ASSERT_TRUE(store.ingest.state.Wait([&] { return store.ingest.disconnected == 1; }));
  EXPECT_EQ(store.ingest.connections.at(0)->StartSession(spec).code(), StatusCode::kUnavailable);
  EXPECT_EQ((*client)->Send(RandomData(1).Batch(1)).code(), StatusCode::kCancelled);
  EXPECT_TRUE(heard.closed.empty());
}

TEST(IngestTest, RejectsGoOnWhileOtherErrorsEndTheStream) {
  FakeStore store;
  store.ingest.on_batch = [](const profile::Batch& batch) -> StatusOr<Ack> {
    if (batch.sequence == 2) return InvalidArgumentError("clock is wrong");
    if (batch.sequence == 4) return ResourceExhaustedError("disk full");
    return Ack{.sequence = batch.sequence, .duplicate = batch.sequence == 1};
  };
  Heard heard;
  const auto client = IngestClient::Connect(store.target, {}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  RandomData random(1);
  for (uint64_t sequence = 1; sequence <= 4; ++sequence) ASSERT_TRUE((*client)->Send(random.Batch(sequence)).ok());
  ASSERT_TRUE(heard.state.Wait([&] { return heard.closed.size() == 1; }));
  EXPECT_THAT(heard.rejects, ElementsAre(std::make_pair(uint64_t{2}, std::string("clock is wrong"))));
  ASSERT_EQ(heard.acks.size(), 2u);
  EXPECT_TRUE(heard.acks[0].duplicate);
  EXPECT_EQ(heard.acks[1].sequence, 3u);
  EXPECT_FALSE(heard.acks[1].duplicate);
  EXPECT_EQ(heard.closed[0].code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(heard.closed[0]), HasSubstr("disk full"));
  EXPECT_EQ((*client)->Send(random.Batch(5)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ((*client)->status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(store.ingest.batches.size(), 4u);
}

TEST(IngestTest, ABatchThatCannotBeSentLeavesTheConnectionAlone) {
  FakeStore store;
  Heard heard;
  const auto client = IngestClient::Connect(store.target, {}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  profile::Batch deep = RandomData(1).Batch(1);
  profile::StackId stack = profile::kEmptyStack;
  for (int i = 0; i < 10'000; ++i) stack = deep.dictionary.InternStack(stack, 0);
  deep.profiles = {{.series = 0, .samples = {{stack, 1, 1}}}};
  EXPECT_EQ((*client)->Send(deep).code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE((*client)->Send(RandomData(2).Batch(2)).ok());
  ASSERT_TRUE(heard.state.Wait([&] { return heard.acks.size() == 1; }));
  EXPECT_EQ(BatchText(store.ingest.batches[0]), BatchText(RandomData(2).Batch(2)));
}

TEST(IngestTest, NobodyThere) {
  const Status status = IngestClient::Connect("127.0.0.1:1", {}, kHello, {}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_THAT(Message(status), HasSubstr("no store answers at 127.0.0.1:1"));
  EXPECT_THAT(Message(status), HasSubstr("pyrometer store"));
}

TEST(IngestTest, AStoreThatNeverAnswers) {
  // Accepts nothing: the handshake of HTTP/2 never ends.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string target = StrFormat("127.0.0.1:%d", ntohs(address.sin_port));
  const uint64_t before = MonotonicNowNs();
  const Status status = IngestClient::Connect(Dial(target, {}).value(),
                                              {.target = target, .connect_timeout_ns = kNsPerSecond / 2}, kHello, {})
                            .status();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(Message(status), HasSubstr(target));
  EXPECT_LT(MonotonicNowNs() - before, 5 * kNsPerSecond);
  close(listener);
}

TEST(IngestTest, AStoreThatStopsReading) {
  FakeStore store;
  Waiter gate;
  bool open = false;
  store.ingest.on_batch = [&](const profile::Batch& batch) -> StatusOr<Ack> {
    gate.Wait([&] { return open; });
    return Ack{.sequence = batch.sequence};
  };
  Heard heard;
  const auto client =
      IngestClient::Connect(Dial(store.target, {}).value(),
                            {.target = store.target, .send_timeout_ns = kNsPerSecond / 2}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  // More than the buffers of HTTP/2 and of the kernel hold.
  profile::Batch batch = RandomData(1).Batch(1);
  Status status;
  for (uint64_t sequence = 1; sequence < 200 && status.ok(); ++sequence) {
    batch.sequence = sequence;
    auto& d = batch.dictionary;
    for (int i = 0; i < 20; ++i) {
      const std::string name = StrFormat("%d.%d", sequence, i) + std::string(50'000, 'x');
      const profile::FrameId frame =
          d.InternFrame({.lines = {{.function = d.InternFunction({.name = d.InternString(name)})}}});
      batch.histograms.push_back({.series = 0, .exemplars = {{.stack = d.InternStack(profile::kEmptyStack, frame)}}});
    }
    status = (*client)->Send(batch);
  }
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status;
  EXPECT_TRUE(heard.state.Wait([&] { return heard.closed.size() == 1; }));
  gate.Change([&] { open = true; });
}

TEST(IngestTest, TheStoreGoesAway) {
  auto store = std::make_unique<FakeStore>();
  Heard heard;
  const auto client = IngestClient::Connect(store->target, {}, kHello, heard.Callbacks());
  ASSERT_TRUE(client.ok()) << client.status();
  const uint64_t before = MonotonicNowNs();
  store->server->Shutdown();
  EXPECT_LT(MonotonicNowNs() - before, 1 * kNsPerSecond) << "agents must not hold up the end of the store";
  ASSERT_TRUE(heard.state.Wait([&] { return heard.closed.size() == 1; }));
  EXPECT_FALSE(heard.closed[0].ok());
  EXPECT_EQ(store->ingest.disconnected, 1);
  EXPECT_FALSE((*client)->Send(RandomData(1).Batch(1)).ok());
  EXPECT_EQ((*client)->Send(RandomData(1).Batch(1)), heard.closed[0]);
}

TEST(IngestTest, RefusedByTheHandler) {
  FakeStore store;
  store.ingest.refuse = AlreadyExistsError("agent-1 is connected from elsewhere");
  const Status status = IngestClient::Connect(store.target, {}, kHello, {}).status();
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists) << status;
  EXPECT_EQ(store.ingest.disconnected, 0);
}

TEST(IngestTest, Tokens) {
  FakeStore store({.token = "right"});
  const Status none = IngestClient::Connect(store.target, {}, kHello, {}).status();
  EXPECT_EQ(none.code(), StatusCode::kUnauthenticated) << none;
  EXPECT_THAT(Message(none), HasSubstr("asks for a token"));
  const Status wrong = IngestClient::Connect(store.target, {.token = "wrong"}, kHello, {}).status();
  EXPECT_EQ(wrong.code(), StatusCode::kUnauthenticated) << wrong;
  EXPECT_THAT(Message(wrong), HasSubstr("another token"));
  EXPECT_TRUE(IngestClient::Connect(store.target, {.token = "right"}, kHello, {}).ok());
}

TEST(IngestTest, HelloWithoutIdIsRefused) {
  FakeStore store;
  EXPECT_EQ(IngestClient::Connect(store.target, {}, {.node = "n"}, {}).status().code(), StatusCode::kInvalidArgument);
}

// ---- a stranger on the wire -----------------------------------------------------------------------

struct RawAgent {
  explicit RawAgent(const std::string& target) : channel(Dial(target, {}).value()), stub(v1::Ingest::NewStub(channel)) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    stream = stub->Stream(&context);
  }
  v1::AgentMessage Hello() {
    v1::AgentMessage message;
    message.mutable_hello()->set_protocol(kProtocolVersion);
    message.mutable_hello()->set_agent_id("raw");
    message.mutable_hello()->set_node("raw");
    return message;
  }
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Ingest::Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::StoreMessage>> stream;
};

TEST(RawIngestTest, MalformedBatchIsRejectedAndEndsTheStream) {
  FakeStore store;
  RawAgent agent(store.target);
  ASSERT_TRUE(agent.stream->Write(agent.Hello()));
  v1::StoreMessage reply;
  ASSERT_TRUE(agent.stream->Read(&reply));
  EXPECT_EQ(reply.welcome().protocol(), kProtocolVersion);
  v1::AgentMessage bad;
  bad.mutable_batch()->set_sequence(5);
  bad.mutable_batch()->add_counters()->set_series(3);
  ASSERT_TRUE(agent.stream->Write(bad));
  ASSERT_TRUE(agent.stream->Read(&reply));
  EXPECT_EQ(reply.reject().sequence(), 5u);
  EXPECT_THAT(reply.reject().message(), HasSubstr("series 3"));
  EXPECT_FALSE(agent.stream->Read(&reply));
  EXPECT_EQ(agent.stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(store.ingest.batches.empty());
  EXPECT_EQ(store.ingest.malformed.size(), 1u);
}

TEST(RawIngestTest, FirstMessageMustBeHello) {
  FakeStore store;
  RawAgent agent(store.target);
  v1::AgentMessage message;
  message.mutable_batch()->set_sequence(1);
  agent.stream->Write(message);
  v1::StoreMessage reply;
  EXPECT_FALSE(agent.stream->Read(&reply));
  EXPECT_EQ(agent.stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(store.ingest.connections.empty());
}

TEST(RawIngestTest, ProtocolOfAnotherVersion) {
  FakeStore store;
  for (const uint32_t protocol : {0u, 2u}) {
    RawAgent agent(store.target);
    v1::AgentMessage hello = agent.Hello();
    hello.mutable_hello()->set_protocol(protocol);
    agent.stream->Write(hello);
    v1::StoreMessage reply;
    EXPECT_FALSE(agent.stream->Read(&reply));
    const grpc::Status status = agent.stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(status.error_message(), HasSubstr(protocol == 0 ? "upgrade the agent" : "upgrade the store"));
  }
}

TEST(RawIngestTest, MessagesAboveTheLimitEndTheStream) {
  FakeStore store;
  RawAgent agent(store.target);
  ASSERT_TRUE(agent.stream->Write(agent.Hello()));
  v1::StoreMessage reply;
  ASSERT_TRUE(agent.stream->Read(&reply));
  // Our channel would not send it: one without a limit does.
  v1::AgentMessage large;
  large.mutable_batch()->set_sequence(1);
  for (int i = 0; i < 700; ++i) large.mutable_batch()->add_strings(std::string(50'000, 'x'));
  agent.stream->Write(large);
  EXPECT_FALSE(agent.stream->Read(&reply));
  EXPECT_EQ(agent.stream->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(store.ingest.batches.empty());
}

}  // namespace
}  // namespace pyrometer::rpc

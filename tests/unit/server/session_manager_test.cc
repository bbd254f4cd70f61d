#include "userspace/server/session_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

using rpc::SessionState;
using ::testing::HasSubstr;

class FakeConnection : public rpc::AgentConnection {
 public:
  Status StartSession(const rpc::SessionSpec& spec) override {
    started.push_back(spec);
    return broken ? UnavailableError("gone") : OkStatus();
  }
  Status StopSession(const std::string& id) override {
    stopped.push_back(id);
    return broken ? UnavailableError("gone") : OkStatus();
  }
  void Cancel() override {}
  bool broken = false;
  std::vector<rpc::SessionSpec> started;
  std::vector<std::string> stopped;
};

class SessionManagerTest : public ::testing::Test {
 protected:
  std::string Start(rpc::SessionSpec spec = {}) {
    const StatusOr<rpc::SessionInfo> info = manager_.Start(spec, agent_);
    EXPECT_TRUE(info.ok()) << info.status();
    return info.ok() ? info->spec.id : "";
  }
  SessionState State(const std::string& id) { return manager_.Get(id)->state; }
  void Update(const std::string& id, SessionState state, uint64_t last_sequence = 0, uint64_t durable = 0) {
    manager_.Update("a1",
                    {.id = id,
                     .state = state,
                     .error = state == SessionState::kFailed ? "no such pid" : "",
                     .samples = 5,
                     .last_sequence = last_sequence,
                     .started_ns = 77},
                    durable);
  }

  int64_t now_ = 1'000'000'000'000;
  SessionManager manager_{{.max_finished = 3, .max_running_per_node = 4, .now = [this] { return now_; }}};
  std::shared_ptr<FakeConnection> connection_ = std::make_shared<FakeConnection>();
  AgentRegistry::Online agent_{.key = "a1", .tenant = "", .agent_id = "a1", .node = "n1", .connection = connection_};
};

TEST_F(SessionManagerTest, RunsToItsEnd) {
  const std::string id = Start({.id = "ignored", .node = "x", .target = {.container = "shop"}});
  ASSERT_EQ(connection_->started.size(), 1u);
  EXPECT_EQ(connection_->started[0].id, id);
  EXPECT_NE(id, "ignored");
  EXPECT_EQ(connection_->started[0].node, "n1");
  EXPECT_EQ(connection_->started[0].duration_ns, kDefaultSessionNs);
  EXPECT_EQ(State(id), SessionState::kPending);
  Update(id, SessionState::kRunning);
  EXPECT_EQ(State(id), SessionState::kRunning);
  EXPECT_EQ(manager_.Get(id)->started_ns, 77);
  // Done only when its last batch is durable.
  Update(id, SessionState::kDone, 10, 8);
  EXPECT_EQ(State(id), SessionState::kRunning);
  manager_.Durable("a1", 9);
  EXPECT_EQ(State(id), SessionState::kRunning);
  manager_.Durable("other", 10);
  EXPECT_EQ(State(id), SessionState::kRunning);
  manager_.Durable("a1", 10);
  EXPECT_EQ(State(id), SessionState::kDone);
  EXPECT_EQ(manager_.Get(id)->samples, 5u);
  // Final is final.
  Update(id, SessionState::kFailed);
  EXPECT_EQ(State(id), SessionState::kDone);
}

TEST_F(SessionManagerTest, DoneAtOnceWhenAlreadyDurable) {
  const std::string id = Start();
  Update(id, SessionState::kDone, 8, 8);
  EXPECT_EQ(State(id), SessionState::kDone);
}

TEST_F(SessionManagerTest, FailsWithTheAgentsReason) {
  const std::string id = Start();
  Update(id, SessionState::kFailed);
  EXPECT_EQ(State(id), SessionState::kFailed);
  EXPECT_EQ(manager_.Get(id)->error, "no such pid");
}

TEST_F(SessionManagerTest, FailedInTheMiddleWaitsForWhatItTook) {
  const std::string id = Start();
  Update(id, SessionState::kRunning);
  Update(id, SessionState::kFailed, 10, 9);
  EXPECT_EQ(State(id), SessionState::kRunning);
  manager_.Durable("a1", 10);
  EXPECT_EQ(State(id), SessionState::kFailed);
  EXPECT_EQ(manager_.Get(id)->error, "no such pid");
  EXPECT_EQ(manager_.Get(id)->samples, 5u);
}

TEST_F(SessionManagerTest, TheReasonOutlivesSamplesThatNeverArrive) {
  const std::string id = Start({.duration_ns = 10 * kNsPerSecond});
  Update(id, SessionState::kFailed, 10, 9);
  now_ += 131 * static_cast<int64_t>(kNsPerSecond);
  EXPECT_EQ(State(id), SessionState::kFailed);
  EXPECT_EQ(manager_.Get(id)->error, "no such pid; node n1 finished, but its samples have not arrived");
}

TEST_F(SessionManagerTest, Stop) {
  const std::string id = Start();
  ASSERT_TRUE(manager_.Stop(id).ok());
  EXPECT_EQ(connection_->stopped, std::vector<std::string>{id});
  EXPECT_EQ(State(id), SessionState::kPending);
  Update(id, SessionState::kStopped, 3, 3);
  EXPECT_EQ(State(id), SessionState::kStopped);
  ASSERT_TRUE(manager_.Stop(id).ok());
  EXPECT_EQ(connection_->stopped.size(), 1u) << "a finished session is not stopped again";
  EXPECT_EQ(manager_.Stop("nope").status().code(), StatusCode::kNotFound);
}

TEST_F(SessionManagerTest, StopOfALostNodeFailsTheSession) {
  const std::string id = Start();
  connection_->broken = true;
  ASSERT_TRUE(manager_.Stop(id).ok());
  EXPECT_EQ(State(id), SessionState::kFailed);
}

TEST_F(SessionManagerTest, DisconnectFailsWhatRunsButNotWhatOnlyWaits) {
  const std::string runs = Start(), waits = Start(), other = Start();
  Update(runs, SessionState::kRunning);
  Update(waits, SessionState::kDone, 5, 2);
  manager_.AgentGone("other");
  EXPECT_EQ(State(runs), SessionState::kRunning);
  manager_.AgentGone("a1");
  EXPECT_EQ(State(runs), SessionState::kFailed);
  EXPECT_THAT(manager_.Get(runs)->error, HasSubstr("disconnected"));
  EXPECT_EQ(State(other), SessionState::kFailed);
  EXPECT_EQ(State(waits), SessionState::kRunning);
  manager_.Durable("a1", 5);
  EXPECT_EQ(State(waits), SessionState::kDone);
}

TEST_F(SessionManagerTest, Timeouts) {
  const std::string silent = Start(), endless = Start({.duration_ns = 10 * kNsPerSecond});
  Update(endless, SessionState::kRunning);
  now_ += 29 * static_cast<int64_t>(kNsPerSecond);
  EXPECT_EQ(State(silent), SessionState::kPending);
  now_ += 2 * static_cast<int64_t>(kNsPerSecond);
  EXPECT_EQ(State(silent), SessionState::kFailed);
  EXPECT_THAT(manager_.Get(silent)->error, HasSubstr("did not answer"));
  EXPECT_EQ(State(endless), SessionState::kRunning);
  now_ += 100 * static_cast<int64_t>(kNsPerSecond);
  EXPECT_EQ(State(endless), SessionState::kFailed);
  EXPECT_THAT(manager_.Get(endless)->error, HasSubstr("did not finish"));
}

TEST_F(SessionManagerTest, StrangersChangeNothing) {
  const std::string id = Start();
  manager_.Update("a2", {.id = id, .state = SessionState::kDone}, 100);
  EXPECT_EQ(State(id), SessionState::kPending);
  manager_.Update("a1", {.id = "unknown", .state = SessionState::kDone}, 100);
}

TEST_F(SessionManagerTest, Limits) {
  const auto code = [&](rpc::SessionSpec spec) { return manager_.Start(spec, agent_).status().code(); };
  EXPECT_EQ(code({.duration_ns = kMaxSessionNs + 1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.frequency_hz = kMaxSessionHz + 1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.probes = {"gpu"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.probes = {"cpu", "tcp"}}), StatusCode::kInvalidArgument);  // agents have it always on
  EXPECT_EQ(code({.target = {.pid = 1, .container = "x"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.target = {.container = std::string(2000, 'x')}}), StatusCode::kInvalidArgument);
  for (int i = 0; i < 4; ++i) Start();
  EXPECT_EQ(code({}), StatusCode::kResourceExhausted);
  EXPECT_EQ(manager_.running_count(), 4u);
  EXPECT_EQ(manager_.started_count(), 4u);
}

TEST_F(SessionManagerTest, ALostConnectionLeavesNoSession) {
  connection_->broken = true;
  EXPECT_EQ(manager_.Start({}, agent_).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(manager_.List().empty());
  EXPECT_EQ(manager_.started_count(), 0u);
}

TEST_F(SessionManagerTest, HistoryIsBounded) {
  std::vector<std::string> ids;
  const std::string running = Start();
  for (int i = 0; i < 10; ++i) {
    ids.push_back(Start());
    Update(ids.back(), SessionState::kDone);
  }
  const std::vector<rpc::SessionInfo> list = manager_.List();
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0].spec.id, ids[9]) << "newest first";
  EXPECT_EQ(list[2].spec.id, ids[7]);
  EXPECT_EQ(list[3].spec.id, running) << "what runs is never forgotten";
  EXPECT_EQ(manager_.Get(ids[0]).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace pyrometer::server

#include "userspace/agent/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <utility>

#include "userspace/base/clock.h"

namespace pyrometer::agent {
namespace {

using ::testing::HasSubstr;

// Delivers one sample per Poll until it is told to fail.
class FakeSampler final : public kernel::CpuSampler {
 public:
  struct Script {
    Status poll, stop;
    int polls = 0, stops = 0;
  };
  explicit FakeSampler(Script* script) : script_(*script) {}

  Status Poll(std::chrono::milliseconds, const Callback& callback) override {
    ++script_.polls;
    RETURN_IF_ERROR(script_.poll);
    static constexpr std::array<uint64_t, 1> kFrames = {0xffffffff81000010};
    kernel::CpuSample sample;
    sample.time_ns = 1;
    sample.process = {1, 1};
    sample.kernel_frames = kFrames;
    sample.user_stop = PYRO_STOP_NOT_TAKEN;
    sample.period_ns = 10;
    callback(sample);
    return OkStatus();
  }
  Status Stop() override {
    ++script_.stops;
    return script_.stop;
  }
  Status AddProcess(uint32_t) override { return OkStatus(); }
  Status SetCgroups(const std::vector<uint64_t>&, const std::vector<uint64_t>&) override { return OkStatus(); }
  kernel::SampleCounters Counters() const override { return {}; }
  std::string_view source() const override { return "made up"; }
  std::vector<uint32_t> cpus() const override { return {0}; }

 private:
  Script& script_;
};

class SessionTest : public ::testing::Test {
 protected:
  Session Make(uint64_t duration_ns) {
    SessionSpec spec;
    spec.id = "s1";
    spec.duration_ns = duration_ns;
    return Session(spec, std::make_unique<FakeSampler>(&script_), nullptr, &resolver_, 10 * kNsPerSecond);
  }
  void StepAndFold(Session& session, uint64_t later_ns = 0) {
    session.Step(MonotonicNowNs() + later_ns, 0);
    session.track().Fold(0, UINT64_MAX, session.ended());
  }

  FakeSampler::Script script_;
  process::ProcessTable processes_{process::ProcessTable::Options{}};
  SampleResolver resolver_{&processes_};
};

TEST_F(SessionTest, EndsWhenItsTimeIsOver) {
  Session session = Make(60 * kNsPerSecond);
  StepAndFold(session);
  EXPECT_EQ(session.Report().state, SessionState::kRunning);
  StepAndFold(session, 61 * kNsPerSecond);
  EXPECT_TRUE(session.ended());
  EXPECT_EQ(script_.stops, 1);
  const SessionReport report = session.Report();
  EXPECT_EQ(report.id, "s1");
  EXPECT_EQ(report.state, SessionState::kDone);
  EXPECT_EQ(report.error, "");
  EXPECT_EQ(report.samples, 2u);  // the ring is read once more after the end
  StepAndFold(session, 62 * kNsPerSecond);
  EXPECT_EQ(script_.polls, 2);
}

TEST_F(SessionTest, StopsWhenAsked) {
  Session session = Make(60 * kNsPerSecond);
  session.RequestStop();
  EXPECT_FALSE(session.ended());
  StepAndFold(session);
  EXPECT_EQ(session.Report().state, SessionState::kStopped);
  EXPECT_EQ(session.Report().samples, 1u);
}

TEST_F(SessionTest, AProbeThatCannotBeReadEndsItWithTheReason) {
  Session session = Make(60 * kNsPerSecond);
  StepAndFold(session);
  script_.poll = UnavailableError("cannot read samples: Input/output error");
  StepAndFold(session);
  EXPECT_TRUE(session.ended());
  EXPECT_EQ(script_.stops, 1);
  const SessionReport report = session.Report();
  EXPECT_EQ(report.state, SessionState::kFailed);
  EXPECT_THAT(report.error, HasSubstr("cpu_sampler"));
  EXPECT_THAT(report.error, HasSubstr("cannot read samples: Input/output error"));
  EXPECT_EQ(report.samples, 1u) << "what was taken before stays";
}

TEST_F(SessionTest, AFailureAtTheEndIsNotHiddenByTheEnd) {
  Session session = Make(60 * kNsPerSecond);
  StepAndFold(session);
  script_.poll = UnavailableError("the ring is gone");
  session.RequestStop();
  StepAndFold(session);
  EXPECT_EQ(session.Report().state, SessionState::kFailed);
  EXPECT_THAT(session.Report().error, HasSubstr("the ring is gone"));
}

TEST_F(SessionTest, AProbeThatCannotBeStopped) {
  Session session = Make(60 * kNsPerSecond);
  script_.stop = InternalError("it goes on");
  StepAndFold(session, 61 * kNsPerSecond);
  EXPECT_EQ(session.Report().state, SessionState::kFailed);
  EXPECT_THAT(session.Report().error, HasSubstr("it goes on"));
}

}  // namespace
}  // namespace pyrometer::agent

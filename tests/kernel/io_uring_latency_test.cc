// Latency of io_uring's operations against a program that makes exactly so many, with known delays.
#include "userspace/kernel/io_uring_latency.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <thread>

#include "tests/kernel/harness.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::TestCgroup;
using ::pyrometer::testing::Workload;

// What one cgroup did, by operation.
struct Totals {
  std::map<std::string, uint64_t> count, sum_ns, max_ns;
  std::map<std::string, uint32_t> first_bucket;
  std::map<std::string, std::map<int, uint64_t>> errors;

  void Add(const IoUringWindow& w) {
    const std::string name = IoUringOperationName(w.key);
    count[name] += w.latency.count;
    sum_ns[name] += w.latency.sum_ns;
    max_ns[name] = std::max(max_ns[name], w.latency.max_ns);
    uint64_t in_buckets = 0;
    for (const auto& b : w.latency.buckets) in_buckets += b.count;
    EXPECT_EQ(in_buckets, w.latency.count);
    for (const auto& e : w.errors) errors[name][e.error] += e.count;
  }
};

class IoUringLatencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS("tp_btf");
    SKIP_UNLESS("io_uring");
    if (syscall(SYS_io_uring_setup, 0, nullptr) < 0 && (errno == EPERM || errno == ENOSYS)) {
      GTEST_SKIP() << "io_uring is disabled (kernel.io_uring_disabled): " << std::strerror(errno);
    }
    auto probe = IoUringLatency::Start({});
    ASSERT_TRUE(probe.ok()) << probe.status();
    probe_ = *std::move(probe);
    before_ = probe_->Counters();
  }

  // Runs the workload in a cgroup of its own; the nanoseconds it says it took.
  uint64_t Run(const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {Workload("ring")};
    command.insert(command.end(), arguments.begin(), arguments.end());
    Child child(std::move(command));
    EXPECT_TRUE(cgroup_.Add(child.pid()));
    child.Go();
    child.CloseInput();
    const std::string line = child.ReadLine();
    const int status = child.Wait();
    EXPECT_EQ(status, 0) << line;
    const std::vector<std::string_view> words = Split(line, ' ');
    return words.size() == 3 ? ParseUint64(words[2]).value_or(0) : 0;
  }

  Totals Drain() {
    Totals totals;
    EXPECT_TRUE(probe_
                    ->Drain([&](const IoUringWindow& w) {
                      if (w.key.cgroup_id == cgroup_.id()) totals.Add(w);
                    })
                    .ok());
    return totals;
  }

  uint64_t OpenHere(uint64_t* youngest_ns = nullptr) {
    uint64_t open = 0;
    if (youngest_ns != nullptr) *youngest_ns = UINT64_MAX;
    EXPECT_TRUE(probe_
                    ->ReadOpen([&](const IoUringKey& key, uint64_t age_ns) {
                      if (key.cgroup_id != cgroup_.id()) return;
                      EXPECT_EQ(IoUringOperationName(key), "io_uring:read");
                      if (youngest_ns != nullptr) *youngest_ns = std::min(*youngest_ns, age_ns);
                      ++open;
                    })
                    .ok());
    return open;
  }

  // Nothing of ours is open, and every request and operation is in exactly one sum.
  void ExpectAccounts() {
    EXPECT_EQ(OpenHere(), 0u);
    uint64_t open = 0;
    EXPECT_TRUE(probe_->ReadOpen([&](const IoUringKey&, uint64_t) { ++open; }).ok());
    const IoUringCounters c = probe_->Counters();
    EXPECT_EQ(c.submitted, c.ended + c.silent + c.untracked + c.unseen + open);
    EXPECT_EQ(c.ended + c.further, c.recorded + c.folded + c.lost);
    EXPECT_EQ(c.lost, 0u);
    EXPECT_EQ(c.errors_lost, 0u);
  }

  TestCgroup cgroup_{"ring"};
  std::unique_ptr<IoUringLatency> probe_;
  IoUringCounters before_;
};

TEST_F(IoUringLatencyTest, CountsOfWhatCompletesAtOnceAreExact) {
  const uint64_t took_ns = Run({"nop", "10000"});
  const Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:nop", 10000}}));
  EXPECT_TRUE(totals.errors.empty());
  EXPECT_LT(totals.sum_ns.at("io_uring:nop"), took_ns);
  std::printf("[ measured ] a nop and its two system calls %llu ns, of them the operation %llu\n",
              static_cast<unsigned long long>(took_ns / 10000),
              static_cast<unsigned long long>(totals.sum_ns.at("io_uring:nop") / 10000));
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, DelaysAreTrue) {
  for (const std::string mode : {"timeout", "pipe", "worker"}) {
    const uint64_t took_ns = Run({mode, "20", "15000"});
    Totals totals = Drain();
    const std::string name = mode == "timeout" ? "io_uring:timeout" : "io_uring:read";
    EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{name, 20}})) << mode;
    EXPECT_GE(totals.sum_ns[name], 20 * 15'000'000u) << mode;
    EXPECT_LE(totals.sum_ns[name], took_ns) << mode;
    EXPECT_GE(totals.sum_ns[name], took_ns / 100 * 95) << mode;
    if (mode == "timeout") {
      EXPECT_EQ(totals.errors[name][ETIME], 20u);
    } else {
      EXPECT_TRUE(totals.errors[name].empty());
    }
  }
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, ALinkedRequestWaitsForTheOneBeforeIt) {
  Run({"linked", "10", "10000"});
  Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:nop", 10}, {"io_uring:timeout", 10}}));
  EXPECT_GE(totals.sum_ns["io_uring:nop"], totals.sum_ns["io_uring:timeout"] / 100 * 95);
  EXPECT_GE(totals.sum_ns["io_uring:nop"], 10 * 10'000'000u);
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, CancelledAndRefusedOnes) {
  Run({"cancel", "30"});
  Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:async_cancel", 30}, {"io_uring:poll_add", 30}}));
  EXPECT_EQ(totals.errors["io_uring:poll_add"][ECANCELED], 30u);
  Run({"refused", "40"});
  totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:op_250", 40}}));
  EXPECT_EQ(totals.errors["io_uring:op_250"][EINVAL], 40u);
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, OneRequestWithManyCompletions) {
  for (const std::string mode : {"poll", "accept"}) {
    const uint64_t took_ns = Run({mode, "25", "2000"});
    Totals totals = Drain();
    const std::string name = mode == "poll" ? "io_uring:poll_add" : "io_uring:accept";
    // Each completion, and the one that says that it was cancelled.
    EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{name, 26}, {"io_uring:async_cancel", 1}})) << mode;
    EXPECT_EQ(totals.errors[name], (std::map<int, uint64_t>{{ECANCELED, 1}})) << mode;
    // It was waiting all the time.
    EXPECT_GE(totals.sum_ns[name], 25 * 2'000'000u) << mode;
    EXPECT_LE(totals.sum_ns[name], took_ns) << mode;
    EXPECT_GE(totals.sum_ns[name], took_ns / 100 * 80) << mode;
  }
  EXPECT_EQ(probe_->Counters().further - before_.further, 50u);
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, ATimeoutThatTicks) {
  std::vector<std::string> command = {Workload("ring"), "ticks", "12", "3000"};
  Child child(std::move(command));
  ASSERT_TRUE(cgroup_.Add(child.pid()));
  child.Go();
  child.CloseInput();
  const std::string line = child.ReadLine();
  if (child.Wait() != 0) GTEST_SKIP() << "kernel without multishot timeouts (6.4)";
  Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:timeout", 12}})) << line;
  EXPECT_EQ(totals.errors["io_uring:timeout"][ETIME], 12u);
  EXPECT_GE(totals.sum_ns["io_uring:timeout"], 11 * 3'000'000u);
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, WhatAsksForNoCompletionIsCountedAndNotMeasured) {
  Run({"skip", "50"});
  Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:nop", 1}}));
  EXPECT_EQ(probe_->Counters().silent - before_.silent, 50u);
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, CompletionsThatDoNotFitIntoTheRing) {
  Run({"overflow", "100"});
  Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:nop", 100}}));
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, SubmittedByTheKernelsOwnThread) {
  Run({"sqpoll", "300"});
  Totals totals = Drain();
  EXPECT_EQ(totals.count, (std::map<std::string, uint64_t>{{"io_uring:nop", 300}}));
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, InFlightUntilTheProcessIsKilled) {
  uint64_t youngest_ns = 0;
  {
    Child child({Workload("ring"), "hang", "64"});
    ASSERT_TRUE(cgroup_.Add(child.pid()));
    child.Go();
    child.CloseInput();
    ASSERT_THAT(child.ReadLine(), ::testing::StartsWith("hang 64 "));
    std::this_thread::sleep_for(200ms);
    EXPECT_EQ(OpenHere(&youngest_ns), 64u);
    EXPECT_GE(youngest_ns, 200 * kNsPerMs);
    EXPECT_LT(youngest_ns, 60 * kNsPerSecond);
    EXPECT_TRUE(Drain().count.empty());
    child.Signal(SIGKILL);
    child.Wait();
  }
  // The kernel ends a ring's requests some time after the process.
  uint64_t ended = 0;
  for (int i = 0; i < 100 && ended < 64; ++i) {
    std::this_thread::sleep_for(50ms);
    Totals totals = Drain();
    ended += totals.count["io_uring:read"];
  }
  EXPECT_EQ(ended, 64u);
  ExpectAccounts();
}

TEST_F(IoUringLatencyTest, MoreInFlightThanThereIsRoomFor) {
  ASSERT_TRUE(probe_->Stop().ok());
  auto small = IoUringLatency::Start({.max_requests = 16});
  ASSERT_TRUE(small.ok()) << small.status();
  probe_ = *std::move(small);
  Child child({Workload("ring"), "hang", "64"});
  ASSERT_TRUE(cgroup_.Add(child.pid()));
  child.Go();
  child.CloseInput();
  ASSERT_THAT(child.ReadLine(), ::testing::StartsWith("hang 64 "));
  EXPECT_GE(probe_->Counters().untracked, 48u);
  child.Signal(SIGKILL);
  child.Wait();
  for (int i = 0; i < 100 && OpenHere() > 0; ++i) std::this_thread::sleep_for(50ms);
  ExpectAccounts();
}

}  // namespace
}  // namespace pyrometer::kernel

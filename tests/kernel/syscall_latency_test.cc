// System call latency against a workload that makes exactly so many calls, with known delays.
#include "userspace/kernel/syscall_latency.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "tests/kernel/harness.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/call_arguments.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::TestCgroup;
using ::pyrometer::testing::Workload;

// What one cgroup did over all windows so far, by call name.
struct Totals {
  std::map<std::string, uint64_t> count, sum_ns, max_ns;
  std::map<std::string, std::map<uint32_t, uint64_t>> buckets;
  std::map<std::string, std::map<int, uint64_t>> errors;

  void Add(const SyscallWindow& w) {
    const std::string name = SyscallName(w.key);
    count[name] += w.latency.count;
    sum_ns[name] += w.latency.sum_ns;
    max_ns[name] = std::max(max_ns[name], w.latency.max_ns);
    uint64_t in_buckets = 0;
    for (const auto& b : w.latency.buckets) {
      EXPECT_GT(b.count, 0u);
      buckets[name][b.index] += b.count;
      in_buckets += b.count;
    }
    EXPECT_EQ(in_buckets, w.latency.count);
    for (const auto& e : w.errors) errors[name][e.error] += e.count;
  }
};

// For tests that want their own exemplars also when the rest of the machine makes thousands.
constexpr uint32_t kRoomForAll = 64 << 20, kBudgetForAll = 1 << 20;

class SyscallLatencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS("tp_btf");
    SKIP_UNLESS("task_storage");
  }
};

TEST_F(SyscallLatencyTest, CountsAreExactAndLatenciesAreTrue) {
  auto probe = SyscallLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("sys");
  Child mix({Workload("syscall_mix"), "--wait", "50000", "15", "40", "777"});
  ASSERT_TRUE(cgroup.Add(mix.pid()));
  mix.Go();
  std::this_thread::sleep_for(50ms);  // the loader's own calls are behind it; now it waits for its input

  Totals before, totals;
  ASSERT_TRUE((*probe)
                  ->Drain([&](const SyscallWindow& w) {
                    if (w.key.cgroup_id == cgroup.id()) before.Add(w);
                  })
                  .ok());
  mix.CloseInput();
  uint64_t slow_calls = 0, slow_reads = 0;
  const auto on_slow = [&](const SlowCall& call) {
    if (call.key.cgroup_id != cgroup.id() || !call.slow) return;
    ++slow_calls;
    EXPECT_GE(call.latency_ns, 1'000'000u);
    EXPECT_GT(call.time_ns, call.latency_ns);
    EXPECT_FALSE(call.comm.empty());
    if (SyscallName(call.key) == "read" && call.process.tgid == static_cast<uint32_t>(mix.pid())) {
      ++slow_reads;
      EXPECT_EQ(call.result, 1);
      EXPECT_GT(call.process.start_time_ns, 0u);
      // syscall() in the C library has no frame of its own: the caller of slow_read at least is there.
      EXPECT_GE(call.user_frames.size(), 2u);
    }
  };
  // Windows much shorter than the run: nothing may be lost or doubled between them.
  const auto end = std::chrono::steady_clock::now() + 2s;
  while (std::chrono::steady_clock::now() < end) {
    ASSERT_TRUE((*probe)
                    ->Drain([&](const SyscallWindow& w) {
                      if (w.key.cgroup_id == cgroup.id()) totals.Add(w);
                    })
                    .ok());
    ASSERT_TRUE((*probe)->PollExemplars(on_slow).ok());
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_EQ(mix.ReadLine(), "done");
  EXPECT_EQ(mix.Wait(), 0);
  ASSERT_TRUE((*probe)
                  ->Drain([&](const SyscallWindow& w) {
                    if (w.key.cgroup_id == cgroup.id()) totals.Add(w);
                  })
                  .ok());

  EXPECT_EQ(before.count["getppid"], 0u);
  EXPECT_EQ(totals.count["getppid"], 50000u);
  EXPECT_EQ(totals.count["nanosleep"], 15u);
  EXPECT_EQ(totals.count["read"], 40u);
  EXPECT_EQ(totals.count["close"], 777u);
  EXPECT_EQ(totals.errors["close"][EBADF], 777u);
  EXPECT_TRUE(totals.errors["getppid"].empty());

  // 20 ms sleeps: a bucket is at most 1/16 wide; a busy machine oversleeps, none undersleeps.
  EXPECT_GE(totals.sum_ns["nanosleep"], 15u * 20'000'000u);
  EXPECT_LT(totals.sum_ns["nanosleep"], 15u * 80'000'000u);
  EXPECT_GE(totals.max_ns["nanosleep"], 20'000'000u);
  for (const auto& [index, count] : totals.buckets["nanosleep"]) {
    // 20,000,000 lies in octave 21 (2^24 … 2^25): bucket 21*16 + 3.
    EXPECT_GE(index, 21u * 16 + 3) << count;
  }
  // Reads of a pipe that is fed each 5 ms wait most of that time.
  EXPECT_GT(totals.sum_ns["read"], 40u * 3'000'000u);
  EXPECT_LT(totals.sum_ns["getppid"], 50000u * 100'000u);

  EXPECT_GT(slow_reads, 0u);
  EXPECT_LT(slow_calls, 15u + 40u + 100u);
  ASSERT_TRUE((*probe)->Stop().ok());
  ASSERT_TRUE((*probe)->PollExemplars([](const SlowCall&) {}).ok());
  const SyscallCounters c = (*probe)->Counters();
  EXPECT_EQ(c.lost, 0u);
  EXPECT_EQ(c.folded, 0u);
  EXPECT_EQ(c.start_lost, 0u);
  EXPECT_EQ(c.errors_lost, 0u);
  EXPECT_GT(c.never_returns, 0u);  // the workload ended
  EXPECT_GT(c.no_entry, 0u);       // its child's return from fork
  EXPECT_EQ(c.exemplars_taken, c.exemplars_delivered + c.exemplars_dropped);
}

TEST_F(SyscallLatencyTest, TheSumOverAllKeysIsWhatTheProbeRecorded) {
  auto probe = SyscallLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  uint64_t total = 0;
  const auto add = [&](const SyscallWindow& w) { total += w.latency.count; };
  for (int i = 0; i < 10; ++i) {
    for (int j = 0; j < 1000; ++j) syscall(SYS_getppid);
    ASSERT_TRUE((*probe)->Drain(add).ok());
  }
  ASSERT_TRUE((*probe)->Stop().ok());
  ASSERT_TRUE((*probe)->Drain(add).ok());
  const SyscallCounters c = (*probe)->Counters();
  EXPECT_GE(total, 10000u);
  EXPECT_EQ(total, c.recorded + c.folded);
  uint64_t again = 0;
  ASSERT_TRUE((*probe)->Drain([&](const SyscallWindow& w) { again += w.latency.count; }).ok());
  EXPECT_EQ(again, 0u);
}

TEST_F(SyscallLatencyTest, FullMapFoldsVisiblyAndLosesNothing) {
  auto probe = SyscallLatency::Start({.max_octaves = 4, .hot_octaves = 0});
  ASSERT_TRUE(probe.ok()) << probe.status();
  for (int j = 0; j < 1000; ++j) {
    syscall(SYS_getppid);
    syscall(SYS_getuid);
    syscall(SYS_getgid);
    syscall(SYS_gettid);
    syscall(SYS_getpgrp);
    usleep(10);
  }
  ASSERT_TRUE((*probe)->Stop().ok());
  uint64_t total = 0, folded = 0;
  ASSERT_TRUE((*probe)
                  ->Drain([&](const SyscallWindow& w) {
                    total += w.latency.count;
                    if (w.key.folded) {
                      folded += w.latency.count;
                      EXPECT_EQ(SyscallName(w.key), "other");
                    }
                  })
                  .ok());
  const SyscallCounters c = (*probe)->Counters();
  EXPECT_GT(folded, 1000u);
  EXPECT_EQ(folded, c.folded);
  EXPECT_EQ(total, c.recorded + c.folded);
  EXPECT_EQ(c.lost, 0u);
}

TEST_F(SyscallLatencyTest, IdleKeysGiveTheirEntriesBackAndStartAfresh) {
  auto probe = SyscallLatency::Start({.idle_windows_before_eviction = 2});
  ASSERT_TRUE(probe.ok()) << probe.status();
  const auto run = [&](uint64_t id, int closes) {
    uint64_t seen = 0;
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE((*probe)
                      ->Drain([&](const SyscallWindow& w) {
                        // The failing ones: the harness closes a pipe of its own in there.
                        if (w.key.cgroup_id != id || SyscallName(w.key) != "close") return;
                        for (const SyscallError& e : w.errors) seen += e.error == EBADF ? e.count : 0;
                      })
                      .ok());
    }
    EXPECT_EQ(seen, static_cast<uint64_t>(closes));
  };
  TestCgroup cgroup("idle");
  for (int round = 0; round < 3; ++round) {
    Child mix({Workload("syscall_mix_static"), "0", "0", "0", "100"});
    ASSERT_TRUE(cgroup.Add(mix.pid()));
    mix.Go();
    EXPECT_EQ(mix.Wait(), 0);
    run(cgroup.id(), 100);
  }
}

TEST_F(SyscallLatencyTest, PlacesOfHotHistogramsChangeHandsWithoutLosingACall) {
  // Eight places for all that the machine does: nearly every key finds its place taken, idle ones are given back after
  // one window, and busy keys drive out quiet ones.
  for (const uint32_t places : {0u, 8u, 64u}) {
    SCOPED_TRACE(places);
    auto probe = SyscallLatency::Start({.hot_octaves = places, .idle_windows_before_eviction = 1});
    ASSERT_TRUE(probe.ok()) << probe.status();
    TestCgroup cgroup("hot");
    Totals totals;
    uint64_t everything = 0;
    const auto drain = [&] {
      ASSERT_TRUE((*probe)
                      ->Drain([&](const SyscallWindow& w) {
                        everything += w.latency.count;
                        if (w.key.cgroup_id == cgroup.id()) totals.Add(w);
                      })
                      .ok());
    };
    constexpr int kCalls = 100000;
    std::vector<std::unique_ptr<Child>> crowd;
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 2; ++i) {
        crowd.push_back(std::make_unique<Child>(std::vector<std::string>{
            Workload("syscall_mix_static"), std::to_string(kCalls), "0", "0", std::to_string(kCalls)}));
        ASSERT_TRUE(cgroup.Add(crowd.back()->pid()));
        crowd.back()->Go();
      }
      for (int i = 0; i < 20; ++i) {
        drain();
        std::this_thread::sleep_for(2ms);
      }
    }
    for (auto& child : crowd) EXPECT_EQ(child->Wait(), 0);
    ASSERT_TRUE((*probe)->Stop().ok());
    drain();
    drain();
    EXPECT_EQ(totals.count["getppid"], 6u * kCalls);
    EXPECT_EQ(totals.errors["close"][EBADF], 6u * kCalls);
    EXPECT_GE(totals.count["close"], 6u * kCalls);
    const SyscallCounters c = (*probe)->Counters();
    EXPECT_EQ(everything, c.recorded + c.folded);
    EXPECT_EQ(c.lost, 0u);
  }
  EXPECT_FALSE(SyscallLatency::Start({.hot_octaves = 24}).ok());
}

TEST_F(SyscallLatencyTest, PausedItCountsNothingAndNoCallAcrossAPause) {
  auto started = SyscallLatency::Start({});
  ASSERT_TRUE(started.ok()) << started.status();
  SyscallLatency& probe = **started;
  TestCgroup cgroup("paused");
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), Workload("syscall_mix_static"));
    auto child = std::make_unique<Child>(std::move(arguments));
    EXPECT_TRUE(cgroup.Add(child->pid()));
    child->Go();
    return child;
  };
  Totals totals;
  const auto drain = [&] {
    ASSERT_TRUE(probe
                    .Drain([&](const SyscallWindow& w) {
                      if (w.key.cgroup_id == cgroup.id()) totals.Add(w);
                    })
                    .ok());
  };
  EXPECT_EQ(run({"1000", "0", "0", "0"})->Wait(), 0);
  // One call of 20 ms is open when it pauses, and ends meanwhile; the next ones are entered before it resumes.
  const uint64_t before = MonotonicNowNs();
  auto sleeper = run({"0", "30", "0", "7"});
  sleeper->WaitUntilBlockedIn({SYS_nanosleep});
  const auto slice = probe.Pause(0);
  ASSERT_TRUE(slice.ok()) << slice.status();
  EXPECT_LT(slice->begin_ns, before);
  EXPECT_LT(before, slice->entries_end_ns);
  EXPECT_LE(slice->entries_end_ns, slice->end_ns);
  drain();
  const uint64_t sleeps = totals.count["nanosleep"];
  EXPECT_LT(sleeps, 30u);
  EXPECT_EQ(run({"5000", "0", "0", "0"})->Wait(), 0);
  drain();
  EXPECT_EQ(totals.count["getppid"], 1000u);
  EXPECT_EQ(totals.count["nanosleep"], sleeps);

  std::this_thread::sleep_for(50ms);
  ASSERT_TRUE(probe.Resume().ok());
  EXPECT_EQ(sleeper->Wait(), 0);
  EXPECT_EQ(run({"300", "0", "0", "0"})->Wait(), 0);
  // With a tail: a call that is open when the slice ends has its end seen.
  auto last = run({"0", "1", "0", "0"});
  last->WaitUntilBlockedIn({SYS_nanosleep});
  const uint64_t sleeps_before_tail = [&] {
    drain();
    return totals.count["nanosleep"];
  }();
  const auto tail = probe.Pause(200'000'000);
  ASSERT_TRUE(tail.ok()) << tail.status();
  EXPECT_GE(tail->end_ns - tail->entries_end_ns, 200'000'000u);
  EXPECT_EQ(last->Wait(), 0);
  drain();
  EXPECT_EQ(totals.count["getppid"], 1300u);
  EXPECT_EQ(totals.errors["close"][EBADF], 7u);
  EXPECT_EQ(totals.count["nanosleep"], sleeps_before_tail + 1);
  // Each of 20 ms; across the pause it would be 70 and more.
  EXPECT_LT(totals.max_ns["nanosleep"], 60'000'000u);
  EXPECT_LT(totals.count["nanosleep"], 31u);
  EXPECT_GT(probe.Counters().paused, 0u);
}

TEST_F(SyscallLatencyTest, CompatCallsHaveTheirOwnNumbers) {
#ifdef __x86_64__
  auto probe = SyscallLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("compat");
  const pid_t child = fork();
  if (child == 0) {
    if (!cgroup.Add(getpid())) _exit(1);
    for (int i = 0; i < 123; ++i) {
      long result = 20;  // getpid in the i386 table, writev in the x86-64 one
      asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
      if (result != getpid()) _exit(2);
    }
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) GTEST_SKIP() << "kernel without CONFIG_IA32_EMULATION";
  ASSERT_EQ(status, 0);
  uint64_t compat = 0, native = 0, writev = 0;
  ASSERT_TRUE((*probe)
                  ->Drain([&](const SyscallWindow& w) {
                    if (w.key.cgroup_id != cgroup.id()) return;
                    if (w.key.compat && w.key.nr == 20) compat += w.latency.count;
                    if (SyscallName(w.key) == "getpid") native += w.latency.count;
                    if (SyscallName(w.key) == "writev") writev += w.latency.count;
                  })
                  .ok());
  EXPECT_EQ(compat, 123u);
  EXPECT_EQ(native, 123u);
  EXPECT_EQ(writev, 0u);
#else
  GTEST_SKIP() << "x86-64 only";
#endif
}

TEST_F(SyscallLatencyTest, ExemplarsKeepToTheirBudget) {
  auto probe = SyscallLatency::Start({.exemplars_per_key = 2, .exemplars_per_window_new_key = 5, .drawn_per_key = 0});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("budget");
  Child mix({Workload("syscall_mix"), "0", "25", "0", "0"});
  ASSERT_TRUE(cgroup.Add(mix.pid()));
  mix.Go();
  mix.Wait();
  uint64_t mine = 0;
  ASSERT_TRUE((*probe)->PollExemplars([&](const SlowCall& c) { mine += c.key.cgroup_id == cgroup.id(); }).ok());
  EXPECT_LE(mine, 5u);
  ASSERT_TRUE((*probe)->Stop().ok());
  ASSERT_TRUE((*probe)->PollExemplars([](const SlowCall&) {}).ok());
  const SyscallCounters c = (*probe)->Counters();
  EXPECT_EQ(c.exemplars_taken, 5u);
  EXPECT_GE(c.exemplars_limited, 20u);
  EXPECT_EQ(c.exemplars_taken, c.exemplars_delivered + c.exemplars_dropped);
}

TEST_F(SyscallLatencyTest, CallsThatHaveNotReturned) {
  TestCgroup old_cgroup("older"), cgroup("open");
  Child older({Workload("waits"), "sleep", "1", "1000"}), child({Workload("waits"), "sleep", "1", "1000"});
  ASSERT_TRUE(old_cgroup.Add(older.pid()));
  ASSERT_TRUE(cgroup.Add(child.pid()));
  older.Go();
  older.WaitUntilBlockedIn({SYS_select, SYS_pselect6});
  auto probe = SyscallLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  ASSERT_TRUE((*probe)->OpenCallsStatus().ok()) << (*probe)->OpenCallsStatus();
  child.Go();
  child.WaitUntilBlockedIn({SYS_select, SYS_pselect6});
  std::this_thread::sleep_for(300ms);
  struct Seen {
    std::string call, comm;
    uint32_t tgid = 0;
    uint64_t age_ns = 0, calls = 0;
    bool older = false, blocked = false;
  };
  Seen of_old, of_child;
  const auto look = [&] {
    of_old = of_child = {};
    return (*probe)->ReadOpenCalls([&](const OpenCall& call) {
      EXPECT_FALSE(call.waits) << "nobody but off_cpu knows";
      if (call.key.cgroup_id != cgroup.id() && call.key.cgroup_id != old_cgroup.id()) return;
      Seen& seen = call.key.cgroup_id == cgroup.id() ? of_child : of_old;
      seen = {SyscallName(call.key), std::string(call.comm), call.process.tgid, call.age_ns, seen.calls + 1, call.older,
              call.blocked};
    });
  };
  const uint64_t begun_ns = MonotonicNowNs();
  const Status read = look();
  ASSERT_TRUE(read.ok()) << read;
  std::printf("[ measured ] a visit of all threads %llu us; ages %llu and (older) %llu ms\n",
              static_cast<unsigned long long>((MonotonicNowNs() - begun_ns) / 1000),
              static_cast<unsigned long long>(of_child.age_ns / kNsPerMs),
              static_cast<unsigned long long>(of_old.age_ns / kNsPerMs));
  EXPECT_EQ(of_child.calls, 1u);
  EXPECT_THAT(of_child.call, ::testing::AnyOf("select", "pselect6"));
  EXPECT_EQ(of_child.comm, "waits");
  EXPECT_EQ(of_child.tgid, static_cast<uint32_t>(child.pid()));
  EXPECT_TRUE(of_child.blocked);
  EXPECT_FALSE(of_child.older);
  EXPECT_GE(of_child.age_ns, 300 * kNsPerMs);
  // Its true age is not known: what is, is how long we have been looking.
  EXPECT_EQ(of_old.calls, 1u);
  EXPECT_THAT(of_old.call, ::testing::AnyOf("select", "pselect6"));
  EXPECT_TRUE(of_old.older);
  EXPECT_GE(of_old.age_ns, of_child.age_ns);
  EXPECT_LT(of_old.age_ns, 60 * kNsPerSecond);

  for (Child* one : {&older, &child}) {
    one->CloseInput();
    EXPECT_EQ(one->Wait(), 0);
  }
  ASSERT_TRUE(look().ok());
  EXPECT_EQ(of_old.calls + of_child.calls, 0u);
}

TEST_F(SyscallLatencyTest, AThreadThatIsStoppedIsInNoCall) {
  auto probe = SyscallLatency::Start({});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("stopped");
  Child child({Workload("waits"), "--stop", "sleep", "1", "1000"});
  ASSERT_TRUE(cgroup.Add(child.pid()));
  child.Go();
  child.CloseInput();
  ASSERT_TRUE(child.WaitStopped());
  uint64_t open = 0;
  ASSERT_TRUE((*probe)->ReadOpenCalls([&](const OpenCall& call) { open += call.key.cgroup_id == cgroup.id(); }).ok());
  EXPECT_EQ(open, 0u);
  child.Signal(SIGCONT);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SyscallLatencyTest, ExemplarsAreDrawnFromTheWholeWindowAndTheSlowestIsThere) {
  constexpr uint32_t kWanted = 40, kSleeps = 500;
  auto probe = SyscallLatency::Start({.exemplar_quantile = 0, .exemplars_per_key = kWanted, .drawn_per_key = 0});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("drawn");
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), Workload("waits"));
    Child child(std::move(arguments));
    ASSERT_TRUE(cgroup.Add(child.pid()));
    child.Go();
    child.CloseInput();
    EXPECT_EQ(child.Wait(), 0);
  };
  // One window to learn from: as many sleeps of more than a millisecond, the longest of 9.
  run({"sleep", StrFormat("%d", kSleeps - 20), "1200"});
  run({"sleep", "20", "9000"});
  uint64_t slowest_ns = 0;
  const auto drain = [&] {
    return (*probe)->Drain([&](const SyscallWindow& w) {
      if (w.key.cgroup_id == cgroup.id() && SyscallName(w.key) == "nanosleep") slowest_ns = w.latency.max_ns;
    });
  };
  ASSERT_TRUE((*probe)->PollExemplars([](const SlowCall&) {}).ok());
  ASSERT_TRUE(drain().ok());
  // Then one sleep of 300 ms, and 22 × 23 of 1.2 and 6.
  const uint64_t begun_ns = MonotonicNowNs();
  run({"mixture", "23", "1200"});
  const uint64_t ended_ns = MonotonicNowNs();
  std::vector<double> places;
  uint64_t longest_ns = 0;
  ASSERT_TRUE((*probe)
                  ->PollExemplars([&](const SlowCall& call) {
                    if (call.key.cgroup_id != cgroup.id() || SyscallName(call.key) != "nanosleep") return;
                    longest_ns = std::max(longest_ns, call.latency_ns);
                    places.push_back(static_cast<double>(call.time_ns - begun_ns) /
                                     static_cast<double>(ended_ns - begun_ns));
                  })
                  .ok());
  ASSERT_TRUE(drain().ok());
  EXPECT_EQ(longest_ns, slowest_ns);
  EXPECT_GE(longest_ns, 300 * kNsPerMs);
  // 40 of 507 are expected, give or take 6.
  ASSERT_GE(places.size(), kWanted / 2);
  EXPECT_LE(places.size(), kWanted * 2);
  const double last = *std::max_element(places.begin(), places.end());
  const auto late = std::count_if(places.begin(), places.end(), [](double place) { return place > 0.6; });
  std::printf("[ measured ] %zu exemplars of 507 calls, %lld of them in the last 40 %% of the time, the last at %.2f\n",
              places.size(), static_cast<long long>(late), last);
  EXPECT_GE(last, 0.8);
  EXPECT_GE(late, static_cast<long>(places.size() / 6));
}

TEST_F(SyscallLatencyTest, WeightsOfDrawnCallsAddUpToAllCalls) {
  constexpr int kRounds = 80;
  constexpr uint64_t kFast = 20'000, kSleeps = 3;
  auto probe = SyscallLatency::Start({.drawn_per_key = 100, .drawn_per_window = 1u << 20, .ring_bytes = kRoomForAll});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("weights");
  struct Sums {
    double calls = 0, ns = 0, weights = 0, weighted_ns = 0;
    uint64_t drawn = 0;
  };
  std::map<std::string, Sums> sums;
  uint64_t in_window = 0;
  for (int round = 0; round < kRounds; ++round) {
    Child mix({Workload("syscall_mix_static"), StrFormat("%d", kFast), StrFormat("%d", kSleeps), "0", "50"});
    ASSERT_TRUE(cgroup.Add(mix.pid()));
    mix.Go();
    const auto poll = [&] {
      return (*probe)->PollExemplars([&](const SlowCall& call) {
        if (call.key.cgroup_id != cgroup.id() || call.weight == 0) return;
        Sums& sum = sums[SyscallName(call.key)];
        ++sum.drawn;
        sum.weights += static_cast<double>(call.weight);
        sum.weighted_ns += static_cast<double>(call.weight) * static_cast<double>(call.latency_ns);
        in_window += call.weight > 1;
      });
    };
    for (; !mix.Ended(); std::this_thread::sleep_for(5ms)) ASSERT_TRUE(poll().ok());
    EXPECT_EQ(mix.Wait(), 0);
    ASSERT_TRUE(poll().ok());
    ASSERT_TRUE((*probe)
                    ->Drain([&](const SyscallWindow& w) {
                      if (w.key.cgroup_id != cgroup.id()) return;
                      Sums& sum = sums[SyscallName(w.key)];
                      sum.calls += static_cast<double>(w.latency.count);
                      sum.ns += static_cast<double>(w.latency.sum_ns);
                    })
                    .ok());
  }
  const SyscallCounters c = (*probe)->Counters();
  EXPECT_EQ(c.exemplars_dropped, 0u);
  for (const std::string call : {"getppid", "close", "nanosleep"}) {
    const Sums& sum = sums[call];
    std::printf(
        "[ measured ] %s: %llu drawn of %.0f calls; weights %.4f of the calls, weighted time %.4f of the time\n",
        call.c_str(), static_cast<unsigned long long>(sum.drawn), sum.calls, sum.weights / sum.calls,
        sum.weighted_ns / sum.ns);
  }
  const Sums& fast = sums["getppid"];
  EXPECT_EQ(fast.calls, kRounds * kFast);
  EXPECT_GT(in_window, 300u);
  // 8 to 20 draws a round, however many calls: one standard deviation is about 4 %.
  EXPECT_GT(fast.drawn, kRounds * 4u);
  EXPECT_LT(fast.drawn, kRounds * 100u);
  EXPECT_NEAR(fast.weights / fast.calls, 1, 0.16);
  EXPECT_NEAR(fast.weighted_ns / fast.ns, 1, 0.25);
  // Once a call is known to be rare, each is drawn; before, each had its chance.
  EXPECT_GT(sums["nanosleep"].drawn, kSleeps * (kRounds - 2) - 1);
}

// What the slow calls of one name say of themselves.
std::vector<std::pair<std::string, CallDescriptor>> SlowCallsOf(SyscallLatency& probe, const TestCgroup& cgroup,
                                                                std::string_view name) {
  std::vector<std::pair<std::string, CallDescriptor>> calls;
  EXPECT_TRUE(probe
                  .PollExemplars([&](const SlowCall& call) {
                    if (call.key.cgroup_id != cgroup.id() || SyscallName(call.key) != name || !call.slow) return;
                    calls.emplace_back(CallText(call, "FILE"), call.descriptor);
                  })
                  .ok());
  return calls;
}

TEST_F(SyscallLatencyTest, SlowCallsSayOnWhichSocketTheyWaited) {
  auto probe = SyscallLatency::Start({.exemplars_per_window_new_key = kBudgetForAll, .ring_bytes = kRoomForAll});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("socket");
  Child child({Workload("waits"), "tcp", "3", "20000"});
  ASSERT_TRUE(cgroup.Add(child.pid()));
  child.Go();
  child.CloseInput();
  EXPECT_EQ(child.Wait(), 0);
  const auto calls = SlowCallsOf(**probe, cgroup, "recvfrom");
  ASSERT_EQ(calls.size(), 3u);
  for (const auto& [text, descriptor] : calls) {
    EXPECT_EQ(descriptor.kind, PYRO_DESCRIPTOR_SOCKET);
    EXPECT_THAT(text, ::testing::MatchesRegex(R"(recvfrom\([0-9]+ → 127\.0\.0\.1:[1-9][0-9]+, …, 1, 0x0\) = 1)"));
  }
}

TEST_F(SyscallLatencyTest, SlowCallsSayOnWhichFileTheyWaited) {
  auto probe = SyscallLatency::Start({.exemplars_per_window_new_key = kBudgetForAll, .ring_bytes = kRoomForAll});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("file");
  Child child({Workload("waits"), "--stop", "pipe", "3", "20000"});
  ASSERT_TRUE(cgroup.Add(child.pid()));
  child.Go();
  child.CloseInput();
  // Its pipes are still open when it stops itself at the end.
  ASSERT_TRUE(child.WaitStopped());
  const auto calls = SlowCallsOf(**probe, cgroup, "read");
  ASSERT_GE(calls.size(), 3u);
  size_t pipes = 0;
  for (const auto& [text, descriptor] : calls) {
    EXPECT_EQ(descriptor.kind, PYRO_DESCRIPTOR_FILE);
    EXPECT_THAT(text, ::testing::MatchesRegex(R"(read\([0-9]+ → FILE, …, [0-9]+\) = [0-9]+)"));
    char link[64] = {};
    const std::string path = StrFormat("/proc/%d/fd/%d", child.pid(), descriptor.fd);
    if (readlink(path.c_str(), link, sizeof(link) - 1) < 0) continue;
    pipes += link == StrFormat("pipe:[%d]", descriptor.inode);
  }
  EXPECT_GE(pipes, 3u);
  child.Signal(SIGCONT);
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace pyrometer::kernel

// Off-CPU time and the split of system calls, against a workload that waits for known causes and times itself.
#include "userspace/kernel/off_cpu.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include "tests/kernel/harness.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/syscall_latency.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::TestCgroup;
using ::pyrometer::testing::Workload;

// What the workload says of itself.
struct Truth {
  uint64_t calls = 0, ns = 0;
  uint64_t switches = 0;              // voluntary ones, of the process
  std::optional<uint64_t> queued_ns;  // the main thread's waits for a processor, by the kernel's own account
};

// What the probes say of its cgroup.
struct Seen {
  std::map<std::string, uint64_t> calls, call_ns;
  std::map<std::string, WaitTimes> waited;
  std::array<WaitTotal, kWaitCauses> totals{};
  uint64_t queue_count = 0;

  uint64_t QueueWaits() const { return totals[PYRO_WAIT_RUNNABLE].count + totals[PYRO_WAIT_THROTTLED].count; }
  uint64_t Queued() const { return totals[PYRO_WAIT_RUNNABLE].ns + totals[PYRO_WAIT_THROTTLED].ns; }
  uint64_t Blocked(const std::string& call) const {
    uint64_t sum = 0;
    const auto found = waited.find(call);
    for (size_t i = 0; found != waited.end() && i < kWaitCauses; ++i) {
      if (!IsQueueWait(static_cast<WaitCause>(i))) sum += found->second[i];
    }
    return sum;
  }
  // Of all threads, outside of system calls.
  uint64_t BlockedInUserCode() const {
    uint64_t sum = 0;
    for (size_t i = 0; i < kWaitCauses; ++i) {
      if (!IsQueueWait(static_cast<WaitCause>(i))) sum += totals[i].ns;
    }
    for (const auto& [call, parts] : waited) sum -= Blocked(call);
    return sum;
  }
  uint64_t Waited(const std::string& call) const {
    uint64_t sum = 0;
    const auto found = waited.find(call);
    for (size_t i = 0; found != waited.end() && i < kWaitCauses; ++i) sum += found->second[i];
    return sum;
  }
  std::string Describe(const std::string& call) const {
    std::string text = StrFormat("%s: %d calls, %d ns", call, calls.at(call), call_ns.at(call));
    if (const auto found = waited.find(call); found != waited.end()) {
      for (size_t i = 0; i < kWaitCauses; ++i) {
        if (found->second[i] == 0) continue;
        text += StrFormat(", %s %d", WaitCauseName(static_cast<WaitCause>(i)), found->second[i]);
      }
    }
    return text;
  }
};

class OffCpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS("tp_btf");
    SKIP_UNLESS("task_storage");
  }

  // Starts both probes, runs the workload in a cgroup of its own, drains.
  void Run(const std::vector<std::string>& arguments, Truth* truth, Seen* seen, const TestCgroup* more = nullptr) {
    auto syscalls = SyscallLatency::Start({.split = true});
    ASSERT_TRUE(syscalls.ok()) << syscalls.status();
    OffCpu::Options options;
    options.task_states = (*syscalls)->TaskStates();
    auto waits = OffCpu::Start(options);
    ASSERT_TRUE(waits.ok()) << waits.status();
    TestCgroup cgroup("waits");
    std::vector<std::string> command = {Workload("waits"), "--stop"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    Child child(command);
    ASSERT_TRUE(cgroup.Add(child.pid()));
    if (more != nullptr) {
      ASSERT_TRUE(more->Add(child.pid()));
    }
    child.Go();
    child.WaitUntilBlockedIn({SYS_select, SYS_pselect6});  // its loader's calls are behind it
    const std::optional<uint64_t> queued_before = child.QueuedNs();
    const auto collect = [&](Seen* into) {
      ASSERT_TRUE((*syscalls)
                      ->Drain([&](const SyscallWindow& w) {
                        if (w.key.cgroup_id != cgroup.id() || into == nullptr) return;
                        const std::string name = SyscallName(w.key);
                        into->calls[name] += w.latency.count;
                        into->call_ns[name] += w.latency.sum_ns;
                        for (size_t i = 0; i < kWaitCauses; ++i) into->waited[name][i] += w.waited_ns[i];
                      })
                      .ok());
      ASSERT_TRUE((*waits)
                      ->Drain([&](const WaitWindow& w) {
                        if (w.cgroup_id != cgroup.id() || into == nullptr) return;
                        for (size_t i = 0; i < kWaitCauses; ++i) {
                          into->totals[i].count += w.totals[i].count;
                          into->totals[i].ns += w.totals[i].ns;
                        }
                        into->queue_count += w.queue.count;
                      })
                      .ok());
    };
    collect(nullptr);
    child.CloseInput();
    const std::string line = child.ReadLine();
    const std::vector<std::string_view> fields = Split(line, ' ');
    ASSERT_EQ(fields.size(), 4u) << line;
    truth->calls = ParseUint64(fields[1]).value_or(0);
    truth->ns = ParseUint64(fields[2]).value_or(0);
    truth->switches = ParseUint64(fields[3]).value_or(0);
    ASSERT_TRUE(child.WaitStopped());
    if (const auto queued = child.QueuedNs(); queued && queued_before) truth->queued_ns = *queued - *queued_before;
    collect(seen);
    child.Signal(SIGCONT);
    EXPECT_EQ(child.Wait(), 0);
    // Every time that a thread blocked is there: by the kernel's own count, one that had begun before (its wait for the
    // start), and what its report may take.
    uint64_t blocked = 0;
    for (size_t i = 0; i < kWaitCauses; ++i) {
      if (!IsQueueWait(static_cast<WaitCause>(i))) blocked += seen->totals[i].count;
    }
    const uint64_t missed = (*waits)->Counters().missed;
    EXPECT_GE(blocked + missed, truth->switches + 1);
    EXPECT_LE(blocked, truth->switches + 4);
    // Of the whole machine; where the kernel reports every switch there are none.
    if (missed > 0)
      std::printf("[ measured ] %llu waits whose end was not reported\n", static_cast<unsigned long long>(missed));
    EXPECT_EQ((*syscalls)->Counters().waits_lost, 0u);
    EXPECT_EQ((*waits)->Counters().lost, 0u);
    EXPECT_EQ((*waits)->Counters().storage_lost, 0u);
  }

  static void Print(const std::string& call, const Truth& truth, const Seen& seen) {
    std::printf(
        "[ measured ] %s; by its own clock %llu ns; all waits for a processor %llu ns, by the kernel's account %lld\n",
        seen.Describe(call).c_str(), static_cast<unsigned long long>(truth.ns),
        static_cast<unsigned long long>(seen.Queued()), static_cast<long long>(truth.queued_ns.value_or(-1)));
  }

  // Of modes with one thread: the kernel accounts by thread. Its account begins when the thread is in a run queue, ours
  // with the wake-up; a halted processor is woken in between, which takes a virtual one some 20 to 50 us.
  static void CheckQueue(const Truth& truth, const Seen& seen) {
    if (!truth.queued_ns) return;
    const auto by_kernel = static_cast<double>(*truth.queued_ns), by_us = static_cast<double>(seen.Queued());
    EXPECT_GE(by_us, 0.95 * by_kernel - 2e6);
    EXPECT_LE(by_us, 1.05 * by_kernel + 2e6 + 100e3 * static_cast<double>(seen.QueueWaits()));
  }

  // Counts exact, the whole time true, the parts no more than it, the planted cause nearly all of the waiting.
  void Check(const std::string& call, WaitCause cause, const Truth& truth, const Seen& seen) {
    ASSERT_TRUE(seen.calls.count(call)) << call;
    SCOPED_TRACE(seen.Describe(call));
    Print(call, truth, seen);
    EXPECT_EQ(seen.calls.at(call), truth.calls);
    const auto total = static_cast<double>(seen.call_ns.at(call));
    // What the workload's two clock reads see beside the call: 1 % of calls that wait, where they wait milliseconds.
    EXPECT_NEAR(total, static_cast<double>(truth.ns),
                0.01 * static_cast<double>(truth.ns) + 20'000.0 * static_cast<double>(truth.calls));
    EXPECT_LE(seen.Waited(call), seen.call_ns.at(call));
    ASSERT_TRUE(seen.waited.count(call));
    EXPECT_GE(static_cast<double>(seen.waited.at(call)[cause]), 0.95 * static_cast<double>(seen.Blocked(call)));
    EXPECT_GT(seen.Blocked(call), 0u);
  }
};

TEST_F(OffCpuTest, ASleepIsATimer) {
  Truth truth;
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(Run({"sleep", "50", "5000"}, &truth, &seen));
  Check("nanosleep", PYRO_WAIT_TIMER, truth, seen);
  CheckQueue(truth, seen);
}

TEST_F(OffCpuTest, PingPongOverAPipe) {
  Truth truth;
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(Run({"pipe", "100", "2000"}, &truth, &seen));
  Check("read", PYRO_WAIT_POLL, truth, seen);
}

TEST_F(OffCpuTest, FutexConvoy) {
  Truth truth;
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(Run({"futex", "100", "2000"}, &truth, &seen));
  // The C library's own waits (the end of the second thread) are futex calls too.
  EXPECT_LE(truth.calls, seen.calls["futex"]);
  truth.calls = seen.calls["futex"];
  ASSERT_TRUE(seen.waited.count("futex"));
  Print("futex", truth, seen);
  EXPECT_GE(static_cast<double>(seen.waited["futex"][PYRO_WAIT_LOCK]),
            0.95 * static_cast<double>(seen.Blocked("futex")));
  EXPECT_LE(seen.Waited("futex"), seen.call_ns["futex"]);
}

TEST_F(OffCpuTest, AnAnswerFromAServer) {
  Truth truth;
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(Run({"tcp", "100", "2000"}, &truth, &seen));
  Check("recvfrom", PYRO_WAIT_NETWORK, truth, seen);
}

// A file that is on a disk: the build folder's.
std::string DiskFile(size_t bytes) {
  const std::string path = StrFormat("%s.%d.data", Workload("waits"), static_cast<int>(getpid()));
  std::ofstream file(path, std::ios::binary);
  const std::string block(1 << 20, 'd');
  for (size_t done = 0; done < bytes; done += block.size()) file << block;
  file.flush();
  return path;
}

TEST_F(OffCpuTest, FsyncWaitsForTheDisk) {
  const std::string path = DiskFile(0);
  Truth truth;
  Seen seen;
  Run({"fsync", "40", "0", path}, &truth, &seen);
  unlink(path.c_str());
  if (HasFatalFailure()) return;
  Check("fsync", PYRO_WAIT_BLOCK_IO, truth, seen);
  CheckQueue(truth, seen);
}

TEST_F(OffCpuTest, ColdPagesInUserCode) {
  const std::string path = DiskFile(32 << 20);
  sync();
  Truth truth;
  Seen seen;
  Run({"touch", "500", "0", path}, &truth, &seen);
  unlink(path.c_str());
  if (HasFatalFailure()) return;
  const WaitTotal& faults = seen.totals[PYRO_WAIT_PAGE_FAULT];
  std::printf("[ measured ] %llu waits for pages, %llu ns; by its own clock %llu ns in %llu touches\n",
              static_cast<unsigned long long>(faults.count), static_cast<unsigned long long>(faults.ns),
              static_cast<unsigned long long>(truth.ns), static_cast<unsigned long long>(truth.calls));
  CheckQueue(truth, seen);
  // A page may be there still: the kernel's advice is not a command.
  EXPECT_GE(faults.count, 375u);
  EXPECT_LE(faults.ns, truth.ns);
  // What the workload measures has the fault's own work in it, which is not a wait, and the queue after it. Its calls
  // wait as well (the kernel's advice to drop pages may wait for other CPUs); all that blocks outside them is faults.
  EXPECT_GE(static_cast<double>(faults.ns), 0.95 * static_cast<double>(seen.BlockedInUserCode()));
  EXPECT_GE(static_cast<double>(seen.BlockedInUserCode()), 0.95 * static_cast<double>(faults.ns));
}

TEST_F(OffCpuTest, ColdPagesInsideACallAreFaultsToo) {
  const std::string path = DiskFile(32 << 20);
  sync();
  Truth truth;
  Seen seen;
  Run({"fault", "200", "0", path}, &truth, &seen);
  unlink(path.c_str());
  if (HasFatalFailure()) return;
  ASSERT_TRUE(seen.waited.count("write"));
  SCOPED_TRACE(seen.Describe("write"));
  Print("write", truth, seen);
  CheckQueue(truth, seen);
  EXPECT_GE(static_cast<double>(seen.waited["write"][PYRO_WAIT_PAGE_FAULT]),
            0.95 * static_cast<double>(seen.Blocked("write")));
}

TEST_F(OffCpuTest, ATenthOfACpu) {
  TestCgroup quota("quota", "cpu");
  if (!quota.ok()) GTEST_SKIP() << "no cgroup1 cpu controller";
  std::ofstream period(quota.path() + "/cpu.cfs_period_us"), limit(quota.path() + "/cpu.cfs_quota_us");
  period << 100000 << std::flush;
  limit << 10000 << std::flush;
  if (!period || !limit) GTEST_SKIP() << "kernel without CONFIG_CFS_BANDWIDTH";
  Truth truth;
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(Run({"spin", "1", "400000"}, &truth, &seen, &quota));
  const WaitTotal& throttled = seen.totals[PYRO_WAIT_THROTTLED];
  uint64_t by_kernel = 0, value = 0;
  std::ifstream stat(quota.path() + "/cpu.stat");
  for (std::string name; stat >> name >> value;) {
    if (name == "throttled_time") by_kernel = value;
  }
  std::printf(
      "[ measured ] throttled %llu ns in %llu waits, runnable %llu ns; by its own clock %llu ns for 400 ms of CPU; by "
      "cpu.stat throttled %llu ns\n",
      static_cast<unsigned long long>(throttled.ns), static_cast<unsigned long long>(throttled.count),
      static_cast<unsigned long long>(seen.totals[PYRO_WAIT_RUNNABLE].ns), static_cast<unsigned long long>(truth.ns),
      static_cast<unsigned long long>(by_kernel));
  // 400 ms of CPU at 10 ms in 100 take about 4 s, of which 3.6 s are waits; on a busy machine some of them for others.
  // What a hypervisor took is neither CPU time nor a wait (CONFIG_PARAVIRT_TIME_ACCOUNTING): only the kernel's own
  // account of the quota is without it. It lacks the queue behind a throttling, which is part of the wait.
  const double planted =
      static_cast<double>(truth.ns) - 400e6 - static_cast<double>(seen.totals[PYRO_WAIT_RUNNABLE].ns);
  EXPECT_GT(planted, 2e9);
  EXPECT_GT(by_kernel, 2e9);
  EXPECT_GE(static_cast<double>(throttled.ns), 0.95 * static_cast<double>(by_kernel));
  EXPECT_LE(static_cast<double>(throttled.ns), 1.05 * planted);
  EXPECT_GT(seen.queue_count, 10u);
}

TEST_F(OffCpuTest, WeightsOfSampledWaitsAreUnbiased) {
  constexpr int kRepeats = 30;
  OffCpu::Options options;
  options.period_ns = 2'000'000;  // the draw's own spread is well below the bound then
  options.samples_per_second = 0;
  auto probe = OffCpu::Start(options);
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("bias");
  double truth_ns = 0, exact_ns = 0, queued_ns = 0, weighted_ns = 0;
  double variance = 0;  // of weighted_ns, as the sample tells it (Horvitz and Thompson)
  uint64_t samples = 0, waits = 0, long_blocks = 0, by_interrupt = 0, switches = 0;
  const auto poll = [&] {
    ASSERT_TRUE((*probe)
                    ->PollSamples([&](const WaitSample& s) {
                      if (s.cgroup_id != cgroup.id() || s.cause != PYRO_WAIT_TIMER) return;
                      ++samples;
                      weighted_ns += static_cast<double>(s.weight_ns);
                      variance += static_cast<double>(s.weight_ns) * static_cast<double>(s.weight_ns - s.wait_ns);
                      long_blocks += s.wait_ns > 200'000'000;
                      EXPECT_EQ(SyscallName({.nr = s.nr}), "nanosleep");
                      EXPECT_FALSE(s.kernel_frames.empty());
                      by_interrupt += s.waker == PYRO_WAKER_INTERRUPT;
                      if (s.user_stop != PYRO_STOP_NOT_TAKEN) {
                        EXPECT_GE(s.user_frames.size(), 2u);
                      }
                    })
                    .ok());
  };
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    Child child({Workload("waits"), "mixture", "10", "1000"});
    ASSERT_TRUE(cgroup.Add(child.pid()));
    child.CloseInput();
    child.Go();
    // Often, for the samples are of the whole machine: its ring holds a second of a busy one's.
    auto report = std::async(std::launch::async, [&] { return child.ReadLine(); });
    while (report.wait_for(20ms) != std::future_status::ready) poll();
    const std::string line = report.get();
    const std::vector<std::string_view> fields = Split(line, ' ');
    ASSERT_EQ(fields.size(), 4u) << line;
    switches += ParseUint64(fields[3]).value_or(0);
    truth_ns += static_cast<double>(ParseUint64(fields[2]).value_or(0));
    EXPECT_EQ(child.Wait(), 0);
    poll();
  }
  ASSERT_TRUE((*probe)->Stop().ok());
  poll();
  ASSERT_TRUE((*probe)
                  ->Drain([&](const WaitWindow& w) {
                    if (w.cgroup_id != cgroup.id()) return;
                    exact_ns += static_cast<double>(w.totals[PYRO_WAIT_TIMER].ns);
                    queued_ns += static_cast<double>(w.totals[PYRO_WAIT_RUNNABLE].ns);
                    waits += w.totals[PYRO_WAIT_TIMER].count;
                  })
                  .ok());
  const OffCpuCounters c = (*probe)->Counters();
  std::printf(
      "[ measured ] %d repeats: %llu waits, %llu voluntary switches, %llu sampled; sum of weights / exact sum %.4f, "
      "exact sum / own clock %.4f; "
      "long blocks kept %llu of %d (a coin per event at the same rate keeps %.1f); %llu dropped, %llu pending\n",
      kRepeats, static_cast<unsigned long long>(waits), static_cast<unsigned long long>(switches),
      static_cast<unsigned long long>(samples), weighted_ns / exact_ns, exact_ns / truth_ns,
      static_cast<unsigned long long>(long_blocks), kRepeats,
      kRepeats * static_cast<double>(samples) / static_cast<double>(waits),
      static_cast<unsigned long long>(c.dropped_ring + c.dropped_slots), static_cast<unsigned long long>(c.pending));
  const double error = std::sqrt(variance) / exact_ns;
  std::printf("[ measured ] standard error of the draw %.4f\n", error);
  EXPECT_NEAR(weighted_ns / exact_ns, 1, 0.02);
  EXPECT_LT(error, 0.006);
  EXPECT_GE(waits + c.missed, switches);
  EXPECT_LE(waits, switches);
  EXPECT_LE(exact_ns, truth_ns);
  // On its own clock a sleep ends when it has a processor again.
  EXPECT_GE(exact_ns + queued_ns, 0.95 * truth_ns);
  EXPECT_GE(long_blocks + c.missed, static_cast<uint64_t>(kRepeats));
  // A wake-up may be missed: see the probe's header.
  EXPECT_GE(by_interrupt, samples * 99 / 100);
  EXPECT_LT(samples, waits * 3 / 4);
  EXPECT_EQ(c.taken, c.delivered + c.dropped_ring + c.dropped_slots + c.dropped_malformed + c.pending);
  EXPECT_EQ(c.dropped_malformed, 0u);
}

TEST_F(OffCpuTest, ASampleKnowsWhoEndedTheWait) {
  OffCpu::Options options;
  options.period_ns = 1'000'000;
  options.samples_per_second = 0;
  auto probe = OffCpu::Start(options);
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("waker");
  Child child({Workload("waits"), "pipe", "50", "5000"});
  ASSERT_TRUE(cgroup.Add(child.pid()));
  child.CloseInput();
  child.Go();
  child.ReadLine();
  EXPECT_EQ(child.Wait(), 0);
  std::this_thread::sleep_for(50ms);
  uint64_t reads = 0, by_thread = 0, with_user = 0, waker_user = 0, of_ours = 0;
  uint64_t trace_run_begin = 0, trace_run_end = UINT64_MAX;
  std::ifstream symbols("/proc/kallsyms");
  for (std::string line; std::getline(symbols, line);) {
    const std::vector<std::string_view> fields = Split(line, ' ');
    const uint64_t address = ParseUint64(fields[0], 16).value_or(0);
    if (fields[2] == "bpf_trace_run1") trace_run_begin = address;
    if (trace_run_begin != 0 && address > trace_run_begin) trace_run_end = std::min(trace_run_end, address);
  }
  ASSERT_TRUE((*probe)
                  ->PollSamples([&](const WaitSample& s) {
                    if (s.cgroup_id != cgroup.id() || SyscallName({.nr = s.nr}) != "read") return;
                    if (s.cause != PYRO_WAIT_POLL || s.wait_ns < 4'000'000) return;
                    // The harness's gate, before the workload's own code.
                    if (s.waker_process.tgid != s.process.tgid) return;
                    ++reads;
                    with_user += s.user_frames.size() >= 2;
                    if (s.waker != PYRO_WAKER_TASK) return;
                    by_thread += s.waker_process.tgid == s.process.tgid && s.waker_tid != s.tid;
                    waker_user += s.waker_user_frames.size() >= 2;
                    EXPECT_FALSE(s.waker_kernel_frames.empty());
                    // From the wake-up on: not the probe that looks.
                    for (const uint64_t frame : s.waker_kernel_frames) {
                      of_ours += trace_run_begin != 0 && frame >= trace_run_begin && frame < trace_run_end;
                    }
                  })
                  .ok());
  EXPECT_LE(reads, 50u);  // each is longer than T
  EXPECT_GE(reads + (*probe)->Counters().missed, 50u);
  EXPECT_GE(by_thread, reads * 95 / 100);
  EXPECT_GE(waker_user, reads * 95 / 100);
  EXPECT_EQ(of_ours, 0u);
  std::string why;
  if (::pyrometer::testing::FeatureWorks("task_work", &why)) {
    EXPECT_GE(with_user, reads * 95 / 100);
  }
  std::printf("[ measured ] %llu reads, woken by the other thread %llu, with user stack %llu, waker's %llu\n",
              static_cast<unsigned long long>(reads), static_cast<unsigned long long>(by_thread),
              static_cast<unsigned long long>(with_user), static_cast<unsigned long long>(waker_user));
}

TEST_F(OffCpuTest, CallsThatHaveNotReturnedAreSeenWithTheirAge) {
  auto syscalls = SyscallLatency::Start({.split = true});
  ASSERT_TRUE(syscalls.ok()) << syscalls.status();
  auto probe = OffCpu::Start({.task_states = (*syscalls)->TaskStates()});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("open");
  Child child({Workload("waits"), "sleep", "1", "600000"});
  ASSERT_TRUE(cgroup.Add(child.pid()));
  child.CloseInput();
  child.Go();
  std::this_thread::sleep_for(400ms);
  uint64_t seen = 0;
  const auto look = [&] {
    seen = 0;
    return (*syscalls)->ReadOpenCalls([&](const OpenCall& call) {
      if (call.key.cgroup_id != cgroup.id()) return;
      ++seen;
      EXPECT_EQ(call.process.tgid, static_cast<uint32_t>(child.pid()));
      EXPECT_EQ(SyscallName(call.key), "nanosleep");
      EXPECT_FALSE(call.older);
      EXPECT_TRUE(call.waits);
      EXPECT_EQ(call.cause, PYRO_WAIT_TIMER);
      EXPECT_GT(call.age_ns, 100'000'000u);
      EXPECT_LT(call.age_ns, 600'000'000u);
      EXPECT_LE(call.wait_age_ns, call.age_ns);
    });
  };
  const Status first = look();
  ASSERT_TRUE(first.ok()) << first;
  EXPECT_EQ(seen, 1u);
  child.ReadLine();
  EXPECT_EQ(child.Wait(), 0);
  // Nothing is left of a thread that has ended.
  ASSERT_TRUE(look().ok());
  EXPECT_EQ(seen, 0u);
}

TEST_F(OffCpuTest, RandomCallsAreAllCountedAndLeaveNothingBehind) {
  constexpr uint64_t kCalls = 20'000;
  auto syscalls = SyscallLatency::Start({.split = true});
  ASSERT_TRUE(syscalls.ok()) << syscalls.status();
  auto probe = OffCpu::Start({.task_states = (*syscalls)->TaskStates()});
  ASSERT_TRUE(probe.ok()) << probe.status();
  TestCgroup cgroup("fuzz");
  const uint64_t seed = static_cast<uint64_t>(::time(nullptr));
  std::printf("[ measured ] seed %llu\n", static_cast<unsigned long long>(seed));
  Child child({Workload("syscall_fuzz"), StrFormat("%d", kCalls), StrFormat("%d", seed)});
  ASSERT_TRUE(cgroup.Add(child.pid()));
  child.Go();
  child.CloseInput();
  struct Account {
    uint64_t entered = 0, returned = 0;
  };
  std::map<std::string, Account> made;
  uint64_t entered = 0, returned = 0;
  std::string line;
  while (line = child.ReadLine(), !line.empty() && !line.starts_with("end")) {
    const std::vector<std::string_view> fields = Split(line, ' ');
    ASSERT_EQ(fields.size(), 3u) << line;
    Account& account = made[SyscallName({.nr = static_cast<int32_t>(*ParseUint64(fields[0]))})];
    account = {*ParseUint64(fields[1]), *ParseUint64(fields[2])};
    entered += account.entered;
    returned += account.returned;
  }
  EXPECT_TRUE(line.starts_with("end ")) << line;
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(entered, kCalls);

  struct Counted {
    uint64_t count = 0, restarted = 0, total_ns = 0, waited_ns = 0;
  };
  std::map<std::string, Counted> counted;
  ASSERT_TRUE((*syscalls)
                  ->Drain([&](const SyscallWindow& w) {
                    if (w.key.cgroup_id != cgroup.id()) return;
                    Counted& seen = counted[SyscallName(w.key)];
                    seen.count += w.latency.count;
                    seen.total_ns += w.latency.sum_ns;
                    for (const uint64_t part : w.waited_ns) seen.waited_ns += part;
                    for (const SyscallError& error : w.errors) {
                      if (error.error == 513)
                        seen.restarted += error.count;  // ERESTARTNOINTR: made again by the kernel
                    }
                  })
                  .ok());
  uint64_t exact = 0;
  for (const auto& [name, account] : made) {
    const Counted& seen = counted[name];
    // What the workload itself calls besides, to begin and end, is in the account as more.
    EXPECT_GE(seen.count - seen.restarted, account.returned) << name;
    EXPECT_LE(seen.waited_ns, seen.total_ns) << name;
    exact += seen.count - seen.restarted == account.returned;
  }
  const SyscallCounters counters = (*syscalls)->Counters();
  EXPECT_EQ(counters.lost, 0u);
  EXPECT_EQ(counters.start_lost, 0u);
  EXPECT_EQ(counters.waits_lost, 0u);
  uint64_t open = 0;
  ASSERT_TRUE(
      (*syscalls)->ReadOpenCalls([&](const OpenCall& call) { open += call.key.cgroup_id == cgroup.id(); }).ok());
  EXPECT_EQ(open, 0u);
  std::printf("[ measured ] %zu calls by name, %llu made, %llu returned, %s; counts equal for %llu of them\n",
              made.size(), static_cast<unsigned long long>(entered), static_cast<unsigned long long>(returned),
              line.c_str(), static_cast<unsigned long long>(exact));
  EXPECT_GT(made.size(), 400u);
  EXPECT_GT(exact, made.size() * 8 / 10);  // the others are what the workload needs for itself
}

TEST_F(OffCpuTest, WithoutTheProbeCallsHaveNoSplit) {
  auto syscalls = SyscallLatency::Start({});
  ASSERT_TRUE(syscalls.ok()) << syscalls.status();
  usleep(10000);
  ASSERT_TRUE((*syscalls)
                  ->Drain([&](const SyscallWindow& w) {
                    EXPECT_EQ(w.waited_calls, 0u);
                    for (const uint64_t ns : w.waited_ns) EXPECT_EQ(ns, 0u);
                  })
                  .ok());
}

}  // namespace
}  // namespace pyrometer::kernel

// The CPU sampler against workloads of known shape, on the running kernel.
#include "userspace/kernel/cpu_sampler.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "tests/kernel/harness.h"
#include "userspace/base/clock.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::TestCgroup;
using ::pyrometer::testing::Workload;

struct Range {
  uint64_t start = 0, end = 0;
  bool Holds(uint64_t address) const { return address >= start && address < end; }
};
struct Shape {
  Range hot_a, hot_b, work;
};

Shape ReadShape(Child& spin) {
  Shape s;
  const std::string line = spin.ReadLine();
  EXPECT_EQ(std::sscanf(line.c_str(), "hot_a %lx %lx hot_b %lx %lx work %lx %lx", &s.hot_a.start, &s.hot_a.end,
                        &s.hot_b.start, &s.hot_b.end, &s.work.start, &s.work.end),
            6)
      << line;
  return s;
}

void ExpectAccounted(const CpuSampler& sampler) {
  const SampleCounters c = sampler.Counters();
  EXPECT_EQ(c.taken, c.delivered + c.pending + c.DroppedTotal());
  uint64_t user_stops = 0, kernel_stops = 0;
  for (const uint64_t n : c.user_stops) user_stops += n;
  for (const uint64_t n : c.kernel_stops) kernel_stops += n;
  EXPECT_EQ(user_stops, c.taken - c.dropped_scratch);
  EXPECT_EQ(kernel_stops, c.taken - c.dropped_scratch);
}

// Samples until `enough`, at most 30 s: how long that takes depends on who else uses the machine.
Status PollUntil(CpuSampler& sampler, const std::function<bool()>& enough, const CpuSampler::Callback& callback) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!enough() && std::chrono::steady_clock::now() < end) RETURN_IF_ERROR(sampler.Poll(50ms, callback));
  RETURN_IF_ERROR(sampler.Stop());
  return sampler.Poll(0ms, callback);
}

class CpuSamplerTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS("bpf_perf_event"); }
};

TEST_F(CpuSamplerTest, StacksOfAKnownShapeComeInTheirProportions) {
  TestCgroup cgroup("cpu");
  Child spin({Workload("spin_fp"), "0"});
  ASSERT_TRUE(cgroup.ok());
  ASSERT_TRUE(cgroup.Add(spin.pid()));
  spin.Go();
  const Shape shape = ReadShape(spin);

  const uint64_t before = MonotonicNowNs();
  auto sampler = CpuSampler::Start({.frequency_hz = 499});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t a = 0, b = 0, mine = 0, complete = 0, last_ns = 0;
  std::set<uint64_t> starts;
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return a + b >= 1200; },
                  [&](const CpuSample& s) {
                    last_ns = std::max(last_ns, s.time_ns);
                    ASSERT_LT(s.cpu, 8192u);
                    if (s.process.tgid != static_cast<uint32_t>(spin.pid())) return;
                    ++mine;
                    starts.insert(s.process.start_time_ns);
                    EXPECT_EQ(s.cgroup_id, cgroup.id());
                    EXPECT_EQ(s.comm, "spin_fp");
                    EXPECT_EQ(s.process_comm, "spin_fp");
                    EXPECT_EQ(s.tid, s.process.tgid);
                    EXPECT_EQ(s.period_ns, kNsPerSecond / 499);
                    ASSERT_FALSE(s.user_frames.empty());
                    const uint64_t leaf = s.user_frames[0];
                    if (shape.hot_a.Holds(leaf)) ++a;
                    if (shape.hot_b.Holds(leaf)) ++b;
                    if (shape.hot_a.Holds(leaf) || shape.hot_b.Holds(leaf)) {
                      // A sample in the function's first two instructions, before its frame exists, skips its caller.
                      complete += s.user_frames.size() > 1 && shape.work.Holds(s.user_frames[1]);
                    }
                  })
                  .ok());
  EXPECT_EQ(starts.size(), 1u);
  EXPECT_GT(last_ns, before);
  EXPECT_LT(last_ns, MonotonicNowNs());
  ASSERT_GE(a + b, 1200u) << "samples of the process: " << mine;
  // Standard deviation of 1,200 independent samples: 1.4 points.
  EXPECT_NEAR(static_cast<double>(a) / static_cast<double>(a + b), 0.60, 0.05);
  EXPECT_GT(static_cast<double>(complete), 0.99 * static_cast<double>(a + b));
  const SampleCounters c = (*sampler)->Counters();
  EXPECT_EQ(c.pending, 0u);
  EXPECT_EQ(c.DroppedTotal(), 0u);
  EXPECT_GT(c.delivered, 0u);
  ExpectAccounted(**sampler);
  EXPECT_FALSE((*sampler)->cpus().size() > 0) << "stopped samplers hold no events";
}

TEST_F(CpuSamplerTest, KernelStacksOnlyWhenKernelCodeWasHit) {
  // getppid in a loop: about half of the time is in the kernel.
  Child mix({Workload("syscall_mix"), "100000000", "0", "0", "0"});
  mix.Go();
  auto sampler = CpuSampler::Start({.frequency_hz = 999,
                                    .target = {.kind = SampleTarget::Kind::kProcesses,
                                               .tgids = {static_cast<uint32_t>(mix.pid())},
                                               .cgroup_ids = {},
                                               .cgroup_v1_ids = {}}});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t with_kernel = 0, user_only = 0;
  ASSERT_TRUE(PollUntil(
                  **sampler,
                  [&] {
                    const SampleCounters c = (*sampler)->Counters();
                    return with_kernel >= 100 && user_only >= 50 && c.filtered + c.idle > 0;
                  },
                  [&](const CpuSample& s) {
                    EXPECT_EQ(s.process.tgid, static_cast<uint32_t>(mix.pid()));
                    ASSERT_FALSE(s.user_frames.empty());
                    EXPECT_LT(s.user_frames[0], uint64_t{1} << 47);
                    if (s.kernel_frames.empty()) {
                      ++user_only;
                      EXPECT_EQ(s.kernel_stop, PYRO_STOP_NOT_TAKEN);
                    } else {
                      ++with_kernel;
                      EXPECT_EQ(s.kernel_stop, PYRO_STOP_END);
                      for (const uint64_t frame : s.kernel_frames) EXPECT_GT(frame, uint64_t{1} << 63);
                    }
                  })
                  .ok());
  EXPECT_GT(with_kernel, 20u);
  EXPECT_GT(user_only, 5u);
  EXPECT_GT((*sampler)->Counters().filtered + (*sampler)->Counters().idle, 0u);
  ExpectAccounted(**sampler);
}

TEST_F(CpuSamplerTest, ATinyRingOverflowsAndTheSumStillHolds) {
  Child spin({Workload("spin_fp"), "0"});
  spin.Go();
  ReadShape(spin);
  auto sampler = CpuSampler::Start({.frequency_hz = 2000, .ring_bytes = 4096});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  std::this_thread::sleep_for(500ms);  // nobody reads: 4 KiB hold some twenty records
  uint64_t seen = 0;
  ASSERT_TRUE((*sampler)->Stop().ok());
  SampleCounters c = (*sampler)->Counters();
  EXPECT_GT(c.dropped_ring_full, 50u);
  EXPECT_GT(c.pending, 0u);
  EXPECT_EQ(c.taken, c.delivered + c.pending + c.DroppedTotal());
  ASSERT_TRUE((*sampler)->Poll(0ms, [&](const CpuSample&) { ++seen; }).ok());
  c = (*sampler)->Counters();
  EXPECT_EQ(c.delivered, seen);
  EXPECT_GT(seen, 0u);
  EXPECT_EQ(c.pending, 0u);
  EXPECT_EQ(c.taken, c.delivered + c.dropped_ring_full);
  ExpectAccounted(**sampler);
}

TEST_F(CpuSamplerTest, SeveralSamplersSideBySideSeeTheirOwnTargets) {
  TestCgroup cgroup("side");
  Child one({Workload("spin_fp"), "0"}), other({Workload("spin_fp"), "0"});
  ASSERT_TRUE(cgroup.Add(other.pid()));
  one.Go();
  other.Go();
  ReadShape(one);
  ReadShape(other);
  auto all = CpuSampler::Start({.frequency_hz = 199});
  ASSERT_TRUE(all.ok()) << all.status();
  auto process = CpuSampler::Start({.frequency_hz = 399,
                                    .target = {.kind = SampleTarget::Kind::kProcesses,
                                               .tgids = {static_cast<uint32_t>(one.pid())},
                                               .cgroup_ids = {},
                                               .cgroup_v1_ids = {}}});
  ASSERT_TRUE(process.ok()) << process.status();
  auto group = CpuSampler::Start(
      {.frequency_hz = 299,
       .target = {
           .kind = SampleTarget::Kind::kCgroups, .tgids = {}, .cgroup_ids = {cgroup.id()}, .cgroup_v1_ids = {}}});
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_FALSE((*group)->AddProcess(1).ok());
  EXPECT_FALSE((*all)->SetCgroups({1}, {}).ok());

  std::set<uint32_t> in_all, in_process, in_group;
  const auto collect = [](std::set<uint32_t>& into) {
    return [&into](const CpuSample& s) { into.insert(s.process.tgid); };
  };
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE((*all)->Poll(25ms, collect(in_all)).ok());
    ASSERT_TRUE((*process)->Poll(25ms, collect(in_process)).ok());
    ASSERT_TRUE((*group)->Poll(25ms, collect(in_group)).ok());
  }
  const auto a = static_cast<uint32_t>(one.pid()), b = static_cast<uint32_t>(other.pid());
  EXPECT_TRUE(in_all.contains(a) && in_all.contains(b));
  EXPECT_EQ(in_process, std::set<uint32_t>{a});
  EXPECT_EQ(in_group, std::set<uint32_t>{b});

  // The target changes while it runs.
  in_group.clear();
  ASSERT_TRUE((*group)->SetCgroups({}, {}).ok());
  ASSERT_TRUE((*group)->Poll(0ms, [](const CpuSample&) {}).ok());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE((*group)->Poll(50ms, collect(in_group)).ok());
  EXPECT_TRUE(in_group.empty());
}

TEST_F(CpuSamplerTest, ChildrenOfATargetAreFollowed) {
  Child storm({Workload("fork_storm"), "40", "20"});
  auto sampler = CpuSampler::Start({.frequency_hz = 499,
                                    .target = {.kind = SampleTarget::Kind::kProcesses,
                                               .tgids = {static_cast<uint32_t>(storm.pid())},
                                               .cgroup_ids = {},
                                               .cgroup_v1_ids = {}}});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  storm.Go();
  std::set<uint32_t> children;
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return storm.Ended(); },
                  [&](const CpuSample& s) {
                    if (s.process.tgid != static_cast<uint32_t>(storm.pid())) children.insert(s.process.tgid);
                  })
                  .ok());
  EXPECT_EQ(storm.ReadLine(), "40");
  // Each burns 20 ms of CPU time, ten samples at 499 Hz.
  EXPECT_GE(children.size(), 38u);
  EXPECT_LE(children.size(), 40u);
  ExpectAccounted(**sampler);
}

TEST_F(CpuSamplerTest, CgroupBelowATargetIsTheTarget) {
  // Target: the root of cgroup2. Everything on the machine is below it.
  TestCgroup cgroup("below");
  Child spin({Workload("spin_fp"), "0"});
  ASSERT_TRUE(cgroup.Add(spin.pid()));
  spin.Go();
  ReadShape(spin);
  auto sampler = CpuSampler::Start(
      {.frequency_hz = 299,
       .target = {.kind = SampleTarget::Kind::kCgroups, .tgids = {}, .cgroup_ids = {1}, .cgroup_v1_ids = {}}});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t mine = 0;
  ASSERT_TRUE(
      PollUntil(
          **sampler, [&] { return mine >= 20; }, [&](const CpuSample& s) { mine += s.cgroup_id == cgroup.id(); })
          .ok());
  EXPECT_GT(mine, 10u);
}

TEST_F(CpuSamplerTest, Cgroup1IdsAreDirectoryInodesAndCanBeTargets) {
  if (V1Controller().empty()) GTEST_SKIP() << "no cgroup1 controller is mounted";
  TestCgroup cgroup("v1", V1Controller());
  Child spin({Workload("spin_fp"), "0"});
  ASSERT_TRUE(cgroup.ok());
  ASSERT_TRUE(cgroup.Add(spin.pid()));
  spin.Go();
  ReadShape(spin);
  auto sampler = CpuSampler::Start(
      {.frequency_hz = 299,
       .target = {
           .kind = SampleTarget::Kind::kCgroups, .tgids = {}, .cgroup_ids = {}, .cgroup_v1_ids = {cgroup.id()}}});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t mine = 0;
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return mine >= 20; },
                  [&](const CpuSample& s) {
                    ++mine;
                    EXPECT_EQ(s.cgroup_v1_id, cgroup.id());
                    EXPECT_EQ(s.process.tgid, static_cast<uint32_t>(spin.pid()));
                  })
                  .ok());
  EXPECT_GT(mine, 10u);
}

TEST_F(CpuSamplerTest, DepthLimitIsReportedAsTruncated) {
  Child spin({Workload("spin_fp"), "0"});
  spin.Go();
  ReadShape(spin);
  auto sampler = CpuSampler::Start({.frequency_hz = 499,
                                    .target = {.kind = SampleTarget::Kind::kProcesses,
                                               .tgids = {static_cast<uint32_t>(spin.pid())},
                                               .cgroup_ids = {},
                                               .cgroup_v1_ids = {}},
                                    .max_user_frames = 2});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t truncated = 0, all = 0;
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return all >= 100; },
                  [&](const CpuSample& s) {
                    ++all;
                    EXPECT_LE(s.user_frames.size(), 2u);
                    truncated += s.user_stop == PYRO_STOP_TRUNCATED && s.user_frames.size() == 2;
                  })
                  .ok());
  EXPECT_GT(all, 20u);
  EXPECT_GT(truncated * 10, all * 9);
}

TEST_F(CpuSamplerTest, RefusesWhatMakesNoSense) {
  EXPECT_EQ(CpuSampler::Start({.frequency_hz = 0}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(CpuSampler::Start({.max_user_frames = PYRO_MAX_USER_FRAMES + 1}).status().code(),
            StatusCode::kInvalidArgument);
  const auto fast = CpuSampler::Start({.frequency_hz = 4000000000u});
  EXPECT_EQ(fast.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(fast.status())), ::testing::HasSubstr("perf_event_max_sample_rate"));
  const auto gone = CpuSampler::Start(
      {.target = {.kind = SampleTarget::Kind::kProcesses, .tgids = {4194303}, .cgroup_ids = {}, .cgroup_v1_ids = {}}});
  EXPECT_EQ(gone.status().code(), StatusCode::kNotFound);
}

TEST_F(CpuSamplerTest, StartsFast) {
  const uint64_t before = MonotonicNowNs();
  auto sampler = CpuSampler::Start({});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  const uint64_t took_ms = (MonotonicNowNs() - before) / kNsPerMs;
  RecordProperty("start_ms", static_cast<int>(took_ms));
  EXPECT_LT(took_ms, 1500u) << "150 ms on an idle machine";
}

}  // namespace
}  // namespace pyrometer::kernel

// Plain perf events on one's own child, as an ordinary user where the settings allow.
#include "userspace/kernel/unprivileged_sampler.h"
#include "userspace/kernel/process_events.h"

#include <gmock/gmock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <set>
#include <string>

#include "tests/kernel/harness.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::Workload;

class UnprivilegedSamplerTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS("unprivileged_perf"); }
};

TEST_F(UnprivilegedSamplerTest, AChildFromItsExecOn) {
  // An agent beside us asks for build IDs: the kernel then marks everybody's mapping records. Without the rights for
  // one the test goes on without.
  const auto beside = ProcessEvents::Start({.only_side_band = true});
  ASSERT_TRUE(beside.ok() || beside.status().code() == StatusCode::kPermissionDenied) << beside.status();
  Child spin({Workload("spin_fp"), "1"});
  auto sampler = UnprivilegedSampler::Start({.pid = spin.pid(), .frequency_hz = 499, .enable_on_exec = true});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  spin.Go();
  uint64_t a_start = 0, a_end = 0, b_start = 0, b_end = 0, w_start = 0, w_end = 0;
  const std::string line = spin.ReadLine();
  ASSERT_EQ(std::sscanf(line.c_str(), "hot_a %lx %lx hot_b %lx %lx work %lx %lx", &a_start, &a_end, &b_start, &b_end,
                        &w_start, &w_end),
            6);
  uint64_t a = 0, b = 0, callers = 0, samples = 0, program_mapped_ns = 0, first_sample_ns = 0;
  bool exec = false, exited = false;
  const auto on_sample = [&](const CpuSample& s) {
    ++samples;
    EXPECT_EQ(s.process.tgid, static_cast<uint32_t>(spin.pid()));
    EXPECT_EQ(s.comm, "spin_fp");
    EXPECT_EQ(s.period_ns, 1'000'000'000u / 499);
    if (s.user_frames.empty()) return;
    const uint64_t leaf = s.user_frames[0];
    const bool in_a = leaf >= a_start && leaf < a_end, in_b = leaf >= b_start && leaf < b_end;
    a += in_a;
    b += in_b;
    if ((in_a || in_b) && first_sample_ns == 0) first_sample_ns = s.time_ns;
    callers += (in_a || in_b) && s.user_frames.size() > 1 && s.user_frames[1] >= w_start && s.user_frames[1] < w_end;
  };
  const auto on_event = [&](ProcessEvent&& e) {
    if (const auto* m = std::get_if<process::Mapping>(&e)) {
      if (m->start.value <= a_start && a_start < m->end.value) program_mapped_ns = m->time_ns;
    }
    exec = exec || std::holds_alternative<process::Exec>(e);
    exited = exited || std::holds_alternative<process::Exit>(e);
  };
  const auto end = std::chrono::steady_clock::now() + 5s;
  while (!exited && std::chrono::steady_clock::now() < end) {
    ASSERT_TRUE((*sampler)->Poll(50ms, on_sample, on_event).ok());
  }
  ASSERT_TRUE((*sampler)->Stop().ok());
  ASSERT_TRUE((*sampler)->Poll(0ms, on_sample, on_event).ok());
  EXPECT_TRUE(exec);
  EXPECT_TRUE(exited);
  ASSERT_GT(program_mapped_ns, 0u);
  EXPECT_LT(program_mapped_ns, first_sample_ns);
  ASSERT_GT(a + b, 50u);
  EXPECT_NEAR(static_cast<double>(a) / static_cast<double>(a + b), 0.6, 0.1);
  EXPECT_GT(callers * 100, (a + b) * 95);
  const SampleCounters c = (*sampler)->Counters();
  EXPECT_EQ(c.delivered, samples);
  EXPECT_EQ(c.pending, 0u);
  EXPECT_EQ(c.taken, c.delivered + c.DroppedTotal());
}

TEST_F(UnprivilegedSamplerTest, GrandchildrenAreFollowed) {
  Child storm({Workload("fork_storm"), "20", "20"});
  auto sampler = UnprivilegedSampler::Start({.pid = storm.pid(), .frequency_hz = 999, .enable_on_exec = true});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  storm.Go();
  std::set<uint32_t> sampled, forked;
  const auto end = std::chrono::steady_clock::now() + 15s;  // emulated machines are slow
  bool exited = false;
  while (!exited && std::chrono::steady_clock::now() < end) {
    ASSERT_TRUE((*sampler)
                    ->Poll(
                        20ms, [&](const CpuSample& s) { sampled.insert(s.process.tgid); },
                        [&](ProcessEvent&& e) {
                          if (const auto* f = std::get_if<process::Fork>(&e)) forked.insert(f->child.tgid);
                          if (const auto* x = std::get_if<process::Exit>(&e)) {
                            exited = exited || x->key.tgid == static_cast<uint32_t>(storm.pid());
                          }
                        })
                    .ok());
  }
  EXPECT_EQ(forked.size(), 20u);
  sampled.erase(static_cast<uint32_t>(storm.pid()));
  EXPECT_GE(sampled.size(), 18u);
}

TEST_F(UnprivilegedSamplerTest, WorksForAnOrdinaryUser) {
  if (geteuid() != 0) GTEST_SKIP() << "drops privileges, so needs root";
  // Its own copy: the build folder may not be readable for that user.
  char copy[] = "/tmp/pyrometer-spin-XXXXXX";
  UniqueFd file(mkstemp(copy));
  const auto program = ReadFile(Workload("spin_fp_static"));
  ASSERT_TRUE(program.ok());
  ASSERT_TRUE(WriteAll(file.get(), *program, copy).ok());
  ASSERT_EQ(fchmod(file.get(), 0755), 0);
  file.Reset();  // a file open for writing cannot be run
  int result[2];
  ASSERT_EQ(pipe(result), 0);
  const pid_t child = fork();
  if (child == 0) {
    for (int capability = 0; capability <= 63; ++capability) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // as after an exec: setuid alone leaves us closed to our own eyes
    std::string text;
    {
      Child spin({copy, "0.5"});
      auto sampler = UnprivilegedSampler::Start({.pid = spin.pid(), .frequency_hz = 499, .enable_on_exec = true});
      if (!sampler.ok()) {
        text = std::string(Message(sampler.status()));
      } else {
        spin.Go();
        uint64_t samples = 0, kernel = 0;
        for (int i = 0; i < 40; ++i) {
          if (!(*sampler)
                   ->Poll(
                       25ms, [&](const CpuSample& s) { ++samples, kernel += !s.kernel_frames.empty(); },
                       [](ProcessEvent&&) {})
                   .ok()) {
            break;
          }
        }
        text = StrFormat("samples %d kernel %d sees_kernel %d", samples, kernel, (*sampler)->samples_kernel() ? 1 : 0);
      }
    }
    _exit(write(result[1], text.data(), text.size()) > 0 ? 0 : 1);
  }
  close(result[1]);
  std::string text(4096, '\0');
  const ssize_t n = read(result[0], text.data(), text.size());
  close(result[0]);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  int status = -1;
  waitpid(child, &status, 0);
  unlink(copy);
  unsigned samples = 0, kernel = 0, sees_kernel = 0;
  ASSERT_EQ(std::sscanf(text.c_str(), "samples %u kernel %u sees_kernel %u", &samples, &kernel, &sees_kernel), 3)
      << text;
  EXPECT_GT(samples, 30u);
  const auto paranoid = ReadFile("/proc/sys/kernel/perf_event_paranoid");
  ASSERT_TRUE(paranoid.ok());
  if (ParseInt64(StripWhitespace(*paranoid)).value_or(0) >= 2) {
    EXPECT_EQ(kernel, 0u);
    EXPECT_EQ(sees_kernel, 0u);
  }
}

TEST_F(UnprivilegedSamplerTest, OthersProcessesAreRefusedWithARemedy) {
  if (geteuid() != 0) GTEST_SKIP() << "drops privileges, so needs root";
  int result[2];
  ASSERT_EQ(pipe(result), 0);
  const pid_t child = fork();
  if (child == 0) {
    for (int capability = 0; capability <= 63; ++capability) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    const Status status = UnprivilegedSampler::Start({.pid = 1}).status();
    const std::string text = StrFormat("%d %s", static_cast<int>(status.code()), Message(status));
    _exit(write(result[1], text.data(), text.size()) > 0 ? 0 : 1);
  }
  close(result[1]);
  std::string text(4096, '\0');
  const ssize_t n = read(result[0], text.data(), text.size());
  close(result[0]);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_THAT(text, ::testing::StartsWith(StrFormat("%d ", static_cast<int>(StatusCode::kPermissionDenied))));
  EXPECT_THAT(text, ::testing::HasSubstr("perf_event_paranoid"));
  EXPECT_THAT(text, ::testing::HasSubstr("root"));
}

TEST_F(UnprivilegedSamplerTest, RefusesWhatMakesNoSense) {
  EXPECT_EQ(UnprivilegedSampler::Start({}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(UnprivilegedSampler::Start({.pid = getpid(), .frequency_hz = 0}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(UnprivilegedSampler::Start({.pid = 4194303}).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace pyrometer::kernel

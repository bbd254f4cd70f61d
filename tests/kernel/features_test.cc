// What `doctor` reports, with all rights and with none; and that missing rights give errors with a remedy.
#include "userspace/kernel/features.h"

#include <gmock/gmock.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <set>

#include "tests/kernel/harness.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/cpu_sampler.h"
#include "userspace/kernel/process_events.h"
#include "userspace/kernel/syscall_latency.h"
#include "userspace/kernel/tcp_latency.h"

namespace pyrometer::kernel {
namespace {

using ::testing::HasSubstr;

TEST(FeaturesTest, WhatIsReportedWorkingIsWhatTheProbesNeed) {
  const std::vector<Feature> features = ProbeFeatures();
  std::set<std::string> names;
  for (const Feature& f : features) {
    EXPECT_TRUE(names.insert(f.name).second) << f.name;
    EXPECT_FALSE(f.title.empty()) << f.name;
    EXPECT_FALSE(f.detail.empty()) << f.name;
    // Whoever reads that something is wrong must read what that means for him.
    EXPECT_TRUE(f.state == FeatureState::kOk || !f.effect.empty()) << f.name;
    std::printf("%-22s %-9s %s\n", f.name.c_str(), std::string(FeatureStateName(f.state)).c_str(), f.detail.c_str());
  }
  for (const char* name : {"btf",
                           "bpf_perf_event",
                           "tp_btf",
                           "task_storage",
                           "sk_storage",
                           "ring_buffer",
                           "task_work",
                           "sock_ops",
                           "socket_iterator",
                           "tcp_probe",
                           "io_uring",
                           "hardware_cycles",
                           "kprobe",
                           "fentry",
                           "perf_event_paranoid",
                           "kptr_restrict",
                           "memlock_limit",
                           "cap_bpf",
                           "cap_perfmon",
                           "cap_sys_ptrace",
                           "cap_dac_read_search",
                           "cap_sys_admin",
                           "cgroup2",
                           "cgroup1",
                           "bpf_stats",
                           "unprivileged_perf",
                           "side_band_build_id",
                           "pid_namespace",
                           "lockdown"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

// Kernel tests skip when a feature is missing. That is right on a kernel without BPF; it must not hide a broken probe
// on one with it: with root and BTF, everything that the probes need has to be there.
TEST(FeaturesTest, RootOnAKernelWithBtfHasEverythingTheProbesNeed) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const std::vector<Feature> features = ProbeFeatures();
  if (FindFeature(features, "btf")->state != FeatureState::kOk) GTEST_SKIP() << "kernel without BTF";
  for (const char* name :
       {"bpf_perf_event", "tp_btf", "task_storage", "sk_storage", "ring_buffer", "socket_iterator", "tcp_probe"}) {
    EXPECT_EQ(FindFeature(features, name)->state, FeatureState::kOk)
        << name << ": " << FindFeature(features, name)->detail;
  }
}

// Runs `body` in a child without privileges (an ordinary user, an empty bounding set) and returns what it wrote.
template <typename Body>
std::string WithoutPrivileges(Body body) {
  int fds[2];
  EXPECT_EQ(pipe(fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(fds[0]);
    for (int capability = 0; capability <= 63; ++capability) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    const std::string text = body();
    _exit(write(fds[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(fds[1]);
  std::string out;
  char buffer[4096];
  ssize_t n;
  while ((n = read(fds[0], buffer, sizeof(buffer))) > 0) out.append(buffer, static_cast<size_t>(n));
  close(fds[0]);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return out;
}

TEST(FeaturesTest, WithoutPrivilegesItReportsAndDoesNotFail) {
  if (geteuid() != 0) GTEST_SKIP() << "drops privileges, so needs root";
  const std::string report = WithoutPrivileges([] {
    std::string text;
    for (const Feature& f : ProbeFeatures()) {
      text += StrFormat("%s=%s;%s\n", f.name, FeatureStateName(f.state), f.remedy);
    }
    return text;
  });
  EXPECT_THAT(report, HasSubstr("cap_bpf=missing;run as root"));
  EXPECT_THAT(report, HasSubstr("cap_perfmon=missing;run as root"));
  EXPECT_THAT(report, HasSubstr("tp_btf=missing;run as root"));
  EXPECT_THAT(report, HasSubstr("ring_buffer=missing;run as root"));
  EXPECT_THAT(report, HasSubstr("pid_namespace="));
}

TEST(FeaturesTest, ProbesWithoutPrivilegesSayWhatIsMissing) {
  if (geteuid() != 0) GTEST_SKIP() << "drops privileges, so needs root";
  const std::string errors = WithoutPrivileges([] {
    std::string text;
    for (const Status& status :
         {CpuSampler::Start({}).status(), SyscallLatency::Start({}).status(), TcpLatency::Start({}).status(),
          ProcessEvents::Start({}).status(), ProcessEvents::Start({.only_side_band = true}).status()}) {
      text += StrFormat("%d %s\n", static_cast<int>(status.code()), Message(status));
    }
    return text;
  });
  const std::vector<std::string_view> lines = Split(errors, '\n');
  ASSERT_EQ(lines.size(), 6u) << errors;
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_THAT(std::string(lines[i]),
                ::testing::StartsWith(StrFormat("%d ", static_cast<int>(StatusCode::kPermissionDenied))));
    EXPECT_THAT(std::string(lines[i]), HasSubstr("CAP_BPF, CAP_PERFMON"));
    EXPECT_THAT(std::string(lines[i]), HasSubstr("run as root"));
    EXPECT_THAT(std::string(lines[i]), HasSubstr("setcap"));
  }
}

}  // namespace
}  // namespace pyrometer::kernel

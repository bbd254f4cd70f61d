// Exec, fork, exit and mappings of processes that we start ourselves.
#include "userspace/kernel/process_events.h"

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <set>
#include <vector>

#include "tests/kernel/harness.h"
#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::TestCgroup;
using ::pyrometer::testing::Workload;

class ProcessEventsTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS("tp_btf"); }

  static std::vector<ProcessEvent> Collect(ProcessEvents& events, std::chrono::milliseconds duration) {
    std::vector<ProcessEvent> out;
    const auto end = std::chrono::steady_clock::now() + duration;
    const auto add = [&](ProcessEvent&& e) { out.push_back(std::move(e)); };
    while (std::chrono::steady_clock::now() < end) EXPECT_TRUE(events.Poll(20ms, add).ok());
    return out;
  }
};

TEST_F(ProcessEventsTest, ALifeIsSeenInOrder) {
  auto events = ProcessEvents::Start({});
  ASSERT_TRUE(events.ok()) << events.status();
  TestCgroup cgroup("life");
  Child spin({Workload("spin_fp"), "0.05"});
  const auto tgid = static_cast<uint32_t>(spin.pid());
  ASSERT_TRUE(cgroup.Add(spin.pid()));
  spin.Go();
  const std::string line = spin.ReadLine();
  unsigned long hot_a = 0;
  ASSERT_EQ(std::sscanf(line.c_str(), "hot_a %lx", &hot_a), 1);
  EXPECT_EQ(spin.Wait(), 0);
  const std::vector<ProcessEvent> all = Collect(**events, 200ms);

  const process::Fork* fork = nullptr;
  const process::Exec* exec = nullptr;
  const process::Exit* exit = nullptr;
  std::vector<const process::Mapping*> mappings;
  uint64_t last_ns = 0;
  for (const ProcessEvent& event : all) {
    EXPECT_GE(TimeOf(event), last_ns) << "in order of time";
    last_ns = TimeOf(event);
    EXPECT_FALSE(std::holds_alternative<LostEvents>(event));
    if (const auto* f = std::get_if<process::Fork>(&event); f && f->child.tgid == tgid) fork = f;
    if (const auto* e = std::get_if<process::Exec>(&event); e && e->key.tgid == tgid) exec = e;
    if (const auto* e = std::get_if<process::Exit>(&event); e && e->key.tgid == tgid) {
      EXPECT_EQ(exit, nullptr) << "once";
      exit = e;
    }
    if (const auto* m = std::get_if<process::Mapping>(&event); m && m->key.tgid == tgid) mappings.push_back(m);
  }
  ASSERT_NE(fork, nullptr);
  ASSERT_NE(exec, nullptr);
  ASSERT_NE(exit, nullptr);
  EXPECT_EQ(fork->parent.tgid, static_cast<uint32_t>(getpid()));
  EXPECT_GT(fork->parent.start_time_ns, 0u);
  EXPECT_LT(fork->parent.start_time_ns, fork->child.start_time_ns);
  EXPECT_EQ(exec->key, fork->child);
  EXPECT_EQ(exit->key, fork->child);
  EXPECT_EQ(exec->comm, "spin_fp");
  EXPECT_EQ(exec->filename, Workload("spin_fp"));
  EXPECT_EQ(exec->cgroup_id, cgroup.id());
  EXPECT_LT(fork->time_ns, exec->image_start_ns);
  EXPECT_LT(exec->image_start_ns, exec->time_ns);
  EXPECT_LT(exec->time_ns, exit->time_ns);

  // The program itself is mapped where it says that hot_a is, between the drop of the old image and the exit.
  const process::Mapping* program = nullptr;
  bool loader = false;
  for (const process::Mapping* m : mappings) {
    EXPECT_GE(m->time_ns, exec->image_start_ns);
    EXPECT_LE(m->time_ns, exit->time_ns);
    EXPECT_NE(m->protection & process::kProtExec, 0u);
    EXPECT_LT(m->start, m->end);
    if (m->start.value <= hot_a && hot_a < m->end.value) program = m;
    loader = loader || m->path.find("ld-linux") != std::string::npos;
  }
  ASSERT_NE(program, nullptr);
  EXPECT_TRUE(loader);
  EXPECT_EQ(program->path, Workload("spin_fp"));
  if (program->build_id.empty()) {
    struct stat info {};
    ASSERT_EQ(stat(Workload("spin_fp").c_str(), &info), 0);
    EXPECT_EQ(program->inode, info.st_ino);
  } else {
    EXPECT_EQ(program->build_id.hex.size(), 40u);
  }
  const ProcessEventCounters c = (*events)->Counters();
  EXPECT_EQ(c.lost, 0u);
  EXPECT_EQ(c.malformed, 0u);
  EXPECT_EQ(c.taken, c.delivered + c.pending + c.lost + c.malformed + c.duplicates);
}

TEST_F(ProcessEventsTest, AStormIsSeenWholly) {
  auto events = ProcessEvents::Start({});
  ASSERT_TRUE(events.ok()) << events.status();
  Child storm({Workload("fork_storm"), "300", "0"});
  const auto parent = static_cast<uint32_t>(storm.pid());
  storm.Go();
  std::vector<ProcessEvent> all = Collect(**events, 100ms);
  EXPECT_EQ(storm.ReadLine(), "300");
  storm.Wait();
  for (ProcessEvent& e : Collect(**events, 200ms)) all.push_back(std::move(e));
  ASSERT_TRUE((*events)->Stop().ok());
  ASSERT_TRUE((*events)->Poll(0ms, [&](ProcessEvent&& e) { all.push_back(std::move(e)); }).ok());

  std::set<ProcessKey> forked, execed, ended;
  for (const ProcessEvent& event : all) {
    if (const auto* f = std::get_if<process::Fork>(&event); f && f->parent.tgid == parent) forked.insert(f->child);
    if (const auto* e = std::get_if<process::Exec>(&event); e && forked.contains(e->key)) execed.insert(e->key);
    if (const auto* e = std::get_if<process::Exit>(&event); e && forked.contains(e->key)) {
      EXPECT_TRUE(ended.insert(e->key).second) << "an end reported twice";
    }
  }
  EXPECT_EQ(forked.size(), 300u);
  EXPECT_EQ(execed.size(), 300u);
  EXPECT_EQ(ended.size(), 300u);
  EXPECT_EQ((*events)->Counters().lost, 0u);
  EXPECT_EQ((*events)->Counters().pending, 0u);
}

TEST_F(ProcessEventsTest, FullRingsAreReportedAsLost) {
  auto events = ProcessEvents::Start({.ring_bytes = 4096, .side_band_pages = 1});
  ASSERT_TRUE(events.ok()) << events.status();
  Child storm({Workload("fork_storm"), "200", "0"});
  storm.Go();
  EXPECT_EQ(storm.ReadLine(), "200");
  uint64_t lost = 0;
  for (const ProcessEvent& event : Collect(**events, 100ms)) {
    if (const auto* l = std::get_if<LostEvents>(&event)) lost += l->count;
  }
  EXPECT_GT(lost, 100u);
  const ProcessEventCounters c = (*events)->Counters();
  EXPECT_EQ(c.lost, lost);
  EXPECT_EQ(c.taken, c.delivered + c.pending + c.lost + c.malformed + c.duplicates);
}

TEST_F(ProcessEventsTest, AnExecIsDeliveredSoon) {
  auto events = ProcessEvents::Start({});
  ASSERT_TRUE(events.ok()) << events.status();
  std::vector<uint64_t> delays;
  for (int i = 0; i < 10; ++i) {
    Child spin({Workload("fork_storm"), "0", "0"});
    const auto tgid = static_cast<uint32_t>(spin.pid());
    spin.Go();
    bool seen = false;
    const auto end = std::chrono::steady_clock::now() + 2s;
    while (!seen && std::chrono::steady_clock::now() < end) {
      // A long time-out: only a wake-up can end it early.
      ASSERT_TRUE((*events)
                      ->Poll(1000ms,
                             [&](ProcessEvent&& e) {
                               const auto* exec = std::get_if<process::Exec>(&e);
                               if (exec == nullptr || exec->key.tgid != tgid) return;
                               seen = true;
                               delays.push_back(MonotonicNowNs() - exec->time_ns);
                             })
                      .ok());
    }
    EXPECT_TRUE(seen);
    spin.Wait();
  }
  std::sort(delays.begin(), delays.end());
  ASSERT_FALSE(delays.empty());
  EXPECT_LT(delays[delays.size() / 2], 50 * kNsPerMs);
  RecordProperty("median_us", static_cast<int>(delays[delays.size() / 2] / 1000));
}

TEST_F(ProcessEventsTest, SideBandAloneTellsForkExecExitToo) {
  auto events = ProcessEvents::Start({.build_ids = false, .only_side_band = true});
  ASSERT_TRUE(events.ok()) << events.status();
  Child spin({Workload("fork_storm"), "1", "1"});
  const auto tgid = static_cast<uint32_t>(spin.pid());
  spin.Go();
  EXPECT_EQ(spin.Wait(), 0);
  int forks = 0, execs = 0, exits = 0, mappings = 0;
  for (const ProcessEvent& event : Collect(**events, 200ms)) {
    if (const auto* f = std::get_if<process::Fork>(&event)) forks += f->parent.tgid == tgid;
    if (const auto* e = std::get_if<process::Exec>(&event)) execs += e->key.tgid == tgid;
    if (const auto* e = std::get_if<process::Exit>(&event)) exits += e->key.tgid == tgid;
    if (const auto* m = std::get_if<process::Mapping>(&event); m && m->key.tgid == tgid) {
      ++mappings;
      EXPECT_TRUE(m->build_id.empty());
    }
  }
  EXPECT_EQ(forks, 1);
  EXPECT_EQ(execs, 1);
  EXPECT_EQ(exits, 1);
  EXPECT_GE(mappings, 3);
}

TEST_F(ProcessEventsTest, ARenameIsReported) {
  auto events = ProcessEvents::Start({});
  ASSERT_TRUE(events.ok()) << events.status();
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_NAME, "renamed-self");
    _exit(0);
  }
  ASSERT_GT(child, 0);
  waitpid(child, nullptr, 0);
  bool seen = false;
  for (const ProcessEvent& event : Collect(**events, 100ms)) {
    const auto* c = std::get_if<process::Comm>(&event);
    seen = seen || (c && c->key.tgid == static_cast<uint32_t>(child) && c->comm == "renamed-self");
  }
  EXPECT_TRUE(seen);
}

}  // namespace
}  // namespace pyrometer::kernel

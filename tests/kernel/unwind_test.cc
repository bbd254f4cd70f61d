// Walks by table inside the kernel, on workloads without frame pointers: whole stacks, the right names in the right
// order, whatever the process did just before.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "tests/kernel/harness.h"
#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/kernel/cpu_sampler.h"
#include "userspace/kernel/features.h"
#include "userspace/kernel/process_events.h"
#include "userspace/kernel/unwind_maps.h"
#include "userspace/symbolize/vdso.h"
#include "userspace/unwind/table_builder.h"

namespace pyrometer::kernel {
namespace {

using namespace std::chrono_literals;
using ::pyrometer::testing::Child;
using ::pyrometer::testing::Workload;

// Executable mappings of a process with their tables, as /proc tells them now.
class Tables {
 public:
  explicit Tables(std::shared_ptr<UnwindMaps> maps) : maps_(std::move(maps)) {}

  std::vector<UnwindMaps::Mapping> Of(pid_t pid) {
    std::vector<UnwindMaps::Mapping> mappings;
    std::ifstream file(StrFormat("/proc/%d/maps", pid));
    for (std::string line; std::getline(file, line);) {
      unsigned long start, end, offset;
      char protection[8] = {}, path[512] = {};
      if (std::sscanf(line.c_str(), "%lx-%lx %7s %lx %*s %*s %511s", &start, &end, protection, &offset, path) < 4)
        continue;
      if (protection[2] != 'x') continue;
      UnwindMaps::Mapping mapping{.start = VirtualAddress(start), .end = VirtualAddress(end)};
      // As the agent does, the vdso too: in it rbp is no frame pointer and may be 0, which would end the walk.
      const bool vdso = path == std::string_view("[vdso]");
      if (path[0] == '/' || vdso) {
        const auto& [id, segments] = TableOf(path);
        const std::optional<ElfAddress> address =
            vdso ? ElfAddress(0) : elf::ToElfAddress(segments, FileOffset(offset));
        if (id != 0 && address) {
          mapping.kind = PYRO_MAPPING_TABLE;
          mapping.table = id;
          mapping.bias = start - address->value;
        }
      }
      mappings.push_back(mapping);
    }
    return mappings;
  }
  Status Publish(pid_t pid) {
    const auto mappings = Of(pid);
    return maps_->Publish({.tgid = static_cast<uint32_t>(pid), .start_time_ns = 0}, mappings, UINT64_MAX);
  }

 private:
  static StatusOr<elf::ElfFile> Open(const std::string& path) {
    if (path != "[vdso]") return elf::ElfFile::Open(path);
    ASSIGN_OR_RETURN(const symbolize::VdsoImage vdso, symbolize::OwnVdso());
    return elf::ElfFile::FromBytes(vdso.source.image, path);
  }

  const std::pair<UnwindMaps::TableId, std::vector<elf::Segment>>& TableOf(const std::string& path) {
    const auto [found, added] = tables_.try_emplace(path);
    if (!added) return found->second;
    const auto file = Open(path);
    if (!file.ok()) return found->second;
    found->second.second = file->segments();
    const auto table = unwind::BuildUnwindTable(*file, {});
    if (table.ok()) found->second.first = maps_->AddTable(*table).value_or(0);
    return found->second;
  }

  std::shared_ptr<UnwindMaps> maps_;
  std::map<std::string, std::pair<UnwindMaps::TableId, std::vector<elf::Segment>>> tables_;
};

SampleTarget Target(pid_t pid) {
  SampleTarget target;
  target.kind = SampleTarget::Kind::kProcesses;
  target.tgids = {static_cast<uint32_t>(pid)};
  return target;
}

Status PollUntil(CpuSampler& sampler, const std::function<bool()>& enough, const CpuSampler::Callback& callback) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!enough() && std::chrono::steady_clock::now() < end) RETURN_IF_ERROR(sampler.Poll(20ms, callback));
  RETURN_IF_ERROR(sampler.Stop());
  return sampler.Poll(0ms, callback);
}

void ExpectAccounted(const CpuSampler& sampler) {
  const SampleCounters c = sampler.Counters();
  EXPECT_EQ(c.taken, c.delivered + c.pending + c.DroppedTotal());
  EXPECT_EQ(c.pending, 0u);
}

class UnwindTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS("bpf_perf_event");
    auto maps = UnwindMaps::Create({});
    ASSERT_TRUE(maps.ok()) << maps.status();
    maps_ = *std::move(maps);
    tables_ = std::make_unique<Tables>(maps_);
  }
  std::shared_ptr<UnwindMaps> maps_;
  std::unique_ptr<Tables> tables_;
};

// deep_nofp N SECONDS: main, N times descend_even/descend_odd, bottom; now and then main asks the vdso for the time.
TEST_F(UnwindTest, DeepStacksWithoutFramePointersAreWhole) {
  for (const int depth : {10, 127, 300}) {
    Child deep({Workload("deep_nofp"), std::to_string(depth), "30"});
    deep.Go();
    usleep(200'000);
    ASSERT_TRUE(tables_->Publish(deep.pid()).ok());
    auto sampler = CpuSampler::Start({.frequency_hz = 499, .target = Target(deep.pid()), .unwind = maps_});
    ASSERT_TRUE(sampler.ok()) << sampler.status();
    uint64_t samples = 0, whole = 0, deepest = 0, copies = 0;
    ASSERT_TRUE(PollUntil(
                    **sampler, [&] { return samples >= 150; },
                    [&](const CpuSample& s) {
                      ++samples;
                      whole += s.user_stop == PYRO_STOP_END;
                      copies += s.raw_registers != nullptr;
                      EXPECT_TRUE(s.means & PYRO_BY_TABLE || s.user_stop != PYRO_STOP_END);
                      deepest = std::max(deepest, static_cast<uint64_t>(s.user_frames.size()));
                    })
                    .ok());
    ExpectAccounted(**sampler);
    EXPECT_GE(samples, 150u);
    EXPECT_GE(static_cast<double>(whole), 0.99 * static_cast<double>(samples)) << depth;
    EXPECT_EQ(copies, 0u);
    EXPECT_GE(deepest, static_cast<uint64_t>(depth) + 4) << "main, libc and _start are below";
    EXPECT_LE(deepest, static_cast<uint64_t>(depth) + 12);
  }
}

// vdso SECONDS: main, ask, clock_gettime, the vdso's, in which most samples are.
TEST_F(UnwindTest, StacksThroughTheVdsoAreWhole) {
  Child clock({Workload("vdso"), "30"});
  clock.Go();
  usleep(200'000);
  ASSERT_TRUE(tables_->Publish(clock.pid()).ok());
  auto sampler = CpuSampler::Start({.frequency_hz = 499, .target = Target(clock.pid()), .unwind = maps_});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t samples = 0, whole = 0, short_of_main = 0;
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return samples >= 150; },
                  [&](const CpuSample& s) {
                    ++samples;
                    whole += s.user_stop == PYRO_STOP_END && s.means == PYRO_BY_TABLE;
                    short_of_main += s.user_frames.size() < 4;  // main, two of libc, _start
                  })
                  .ok());
  ExpectAccounted(**sampler);
  EXPECT_GE(samples, 150u);
  EXPECT_GE(static_cast<double>(whole), 0.99 * static_cast<double>(samples));
  EXPECT_EQ(short_of_main, 0u);
}

TEST_F(UnwindTest, UnknownProcessCarriesItsStackAndTheCopyGivesTheSameFrames) {
  Child deep({Workload("deep_nofp"), "30", "30"});
  deep.Go();
  usleep(200'000);
  auto sampler = CpuSampler::Start({.frequency_hz = 499, .target = Target(deep.pid()), .unwind = maps_});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  const auto mappings = tables_->Of(deep.pid());
  const auto entries = maps_->Entries(mappings);
  unwind::StackWalker walker;
  std::set<std::vector<uint64_t>> by_copy, by_kernel;
  uint64_t copies = 0, known = 0, whole = 0;
  const auto take = [&](const CpuSample& s) {
    if (s.raw_registers == nullptr) {
      ++known;
      if (s.user_stop == PYRO_STOP_END) by_kernel.insert({s.user_frames.begin() + 1, s.user_frames.end()});
      return;
    }
    ++copies;
    EXPECT_EQ(s.user_stop, PYRO_STOP_NO_PROCESS);
    const unwind::StackCopy memory(s.raw_registers->stack_start, s.raw_stack);
    const auto result = walker.Walk(*s.raw_registers, memory, PYRO_MAX_USER_FRAMES, entries, *maps_);
    whole += result.stop == PYRO_STOP_END;
    by_copy.insert({result.frames.begin() + 1, result.frames.end()});
  };
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (copies < 150 && std::chrono::steady_clock::now() < end) ASSERT_TRUE((*sampler)->Poll(20ms, take).ok());
  ASSERT_TRUE(tables_->Publish(deep.pid()).ok());
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return known >= 150; }, take)
                  .ok());
  ExpectAccounted(**sampler);
  EXPECT_GE(copies, 150u);
  EXPECT_GE(static_cast<double>(whole), 0.99 * static_cast<double>(copies));
  // Callers are few and the same by both ways, whatever the leaf's address.
  std::vector<std::vector<uint64_t>> both;
  std::set_intersection(by_copy.begin(), by_copy.end(), by_kernel.begin(), by_kernel.end(), std::back_inserter(both));
  EXPECT_FALSE(both.empty());
  EXPECT_LT(by_copy.size() + by_kernel.size(), 40u + both.size());
}

TEST_F(UnwindTest, PagesThatAreNotInMemoryAreFaultedInByTheTask) {
  Child cold({Workload("cold_stack"), "30"});
  cold.Go();
  ASSERT_EQ(cold.ReadLine(), "ready");
  usleep(100'000);
  ASSERT_TRUE(tables_->Publish(cold.pid()).ok());
  auto sampler = CpuSampler::Start({.frequency_hz = 499, .target = Target(cold.pid()), .unwind = maps_});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  uint64_t samples = 0, whole = 0, deferred = 0, unreadable = 0;
  ASSERT_TRUE(PollUntil(
                  **sampler, [&] { return samples >= 200; },
                  [&](const CpuSample& s) {
                    ++samples;
                    whole += s.user_stop == PYRO_STOP_END && s.user_frames.size() > 40;
                    unreadable += s.user_stop == PYRO_STOP_UNREADABLE;
                    if (s.means & PYRO_BY_DEFERRED) {
                      ++deferred;
                      EXPECT_EQ(s.user_stop, PYRO_STOP_END);
                    }
                  })
                  .ok());
  ExpectAccounted(**sampler);
  std::printf("  %lu samples, %lu whole, %lu by deferred walks, %lu unreadable\n", static_cast<unsigned long>(samples),
              static_cast<unsigned long>(whole), static_cast<unsigned long>(deferred),
              static_cast<unsigned long>(unreadable));
  if (!HasTaskWork()) {
    EXPECT_GT(unreadable, samples / 2) << "without task work they are lost, and say so";
    GTEST_SKIP() << "task_work: this kernel has none";
  }
  EXPECT_GT(deferred, samples / 2);
  EXPECT_GE(static_cast<double>(whole), 0.95 * static_cast<double>(samples));
  EXPECT_EQ((*sampler)->Counters().deferred, deferred);
}

// ---- the memory behind it ------------------------------------------------------------------------------------------

class UnwindMapsTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS("bpf_perf_event"); }
  std::shared_ptr<UnwindMaps> Make(uint64_t max_bytes) {
    auto maps = UnwindMaps::Create({.max_bytes = max_bytes, .now_ns = [this] { return now_ns_; }});
    EXPECT_TRUE(maps.ok()) << maps.status();
    return maps.ok() ? *std::move(maps) : nullptr;
  }
  // `rows` rows of 16 bytes of code each, over `rules` distinct rules that begin at `first`.
  static unwind::UnwindTable Table(uint32_t rows, uint32_t rules, int32_t first = 0) {
    unwind::UnwindTable table;
    table.rules.push_back({.kind = PYRO_UNWIND_NONE});
    for (uint32_t i = 0; i < rules; ++i) {
      table.rules.push_back({.kind = PYRO_UNWIND_REGISTER,
                             .reg = PYRO_REG_RSP,
                             .bx_saved = PYRO_SAVED_LOST,
                             .offset = first + static_cast<int32_t>(8 * (i + 1)),
                             .ra_at = -8});
    }
    unwind::UnwindPart part;
    part.base = ElfAddress(0x1000);
    part.pages = (rows + 31) / 32;
    part.words.assign(part.pages + 2, 0);
    for (uint32_t i = 0; i < rows; ++i) {
      if (i % 32 == 0) part.words[i / 32] = static_cast<uint32_t>(part.words.size());
      part.words.push_back(i % 32 * 16 << 16 | (1 + i % rules));
    }
    part.words[part.pages] = static_cast<uint32_t>(part.words.size());
    table.parts.push_back(std::move(part));
    return table;
  }
  static constexpr ProcessKey kProcess{.tgid = 4'000'000'000u, .start_time_ns = 12'345'678'901};  // no such process

  uint64_t now_ns_ = kNsPerSecond;
};

TEST_F(UnwindMapsTest, WhatIsWrittenIsWhatTheWalkReads) {
  const auto maps = Make(64 << 20);
  const unwind::UnwindTable table = Table(5000, 60);
  const auto id = maps->AddTable(table);
  ASSERT_TRUE(id.ok()) << id.status();
  const auto entries = maps->Entries({{UnwindMaps::Mapping{.start = VirtualAddress(0x501000),
                                                           .end = VirtualAddress(0x501000 + 5000 * 16),
                                                           .kind = PYRO_MAPPING_TABLE,
                                                           .table = *id,
                                                           .bias = 0x500000}}});
  ASSERT_EQ(entries.size(), 1u);
  const uint32_t* words = maps->Segment(entries[0].table >> PYRO_SEGMENT_SHIFT);
  for (uint32_t row = 0; row < 5000; ++row) {
    const uint32_t page = entries[0].table + row / 32;
    const uint32_t at = words[page & (PYRO_SEGMENT_WORDS - 1)] + row % 32;
    const uint32_t word = words[at & (PYRO_SEGMENT_WORDS - 1)];
    ASSERT_EQ(word >> 16, row % 32 * 16);
    ASSERT_EQ(maps->Rule(word & 0xffff)->offset, static_cast<int32_t>(8 * (row % 60 + 1)));
  }
  EXPECT_EQ(maps->stats().rules, 61u);
  EXPECT_EQ(maps->stats().tables, 1u);
  // The same rules again cost nothing.
  ASSERT_TRUE(maps->AddTable(Table(100, 60)).ok());
  EXPECT_EQ(maps->stats().rules, 61u);
}

TEST_F(UnwindMapsTest, StaysWithinItsLimitAndRefusesWithTheFlag) {
  const auto maps = Make(8 << 20);
  std::vector<UnwindMaps::TableId> ids;
  Status refused;
  for (int i = 0; i < 100 && refused.ok(); ++i) {
    const auto id = maps->AddTable(Table(200'000, 50));
    if (id.ok()) {
      ids.push_back(*id);
    } else {
      refused = id.status();
    }
  }
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(Message(refused)), ::testing::HasSubstr("--unwind-memory"));
  EXPECT_GE(ids.size(), 8u);
  EXPECT_LE(maps->stats().segment_bytes, 8u << 20);
  EXPECT_EQ(maps->stats().refused_tables, 1u);
  EXPECT_EQ(maps->stats().rules, 51u) << "a refused table leaves no references";
  // Room comes back, but not while a walk may still be in it.
  maps->RemoveTable(ids[0]);
  EXPECT_FALSE(maps->AddTable(Table(200'000, 50)).ok());
  now_ns_ += kUnwindGraceNs;
  EXPECT_TRUE(maps->AddTable(Table(200'000, 50)).ok());
}

TEST_F(UnwindMapsTest, RulesAreGivenBack) {
  const auto maps = Make(64 << 20);
  for (int round = 0; round < 10; ++round) {
    const auto id = maps->AddTable(Table(20'000, 20'000, round * 200'000));
    ASSERT_TRUE(id.ok()) << id.status();
    maps->RemoveTable(*id);
    now_ns_ += kUnwindGraceNs;
  }
  EXPECT_EQ(maps->stats().rules, 0u);
  const auto first = maps->AddTable(Table(40'000, 40'000));
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(maps->AddTable(Table(40'000, 40'000, 8'000'000)).ok()) << "65,536 rules in all";
  EXPECT_EQ(maps->stats().rules, 40'001u);
}

TEST_F(UnwindMapsTest, PublishingReplacesAndWithdraws) {
  const auto maps = Make(16 << 20);
  const auto id = maps->AddTable(Table(100, 5));
  const std::vector<UnwindMaps::Mapping> mappings = {{.start = VirtualAddress(0x1000),
                                                      .end = VirtualAddress(0x1000 + 100 * 16),
                                                      .kind = PYRO_MAPPING_TABLE,
                                                      .table = *id,
                                                      .bias = 0}};
  const uint64_t table_bytes = maps->stats().used_bytes;
  ASSERT_TRUE(maps->Publish(kProcess, mappings, now_ns_).ok());
  EXPECT_EQ(maps->stats().processes, 1u);
  const uint64_t with_one = maps->stats().used_bytes;
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(maps->Publish(kProcess, mappings, now_ns_).ok());
  EXPECT_EQ(maps->stats().used_bytes, with_one);
  EXPECT_GT(maps->stats().waiting_bytes, 0u);
  maps->Withdraw(kProcess);
  EXPECT_EQ(maps->stats().used_bytes, table_bytes);
  EXPECT_EQ(maps->stats().processes, 0u);
  now_ns_ += kUnwindGraceNs;
  ASSERT_TRUE(maps->Publish(kProcess, mappings, now_ns_).ok());
  EXPECT_EQ(maps->stats().waiting_bytes, 0u);
  // Another process with the number does not lose its mappings to the old one's end.
  maps->Withdraw({.tgid = kProcess.tgid, .start_time_ns = kProcess.start_time_ns + kNsPerSecond});
  EXPECT_EQ(maps->stats().processes, 1u);
}

TEST_F(UnwindMapsTest, ExecOvertakesAPublication) {
  SKIP_UNLESS("tp_btf");
  const auto maps = Make(16 << 20);
  auto events = ProcessEvents::Start({.unwind = maps});
  ASSERT_TRUE(events.ok()) << events.status();
  const std::vector<UnwindMaps::Mapping> mappings = {
      {.start = VirtualAddress(0x1000), .end = VirtualAddress(0x2000), .kind = PYRO_MAPPING_NO_INFO}};
  Child child({Workload("spin_fp"), "5"});
  const ProcessKey key{.tgid = static_cast<uint32_t>(child.pid()), .start_time_ns = 0};
  const uint64_t before_exec = MonotonicNowNs();
  ASSERT_TRUE(maps->Publish(key, mappings, before_exec).ok());
  child.Go();
  ASSERT_FALSE(child.ReadLine().empty());  // it runs the new program
  ASSERT_TRUE(maps->Publish(key, mappings, before_exec).ok());
  EXPECT_EQ(maps->stats().outdated, 1u) << "what was known before the exec is not published after it";
  ASSERT_TRUE(maps->Publish(key, mappings, MonotonicNowNs()).ok());
  EXPECT_EQ(maps->stats().outdated, 1u);
}

TEST_F(UnwindMapsTest, ForkedChildSharesUntilItsParentChanges) {
  SKIP_UNLESS("tp_btf");
  const auto maps = Make(16 << 20);
  auto events = ProcessEvents::Start({.unwind = maps});
  ASSERT_TRUE(events.ok()) << events.status();
  const std::vector<UnwindMaps::Mapping> mappings = {
      {.start = VirtualAddress(0x1000), .end = VirtualAddress(0x2000), .kind = PYRO_MAPPING_NO_INFO}};
  const ProcessKey parent{.tgid = static_cast<uint32_t>(getpid()), .start_time_ns = 0};
  ASSERT_TRUE(maps->Publish(parent, mappings, MonotonicNowNs()).ok());
  now_ns_ += 10;
  const pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  const ProcessKey child{.tgid = static_cast<uint32_t>(pid), .start_time_ns = 0};
  EXPECT_TRUE(maps->Share(parent, child, now_ns_));
  EXPECT_EQ(maps->stats().processes, 2u);
  const uint64_t shared = maps->stats().used_bytes;
  // The parent's new mappings are not the child's.
  now_ns_ += 10;
  ASSERT_TRUE(maps->Publish(parent, mappings, MonotonicNowNs()).ok());
  EXPECT_GT(maps->stats().used_bytes, shared) << "the child holds the old array";
  EXPECT_FALSE(maps->Share(parent, child, now_ns_ - 5)) << "forked before the parent's mappings were replaced";
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  maps->Withdraw(child);
  EXPECT_EQ(maps->stats().used_bytes, shared);
}

}  // namespace
}  // namespace pyrometer::kernel

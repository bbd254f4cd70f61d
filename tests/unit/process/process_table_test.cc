#include "userspace/process/process_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <thread>

#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::process {
namespace {

namespace fs = std::filesystem;

constexpr ProcessKey kShop{100, 5'000'000'123};
constexpr uint64_t kPage = 4096;

// A /proc of our own making, so that process ids mean what the test says.
class FakeProc {
 public:
  FakeProc() {
    char folder[] = "/tmp/pyrometer-proc-XXXXXX";
    EXPECT_NE(::mkdtemp(folder), nullptr);
    root_ = folder;
  }
  ~FakeProc() { fs::remove_all(root_); }

  void Add(uint32_t tgid, uint64_t start_ticks, const std::string& maps, const std::string& comm = "prog",
           uint32_t flags = 4194560) {
    const std::string folder = StrFormat("%s/%d", root_, tgid);
    fs::create_directories(folder);
    Write(folder + "/stat",
          StrFormat("%d (%s) S 1 1 1 0 -1 %d 1 0 0 0 5 6 0 0 20 0 1 0 %d 1 1 1\n", tgid, comm, flags, start_ticks));
    Write(folder + "/status",
          StrFormat("Name:\t%s\nTgid:\t%d\nPPid:\t1\nUid:\t7\t7\t7\t7\nNStgid:\t%d\t3\n", comm, tgid, tgid));
    Write(folder + "/maps", maps);
  }
  void Remove(uint32_t tgid) { fs::remove_all(StrFormat("%s/%d", root_, tgid)); }
  const std::string& root() const { return root_; }

 private:
  static void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
  }
  std::string root_;
};

// The vdso kind needs no file and its address tells which mapping was hit: good for bookkeeping tests.
Mapping Vdso(ProcessKey key, uint64_t start, uint64_t end, uint64_t offset, uint64_t time_ns) {
  return {.key = key,
          .time_ns = time_ns,
          .start = VirtualAddress(start),
          .end = VirtualAddress(end),
          .offset = FileOffset(offset),
          .protection = kProtRead | kProtExec,
          .path = "[vdso]"};
}

class ProcessTableTest : public testing::Test {
 protected:
  ProcessTable::Options Options() {
    return {.proc_root = proc_.root(), .now_ns = [this] { return now_ns_; }};
  }
  static uint64_t OffsetAt(ProcessTable& table, ProcessKey key, uint64_t address, uint64_t time_ns) {
    const ResolvedAddress where = table.Resolve(key, VirtualAddress(address), time_ns);
    return where.kind == MappingKind::kVdso ? where.offset.value : ~0ull;
  }

  FakeProc proc_;
  uint64_t now_ns_ = 1'000 * kNsPerSecond;
};

TEST_F(ProcessTableTest, ExecStartsAnewAndOldSamplesSeeTheOldImage) {
  ProcessTable table(Options());
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = 10 * kNsPerSecond});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 0x100000, 11 * kNsPerSecond));
  const uint64_t exec_ns = 20 * kNsPerSecond;
  // The new program is mapped a little before the exec event.
  table.OnMapping(Vdso(kShop, 0x8000, 0x9000, 0x200000, exec_ns - 50'000));
  table.OnExec({.key = kShop, .time_ns = exec_ns, .comm = "new"});
  EXPECT_EQ(OffsetAt(table, kShop, 0x8010, exec_ns + 5), 0x200010u);
  EXPECT_EQ(table.Resolve(kShop, VirtualAddress(0x1010), exec_ns + 5).kind, MappingKind::kUnknown);
  EXPECT_EQ(OffsetAt(table, kShop, 0x1010, exec_ns - kNsPerSecond), 0x100010u);
  EXPECT_EQ(table.Describe(kShop)->comm, "new");
}

TEST_F(ProcessTableTest, KnownStartOfTheImageBeatsTheWindow) {
  ProcessTable table(Options());
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = 100});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 1 << 20, 200));
  table.OnMapping(Vdso(kShop, 0x3000, 0x4000, 2 << 20, 310));
  table.OnExec({.key = kShop, .time_ns = 400, .image_start_ns = 300, .comm = "x"});
  EXPECT_EQ(OffsetAt(table, kShop, 0x3000, 500), 2u << 20);
  EXPECT_EQ(table.Resolve(kShop, VirtualAddress(0x1000), 500).kind, MappingKind::kUnknown);
}

TEST_F(ProcessTableTest, ChainOfExecsAtTheSameAddresses) {
  // Static programs without PIE all lie at one place: only time tells them apart.
  ProcessTable table(Options());
  const auto start_image = [&](uint64_t time_ns) { table.OnImageStart({.key = {kShop.tgid, 0}, .time_ns = time_ns}); };
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = 100});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 1 << 20, 110));
  for (uint64_t i = 2; i <= 5; ++i) {
    start_image(i * 100);
    table.OnMapping(Vdso(kShop, 0x1000, 0x2000, i << 20, i * 100 + 10));
    table.OnExec({.key = kShop, .time_ns = i * 100 + 20, .image_start_ns = i * 100, .comm = "x"});
  }
  for (uint64_t i = 1; i <= 5; ++i) {
    EXPECT_EQ(OffsetAt(table, kShop, 0x1000, i * 100 + 50), i << 20);
    const auto regions = table.Executable(kShop, i * 100 + 50);
    ASSERT_EQ(regions->size(), 1u);
    EXPECT_EQ((*regions)[0].offset.value, i << 20);
  }
  // Between an image's start and its first mapping there is nothing, not the old program.
  EXPECT_EQ(table.Resolve(kShop, VirtualAddress(0x1000), 305).kind, MappingKind::kVdso);
  start_image(600);
  EXPECT_EQ(table.Executable(kShop, 0)->size(), 0u);
  EXPECT_EQ(OffsetAt(table, kShop, 0x1000, 550), 5u << 20);
}

TEST_F(ProcessTableTest, ChangesAreToldOnce) {
  ProcessTable::Options options = Options();
  options.watch_changes = true;
  ProcessTable table(options);
  const ProcessKey child{200, 6'000'000'321};
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = 100});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 0, 110));
  table.OnMapping(Vdso(kShop, 0x3000, 0x4000, 0, 120));
  table.OnFork({.parent = kShop, .child = child, .time_ns = 130});
  auto changes = table.TakeChanges();
  ASSERT_EQ(changes.size(), 2u);
  std::sort(changes.begin(), changes.end(), [](const auto& a, const auto& b) { return a.process < b.process; });
  EXPECT_EQ(changes[0].process, kShop);
  EXPECT_EQ(changes[0].kind, ProcessChange::Kind::kMappings);
  EXPECT_EQ(changes[1].process, child);
  EXPECT_EQ(changes[1].kind, ProcessChange::Kind::kForked);
  EXPECT_EQ(changes[1].parent, kShop);
  EXPECT_EQ(changes[1].time_ns, 130u);
  EXPECT_TRUE(table.TakeChanges().empty());
  // A process that ends says only that, and one with the same number comes after it.
  table.OnMapping(Vdso(kShop, 0x5000, 0x6000, 0, 140));
  table.OnExit({.key = kShop, .time_ns = 150});
  const ProcessKey next{kShop.tgid, kShop.start_time_ns + 50 * kNsPerSecond};
  table.OnFork({.parent = child, .child = next, .time_ns = 160});
  changes = table.TakeChanges();
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].kind, ProcessChange::Kind::kEnded);
  EXPECT_EQ(changes[0].process, kShop);
  EXPECT_EQ(changes[1].process, next);
}

TEST_F(ProcessTableTest, ForkInheritsAndTheTwoPartWays) {
  ProcessTable table(Options());
  const ProcessKey child{200, 6'000'000'321};
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = 100});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 0x10000, 110));
  table.OnFork({.parent = kShop, .child = child, .time_ns = 120});
  EXPECT_EQ(OffsetAt(table, child, 0x1004, 130), 0x10004u);
  table.OnMapping(Vdso(child, 0x1000, 0x2000, 0x20000, 140));
  table.OnMapping(Vdso(kShop, 0x5000, 0x6000, 0x30000, 150));
  EXPECT_EQ(OffsetAt(table, child, 0x1004, 160), 0x20004u);
  EXPECT_EQ(OffsetAt(table, kShop, 0x1004, 160), 0x10004u);
  EXPECT_EQ(table.Resolve(child, VirtualAddress(0x5000), 160).kind, MappingKind::kUnknown);
  EXPECT_EQ(table.Describe(child)->parent_tgid, kShop.tgid);
}

TEST_F(ProcessTableTest, EndedProcessesResolveForTheGraceTime) {
  ProcessTable table(Options());
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = now_ns_});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 0, now_ns_));
  table.OnExit({.key = kShop, .time_ns = now_ns_});
  now_ns_ += 29 * kNsPerSecond;
  table.OnExit({.key = {9, 9}});
  EXPECT_EQ(OffsetAt(table, kShop, 0x1008, now_ns_), 8u);
  now_ns_ += 2 * kNsPerSecond;
  table.OnExit({.key = {9, 9}});
  const ResolvedAddress gone = table.Resolve(kShop, VirtualAddress(0x1008), now_ns_);
  EXPECT_EQ(gone.kind, MappingKind::kUnknown);
  EXPECT_EQ(gone.reason, UnknownReason::kProcessGone);
}

TEST_F(ProcessTableTest, ReusedPidNeverAnswersForTheOldProcess) {
  ProcessTable table(Options());
  const ProcessKey next{kShop.tgid, kShop.start_time_ns + 50 * kNsPerSecond};
  table.OnFork({.parent = {1, 1}, .child = kShop, .time_ns = 100});
  table.OnMapping(Vdso(kShop, 0x1000, 0x2000, 0x10000, 110));
  table.OnFork({.parent = {1, 1}, .child = next, .time_ns = 500});  // the exit in between was lost
  table.OnMapping(Vdso(next, 0x1000, 0x2000, 0x20000, 510));
  EXPECT_EQ(OffsetAt(table, kShop, 0x1000, 120), 0x10000u);
  EXPECT_EQ(OffsetAt(table, next, 0x1000, 520), 0x20000u);
  EXPECT_EQ(table.counters().reused_pids, 1u);
  // Without a start time, the sample's own time decides.
  EXPECT_EQ(OffsetAt(table, {kShop.tgid, 0}, 0x1000, 520), 0x20000u);
  // A third process with this pid that we never saw: not one of these two.
  const ResolvedAddress third =
      table.Resolve({kShop.tgid, next.start_time_ns + kNsPerSecond}, VirtualAddress(0x1000), 600);
  EXPECT_EQ(third.reason, UnknownReason::kProcessGone);
}

TEST_F(ProcessTableTest, StartTimeOfProcIsKnownToATickOnly) {
  const uint64_t ticks = 500;
  proc_.Add(100, ticks, "1000-2000 r-xp 00070000 00:00 0 [vdso]\n", "shop");
  ProcessTable table(Options());
  ASSERT_TRUE(table.ScanAll().ok());
  EXPECT_EQ(table.Running().size(), 1u);
  const uint64_t exact = TicksToNs(ticks) + 3'456'789;
  EXPECT_EQ(OffsetAt(table, {100, exact}, 0x1001, now_ns_), 0x70001u);
  EXPECT_EQ(table.Running(), std::vector<ProcessKey>{(ProcessKey{100, exact})});  // now exact
  EXPECT_EQ(OffsetAt(table, {100, TicksToNs(ticks)}, 0x1001, now_ns_), 0x70001u);
  EXPECT_EQ(table.Resolve({100, exact + 1}, VirtualAddress(0x1001), now_ns_).kind, MappingKind::kUnknown);
  const auto info = table.Describe({100, exact});
  EXPECT_EQ(info->comm, "shop");
  EXPECT_EQ(info->namespace_tgid, 3u);
  EXPECT_EQ(info->uid, 7u);
  EXPECT_TRUE(info->alive);
}

TEST_F(ProcessTableTest, UnknownAddressRescansSeldom) {
  proc_.Add(100, 500, "1000-2000 r-xp 00000000 00:00 0 [vdso]\n");
  ProcessTable table(Options());
  ASSERT_TRUE(table.ScanAll().ok());
  const uint64_t scans = table.counters().scans;
  proc_.Add(100, 500, "1000-2000 r-xp 00000000 00:00 0 [vdso]\n7000-8000 rwxp 00000000 00:00 0 \n");
  EXPECT_EQ(table.Resolve({100, 0}, VirtualAddress(0x7000), now_ns_).reason, UnknownReason::kNotMapped);
  EXPECT_EQ(table.counters().scans, scans);  // just scanned
  now_ns_ += kNsPerSecond;
  EXPECT_EQ(table.Resolve({100, 0}, VirtualAddress(0x7000), now_ns_).kind, MappingKind::kAnonymous);
  EXPECT_EQ(table.counters().scans, scans + 1);
  // A wild address asked 10,000 times over 100 s: backs off to one scan in 64 s.
  for (int i = 0; i < 10'000; ++i) {
    now_ns_ += 10 * kNsPerMs;
    table.Resolve({100, 0}, VirtualAddress(0xdead000), now_ns_);
  }
  EXPECT_LE(table.counters().scans, scans + 9);
  EXPECT_GE(table.counters().scans, scans + 3);
}

TEST_F(ProcessTableTest, ProcessesNeverSeenAreLookedForOnce) {
  ProcessTable table(Options());
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(table.Resolve(kShop, VirtualAddress(0x1000), now_ns_).reason, UnknownReason::kProcessGone);
  }
  EXPECT_EQ(table.counters().ended, 1u);
  EXPECT_EQ(table.counters().running, 0u);
}

TEST_F(ProcessTableTest, ScanFindsLostExitsAndReusedPids) {
  proc_.Add(100, 500, "1000-2000 r-xp 00000000 00:00 0 [vdso]\n");
  proc_.Add(101, 501, "1000-2000 r-xp 00000000 00:00 0 [vdso]\n");
  proc_.Add(2, 1, "", "kthreadd", 2129984);
  ProcessTable table(Options());
  ASSERT_TRUE(table.ScanAll().ok());
  EXPECT_EQ(table.counters().running, 3u);
  proc_.Remove(100);
  proc_.Add(101, 9'000, "5000-6000 r-xp 00000000 00:00 0 [vdso]\n");
  ASSERT_TRUE(table.ScanAll().ok());
  EXPECT_EQ(table.counters().running, 2u);
  EXPECT_EQ(table.counters().ended, 2u);
  EXPECT_EQ(table.Resolve({101, TicksToNs(9'000)}, VirtualAddress(0x1000), now_ns_).kind, MappingKind::kUnknown);
  EXPECT_EQ(table.Resolve({101, TicksToNs(9'000)}, VirtualAddress(0x5000), now_ns_).kind, MappingKind::kVdso);
  EXPECT_EQ(table.Resolve({2, 0}, VirtualAddress(0x1000), now_ns_).reason, UnknownReason::kKernelThread);
}

TEST_F(ProcessTableTest, LimitsHoldAndAreCounted) {
  ProcessTable::Options options = Options();
  options.max_processes = 3;
  options.max_mappings = 2;
  options.max_ended = 2;
  ProcessTable table(options);
  for (uint32_t i = 1; i <= 5; ++i) table.OnExec({.key = {i, i}, .time_ns = now_ns_, .comm = "x"});
  EXPECT_EQ(table.counters().running, 3u);
  EXPECT_EQ(table.counters().refused_processes, 2u);
  EXPECT_EQ(table.Resolve({5, 5}, VirtualAddress(0x1000), now_ns_).reason, UnknownReason::kTooManyProcesses);
  for (uint64_t i = 1; i <= 4; ++i) table.OnMapping(Vdso({1, 1}, i * 0x10000, i * 0x10000 + kPage, 0, now_ns_));
  EXPECT_EQ(table.counters().refused_mappings, 2u);
  EXPECT_EQ(table.Resolve({1, 1}, VirtualAddress(0x40000), now_ns_).reason, UnknownReason::kTooManyMappings);
  for (uint32_t i = 1; i <= 3; ++i) table.OnExit({.key = {i, i}, .time_ns = now_ns_});
  EXPECT_EQ(table.counters().ended, 2u);
  EXPECT_EQ(table.counters().forgotten_early, 1u);
}

TEST_F(ProcessTableTest, MalformedAndOrphanEventsAreCounted) {
  ProcessTable table(Options());
  table.OnMapping(Vdso(kShop, 0x2000, 0x2000, 0, 1));
  table.OnMapping(Vdso(kShop, 0x3000, 0x2000, 0, 1));
  table.OnMapping(Vdso({777, 0}, 0x1000, 0x2000, 0, 1));
  EXPECT_EQ(table.counters().malformed_events, 2u);
  EXPECT_EQ(table.counters().orphan_events, 1u);
  EXPECT_EQ(table.counters().running, 0u);
}

// Against the obvious model: an array of pages, each telling which mapping was stamped last.
TEST_F(ProcessTableTest, OverlappingMappingsInAnyOrderOfArrival) {
  std::mt19937_64 random(42);
  constexpr uint64_t kPages = 64;
  for (int round = 0; round < 200; ++round) {
    ProcessTable table(Options());
    const ProcessKey key{100, 5'000'000'001};
    table.OnFork({.parent = {1, 1}, .child = key, .time_ns = 1});
    struct Owner {
      uint64_t since = 0, offset = 0;
    };
    std::vector<Owner> model(kPages);
    for (uint64_t i = 1; i <= 30; ++i) {
      const uint64_t first = random() % kPages;
      const uint64_t last = first + 1 + random() % (kPages - first);
      const uint64_t since = 1000 + random() % 1000 * 64 + i;  // distinct, not in order
      const bool executable = random() % 5 != 0;
      Mapping mapping = Vdso(key, (first + 1) * kPage, (last + 1) * kPage, i << 32, since);
      if (!executable) mapping.path = "/data", mapping.protection = kProtRead;
      table.OnMapping(mapping);
      for (uint64_t page = first; page < last; ++page) {
        // Ranges that are not executable leave no trace, so they clear only what came before them.
        if (since < model[page].since) continue;
        model[page] = executable ? Owner{since, (i << 32) + (page - first) * kPage} : Owner{};
      }
    }
    for (uint64_t page = 0; page < kPages; ++page) {
      const uint64_t expected = model[page].since == 0 ? ~0ull : model[page].offset + 5;
      ASSERT_EQ(OffsetAt(table, key, (page + 1) * kPage + 5, 0), expected) << "round " << round << " page " << page;
    }
  }
}

// ---- this very machine --------------------------------------------------------------------------------------

TEST(ProcessTableHere, ResolvesOurOwnCode) {
  ProcessTable table({});
  const ProcessKey self{static_cast<uint32_t>(::getpid()), 0};
  const auto here = reinterpret_cast<uint64_t>(&ParseStat);
  const ResolvedAddress where = table.Resolve(self, VirtualAddress(here), 0);
  ASSERT_EQ(where.kind, MappingKind::kFile);
  EXPECT_EQ(where.binary->path(), fs::read_symlink("/proc/self/exe").string());
  EXPECT_TRUE(where.elf_address);
  EXPECT_FALSE(where.binary->build_id().empty());

  const uint64_t vdso = ::getauxval(AT_SYSINFO_EHDR);
  ASSERT_NE(vdso, 0u);
  EXPECT_EQ(table.Resolve(self, VirtualAddress(vdso + 0x123), 0).elf_address, ElfAddress(0x123));
  int on_stack = 0;
  EXPECT_EQ(table.Resolve(self, VirtualAddress(reinterpret_cast<uint64_t>(&on_stack)), 0).kind, MappingKind::kStack);
}

TEST(ProcessTableHere, SeesGeneratedCodeAfterARescan) {
  uint64_t now_ns = MonotonicNowNs();
  ProcessTable table({.now_ns = [&] { return now_ns; }});
  ASSERT_TRUE(table.ScanAll().ok());
  void* code = ::mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(code, MAP_FAILED);
  now_ns += 2 * kNsPerSecond;
  const ProcessKey self{static_cast<uint32_t>(::getpid()), 0};
  EXPECT_EQ(table.Resolve(self, VirtualAddress(reinterpret_cast<uint64_t>(code)), 0).kind, MappingKind::kAnonymous);
  ::munmap(code, kPage);
}

// A program deleted while it runs, in a process that then ends: still readable, still the right build.
TEST(ProcessTableHere, DeletedProgramOfAnEndedProcess) {
  char folder[] = "/tmp/pyrometer-table-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string program = std::string(folder) + "/gone";
  fs::copy_file("/bin/sleep", program);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(program.c_str(), program.c_str(), "60", nullptr);
    ::_exit(127);
  }
  while (fs::read_symlink(StrFormat("/proc/%d/exe", child)) != program) ::usleep(1000);
  fs::remove_all(folder);

  ProcessTable table({});
  ASSERT_TRUE(table.ScanAll().ok());
  const auto maps = ReadFile(StrFormat("/proc/%d/maps", child));
  ASSERT_TRUE(maps.ok());
  uint64_t address = 0;
  ForEachMap(*maps, [&](const MapsEntry& entry) {
    if ((entry.protection & kProtExec) != 0 && address == 0) address = entry.start.value + 0x10;
    return true;
  });
  const auto stat = ParseStat(ReadFile(StrFormat("/proc/%d/stat", child)).value());
  ASSERT_TRUE(stat.ok());
  const ProcessKey key{static_cast<uint32_t>(child), TicksToNs(stat->start_ticks)};
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  table.OnExit({.key = key, .time_ns = MonotonicNowNs()});

  const ResolvedAddress where = table.Resolve(key, VirtualAddress(address), 0);
  ASSERT_EQ(where.kind, MappingKind::kFile);
  if (::geteuid() != 0) GTEST_SKIP() << "opening a deleted program of another process needs root";
  EXPECT_TRUE(where.binary->deleted());
  EXPECT_EQ(where.binary->path(), program);
  const auto fd = where.binary->Open();
  ASSERT_TRUE(fd.ok()) << fd.status();
  auto original = elf::ElfFile::Open("/bin/sleep");
  ASSERT_TRUE(original.ok());
  EXPECT_EQ(where.binary->build_id(), *original->ReadBuildId());
}

TEST(ProcessTableHere, ManyThreadsAsk) {
  ProcessTable table({});
  const ProcessKey self{static_cast<uint32_t>(::getpid()), 0};
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const ProcessKey other{static_cast<uint32_t>(1'000'000 + i % 50), 77};
        if (t == 0) table.OnFork({.parent = self, .child = other, .time_ns = MonotonicNowNs()});
        if (t == 1) table.OnExit({.key = other, .time_ns = MonotonicNowNs()});
        const auto here = reinterpret_cast<uint64_t>(&ParseStat);
        good += table.Resolve(self, VirtualAddress(here), 0).kind == MappingKind::kFile;
        table.Resolve(other, VirtualAddress(here), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 2000);
}

}  // namespace
}  // namespace pyrometer::process

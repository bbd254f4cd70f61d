#include "userspace/process/proc_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "userspace/base/file.h"

namespace pyrometer::process {
namespace {

TEST(ParseMapsLine, ReadsEveryColumn) {
  const auto entry =
      ParseMapsLine("7f5ff3b8d000-7f5ff3ce3000 r-xp 00026000 fe:1f 332835                     /usr/lib/libc.so.6");
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->start.value, 0x7f5ff3b8d000u);
  EXPECT_EQ(entry->end.value, 0x7f5ff3ce3000u);
  EXPECT_EQ(entry->protection, kProtRead | kProtExec);
  EXPECT_FALSE(entry->shared);
  EXPECT_EQ(entry->offset.value, 0x26000u);
  EXPECT_EQ(entry->device_major, 0xfeu);
  EXPECT_EQ(entry->device_minor, 0x1fu);
  EXPECT_EQ(entry->inode, 332835u);
  EXPECT_EQ(entry->path, "/usr/lib/libc.so.6");
}

TEST(ParseMapsLine, PathsMayHoldAnything) {
  EXPECT_EQ(ParseMapsLine("1000-2000 rw-s 00000000 00:01 7 /tmp/a b  c (deleted)")->path, "/tmp/a b  c (deleted)");
  EXPECT_EQ(ParseMapsLine("1000-2000 rw-p 00000000 00:00 0 ")->path, "");
  EXPECT_EQ(ParseMapsLine("1000-2000 rw-p 00000000 00:00 0")->path, "");
  EXPECT_EQ(ParseMapsLine("1000-2000 r-xp 00000000 00:00 0    [vdso]")->path, "[vdso]");
  EXPECT_EQ(ParseMapsLine("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]")->start.value,
            0xffffffffff600000u);
  EXPECT_TRUE(ParseMapsLine("1000-2000 rw-s 00000000 00:01 7 /x")->shared);
}

TEST(ParseMapsLine, RefusesNonsense) {
  for (const char* line : {"", "x", "1000-2000", "2000-1000 r-xp 0 0:0 0", "1000-1000 r-xp 0 0:0 0",
                           "1000-2000 r-x 0 0:0 0", "1000-2000 r-xp g 0:0 0", "1000-2000 r-xp 0 00 0",
                           "-2000 r-xp 0 0:0 0", "10000000000000000-20000000000000000 r-xp 0 0:0 0",
                           "1000-2000 r-xp 0 100000000:0 0", "1000-2000 r-xp 0 0:0 -1"}) {
    EXPECT_FALSE(ParseMapsLine(line)) << line;
  }
}

TEST(ForEachMap, CountsBadLinesAndStops) {
  std::vector<uint64_t> starts;
  const size_t bad =
      ForEachMap("1000-2000 r-xp 0 0:0 0\ngarbage\n3000-4000 r-xp 0 0:0 0\n\n5000-60", [&](const MapsEntry& entry) {
        starts.push_back(entry.start.value);
        return true;
      });
  EXPECT_EQ(bad, 2u);
  EXPECT_THAT(starts, testing::ElementsAre(0x1000, 0x3000));
  int visits = 0;
  ForEachMap("1000-2000 r-xp 0 0:0 0\n3000-4000 r-xp 0 0:0 0\n", [&](const MapsEntry&) { return ++visits < 1; });
  EXPECT_EQ(visits, 1);
}

TEST(ForEachMap, ReadsOurOwnMapsWithoutABadLine) {
  const auto text = ReadFile("/proc/self/maps");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto here = reinterpret_cast<uint64_t>(&::getpid);
  bool found = false;
  EXPECT_EQ(ForEachMap(*text,
                       [&](const MapsEntry& entry) {
                         found |=
                             here >= entry.start.value && here < entry.end.value && (entry.protection & kProtExec) != 0;
                         return true;
                       }),
            0u);
  EXPECT_TRUE(found);
}

TEST(UnescapeMapsPath, OnlyNewlinesAreEscaped) { EXPECT_EQ(UnescapeMapsPath("/a\\012b\\040c\\01"), "/a\nb\\040c\\01"); }

constexpr char kStatTail[] =
    " S 1 1 1 0 -1 4194560 100 0 0 0 5 6 0 0 20 0 1 0 7700 12345 600 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 "
    "1\n";

TEST(ParseStat, NameMayLookLikeTheRest) {
  for (const std::string comm : {"bash", "a b", "a) R 1 (b", "(", ")", "", "x\ny", ") Z 9 9 9"}) {
    const auto stat = ParseStat("4711 (" + comm + ")" + kStatTail);
    ASSERT_TRUE(stat.ok()) << comm << stat.status();
    EXPECT_EQ(stat->pid, 4711u);
    EXPECT_EQ(stat->comm, comm);
    EXPECT_EQ(stat->state, 'S');
    EXPECT_EQ(stat->parent_pid, 1u);
    EXPECT_EQ(stat->start_ticks, 7700u);
    EXPECT_FALSE(stat->kernel_thread);
  }
}

TEST(ParseStat, KernelThread) {
  const auto stat = ParseStat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0 1 0 0");
  ASSERT_TRUE(stat.ok());
  EXPECT_TRUE(stat->kernel_thread);
}

TEST(ParseStat, RefusesNonsense) {
  for (const char* text :
       {"", "1", "1 (x", "1 x)", ")(", "1 (x) S", "x (y) S 1 1 1 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 7700 1",
        "1 (y) SS 1 1 1 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 7700 1",
        "1 (y) S 1 1 1 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 99999999999999999999 1",
        "1 (y) S 1 1 1 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 18446744073709551615 1"}) {
    EXPECT_FALSE(ParseStat(text).ok()) << text;
  }
}

TEST(ParseStatus, NamespacesAndIds) {
  const auto status = ParseStatus(
      "Name:\tTgid:\t5\\nUid:\t0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t1234\nNgid:\t0\nPid:\t1234\nPPid:\t77\n"
      "Uid:\t1000\t1001\t1000\t1000\nNStgid:\t1234\t56\t1\nNSpid:\t1234\t56\t1\n");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->tgid, 1234u);
  EXPECT_EQ(status->parent_pid, 77u);
  EXPECT_EQ(status->real_uid, 1000u);
  EXPECT_EQ(status->effective_uid, 1001u);
  EXPECT_THAT(status->namespace_tgids, testing::ElementsAre(1234, 56, 1));
  EXPECT_FALSE(ParseStatus("Name:\tx\n").ok());
  EXPECT_FALSE(ParseStatus("").ok());
}

TEST(ParseStatus, OurOwn) {
  const auto text = ReadFile("/proc/self/status");
  ASSERT_TRUE(text.ok());
  const auto status = ParseStatus(*text);
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->tgid, static_cast<uint32_t>(::getpid()));
  EXPECT_EQ(status->real_uid, ::getuid());
}

TEST(ParseCgroup, HybridHost) {
  const char text[] =
      "9:name=systemd:/a\n8:pids:/b\n4:memory:/process_api/08396a9d\n2:cpu,cpuacct:/odd:path:x\nbroken\n0::/shop\n";
  EXPECT_EQ(CgroupV2Path(text), "/shop");
  EXPECT_EQ(CgroupV1Path(text, "memory"), "/process_api/08396a9d");
  EXPECT_EQ(CgroupV1Path(text, "cpuacct"), "/odd:path:x");
  EXPECT_EQ(CgroupV1Path(text, "cpuset"), std::nullopt);
  EXPECT_EQ(CgroupV2Path("1:cpu:/x\n"), std::nullopt);
}

// Whatever bytes come: no crash (run under the asan preset), and results stay within their limits.
TEST(ProcText, SurvivesRandomDamage) {
  std::mt19937 random(20261123);
  const std::string seeds[] = {
      "7f5ff3b8d000-7f5ff3ce3000 r-xp 00026000 fe:00 332835 /usr/lib/libc.so.6\n1000-2000 rw-p 0 00:00 0 [heap]\n",
      std::string("4711 (a b)") + kStatTail,
      "Name:\tx\nTgid:\t1234\nPPid:\t77\nUid:\t1000\t1000\t1000\t1000\nNStgid:\t1234\t1\n",
      "9:name=systemd:/a\n0::/shop\n",
  };
  for (int round = 0; round < 20'000; ++round) {
    std::string text = seeds[round % std::size(seeds)];
    for (int change = 0; change < 3; ++change) {
      const size_t at = random() % (text.size() + 1);
      switch (random() % 3) {
        case 0:
          text.insert(at, 1, static_cast<char>(random()));
          break;
        case 1:
          text.erase(at, random() % 8);
          break;
        default:
          if (at < text.size()) text[at] = static_cast<char>(random());
      }
    }
    ForEachMap(text, [](const MapsEntry& entry) {
      EXPECT_LT(entry.start, entry.end);
      return true;
    });
    if (const auto stat = ParseStat(text); stat.ok()) {
      EXPECT_LE(stat->comm.size(), text.size());
    }
    if (const auto status = ParseStatus(text); status.ok()) {
      EXPECT_LE(status->namespace_tgids.size(), 33u);
    }
    for (const CgroupLine& line : ParseCgroupLines(text)) EXPECT_EQ(line.path.substr(0, 1), "/");
  }
}

}  // namespace
}  // namespace pyrometer::process

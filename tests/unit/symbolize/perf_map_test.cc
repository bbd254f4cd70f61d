#include "userspace/symbolize/perf_map.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"

namespace pyrometer::symbolize {
namespace {

namespace fs = std::filesystem;

// A /proc with one process, number 4711, which is 7 in its own PID namespace.
class PerfMapTest : public testing::Test {
 protected:
  PerfMapTest() {
    fs::create_directories(Folder() + "/root/tmp");
    WriteStatus(::getuid());
    std::ofstream(Folder() + "/stat")
        << "4711 (odd ) name) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 250 0 0\n";
    options_.proc_root = temp_.path();
    options_.refresh_ns = 0;
  }
  std::string Folder() const { return temp_.path() + "/4711"; }
  std::string MapPath() const { return Folder() + "/root/tmp/perf-7.map"; }
  void WriteStatus(uint64_t uid) {
    std::ofstream(Folder() + "/status") << "Name:\tnode\nUid:\t" << uid << "\t" << uid << "\t0\t0\nNSpid:\t4711\t7\n";
  }
  void Write(const std::string& text, bool append = false) {
    std::ofstream(MapPath(), append ? std::ios::app : std::ios::trunc) << text;
  }
  std::unique_ptr<PerfMap> Open(MissReason* why = nullptr) {
    MissReason unused;
    return PerfMap::Open({.tgid = 4711, .start_time_ns = 2'500'000'000}, options_, why != nullptr ? why : &unused);
  }
  static std::string At(PerfMap& map, uint64_t address) {
    const Symbol symbol = map.Symbolize(VirtualAddress(address));
    if (!symbol.found()) return "(" + std::string(MissReasonName(symbol.miss)) + ")";
    return std::string(symbol.name()) + "+" + std::to_string(symbol.offset);
  }

  TempFolder temp_;
  PerfMap::Options options_;
};

TEST_F(PerfMapTest, LinesAsRuntimesWriteThem) {
  Write(
      "7f0010000000 100 LazyCompile:*handle request /srv/app.js:12\n"
      "0x7f0010000200 0x40 py::fib:/srv/fib.py\n"
      "7F0010000300 8 _ZN4shop8CheckoutEi\n");
  const auto map = Open();
  ASSERT_NE(map, nullptr);
  EXPECT_EQ(At(*map, 0x7f0010000000), "LazyCompile:*handle request /srv/app.js:12+0");
  EXPECT_EQ(At(*map, 0x7f00100000ff), "LazyCompile:*handle request /srv/app.js:12+255");
  EXPECT_EQ(At(*map, 0x7f0010000100), "(not in perf map)");
  EXPECT_EQ(At(*map, 0x7f0010000201), "py::fib:/srv/fib.py+1");
  EXPECT_EQ(At(*map, 0x7f0010000300), "shop::Checkout(int)+0");
  EXPECT_EQ(At(*map, 0), "(not in perf map)");
  EXPECT_EQ(map->counters().bad_lines, 0u);
}

TEST_F(PerfMapTest, MalformedLinesAreSkippedAndCounted) {
  Write(
      "garbage\n100\n100 \n100 10\n100 10 \n100 0 empty\nffffffffffffffff 10 wraps\n-5 10 x\n"
      "10000000000000000 10 too_long\n100 10 good\n" +
      std::string(3, '\0') + "\n1000 10 \x1b[31mred\xff\n");
  const auto map = Open();
  ASSERT_NE(map, nullptr);
  EXPECT_EQ(At(*map, 0x100), "good+0");
  EXPECT_EQ(map->entry_count(), 2u);
  EXPECT_EQ(map->counters().bad_lines, 10u);
  EXPECT_EQ(At(*map, 0x1000), "?[31mred\xef\xbf\xbd+0");
}

TEST_F(PerfMapTest, LaterLinesWin) {
  Write("1000 100 old\n1040 20 patch\n2000 100 whole\n1fc0 80 over_the_start\n3000 10 gone\n2ff0 100 replaced\n");
  const auto map = Open();
  EXPECT_EQ(At(*map, 0x103f), "old+63");
  EXPECT_EQ(At(*map, 0x1040), "patch+0");
  EXPECT_EQ(At(*map, 0x1060), "old+96");
  EXPECT_EQ(At(*map, 0x2000), "over_the_start+64");
  EXPECT_EQ(At(*map, 0x2040), "whole+64");
  EXPECT_EQ(At(*map, 0x3000), "replaced+16");
}

TEST_F(PerfMapTest, AgreesWithTheNaiveSearchOnRandomOverlaps) {
  std::mt19937 random(5);
  for (int round = 0; round < 30; ++round) {
    std::string text;
    std::map<uint64_t, std::pair<std::string, uint64_t>> bytes;  // each address's last writer
    for (int i = 0; i < 200; ++i) {
      const uint64_t start = random() % 2000, size = 1 + random() % 150;
      const std::string name = "f" + std::to_string(i);
      text += StrFormat("%x %x %s\n", start, size, name);
      for (uint64_t a = start; a < start + size; ++a) bytes[a] = {name, a - start};
    }
    Write(text);
    const auto map = Open();
    for (uint64_t a = 0; a < 2200; ++a) {
      const auto found = bytes.find(a);
      ASSERT_EQ(At(*map, a), found == bytes.end() ? "(not in perf map)"
                                                  : found->second.first + "+" + std::to_string(found->second.second));
    }
  }
}

TEST_F(PerfMapTest, GrowsWhileTheProcessRuns) {
  Write("1000 10 first\n2000 10 sec");  // the last line is being written
  const auto map = Open();
  EXPECT_EQ(At(*map, 0x1000), "first+0");
  EXPECT_EQ(At(*map, 0x2000), "(not in perf map)");
  Write("ond\n3000 10 third\n", true);
  EXPECT_EQ(At(*map, 0x2000), "second+0");
  EXPECT_EQ(At(*map, 0x3000), "third+0");
  EXPECT_EQ(map->counters().lines, 3u);
  Write("4000 10 anew\n");  // truncated and written from the start
  EXPECT_EQ(At(*map, 0x4000), "anew+0");
  EXPECT_EQ(At(*map, 0x1000), "(not in perf map)");
}

TEST_F(PerfMapTest, StaysReadableAfterTheProcessEnded) {
  Write("1000 10 kept\n");
  const auto map = Open();
  fs::remove_all(Folder());
  EXPECT_EQ(At(*map, 0x1008), "kept+8");
}

TEST_F(PerfMapTest, ARemovedAndRewrittenFileIsFollowed) {
  Write("1000 10 old\n");
  const auto map = Open();
  fs::remove(MapPath());
  EXPECT_EQ(At(*map, 0x1000), "old+0");
  Write("2000 10 new\n");
  EXPECT_EQ(At(*map, 0x2000), "new+0");
}

TEST_F(PerfMapTest, AbsentAndRefusedFiles) {
  MissReason why = MissReason::kNone;
  EXPECT_EQ(Open(&why), nullptr);
  EXPECT_EQ(why, MissReason::kPerfMapAbsent);

  std::ofstream(temp_.path() + "/target") << "1000 10 x\n";
  fs::create_symlink(temp_.path() + "/target", MapPath());
  EXPECT_EQ(Open(&why), nullptr);
  EXPECT_EQ(why, MissReason::kPerfMapRefused);
  fs::remove(MapPath());

  ASSERT_EQ(::mkfifo(MapPath().c_str(), 0666), 0);
  EXPECT_EQ(Open(&why), nullptr);
  EXPECT_EQ(why, MissReason::kPerfMapRefused);
  fs::remove(MapPath());

  if (::getuid() == 0) {
    Write("1000 10 x\n");
    ASSERT_EQ(::chown(MapPath().c_str(), 12345, 12345), 0);
    EXPECT_EQ(Open(&why), nullptr);  // somebody else's file under the number of a process of ours
    EXPECT_EQ(why, MissReason::kPerfMapRefused);
    WriteStatus(12345);
    EXPECT_NE(Open(&why), nullptr);
    ASSERT_EQ(::chown(MapPath().c_str(), 0, 0), 0);
    EXPECT_NE(Open(&why), nullptr) << "root's file serves everybody";
  }
}

TEST_F(PerfMapTest, AnotherProcessUnderTheSameNumberIsNotMeant) {
  Write("1000 10 x\n");
  MissReason why;
  EXPECT_EQ(PerfMap::Open({.tgid = 4711, .start_time_ns = 9'000'000'000}, options_, &why), nullptr);
  EXPECT_EQ(why, MissReason::kPerfMapAbsent);
  EXPECT_NE(PerfMap::Open({.tgid = 4711, .start_time_ns = 2'505'000'000}, options_, &why), nullptr);
}

TEST_F(PerfMapTest, SizeAndEntriesAreBounded) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += StrFormat("%x 10 function_%d\n", 0x1000 + i * 16, i);
  Write(text);
  options_.max_entries = 100;
  auto map = Open();
  EXPECT_EQ(map->entry_count(), 100u);
  EXPECT_EQ(map->counters().over_limit, 1900u);
  options_ = {.proc_root = options_.proc_root, .max_bytes = 1000};
  map = Open();
  EXPECT_TRUE(map->counters().truncated);
  EXPECT_LT(map->entry_count(), 60u);
  // 4 GiB of holes: not one line.
  Write("");
  ASSERT_EQ(::truncate(MapPath().c_str(), off_t{4} << 30), 0);
  map = Open();
  ASSERT_NE(map, nullptr);
  EXPECT_EQ(map->entry_count(), 0u);
}

TEST(RealPerfMapTest, InOwnMountAndPidNamespace) {
  if (::getuid() != 0) GTEST_SKIP() << "needs root to make namespaces";
  // A child in new namespaces with its own /tmp, as in a container; it is number 1 there.
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t middle = ::fork();
  if (middle == 0) {
    if (::unshare(CLONE_NEWNS | CLONE_NEWPID) != 0) ::_exit(77);
    const pid_t inner = ::fork();
    if (inner == 0) {
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
      if (::mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) != 0) ::_exit(77);
      std::ofstream(StrFormat("/tmp/perf-%d.map", ::getpid())) << "5000 10 in_container\n";
      (void)!::write(ready[1], "x", 1);
      ::pause();
      ::_exit(0);
    }
    (void)!::write(ready[1], &inner, sizeof(inner));
    int status = 0;
    ::waitpid(inner, &status, 0);
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
  }
  ::close(ready[1]);
  // The child's number as we see it, and the sign that its file is written; in either order.
  std::string received;
  char buffer[16];
  while (received.size() < 1 + sizeof(pid_t)) {
    const ssize_t n = ::read(ready[0], buffer, sizeof(buffer));
    if (n <= 0) break;
    received.append(buffer, static_cast<size_t>(n));
  }
  ::close(ready[0]);
  if (received.size() != 1 + sizeof(pid_t)) {
    ::waitpid(middle, nullptr, 0);
    GTEST_SKIP() << "cannot make namespaces here";
  }
  pid_t inner = 0;
  std::memcpy(&inner, received.data() + (received[0] == 'x' ? 1 : 0), sizeof(inner));
  MissReason why;
  const auto map = PerfMap::Open({.tgid = static_cast<uint32_t>(inner)}, PerfMap::Options{}, &why);
  ::kill(inner, SIGKILL);
  ::waitpid(middle, nullptr, 0);
  ASSERT_NE(map, nullptr) << MissReasonName(why);
  const Symbol symbol = map->Symbolize(VirtualAddress(0x5001));
  EXPECT_EQ(symbol.name(), "in_container");
}

}  // namespace
}  // namespace pyrometer::symbolize

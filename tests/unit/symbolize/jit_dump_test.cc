#include "userspace/symbolize/jit_dump.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/symbolize/support.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/symbolizer.h"

namespace pyrometer::symbolize {
namespace {

// Writes what a runtime writes.
class Writer {
 public:
  Writer() {
    Put<uint32_t>(0x4A695444);
    Put<uint32_t>(1);
    Put<uint32_t>(40);
    Put<uint32_t>(62);
    Put<uint32_t>(0);
    Put<uint32_t>(4711);
    Put<uint64_t>(1);
    Put<uint64_t>(0);
  }
  void Load(uint64_t address, uint64_t size, const std::string& name, uint64_t code_bytes = 16) {
    Record(0, Number32(4711) + Number32(4711) + Number(address) + Number(address) + Number(size) + Number(1) + name +
                  std::string(1, '\0') + std::string(code_bytes, '\x90'));
  }
  void Move(uint64_t from, uint64_t to, uint64_t size) {
    Record(1, Number32(4711) + Number32(4711) + Number(to) + Number(from) + Number(to) + Number(size) + Number(1));
  }
  struct Line {
    uint64_t address;
    uint32_t line;
    std::string file;
  };
  void Lines(uint64_t address, const std::vector<Line>& lines) {
    std::string body = Number(address) + Number(lines.size());
    for (const Line& line : lines) {
      body += Number(line.address) + Number32(line.line) + Number32(0) + line.file + std::string(1, '\0');
    }
    Record(2, body);
  }
  void Record(uint32_t id, const std::string& body) {
    Put<uint32_t>(id);
    Put<uint32_t>(static_cast<uint32_t>(body.size() + 16));
    Put<uint64_t>(++time_);
    bytes_ += body;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <typename T>
  void Put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static std::string Number(uint64_t value) { return {reinterpret_cast<const char*>(&value), sizeof(value)}; }
  static std::string Number32(uint32_t value) { return {reinterpret_cast<const char*>(&value), sizeof(value)}; }

  std::string bytes_;
  uint64_t time_ = 0;
};

std::unique_ptr<JitDump> Parsed(const std::string& bytes, JitDump::Options options = {}) {
  auto dump = JitDump::Empty(options);
  dump->Read(*elf::MakeMemorySource(std::make_shared<const std::string>(bytes), "dump"));
  return dump;
}

std::string NameAt(JitDump& dump, uint64_t address) {
  const Symbol symbol = dump.Symbolize(VirtualAddress(address));
  if (!symbol.found()) return std::string(MissReasonName(symbol.miss));
  return StrFormat("%s+%d %s:%d", symbol.name(), symbol.offset, symbol.file == nullptr ? "?" : *symbol.file,
                   symbol.line);
}

TEST(JitDumpTest, NamesAndLines) {
  Writer writer;
  writer.Lines(0x1000, {{0x1000, 3, "/srv/shop.js"}, {0x1010, 4, "\xff"}, {0x1020, 9, "/srv/tax.js"}});
  writer.Load(0x1000, 0x40, "LazyCompile:*total /srv/shop.js:3");
  writer.Load(0x2000, 0x40, "without_lines");
  writer.Load(0x3000, 0x10, "_ZN4shop5TotalEv");
  const auto dump = Parsed(writer.bytes());
  EXPECT_EQ(NameAt(*dump, 0xfff), "not in perf map");
  EXPECT_EQ(NameAt(*dump, 0x1000), "LazyCompile:*total /srv/shop.js:3+0 /srv/shop.js:3");
  EXPECT_EQ(NameAt(*dump, 0x101f), "LazyCompile:*total /srv/shop.js:3+31 /srv/shop.js:4");
  EXPECT_EQ(NameAt(*dump, 0x103f), "LazyCompile:*total /srv/shop.js:3+63 /srv/tax.js:9");
  EXPECT_EQ(NameAt(*dump, 0x1040), "not in perf map");
  EXPECT_EQ(NameAt(*dump, 0x2010), "without_lines+16 ?:0");
  EXPECT_EQ(NameAt(*dump, 0x3000), "shop::Total()+0 ?:0");
  EXPECT_EQ(dump->counters().loads, 3u);
  EXPECT_EQ(dump->counters().lines, 3u);
}

TEST(JitDumpTest, MovedCodeKeepsItsLinesAndReusedMemoryItsLastName) {
  Writer writer;
  writer.Lines(0x1000, {{0x1000, 3, "a.js"}, {0x1010, 4, "a.js"}});
  writer.Load(0x1000, 0x40, "f");
  writer.Move(0x1000, 0x9000, 0x40);
  writer.Load(0x1000, 0x20, "g");
  writer.Load(0x1010, 0x20, "h");
  writer.Move(0x7777, 0x8888, 0x40);  // of nothing known
  writer.Record(3, "");
  const auto dump = Parsed(writer.bytes());
  EXPECT_EQ(NameAt(*dump, 0x9011), "f+17 a.js:4");
  EXPECT_EQ(NameAt(*dump, 0x100f), "g+15 ?:0");
  EXPECT_EQ(NameAt(*dump, 0x1010), "h+0 ?:0");
  EXPECT_EQ(NameAt(*dump, 0x1030), "not in perf map");
  EXPECT_TRUE(dump->counters().closed);
}

TEST(JitDumpTest, AGrowingFileIsReadRecordByRecord) {
  Writer writer;
  writer.Lines(0x1000, {{0x1000, 3, "a.js"}});
  writer.Load(0x1000, 0x40, "f", 690'000);
  writer.Load(0x2000, 0x40, "g", 20'000);
  const std::string whole = writer.bytes();
  const auto dump = JitDump::Empty({});
  for (size_t size = 0; size < whole.size() - 1; size += 9973) {
    dump->Read(*elf::MakeMemorySource(std::make_shared<const std::string>(whole.substr(0, size)), "dump"));
  }
  EXPECT_EQ(NameAt(*dump, 0x1001), "f+1 a.js:3");
  EXPECT_EQ(NameAt(*dump, 0x2000), "not in perf map");
  dump->Read(*elf::MakeMemorySource(std::make_shared<const std::string>(whole), "dump"));
  EXPECT_EQ(NameAt(*dump, 0x2000), "g+0 ?:0");
  EXPECT_EQ(dump->counters().loads, 2u);
}

TEST(JitDumpTest, UnknownAndMalformedRecordsArePassedOver) {
  Writer writer;
  writer.Record(4, std::string(100, 'x'));    // unwinding information
  writer.Record(99, std::string(10, 'x'));    // of the future
  writer.Record(0, std::string(20, 'x'));     // too short for a load
  writer.Record(1, "");                       // too short for a move
  writer.Record(2, std::string(16, '\xff'));  // lines without end
  writer.Load(0x1000, 0, "empty");
  writer.Load(0x1000, 0x10, "");
  writer.Load(~uint64_t{0} - 4, 0x10, "wraps");
  writer.Load(0x5000, 0x10, std::string(100'000, 'n'));
  writer.Load(0x6000, 0x10, "good");
  const auto dump = Parsed(writer.bytes());
  EXPECT_EQ(NameAt(*dump, 0x6001), "good+1 ?:0");
  EXPECT_EQ(dump->Symbolize(VirtualAddress(0x5000)).name().size(), JitCode::kMaxNameBytes);
  EXPECT_EQ(dump->counters().bad_records, 5u);
  EXPECT_FALSE(dump->counters().broken);
}

TEST(JitDumpTest, ALengthThatMakesNoSenseEndsTheReading) {
  Writer writer;
  writer.Load(0x1000, 0x40, "before");
  const std::string bad = writer.bytes() + std::string("\x05\0\0\0\x01\0\0\0aaaaaaaa", 16);
  const auto dump = Parsed(bad);
  EXPECT_EQ(NameAt(*dump, 0x1000), "before+0 ?:0");
  EXPECT_TRUE(dump->counters().broken);
  EXPECT_TRUE(Parsed(std::string(1000, 'x'))->counters().broken) << "not a jitdump";
  EXPECT_FALSE(Parsed("")->counters().broken) << "perhaps not written yet";
}

TEST(JitDumpTest, LimitsHold) {
  Writer writer;
  for (int i = 0; i < 100; ++i) writer.Load(0x1000 + static_cast<uint64_t>(i) * 16, 16, StrFormat("f%d", i));
  const auto dump = Parsed(writer.bytes(), {.max_entries = 10});
  EXPECT_EQ(dump->entry_count(), 10u);
  EXPECT_EQ(dump->counters().over_limit, 90u);
  EXPECT_EQ(Parsed(writer.bytes(), {.max_bytes = 40 + 200})->counters().loads, 2u);
}

TEST(JitDumpTest, AnyByteMayBeAnything) {
  Writer writer;
  writer.Lines(0x1000, {{0x1000, 3, "a.js"}, {0x1010, 4, "\xff"}});
  writer.Load(0x1000, 0x40, "f");
  writer.Move(0x1000, 0x9000, 0x40);
  const std::string good = writer.bytes();
  std::mt19937 random(5);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = good.substr(0, random() % 4 == 0 ? random() % good.size() : good.size());
    for (unsigned i = random() % 5; i > 0 && !bytes.empty(); --i)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    const auto dump = Parsed(bytes);
    for (const uint64_t at : {0x1000, 0x1010, 0x9000, 0}) (void)dump->Symbolize(VirtualAddress(at));
  }
}

// This process as the runtime: a dump in a folder of its own, marked by an executable mapping.
TEST(JitDumpTest, IsFoundByItsMappingAndHooksIntoTheSymbolizer) {
  const TempFolder temp;
  const std::string path = StrFormat("%s/jit-%d.dump", temp.path(), ::getpid());
  Writer writer;
  writer.Lines(0x500000001000, {{0x500000001000, 12, "/srv/shop.js"}});
  writer.Load(0x500000001000, 0x40, "total");
  std::ofstream(path, std::ios::binary) << writer.bytes();
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  void* mark = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0);
  ASSERT_NE(mark, MAP_FAILED);

  Symbolizer symbolizer(Symbolizer::Options{});
  const ProcessKey self{static_cast<uint32_t>(::getpid()), 0};
  Symbol symbol = symbolizer.SymbolizeJit(self, VirtualAddress(0x500000001004));
  ASSERT_TRUE(symbol.found()) << MissReasonName(symbol.miss);
  EXPECT_EQ(symbol.name(), "total");
  EXPECT_EQ(*symbol.file, "/srv/shop.js");
  EXPECT_EQ(symbol.line, 12u);
  symbol = symbolizer.SymbolizeJit(self, VirtualAddress(0x600000000000));
  EXPECT_EQ(symbol.miss, MissReason::kJitUnknown);
  EXPECT_EQ(symbolizer.stats().jit_dumps, 1u);
  EXPECT_EQ(symbolizer.stats().perf_maps, 0u);
  EXPECT_GT(symbolizer.stats().perf_map_bytes, 0u);
  symbolizer.Forget(self);
  EXPECT_EQ(symbolizer.stats().perf_map_bytes, 0u);
  ::munmap(mark, 4096);
  MissReason why;
  EXPECT_EQ(JitDump::Open(self, {}, &why), nullptr) << "without its mark it is not looked for";
  EXPECT_EQ(why, MissReason::kPerfMapAbsent);
}

TEST(JitDumpTest, OfAnotherUserItIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make files of others";
  const TempFolder temp;
  const std::string path = StrFormat("%s/jit-%d.dump", temp.path(), ::getpid());
  std::ofstream(path, std::ios::binary) << Writer().bytes();
  ASSERT_EQ(::chown(path.c_str(), 12345, 12345), 0);
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  void* mark = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0);
  ASSERT_NE(mark, MAP_FAILED);
  MissReason why;
  EXPECT_EQ(JitDump::Open({static_cast<uint32_t>(::getpid()), 0}, {}, &why), nullptr);
  EXPECT_EQ(why, MissReason::kPerfMapRefused);
  ::munmap(mark, 4096);
}

}  // namespace
}  // namespace pyrometer::symbolize

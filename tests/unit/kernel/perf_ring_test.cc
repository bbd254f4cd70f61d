// Records of perf rings, byte by byte, and cut short everywhere.
#include "userspace/kernel/perf_ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace pyrometer::kernel {
namespace {

class Bytes {
 public:
  template <typename T>
  Bytes& Add(T value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), p, p + sizeof(T));
    return *this;
  }
  Bytes& Text(const std::string& text) {  // NUL-terminated, padded to 8 as the kernel does
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
    do bytes_.push_back(std::byte{0});
    while (bytes_.size() % 8 != 0);
    return *this;
  }
  Bytes& Trailer(uint32_t pid, uint64_t time_ns) {
    return Add<uint32_t>(pid).Add<uint32_t>(pid).Add<uint64_t>(time_ns).Add<uint32_t>(1).Add<uint32_t>(0);
  }
  std::span<const std::byte> span() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

Bytes MappingBytes() {
  return Bytes()
      .Add<uint32_t>(42)
      .Add<uint32_t>(42)
      .Add<uint64_t>(0x1000)
      .Add<uint64_t>(0x2000)
      .Add<uint64_t>(0x3000)
      .Add<uint32_t>(0xfe)
      .Add<uint32_t>(1)
      .Add<uint64_t>(777)
      .Add<uint64_t>(0)
      .Add<uint32_t>(5)
      .Add<uint32_t>(2)
      .Text("/usr/bin/x")
      .Trailer(42, 99);
}

TEST(ParseMmap2, WithDeviceAndInode) {
  const Bytes bytes = MappingBytes();
  const auto m = ParseMmap2({.type = PERF_RECORD_MMAP2, .misc = 0, .body = bytes.span()});
  ASSERT_TRUE(m.has_value());
  EXPECT_EQ(m->key.tgid, 42u);
  EXPECT_EQ(m->time_ns, 99u);
  EXPECT_EQ(m->start.value, 0x1000u);
  EXPECT_EQ(m->end.value, 0x3000u);
  EXPECT_EQ(m->offset.value, 0x3000u);
  EXPECT_EQ(m->device_major, 0xfeu);
  EXPECT_EQ(m->device_minor, 1u);
  EXPECT_EQ(m->inode, 777u);
  EXPECT_EQ(m->protection, 5u);
  EXPECT_EQ(m->path, "/usr/bin/x");
  EXPECT_TRUE(m->build_id.empty());
}

TEST(ParseMmap2, WithBuildId) {
  std::array<uint8_t, 20> id{};
  id[0] = 0xab;
  id[19] = 0xcd;
  const Bytes bytes = Bytes()
                          .Add<uint32_t>(42)
                          .Add<uint32_t>(42)
                          .Add<uint64_t>(0x1000)
                          .Add<uint64_t>(0x2000)
                          .Add<uint64_t>(0)
                          .Add<uint32_t>(20)
                          .Add(id)
                          .Add<uint32_t>(5)
                          .Add<uint32_t>(2)
                          .Text("/x")
                          .Trailer(42, 99);
  const auto m = ParseMmap2({.type = PERF_RECORD_MMAP2, .misc = PERF_RECORD_MISC_MMAP_BUILD_ID, .body = bytes.span()});
  ASSERT_TRUE(m.has_value());
  EXPECT_EQ(m->build_id.hex, "ab000000000000000000000000000000000000cd");
  EXPECT_EQ(m->inode, 0u);
  EXPECT_EQ(m->path, "/x");
}

TEST(ParseMmap2, RefusesNonsense) {
  const Bytes overflow = Bytes()
                             .Add<uint32_t>(1)
                             .Add<uint32_t>(1)
                             .Add<uint64_t>(UINT64_MAX - 10)
                             .Add<uint64_t>(100)
                             .Add<uint64_t>(0)
                             .Add<uint64_t>(0)
                             .Add<uint64_t>(0)
                             .Add<uint64_t>(0)
                             .Add<uint64_t>(0)
                             .Text("x")
                             .Trailer(1, 1);
  EXPECT_FALSE(ParseMmap2({.type = PERF_RECORD_MMAP2, .misc = 0, .body = overflow.span()}).has_value());
  const Bytes whole = MappingBytes();
  for (size_t cut = 1; cut <= whole.span().size(); ++cut) {
    // Whatever it makes of a shortened record, it must not read past it.
    std::vector<std::byte> copy(whole.span().begin(), whole.span().end() - static_cast<ptrdiff_t>(cut));
    const auto m = ParseMmap2({.type = PERF_RECORD_MMAP2, .misc = 0, .body = copy});
    EXPECT_TRUE(copy.size() >= 24 + 64 || !m.has_value()) << cut;
  }
}

TEST(ParseSample, SectionsOfTheChain) {
  const Bytes bytes = Bytes()
                          .Add<uint64_t>(0xffffffff81000000)
                          .Add<uint32_t>(7)
                          .Add<uint32_t>(8)
                          .Add<uint64_t>(123)
                          .Add<uint32_t>(1)
                          .Add<uint32_t>(0)
                          .Add<uint64_t>(1000)
                          .Add<uint64_t>(5)
                          .Add<uint64_t>(static_cast<uint64_t>(PERF_CONTEXT_KERNEL))
                          .Add<uint64_t>(0xffffffff81000000)
                          .Add<uint64_t>(static_cast<uint64_t>(PERF_CONTEXT_USER))
                          .Add<uint64_t>(0x1000)
                          .Add<uint64_t>(0x2000);
  const auto s = ParseSample({.type = PERF_RECORD_SAMPLE, .misc = 0, .body = bytes.span()});
  ASSERT_TRUE(s.has_value());
  EXPECT_EQ(s->tgid, 7u);
  EXPECT_EQ(s->tid, 8u);
  EXPECT_EQ(s->time_ns, 123u);
  EXPECT_EQ(s->kernel_frames, (std::vector<uint64_t>{0xffffffff81000000}));
  EXPECT_EQ(s->user_frames, (std::vector<uint64_t>{0x1000, 0x2000}));
  for (size_t size = 0; size < bytes.span().size(); ++size) {
    EXPECT_FALSE(ParseSample({.type = PERF_RECORD_SAMPLE, .misc = 0, .body = bytes.span().first(size)}).has_value());
  }
}

// ip … period and an empty chain; then registers 100 … 116 in perf's order, and a stack of which `filled` bytes count.
Bytes SampleWithStack(uint64_t abi, uint64_t filled) {
  Bytes bytes;
  for (int i = 0; i < 6; ++i) bytes.Add<uint64_t>(0);
  bytes.Add<uint64_t>(abi);
  for (uint64_t i = 0; abi != 0 && i < 17; ++i) bytes.Add<uint64_t>(100 + i);
  return bytes.Add<uint64_t>(16).Add<uint64_t>(0x0807060504030201).Add<uint64_t>(0).Add<uint64_t>(filled);
}

TEST(ParseSample, RegistersAndStack) {
  const Bytes bytes = SampleWithStack(PERF_SAMPLE_REGS_ABI_64, 8);
  const auto s = ParseSample({.type = PERF_RECORD_SAMPLE, .misc = 0, .body = bytes.span()}, true);
  ASSERT_TRUE(s && s->registers);
  EXPECT_EQ(s->registers->reg[0], 100u);             // ax
  EXPECT_EQ(s->registers->reg[PYRO_REG_RBX], 101u);  // perf counts ax bx cx dx si di, DWARF ax dx cx bx si di
  EXPECT_EQ(s->registers->reg[2], 102u);
  EXPECT_EQ(s->registers->reg[1], 103u);
  EXPECT_EQ(s->registers->reg[PYRO_REG_RBP], 106u);
  EXPECT_EQ(s->registers->reg[PYRO_REG_RSP], 107u);
  EXPECT_EQ(s->registers->stack_start, 107u);
  EXPECT_EQ(s->registers->ip, 108u);
  EXPECT_EQ(s->registers->reg[15], 116u);
  EXPECT_EQ(s->stack, std::string("\1\2\3\4\5\6\7\10", 8));
  for (size_t size = 0; size < bytes.span().size(); ++size) {
    EXPECT_FALSE(
        ParseSample({.type = PERF_RECORD_SAMPLE, .misc = 0, .body = bytes.span().first(size)}, true).has_value());
  }
}

TEST(ParseSample, StacksThatCannotBe) {
  const auto parse = [](const Bytes& bytes) {
    return ParseSample({.type = PERF_RECORD_SAMPLE, .misc = 0, .body = bytes.span()}, true);
  };
  EXPECT_FALSE(parse(SampleWithStack(PERF_SAMPLE_REGS_ABI_64, 17)).has_value());
  EXPECT_FALSE(parse(SampleWithStack(PERF_SAMPLE_REGS_ABI_32, 8))->registers.has_value());
  EXPECT_FALSE(parse(SampleWithStack(PERF_SAMPLE_REGS_ABI_NONE, 8))->registers.has_value());
  Bytes none;
  for (int i = 0; i < 6; ++i) none.Add<uint64_t>(0);
  none.Add<uint64_t>(PERF_SAMPLE_REGS_ABI_NONE).Add<uint64_t>(0);
  ASSERT_TRUE(parse(none).has_value());
  EXPECT_EQ(parse(none)->stack, "");
}

TEST(ParseSample, ChainLongerThanTheRecord) {
  const Bytes bytes = Bytes()
                          .Add<uint64_t>(1)
                          .Add<uint64_t>(1)
                          .Add<uint64_t>(1)
                          .Add<uint64_t>(1)
                          .Add<uint64_t>(1)
                          .Add<uint64_t>(UINT64_MAX / 8 + 2)
                          .Add<uint64_t>(1);
  EXPECT_FALSE(ParseSample({.type = PERF_RECORD_SAMPLE, .misc = 0, .body = bytes.span()}).has_value());
}

TEST(ParseLost, BothKinds) {
  const Bytes lost = Bytes().Add<uint64_t>(5).Add<uint64_t>(17).Trailer(1, 1);
  EXPECT_EQ(ParseLost({.type = PERF_RECORD_LOST, .misc = 0, .body = lost.span()}), 17u);
  const Bytes samples = Bytes().Add<uint64_t>(3).Trailer(1, 1);
  EXPECT_EQ(ParseLost({.type = PERF_RECORD_LOST_SAMPLES, .misc = 0, .body = samples.span()}), 3u);
  EXPECT_FALSE(ParseLost({.type = PERF_RECORD_LOST, .misc = 0, .body = {}}).has_value());
}

TEST(ToProcessEvent, CommIsARenameOrAnExec) {
  const Bytes bytes = Bytes().Add<uint32_t>(4).Add<uint32_t>(4).Text("name").Trailer(4, 55);
  auto event = ToProcessEvent({.type = PERF_RECORD_COMM, .misc = 0, .body = bytes.span()});
  ASSERT_TRUE(event && std::holds_alternative<process::Comm>(*event));
  EXPECT_EQ(std::get<process::Comm>(*event).comm, "name");
  event = ToProcessEvent({.type = PERF_RECORD_COMM, .misc = PERF_RECORD_MISC_COMM_EXEC, .body = bytes.span()});
  ASSERT_TRUE(event && std::holds_alternative<process::Exec>(*event));
  EXPECT_EQ(TimeOf(*event), 55u);
  EXPECT_FALSE(ToProcessEvent({.type = 999, .misc = 0, .body = bytes.span()}).has_value());
}

TEST(PerfRecords, NoiseIsNeverReadPastItsEnd) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 50000; ++i) {
    const size_t size = random() % 200;
    std::vector<std::byte> noise(size);
    for (std::byte& b : noise) b = static_cast<std::byte>(random());
    const PerfRecord record{
        .type = static_cast<uint32_t>(random() % 20), .misc = static_cast<uint16_t>(random()), .body = noise};
    ToProcessEvent(record);
    ParseSample(record);
    ParseLost(record);
    ParseMmap2(record);
  }
}

TEST(ReorderBuffer, DeliversInOrderUpToTheHorizon) {
  ReorderBuffer<int> buffer;
  buffer.Add(30, 3);
  buffer.Add(10, 1);
  buffer.Add(20, 2);
  buffer.Add(20, 22);
  std::vector<int> out;
  buffer.DeliverUntil(20, [&](int v) { out.push_back(v); });
  EXPECT_EQ(out, (std::vector<int>{1, 2, 22}));
  EXPECT_EQ(buffer.size(), 1u);
  buffer.DeliverUntil(UINT64_MAX, [&](int v) { out.push_back(v); });
  EXPECT_EQ(out.back(), 3);
}

}  // namespace
}  // namespace pyrometer::kernel

// The walk on stacks made here: whole ones, and every way in which one can be broken.
#include "userspace/unwind/stack_walker.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

namespace pyrometer::unwind {
namespace {

constexpr uint64_t kStack = 0x7ffd00000000, kCode = 0x555500001000;

// The memory of the "process": words by address; what is absent faults.
class Words final : public UserMemory {
 public:
  bool Read(uint64_t address, std::span<char> out) const override {
    ++reads;
    for (size_t i = 0; i < out.size();) {
      const uint64_t word_at = (address + i) & ~uint64_t{7};
      const auto word = words.find(word_at);
      if (word == words.end()) return false;
      const size_t skip = address + i - word_at;
      const size_t n = std::min<size_t>(8 - skip, out.size() - i);
      std::memcpy(out.data() + i, reinterpret_cast<const char*>(&word->second) + skip, n);
      i += n;
    }
    return true;
  }
  // The whole 4 KiB around `address` is in memory, zero where nothing was put.
  void Page(uint64_t address) {
    for (uint64_t at = address & ~uint64_t{4095}, end = at + 4096; at < end; at += 8) words.try_emplace(at, 0);
  }
  void Put(uint64_t address, uint64_t value) {
    Page(address);
    words[address] = value;
  }
  std::map<uint64_t, uint64_t> words;
  mutable int reads = 0;
};

Registers At(uint64_t ip, uint64_t sp, uint64_t fp = 0) {
  Registers registers{};
  registers.ip = ip;
  registers.reg[PYRO_REG_RSP] = sp;
  registers.reg[PYRO_REG_RBP] = fp;
  return registers;
}

std::vector<uint64_t> Frames(const StackWalker::Result& result) { return {result.frames.begin(), result.frames.end()}; }

// ---- frame pointers alone ------------------------------------------------------------------------------------------

class FramePointers : public ::testing::Test {
 protected:
  // Frames of 64 bytes; frame i returns to kCode + 16 * (i + 1). The last one's caller has a zero frame pointer.
  Registers Build(int frames) {
    memory_.words.clear();
    memory_.Page(kStack - 32);
    for (int i = 0; i < frames; ++i) {
      const uint64_t fp = kStack + 64 * static_cast<uint64_t>(i);
      memory_.Put(fp, i + 1 < frames ? fp + 64 : 0);
      memory_.Put(fp + 8, kCode + 16 * static_cast<uint64_t>(i + 1));
    }
    return At(kCode, kStack - 32, kStack);
  }
  StackWalker::Result Walk(const Registers& registers, uint32_t limit = PYRO_MAX_USER_FRAMES) {
    memory_.reads = 0;
    const StackWalker::Result result = walker_.Walk(registers, memory_, limit);
    EXPECT_LE(result.frames.size(), limit);
    EXPECT_LT(result.stop, PYRO_STOP_COUNT);
    return result;
  }

  Words memory_;
  StackWalker walker_;
};

TEST_F(FramePointers, WholeStackLeafFirst) {
  const auto result = Walk(Build(5));
  EXPECT_EQ(result.stop, PYRO_STOP_END);
  ASSERT_EQ(result.frames.size(), 6u);
  for (uint64_t i = 0; i < 6; ++i) EXPECT_EQ(result.frames[i], kCode + 16 * i);
  EXPECT_EQ(result.means, PYRO_BY_FP_GENERATED);
  EXPECT_EQ(memory_.reads, 1) << "one window holds all five frames";
}

TEST_F(FramePointers, LimitsAreTruncationOnlyWhenThereIsMore) {
  const Registers registers = Build(5);
  EXPECT_EQ(Walk(registers, 6).stop, PYRO_STOP_END);
  EXPECT_EQ(Walk(registers, 6).frames.size(), 6u);
  EXPECT_EQ(Walk(registers, 5).stop, PYRO_STOP_TRUNCATED);
  EXPECT_EQ(Walk(registers, 5).frames.size(), 5u);
  EXPECT_EQ(Walk(registers, 1).stop, PYRO_STOP_TRUNCATED);
  EXPECT_EQ(Walk(registers, 0).stop, PYRO_STOP_NOT_TAKEN);
  EXPECT_EQ(Walk(registers, 0).frames.size(), 0u);
}

TEST_F(FramePointers, DeepestStackEndsAtTheArray) {
  const auto result = Walk(Build(1000), 100'000);
  EXPECT_EQ(result.frames.size(), static_cast<size_t>(PYRO_MAX_USER_FRAMES));
  EXPECT_EQ(result.stop, PYRO_STOP_TRUNCATED);
}

TEST_F(FramePointers, ZeroReturnAddressIsTheEnd) {
  const Registers registers = Build(3);
  memory_.words[kStack + 64 + 8] = 0;
  EXPECT_EQ(Walk(registers).frames.size(), 2u);
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_END);
}

TEST_F(FramePointers, PageNotInMemory) {
  const Registers registers = Build(200);  // over three pages
  for (uint64_t at = kStack + 8192; at < kStack + 12288; at += 8) memory_.words.erase(at);
  const auto result = Walk(registers);
  EXPECT_EQ(result.stop, PYRO_STOP_UNREADABLE);
  EXPECT_EQ(result.frames.size(), 129u) << "128 frames of 64 bytes lie in two pages";
}

TEST_F(FramePointers, FramePointerThatIsNone) {
  Registers registers = Build(3);
  for (const uint64_t fp :
       {kStack + 4, kStack - 64, kStack + (uint64_t{1} << 21), uint64_t{0xffffffff80000000}, uint64_t{8}}) {
    registers.reg[PYRO_REG_RBP] = fp;
    EXPECT_EQ(Walk(registers).frames.size(), 1u) << std::hex << fp;
    EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_FRAME) << std::hex << fp;
    EXPECT_EQ(memory_.reads, 0);
  }
}

TEST_F(FramePointers, LoopEndsAtOnce) {
  const Registers registers = Build(3);
  memory_.words[kStack + 64] = kStack;  // back to the first
  EXPECT_EQ(Walk(registers).frames.size(), 3u);
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_FRAME);
  memory_.words[kStack] = kStack;  // to itself
  EXPECT_EQ(Walk(registers).frames.size(), 2u);
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_FRAME);
}

TEST_F(FramePointers, ReturnIntoTheKernelOrTheFirstPage) {
  const Registers registers = Build(3);
  for (const uint64_t target : {uint64_t{0xffffffff81000000}, uint64_t{17}}) {
    memory_.words[kStack + 64 + 8] = target;
    EXPECT_EQ(Walk(registers).frames.size(), 2u);
    EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_RETURN);
  }
}

TEST_F(FramePointers, KernelAddressAsInstructionPointer) {
  Registers registers = Build(3);
  registers.ip = 0xffffffff81000000;
  EXPECT_EQ(Walk(registers).frames.size(), 0u);
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_RETURN);
}

// ---- tables
// ----------------------------------------------------------------------------------------------------------

// A table of one part at ELF address 0x1000, a rule per row.
class Tables : public ::testing::Test {
 protected:
  struct Row {
    uint32_t offset;  // from 0x1000
    UnwindRule rule;
  };
  static constexpr uint64_t kBias = 0x555500000000;

  void Build(const std::vector<Row>& rows, uint32_t pages = 2) {
    table_ = UnwindTable();
    table_.rules.push_back({.kind = PYRO_UNWIND_NONE});
    UnwindPart part;
    part.base = ElfAddress(0x1000);
    part.pages = pages;
    part.words.assign(pages + 2, 0);
    uint32_t page = 0;
    for (const Row& row : rows) {
      for (; page <= row.offset / 512; ++page) part.words[page] = static_cast<uint32_t>(part.words.size());
      part.words.push_back(row.offset % 512 << 16 | static_cast<uint32_t>(table_.rules.size()));
      table_.rules.push_back(row.rule);
    }
    for (; page <= pages; ++page) part.words[page] = static_cast<uint32_t>(part.words.size());
    table_.parts.push_back(std::move(part));
    walker_.Clear();
    walker_.Map({.start = VirtualAddress(kBias + 0x1000),
                 .end = VirtualAddress(kBias + 0x3000),
                 .kind = PYRO_MAPPING_TABLE,
                 .table = &table_,
                 .bias = kBias});
    memory_.Page(kStack);
  }
  static uint64_t Code(uint64_t offset) { return kBias + 0x1000 + offset; }
  StackWalker::Result Walk(const Registers& registers) {
    return walker_.Walk(registers, memory_, PYRO_MAX_USER_FRAMES);
  }

  // A direct call to `target` that ends just before `ra`.
  void PutCall(uint64_t ra, uint64_t target) {
    const auto distance = static_cast<int32_t>(target - ra);
    char call[5] = {static_cast<char>(0xe8)};
    std::memcpy(call + 1, &distance, sizeof(distance));
    PutBytes(ra - 5, call);
  }
  void PutBytes(uint64_t address, std::span<const char> bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      const uint64_t at = address + i;
      memory_.Page(at);
      reinterpret_cast<char*>(&memory_.words[at & ~uint64_t{7}])[at & 7] = bytes[i];
    }
  }

  static UnwindRule Rsp(int32_t offset, pyro_unwind_saved fp = PYRO_SAVED_SAME, int16_t fp_at = 0) {
    return {.kind = PYRO_UNWIND_REGISTER,
            .reg = PYRO_REG_RSP,
            .fp_saved = static_cast<uint8_t>(fp),
            .bx_saved = PYRO_SAVED_LOST,
            .offset = offset,
            .ra_at = -8,
            .fp_at = fp_at};
  }
  static UnwindRule End() { return {.kind = PYRO_UNWIND_END}; }

  UnwindTable table_;
  StackWalker walker_;
  Words memory_;
};

TEST_F(Tables, FollowsTheStackPointer) {
  Build({{0, Rsp(24)}, {100, Rsp(8)}, {200, End()}});
  memory_.Put(kStack + 16, Code(100));  // caller, just behind a call that ends the first function
  memory_.Put(kStack + 24 + 16, Code(150));
  memory_.Put(kStack + 24 + 16 + 8, Code(201));
  // The return address Code(100) belongs to the call before it: the rule of offset 0, not of 100.
  const auto result = Walk(At(Code(50), kStack));
  EXPECT_EQ(Frames(result), (std::vector<uint64_t>{Code(50), Code(100), Code(150), Code(201)}));
  EXPECT_EQ(result.stop, PYRO_STOP_END);
  EXPECT_EQ(result.means, PYRO_BY_TABLE);
}

TEST_F(Tables, RowBeforeThePageIsInForce) {
  Build({{0, Rsp(8)}, {1020, End()}}, 2);
  memory_.Put(kStack, Code(1021));
  EXPECT_EQ(Frames(Walk(At(Code(900), kStack))), (std::vector<uint64_t>{Code(900), Code(1021)}));
}

TEST_F(Tables, FollowsTheFramePointerAndRestoresIt) {
  const UnwindRule by_fp{.kind = PYRO_UNWIND_REGISTER,
                         .reg = PYRO_REG_RBP,
                         .fp_saved = PYRO_SAVED_CFA,
                         .bx_saved = PYRO_SAVED_LOST,
                         .offset = 16,
                         .ra_at = -8,
                         .fp_at = -16};
  Build({{0, by_fp}, {200, End()}});
  memory_.Put(kStack + 64, kStack + 128);  // saved rbp
  memory_.Put(kStack + 72, Code(10));
  memory_.Put(kStack + 128, 0);
  memory_.Put(kStack + 136, Code(201));
  const auto result = Walk(At(Code(50), kStack, kStack + 64));
  EXPECT_EQ(Frames(result), (std::vector<uint64_t>{Code(50), Code(10), Code(201)}));
}

TEST_F(Tables, RealignedFrame) {
  // CFA = *(rbp - 8), rbp at rbp + 0: what g++ makes of alignas(64) locals.
  const UnwindRule realigned{.kind = PYRO_UNWIND_DEREFERENCE,
                             .reg = PYRO_REG_RBP,
                             .fp_saved = PYRO_SAVED_FP,
                             .bx_saved = PYRO_SAVED_LOST,
                             .offset = -8,
                             .ra_at = -8,
                             .fp_at = 0};
  Build({{0, realigned}, {200, End()}});
  memory_.Put(kStack + 64 - 8, kStack + 256);  // the CFA
  memory_.Put(kStack + 64, 0x1234);            // caller's rbp
  memory_.Put(kStack + 248, Code(201));
  EXPECT_EQ(Frames(Walk(At(Code(50), kStack, kStack + 64))), (std::vector<uint64_t>{Code(50), Code(201)}));
}

TEST_F(Tables, PltStubBeforeAndAfterItsPush) {
  const UnwindRule plt{
      .kind = PYRO_UNWIND_PLT, .reg = PYRO_REG_RSP, .bx_saved = PYRO_SAVED_LOST, .offset = 8, .add = 11, .ra_at = -8};
  Build({{0, plt}, {256, End()}});
  memory_.Put(kStack, Code(300));
  memory_.Put(kStack + 8, Code(301));
  EXPECT_EQ(Frames(Walk(At(Code(32 + 6), kStack)))[1], Code(300));
  EXPECT_EQ(Frames(Walk(At(Code(32 + 11), kStack)))[1], Code(301));
}

TEST_F(Tables, SignalFrameGivesAllRegisters) {
  const UnwindRule by_r10{
      .kind = PYRO_UNWIND_REGISTER, .reg = 10, .bx_saved = PYRO_SAVED_LOST, .offset = 0, .ra_at = -8};
  Build({{0, Rsp(8)}, {64, {.kind = PYRO_UNWIND_SIGNAL}}, {128, by_r10}, {256, End()}});
  memory_.Put(kStack, Code(65));  // the handler returns to the trampoline
  const uint64_t context = kStack + 8;
  const uint64_t interrupted_sp = kStack + 1024;
  memory_.Put(context + 40 + 2 * 8, interrupted_sp + 64);  // r10
  memory_.Put(context + 40 + 15 * 8, interrupted_sp);      // rsp
  memory_.Put(context + 40 + 16 * 8, Code(128));           // rip: the first instruction of a function
  memory_.Put(interrupted_sp + 56, Code(300));
  const auto result = Walk(At(Code(10), kStack));
  EXPECT_EQ(Frames(result), (std::vector<uint64_t>{Code(10), Code(65), Code(128) | PYRO_FRAME_EXACT, Code(300)}));
  EXPECT_EQ(result.stop, PYRO_STOP_END);
  EXPECT_EQ(result.means, PYRO_BY_TABLE | PYRO_BY_SIGNAL_FRAME);
}

TEST_F(Tables, OtherRegistersAreKnownInTheInnermostFrameOnly) {
  const UnwindRule by_r10{
      .kind = PYRO_UNWIND_REGISTER, .reg = 10, .bx_saved = PYRO_SAVED_LOST, .offset = 0, .ra_at = -8};
  Build({{0, by_r10}, {256, End()}});
  Registers registers = At(Code(10), kStack);
  registers.reg[10] = kStack + 64;
  memory_.Put(kStack + 56, Code(20));
  const auto result = Walk(registers);
  EXPECT_EQ(Frames(result), (std::vector<uint64_t>{Code(10), Code(20)}));
  EXPECT_EQ(result.stop, PYRO_STOP_UNSUPPORTED);
}

TEST_F(Tables, ReturnAddressInARegister) {
  const UnwindRule vfork{.kind = PYRO_UNWIND_RETURN_REG, .reg = 5, .bx_saved = PYRO_SAVED_LOST, .offset = 0};
  Build({{0, vfork}, {128, Rsp(8)}, {256, End()}});
  Registers registers = At(Code(10), kStack);
  registers.reg[5] = Code(140);
  memory_.Put(kStack, Code(300));
  EXPECT_EQ(Frames(Walk(registers)), (std::vector<uint64_t>{Code(10), Code(140), Code(300)}));
}

TEST_F(Tables, RbxWhereTheTableFollowsIt) {
  UnwindRule callee = Rsp(16);  // saved rbx at CFA - 16
  callee.bx_saved = PYRO_SAVED_CFA;
  callee.bx_at = -16;
  UnwindRule by_rbx{
      .kind = PYRO_UNWIND_REGISTER, .reg = PYRO_REG_RBX, .bx_saved = PYRO_SAVED_LOST, .offset = 24, .ra_at = -8};
  Build({{0, callee}, {128, by_rbx}, {256, End()}});
  memory_.Put(kStack, kStack + 512);  // rbx
  memory_.Put(kStack + 8, Code(140));
  memory_.Put(kStack + 512 + 16, Code(300));
  EXPECT_EQ(Frames(Walk(At(Code(10), kStack))), (std::vector<uint64_t>{Code(10), Code(140), Code(300)}));
}

TEST_F(Tables, ReasonsToStop) {
  Build({{0, Rsp(-16)}, {64, {.kind = PYRO_UNWIND_UNSUPPORTED}}, {128, Rsp(8)}, {1000, End()}});
  EXPECT_EQ(Walk(At(Code(10), kStack)).stop, PYRO_STOP_BAD_CFA);
  EXPECT_EQ(Walk(At(Code(70), kStack)).stop, PYRO_STOP_UNSUPPORTED);
  EXPECT_EQ(Walk(At(Code(130), 0x10000)).stop, PYRO_STOP_UNREADABLE);
  memory_.Put(kStack, 0);
  EXPECT_EQ(Walk(At(Code(130), kStack)).stop, PYRO_STOP_END);
  memory_.Put(kStack, 0xffffffff81000000);
  EXPECT_EQ(Walk(At(Code(130), kStack)).stop, PYRO_STOP_BAD_RETURN);
  memory_.Put(kStack, 0x1234567);  // mapped nowhere
  const auto result = Walk(At(Code(130), kStack));
  EXPECT_EQ(result.stop, PYRO_STOP_NO_MAPPING);
  EXPECT_EQ(result.frames.size(), 2u) << "the table's word is believed";
  EXPECT_EQ(result.stopped_at.value, 0x1234567u);
}

TEST_F(Tables, PendingTableStops) {
  walker_.Map({.start = VirtualAddress(kBias), .end = VirtualAddress(kBias + 0x1000), .kind = PYRO_MAPPING_PENDING});
  const auto result = Walk(At(kBias + 16, kStack));
  EXPECT_EQ(result.stop, PYRO_STOP_NO_TABLE);
  EXPECT_EQ(result.frames.size(), 1u);
}

// Code without information at 0 … 255, a function at 256, the outermost at 512.
class Gaps : public Tables {
 protected:
  void SetUp() override {
    Build({{0, {.kind = PYRO_UNWIND_NONE}}, {256, Rsp(8)}, {512, End()}});
    memory_.Page(Code(300));
  }
  // call *%rax before `ra`.
  void PutIndirectCall(uint64_t ra) {
    const char call[] = {static_cast<char>(0xff), static_cast<char>(0xd0)};
    PutBytes(ra - 2, call);
  }
};

TEST_F(Gaps, FramePointerIsBelievedOnlyBehindACallOfThisCode) {
  memory_.Put(kStack + 64, 0);
  memory_.Put(kStack + 72, Code(300));
  memory_.Put(kStack + 80, Code(600));
  const Registers registers = At(Code(10), kStack, kStack + 64);
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_FRAME);
  PutCall(Code(300), Code(300) + 0x4030201);
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_FRAME) << "a call of something else: perhaps the caller's own frame";
  PutCall(Code(300), Code(0));
  const auto result = Walk(registers);
  EXPECT_EQ(Frames(result), (std::vector<uint64_t>{Code(10), Code(300), Code(600)}));
  EXPECT_EQ(result.means, PYRO_BY_TABLE | PYRO_BY_FP_NO_INFO);
}

TEST_F(Gaps, LeafWithoutAFrame) {
  memory_.Put(kStack, Code(300));
  memory_.Put(kStack + 8, Code(600));
  const Registers registers = At(Code(40), kStack, 0x77);  // rbp holds anything
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_BAD_FRAME) << "no call there";
  PutCall(Code(300), Code(4));
  EXPECT_EQ(Frames(Walk(registers)), (std::vector<uint64_t>{Code(40), Code(300), Code(600)}));
  EXPECT_EQ(Walk(registers).stop, PYRO_STOP_END);
  PutCall(Code(300), 0);
  PutIndirectCall(Code(300));
  EXPECT_EQ(Frames(Walk(registers)), (std::vector<uint64_t>{Code(40), Code(300), Code(600)}));
}

TEST_F(Gaps, CallersFramePointerDoesNotSkipTheCaller) {
  // rbp is the caller's: behind it lies the caller's caller, which called the caller, not this code.
  memory_.Put(kStack, Code(300));
  PutIndirectCall(Code(300));
  memory_.Put(kStack + 64, 0);
  memory_.Put(kStack + 72, Code(400));
  PutCall(Code(400), Code(280));
  memory_.Put(kStack + 8, Code(600));
  EXPECT_EQ(Frames(Walk(At(Code(40), kStack, kStack + 64))), (std::vector<uint64_t>{Code(40), Code(300), Code(600)}));
}

TEST_F(Tables, FramePointerIntoNowhereTakesItsFrameBack) {
  walker_.Clear();
  walker_.Map({.start = VirtualAddress(kBias), .end = VirtualAddress(kBias + 0x1000), .kind = PYRO_MAPPING_GENERATED});
  memory_.Put(kStack + 64, kStack + 128);
  memory_.Put(kStack + 72, kBias + 32);
  memory_.Put(kStack + 128, 0);
  memory_.Put(kStack + 136, 0x1234567);  // no code
  const auto result = Walk(At(kBias + 16, kStack, kStack + 64));
  EXPECT_EQ(Frames(result), (std::vector<uint64_t>{kBias + 16, kBias + 32}));
  EXPECT_EQ(result.stop, PYRO_STOP_BAD_FRAME);
}

TEST_F(Tables, UnalignedStackIsReadToo) {
  Build({{0, Rsp(8)}, {512, End()}});
  // Two words that hold Code(600) at an odd address.
  const uint64_t at = kStack + 4;
  const uint64_t value = Code(600);
  PutBytes(at, {reinterpret_cast<const char*>(&value), sizeof(value)});
  EXPECT_EQ(Frames(Walk(At(Code(10), at))), (std::vector<uint64_t>{Code(10), Code(600)}));
}

TEST(MappingPieces, PartsAndWhatLiesBetween) {
  UnwindTable table;
  table.rules.push_back({.kind = PYRO_UNWIND_NONE});
  for (const uint64_t base : {0x1000, 0x9000}) {
    UnwindPart part;
    part.base = ElfAddress(base);
    part.pages = 8;
    table.parts.push_back(part);
  }
  std::vector<pyro_unwind_mapping> pieces;
  ForEachPiece({.start = VirtualAddress(0x100800),
                .end = VirtualAddress(0x10b000),
                .kind = PYRO_MAPPING_TABLE,
                .table = &table,
                .bias = 0x100000},
               [&](const pyro_unwind_mapping& piece, size_t) { pieces.push_back(piece); });
  ASSERT_EQ(pieces.size(), 5u);
  const uint64_t edges[] = {0x100800, 0x101000, 0x102000, 0x109000, 0x10a000, 0x10b000};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(pieces[i].start, edges[i]);
    EXPECT_EQ(pieces[i].end, edges[i + 1]);
    EXPECT_EQ(pieces[i].kind, i % 2 == 1 ? PYRO_MAPPING_TABLE : PYRO_MAPPING_GAP);
    EXPECT_EQ(pieces[i].delta, 0u);
  }
  // A mapping that begins within a part.
  pieces.clear();
  ForEachPiece({.start = VirtualAddress(0x101234),
                .end = VirtualAddress(0x101300),
                .kind = PYRO_MAPPING_TABLE,
                .table = &table,
                .bias = 0x100000},
               [&](const pyro_unwind_mapping& piece, size_t) { pieces.push_back(piece); });
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].delta, 0x234u);
}

}  // namespace
}  // namespace pyrometer::unwind

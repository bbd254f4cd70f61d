// From call frame information to rules: cases written by hand (cfi_cases.S, linked into this program), sections made
// here byte by byte, and files made to hurt.
#include "userspace/unwind/table_builder.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <link.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <string>

#include "userspace/base/strings.h"
#include "userspace/unwind/cfi.h"

// clang-format off
#define CASES(X) \
  X(entry) X(pushed) X(frame) X(popped) X(restored) X(advance0) X(advance1) X(advance_loc1) X(advance_loc2) \
  X(advance_loc4) X(before_realigned) X(realigned) X(saved_rsp) X(plt) X(unsupported) X(supported_again) \
  X(outermost) X(return_register) X(other_register) X(lost_rbp) X(trampoline) X(gap) X(bare_trampoline) \
  X(after_bare_trampoline) X(padding) X(before_entered) X(entered)
// clang-format on
#define DECLARE(name) extern "C" const char cfi_case_##name[];
CASES(DECLARE)

namespace pyrometer::unwind {
namespace {

using ::testing::HasSubstr;

// Virtual address - ELF address of this program.
uint64_t OwnBias() {
  uint64_t bias = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* to) {
        *static_cast<uint64_t*>(to) = info->dlpi_addr;
        return 1;  // the program itself comes first
      },
      &bias);
  return bias;
}

class Cases : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto file = elf::ElfFile::Open("/proc/self/exe");
    ASSERT_TRUE(file.ok()) << file.status();
    auto table = BuildUnwindTable(*file, {});
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = new UnwindTable(*std::move(table));
  }
  static UnwindRule At(const char* label, int64_t offset = 0) {
    const uint64_t address = reinterpret_cast<uint64_t>(label) + static_cast<uint64_t>(offset) - OwnBias();
    const UnwindRule* rule = FindRule(*table_, ElfAddress(address));
    return rule != nullptr ? *rule : UnwindRule{.kind = 99};
  }
  static UnwindTable* table_;
};
UnwindTable* Cases::table_ = nullptr;

void ExpectRegister(const UnwindRule& rule, uint8_t reg, int32_t offset, pyro_unwind_saved fp, int16_t fp_at = 0) {
  EXPECT_EQ(rule.kind, PYRO_UNWIND_REGISTER);
  EXPECT_EQ(rule.reg, reg);
  EXPECT_EQ(rule.offset, offset);
  EXPECT_EQ(rule.ra_at, -8);
  EXPECT_EQ(rule.fp_saved, fp);
  if (fp != PYRO_SAVED_SAME) {
    EXPECT_EQ(rule.fp_at, fp_at);
  }
}

TEST_F(Cases, PlainFunction) {
  ExpectRegister(At(cfi_case_entry), PYRO_REG_RSP, 8, PYRO_SAVED_SAME);
  ExpectRegister(At(cfi_case_pushed), PYRO_REG_RSP, 16, PYRO_SAVED_CFA, -16);
  ExpectRegister(At(cfi_case_frame), PYRO_REG_RBP, 16, PYRO_SAVED_CFA, -16);
  ExpectRegister(At(cfi_case_popped), PYRO_REG_RSP, 8, PYRO_SAVED_SAME);
  ExpectRegister(At(cfi_case_restored), PYRO_REG_RBP, 16, PYRO_SAVED_CFA, -16);
}

TEST_F(Cases, AllWidthsOfAdvances) {
  EXPECT_EQ(At(cfi_case_advance0).offset, 8);
  EXPECT_EQ(At(cfi_case_advance1).offset, 1 << 20);
  EXPECT_EQ(At(cfi_case_advance_loc1, -1).offset, 1 << 20);
  EXPECT_EQ(At(cfi_case_advance_loc1).offset, 16);
  EXPECT_EQ(At(cfi_case_advance_loc2, -1).offset, 16);
  EXPECT_EQ(At(cfi_case_advance_loc2).offset, 24);
  EXPECT_EQ(At(cfi_case_advance_loc4, -1).offset, 24);
  EXPECT_EQ(At(cfi_case_advance_loc4).offset, 32);
}

TEST_F(Cases, Expressions) {
  ExpectRegister(At(cfi_case_before_realigned), PYRO_REG_RSP, 8, PYRO_SAVED_SAME);
  const UnwindRule realigned = At(cfi_case_realigned);
  EXPECT_EQ(realigned.kind, PYRO_UNWIND_DEREFERENCE);
  EXPECT_EQ(realigned.reg, PYRO_REG_RBP);
  EXPECT_EQ(realigned.offset, -8);
  EXPECT_EQ(realigned.add, 0);
  EXPECT_EQ(realigned.fp_saved, PYRO_SAVED_FP);
  EXPECT_EQ(realigned.fp_at, 0);

  const UnwindRule saved = At(cfi_case_saved_rsp);
  EXPECT_EQ(saved.kind, PYRO_UNWIND_DEREFERENCE);
  EXPECT_EQ(saved.reg, PYRO_REG_RSP);
  EXPECT_EQ(saved.offset, 16);
  EXPECT_EQ(saved.add, 8);

  const UnwindRule plt = At(cfi_case_plt);
  EXPECT_EQ(plt.kind, PYRO_UNWIND_PLT);
  EXPECT_EQ(plt.offset, 8);
  EXPECT_EQ(plt.add, 11);

  EXPECT_EQ(At(cfi_case_unsupported).kind, PYRO_UNWIND_UNSUPPORTED);
  ExpectRegister(At(cfi_case_supported_again), PYRO_REG_RSP, 8, PYRO_SAVED_SAME);
}

TEST_F(Cases, SpecialFrames) {
  EXPECT_EQ(At(cfi_case_outermost).kind, PYRO_UNWIND_END);
  EXPECT_EQ(At(cfi_case_trampoline).kind, PYRO_UNWIND_SIGNAL);
  const UnwindRule vfork = At(cfi_case_return_register);
  EXPECT_EQ(vfork.kind, PYRO_UNWIND_RETURN_REG);
  EXPECT_EQ(vfork.reg, 5);
  EXPECT_EQ(vfork.offset, 0);
  ExpectRegister(At(cfi_case_other_register), 10, 0, PYRO_SAVED_SAME);
  ExpectRegister(At(cfi_case_lost_rbp), PYRO_REG_RSP, 8, PYRO_SAVED_LOST);
}

TEST_F(Cases, WhatIsNotCovered) {
  EXPECT_EQ(At(cfi_case_gap).kind, PYRO_UNWIND_NONE);
  EXPECT_EQ(At(cfi_case_gap, 20).kind, PYRO_UNWIND_NONE);
  EXPECT_EQ(At(cfi_case_gap).add, 0) << "the program as a whole is covered: a frame pointer must prove itself";
  EXPECT_EQ(At(cfi_case_bare_trampoline).kind, PYRO_UNWIND_SIGNAL) << "told by its bytes";
  EXPECT_EQ(At(cfi_case_after_bare_trampoline).kind, PYRO_UNWIND_NONE);
  // A few bytes of padding cost no row.
  EXPECT_EQ(At(cfi_case_padding).kind, PYRO_UNWIND_REGISTER);
  // A function that is entered by a return address begins a byte earlier.
  EXPECT_EQ(At(cfi_case_before_entered).kind, PYRO_UNWIND_END);
  EXPECT_EQ(At(cfi_case_entered).kind, PYRO_UNWIND_END);
}

TEST_F(Cases, BelowACoroutineThereIsNothing) {
  const auto libc = elf::ElfFile::Open("/lib/x86_64-linux-gnu/libc.so.6");
  if (!libc.ok()) GTEST_SKIP() << libc.status();
  const auto table = BuildUnwindTable(*libc, {});
  ASSERT_TRUE(table.ok());
  int ends = 0;
  const auto code = libc->ReadSection(*libc->FindSection(".text"));
  const size_t at = code->find("\x48\x89\xdc\x48\x8b\x3c\x24");  // mov %rbx,%rsp; mov (%rsp),%rdi
  if (at == std::string::npos) GTEST_SKIP() << "another libc";
  const uint64_t start = libc->FindSection(".text")->address.value + at;
  for (const uint64_t address : {start - 1, start, start + 17}) {
    ends += FindRule(*table, ElfAddress(address))->kind == PYRO_UNWIND_END;
  }
  EXPECT_EQ(ends, 3);
}

TEST_F(Cases, RbxOnlyWhereItIsNeeded) {
  for (const UnwindRule& rule : table_->rules) {
    if (rule.kind == PYRO_UNWIND_REGISTER) {
      EXPECT_EQ(rule.bx_saved, PYRO_SAVED_LOST);
    }
  }
  // The dynamic loader finds the CFA of its lazy binding by rbx, so it says where its functions keep rbx.
  const auto loader = elf::ElfFile::Open("/lib64/ld-linux-x86-64.so.2");
  if (!loader.ok()) GTEST_SKIP() << loader.status();
  const auto table = BuildUnwindTable(*loader, {});
  ASSERT_TRUE(table.ok());
  int by_rbx = 0, saved = 0;
  for (const UnwindRule& rule : table->rules) {
    by_rbx += rule.kind == PYRO_UNWIND_REGISTER && rule.reg == PYRO_REG_RBX;
    saved += rule.bx_saved == PYRO_SAVED_CFA;
  }
  EXPECT_GT(by_rbx, 0);
  EXPECT_GT(saved, 5);
}

// ---- sections made here
// ----------------------------------------------------------------------------------------------

class Bytes {
 public:
  template <typename T>
  Bytes& Put(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& Text(std::string_view s) {
    text.append(s);
    return *this;
  }
  Bytes& Uleb(uint64_t value) {
    do {
      const uint8_t more = value > 0x7f ? 0x80 : 0;
      Put<uint8_t>(static_cast<uint8_t>(value & 0x7f) | more);
      value >>= 7;
    } while (value != 0);
    return *this;
  }
  std::string text;
};

// Length, id and body as an entry.
std::string Entry(uint32_t id, const std::string& body) {
  return Bytes().Put<uint32_t>(static_cast<uint32_t>(4 + body.size())).Put(id).Text(body).text;
}

// "zR" with absolute 8-byte pointers; CFA = rsp + 8, return address at CFA - 8.
std::string CieBody(std::string_view augmentation = "zR", uint8_t encoding = 0x00) {
  Bytes b;
  b.Put<uint8_t>(1).Text(augmentation).Put<uint8_t>(0).Uleb(1).Put<uint8_t>(0x78).Put<uint8_t>(16);
  if (augmentation.starts_with('z')) b.Uleb(1).Put(encoding);
  b.Put<uint8_t>(0x0c).Uleb(7).Uleb(8).Put<uint8_t>(0x80 | 16).Uleb(1);
  return b.text;
}

std::string Fde(uint32_t id, uint64_t start, uint64_t size, std::string_view instructions) {
  return Entry(id, Bytes().Put(start).Put(size).Uleb(0).Text(instructions).text);
}

struct Read {
  Status status;
  std::vector<CfiRow> rows;
  uint64_t malformed = 0;
  size_t functions = 0;
  bool all_good = true;
};

Read ReadSection(const std::string& bytes, bool debug_frame = false, uint64_t address = 0) {
  CfiSection section;
  section.bytes = bytes;
  section.address = address;
  section.debug_frame = debug_frame;
  CfiReader reader(section);
  Read read;
  read.status = reader.Scan();
  read.functions = reader.fdes().size();
  for (const auto& fde : reader.fdes()) read.all_good = reader.Run(fde, &read.rows) && read.all_good;
  read.malformed = reader.malformed();
  return read;
}

TEST(Cfi, SmallestSection) {
  std::string bytes = Entry(0, CieBody());
  bytes += Fde(static_cast<uint32_t>(bytes.size()) + 4, 0x1000, 32, "\x41\x0e\x10");  // advance 1, def_cfa_offset 16
  const Read read = ReadSection(bytes);
  ASSERT_TRUE(read.status.ok()) << read.status;
  ASSERT_EQ(read.rows.size(), 2u);
  EXPECT_EQ(read.rows[0].address, 0x1000u);
  EXPECT_EQ(read.rows[0].rule.offset, 8);
  EXPECT_EQ(read.rows[1].address, 0x1001u);
  EXPECT_EQ(read.rows[1].rule.offset, 16);
  EXPECT_TRUE(read.all_good);
}

TEST(Cfi, PointerEncodings) {
  // 0x1b: pc-relative, four signed bytes.
  std::string bytes = Entry(0, CieBody("zR", 0x1b));
  const auto id = static_cast<uint32_t>(bytes.size()) + 4;
  const uint64_t section = 0x5000, pointer_at = section + bytes.size() + 8;
  bytes += Entry(id, Bytes().Put(static_cast<int32_t>(0x1000 - pointer_at)).Put<int32_t>(64).Uleb(0).text);
  const Read read = ReadSection(bytes, false, section);
  ASSERT_EQ(read.rows.size(), 1u);
  EXPECT_EQ(read.rows[0].address, 0x1000u);

  // Indirect pointers and unknown bases have no meaning here: the FDE is left out and counted.
  for (const uint8_t encoding : {uint8_t{0x9b}, uint8_t{0x5b}, uint8_t{0x07}}) {
    std::string odd = Entry(0, CieBody("zR", encoding));
    odd += Entry(static_cast<uint32_t>(odd.size()) + 4, Bytes().Put<uint64_t>(0x1000).Put<uint64_t>(64).Uleb(0).text);
    const Read other = ReadSection(odd);
    EXPECT_EQ(other.rows.size(), 0u) << int{encoding};
    EXPECT_EQ(other.malformed, 1u) << int{encoding};
  }
}

TEST(Cfi, DebugFrameOfBothDwarfFormats) {
  for (const bool dwarf64 : {false, true}) {
    Bytes cie;
    cie.Put<uint8_t>(4).Put<uint8_t>(0).Put<uint8_t>(8).Put<uint8_t>(0).Uleb(1).Put<uint8_t>(0x78).Uleb(16);
    cie.Put<uint8_t>(0x0c).Uleb(7).Uleb(8).Put<uint8_t>(0x80 | 16).Uleb(1);
    Bytes fde;
    fde.Put<uint64_t>(0x2000).Put<uint64_t>(16).Text(std::string_view("\x0e\x18", 2));
    Bytes section;
    if (dwarf64) {
      section.Put<uint32_t>(0xffffffff).Put<uint64_t>(8 + cie.text.size()).Put<uint64_t>(~uint64_t{0}).Text(cie.text);
      section.Put<uint32_t>(0xffffffff).Put<uint64_t>(8 + fde.text.size()).Put<uint64_t>(0).Text(fde.text);
    } else {
      section.Text(Entry(0xffffffff, cie.text)).Text(Entry(0, fde.text));
    }
    const Read read = ReadSection(section.text, true);
    ASSERT_TRUE(read.status.ok()) << read.status;
    ASSERT_EQ(read.rows.size(), 1u) << dwarf64;
    EXPECT_EQ(read.rows[0].address, 0x2000u);
    EXPECT_EQ(read.rows[0].rule.offset, 24);
  }
}

TEST(Cfi, AugmentationsWithPersonalityAndUnknownLetters) {
  for (const std::string_view augmentation : {"zPLR", "zRX"}) {
    Bytes b;
    b.Put<uint8_t>(1).Text(augmentation).Put<uint8_t>(0).Uleb(1).Put<uint8_t>(0x78).Put<uint8_t>(16);
    if (augmentation == "zPLR") {
      b.Uleb(7).Put<uint8_t>(0x9b).Put<uint32_t>(0x1234).Put<uint8_t>(0x1b).Put<uint8_t>(0x00);
    } else {
      b.Uleb(3).Put<uint8_t>(0x00).Put<uint16_t>(0xffff);
    }
    b.Put<uint8_t>(0x0c).Uleb(7).Uleb(8).Put<uint8_t>(0x80 | 16).Uleb(1);
    std::string bytes = Entry(0, b.text);
    bytes += Fde(static_cast<uint32_t>(bytes.size()) + 4, 0x1000, 32, "");
    EXPECT_EQ(ReadSection(bytes).rows.size(), 1u) << augmentation;
  }
}

TEST(Cfi, InstructionsThatMakeNoSense) {
  const std::string_view bad[] = {
      std::string_view("\x3f", 1),          // no such instruction
      std::string_view("\x0b", 1),          // nothing was remembered
      std::string_view("\x0f\x7f", 2),      // expression longer than the FDE
      std::string_view("\x0e", 1),          // operand missing
      std::string_view("\x04\x01\x00", 3),  // advance cut off
      std::string_view("\x0f\x00", 2),      // empty expression
  };
  for (const std::string_view instructions : bad) {
    std::string bytes = Entry(0, CieBody());
    bytes += Fde(static_cast<uint32_t>(bytes.size()) + 4, 0x1000, 32, instructions);
    const Read read = ReadSection(bytes);
    EXPECT_FALSE(read.all_good) << HexEncode(instructions);
    ASSERT_EQ(read.rows.size(), 1u);
    EXPECT_EQ(read.rows[0].rule.kind, PYRO_UNWIND_UNSUPPORTED);
  }
}

TEST(Cfi, RowsStayInsideTheirFunction) {
  std::string bytes = Entry(0, CieBody());
  bytes +=
      Fde(static_cast<uint32_t>(bytes.size()) + 4, 0x1000, 4, std::string_view("\x7f\x0e\x10\x04\xff\xff\xff\xff", 8));
  const Read read = ReadSection(bytes);
  EXPECT_TRUE(read.all_good);
  ASSERT_EQ(read.rows.size(), 1u);
}

TEST(Cfi, EveryTruncationAndEveryFlippedBit) {
  std::string bytes = Entry(0, CieBody());
  const auto id = static_cast<uint32_t>(bytes.size()) + 4;
  bytes += Fde(id, 0x1000, 64, "\x41\x0e\x10\x86\x02\x43\x0d\x06\x0a\x41\x0c\x07\x08\x0b");
  for (size_t n = 0; n < bytes.size(); ++n) (void)ReadSection(bytes.substr(0, n));
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    (void)ReadSection(flipped);
    (void)ReadSection(flipped, true);
  }
  std::mt19937 random(3);
  for (int round = 0; round < 20'000; ++round) {
    std::string mutated = bytes;
    for (int k = 0; k < 4; ++k) mutated[random() % mutated.size()] = static_cast<char>(random());
    const Read read = ReadSection(mutated);
    for (const CfiRow& row : read.rows) ASSERT_LE(row.rule.kind, PYRO_UNWIND_UNSUPPORTED);
  }
}

// ---- whole files
// -----------------------------------------------------------------------------------------------------

// An ELF file of one code segment at 0x1000 and one section of call frame information.
std::string MakeElf(const std::string& cfi, uint64_t code_bytes, const char* section_name = ".eh_frame") {
  const std::string names = std::string("\0.text\0.shstrtab\0", 17) + section_name + '\0';
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_ehsize = sizeof(Elf64_Ehdr);
  header.e_phoff = sizeof(Elf64_Ehdr);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 4;
  header.e_shstrndx = 2;
  Elf64_Phdr load{};
  load.p_type = PT_LOAD;
  load.p_flags = PF_R | PF_X;
  load.p_vaddr = 0x1000;
  load.p_filesz = load.p_memsz = code_bytes;
  const size_t names_at = sizeof(header) + sizeof(load);
  const size_t cfi_at = (names_at + names.size() + 15) / 16 * 16;
  header.e_shoff = (cfi_at + cfi.size() + 15) / 16 * 16;
  Elf64_Shdr sections[4] = {};
  sections[1].sh_name = 1;
  sections[1].sh_type = SHT_PROGBITS;
  sections[1].sh_flags = SHF_ALLOC | SHF_EXECINSTR;
  sections[1].sh_addr = 0x1000;
  sections[1].sh_size = code_bytes;
  sections[2].sh_name = 7;
  sections[2].sh_type = SHT_STRTAB;
  sections[2].sh_offset = names_at;
  sections[2].sh_size = names.size();
  sections[3].sh_name = 17;
  sections[3].sh_type = SHT_PROGBITS;
  sections[3].sh_flags = SHF_ALLOC;
  sections[3].sh_addr = 0x80000000;
  sections[3].sh_offset = cfi_at;
  sections[3].sh_size = cfi.size();
  std::string file(header.e_shoff + sizeof(sections), '\0');
  std::memcpy(file.data(), &header, sizeof(header));
  std::memcpy(file.data() + sizeof(header), &load, sizeof(load));
  std::memcpy(file.data() + names_at, names.data(), names.size());
  std::memcpy(file.data() + cfi_at, cfi.data(), cfi.size());
  std::memcpy(file.data() + header.e_shoff, sections, sizeof(sections));
  return file;
}

StatusOr<UnwindTable> BuildFrom(std::string elf) {
  auto file = elf::ElfFile::FromBytes(std::make_shared<const std::string>(std::move(elf)), "made here");
  if (!file.ok()) return file.status();
  return BuildUnwindTable(*file, {});
}

// What the walk relies on, whatever the file was.
void ExpectSound(const UnwindTable& table) {
  uint64_t covered = 0;
  for (const UnwindPart& part : table.parts) {
    ASSERT_GE(part.base.value, covered);
    covered = part.end().value;
    ASSERT_LE(part.words.size(), PYRO_SEGMENT_WORDS);
    ASSERT_EQ(part.words[0], part.pages + 2);
    ASSERT_EQ(part.words[part.pages], part.words.size());
    for (uint32_t page = 0; page < part.pages; ++page) ASSERT_LE(part.words[page], part.words[page + 1]);
    for (size_t row = part.pages + 1; row < part.words.size(); ++row) {
      ASSERT_LT(part.words[row] & 0xffff, table.rules.size());
      ASSERT_LT(part.words[row] >> 16, 512u);
    }
  }
}

TEST(Builder, FunctionsThatOverlap) {
  std::string cfi = Entry(0, CieBody());
  const auto add = [&](uint64_t start, uint64_t size, std::string_view instructions) {
    cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, start, size, instructions);
  };
  add(0x1000, 0x100, "\x0e\x10");  // the first one wins for its bytes
  add(0x1080, 0x100, "\x0e\x18");
  add(0x1000, 0x100, "\x0e\x20");  // wholly covered
  const auto table = BuildFrom(MakeElf(cfi, 0x1000));
  ASSERT_TRUE(table.ok()) << table.status();
  ExpectSound(*table);
  EXPECT_EQ(FindRule(*table, ElfAddress(0x10ff))->offset, 16);
  EXPECT_EQ(FindRule(*table, ElfAddress(0x1100))->offset, 24);
  EXPECT_EQ(FindRule(*table, ElfAddress(0x1180))->kind, PYRO_UNWIND_NONE);
  EXPECT_EQ(table->stats.overlapping, 1u);
}

TEST(Builder, AMillionOverlappingFunctionsOfOneExpensiveHeader) {
  // Each FDE makes its header's long instructions count again, unless somebody keeps what they make.
  std::string instructions;
  for (int i = 0; i < 10'000; ++i) instructions += std::string("\x0e", 1) + static_cast<char>(8 + i % 100);
  std::string cfi = Entry(0, CieBody() + instructions);
  constexpr int kFunctions = 1'000'000;
  for (int i = 0; i < kFunctions; ++i) {
    cfi +=
        Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000 + static_cast<uint64_t>(i % 1000), 0x100000, "\x41\x0e\x20");
  }
  const auto started = std::chrono::steady_clock::now();
  const auto table = BuildFrom(MakeElf(cfi, 0x200000));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  ASSERT_TRUE(table.ok()) << table.status();
  ExpectSound(*table);
  EXPECT_LT(table->stats.rows, 3000u);
  EXPECT_LT(took.count(), 20) << "bounded, on the slowest machine";
}

TEST(Builder, ManyDistinctRules) {
  std::string cfi = Entry(0, CieBody());
  for (uint32_t i = 0; i < 70'000; ++i) {
    Bytes instructions;
    instructions.Put<uint8_t>(0x0e).Uleb(8 * (i + 1));
    cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000 + 16 * i, 16, instructions.text);
  }
  const auto table = BuildFrom(MakeElf(cfi, 16 * 70'000));
  ASSERT_TRUE(table.ok()) << table.status();
  ExpectSound(*table);
  EXPECT_LE(table->rules.size(), static_cast<size_t>(PYRO_MAX_UNWIND_RULES));
  EXPECT_EQ(FindRule(*table, ElfAddress(0x1000 + 16 * 100))->offset, 8 * 101);
  EXPECT_EQ(FindRule(*table, ElfAddress(0x1000 + 16 * 69'999))->kind, PYRO_UNWIND_UNSUPPORTED);
}

TEST(Builder, MoreRowsThanASegmentHolds) {
  std::string cfi = Entry(0, CieBody());
  constexpr uint32_t kFunctions = 700'000;
  for (uint32_t i = 0; i < kFunctions; ++i) {
    // Two rows each, different from the neighbours'.
    std::string instructions = {0x0e, static_cast<char>(8 + 8 * (i % 3)), 0x41, 0x0e, static_cast<char>(64 + i % 16)};
    cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000 + 16ull * i, 16, instructions);
  }
  const auto table = BuildFrom(MakeElf(cfi, 16ull * kFunctions));
  ASSERT_TRUE(table.ok()) << table.status();
  ExpectSound(*table);
  EXPECT_GE(table->parts.size(), 2u);
  for (const uint32_t i : {0u, 1u, kFunctions / 2, kFunctions - 1}) {
    EXPECT_EQ(FindRule(*table, ElfAddress(0x1000 + 16ull * i))->offset, 8 + 8 * static_cast<int>(i % 3)) << i;
    EXPECT_EQ(FindRule(*table, ElfAddress(0x1000 + 16ull * i + 15))->offset, 64 + static_cast<int>(i % 16)) << i;
  }
  // Where parts meet, the first address of the later one finds its rule too.
  for (size_t p = 1; p < table->parts.size(); ++p) {
    const uint64_t edge = table->parts[p].base.value;
    ASSERT_EQ(table->parts[p - 1].end().value, edge);
    for (const uint64_t address : {edge - 1, edge}) {
      const auto i = static_cast<uint32_t>((address - 0x1000) / 16);
      const bool second_row = (address - 0x1000) % 16 != 0;
      EXPECT_EQ(FindRule(*table, ElfAddress(address))->offset,
                second_row ? 64 + static_cast<int>(i % 16) : 8 + 8 * static_cast<int>(i % 3));
    }
  }
}

TEST(Builder, FunctionsFarApart) {
  std::string cfi = Entry(0, CieBody());
  cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000, 16, "");
  cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x40000000, 16, "");
  const auto table = BuildFrom(MakeElf(cfi, 0x50000000));
  ASSERT_TRUE(table.ok()) << table.status();
  ExpectSound(*table);
  EXPECT_EQ(table->parts.size(), 2u);
  EXPECT_LT(table->word_count(), 1000u) << "nothing is paid for the nothing between";
}

// Linkers write entries in the order of their inputs. Both ways of sorting them: by radix within 4 GiB, else by
// comparison.
TEST(Builder, FunctionsInAnyOrder) {
  for (const uint64_t span : {uint64_t{0x50000000}, uint64_t{0x300000000}}) {
    constexpr uint64_t kFunctions = 5000;
    const uint64_t step = (span - 0x2000) / kFunctions & ~uint64_t{15};
    std::vector<uint64_t> order(kFunctions);
    for (uint64_t i = 0; i < kFunctions; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    std::string cfi = Entry(0, CieBody());
    for (const uint64_t i : order) {
      // DW_CFA_def_cfa_offset, different in neighbours.
      const std::string rule{'\x0e', static_cast<char>(16 + i % 100)};
      cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000 + i * step, 16, rule);
    }
    const auto table = BuildFrom(MakeElf(cfi, span));
    ASSERT_TRUE(table.ok()) << table.status();
    ExpectSound(*table);
    EXPECT_EQ(table->stats.functions, kFunctions);
    EXPECT_EQ(table->stats.overlapping, 0u);
    for (uint64_t i = 0; i < kFunctions; ++i) {
      const UnwindRule* rule = FindRule(*table, ElfAddress(0x1000 + i * step + 8));
      ASSERT_NE(rule, nullptr) << i;
      ASSERT_EQ(rule->offset, static_cast<int32_t>(16 + i % 100)) << i << " of " << span;
    }
  }
}

TEST(Builder, FunctionsOutsideOfTheCodeAreLeftOut) {
  std::string cfi = Entry(0, CieBody());
  cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000, 16, "");
  cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x7fffffff0000, 16, "");
  const auto table = BuildFrom(MakeElf(cfi, 0x1000));
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->stats.outside, 1u);
}

TEST(Builder, WithoutInformationThereAreNoRules) {
  const auto table = BuildFrom(MakeElf("", 0x1000, ".data"));
  ASSERT_TRUE(table.ok()) << table.status();
  for (const UnwindPart& part : table->parts) {
    for (uint64_t at = part.base.value; at < part.end().value; at += 16) {
      EXPECT_EQ(FindRule(*table, ElfAddress(at))->kind, PYRO_UNWIND_NONE);
      EXPECT_EQ(FindRule(*table, ElfAddress(at))->add, 1)
          << "frame pointers are this file's convention, if anything is";
    }
  }
}

TEST(Builder, OtherMachines) {
  std::string file = MakeElf(Entry(0, CieBody()), 0x1000);
  reinterpret_cast<Elf64_Ehdr*>(file.data())->e_machine = EM_AARCH64;
  const auto table = BuildFrom(file);
  EXPECT_EQ(table.status().code(), StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(table.status())), HasSubstr("x86-64"));
}

TEST(Builder, RandomBytesInARealFrame) {
  std::string cfi = Entry(0, CieBody());
  for (int i = 0; i < 50; ++i) {
    cfi += Fde(static_cast<uint32_t>(cfi.size()) + 4, 0x1000 + 64 * static_cast<uint64_t>(i), 64,
               "\x41\x0e\x10\x86\x02\x43\x0d\x06\x0a\x41\x0c\x07\x08\x0b");
  }
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    std::string mutated = cfi;
    for (int k = 0; k < 8; ++k) mutated[random() % mutated.size()] = static_cast<char>(random());
    const auto table = BuildFrom(MakeElf(mutated, 0x2000));
    if (table.ok()) ExpectSound(*table);
  }
}

}  // namespace
}  // namespace pyrometer::unwind

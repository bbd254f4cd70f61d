// Every rule of real files against elfutils' reading of the same call frame information.
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <libelf.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/owned.h"
#include "userspace/base/strings.h"
#include "userspace/unwind/table_builder.h"

namespace pyrometer::unwind {
namespace {

// What ships with every Debian 12, and this program (which the compiler here made).
const std::vector<std::string> kFiles = {"/proc/self/exe",
                                         "/lib/x86_64-linux-gnu/libc.so.6",
                                         "/lib/x86_64-linux-gnu/libm.so.6",
                                         "/lib64/ld-linux-x86-64.so.2",
                                         "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
                                         "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
                                         "/usr/bin/perl",
                                         "/bin/bash"};

struct Dwfl {
  UniqueFd fd;
  Elf* elf = nullptr;
  Dwarf_CFI* cfi = nullptr;
  ~Dwfl() { elf_end(elf); }
};

// elfutils' answer in our words; UNSUPPORTED for what has no form there.
UnwindRule Theirs(Dwarf_CFI* cfi, uint64_t address, bool* known) {
  UnwindRule rule{.kind = PYRO_UNWIND_UNSUPPORTED};
  Dwarf_Frame* frame = nullptr;
  *known = dwarf_cfi_addrframe(cfi, address, &frame) == 0;
  if (!*known) return {.kind = PYRO_UNWIND_NONE};
  Dwarf_Op* ops = nullptr;
  size_t count = 0;
  bool signal = false;
  dwarf_frame_info(frame, nullptr, nullptr, &signal);
  Dwarf_Op storage[3];
  Dwarf_Op* ra_ops = nullptr;
  size_t ra_count = 0;
  const auto finish = [&](UnwindRule r) {
    free(frame);
    return r;
  };
  if (dwarf_frame_register(frame, 16, storage, &ra_ops, &ra_count) != 0) return finish(rule);
  if (ra_count == 0 && ra_ops == storage) return finish({.kind = PYRO_UNWIND_END});  // undefined
  if (dwarf_frame_cfa(frame, &ops, &count) != 0) return finish(rule);
  if (signal) return finish({.kind = PYRO_UNWIND_SIGNAL});
  const auto is_breg = [](const Dwarf_Op& op) { return op.atom >= DW_OP_breg0 && op.atom <= DW_OP_breg15; };
  if (count == 1 && ops[0].atom == DW_OP_bregx && ops[0].number < 16) {
    rule.kind = PYRO_UNWIND_REGISTER;
    rule.reg = static_cast<uint8_t>(ops[0].number);
    rule.offset = static_cast<int32_t>(ops[0].number2);
  } else if (count == 1 && is_breg(ops[0])) {
    rule.kind = PYRO_UNWIND_REGISTER;
    rule.reg = static_cast<uint8_t>(ops[0].atom - DW_OP_breg0);
    rule.offset = static_cast<int32_t>(ops[0].number);
  } else if (count >= 2 && is_breg(ops[0]) && ops[1].atom == DW_OP_deref && count <= 3) {
    rule.kind = PYRO_UNWIND_DEREFERENCE;
    rule.reg = static_cast<uint8_t>(ops[0].atom - DW_OP_breg0);
    rule.offset = static_cast<int32_t>(ops[0].number);
    if (count == 3) rule.add = static_cast<int16_t>(ops[2].number);
  } else if (count == 9 && ops[1].atom == DW_OP_breg16) {
    rule.kind = PYRO_UNWIND_PLT;
    rule.reg = PYRO_REG_RSP;
    rule.offset = static_cast<int32_t>(ops[0].number);
    rule.add = static_cast<int16_t>(ops[4].atom - DW_OP_lit0);
  } else {
    return finish(rule);
  }
  // A register's place: {call_frame_cfa, plus_uconst n} or similar; empty with NULL: same value.
  const auto place = [&](int reg, uint8_t* how, int16_t* at) {
    Dwarf_Op room[3];
    Dwarf_Op* where = nullptr;
    size_t n = 0;
    if (dwarf_frame_register(frame, reg, room, &where, &n) != 0) return;
    *how = PYRO_SAVED_LOST;
    if (n == 0) {
      if (where == nullptr) *how = PYRO_SAVED_SAME;
      return;
    }
    if (where[0].atom == DW_OP_call_frame_cfa && n == 1) {
      *how = PYRO_SAVED_CFA;
      *at = 0;
    } else if (where[0].atom == DW_OP_call_frame_cfa && n == 2 && where[1].atom == DW_OP_plus_uconst) {
      *how = PYRO_SAVED_CFA;
      *at = static_cast<int16_t>(where[1].number);
    } else if (where[n - 1].atom == DW_OP_breg6 && (n == 1 || (n == 2 && where[0].atom == DW_OP_call_frame_cfa))) {
      // An expression finds the CFA on its stack and leaves it there.
      *how = PYRO_SAVED_FP;
      *at = static_cast<int16_t>(where[n - 1].number);
    }
  };
  if (ra_count == 1 && ra_ops[0].atom == DW_OP_regx) {
    rule.kind = PYRO_UNWIND_RETURN_REG;
    rule.reg = static_cast<uint8_t>(ra_ops[0].number);
  } else if (ra_count == 1 && ra_ops[0].atom >= DW_OP_reg0 && ra_ops[0].atom <= DW_OP_reg15) {
    rule.kind = PYRO_UNWIND_RETURN_REG;
    rule.reg = static_cast<uint8_t>(ra_ops[0].atom - DW_OP_reg0);
  } else {
    uint8_t how = PYRO_SAVED_LOST;
    place(16, &how, &rule.ra_at);
    if (how != PYRO_SAVED_CFA) return finish({.kind = PYRO_UNWIND_UNSUPPORTED});
  }
  place(PYRO_REG_RBP, &rule.fp_saved, &rule.fp_at);
  return finish(rule);
}

std::string Text(const UnwindRule& r) {
  return StrFormat("kind %d reg %d offset %d add %d ra %d fp %d@%d", r.kind, r.reg, r.offset, r.add, r.ra_at,
                   r.fp_saved, r.fp_at);
}

class Oracle : public ::testing::TestWithParam<std::string> {};

TEST_P(Oracle, SameRulesAsElfutils) {
  const std::string path = GetParam();
  if (access(path.c_str(), R_OK) != 0) GTEST_SKIP() << path << " is not installed";
  const auto file = elf::ElfFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto table = BuildUnwindTable(*file, {});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->stats.malformed, 0u);

  elf_version(EV_CURRENT);
  Dwfl theirs;
  theirs.fd = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  theirs.elf = elf_begin(theirs.fd.get(), ELF_C_READ_MMAP, nullptr);
  theirs.cfi = dwarf_getcfi_elf(theirs.elf);
  ASSERT_NE(theirs.cfi, nullptr);

  // Each row's first and last byte, or a sample of them in large files.
  std::vector<uint64_t> addresses;
  for (const UnwindPart& part : table->parts) {
    uint64_t before = 0;
    for (uint32_t page = 0; page < part.pages; ++page) {
      for (uint32_t row = part.words[page]; row < part.words[page + 1]; ++row) {
        const uint64_t address = part.base.value + uint64_t{page} * 512 + (part.words[row] >> 16);
        if (before != 0) addresses.push_back(address - 1);
        addresses.push_back(address);
        before = address;
      }
    }
  }
  std::mt19937_64 random(7);
  std::shuffle(addresses.begin(), addresses.end(), random);
  constexpr size_t kMost = 30'000;
  if (addresses.size() > kMost) addresses.resize(kMost);

  size_t compared = 0, unsupported = 0, differing = 0, corrected = 0;
  for (const uint64_t address : addresses) {
    bool known;
    UnwindRule expected = Theirs(theirs.cfi, address, &known);
    const UnwindRule* ours = FindRule(*table, ElfAddress(address));
    ASSERT_NE(ours, nullptr);
    UnwindRule got = *ours;
    // Padding between functions is merged into the rule before it; elfutils knows nothing there.
    if (!known) continue;
    ++compared;
    if (got.kind == PYRO_UNWIND_UNSUPPORTED) {
      ++unsupported;
      continue;
    }
    // Where we correct the file: makecontext's __start_context (table_builder.h).
    if (got.kind == PYRO_UNWIND_END && expected.kind == PYRO_UNWIND_REGISTER && corrected++ < 4) continue;
    if (got.kind == PYRO_UNWIND_NONE) got.add = 0;
    got.bx_saved = expected.bx_saved;
    got.bx_at = expected.bx_at;
    if (got.kind == PYRO_UNWIND_RETURN_REG) got.ra_at = expected.ra_at;
    if (std::memcmp(&got, &expected, sizeof(got)) != 0) {
      if (++differing < 10)
        ADD_FAILURE() << std::hex << address << ": " << Text(got) << "; elfutils: " << Text(expected);
    }
  }
  EXPECT_EQ(differing, 0u);
  EXPECT_GT(compared, addresses.size() / 2);
  // Hand-written assembly that computes its CFA from other registers: a handful.
  EXPECT_LE(unsupported * 500, compared) << unsupported;
  RecordProperty("compared", static_cast<int>(compared));
  RecordProperty("unsupported", static_cast<int>(unsupported));
}

INSTANTIATE_TEST_SUITE_P(Files, Oracle, ::testing::ValuesIn(kFiles), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) {
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
});

}  // namespace
}  // namespace pyrometer::unwind

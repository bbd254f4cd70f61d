// How to unwind one binary, in the form that the walk in the kernel reads (bpf/abi/unwind.h).
//
//   ASSIGN_OR_RETURN(UnwindTable table, BuildUnwindTable(elf_file, {}));
//   for (const UnwindPart& part : table.parts) load(part.words, table.rules);
//
// A part is a run of code pages with its index and its rows, never larger than a segment. Its words are
// position-independent: whoever places them adds the position to the index and replaces rule numbers:
//
//   words:  [ index: pages + 1 ][ guard row ][ row … ]
//   index:  word number, within `words`, of the page's first row; the last one is words.size()
//   row:    offset of its address in its page << 16 | number in UnwindTable::rules
//
// Threads: plain values. Memory: 4 bytes a row and 4 bytes per 512 bytes of code; libLLVM-14: 41 KiB per MiB of text.
#pragma once

#include <cstdint>
#include <vector>

#include "bpf/abi/unwind.h"
#include "userspace/base/types.h"

namespace pyrometer::unwind {

using UnwindRule = ::pyro_unwind_rule;

struct UnwindPart {
  ElfAddress base;     // of the first page; a multiple of the page size
  uint32_t pages = 0;  // of 512 bytes
  std::vector<uint32_t> words;

  ElfAddress end() const { return ElfAddress(base.value + (uint64_t{pages} << PYRO_UNWIND_PAGE_SHIFT)); }
  uint32_t row_count() const { return static_cast<uint32_t>(words.size()) - pages - 2; }
};

struct UnwindTable {
  // What was met while building; only for people and tests.
  struct Stats {
    uint64_t functions = 0;      // FDEs taken
    uint64_t rows = 0;           // after merging equal neighbours
    uint64_t unsupported = 0;    // rows whose rule the walk cannot follow
    uint64_t malformed = 0;      // FDEs or CIEs left out because they do not hold together
    uint64_t outside = 0;        // FDEs left out: of addresses that are no code of this file
    uint64_t overlapping = 0;    // FDEs cut because another one, which began earlier, covers their start
    uint64_t synthesized = 0;    // rows for PLT stubs and signal trampolines that came without
    uint64_t code_bytes = 0;     // of executable segments
    uint64_t covered_bytes = 0;  // of it, with a rule other than "none"
  };

  std::vector<UnwindRule> rules;  // distinct; a row's number is an index; number 0 is "none"
  std::vector<UnwindPart> parts;  // ascending, disjoint; empty: no unwind information
  Stats stats;

  // The file says so little that frame pointers are taken for its convention.
  bool trusts_frame_pointers() const { return rules.empty() || rules[0].add != 0; }
  size_t word_count() const {
    size_t words = 0;
    for (const UnwindPart& part : parts) words += part.words.size();
    return words;
  }
};

// The rule in force at an address; nullptr outside of all parts. For tests and doctor; cost: two binary searches.
const UnwindRule* FindRule(const UnwindTable& table, ElfAddress address);

}  // namespace pyrometer::unwind

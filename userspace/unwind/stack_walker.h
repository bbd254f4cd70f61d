// The kernel's stack walk (bpf/lib/stack_walk.h), run here on a copy of a stack: the same code, the same tables, hence
// the same frames.
//
//   StackWalker walker;
//   walker.Map({.start = …, .end = …, .table = &table, .kind = PYRO_MAPPING_TABLE, …});   // ascending
//   StackWalker::Result r = walker.Walk(registers, memory, PYRO_MAX_USER_FRAMES);
//   use(r.frames, r.stop, r.means);
//
// For samples that arrived before a table was ready, samples taken without privileges, and tests.
//
// Threads: none shared, but any number of walkers on any threads. Cost: ~60 ns a frame; 14 KiB per walker.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "bpf/abi/stack.h"
#include "bpf/abi/unwind.h"
#include "userspace/base/types.h"
#include "userspace/unwind/unwind_table.h"

struct pyro_walk;

namespace pyrometer::unwind {

// Registers as the thread left user mode.
using Registers = ::pyro_raw_registers;

// Memory of the process: true and the bytes, or false.
class UserMemory {
 public:
  virtual ~UserMemory() = default;
  virtual bool Read(uint64_t address, std::span<char> out) const = 0;
};

// A copy of [start, start + bytes.size()).
class StackCopy final : public UserMemory {
 public:
  StackCopy(uint64_t start, std::string_view bytes) : start_(start), bytes_(bytes) {}
  bool Read(uint64_t address, std::span<char> out) const override;

 private:
  uint64_t start_;
  std::string_view bytes_;
};

// Tables as the kernel's walk has them: segments and numbered rules.
class TableMemory {
 public:
  virtual ~TableMemory() = default;
  // The words of a segment, or nullptr.
  virtual const uint32_t* Segment(uint32_t segment) const = 0;
  virtual const UnwindRule* Rule(uint32_t id) const = 0;
};

// A piece of executable memory.
struct WalkMapping {
  VirtualAddress start;  // end is exclusive
  VirtualAddress end;
  pyro_mapping_kind kind = PYRO_MAPPING_UNREADABLE;
  const UnwindTable* table = nullptr;  // for PYRO_MAPPING_TABLE; must outlive the walks
  uint64_t bias = 0;                   // virtual address - ELF address
};

// Cuts a mapping into the pieces that the walk knows: one per part of its table, and what lies between them, of which
// the table says nothing. `visit(piece, part)`: piece.table is left to the caller.
template <typename Visit>
void ForEachPiece(const WalkMapping& mapping, Visit&& visit) {
  uint64_t at = mapping.start.value;
  const auto put = [&](uint64_t end, pyro_mapping_kind kind, uint64_t delta, size_t part) {
    if (end <= at) return;
    visit(
        pyro_unwind_mapping{
            .start = at, .end = end, .table = 0, .delta = static_cast<uint32_t>(delta), .kind = kind, .pad = 0},
        part);
    at = end;
  };
  if (mapping.kind != PYRO_MAPPING_TABLE) {
    put(mapping.end.value, mapping.kind, 0, 0);
    return;
  }
  const pyro_mapping_kind between = mapping.table->trusts_frame_pointers() ? PYRO_MAPPING_NO_INFO : PYRO_MAPPING_GAP;
  for (size_t i = 0; i < mapping.table->parts.size() && at < mapping.end.value; ++i) {
    const uint64_t start = mapping.table->parts[i].base.value + mapping.bias;
    const uint64_t end = mapping.table->parts[i].end().value + mapping.bias;
    if (end <= at) continue;
    if (start > at) put(start < mapping.end.value ? start : mapping.end.value, between, 0, 0);
    if (start < mapping.end.value)
      put(end < mapping.end.value ? end : mapping.end.value, PYRO_MAPPING_TABLE, at - start, i);
  }
  put(mapping.end.value, between, 0, 0);
}

class StackWalker {
 public:
  struct Result {
    std::span<const uint64_t> frames;  // leaf first; valid until the next walk
    pyro_stop_reason stop = PYRO_STOP_NOT_TAKEN;
    uint8_t means = 0;          // bits of pyro_walk_means
    VirtualAddress stopped_at;  // the address that was to be unwound next
  };

  StackWalker();
  ~StackWalker();
  StackWalker(const StackWalker&) = delete;
  StackWalker& operator=(const StackWalker&) = delete;

  // Forgets all mappings.
  void Clear();
  // Ascending and disjoint.
  void Map(const WalkMapping& mapping);
  // Without any mapping the walk goes by frame pointers alone.
  Result Walk(const Registers& registers, const UserMemory& memory, uint32_t max_frames);
  // The same with mappings and tables as the kernel has them; those of Map() are not used.
  Result Walk(const Registers& registers, const UserMemory& memory, uint32_t max_frames,
              std::span<const pyro_unwind_mapping> mappings, const TableMemory& tables);

 private:
  std::unique_ptr<pyro_walk> walk_;
  std::vector<uint32_t> mapping_words_, shared_words_;
  Result Run(const Registers& registers, uint32_t max_frames, uint32_t mapping_count);

  // Segment n is the words of part segments_[n - 1], in place.
  std::vector<std::pair<const UnwindTable*, size_t>> segments_;
};

}  // namespace pyrometer::unwind

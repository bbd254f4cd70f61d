// Call frame information: `.eh_frame` and `.debug_frame` to rows (address, how to unwind from there).
//
//   CfiReader reader(section);
//   RETURN_IF_ERROR(reader.Scan());                        // finds all FDEs
//   for (const Fde& fde : reader.fdes()) reader.Run(fde, &rows);
//
// Sources: DWARF 5 §6.4 and the LSB's ".eh_frame" (augmentations, pointer encodings, personality). An entry
// that does not hold together is skipped and counted; the others are read. Rules that the walk cannot
// follow become PYRO_UNWIND_UNSUPPORTED, with rows of their own, so that a walk stops there and says so.
//
// Of expressions those are understood that compilers, linkers and libraries of Linux are known to emit:
//   reg + n                       *(reg + n)          *(reg + n) + m
//   rsp + 8 + ((rip & 15) >= t) << 3                  (stubs of a PLT)
// and, in frames marked as signal frames ("S"), *(rsp + 160): the ucontext of a signal trampoline.
//
// Threads: none shared. Cost: ~40 ns a row (tests/bench/unwind_bench.cc); memory 40 bytes per FDE, 200 per CIE.
// Limits: expressions of 64 bytes, 64 remembered states, kMaxFunctionBytes of code per FDE.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/unwind/unwind_table.h"

namespace pyrometer::unwind {

inline constexpr uint64_t kMaxFunctionBytes = 64u << 20;  // [largest seen: 3 MiB, generated tables of a compiler]

// One section as it lies in memory (eh_frame) or in the file (debug_frame).
struct CfiSection {
  std::string_view bytes;
  uint64_t address = 0;    // of bytes[0]; pc-relative pointers count from it
  uint64_t text_base = 0;  // for DW_EH_PE_textrel
  uint64_t data_base = 0;  // for DW_EH_PE_datarel: .got, or .eh_frame_hdr
  bool debug_frame = false;
  bool is_64bit = true;
};

// From `address` on, until the next row.
struct CfiRow {
  uint64_t address = 0;
  UnwindRule rule{};
};

// A function's worth of call frame information.
struct Fde {
  uint64_t start = 0;  // ELF addresses; end is exclusive
  uint64_t end = 0;
  uint32_t cie = 0;  // number in the reader
  uint32_t instructions = 0;
  uint32_t instruction_bytes = 0;
};

class CfiReader {
 public:
  // The bytes must outlive the reader.
  explicit CfiReader(const CfiSection& section) : section_(section) {}

  // Finds the FDEs, in the order of the section. DATA_LOSS when lengths stop making sense; what came before is kept.
  Status Scan();
  const std::vector<Fde>& fdes() const { return fdes_; }
  uint64_t malformed() const { return malformed_; }

  // Appends the rows of one FDE: ascending, the first at its start, all below its end, equal neighbours not merged.
  // False when its instructions are malformed; the rows before that place are there, and one that says
  // "unsupported" for the rest.
  bool Run(const Fde& fde, std::vector<CfiRow>* rows);

  // Also record where rbx is saved. Needed by binaries that compute a CFA from it, which Run notices:
  void set_track_rbx(bool track) { track_rbx_ = track; }
  bool saw_cfa_from_rbx() const { return saw_cfa_from_rbx_; }

 private:
  enum class Saved : uint8_t { kSame, kUndefined, kCfaOffset, kRegister, kAtExpression, kOther };
  struct SavedRegister {
    Saved how = Saved::kSame;
    uint8_t reg = 0;              // kRegister
    int64_t offset = 0;           // kCfaOffset
    std::string_view expression;  // kAtExpression: the address where it is saved
  };
  // Registers whose place is of interest.
  enum Column : uint8_t { kReturn, kFramePointer, kBase, kStackPointer, kColumns };
  struct State {
    uint64_t cfa_register = PYRO_REGISTERS;
    int64_t cfa_offset = 0;
    std::string_view cfa_expression;  // instead of the two, unless empty
    SavedRegister columns[kColumns];
  };
  struct Cie {
    uint64_t offset = 0;
    uint64_t code_align = 1;
    int64_t data_align = 1;
    uint64_t return_column = 16;
    uint8_t pointer_encoding = 0;
    uint8_t address_size = 8;
    bool has_augmentation_data = false;
    bool signal_frame = false;
    bool usable = false;
    State initial;
  };
  class Cursor;

  bool ParseCie(uint64_t offset, uint64_t body, uint64_t end, uint64_t* number);
  bool ParseFde(uint64_t body, uint64_t end, uint64_t cie_offset);
  // Executes instructions; calls `advance(delta)` before the address moves.
  // Executes instructions on `state`; with `fde`, appends a row before each advance.
  bool Execute(uint32_t offset, uint32_t bytes, const Cie& cie, State* state, const Fde* fde,
               std::vector<CfiRow>* rows);
  int ColumnOf(const Cie& cie, uint64_t reg) const;
  UnwindRule ToRule(const Cie& cie, const State& state);

  const CfiSection section_;
  std::vector<Cie> cies_;
  std::unordered_map<uint64_t, uint32_t> cie_by_offset_;
  std::vector<Fde> fdes_;
  std::vector<State> remembered_;
  uint64_t malformed_ = 0;
  bool track_rbx_ = false;
  bool saw_cfa_from_rbx_ = false;
};

}  // namespace pyrometer::unwind

#include "userspace/unwind/cfi.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::unwind {
namespace {

constexpr size_t kMaxRemembered = 64;       // [largest seen: 2]
constexpr size_t kMaxExpressionBytes = 64;  // [PLT: 11]
constexpr uint64_t kLeastFdeBytes = 24;     // [libLLVM: 53 on average]
constexpr uint64_t kMaxReservedFdes = 1u << 20;

// DW_CFA_*: DWARF 5 §7.24 and the LSB.
enum : uint8_t {
  kNop = 0x00,
  kSetLoc = 0x01,
  kAdvanceLoc1 = 0x02,
  kAdvanceLoc2 = 0x03,
  kAdvanceLoc4 = 0x04,
  kOffsetExtended = 0x05,
  kRestoreExtended = 0x06,
  kUndefined = 0x07,
  kSameValue = 0x08,
  kRegister = 0x09,
  kRememberState = 0x0a,
  kRestoreState = 0x0b,
  kDefCfa = 0x0c,
  kDefCfaRegister = 0x0d,
  kDefCfaOffset = 0x0e,
  kDefCfaExpression = 0x0f,
  kExpression = 0x10,
  kOffsetExtendedSf = 0x11,
  kDefCfaSf = 0x12,
  kDefCfaOffsetSf = 0x13,
  kValOffset = 0x14,
  kValOffsetSf = 0x15,
  kValExpression = 0x16,
  kGnuArgsSize = 0x2e,
  kGnuNegativeOffsetExtended = 0x2f,
};

// DW_OP_*: DWARF 5 §7.7.1.
enum : uint8_t {
  kOpDeref = 0x06,
  kOpConst1u = 0x08,
  kOpConst1s = 0x09,
  kOpAnd = 0x1a,
  kOpPlus = 0x22,
  kOpPlusUconst = 0x23,
  kOpShl = 0x24,
  kOpGe = 0x2a,
  kOpLit0 = 0x30,
  kOpLit31 = 0x4f,
  kOpBreg0 = 0x70,
  kOpBreg31 = 0x8f,
};

constexpr uint64_t kRipColumn = 16;
// Where a signal trampoline finds rsp in the ucontext above it: uc_mcontext.gregs[REG_RSP].
constexpr int64_t kUcontextRsp = 160;

template <typename To>
bool Fits(int64_t value) {
  return value >= std::numeric_limits<To>::min() && value <= std::numeric_limits<To>::max();
}

}  // namespace

// Reads forward, never past the end: a failed read sets !ok() and gives zeros.
class CfiReader::Cursor {
 public:
  Cursor(std::string_view bytes, uint64_t offset, uint64_t end) : bytes_(bytes), at_(offset), end_(end) {
    if (end_ > bytes_.size() || at_ > end_) Fail();
  }

  bool ok() const { return ok_; }
  bool done() const { return at_ >= end_; }
  uint64_t offset() const { return at_; }
  void Fail() {
    ok_ = false;
    at_ = end_ = 0;
  }

  template <typename T>
  T Read() {
    T value{};
    if (end_ - at_ < sizeof(T)) {
      Fail();
      return value;
    }
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  uint64_t Uleb() {
    // One byte nearly always.
    if (at_ < end_ && (bytes_[at_] & 0x80) == 0) return static_cast<uint8_t>(bytes_[at_++]);
    uint64_t value = 0;
    for (unsigned shift = 0; at_ < end_; shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    Fail();
    return 0;
  }

  int64_t Sleb() {
    uint64_t value = 0;
    unsigned shift = 0;
    while (at_ < end_) {
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) == 0) {
        if ((byte & 0x40) != 0 && shift < 64) value |= ~uint64_t{0} << shift;
        return static_cast<int64_t>(value);
      }
    }
    Fail();
    return 0;
  }

  std::string_view Block(uint64_t size) {
    if (end_ - at_ < size) {
      Fail();
      return {};
    }
    const std::string_view block = bytes_.substr(at_, size);
    at_ += size;
    return block;
  }

  std::string_view CString() {
    const size_t nul = bytes_.substr(0, end_).find('\0', at_);
    if (nul == std::string_view::npos) {
      Fail();
      return {};
    }
    const std::string_view text = bytes_.substr(at_, nul - at_);
    at_ = nul + 1;
    return text;
  }

  // DW_EH_PE_*. nullopt: omitted or indirect.
  std::optional<uint64_t> Pointer(uint8_t encoding, const CfiSection& section, uint64_t function_start,
                                  uint8_t address_size) {
    if (encoding == 0xff) return std::nullopt;
    const uint64_t place = section.address + at_;
    uint64_t value = 0;
    switch (encoding & 0x0f) {
      case 0x00:
        value = address_size == 4 ? Read<uint32_t>() : Read<uint64_t>();
        break;
      case 0x01:
        value = Uleb();
        break;
      case 0x02:
        value = Read<uint16_t>();
        break;
      case 0x03:
        value = Read<uint32_t>();
        break;
      case 0x04:
      case 0x0c:
        value = Read<uint64_t>();
        break;
      case 0x09:
        value = static_cast<uint64_t>(Sleb());
        break;
      case 0x0a:
        value = static_cast<uint64_t>(int64_t{Read<int16_t>()});
        break;
      case 0x0b:
        value = static_cast<uint64_t>(int64_t{Read<int32_t>()});
        break;
      default:
        Fail();
        return std::nullopt;
    }
    switch (encoding & 0x70) {
      case 0x00:
        break;
      case 0x10:
        value += place;
        break;
      case 0x20:
        value += section.text_base;
        break;
      case 0x30:
        value += section.data_base;
        break;
      case 0x40:
        value += function_start;
        break;
      default:
        Fail();
        return std::nullopt;
    }
    if (address_size == 4) value &= 0xffffffffu;
    if ((encoding & 0x80) != 0) return std::nullopt;
    return value;
  }

 private:
  std::string_view bytes_;
  uint64_t at_;
  uint64_t end_;
  bool ok_ = true;
};

// ---- entries --------------------------------------------------------------------------------------------------

Status CfiReader::Scan() {
  const std::string_view bytes = section_.bytes;
  // An offset in 32 bits is enough: sections are read whole and limited (elf::kMaxSectionBytes).
  if (bytes.size() > std::numeric_limits<uint32_t>::max()) {
    return ResourceExhaustedError("call frame information of more than 4 GiB is not read");
  }
  // A vector that doubles would touch twice the memory; what is reserved and not needed is not touched at all.
  fdes_.reserve(std::min<uint64_t>(bytes.size() / kLeastFdeBytes, kMaxReservedFdes));
  uint64_t at = 0;
  while (at < bytes.size()) {
    const uint64_t entry = at;
    Cursor head(bytes, at, bytes.size());
    uint64_t length = head.Read<uint32_t>();
    bool dwarf64 = false;
    if (head.ok() && length == 0xffffffffu) {
      dwarf64 = true;
      length = head.Read<uint64_t>();
    }
    if (!head.ok()) return DataLossError(StrFormat("call frame information is cut off at byte %d", entry));
    // A terminator; linkers that merge sections leave some in the middle.
    if (length == 0) {
      at = head.offset();
      continue;
    }
    const uint64_t id_at = head.offset();
    if (length > bytes.size() - id_at) {
      return DataLossError(StrFormat("the entry at byte %d of the call frame information is longer than it", entry));
    }
    const uint64_t end = id_at + length;
    // `.eh_frame` keeps 32-bit ids in 64-bit entries too.
    const uint64_t id = dwarf64 && section_.debug_frame ? head.Read<uint64_t>() : head.Read<uint32_t>();
    bool is_cie = id == 0;
    if (section_.debug_frame) is_cie = id == (dwarf64 ? ~uint64_t{0} : 0xffffffffu);
    bool good = head.ok();
    if (good && is_cie) {
      uint64_t unused;
      if (!cie_by_offset_.contains(entry)) good = ParseCie(entry, head.offset(), end, &unused);
    } else if (good) {
      const uint64_t cie_offset = section_.debug_frame ? id : id_at - id;
      good = ParseFde(head.offset(), end, cie_offset);
    }
    if (!good) ++malformed_;
    at = end;
  }
  return OkStatus();
}

bool CfiReader::ParseCie(uint64_t offset, uint64_t body, uint64_t end, uint64_t* number) {
  *number = cies_.size();
  cie_by_offset_.emplace(offset, static_cast<uint32_t>(cies_.size()));
  Cie& cie = cies_.emplace_back();
  cie.offset = offset;
  cie.address_size = section_.is_64bit ? 8 : 4;

  Cursor in(section_.bytes, body, end);
  const auto version = in.Read<uint8_t>();
  if (version != 1 && version != 3 && version != 4) return false;
  const std::string_view augmentation = in.CString();
  if (augmentation == "eh") in.Read<uint64_t>();
  if (version == 4) {
    cie.address_size = in.Read<uint8_t>();
    if (in.Read<uint8_t>() != 0) return false;  // segment selectors
    if (cie.address_size != 4 && cie.address_size != 8) return false;
  }
  cie.code_align = in.Uleb();
  cie.data_align = in.Sleb();
  cie.return_column = version == 1 ? in.Read<uint8_t>() : in.Uleb();
  if (augmentation.starts_with('z')) {
    cie.has_augmentation_data = true;
    const uint64_t size = in.Uleb();
    if (!in.ok() || size > end - in.offset()) return false;
    Cursor data(section_.bytes, in.offset(), in.offset() + size);
    for (const char c : augmentation.substr(1)) {
      if (c == 'R') {
        cie.pointer_encoding = data.Read<uint8_t>();
      } else if (c == 'P') {
        const auto encoding = data.Read<uint8_t>();
        data.Pointer(encoding, section_, 0, cie.address_size);
      } else if (c == 'L') {
        data.Read<uint8_t>();
      } else if (c == 'S') {
        cie.signal_frame = true;
      } else {
        break;  // unknown letters: their data is skipped with the rest
      }
    }
    if (!data.ok()) return false;
    in.Block(size);
  } else if (!augmentation.empty() && augmentation != "eh") {
    return false;
  }
  if (!in.ok() || cie.code_align == 0 || cie.code_align > 64) return false;
  State state;
  remembered_.clear();
  if (!Execute(static_cast<uint32_t>(in.offset()), static_cast<uint32_t>(end - in.offset()), cie, &state, nullptr,
               nullptr)) {
    return false;
  }
  cie.initial = state;
  cie.usable = true;
  return true;
}

bool CfiReader::ParseFde(uint64_t body, uint64_t end, uint64_t cie_offset) {
  auto found = cie_by_offset_.find(cie_offset);
  if (found == cie_by_offset_.end()) {
    // A CIE behind its FDE: legal, never seen. Its head is read here.
    if (cie_offset >= section_.bytes.size()) return false;
    Cursor head(section_.bytes, cie_offset, section_.bytes.size());
    uint64_t length = head.Read<uint32_t>();
    const bool dwarf64 = length == 0xffffffffu;
    if (dwarf64) length = head.Read<uint64_t>();
    if (!head.ok() || length > section_.bytes.size() - head.offset()) return false;
    const uint64_t cie_end = head.offset() + length;
    const uint64_t id = dwarf64 && section_.debug_frame ? head.Read<uint64_t>() : head.Read<uint32_t>();
    const uint64_t cie_id = !section_.debug_frame ? 0 : dwarf64 ? ~uint64_t{0} : 0xffffffffu;
    if (!head.ok() || id != cie_id) return false;
    uint64_t number;
    if (!ParseCie(cie_offset, head.offset(), cie_end, &number)) ++malformed_;
    found = cie_by_offset_.find(cie_offset);
  }
  const Cie& cie = cies_[found->second];
  if (!cie.usable) return false;

  Cursor in(section_.bytes, body, end);
  const std::optional<uint64_t> start = in.Pointer(cie.pointer_encoding, section_, 0, cie.address_size);
  // The length has the start's format without its base.
  const std::optional<uint64_t> size = in.Pointer(cie.pointer_encoding & 0x0f, section_, 0, cie.address_size);
  if (cie.has_augmentation_data) in.Block(in.Uleb());
  if (!in.ok() || !start || !size) return false;
  if (*size == 0 || *start == 0) return true;  // of a function that the linker dropped
  if (*size > kMaxFunctionBytes || *start + *size < *start) return false;
  fdes_.push_back({.start = *start,
                   .end = *start + *size,
                   .cie = found->second,
                   .instructions = static_cast<uint32_t>(in.offset()),
                   .instruction_bytes = static_cast<uint32_t>(end - in.offset())});
  return true;
}

// ---- instructions ---------------------------------------------------------------------------------------------

int CfiReader::ColumnOf(const Cie& cie, uint64_t reg) const {
  if (reg == PYRO_REG_RBP) return kFramePointer;
  if (reg == cie.return_column) return kReturn;
  if (reg == PYRO_REG_RBX) return kBase;
  if (reg == PYRO_REG_RSP) return kStackPointer;
  return kColumns;  // nobody asks
}

bool CfiReader::Execute(uint32_t offset, uint32_t bytes, const Cie& cie, State* state, const Fde* fde,
                        std::vector<CfiRow>* rows) {
  Cursor in(section_.bytes, offset, uint64_t{offset} + bytes);
  uint64_t location = fde != nullptr ? fde->start : 0;
  // Since the last row. Most rows differ from the one before by the CFA's offset alone.
  enum { kNothing, kCfaOffset, kMore } changed = kNothing;
  const auto put_row = [&] {
    if (changed == kNothing || fde == nullptr) return;
    UnwindRule rule = rows->back().rule;
    if (changed == kCfaOffset && rule.kind == PYRO_UNWIND_REGISTER && Fits<int32_t>(state->cfa_offset)) {
      rule.offset = static_cast<int32_t>(state->cfa_offset);
    } else {
      rule = ToRule(cie, *state);
    }
    if (rows->back().address == location) {
      rows->back().rule = rule;
    } else {
      rows->push_back({location, rule});
    }
    changed = kNothing;
  };
  // False: behind the function's end, where nothing is of interest any more.
  const auto advance = [&](uint64_t delta) {
    if (fde == nullptr) {
      in.Fail();  // a CIE has no addresses
      return false;
    }
    put_row();
    if (delta >= fde->end - location) return false;
    location += delta;
    return true;
  };
  const auto save = [&](uint64_t reg, const SavedRegister& saved) {
    const int column = ColumnOf(cie, reg);
    if (column == kColumns) return;
    state->columns[column] = saved;
    if (column != kBase || track_rbx_) changed = kMore;
  };
  const auto restore = [&](uint64_t reg) {
    const int column = ColumnOf(cie, reg);
    if (column == kColumns) return;
    state->columns[column] = cie.initial.columns[column];
    if (column != kBase || track_rbx_) changed = kMore;
  };
  const auto scaled = [&](uint64_t value) {
    return static_cast<int64_t>(value * static_cast<uint64_t>(cie.data_align));
  };
  const auto define_cfa_offset = [&](int64_t value) {
    state->cfa_offset = value;
    if (changed == kNothing) changed = kCfaOffset;
  };
  const auto define_cfa = [&](uint64_t reg, int64_t value) {
    state->cfa_register = reg;
    state->cfa_offset = value;
    state->cfa_expression = {};
    changed = kMore;
    if (reg == PYRO_REG_RBX) saw_cfa_from_rbx_ = true;
  };

  while (in.ok() && !in.done()) {
    const auto code = in.Read<uint8_t>();
    const uint64_t low = code & 0x3f;
    switch (code >> 6) {
      case 1:  // DW_CFA_advance_loc
        if (!advance(low * cie.code_align)) return in.ok();
        continue;
      case 2:  // DW_CFA_offset
        save(low, {.how = Saved::kCfaOffset, .offset = scaled(in.Uleb())});
        continue;
      case 3:  // DW_CFA_restore
        restore(low);
        continue;
      default:
        break;
    }
    switch (code) {
      case kNop:
        break;
      case kSetLoc: {
        const auto target = in.Pointer(cie.pointer_encoding, section_, 0, cie.address_size);
        if (!target || *target < location) return false;
        if (!advance(*target - location)) return in.ok();
        break;
      }
      case kAdvanceLoc1:
        if (!advance(in.Read<uint8_t>() * cie.code_align)) return in.ok();
        break;
      case kAdvanceLoc2:
        if (!advance(in.Read<uint16_t>() * cie.code_align)) return in.ok();
        break;
      case kAdvanceLoc4:
        if (!advance(in.Read<uint32_t>() * cie.code_align)) return in.ok();
        break;
      case kOffsetExtended: {
        const uint64_t reg = in.Uleb();
        save(reg, {.how = Saved::kCfaOffset, .offset = scaled(in.Uleb())});
        break;
      }
      case kOffsetExtendedSf: {
        const uint64_t reg = in.Uleb();
        save(reg, {.how = Saved::kCfaOffset, .offset = scaled(static_cast<uint64_t>(in.Sleb()))});
        break;
      }
      case kGnuNegativeOffsetExtended: {
        const uint64_t reg = in.Uleb();
        save(reg, {.how = Saved::kCfaOffset, .offset = -scaled(in.Uleb())});
        break;
      }
      case kRestoreExtended:
        restore(in.Uleb());
        break;
      case kUndefined:
        save(in.Uleb(), {.how = Saved::kUndefined});
        break;
      case kSameValue:
        save(in.Uleb(), {.how = Saved::kSame});
        break;
      case kRegister: {
        const uint64_t reg = in.Uleb();
        const uint64_t where = in.Uleb();
        save(reg, where < PYRO_REGISTERS ? SavedRegister{.how = Saved::kRegister, .reg = static_cast<uint8_t>(where)}
                                         : SavedRegister{.how = Saved::kOther});
        break;
      }
      case kRememberState:
        if (remembered_.size() >= kMaxRemembered) return false;
        remembered_.push_back(*state);
        break;
      case kRestoreState:
        if (remembered_.empty()) return false;
        *state = remembered_.back();
        remembered_.pop_back();
        changed = kMore;
        break;
      case kDefCfa: {
        const uint64_t reg = in.Uleb();
        define_cfa(reg, static_cast<int64_t>(in.Uleb()));
        break;
      }
      case kDefCfaSf: {
        const uint64_t reg = in.Uleb();
        define_cfa(reg, scaled(static_cast<uint64_t>(in.Sleb())));
        break;
      }
      case kDefCfaRegister:
        if (!state->cfa_expression.empty()) return false;
        define_cfa(in.Uleb(), state->cfa_offset);
        break;
      case kDefCfaOffset:
        if (!state->cfa_expression.empty()) return false;
        define_cfa_offset(static_cast<int64_t>(in.Uleb()));
        break;
      case kDefCfaOffsetSf:
        if (!state->cfa_expression.empty()) return false;
        define_cfa_offset(scaled(static_cast<uint64_t>(in.Sleb())));
        break;
      case kDefCfaExpression:
        state->cfa_expression = in.Block(in.Uleb());
        if (state->cfa_expression.empty()) return false;
        changed = kMore;
        break;
      case kExpression: {
        const uint64_t reg = in.Uleb();
        save(reg, {.how = Saved::kAtExpression, .expression = in.Block(in.Uleb())});
        break;
      }
      case kValExpression: {
        const uint64_t reg = in.Uleb();
        in.Block(in.Uleb());
        save(reg, {.how = Saved::kOther});
        break;
      }
      case kValOffset:
      case kValOffsetSf: {
        const uint64_t reg = in.Uleb();
        in.Uleb();  // as long as its signed form
        save(reg, {.how = Saved::kOther});
        break;
      }
      case kGnuArgsSize:
        in.Uleb();
        break;
      default:
        return false;
    }
  }
  if (!in.ok()) return false;
  put_row();
  return true;
}

bool CfiReader::Run(const Fde& fde, std::vector<CfiRow>* rows) {
  const Cie& cie = cies_[fde.cie];
  State state = cie.initial;
  remembered_.clear();
  const size_t first = rows->size();
  // The first row must not be merged with another function's last.
  rows->push_back({fde.start, ToRule(cie, state)});
  const bool good = Execute(fde.instructions, fde.instruction_bytes, cie, &state, &fde, rows);
  if (!good) {
    const UnwindRule unsupported{.kind = PYRO_UNWIND_UNSUPPORTED};
    if (rows->size() == first + 1) {
      rows->back().rule = unsupported;
    } else if (rows->back().address + 1 < fde.end) {
      rows->push_back({rows->back().address + 1, unsupported});
    }
  }
  return good;
}

// ---- rules ----------------------------------------------------------------------------------------------------

namespace {

// What an expression computes: reg + offset, dereferenced or not, plus add; or the PLT's form.
struct Computed {
  enum class Form { kUnknown, kRegister, kDereference, kPlt } form = Form::kUnknown;
  uint8_t reg = 0;
  int64_t offset = 0;
  int64_t add = 0;
};

// A reader of the few operators below, on at most kMaxExpressionBytes.
class ExpressionReader {
 public:
  explicit ExpressionReader(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return at_ >= bytes_.size(); }
  int Peek() const { return done() ? -1 : static_cast<uint8_t>(bytes_[at_]); }
  bool Take(int op) {
    if (Peek() != op) return false;
    ++at_;
    return true;
  }
  bool TakeBreg(uint64_t* reg, int64_t* offset) {
    const int op = Peek();
    if (op < kOpBreg0 || op > kOpBreg31) return false;
    ++at_;
    *reg = static_cast<uint64_t>(op - kOpBreg0);
    return Sleb(offset);
  }
  bool TakeConstant(int64_t* value) {
    const int op = Peek();
    if (op >= kOpLit0 && op <= kOpLit31) {
      ++at_;
      *value = op - kOpLit0;
      return true;
    }
    if ((op != kOpConst1u && op != kOpConst1s) || at_ + 2 > bytes_.size()) return false;
    const char byte = bytes_[at_ + 1];
    *value = op == kOpConst1u ? int64_t{static_cast<uint8_t>(byte)} : int64_t{static_cast<int8_t>(byte)};
    at_ += 2;
    return true;
  }
  // "+ constant" in either of its two spellings.
  bool TakePlus(int64_t* value) {
    if (Take(kOpPlusUconst)) {
      uint64_t unsigned_value = 0;
      if (!Uleb(&unsigned_value)) return false;
      *value = static_cast<int64_t>(unsigned_value);
      return true;
    }
    return TakeConstant(value) && Take(kOpPlus);
  }

 private:
  bool Uleb(uint64_t* value) {
    *value = 0;
    for (unsigned shift = 0; at_ < bytes_.size() && shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      *value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }
  bool Sleb(int64_t* value) {
    uint64_t bits = 0;
    for (unsigned shift = 0; at_ < bytes_.size() && shift < 64;) {
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      bits |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) != 0) continue;
      if ((byte & 0x40) != 0 && shift < 64) bits |= ~uint64_t{0} << shift;
      *value = static_cast<int64_t>(bits);
      return true;
    }
    return false;
  }

  std::string_view bytes_;
  size_t at_ = 0;
};

Computed Understand(std::string_view expression) {
  Computed result;
  if (expression.empty() || expression.size() > kMaxExpressionBytes) return result;
  ExpressionReader in(expression);
  uint64_t reg = 0;
  if (!in.TakeBreg(&reg, &result.offset) || reg >= PYRO_REGISTERS) return result;
  result.reg = static_cast<uint8_t>(reg);
  if (in.done()) {
    result.form = Computed::Form::kRegister;
    return result;
  }
  if (in.Take(kOpDeref)) {
    if (in.done() || (in.TakePlus(&result.add) && in.done())) result.form = Computed::Form::kDereference;
    return result;
  }
  uint64_t rip = 0;
  int64_t zero = 0, mask = 0, shift = 0;
  if (reg == PYRO_REG_RSP && in.TakeBreg(&rip, &zero) && rip == kRipColumn && zero == 0 && in.TakeConstant(&mask) &&
      mask == 15 && in.Take(kOpAnd) && in.TakeConstant(&result.add) && in.Take(kOpGe) && in.TakeConstant(&shift) &&
      shift == 3 && in.Take(kOpShl) && in.Take(kOpPlus) && in.done()) {
    result.form = Computed::Form::kPlt;
  }
  return result;
}

}  // namespace

UnwindRule CfiReader::ToRule(const Cie& cie, const State& state) {
  UnwindRule rule{};
  const UnwindRule unsupported{.kind = PYRO_UNWIND_UNSUPPORTED};
  const SavedRegister& ra = state.columns[kReturn];
  if (ra.how == Saved::kUndefined) return {.kind = PYRO_UNWIND_END};

  if (state.cfa_expression.empty()) {
    if (state.cfa_register >= PYRO_REGISTERS || !Fits<int32_t>(state.cfa_offset)) return unsupported;
    rule.kind = PYRO_UNWIND_REGISTER;
    rule.reg = static_cast<uint8_t>(state.cfa_register);
    rule.offset = static_cast<int32_t>(state.cfa_offset);
  } else {
    const Computed cfa = Understand(state.cfa_expression);
    if (!Fits<int32_t>(cfa.offset) || !Fits<int16_t>(cfa.add)) return unsupported;
    rule.reg = cfa.reg;
    rule.offset = static_cast<int32_t>(cfa.offset);
    rule.add = static_cast<int16_t>(cfa.add);
    switch (cfa.form) {
      case Computed::Form::kUnknown:
        return unsupported;
      case Computed::Form::kRegister:
        rule.kind = PYRO_UNWIND_REGISTER;
        break;
      case Computed::Form::kPlt:
        rule.kind = PYRO_UNWIND_PLT;
        break;
      case Computed::Form::kDereference:
        // All registers of the interrupted code lie in the ucontext, at the same distance in every trampoline.
        if (cie.signal_frame && cfa.reg == PYRO_REG_RSP && cfa.offset == kUcontextRsp && cfa.add == 0) {
          return {.kind = PYRO_UNWIND_SIGNAL};
        }
        rule.kind = PYRO_UNWIND_DEREFERENCE;
        break;
    }
    if (rule.reg == PYRO_REG_RBX) saw_cfa_from_rbx_ = true;
  }
  // A signal frame of another shape: what it interrupted would be taken for a caller.
  if (cie.signal_frame) return unsupported;
  // The caller's rsp is the CFA, unless somebody says otherwise (switches of stacks).
  if (state.columns[kStackPointer].how != Saved::kSame) return unsupported;

  switch (ra.how) {
    case Saved::kCfaOffset:
      if (!Fits<int16_t>(ra.offset)) return unsupported;
      rule.ra_at = static_cast<int16_t>(ra.offset);
      break;
    case Saved::kRegister:
      if (rule.kind != PYRO_UNWIND_REGISTER || rule.reg != PYRO_REG_RSP) return unsupported;
      rule.kind = PYRO_UNWIND_RETURN_REG;
      rule.reg = ra.reg;
      break;
    default:
      return unsupported;
  }

  const SavedRegister& fp = state.columns[kFramePointer];
  rule.fp_saved = PYRO_SAVED_LOST;
  if (fp.how == Saved::kSame) {
    rule.fp_saved = PYRO_SAVED_SAME;
  } else if (fp.how == Saved::kCfaOffset && Fits<int16_t>(fp.offset)) {
    rule.fp_saved = PYRO_SAVED_CFA;
    rule.fp_at = static_cast<int16_t>(fp.offset);
  } else if (fp.how == Saved::kAtExpression) {
    const Computed at = Understand(fp.expression);
    if (at.form == Computed::Form::kRegister && at.reg == PYRO_REG_RBP && Fits<int16_t>(at.offset)) {
      rule.fp_saved = PYRO_SAVED_FP;
      rule.fp_at = static_cast<int16_t>(at.offset);
    }
  }
  if (track_rbx_) {
    const SavedRegister& bx = state.columns[kBase];
    rule.bx_saved = PYRO_SAVED_LOST;
    if (bx.how == Saved::kSame) {
      rule.bx_saved = PYRO_SAVED_SAME;
    } else if (bx.how == Saved::kCfaOffset && Fits<int16_t>(bx.offset)) {
      rule.bx_saved = PYRO_SAVED_CFA;
      rule.bx_at = static_cast<int16_t>(bx.offset);
    }
  } else {
    rule.bx_saved = PYRO_SAVED_LOST;
  }
  return rule;
}

}  // namespace pyrometer::unwind

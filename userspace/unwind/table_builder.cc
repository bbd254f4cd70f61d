#include "userspace/unwind/table_builder.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/unwind/cfi.h"

namespace pyrometer::unwind {
namespace {

using elf::ElfFile;
using elf::Section;
using elf::Segment;

constexpr uint64_t kPageBytes = uint64_t{1} << PYRO_UNWIND_PAGE_SHIFT;
// A hole between functions that is at most this long is padding: nobody returns into it.
constexpr uint64_t kPaddingBytes = 16;
// Code without any row for so long starts a new part: an index word per page of nothing would be waste.
constexpr uint64_t kSplitBytes = 1u << 20;
// A part must fit a segment. It is closed while the longest function there can be (kMaxFunctionBytes of cfi.h) has
// room for its index.
constexpr size_t kMaxPartWords = PYRO_SEGMENT_WORDS - 64;
constexpr size_t kPartWords = kMaxPartWords - kMaxFunctionBytes / kPageBytes - 2 * kPageBytes;
// Below this share of covered code frame pointers are taken for the file's convention [Go: 0; chromium: 0.03; the
// smallest C programs, half of them start-up code: 0.4].
constexpr double kConventionShare = 0.1;

// User space ends well below; beyond, the ends of pages would wrap round.
constexpr uint64_t kAddressLimit = uint64_t{1} << 63;

// Larger symbol tables are not searched for a name: 4 MB is 170,000 symbols [libc: 75 KB, static programs: 100 KB].
constexpr uint64_t kMostSymbolBytes = 4u << 20;

// More than most binaries have; what is not needed is never touched.
constexpr size_t kCfiBytesPerRow = 8;

constexpr uint32_t kPltEntryBytes = 16;
// push $n; jmp plt0 come after `jmp *got`, at byte 6; from byte 11 on the index is on the stack.
constexpr int16_t kPltThreshold = 11;

struct Range {
  uint64_t start = 0;
  uint64_t end = 0;
};

// A function's range and where its rows come from.
struct Piece {
  uint64_t start = 0;
  uint64_t end = 0;
  uint32_t source = 0;  // number of a CfiReader, or kSynthetic
  uint32_t index = 0;   // of an FDE, or in synthetic rows
};
constexpr uint32_t kSynthetic = 1000;

struct Row {
  uint64_t address = 0;
  uint32_t rule = 0;
};

uint64_t RuleHash(const UnwindRule& rule) {
  uint64_t words[2];
  std::memcpy(words, &rule, sizeof(words));
  return (words[0] * 0x9E3779B97F4A7C15u) ^ (words[1] * 0xC2B2AE3D27D4EB4Fu) ^ (words[0] >> 29);
}
struct RuleHasher {
  size_t operator()(const UnwindRule& rule) const { return static_cast<size_t>(RuleHash(rule)); }
};
struct RuleEqual {
  bool operator()(const UnwindRule& a, const UnwindRule& b) const { return std::memcmp(&a, &b, sizeof(a)) == 0; }
};

constexpr UnwindRule kNoRule{.kind = PYRO_UNWIND_NONE};
constexpr uint32_t kNone = 0;  // its number in every table
constexpr int kRecentBits = 10;

class Builder {
 public:
  Builder(const ElfFile& file, const BuildOptions& options) : file_(file), options_(options) {}

  StatusOr<UnwindTable> Build() {
    if (file_.machine() != EM_X86_64) {
      return UnimplementedError(StrFormat("%s: unwind tables are made of x86-64 files only", file_.name()));
    }
    CollectCode();
    RETURN_IF_ERROR(ReadSections());
    CollectPieces();
    AddPltStubs();
    RETURN_IF_ERROR(FindStartContext());
    SortPieces();
    MakeRows();
    if (rows_.empty()) return std::move(table_);
    // Which files need rbx is known only after their rows were made: ld.so, and few others.
    if (track_rbx_wanted_ && !track_rbx_) {
      track_rbx_ = true;
      rows_.clear();
      rule_numbers_.clear();
      table_.rules.clear();
      table_.stats.overlapping = table_.stats.unsupported = table_.stats.covered_bytes = 0;
      for (auto& reader : readers_) reader->set_track_rbx(true);
      MakeRows();
    }
    RETURN_IF_ERROR(AddSignalTrampolines());
    TrustFramePointersWhereTheyRule();
    MakeParts();
    return std::move(table_);
  }

 private:
  // By sections where there are any: segments may hold half a library's constants besides (libLLVM).
  void CollectCode() {
    const auto add = [&](uint64_t start, uint64_t size) {
      if (size != 0 && start < kAddressLimit && size <= kAddressLimit - start) code_.push_back({start, start + size});
    };
    for (const Section& section : file_.sections()) {
      if (section.executable()) add(section.address.value, section.size);
    }
    if (code_.empty()) {
      for (const Segment& segment : file_.segments()) {
        if (segment.type == PT_LOAD && (segment.flags & PF_X) != 0) add(segment.address.value, segment.memory_size);
      }
    }
    std::sort(code_.begin(), code_.end(), [](const Range& a, const Range& b) { return a.start < b.start; });
    for (const Range& range : code_) table_.stats.code_bytes += range.end - range.start;
  }

  const Range* CodeAround(uint64_t address) const {
    // Mostly the same as the last time: functions lie side by side.
    for (size_t i = 0; i < code_.size(); ++i) {
      const Range& range = code_[(last_code_ + i) % code_.size()];
      if (address < range.start || address >= range.end) continue;
      last_code_ = (last_code_ + i) % code_.size();
      return &range;
    }
    return nullptr;
  }

  // A missing section is no error; one that cannot be read is.
  Status AddReader(const ElfFile& file, const Section& section, bool debug_frame) {
    if (!section.has_bytes() || section.size == 0) return OkStatus();
    ASSIGN_OR_RETURN(std::string bytes, file.ReadSection(section, kMaxCfiBytes));
    AddReader(std::move(bytes), section.address.value, debug_frame);
    return OkStatus();
  }

  void AddReader(std::string bytes, uint64_t address, bool debug_frame) {
    sections_.push_back(std::make_unique<std::string>(std::move(bytes)));
    CfiSection cfi;
    cfi.bytes = *sections_.back();
    cfi.address = address;
    cfi.debug_frame = debug_frame;
    cfi.is_64bit = file_.is_64bit();
    if (const Section* text = file_.FindSection(".text")) cfi.text_base = text->address.value;
    if (const Section* header = file_.FindSection(".eh_frame_hdr")) cfi.data_base = header->address.value;
    readers_.push_back(std::make_unique<CfiReader>(cfi));
    // What was read before the place that makes no sense is good.
    if (!readers_.back()->Scan().ok()) ++table_.stats.malformed;
  }

  Status ReadSections() {
    const Section* eh_frame = file_.FindSection(".eh_frame");
    if (eh_frame != nullptr) {
      RETURN_IF_ERROR(AddReader(file_, *eh_frame, false));
    } else {
      RETURN_IF_ERROR(ReadByProgramHeader());
    }
    for (const ElfFile* file : {&file_, options_.debug_file}) {
      if (file == nullptr) continue;
      if (const Section* debug_frame = file->FindSection(".debug_frame")) {
        RETURN_IF_ERROR(AddReader(*file, *debug_frame, true));
      } else if (const Section* compressed = file->FindSection(".zdebug_frame")) {
        RETURN_IF_ERROR(AddReader(*file, *compressed, true));
      }
    }
    return OkStatus();
  }

  // Files whose section headers were cut off: PT_GNU_EH_FRAME leads to .eh_frame_hdr, and that to .eh_frame, whose end
  // is its terminator or the end of its segment.
  Status ReadByProgramHeader() {
    for (const Segment& header : file_.segments()) {
      if (header.type != PT_GNU_EH_FRAME || header.file_size < 8) continue;
      ASSIGN_OR_RETURN(const std::string head, file_.ReadMemory(header.address, 8, 8));
      // Version 1, and the pointer as every linker writes it: pc-relative, four bytes.
      if (head[0] != 1 || static_cast<uint8_t>(head[1]) != 0x1b) return OkStatus();
      int32_t distance;
      std::memcpy(&distance, head.data() + 4, sizeof(distance));
      const uint64_t start = header.address.value + 4 + static_cast<uint64_t>(int64_t{distance});
      for (const Segment& segment : file_.segments()) {
        if (segment.type != PT_LOAD || start < segment.address.value) continue;
        const uint64_t inside = start - segment.address.value;
        if (inside >= segment.file_size) continue;
        const uint64_t size = std::min<uint64_t>(segment.file_size - inside, kMaxCfiBytes);
        ASSIGN_OR_RETURN(std::string bytes, file_.ReadMemory(ElfAddress(start), size, kMaxCfiBytes));
        bytes.resize(TerminatorOf(bytes));
        AddReader(std::move(bytes), start, false);
        return OkStatus();
      }
    }
    return OkStatus();
  }

  // Offset of the zero length that ends .eh_frame; the size when there is none. Behind it lies something else.
  static size_t TerminatorOf(std::string_view bytes) {
    size_t at = 0;
    while (at + 4 <= bytes.size()) {
      uint32_t length;
      std::memcpy(&length, bytes.data() + at, sizeof(length));
      if (length == 0 || length == 0xffffffffu) return at;
      if (length > bytes.size() - at - 4) return at;
      at += 4 + length;
    }
    return bytes.size();
  }

  void CollectPieces() {
    for (uint32_t source = 0; source < readers_.size(); ++source) {
      const std::vector<Fde>& fdes = readers_[source]->fdes();
      table_.stats.malformed += readers_[source]->malformed();
      pieces_.reserve(pieces_.size() + std::min(fdes.size(), kMaxFdes));
      for (uint32_t i = 0; i < fdes.size(); ++i) {
        const Range* code = CodeAround(fdes[i].start);
        if (code == nullptr || pieces_.size() >= kMaxFdes) {
          ++table_.stats.outside;
          continue;
        }
        pieces_.push_back({fdes[i].start, std::min(fdes[i].end, code->end), source, i});
        ++table_.stats.functions;
      }
    }
  }

  // Some linkers (lld) write no information for the stubs they make.
  void AddPltStubs() {
    for (const Section& section : file_.sections()) {
      if (!section.executable() || section.size == 0 || section.size > (64u << 20)) continue;
      const bool lazy = section.name == ".plt" || section.name == ".iplt";
      if (!lazy && section.name != ".plt.sec" && section.name != ".plt.got") continue;
      const Range* code = CodeAround(section.address.value);
      if (code == nullptr) continue;
      const uint64_t start = section.address.value;
      const uint64_t end = std::min(start + section.size, code->end);
      std::vector<CfiRow> rows;
      UnwindRule rule{.kind = PYRO_UNWIND_REGISTER, .reg = PYRO_REG_RSP, .offset = 8, .ra_at = -8};
      if (lazy && section.name == ".plt") {
        // The first entry pushes the link map (6 bytes) on top of the index, and jumps on.
        rule.offset = 16;
        rows.push_back({start, rule});
        rule.offset = 24;
        rows.push_back({start + 6, rule});
        rows.push_back(
            {start + kPltEntryBytes,
             UnwindRule{.kind = PYRO_UNWIND_PLT, .reg = PYRO_REG_RSP, .offset = 8, .add = kPltThreshold, .ra_at = -8}});
      } else {
        rows.push_back({start, rule});
      }
      pieces_.push_back({start, end, kSynthetic, static_cast<uint32_t>(synthetic_.size())});
      synthetic_.push_back(std::move(rows));
    }
  }

  // The code that glibc's makecontext puts below a coroutine's first function. It has nothing below itself, but its
  // call frame information says that it was called, and a walk would go on into whatever lies above.
  Status FindStartContext() {
    constexpr std::string_view kCode("\x48\x89\xdc\x48\x8b\x3c\x24\x48\x85\xff\x74\x08\xe8", 13);
    constexpr uint64_t kCodeBytes = 26;
    constexpr uint64_t kMostScanned = 16u << 20;
    if (!Defines("makecontext")) return OkStatus();
    for (const Range& code : code_) {
      if (code.end - code.start > kMostScanned) continue;
      const StatusOr<std::string> bytes = file_.ReadMemory(ElfAddress(code.start), code.end - code.start, kMostScanned);
      if (!bytes.ok()) continue;  // a segment that ends in zeros
      const size_t hit = bytes->find(kCode);
      if (hit == std::string::npos) continue;
      const uint64_t start = code.start + hit;
      std::erase_if(pieces_, [&](const Piece& piece) { return piece.start == start; });
      pieces_.push_back({start, start + kCodeBytes, kSynthetic, static_cast<uint32_t>(synthetic_.size())});
      synthetic_.push_back({{start, UnwindRule{.kind = PYRO_UNWIND_END}}});
    }
    return OkStatus();
  }

  // In its symbol tables, as far as there are any.
  bool Defines(std::string_view name) const {
    for (const uint32_t type : {SHT_DYNSYM, SHT_SYMTAB}) {
      const Section* table = file_.FindSection(type);
      const Section* strings = table != nullptr ? file_.LinkedStrings(*table) : nullptr;
      if (strings == nullptr || table->size > kMostSymbolBytes) continue;
      elf::StringTableReader names(file_, *strings);
      bool found = false;
      (void)file_.ForEachSymbol(*table, [&](uint64_t, const std::vector<elf::RawSymbol>& piece) {
        for (const elf::RawSymbol& symbol : piece) {
          if (found || symbol.section == SHN_UNDEF || symbol.type != STT_FUNC) continue;
          const StatusOr<std::string_view> text = names.At(symbol.name);
          found = text.ok() && *text == name;
        }
      });
      if (found) return true;
    }
    return false;
  }

  void SortPieces() {
    const auto before = [](const Piece& a, const Piece& b) {
      return a.start != b.start ? a.start < b.start : a.source < b.source;
    };
    if (std::is_sorted(pieces_.begin(), pieces_.end(), before)) return;
    uint64_t low = UINT64_MAX, high = 0;
    for (const Piece& piece : pieces_) {
      low = std::min(low, piece.start);
      high = std::max(high, piece.start);
    }
    if (high - low > UINT32_MAX || pieces_.size() > UINT32_MAX) {
      std::sort(pieces_.begin(), pieces_.end(), before);
      return;
    }
    SortByOffset(low);
  }

  // By start alone, stable: pieces were collected source by source. Three passes of a radix sort over 11 bits each
  // [libLLVM, 95,000 pieces: 1.2 ms; by comparison 7].
  void SortByOffset(uint64_t low) {
    constexpr int kBits = 11, kPasses = 3;
    constexpr uint32_t kMask = (1u << kBits) - 1;
    struct Key {
      uint32_t offset;
      uint32_t number;
    };
    std::vector<Key> keys(pieces_.size()), sorted(pieces_.size());
    std::array<std::array<uint32_t, kMask + 1>, kPasses> next{};
    for (uint32_t i = 0; i < keys.size(); ++i) {
      keys[i] = {static_cast<uint32_t>(pieces_[i].start - low), i};
      for (int pass = 0; pass < kPasses; ++pass) ++next[pass][keys[i].offset >> (pass * kBits) & kMask];
    }
    for (auto& counts : next) std::exclusive_scan(counts.begin(), counts.end(), counts.begin(), 0u);
    for (int pass = 0; pass < kPasses; ++pass) {
      for (const Key& key : keys) sorted[next[pass][key.offset >> (pass * kBits) & kMask]++] = key;
      keys.swap(sorted);
    }
    std::vector<Piece> pieces(pieces_.size());
    for (size_t i = 0; i < keys.size(); ++i) pieces[i] = pieces_[keys[i].number];
    pieces_ = std::move(pieces);
  }

  uint32_t NumberOf(const UnwindRule& rule) {
    // Nearly always there [libLLVM: 0.6 % are not].
    uint32_t& recent = recent_numbers_[RuleHash(rule) >> (64 - kRecentBits)];
    if (recent < table_.rules.size() && RuleEqual()(table_.rules[recent], rule)) return recent;
    const auto found = rule_numbers_.find(rule);
    if (found != rule_numbers_.end()) return recent = found->second;
    UnwindRule kept = rule;
    if (table_.rules.size() >= PYRO_MAX_UNWIND_RULES - 1) {
      // The last number is kept for this.
      kept = UnwindRule{.kind = PYRO_UNWIND_UNSUPPORTED};
      if (const auto again = rule_numbers_.find(kept); again != rule_numbers_.end()) return again->second;
    }
    const auto number = static_cast<uint32_t>(table_.rules.size());
    table_.rules.push_back(kept);
    rule_numbers_.emplace(kept, number);
    return recent = number;
  }

  // Rows arrive by ascending address.
  void PutRow(uint64_t address, const UnwindRule& rule) {
    const uint32_t number = NumberOf(rule);
    if (!rows_.empty() && rows_.back().address == address) {
      rows_.back().rule = number;
      return;
    }
    if (!rows_.empty() && rows_.back().rule == number) return;
    rows_.push_back({address, number});
  }

  void MakeRows() {
    (void)NumberOf(kNoRule);  // always number kNone
    size_t cfi_bytes = 0;
    for (const auto& section : sections_) cfi_bytes += section->size();
    rows_.reserve(std::min<size_t>(kMaxRows, cfi_bytes / kCfiBytesPerRow));
    std::vector<CfiRow> rows;
    uint64_t covered = 0;  // up to here
    for (const Piece& piece : pieces_) {
      if (rows_.size() >= kMaxRows) {
        ++table_.stats.outside;
        continue;
      }
      uint64_t start = piece.start;
      if (!rows_.empty() && start < covered) {
        // The same function in a section of less weight, or a stranger's tricks.
        if (piece.end <= covered) continue;
        ++table_.stats.overlapping;
        start = covered;
      }
      rows.clear();
      if (piece.source == kSynthetic) {
        rows = synthetic_[piece.index];
        table_.stats.synthesized += rows.size();
      } else {
        CfiReader& reader = *readers_[piece.source];
        if (!reader.Run(reader.fdes()[piece.index], &rows)) ++table_.stats.malformed;
        track_rbx_wanted_ = track_rbx_wanted_ || reader.saw_cfa_from_rbx();
      }
      const uint64_t hole = rows_.empty() || start < covered ? 0 : start - covered;
      if (hole > kPaddingBytes) PutRow(covered, kNoRule);
      // A made-up return address leads to the first byte of such code, so it is looked up one byte lower; there must
      // not be the rule of the function before.
      const bool entered_by_return =
          rows.front().rule.kind == PYRO_UNWIND_END || rows.front().rule.kind == PYRO_UNWIND_SIGNAL;
      if (hole > 0 && entered_by_return) PutRow(start - 1, rows.front().rule);
      for (size_t i = 0; i < rows.size(); ++i) {
        const uint64_t next = i + 1 < rows.size() ? rows[i + 1].address : piece.end;
        if (next <= start) continue;  // cut
        if (rows[i].address >= piece.end) break;
        if (rows[i].rule.kind == PYRO_UNWIND_UNSUPPORTED) ++table_.stats.unsupported;
        PutRow(std::max(rows[i].address, start), rows[i].rule);
      }
      table_.stats.covered_bytes += piece.end - start;
      covered = std::max(covered, piece.end);
    }
    if (!rows_.empty()) {
      PutRow(covered, kNoRule);
    } else if (!code_.empty()) {
      // Nothing is known of this file; a signal trampoline may yet be found.
      PutRow(code_.front().start, kNoRule);
    }
  }

  // `mov $15, %rax; syscall` in code without information: rt_sigreturn, called by nobody but a signal handler's
  // return (musl, Go).
  Status AddSignalTrampolines() {
    constexpr std::string_view kLong("\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", 9);
    constexpr std::string_view kShort("\xb8\x0f\x00\x00\x00\x0f\x05", 7);
    uint64_t budget = kMaxScannedBytes;
    std::vector<Range> found;
    const auto scan = [&](uint64_t start, uint64_t end) -> Status {
      constexpr uint64_t kStep = 1u << 20;
      for (uint64_t at = start; at < end && budget > 0; at += kStep) {
        const uint64_t size = std::min(end - at, kStep + kLong.size() - 1);
        StatusOr<std::string> bytes = file_.ReadMemory(ElfAddress(at), size, size);
        if (!bytes.ok()) return OkStatus();  // beyond the file's bytes: zeros
        budget -= std::min(budget, size);
        for (const std::string_view pattern : {kLong, kShort}) {
          for (size_t hit = bytes->find(pattern); hit != std::string::npos; hit = bytes->find(pattern, hit + 1)) {
            found.push_back({at + hit, at + hit + pattern.size()});
          }
        }
      }
      return OkStatus();
    };
    for (const Range& code : code_) {
      // The holes between rows: those whose rule is "none", and what lies before the first row.
      uint64_t at = code.start;
      auto row = std::lower_bound(rows_.begin(), rows_.end(), code.start,
                                  [](const Row& r, uint64_t address) { return r.address < address; });
      bool hole = row == rows_.begin() || table_.rules[std::prev(row)->rule].kind == PYRO_UNWIND_NONE;
      for (; row != rows_.end() && row->address < code.end; ++row) {
        if (hole && row->address > at) RETURN_IF_ERROR(scan(at, row->address));
        hole = table_.rules[row->rule].kind == PYRO_UNWIND_NONE;
        at = row->address;
      }
      if (hole) RETURN_IF_ERROR(scan(at, code.end));
    }
    if (found.empty()) return OkStatus();
    const uint32_t number = NumberOf({.kind = PYRO_UNWIND_SIGNAL});
    std::sort(found.begin(), found.end(), [](const Range& a, const Range& b) { return a.start < b.start; });
    std::vector<Row> merged;
    merged.reserve(rows_.size() + 2 * found.size());
    auto row = rows_.begin();
    uint64_t covered = 0;
    for (const Range& trampoline : found) {
      // Seen twice at the seam of two steps, or bytes of one that look like another.
      if (trampoline.start < covered) continue;
      if (trampoline.start == covered && !merged.empty() && merged.back().address == covered) {
        merged.pop_back();  // it follows the last one at once
      } else {
        while (row != rows_.end() && row->address < trampoline.start) merged.push_back(*row++);
        if (row != rows_.end() && row->address == trampoline.start) ++row;  // where the hole begins
        merged.push_back({trampoline.start, number});
        ++table_.stats.synthesized;
      }
      covered = trampoline.end;
      // Where the hole ends at once, the row of what follows is there.
      if (row == rows_.end() || row->address != covered) merged.push_back({covered, kNone});
    }
    merged.insert(merged.end(), row, rows_.end());
    rows_ = std::move(merged);
    return OkStatus();
  }

  void TrustFramePointersWhereTheyRule() {
    const double share = static_cast<double>(table_.stats.covered_bytes) /
                         static_cast<double>(std::max<uint64_t>(1, table_.stats.code_bytes));
    if (share >= kConventionShare) return;
    table_.rules[kNone].add = 1;
  }

  // ---- parts ----

  // Rows [first, last) as a part that starts in the page of `start` and covers up to `end`.
  void EmitPart(size_t first, size_t last, uint64_t start, uint64_t end) {
    UnwindPart part;
    const uint64_t base = start & ~(kPageBytes - 1);
    part.base = ElfAddress(base);
    part.pages = static_cast<uint32_t>((end - base + kPageBytes - 1) / kPageBytes);
    part.words.resize(part.pages + 2);  // index and guard row
    part.words.reserve(part.words.size() + (last - first) + 1);
    part.words[part.pages + 1] = kNone;
    uint32_t page = 0;
    const auto put = [&](uint64_t address, uint32_t rule) {
      const auto row_page = static_cast<uint32_t>((address - base) / kPageBytes);
      for (; page <= row_page; ++page) part.words[page] = static_cast<uint32_t>(part.words.size());
      part.words.push_back(static_cast<uint32_t>((address - base) % kPageBytes) << 16 | rule);
    };
    // What is in force where the part begins, unless that is nothing.
    if (first > 0 && rows_[first].address > start) put(start, rows_[first - 1].rule);
    for (size_t i = first; i < last; ++i) put(rows_[i].address, rows_[i].rule);
    for (; page <= part.pages; ++page) part.words[page] = static_cast<uint32_t>(part.words.size());
    table_.stats.rows += part.row_count();
    table_.parts.push_back(std::move(part));
  }

  void MakeParts() {
    const auto is_none = [&](const Row& row) { return table_.rules[row.rule].kind == PYRO_UNWIND_NONE; };
    size_t first = 0;
    uint64_t start = rows_.front().address;
    for (size_t i = 1; i <= rows_.size(); ++i) {
      const Row& last = rows_[i - 1];
      // Where the last row's reach ends: a "none" row needs only its own place.
      const bool at_end = i == rows_.size();
      const uint64_t reach = is_none(last) ? last.address + 1 : at_end ? last.address + 1 : rows_[i].address;
      const uint64_t base = start & ~(kPageBytes - 1);
      if (at_end || (is_none(last) && rows_[i].address - last.address > kSplitBytes)) {
        EmitPart(first, i, start, reach);
        if (at_end) return;
        first = i;
        start = rows_[i].address;
        continue;
      }
      const uint64_t next_page = rows_[i].address & ~(kPageBytes - 1);
      const uint64_t pages = (next_page - base) / kPageBytes + 2;
      const size_t words = pages + 3 + (i - first);
      // Split at a page boundary only.
      if (words >= kPartWords && next_page > base && (last.address & ~(kPageBytes - 1)) != next_page) {
        EmitPart(first, i, start, next_page);
        first = i;
        start = next_page;
      }
    }
  }

  const ElfFile& file_;
  const BuildOptions& options_;
  UnwindTable table_;
  std::vector<Range> code_;  // ascending
  mutable size_t last_code_ = 0;
  std::vector<std::unique_ptr<std::string>> sections_;  // what readers_ point into
  std::vector<std::unique_ptr<CfiReader>> readers_;
  std::vector<std::vector<CfiRow>> synthetic_;
  std::vector<Piece> pieces_;
  std::vector<Row> rows_;
  std::unordered_map<UnwindRule, uint32_t, RuleHasher, RuleEqual> rule_numbers_;
  std::array<uint32_t, 1u << kRecentBits> recent_numbers_{};
  bool track_rbx_ = false;
  bool track_rbx_wanted_ = false;
};

}  // namespace

StatusOr<UnwindTable> BuildUnwindTable(const ElfFile& file, const BuildOptions& options) {
  return Builder(file, options).Build();
}

const UnwindRule* FindRule(const UnwindTable& table, ElfAddress address) {
  const auto part = std::upper_bound(table.parts.begin(), table.parts.end(), address,
                                     [](ElfAddress a, const UnwindPart& p) { return a < p.base; });
  if (part == table.parts.begin()) return nullptr;
  const UnwindPart& found = *std::prev(part);
  if (address >= found.end()) return nullptr;
  const uint64_t offset = address.value - found.base.value;
  const uint32_t page = static_cast<uint32_t>(offset >> PYRO_UNWIND_PAGE_SHIFT);
  const uint32_t target = offset & ((1u << PYRO_UNWIND_PAGE_SHIFT) - 1);
  const auto first = found.words.begin() + found.words[page];
  const auto last = found.words.begin() + found.words[page + 1];
  const auto row = std::upper_bound(first, last, target, [](uint32_t t, uint32_t word) { return t < word >> 16; });
  return &table.rules[*std::prev(row) & 0xffff];
}

}  // namespace pyrometer::unwind

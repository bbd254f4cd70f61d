#include "userspace/symbolize/binary_symbols.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/symbolize/debug_files.h"
#include "userspace/symbolize/debug_information.h"
#include "userspace/symbolize/go_functions.h"
#include "userspace/symbolize/plt_stubs.h"

namespace pyrometer::symbolize {
namespace {

using elf::ElfFile;
using elf::RawSymbol;
using elf::Section;

// Hash tables and buffers that building takes beside what it makes.
constexpr size_t kBuildingBytes = 64u << 20;
// Debug information that is large enough to be worth a millisecond of tidying up.
constexpr uint64_t kTrimBytes = 16u << 20;
// How far an unsized symbol reaches when only exported functions are known: hand-written assembly
// routines are mostly shorter, and beyond lies somebody else's stripped code.
constexpr uint64_t kMaxExtensionInPartialTable = 1024;

void AddCodeRanges(const ElfFile& file, SymbolIndexBuilder* builder, PlaceBuilder* places) {
  const auto add = [&](ElfAddress start, uint64_t size) {
    builder->AddCode(start, size);
    places->AddCode(start.value, size);
  };
  bool any = false;
  for (const Section& section : file.sections()) {
    if (!section.executable()) continue;
    add(section.address, section.size);
    any = true;
  }
  if (any) return;
  for (const elf::Segment& segment : file.segments()) {
    if (segment.type == PT_LOAD && (segment.flags & PF_X) != 0) add(segment.address, segment.memory_size);
  }
}

bool IsExecutable(const ElfFile& file, const RawSymbol& symbol) {
  // Symbols of sections beyond 0xff00 carry SHN_XINDEX: the address decides alone, later.
  if (symbol.section >= SHN_LORESERVE) return symbol.section == SHN_XINDEX;
  return symbol.section < file.sections().size() && file.sections()[symbol.section].executable();
}

// Assembler and tool marks that look like untyped symbols: ".L1", "$x", ".annobin_…".
bool IsMark(std::string_view name) { return name.empty() || name[0] == '.' || name[0] == '$'; }

Status AddTable(const ElfFile& file, const Section& table, size_t max_memory_bytes, SymbolIndexBuilder* builder) {
  const Section* strings = file.LinkedStrings(table);
  if (strings == nullptr) return DataLossError(StrFormat("%s: %s has no strings", file.name(), table.name));
  std::vector<RawSymbol> functions;
  bool too_many = false;
  RETURN_IF_ERROR(file.ForEachSymbol(table, [&](uint64_t, const std::vector<RawSymbol>& piece) {
    for (const RawSymbol& symbol : piece) {
      if (symbol.section == SHN_UNDEF || !IsExecutable(file, symbol)) continue;
      if (symbol.type == STT_FUNC || symbol.type == STT_GNU_IFUNC || symbol.type == STT_NOTYPE) {
        if (functions.size() >= SymbolIndexBuilder::kMaxSymbols) too_many = true;
        if (!too_many) functions.push_back(symbol);
      } else if (symbol.type == STT_OBJECT) {
        builder->AddBoundary(symbol.address);  // a table within the code
      }
    }
  }));
  if (too_many || functions.size() * sizeof(RawSymbol) > max_memory_bytes) {
    return ResourceExhaustedError(
        StrFormat("%s: %s has more functions than the limit allows", file.name(), table.name));
  }
  if (strings->size > elf::StringTableReader::kWholeTableBytes) {
    std::sort(functions.begin(), functions.end(),
              [](const RawSymbol& a, const RawSymbol& b) { return a.name < b.name; });
  }
  elf::StringTableReader names(file, *strings);
  for (const RawSymbol& symbol : functions) {
    ASSIGN_OR_RETURN(std::string_view name, names.At(symbol.name));
    const bool typed = symbol.type != STT_NOTYPE;
    if (!typed && IsMark(name)) continue;
    // Linkers append the version: "memcpy@@GLIBC_2.14".
    if (const size_t version = name.find('@'); version != std::string_view::npos && version > 0) {
      name = name.substr(0, version);
    }
    const SymbolRank rank{.typed = typed,
                          .global = symbol.binding == STB_GLOBAL || symbol.binding == STB_GNU_UNIQUE,
                          .exported = symbol.binding != STB_LOCAL};
    if (!builder->Add(symbol.address, symbol.size, rank, name) || builder->memory_bytes() > max_memory_bytes) {
      return ResourceExhaustedError(
          StrFormat("%s: the names of %s need more than %s", file.name(), table.name, FormatBytes(max_memory_bytes)));
    }
  }
  return OkStatus();
}

// Later problems tell the user more than earlier ones: a file that is there but wrong beats one that is gone.
int Weight(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return 0;
    case MissReason::kFileGone:
      return 1;
    case MissReason::kNoPermission:
      return 2;
    case MissReason::kReadFailed:
      return 3;
    case MissReason::kBuildIdMismatch:
      return 4;
    default:
      return 5;
  }
}

}  // namespace

MissReason ReasonForStatus(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return MissReason::kNone;
    case StatusCode::kNotFound:
      return MissReason::kFileGone;
    case StatusCode::kPermissionDenied:
      return MissReason::kNoPermission;
    case StatusCode::kInvalidArgument:
      return MissReason::kNotElf;
    case StatusCode::kUnimplemented:
      return MissReason::kUnsupportedElf;
    case StatusCode::kResourceExhausted:
      return MissReason::kLimitReached;
    default:
      return MissReason::kReadFailed;
  }
}

std::shared_ptr<const BinarySymbols> BinarySymbols::Build(const BuildId& build_id, const BinarySource& source,
                                                          const BuildOptions& options) {
  const std::shared_ptr<BinarySymbols> symbols(new BinarySymbols());
  symbols->build_id_ = build_id;
  if (!symbols->LoadFrom(options.cache, source, options)) symbols->Fill(source, options);
  // A large build leaves much freed memory behind that the allocator keeps.
  if (symbols->debug_counters_.bytes > kTrimBytes) ::malloc_trim(0);
  return symbols;
}

bool BinarySymbols::LoadFrom(IndexCache* cache, const BinarySource& source, const BuildOptions& options) {
  if (cache == nullptr || build_id_.empty()) return false;
  std::optional<SymbolIndex> index = cache->Load(build_id_);
  if (!index.has_value()) return false;
  if ((index->origin() & format::kOriginDwarf) == 0) {
    // A debug package may have been installed since.
    const DebugFileQuery query{build_id_, source.path, source.root, std::nullopt};
    if (FindDebugFile(query, options.debug_folders).ok() && (index->origin() & format::kOriginDebugFile) == 0) {
      return false;
    }
  }
  const auto has = [&](format::Origin bit) { return (index->origin() & bit) != 0; };
  origin_ = {.symbol_table = has(format::kOriginSymbolTable),
             .debug_file = has(format::kOriginDebugFile),
             .mini_debug_info = has(format::kOriginMiniDebugInfo),
             .dynamic_symbols = has(format::kOriginDynamicSymbols),
             .go_functions = has(format::kOriginGoFunctions),
             .dwarf = has(format::kOriginDwarf)};
  for (const std::string_view line : Split(index->about(), '\n')) {
    constexpr std::string_view kKey = "debug_file=";
    if (line.starts_with(kKey)) origin_.debug_file_name = std::string(line.substr(kKey.size()));
  }
  index_ = *std::move(index);
  from_cache_ = true;
  return true;
}

BinarySymbols::BinarySymbols() {
  static std::atomic<uint64_t> next{1};
  serial_ = next.fetch_add(1, std::memory_order_relaxed);
}

void BinarySymbols::SetProblem(MissReason reason, std::string detail) {
  if (Weight(reason) < Weight(problem_)) return;
  problem_ = reason;
  problem_detail_ = std::move(detail);
}

StatusOr<ElfFile> BinarySymbols::OpenBinary(const BinarySource& source) {
  Status last = NotFoundError(StrFormat("%s: no way to open it is known", source.path));
  SetProblem(MissReason::kFileGone, std::string(Message(last)));
  std::vector<Opener> openers = source.openers;
  for (size_t i = 0; i < (source.image != nullptr ? 1 : openers.size()); ++i) {
    StatusOr<ElfFile> file = last;
    if (source.image != nullptr) {
      file = ElfFile::FromBytes(source.image, source.path);
    } else if (StatusOr<elf::SharedFd> fd = openers[i](); fd.ok()) {
      file = ElfFile::FromFd(*std::move(fd), source.path);
      // Corrupt headers arrive as DATA_LOSS, which elsewhere means that the file changed under us.
      if (file.status().code() == StatusCode::kDataLoss) file = InvalidArgumentError(Message(file.status()));
    } else {
      file = fd.status();
    }
    if (!file.ok()) {
      last = file.status();
      SetProblem(ReasonForStatus(last), std::string(Message(last)));
      continue;
    }
    const StatusOr<BuildId> id = file->ReadBuildId();
    if (!id.ok()) {
      last = id.status();
      SetProblem(MissReason::kReadFailed, std::string(Message(last)));
      continue;
    }
    if (!build_id_.empty() && *id != build_id_) {
      last = NotFoundError(StrFormat("%s has build ID %s, not %s", source.path, id->hex, build_id_.hex));
      SetProblem(MissReason::kBuildIdMismatch, std::string(Message(last)));
      continue;
    }
    build_id_ = *id;
    problem_ = MissReason::kNone;
    problem_detail_.clear();
    return file;
  }
  return last;
}

void BinarySymbols::Fill(const BinarySource& source, const BuildOptions& options) {
  SymbolIndexBuilder builder;
  PlaceBuilder places(2 * options.max_memory_bytes + kBuildingBytes);
  Status failure;  // the last table that could not be read; names of the others are kept
  const auto add = [&](const ElfFile& file, uint32_t type, bool* origin) {
    const Section* table = file.FindSection(type);
    if (table == nullptr || !table->has_bytes()) return;
    const size_t before = builder.size();
    const Status status = AddTable(file, *table, options.max_memory_bytes, &builder);
    if (!status.ok()) failure = status;
    *origin = *origin || builder.size() > before;
  };

  const bool knew_build_id = !build_id_.empty();
  StatusOr<ElfFile> opened = OpenBinary(source);
  if (opened.ok() && !knew_build_id && LoadFrom(options.cache, source, options)) return;
  std::shared_ptr<const ElfFile> binary, debug;
  DebugFileQuery query{build_id_, source.path, source.root, std::nullopt};
  IndexFacts facts;
  if (opened.ok()) {
    binary = std::make_shared<const ElfFile>(*std::move(opened));
    for (const elf::Segment& segment : binary->segments()) {
      facts.segments.push_back({segment.offset.value, segment.address.value, segment.file_size, segment.memory_size,
                                segment.type, segment.flags});
    }
    facts.machine = binary->machine();
    AddCodeRanges(*binary, &builder, &places);
    add(*binary, SHT_SYMTAB, &origin_.symbol_table);
    if (StatusOr<elf::DebugLink> link = binary->ReadDebugLink(); link.ok()) query.link = *std::move(link);
    if (!binary->section_problem().ok()) failure = binary->section_problem();
  }
  const bool binary_has_lines = binary != nullptr && HasDebugInformation(*binary);
  if (!origin_.symbol_table || !binary_has_lines) {
    if (StatusOr<ElfFile> found = FindDebugFile(query, options.debug_folders); found.ok()) {
      debug = std::make_shared<const ElfFile>(*std::move(found));
      if (binary == nullptr) AddCodeRanges(*debug, &builder, &places);
      if (!origin_.symbol_table) add(*debug, SHT_SYMTAB, &origin_.debug_file);
      if (!binary_has_lines && HasDebugInformation(*debug)) origin_.debug_file = true;
      if (origin_.debug_file) origin_.debug_file_name = debug->name();
    }
  }
  const std::shared_ptr<const ElfFile>& with_lines = binary_has_lines ? binary : debug;
  if (with_lines != nullptr && DebugInformationBytes(*with_lines) > options.max_debug_bytes) {
    debug_deferred_ = true;
  } else if (with_lines != nullptr && HasDebugInformation(*with_lines)) {
    const DebugInformation about{source.path, source.root, options.debug_folders, options.scratch_folder, options.stop};
    const Status status = AddDebugInformation(with_lines, about, &places, &debug_counters_);
    if (!status.ok()) failure = status;
    origin_.dwarf = !places.empty();
  }
  if (binary != nullptr) {
    const bool named = origin_.symbol_table || (origin_.debug_file && builder.size() > 0);
    if (!named) {
      const StatusOr<ElfFile> mini = binary->ReadMiniDebugInfo();
      if (mini.ok()) add(*mini, SHT_SYMTAB, &origin_.mini_debug_info);
      if (!mini.ok() && mini.status().code() != StatusCode::kNotFound) failure = mini.status();
    }
    bool partial = !named && !origin_.mini_debug_info && !origin_.dwarf;
    if (!origin_.dwarf) {
      // A Go program that has a symbol table but no DWARF (-ldflags=-w) still gets lines.
      const size_t before = builder.size();
      const Status status = AddGoFunctions(*binary, partial ? &builder : nullptr, &places);
      if (!status.ok()) failure = status;
      origin_.go_functions = builder.size() > before || !places.empty();
      partial = partial && !origin_.go_functions;
    }
    if (partial) builder.set_max_extension(kMaxExtensionInPartialTable);
    add(*binary, SHT_DYNSYM, &origin_.dynamic_symbols);
    if (Status status = AddPltStubs(*binary, &builder); !status.ok()) failure = status;
  }
  const std::pair<bool, format::Origin> origins[] = {
      {origin_.symbol_table, format::kOriginSymbolTable},      {origin_.debug_file, format::kOriginDebugFile},
      {origin_.mini_debug_info, format::kOriginMiniDebugInfo}, {origin_.dynamic_symbols, format::kOriginDynamicSymbols},
      {origin_.go_functions, format::kOriginGoFunctions},      {origin_.dwarf, format::kOriginDwarf}};
  for (const auto& [applies, bit] : origins) facts.origin |= applies ? uint32_t{bit} : 0;
  facts.about = StrFormat("build_id=%s\n", build_id_.hex);
  if (origin_.debug_file) facts.about += StrFormat("debug_file=%s\n", origin_.debug_file_name);
  PlaceBuilder* kept_places = &places;
  if (!places.complete() || places.index_bytes() > options.max_memory_bytes) {
    kept_places = nullptr;  // names alone may still fit
    facts.origin &= ~uint32_t{format::kOriginDwarf};
    origin_.dwarf = false;
    failure = ResourceExhaustedError(StrFormat("%s: its lines and inlined functions need more than the limit of %s",
                                               source.path, FormatBytes(options.max_memory_bytes)));
  }
  index_ = std::move(builder).Build(kept_places, facts);
  const bool any_table = facts.origin != 0;
  if (index_.memory_bytes() > options.max_memory_bytes) {
    index_ = SymbolIndex();
    failure = ResourceExhaustedError(StrFormat("%s: its symbols need more than the limit of %s", source.path,
                                               FormatBytes(options.max_memory_bytes)));
    SetProblem(MissReason::kLimitReached, std::string(Message(failure)));
  } else if (any_table) {
    problem_ = MissReason::kNone;  // a debug file may have helped where the binary was gone
    problem_detail_ = failure.ok() ? "" : std::string(Message(failure));
    // What is incomplete is made anew another time.
    if (failure.ok() && options.cache != nullptr && !debug_deferred_) {
      if (StatusOr<SymbolIndex> mapped = options.cache->Store(build_id_, index_); mapped.ok()) {
        index_ = *std::move(mapped);  // not stored: it stays in memory, and the cache counts the failure
      }
    }
  } else if (binary != nullptr) {
    // PLT names alone do not make a symbolized binary; they stay in the index.
    const MissReason reason = failure.ok() ? MissReason::kNoSymbols : ReasonForStatus(failure);
    SetProblem(reason, failure.ok() ? StrFormat("%s is stripped and no debug file was found", source.path)
                                    : std::string(Message(failure)));
  }
}

std::optional<ElfAddress> BinarySymbols::ToElfAddress(FileOffset offset) const {
  std::vector<elf::Segment> segments;
  for (const format::Segment& segment : index_.segments()) {
    segments.push_back({segment.type, segment.flags, FileOffset(segment.offset), ElfAddress(segment.address),
                        segment.file_bytes, segment.memory_bytes});
  }
  return elf::ToElfAddress(segments, offset);
}

}  // namespace pyrometer::symbolize

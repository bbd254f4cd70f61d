#include "userspace/elf/elf_file.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/elf/decompress.h"

namespace pyrometer::elf {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kSymbolPieceBytes = 64u << 10;

// Copies a struct out of bytes that may lie at any alignment. The caller has checked the size.
template <typename T>
T Load(std::string_view bytes, size_t offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename T>
StatusOr<T> LoadAt(const ByteSource& source, uint64_t offset) {
  char bytes[sizeof(T)];
  RETURN_IF_ERROR(source.ReadAt(offset, bytes));
  return Load<T>(std::string_view(bytes, sizeof(T)), 0);
}

template <typename Phdr>
Segment ToSegment(const Phdr& p) {
  return {p.p_type, p.p_flags, FileOffset(p.p_offset), ElfAddress(p.p_vaddr), p.p_filesz, p.p_memsz};
}

template <typename Shdr>
Section ToSection(const Shdr& s, uint32_t index) {
  Section section;
  section.index = index;
  section.type = s.sh_type;
  section.flags = s.sh_flags;
  section.address = ElfAddress(s.sh_addr);
  section.offset = FileOffset(s.sh_offset);
  section.size = s.sh_size;
  section.link = s.sh_link;
  section.info = s.sh_info;
  section.entry_size = s.sh_entsize;
  return section;
}

template <typename Sym>
RawSymbol ToSymbol(const Sym& s) {
  // The 32- and 64-bit macros for st_info are the same.
  return {ElfAddress(s.st_value),
          s.st_size,
          s.st_name,
          s.st_shndx,
          static_cast<uint8_t>(ELF64_ST_TYPE(s.st_info)),
          static_cast<uint8_t>(ELF64_ST_BIND(s.st_info))};
}

// What differs between the two header layouts, widened.
struct HeaderFields {
  uint64_t program_offset, section_offset;
  uint32_t program_entry, program_count, section_entry, section_count, names_index;
};

template <typename Ehdr>
HeaderFields ToFields(const Ehdr& h) {
  return {h.e_phoff, h.e_shoff, h.e_phentsize, h.e_phnum, h.e_shentsize, h.e_shnum, h.e_shstrndx};
}

bool Contains(uint64_t start, uint64_t size, uint64_t value) { return value >= start && value - start < size; }

}  // namespace

StatusOr<ElfFile> ElfFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource(path));
  return FromSource(std::move(source));
}

StatusOr<ElfFile> ElfFile::FromFd(SharedFd fd, std::string name) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, MakeFdSource(std::move(fd), std::move(name)));
  return FromSource(std::move(source));
}

StatusOr<ElfFile> ElfFile::FromBytes(std::shared_ptr<const std::string> bytes, std::string name) {
  return FromSource(MakeMemorySource(std::move(bytes), std::move(name)));
}

StatusOr<ElfFile> ElfFile::FromSource(std::unique_ptr<ByteSource> source) {
  ElfFile file(std::move(source));
  RETURN_IF_ERROR(file.ReadHeaders());
  return file;
}

Status ElfFile::ReadHeaders() {
  char identity[EI_NIDENT];
  if (source_->size() < EI_NIDENT || !source_->ReadAt(0, identity).ok() ||
      std::memcmp(identity, ELFMAG, SELFMAG) != 0) {
    return InvalidArgumentError(StrFormat("%s is not an ELF file", name()));
  }
  if (identity[EI_DATA] != ELFDATA2LSB) {
    return UnimplementedError(StrFormat("%s is a big-endian ELF file; only little-endian ones are read", name()));
  }
  if (identity[EI_CLASS] != ELFCLASS64 && identity[EI_CLASS] != ELFCLASS32) {
    return InvalidArgumentError(StrFormat("%s: unknown ELF class %d", name(), int{identity[EI_CLASS]}));
  }
  is_64bit_ = identity[EI_CLASS] == ELFCLASS64;

  HeaderFields fields;
  if (is_64bit_) {
    ASSIGN_OR_RETURN(const auto header, LoadAt<Elf64_Ehdr>(*source_, 0));
    fields = ToFields(header);
    type_ = header.e_type;
    machine_ = header.e_machine;
    entry_ = ElfAddress(header.e_entry);
  } else {
    ASSIGN_OR_RETURN(const auto header, LoadAt<Elf32_Ehdr>(*source_, 0));
    fields = ToFields(header);
    type_ = header.e_type;
    machine_ = header.e_machine;
    entry_ = ElfAddress(header.e_entry);
  }

  // Counts that do not fit the header live in section 0 (gABI "extended numbering").
  uint64_t section_count = fields.section_count;
  uint64_t names_index = fields.names_index;
  const uint64_t section_entry = is_64bit_ ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
  if (fields.section_offset != 0 && fields.section_entry == section_entry) {
    if (section_count == 0 || names_index == SHN_XINDEX || fields.program_count == PN_XNUM) {
      StatusOr<Section> zero = Section{};
      if (is_64bit_) {
        auto raw = LoadAt<Elf64_Shdr>(*source_, fields.section_offset);
        zero = raw.ok() ? StatusOr<Section>(ToSection(*raw, 0)) : raw.status();
      } else {
        auto raw = LoadAt<Elf32_Shdr>(*source_, fields.section_offset);
        zero = raw.ok() ? StatusOr<Section>(ToSection(*raw, 0)) : raw.status();
      }
      if (zero.ok()) {
        if (section_count == 0) section_count = zero->size;
        if (names_index == SHN_XINDEX) names_index = zero->link;
      } else {
        section_problem_ = zero.status();
        section_count = 0;
      }
    }
  } else if (fields.section_offset != 0 && section_count != 0) {
    section_problem_ = DataLossError(StrFormat("%s: section headers of %d bytes", name(), fields.section_entry));
    section_count = 0;
  } else {
    section_count = 0;
  }

  const uint64_t program_entry = is_64bit_ ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  if (fields.program_count == PN_XNUM) {
    return UnimplementedError(StrFormat("%s has 65,535 or more program headers", name()));
  }
  if (fields.program_count != 0) {
    if (fields.program_entry != program_entry) {
      return DataLossError(StrFormat("%s: program headers of %d bytes", name(), fields.program_entry));
    }
    const uint64_t bytes = fields.program_count * program_entry;
    ASSIGN_OR_RETURN(const std::string table, source_->Read(fields.program_offset, bytes, bytes));
    segments_.reserve(fields.program_count);
    for (uint32_t i = 0; i < fields.program_count; ++i) {
      segments_.push_back(is_64bit_ ? ToSegment(Load<Elf64_Phdr>(table, i * program_entry))
                                    : ToSegment(Load<Elf32_Phdr>(table, i * program_entry)));
    }
  }

  if (section_count != 0) {
    section_problem_ = ReadSections(fields.section_offset, section_count, section_entry, names_index);
    if (!section_problem_.ok()) sections_.clear();
  }
  return OkStatus();
}

Status ElfFile::ReadSections(uint64_t table_offset, uint64_t count, uint64_t entry_size, uint64_t names_index) {
  if (count > kMaxSections) {
    return ResourceExhaustedError(StrFormat("%s announces %d sections; the limit is %d", name(), count, kMaxSections));
  }
  ASSIGN_OR_RETURN(const std::string table, source_->Read(table_offset, count * entry_size, kMaxSections * entry_size));
  std::vector<uint32_t> name_offsets(count);
  sections_.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (is_64bit_) {
      const auto raw = Load<Elf64_Shdr>(table, i * entry_size);
      name_offsets[i] = raw.sh_name;
      sections_.push_back(ToSection(raw, i));
    } else {
      const auto raw = Load<Elf32_Shdr>(table, i * entry_size);
      name_offsets[i] = raw.sh_name;
      sections_.push_back(ToSection(raw, i));
    }
  }
  if (names_index == SHN_UNDEF) return OkStatus();  // allowed: sections without names
  if (names_index >= count || !sections_[names_index].has_bytes()) {
    return DataLossError(StrFormat("%s: section names are said to be in section %d of %d", name(), names_index, count));
  }
  const Section& names = sections_[names_index];
  ASSIGN_OR_RETURN(std::string bytes, source_->Read(names.offset.value, names.size, kMaxSectionNamesBytes));
  section_names_ = std::make_shared<const std::string>(std::move(bytes));
  const std::string_view all = *section_names_;
  for (uint32_t i = 0; i < count; ++i) {
    if (name_offsets[i] >= all.size()) continue;
    const std::string_view tail = all.substr(name_offsets[i]);
    const size_t end = tail.find('\0');
    if (end != std::string_view::npos) sections_[i].name = tail.substr(0, end);
  }
  return OkStatus();
}

std::optional<ElfAddress> ToElfAddress(const std::vector<Segment>& segments, FileOffset offset) {
  const auto convert = [offset](const Segment& segment) {
    return ElfAddress(segment.address.value +
                      (offset.value - segment.offset.value));  // may wrap, as the loader's sum does
  };
  const Segment* found = nullptr;
  for (const Segment& segment : segments) {
    if (segment.type != PT_LOAD || !Contains(segment.offset.value, segment.file_size, offset.value)) continue;
    if ((segment.flags & PF_X) != 0) return convert(segment);
    if (found == nullptr) found = &segment;
  }
  if (found != nullptr) return convert(*found);
  // The loader maps whole pages, so bytes around a segment on its first and last page are mapped with it.
  for (const Segment& segment : segments) {
    if (segment.type != PT_LOAD || segment.file_size == 0) continue;
    const uint64_t before = segment.offset.value % kPageBytes;
    const uint64_t after = (kPageBytes - (before + segment.file_size) % kPageBytes) % kPageBytes;
    if (offset.value >= segment.offset.value - before &&
        offset.value - (segment.offset.value - before) <
            std::min(segment.file_size, ~uint64_t{0} >> 1) + before + after) {
      return convert(segment);
    }
  }
  return std::nullopt;
}

std::optional<FileOffset> ElfFile::ToFileOffset(ElfAddress address) const {
  for (const Segment& segment : segments_) {
    if (segment.type == PT_LOAD && Contains(segment.address.value, segment.file_size, address.value)) {
      return FileOffset(segment.offset.value + (address.value - segment.address.value));
    }
  }
  return std::nullopt;
}

const Section* ElfFile::FindSection(std::string_view section_name) const {
  for (const Section& section : sections_) {
    if (section.type != SHT_NULL && section.name == section_name) return &section;
  }
  return nullptr;
}

const Section* ElfFile::FindSection(uint32_t section_type) const {
  for (const Section& section : sections_) {
    if (section.type == section_type) return &section;
  }
  return nullptr;
}

StatusOr<std::string> ElfFile::ReadSection(const Section& section, uint64_t max_bytes) const {
  if (!section.has_bytes()) {
    return NotFoundError(StrFormat("%s: section %s has no bytes in this file", name(), section.name));
  }
  ASSIGN_OR_RETURN(std::string stored, source_->Read(section.offset.value, section.size, max_bytes));
  const std::string_view bytes = stored;
  StatusOr<std::string> unpacked = std::string();
  if ((section.flags & SHF_COMPRESSED) != 0) {
    const size_t header_bytes = is_64bit_ ? sizeof(Elf64_Chdr) : sizeof(Elf32_Chdr);
    if (bytes.size() < header_bytes) {
      return DataLossError(StrFormat("%s: section %s is too short for its compression header", name(), section.name));
    }
    const uint32_t kind = is_64bit_ ? Load<Elf64_Chdr>(bytes, 0).ch_type : Load<Elf32_Chdr>(bytes, 0).ch_type;
    const std::string_view data = bytes.substr(header_bytes);
    constexpr uint32_t kElfCompressZstd = 2;  // ELFCOMPRESS_ZSTD; absent from glibc 2.36's elf.h
    if (kind == ELFCOMPRESS_ZLIB) {
      unpacked = DecompressZlib(data, max_bytes);
    } else if (kind == kElfCompressZstd) {
      unpacked = DecompressZstd(data, max_bytes);
    } else {
      return UnimplementedError(StrFormat("%s: section %s has compression type %d", name(), section.name, kind));
    }
  } else if (section.name.starts_with(".zdebug") && bytes.starts_with("ZLIB") && bytes.size() >= 12) {
    unpacked = DecompressZlib(bytes.substr(12), max_bytes);  // "ZLIB", big-endian unpacked size, zlib data
  } else {
    return stored;
  }
  if (!unpacked.ok()) {
    return WithContext(unpacked.status(), StrFormat("%s: section %s", name(), section.name));
  }
  return unpacked;
}

StatusOr<std::string> ElfFile::ReadMemory(ElfAddress address, uint64_t size, uint64_t max_bytes) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD || !Contains(segment.address.value, segment.file_size, address.value)) continue;
    const uint64_t skip = address.value - segment.address.value;
    if (size > segment.file_size - skip) break;
    return source_->Read(segment.offset.value + skip, size, max_bytes);
  }
  return NotFoundError(StrFormat("%s: no bytes at address %#x", name(), address.value));
}

Status ElfFile::ForEachSymbol(const Section& table, const SymbolVisitor& visit) const {
  if (table.type != SHT_SYMTAB && table.type != SHT_DYNSYM) {
    return InvalidArgumentError(StrFormat("%s: section %s is not a symbol table", name(), table.name));
  }
  const uint64_t entry = is_64bit_ ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
  if (table.entry_size != entry) {
    return DataLossError(StrFormat("%s: %s has entries of %d bytes", name(), table.name, table.entry_size));
  }
  if ((table.flags & SHF_COMPRESSED) != 0) {
    return UnimplementedError(StrFormat("%s: %s is compressed", name(), table.name));
  }
  if (table.size > source_->size() || table.offset.value > source_->size() - table.size) {
    return DataLossError(StrFormat("%s: %s lies past the file's end", name(), table.name));
  }
  if (table.size > kMaxSymbolTableBytes) {
    return ResourceExhaustedError(StrFormat("%s: %s has %s; the limit is %s", name(), table.name,
                                            FormatBytes(table.size), FormatBytes(kMaxSymbolTableBytes)));
  }
  const uint64_t count = table.size / entry;
  const uint64_t per_piece = kSymbolPieceBytes / entry;
  std::vector<RawSymbol> symbols;
  std::string bytes;
  for (uint64_t first = 0; first < count;) {
    // A hole is null symbols only: continue at the entry that the next data byte belongs to.
    const uint64_t data = source_->NextData(table.offset.value + first * entry);
    first = std::max(first, (data - table.offset.value) / entry);
    if (first >= count) break;
    const uint64_t n = std::min(per_piece, count - first);
    bytes.resize(n * entry);
    RETURN_IF_ERROR(source_->ReadAt(table.offset.value + first * entry, bytes));
    symbols.clear();
    for (uint64_t i = 0; i < n; ++i) {
      symbols.push_back(is_64bit_ ? ToSymbol(Load<Elf64_Sym>(bytes, i * entry))
                                  : ToSymbol(Load<Elf32_Sym>(bytes, i * entry)));
    }
    visit(first, symbols);
    first += n;
  }
  return OkStatus();
}

StatusOr<std::vector<RawRelocation>> ElfFile::ReadRelocations(const Section& section, uint64_t max_count) const {
  const bool with_addend = section.type == SHT_RELA;
  if (!with_addend && section.type != SHT_REL) {
    return InvalidArgumentError(StrFormat("%s: section %s holds no relocations", name(), section.name));
  }
  const uint64_t entry = is_64bit_ ? (with_addend ? sizeof(Elf64_Rela) : sizeof(Elf64_Rel))
                                   : (with_addend ? sizeof(Elf32_Rela) : sizeof(Elf32_Rel));
  if (section.entry_size != entry) {
    return DataLossError(StrFormat("%s: %s has entries of %d bytes", name(), section.name, section.entry_size));
  }
  ASSIGN_OR_RETURN(const std::string bytes, source_->Read(section.offset.value, section.size, max_count * entry));
  std::vector<RawRelocation> relocations;
  relocations.reserve(bytes.size() / entry);
  for (size_t at = 0; at + entry <= bytes.size(); at += entry) {
    // RELA begins with the fields of REL, in both classes.
    RawRelocation relocation;
    if (is_64bit_) {
      const auto raw = Load<Elf64_Rel>(bytes, at);
      relocation = {ElfAddress(raw.r_offset), static_cast<uint32_t>(ELF64_R_SYM(raw.r_info)),
                    static_cast<uint32_t>(ELF64_R_TYPE(raw.r_info))};
      if (with_addend) relocation.addend = Load<Elf64_Rela>(bytes, at).r_addend;
    } else {
      const auto raw = Load<Elf32_Rel>(bytes, at);
      relocation = {ElfAddress(raw.r_offset), ELF32_R_SYM(raw.r_info), ELF32_R_TYPE(raw.r_info)};
      if (with_addend) relocation.addend = Load<Elf32_Rela>(bytes, at).r_addend;
    }
    relocations.push_back(relocation);
  }
  return relocations;
}

const Section* ElfFile::LinkedStrings(const Section& table) const {
  if (table.link == 0 || table.link >= sections_.size()) return nullptr;
  const Section& strings = sections_[table.link];
  return strings.type == SHT_STRTAB && (strings.flags & SHF_COMPRESSED) == 0 ? &strings : nullptr;
}

StatusOr<std::string_view> StringTableReader::At(uint64_t offset) {
  constexpr uint64_t kWindowBytes = 256u << 10;
  static_assert(kWindowBytes > kMaxNameBytes);
  if (offset >= table_.size) return std::string_view();
  const uint64_t left = table_.size - offset;
  const uint64_t wanted = std::min<uint64_t>(left, kMaxNameBytes + 1);
  const bool inside = offset >= window_start_ && offset - window_start_ < window_.size();
  std::string_view tail = inside ? std::string_view(window_).substr(offset - window_start_) : std::string_view();
  // Search no farther than a name may be long: a table without any NUL must not cost its size per name.
  size_t end = tail.substr(0, wanted).find('\0');
  if (end == std::string_view::npos && tail.size() < wanted) {
    const uint64_t from = table_.size <= kWholeTableBytes ? 0 : offset;
    const uint64_t bytes = table_.size <= kWholeTableBytes ? table_.size : std::min(left, kWindowBytes);
    if (table_.offset.value > file_.source().size()) {
      return DataLossError(StrFormat("%s: its strings lie past its end", file_.name()));
    }
    window_.resize(bytes);
    window_start_ = from;
    if (Status status = file_.source().ReadAt(table_.offset.value + from, window_); !status.ok()) {
      window_.clear();
      return status;
    }
    tail = std::string_view(window_).substr(offset - from);
    end = tail.substr(0, wanted).find('\0');
  }
  return tail.substr(0, std::min<size_t>(end, kMaxNameBytes));
}

}  // namespace pyrometer::elf

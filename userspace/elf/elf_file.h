// One ELF file, read with every count, size and offset checked: it belongs to a stranger.
//
//   ASSIGN_OR_RETURN(ElfFile file, ElfFile::Open("/usr/bin/python3"));
//   ASSIGN_OR_RETURN(BuildId id, file.ReadBuildId());
//   std::optional<ElfAddress> address = file.ToElfAddress(FileOffset(0x1234));
//
// Both classes (32 and 64 bit) are read, little endian only. Only headers are read when opening;
// sections are read when asked for, never mapped (see byte_source.h). A file without usable section
// headers still opens: sections() is then empty and section_problem() says why; program headers
// that cannot be read are an error.
//
// Threads: const methods from any thread. Cost: opening a 110 MB library reads 4 small pieces;
// memory is what the section header table needs (64 bytes a section).
// Does not promise a consistent view of a file that somebody rewrites meanwhile.
#pragma once

#include <elf.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/base/types.h"
#include "userspace/elf/byte_source.h"

namespace pyrometer::elf {

// Limits on what a stranger can make us read. Largest seen of each kind in brackets.
inline constexpr uint64_t kMaxSections = 1u << 18;            // [libLLVM: 34; kernel modules with LTO: ~40,000]
inline constexpr uint64_t kMaxSectionNamesBytes = 16u << 20;  // [.shstrtab, 1 MiB]
inline constexpr uint64_t kMaxSectionBytes = 2ull << 30;      // default of ReadSection [ceph-osd .debug_info: 381 MB]
inline constexpr uint64_t kMaxNoteBytes = 1u << 20;           // [core-like notes in Go binaries: 4 KiB]
inline constexpr uint64_t kMaxDebugDataBytes = 512ull << 20;  // .gnu_debugdata unpacked [libwebkit: 40 MB]
inline constexpr uint64_t kMaxSymbolTableBytes = 1ull << 30;  // 44 M symbols [chromium: ~1 M]

// One entry of the program header table (both classes widened to 64 bit).
struct Segment {
  uint32_t type = 0;         // PT_LOAD, PT_NOTE, …
  uint32_t flags = 0;        // PF_X | PF_W | PF_R
  FileOffset offset;         // where its bytes begin in the file
  ElfAddress address;        // p_vaddr
  uint64_t file_size = 0;    // bytes present in the file
  uint64_t memory_size = 0;  // bytes in memory; the rest is zeros
};

// One entry of the section header table (both classes widened to 64 bit).
struct Section {
  std::string_view name;    // valid as long as the ElfFile it came from; "" when its name is out of range
  uint32_t index = 0;       // position in the table
  uint32_t type = 0;        // SHT_SYMTAB, …
  uint64_t flags = 0;       // SHF_EXECINSTR, SHF_COMPRESSED, …
  ElfAddress address;       // sh_addr, 0 when not in memory
  FileOffset offset;        // where its bytes begin
  uint64_t size = 0;        // bytes in the file, or in memory for SHT_NOBITS
  uint32_t link = 0;        // string table of a symbol table, …
  uint32_t info = 0;        // by type
  uint64_t entry_size = 0;  // of tables

  bool has_bytes() const { return type != SHT_NOBITS && type != SHT_NULL; }
  bool executable() const { return (flags & SHF_EXECINSTR) != 0 && (flags & SHF_ALLOC) != 0; }
};

// One symbol as stored (both classes widened).
struct RawSymbol {
  ElfAddress address;         // st_value
  uint64_t size = 0;          // st_size; 0 = unknown
  uint32_t name = 0;          // offset in the linked string table
  uint16_t section = 0;       // SHN_UNDEF = defined elsewhere
  uint8_t type = STT_NOTYPE;  // STT_FUNC, STT_GNU_IFUNC, …
  uint8_t binding = STB_LOCAL;
};

// One relocation of a `.rela.*`/`.rel.*` section.
struct RawRelocation {
  ElfAddress target;    // r_offset
  uint32_t symbol = 0;  // index in the linked symbol table
  uint32_t type = 0;    // R_X86_64_JUMP_SLOT, …
  int64_t addend = 0;   // 0 in `.rel.*`
};

// Where a stripped binary says its debug file is: `.gnu_debuglink`.
struct DebugLink {
  std::string file_name;  // a base name: never contains '/'
  uint32_t crc32 = 0;     // of the whole debug file
};

// Shared part of dwz'ed debug information: `.gnu_debugaltlink`.
struct DebugAltLink {
  std::string path;  // absolute, or relative to the file naming it; a stranger's word
  BuildId build_id;  // of the file meant
};

// The address by program headers of a byte of the file, executable segments first. Offsets that
// only the loader's page rounding maps (around a segment, on its first and last page) count too.
std::optional<ElfAddress> ToElfAddress(const std::vector<Segment>& segments, FileOffset offset);

class ElfFile {
 public:
  static StatusOr<ElfFile> Open(const std::string& path);
  // `name` is for messages. The descriptor's file position is not used.
  static StatusOr<ElfFile> FromFd(SharedFd fd, std::string name);
  // A whole image in memory: the vdso, unpacked minidebuginfo. Keeps `bytes` alive.
  static StatusOr<ElfFile> FromBytes(std::shared_ptr<const std::string> bytes, std::string name);
  static StatusOr<ElfFile> FromSource(std::unique_ptr<ByteSource> source);

  bool is_64bit() const { return is_64bit_; }
  uint16_t type() const { return type_; }        // ET_EXEC, ET_DYN, …
  uint16_t machine() const { return machine_; }  // EM_X86_64, …
  ElfAddress entry() const { return entry_; }
  const std::vector<Segment>& segments() const { return segments_; }
  // The table as stored, index 0 (the null section) included; empty when absent or unusable.
  const std::vector<Section>& sections() const { return sections_; }
  // OK, or why sections() is empty although the header announces some.
  const Status& section_problem() const { return section_problem_; }
  const ByteSource& source() const { return *source_; }
  const std::string& name() const { return source_->name(); }

  std::optional<ElfAddress> ToElfAddress(FileOffset offset) const { return elf::ToElfAddress(segments_, offset); }
  std::optional<FileOffset> ToFileOffset(ElfAddress address) const;

  // First section of that name or nullptr; the pointer lives as long as this object.
  const Section* FindSection(std::string_view name) const;
  const Section* FindSection(uint32_t type) const;
  // Content, decompressed if SHF_COMPRESSED or `.zdebug*`. Bounds both the stored and the unpacked size.
  StatusOr<std::string> ReadSection(const Section& section, uint64_t max_bytes = kMaxSectionBytes) const;
  bool IsCompressed(const Section& section) const;
  // A compressed section unpacked piece by piece (at most 256 KiB each) into `sink`, whose error ends it;
  // RESOURCE_EXHAUSTED above `max_bytes`. Memory: two pieces and zstd's window (at most 128 MiB).
  using PieceSink = std::function<Status(std::string_view piece)>;
  Status UnpackSection(const Section& section, uint64_t max_bytes, const PieceSink& sink) const;
  // Bytes at an address (for stubs, notes), as stored.
  StatusOr<std::string> ReadMemory(ElfAddress address, uint64_t size, uint64_t max_bytes) const;

  // NT_GNU_BUILD_ID from PT_NOTE, then from note sections; without one "hash:" + 32 hex digits:
  // XXH3-128 over machine, entry, load segments, notes and the first 64 MiB of executable bytes.
  // The hash survives stripping (section headers are not part of it). Cost without a note: reads
  // the executable bytes, ~0.3 ms per MiB from the page cache.
  StatusOr<BuildId> ReadBuildId() const;
  // NOT_FOUND when the file carries none.
  StatusOr<DebugLink> ReadDebugLink() const;
  StatusOr<DebugAltLink> ReadDebugAltLink() const;
  // The ELF file packed in `.gnu_debugdata`; NOT_FOUND when absent.
  StatusOr<ElfFile> ReadMiniDebugInfo() const;

  // Streams a SHT_SYMTAB or SHT_DYNSYM section in pieces of at most 64 KiB; holes of sparse files
  // are skipped. `visit` gets each piece and the index of its first symbol.
  using SymbolVisitor = std::function<void(uint64_t first_index, const std::vector<RawSymbol>&)>;
  Status ForEachSymbol(const Section& table, const SymbolVisitor& visit) const;
  // All relocations of a SHT_RELA or SHT_REL section, at most `max_count`.
  StatusOr<std::vector<RawRelocation>> ReadRelocations(const Section& section, uint64_t max_count) const;
  // The string table that `table` links to; nullptr when the link is wrong.
  const Section* LinkedStrings(const Section& table) const;

 private:
  explicit ElfFile(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}

  Status ReadHeaders();
  Status ReadSections(uint64_t table_offset, uint64_t count, uint64_t entry_size, uint64_t names_index);
  StatusOr<BuildId> FallbackBuildId() const;

  std::unique_ptr<ByteSource> source_;
  bool is_64bit_ = true;
  uint16_t type_ = 0;
  uint16_t machine_ = 0;
  ElfAddress entry_;
  std::vector<Segment> segments_;
  std::shared_ptr<const std::string> section_names_;  // what Section::name points into
  std::vector<Section> sections_;
  Status section_problem_;
};

// Strings of one table. Tables up to 32 MiB are read whole at first use; larger ones through a window
// of 256 KiB, cheap when asked in ascending order. Not thread-safe; lives no longer than `file`.
class StringTableReader {
 public:
  // Larger tables should be asked in ascending order.
  static constexpr uint64_t kWholeTableBytes = 32u << 20;
  // Longer names are cut here [longest mangled name in libLLVM, chromium: 3,971 bytes].
  static constexpr size_t kMaxNameBytes = 8 << 10;

  StringTableReader(const ElfFile& file, const Section& table) : file_(file), table_(table) {}

  // The string at `offset`, valid until the next call; "" at the table's end and beyond.
  StatusOr<std::string_view> At(uint64_t offset);

 private:
  const ElfFile& file_;
  const Section& table_;
  uint64_t window_start_ = 0;
  std::string window_;
};

// Looks for NT_GNU_BUILD_ID in the bytes of a note segment or section (4- and 8-byte aligned
// layouts). Empty when there is none.
BuildId FindBuildIdNote(std::string_view notes);

// CRC-32 as `.gnu_debuglink` defines it (zlib's), over the whole source; RESOURCE_EXHAUSTED above `max_bytes`.
StatusOr<uint32_t> Crc32OfSource(const ByteSource& source, uint64_t max_bytes);

}  // namespace pyrometer::elf

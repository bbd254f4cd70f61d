// The debug sections of one file, and reading them in pieces.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<DebugFile> file, DebugFile::Open(elf_file, {}, SectionNames::kPlain));
//   std::string buffer;
//   ASSIGN_OR_RETURN(std::string_view unit, file->info.View(offset, size, &buffer));
//
// Files are read with pread and never mapped (elf/byte_source.h says why): one that changes under us
// gives an error, not a SIGBUS. Compressed sections are unpacked once, piece by piece, into a file without
// name in `scratch_folder` (an anonymous one in memory when that is empty), so that they cost disk
// and not memory. Sections of relocatable objects (kernel modules) are read whole and relocated.
//
// Threads: const methods from any thread. Cost: a View is one copy from the page cache, ~0.15 ms per MiB;
// unpacking runs at zlib's ~300 MB/s.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/elf/byte_source.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::dwarf {

struct OpenOptions {
  std::string scratch_folder;                       // for unpacked sections; empty: in memory
  uint64_t max_unpacked_bytes = 8ull << 30;         // of one section, in a folder [libwebkit .debug_info: 2 GiB]
  uint64_t max_unpacked_memory_bytes = 512u << 20;  // of one section, without a folder
  uint64_t max_relocated_bytes = 256u << 20;        // of one section of a relocatable object [amdgpu.ko: 60 MiB]
};

// Some bytes of a file, or of memory. A value that borrows from its DebugFile.
class Section {
 public:
  Section() = default;
  Section(const elf::ByteSource* source, uint64_t offset, uint64_t size)
      : source_(source), offset_(offset), size_(size) {}

  uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // [offset, offset + size) copied into `buffer`, or DATA_LOSS; valid until `buffer` changes.
  StatusOr<std::string_view> View(uint64_t offset, uint64_t size, std::string* buffer) const;
  // A part; empty when it does not lie within.
  Section Part(uint64_t offset, uint64_t size) const;

 private:
  const elf::ByteSource* source_ = nullptr;
  uint64_t offset_ = 0;
  uint64_t size_ = 0;
};

// Small reads near each other: keeps the piece read last. Not thread-safe.
class Window {
 public:
  Window() = default;
  explicit Window(Section section, uint64_t piece_bytes = kPieceBytes) : section_(section), piece_bytes_(piece_bytes) {}

  const Section& section() const { return section_; }
  // At least `wanted` bytes from `offset`, fewer only at the section's end; empty at its end, beyond
  // it and when reading fails (then status() says why). Valid until the next call.
  std::string_view At(uint64_t offset, uint64_t wanted);
  // `bytes` (1 to 8) little-endian at `offset`; false past the end.
  bool Number(uint64_t offset, unsigned bytes, uint64_t* value);
  // The NUL-terminated string at `offset`, cut at kMaxStringBytes; "" past the end.
  std::string_view String(uint64_t offset);
  const Status& status() const { return status_; }

  // Longer names are cut [longest mangled name in ceph-osd: 6,100 bytes].
  static constexpr uint64_t kMaxStringBytes = 16u << 10;

 private:
  static constexpr uint64_t kPieceBytes = 64u << 10;

  Section section_;
  uint64_t piece_bytes_ = kPieceBytes;
  uint64_t start_ = 0;
  std::string piece_;
  Status status_;
};

enum class SectionNames {
  kPlain,  // .debug_info
  kSplit,  // .debug_info.dwo
};

struct DebugSections {
  Section info, types, abbrev, line, str, line_str, str_offsets, addr, ranges, rnglists, cu_index;
};

class DebugFile {
 public:
  // NOT_FOUND when the file has no .debug_info.
  static StatusOr<std::unique_ptr<DebugFile>> Open(std::shared_ptr<const elf::ElfFile> file, const OpenOptions& options,
                                                   SectionNames names);

  const elf::ElfFile& elf() const { return *elf_; }
  const std::string& name() const { return elf_->name(); }
  // Bytes of all sections below, unpacked.
  uint64_t total_bytes() const;

  const DebugSections& sections() const { return sections_; }

 private:
  Status Add(const char* name, const OpenOptions& options, SectionNames names, Section* section);
  Status AddRelocated(const elf::Section& section, const OpenOptions& options, Section* result);

  std::shared_ptr<const elf::ElfFile> elf_;
  DebugSections sections_;
  std::vector<std::unique_ptr<elf::ByteSource>> unpacked_;
};

// Where the sections of a relocatable object would lie if they were loaded one behind the other: index of
// the section -> address. Such files give every section the address 0; this makes their code distinct.
std::vector<uint64_t> LayOutRelocatable(const elf::ElfFile& file);

}  // namespace pyrometer::dwarf

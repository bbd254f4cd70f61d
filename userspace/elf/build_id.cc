// Identity of a binary, and where its separated debug information is.
#include <xxhash.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/elf/decompress.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::elf {
namespace {

// SHA-1 has 20 bytes, `--build-id=0x…` may give any; 64 is what debuginfod and systemd accept.
constexpr size_t kMaxBuildIdBytes = 64;
constexpr uint64_t kMaxHashedBytes = 64ull << 20;
constexpr uint64_t kHashPieceBytes = 1u << 20;
constexpr uint64_t kMaxLinkBytes = 8u << 10;

BuildId FindBuildIdNoteAligned(std::string_view notes, size_t alignment) {
  const auto round_up = [alignment](uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
  size_t at = 0;
  while (notes.size() - at >= sizeof(Elf64_Nhdr)) {  // the 32-bit header is the same
    Elf64_Nhdr header;
    std::memcpy(&header, notes.data() + at, sizeof(header));
    const uint64_t name_at = at + sizeof(header);
    const uint64_t data_at = round_up(name_at + header.n_namesz);
    const uint64_t end = data_at + header.n_descsz;  // sums of 32-bit values: no overflow
    if (data_at > notes.size() || end > notes.size()) break;
    if (header.n_type == NT_GNU_BUILD_ID && header.n_descsz > 0 && header.n_descsz <= kMaxBuildIdBytes &&
        notes.substr(name_at, header.n_namesz) == std::string_view("GNU\0", 4)) {
      return BuildId{HexEncode(notes.substr(data_at, header.n_descsz))};
    }
    at = std::min<uint64_t>(round_up(end), notes.size());
  }
  return {};
}

struct HashDeleter {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

}  // namespace

BuildId FindBuildIdNote(std::string_view notes) {
  BuildId id = FindBuildIdNoteAligned(notes, 4);
  return id.empty() ? FindBuildIdNoteAligned(notes, 8) : id;
}

StatusOr<BuildId> ElfFile::ReadBuildId() const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_NOTE) continue;
    // Unreadable notes (a debug file keeps the program header but not the bytes) are no error: look on.
    const auto notes = source_->Read(segment.offset.value, segment.file_size, kMaxNoteBytes);
    if (!notes.ok()) continue;
    if (BuildId id = FindBuildIdNote(*notes); !id.empty()) return id;
  }
  for (const Section& section : sections_) {
    if (section.type != SHT_NOTE) continue;
    const auto notes = source_->Read(section.offset.value, section.size, kMaxNoteBytes);
    if (!notes.ok()) continue;
    if (BuildId id = FindBuildIdNote(*notes); !id.empty()) return id;
  }
  return FallbackBuildId();
}

StatusOr<BuildId> ElfFile::FallbackBuildId() const {
  const std::unique_ptr<XXH3_state_t, HashDeleter> state(XXH3_createState());
  if (state == nullptr || XXH3_128bits_reset(state.get()) != XXH_OK) return InternalError("cannot start hashing");
  const auto add_number = [&](uint64_t value) { XXH3_128bits_update(state.get(), &value, sizeof(value)); };
  // What the fallback covers is part of its identity: change the tag when changing it.
  constexpr std::string_view kTag = "pyrometer-elf-1";
  XXH3_128bits_update(state.get(), kTag.data(), kTag.size());
  add_number(machine_);
  add_number(entry_.value);
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD) continue;
    add_number(segment.flags);
    add_number(segment.offset.value);
    add_number(segment.address.value);
    add_number(segment.file_size);
    add_number(segment.memory_size);
  }
  uint64_t left = kMaxHashedBytes;
  std::string content;
  const size_t header_bytes = is_64bit_ ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
  for (const Segment& segment : segments_) {
    const bool code = segment.type == PT_LOAD && (segment.flags & PF_X) != 0;
    if (!code && segment.type != PT_NOTE) continue;
    uint64_t at = segment.offset.value;
    uint64_t bytes = std::min(segment.file_size, left);
    // Old layouts load the ELF header with the code, and stripping rewrites its section fields.
    if (at < header_bytes) {
      const uint64_t skip = std::min(bytes, header_bytes - at);
      at += skip;
      bytes -= skip;
    }
    while (bytes > 0) {
      const uint64_t piece = std::min(bytes, kHashPieceBytes);
      content.resize(piece);
      RETURN_IF_ERROR(source_->ReadAt(at, content));
      XXH3_128bits_update(state.get(), content.data(), content.size());
      at += piece;
      bytes -= piece;
      left -= piece;
    }
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return BuildId{StrFormat("hash:%016x%016x", hash.high64, hash.low64)};
}

StatusOr<DebugLink> ElfFile::ReadDebugLink() const {
  const Section* section = FindSection(".gnu_debuglink");
  if (section == nullptr) return NotFoundError(StrFormat("%s has no .gnu_debuglink", name()));
  ASSIGN_OR_RETURN(const std::string bytes, ReadSection(*section, kMaxLinkBytes));
  const size_t length = bytes.find('\0');
  if (length == std::string::npos || length == 0) return DataLossError(StrFormat("%s: corrupt .gnu_debuglink", name()));
  const size_t crc_at = (length + 1 + 3) / 4 * 4;
  if (crc_at + 4 > bytes.size()) return DataLossError(StrFormat("%s: corrupt .gnu_debuglink", name()));
  DebugLink link;
  link.file_name = bytes.substr(0, length);
  if (link.file_name.find('/') != std::string::npos || link.file_name == "." || link.file_name == "..") {
    return DataLossError(StrFormat("%s: its .gnu_debuglink is not a file name", name()));
  }
  std::memcpy(&link.crc32, bytes.data() + crc_at, sizeof(link.crc32));
  return link;
}

StatusOr<DebugAltLink> ElfFile::ReadDebugAltLink() const {
  const Section* section = FindSection(".gnu_debugaltlink");
  if (section == nullptr) return NotFoundError(StrFormat("%s has no .gnu_debugaltlink", name()));
  ASSIGN_OR_RETURN(const std::string bytes, ReadSection(*section, kMaxLinkBytes));
  const size_t length = bytes.find('\0');
  if (length == std::string::npos || length == 0 || length + 1 >= bytes.size() ||
      bytes.size() - length - 1 > kMaxBuildIdBytes) {
    return DataLossError(StrFormat("%s: corrupt .gnu_debugaltlink", name()));
  }
  return DebugAltLink{bytes.substr(0, length), BuildId{HexEncode(std::string_view(bytes).substr(length + 1))}};
}

StatusOr<ElfFile> ElfFile::ReadMiniDebugInfo() const {
  const Section* section = FindSection(".gnu_debugdata");
  if (section == nullptr) return NotFoundError(StrFormat("%s has no .gnu_debugdata", name()));
  ASSIGN_OR_RETURN(const std::string packed, ReadSection(*section, kMaxDebugDataBytes));
  StatusOr<std::string> unpacked = DecompressXz(packed, kMaxDebugDataBytes);
  if (!unpacked.ok()) return WithContext(unpacked.status(), StrFormat("%s: .gnu_debugdata", name()));
  return FromBytes(std::make_shared<const std::string>(*std::move(unpacked)), name() + " (.gnu_debugdata)");
}

StatusOr<uint32_t> Crc32OfSource(const ByteSource& source, uint64_t max_bytes) {
  if (source.size() > max_bytes) {
    return ResourceExhaustedError(StrFormat("%s has %s; checksums are computed up to %s", source.name(),
                                            FormatBytes(source.size()), FormatBytes(max_bytes)));
  }
  uLong crc = crc32(0, nullptr, 0);
  std::string piece;
  for (uint64_t at = 0; at < source.size(); at += piece.size()) {
    piece.resize(std::min(kHashPieceBytes, source.size() - at));
    RETURN_IF_ERROR(source.ReadAt(at, piece));
    crc = crc32(crc, reinterpret_cast<const Bytef*>(piece.data()), static_cast<uInt>(piece.size()));
  }
  return static_cast<uint32_t>(crc);
}

}  // namespace pyrometer::elf

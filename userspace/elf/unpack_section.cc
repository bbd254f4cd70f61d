// Compressed sections in pieces: debug sections unpack to gigabytes, which nobody should hold.
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::elf {
namespace {

constexpr uint64_t kPieceBytes = 256u << 10;
constexpr uint32_t kElfCompressZstd = 2;  // ELFCOMPRESS_ZSTD; absent from glibc 2.36's elf.h
// zstd window: 128 MiB is the format's largest without --long=28 and up.
constexpr int kZstdWindowLog = 27;

using Sink = ElfFile::PieceSink;

// Counts what went out and passes it on.
class LimitedSink {
 public:
  LimitedSink(uint64_t max_bytes, const Sink& sink) : left_(max_bytes), max_bytes_(max_bytes), sink_(sink) {}
  Status Take(std::string_view piece) {
    if (piece.size() > left_) {
      return ResourceExhaustedError(StrFormat("decompresses to more than the limit of %s", FormatBytes(max_bytes_)));
    }
    left_ -= piece.size();
    return piece.empty() ? OkStatus() : sink_(piece);
  }

 private:
  uint64_t left_;
  uint64_t max_bytes_;
  const Sink& sink_;
};

Status Inflate(const ByteSource& source, uint64_t offset, uint64_t size, LimitedSink& sink) {
  z_stream stream = {};
  if (inflateInit(&stream) != Z_OK) return InternalError("zlib cannot start");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> closer(&stream, inflateEnd);
  std::string in(kPieceBytes, '\0'), out(kPieceBytes, '\0');
  while (true) {
    if (stream.avail_in == 0) {
      in.resize(std::min(size, kPieceBytes));
      if (in.empty()) return DataLossError("truncated zlib data");
      RETURN_IF_ERROR(source.ReadAt(offset, in));
      offset += in.size();
      size -= in.size();
      stream.next_in = reinterpret_cast<Bytef*>(in.data());
      stream.avail_in = static_cast<uInt>(in.size());
    }
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    const int result = inflate(&stream, Z_NO_FLUSH);
    RETURN_IF_ERROR(sink.Take(std::string_view(out).substr(0, out.size() - stream.avail_out)));
    if (result == Z_STREAM_END) return OkStatus();
    if (result != Z_OK && result != Z_BUF_ERROR) return DataLossError("corrupt zlib data");
  }
}

Status Unzstd(const ByteSource& source, uint64_t offset, uint64_t size, LimitedSink& sink) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  if (context == nullptr) return InternalError("zstd cannot start");
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kZstdWindowLog);
  std::string in_bytes, out_bytes(kPieceBytes, '\0');
  ZSTD_inBuffer in{nullptr, 0, 0};
  bool full = false;  // the last call may have more to give without new input
  while (true) {
    if (in.pos == in.size && !full) {
      in_bytes.resize(std::min(size, kPieceBytes));
      if (in_bytes.empty()) return DataLossError("truncated zstd data");
      RETURN_IF_ERROR(source.ReadAt(offset, in_bytes));
      offset += in_bytes.size();
      size -= in_bytes.size();
      in = {in_bytes.data(), in_bytes.size(), 0};
    }
    ZSTD_outBuffer out{out_bytes.data(), out_bytes.size(), 0};
    const size_t result = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(result)) return DataLossError(StrFormat("corrupt zstd data: %s", ZSTD_getErrorName(result)));
    RETURN_IF_ERROR(sink.Take(std::string_view(out_bytes).substr(0, out.pos)));
    full = out.pos == out.size;
    if (result == 0 && in.pos == in.size && size == 0) return OkStatus();
  }
}

}  // namespace

bool ElfFile::IsCompressed(const Section& section) const {
  return (section.flags & SHF_COMPRESSED) != 0 || section.name.starts_with(".zdebug");
}

Status ElfFile::UnpackSection(const Section& section, uint64_t max_bytes, const PieceSink& sink) const {
  if (!section.has_bytes()) {
    return NotFoundError(StrFormat("%s: section %s has no bytes in this file", name(), section.name));
  }
  const auto corrupt = [&](std::string_view why) {
    return DataLossError(StrFormat("%s: section %s %s", name(), section.name, why));
  };
  if (section.size > source_->size() || section.offset.value > source_->size() - section.size) {
    return corrupt("lies past the file's end");
  }
  uint64_t header_bytes = 0;
  uint32_t kind = ELFCOMPRESS_ZLIB;
  if ((section.flags & SHF_COMPRESSED) != 0) {
    header_bytes = is_64bit_ ? sizeof(Elf64_Chdr) : sizeof(Elf32_Chdr);
    if (section.size < header_bytes) return corrupt("is too short for its compression header");
    char type[sizeof(uint32_t)];  // first in both classes
    RETURN_IF_ERROR(source_->ReadAt(section.offset.value, type));
    std::memcpy(&kind, type, sizeof(kind));
  } else {
    header_bytes = 12;  // "ZLIB", big-endian unpacked size
    char mark[4];
    if (section.size < header_bytes) return corrupt("is too short for its compression header");
    RETURN_IF_ERROR(source_->ReadAt(section.offset.value, mark));
    if (std::string_view(mark, sizeof(mark)) != "ZLIB") return corrupt("has no compression header");
  }
  LimitedSink limited(max_bytes, sink);
  Status status;
  if (kind == ELFCOMPRESS_ZLIB) {
    status = Inflate(*source_, section.offset.value + header_bytes, section.size - header_bytes, limited);
  } else if (kind == kElfCompressZstd) {
    status = Unzstd(*source_, section.offset.value + header_bytes, section.size - header_bytes, limited);
  } else {
    return UnimplementedError(StrFormat("%s: section %s has compression type %d", name(), section.name, kind));
  }
  return status.ok() ? status : WithContext(status, StrFormat("%s: section %s", name(), section.name));
}

}  // namespace pyrometer::elf

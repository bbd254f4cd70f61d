#include "userspace/elf/decompress.h"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "userspace/base/strings.h"

namespace pyrometer::elf {
namespace {

constexpr size_t kFirstOutputBytes = 256u << 10;
// Decoder memory of `xz -9`, the largest preset, is 65 MiB; eu-strip's and rpm's minidebuginfo use less.
constexpr uint64_t kXzMemoryBytes = 80u << 20;
// zstd window: 128 MiB is the format's largest without --long=28 and up.
constexpr int kZstdWindowLog = 27;

// Doubles `output` for the next step, up to one byte past the limit so that "exactly at the limit"
// and "more" differ. False when the limit is passed.
bool Grow(std::string& output, uint64_t max_bytes) {
  if (output.size() > max_bytes) return false;
  const uint64_t wanted = std::max<uint64_t>(kFirstOutputBytes, output.size() * 2);
  output.resize(std::min<uint64_t>(wanted, max_bytes + 1));
  return true;
}

Status TooLarge(uint64_t max_bytes) {
  return ResourceExhaustedError(StrFormat("decompresses to more than the limit of %s", FormatBytes(max_bytes)));
}

}  // namespace

StatusOr<std::string> DecompressZlib(std::string_view input, uint64_t max_bytes) {
  if (input.size() > std::numeric_limits<uInt>::max()) return ResourceExhaustedError("zlib data above 4 GiB");
  z_stream stream = {};
  if (inflateInit(&stream) != Z_OK) return InternalError("zlib cannot start");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> closer(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  std::string output;
  size_t used = 0;
  while (true) {
    if (used == output.size() && !Grow(output, max_bytes)) return TooLarge(max_bytes);
    stream.next_out = reinterpret_cast<Bytef*>(output.data() + used);
    const size_t room = std::min<size_t>(output.size() - used, std::numeric_limits<uInt>::max());
    stream.avail_out = static_cast<uInt>(room);
    const int result = inflate(&stream, Z_NO_FLUSH);
    used += room - stream.avail_out;
    if (used > max_bytes) return TooLarge(max_bytes);
    if (result == Z_STREAM_END) break;
    if (result != Z_OK || (stream.avail_in == 0 && stream.avail_out != 0)) return DataLossError("corrupt zlib data");
  }
  output.resize(used);
  return output;
}

StatusOr<std::string> DecompressZstd(std::string_view input, uint64_t max_bytes) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  if (context == nullptr) return InternalError("zstd cannot start");
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kZstdWindowLog);
  ZSTD_inBuffer in{input.data(), input.size(), 0};
  std::string output;
  size_t used = 0;
  while (true) {
    if (used == output.size() && !Grow(output, max_bytes)) return TooLarge(max_bytes);
    ZSTD_outBuffer out{output.data() + used, output.size() - used, 0};
    const size_t result = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(result)) return DataLossError(StrFormat("corrupt zstd data: %s", ZSTD_getErrorName(result)));
    used += out.pos;
    if (used > max_bytes) return TooLarge(max_bytes);
    if (result == 0 && in.pos == in.size) break;
    if (in.pos == in.size && out.pos < out.size) return DataLossError("truncated zstd data");
  }
  output.resize(used);
  return output;
}

StatusOr<std::string> DecompressXz(std::string_view input, uint64_t max_bytes) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kXzMemoryBytes, 0) != LZMA_OK) return InternalError("liblzma cannot start");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> closer(&stream, lzma_end);
  stream.next_in = reinterpret_cast<const uint8_t*>(input.data());
  stream.avail_in = input.size();
  std::string output;
  size_t used = 0;
  while (true) {
    if (used == output.size() && !Grow(output, max_bytes)) return TooLarge(max_bytes);
    stream.next_out = reinterpret_cast<uint8_t*>(output.data() + used);
    stream.avail_out = output.size() - used;
    const lzma_ret result = lzma_code(&stream, LZMA_FINISH);
    used = output.size() - stream.avail_out;
    if (used > max_bytes) return TooLarge(max_bytes);
    if (result == LZMA_STREAM_END) break;
    if (result == LZMA_MEMLIMIT_ERROR) {
      return ResourceExhaustedError(StrFormat("xz data needs more than %s to decode", FormatBytes(kXzMemoryBytes)));
    }
    if (result != LZMA_OK || (stream.avail_in == 0 && stream.avail_out != 0)) {
      return DataLossError("corrupt xz data");
    }
  }
  output.resize(used);
  return output;
}

}  // namespace pyrometer::elf

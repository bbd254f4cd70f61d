#include "ui-export/formats/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

constexpr int kGzipWindowBits = 15 + 16;  // 32 KiB window, gzip header and trailer
constexpr size_t kStepBytes = 256 << 10;

// Ends the stream whatever way its function is left.
struct InflateStream {
  z_stream z{};
  bool ready = false;
  ~InflateStream() {
    if (ready) inflateEnd(&z);
  }
};
struct DeflateStream {
  z_stream z{};
  bool ready = false;
  ~DeflateStream() {
    if (ready) deflateEnd(&z);
  }
};

Bytef* Input(std::string_view bytes) { return reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data())); }

}  // namespace

bool IsGzip(std::string_view bytes) { return bytes.size() >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b'; }

StatusOr<std::string> Gunzip(std::string_view bytes, size_t max_bytes) {
  if (bytes.size() > std::numeric_limits<uInt>::max()) {
    return ResourceExhaustedError("compressed input larger than 4 GiB");
  }
  InflateStream stream;
  if (inflateInit2(&stream.z, kGzipWindowBits) != Z_OK) return InternalError("zlib cannot start inflating");
  stream.ready = true;
  stream.z.next_in = Input(bytes);
  stream.z.avail_in = static_cast<uInt>(bytes.size());
  std::string plain;
  while (true) {
    const size_t used = plain.size();
    if (used > max_bytes) {
      return ResourceExhaustedError(
          StrFormat("compressed input unpacks to more than the limit of %s", FormatBytes(max_bytes)));
    }
    if (used > kMaxPlainRatioFreeBytes && used / kMaxGzipRatio > bytes.size()) {
      return ResourceExhaustedError(StrFormat("compressed input of %s unpacks to more than %s: refused as a bomb",
                                              FormatBytes(bytes.size()), FormatBytes(used)));
    }
    plain.resize(used + kStepBytes);
    stream.z.next_out = reinterpret_cast<Bytef*>(plain.data() + used);
    stream.z.avail_out = static_cast<uInt>(kStepBytes);
    const int result = inflate(&stream.z, Z_NO_FLUSH);
    const size_t produced = kStepBytes - stream.z.avail_out;
    plain.resize(used + produced);
    if (result == Z_STREAM_END) {
      if (stream.z.avail_in == 0) break;
      if (!IsGzip({reinterpret_cast<const char*>(stream.z.next_in), stream.z.avail_in})) {
        return DataLossError(StrFormat("%d bytes of something else follow the gzip data", stream.z.avail_in));
      }
      if (inflateReset2(&stream.z, kGzipWindowBits) != Z_OK) return InternalError("zlib cannot restart");
      continue;
    }
    if (result == Z_BUF_ERROR || (result == Z_OK && produced == 0 && stream.z.avail_in == 0)) {
      return DataLossError("gzip data is cut short");
    }
    if (result != Z_OK) {
      return DataLossError(
          StrFormat("gzip data is corrupt: %s", stream.z.msg != nullptr ? stream.z.msg : "unknown reason"));
    }
  }
  if (plain.size() > max_bytes) {
    return ResourceExhaustedError(
        StrFormat("compressed input unpacks to more than the limit of %s", FormatBytes(max_bytes)));
  }
  return plain;
}

StatusOr<std::string> Gzip(std::string_view plain) {
  if (plain.size() > std::numeric_limits<uInt>::max()) {
    return ResourceExhaustedError("more than 4 GiB to compress in one piece");
  }
  DeflateStream stream;
  constexpr int kDefaultMemoryLevel = 8;
  if (deflateInit2(&stream.z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindowBits, kDefaultMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return InternalError("zlib cannot start deflating");
  }
  stream.ready = true;
  stream.z.next_in = Input(plain);
  stream.z.avail_in = static_cast<uInt>(plain.size());
  std::string packed;
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    const size_t used = packed.size();
    packed.resize(used + kStepBytes);
    stream.z.next_out = reinterpret_cast<Bytef*>(packed.data() + used);
    stream.z.avail_out = static_cast<uInt>(kStepBytes);
    result = deflate(&stream.z, Z_FINISH);
    packed.resize(used + kStepBytes - stream.z.avail_out);
    if (result != Z_OK && result != Z_STREAM_END) return InternalError(StrFormat("zlib cannot deflate: %d", result));
  }
  return packed;
}

}  // namespace pyrometer::formats

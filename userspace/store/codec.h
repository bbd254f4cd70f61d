// Bytes at rest: LEB128 varints, zigzag for signed numbers, big-endian integers for keys (so that
// byte order is number order). docs/formats/store.md describes every record made of these.
//
//   std::string out;
//   PutVarint(300, &out);                       // ac 02
//   Decoder in(out);
//   uint64_t n = in.Varint();
//   if (!in.ok() || !in.done()) return DataLossError("…");
//
// The decoder trusts nothing: it never reads past the end, refuses varints over 64 bits and
// overlong ones (every number has exactly one encoding), and after the first error returns zeros.
// Threads: none shared. Cost: ~1 ns per one-byte varint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pyrometer::store {

inline constexpr size_t kMaxVarintBytes = 10;

void PutVarint(uint64_t value, std::string* out);
void PutZigzag(int64_t value, std::string* out);
// Length as varint, then the bytes.
void PutString(std::string_view text, std::string* out);
void PutBigEndian32(uint32_t value, std::string* out);
void PutBigEndian64(uint64_t value, std::string* out);

class Decoder {
 public:
  // `bytes` must outlive the decoder and every view it returned.
  explicit Decoder(std::string_view bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  uint64_t Varint() {
    if (at_ < end_ && static_cast<unsigned char>(*at_) < 0x80) return static_cast<unsigned char>(*at_++);
    return VarintSlow();
  }
  // Fails when the number does not fit.
  uint32_t Varint32();
  int64_t Zigzag();
  std::string_view String();
  uint8_t Byte();
  uint32_t BigEndian32();
  uint64_t BigEndian64();
  // A varint that announces this many entries of at least `min_bytes_each` (≥ 1) bytes: fails when the rest is
  // too short for them, so a caller may reserve memory for the result.
  size_t Count(size_t min_bytes_each = 1);

  bool ok() const { return ok_; }
  // Everything was read.
  bool done() const { return at_ == end_; }
  size_t remaining() const { return static_cast<size_t>(end_ - at_); }
  // All that follows, which counts as read.
  std::string_view Rest() {
    const std::string_view rest(at_, remaining());
    at_ = end_;
    return rest;
  }
  void Fail() {
    ok_ = false;
    at_ = end_;
  }

 private:
  uint64_t VarintSlow();

  const char* at_;
  const char* end_;
  bool ok_ = true;
};

}  // namespace pyrometer::store

#include "userspace/store/codec.h"

namespace pyrometer::store {

void PutVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void PutZigzag(int64_t value, std::string* out) {
  PutVarint(static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63), out);
}

void PutString(std::string_view text, std::string* out) {
  PutVarint(text.size(), out);
  out->append(text);
}

void PutBigEndian32(uint32_t value, std::string* out) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<char>(value >> shift));
}

void PutBigEndian64(uint64_t value, std::string* out) {
  for (int shift = 56; shift >= 0; shift -= 8) out->push_back(static_cast<char>(value >> shift));
}

uint64_t Decoder::VarintSlow() {
  uint64_t value = 0;
  for (size_t i = 0; i < kMaxVarintBytes && at_ < end_; ++i) {
    const uint8_t byte = static_cast<uint8_t>(*at_++);
    // The tenth byte holds bit 63 only.
    if (i == kMaxVarintBytes - 1 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      if (byte == 0 && i > 0) break;  // overlong
      return value;
    }
  }
  Fail();
  return 0;
}

uint32_t Decoder::Varint32() {
  const uint64_t value = Varint();
  if (value > UINT32_MAX) {
    Fail();
    return 0;
  }
  return static_cast<uint32_t>(value);
}

int64_t Decoder::Zigzag() {
  const uint64_t value = Varint();
  return static_cast<int64_t>(value >> 1 ^ (~(value & 1) + 1));
}

std::string_view Decoder::String() {
  const uint64_t size = Varint();
  if (size > remaining()) {
    Fail();
    return {};
  }
  const std::string_view text(at_, size);
  at_ += size;
  return text;
}

uint8_t Decoder::Byte() {
  if (at_ == end_) {
    Fail();
    return 0;
  }
  return static_cast<uint8_t>(*at_++);
}

uint32_t Decoder::BigEndian32() {
  if (remaining() < 4) {
    Fail();
    return 0;
  }
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(*at_++);
  return value;
}

uint64_t Decoder::BigEndian64() {
  if (remaining() < 8) {
    Fail();
    return 0;
  }
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(*at_++);
  return value;
}

size_t Decoder::Count(size_t min_bytes_each) {
  const uint64_t count = Varint();
  if (count > remaining() / min_bytes_each) {
    Fail();
    return 0;
  }
  return static_cast<size_t>(count);
}

}  // namespace pyrometer::store

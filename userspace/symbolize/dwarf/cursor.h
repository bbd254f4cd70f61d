// Checked reading of little-endian DWARF bytes.
//
//   Cursor cursor(bytes);
//   const uint64_t code = cursor.Uleb();
//   if (!cursor.ok()) return DataLossError(…);
//
// A read past the end gives 0, and the cursor stays at the end with ok() false: callers check once
// per entry, not per field. Threads: a value. Cost: a predicted branch per read.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace pyrometer::dwarf {

class Cursor {
 public:
  Cursor() = default;
  explicit Cursor(std::string_view bytes, uint64_t at = 0) : data_(bytes.data()), size_(bytes.size()) { Seek(at); }

  bool ok() const { return ok_; }
  uint64_t at() const { return at_; }
  uint64_t size() const { return size_; }
  uint64_t left() const { return size_ - at_; }
  bool done() const { return at_ >= size_; }

  void Seek(uint64_t at) {
    if (at > size_) return Fail();
    at_ = at;
  }
  void Skip(uint64_t bytes) {
    if (bytes > size_ - at_) return Fail();
    at_ += bytes;
  }
  uint8_t U8() { return Fixed<uint8_t>(); }
  uint16_t U16() { return Fixed<uint16_t>(); }
  uint32_t U32() { return Fixed<uint32_t>(); }
  uint64_t U64() { return Fixed<uint64_t>(); }
  // 1 to 8 bytes.
  uint64_t Unsigned(unsigned bytes) {
    switch (bytes) {
      case 1:
        return U8();
      case 2:
        return U16();
      case 4:
        return U32();
      case 8:
        return U64();
      default: {
        uint64_t value = 0;
        if (bytes > 8 || bytes > size_ - at_) {
          Fail();
          return 0;
        }
        std::memcpy(&value, data_ + at_, bytes);
        at_ += bytes;
        return value;
      }
    }
  }
  // Bits beyond 64 are dropped, as every other reader does.
  uint64_t Uleb() {
    if (at_ < size_) [[likely]] {
      const uint8_t first = static_cast<uint8_t>(data_[at_]);
      if (first < 0x80) {
        ++at_;
        return first;
      }
    }
    return LongUleb();
  }
  int64_t Sleb() {
    uint64_t value = 0;
    unsigned shift = 0;
    while (at_ < size_) {
      const uint8_t byte = static_cast<uint8_t>(data_[at_++]);
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) == 0) {
        if (shift < 64 && (byte & 0x40) != 0) value |= ~uint64_t{0} << shift;
        return static_cast<int64_t>(value);
      }
    }
    Fail();
    return 0;
  }
  void SkipLeb() {
    while (at_ < size_) {
      if ((static_cast<uint8_t>(data_[at_++]) & 0x80) == 0) return;
    }
    Fail();
  }
  // Up to the next NUL, which is passed over. Without one: fails.
  std::string_view String() {
    const void* end = at_ < size_ ? std::memchr(data_ + at_, 0, size_ - at_) : nullptr;
    if (end == nullptr) {
      Fail();
      return {};
    }
    const std::string_view text(data_ + at_, static_cast<size_t>(static_cast<const char*>(end) - (data_ + at_)));
    at_ += text.size() + 1;
    return text;
  }
  std::string_view Bytes(uint64_t bytes) {
    if (bytes > size_ - at_) {
      Fail();
      return {};
    }
    const std::string_view view(data_ + at_, bytes);
    at_ += bytes;
    return view;
  }
  void Fail() {
    at_ = size_;
    ok_ = false;
  }

 private:
  template <typename T>
  T Fixed() {
    if (sizeof(T) > size_ - at_) [[unlikely]] {
      Fail();
      return 0;
    }
    T value;
    std::memcpy(&value, data_ + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  uint64_t LongUleb() {
    uint64_t value = 0;
    unsigned shift = 0;
    while (at_ < size_) {
      const uint8_t byte = static_cast<uint8_t>(data_[at_++]);
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) == 0) return value;
    }
    Fail();
    return 0;
  }

  const char* data_ = nullptr;
  uint64_t size_ = 0;
  uint64_t at_ = 0;
  bool ok_ = true;
};

}  // namespace pyrometer::dwarf

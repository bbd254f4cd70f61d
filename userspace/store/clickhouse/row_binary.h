// ClickHouse's RowBinary: values one after the other, integers little endian, strings and arrays with their length as a
// varint before them.
//
//   RowWriter out(&bytes);
//   out.U32(7); out.Array(counts);
//   RowReader in(bytes);
//   while (!in.done()) { uint64_t id = in.U64(); … }
//   if (!in.ok()) return …;
//
// The reader never reads past the end; after the first error it returns zeros. Threads: none shared.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/store/codec.h"

namespace pyrometer::store::clickhouse {

static_assert(std::endian::native == std::endian::little);

class RowWriter {
 public:
  explicit RowWriter(std::string* out) : out_(*out) {}

  void U8(uint8_t value) { Fixed(value); }
  void U16(uint16_t value) { Fixed(value); }
  void U32(uint32_t value) { Fixed(value); }
  void U64(uint64_t value) { Fixed(value); }
  void I32(int32_t value) { Fixed(value); }
  void I64(int64_t value) { Fixed(value); }
  void String(std::string_view text) { PutString(text, &out_); }
  template <typename T>
  void Array(std::span<const T> values) {
    PutVarint(values.size(), &out_);
    out_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  template <typename T>
  void Array(const std::vector<T>& values) {
    Array(std::span<const T>(values));
  }
  void Strings(const std::vector<std::string_view>& texts) {
    PutVarint(texts.size(), &out_);
    for (const std::string_view text : texts) String(text);
  }

 private:
  template <typename T>
  void Fixed(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  std::string& out_;
};

class RowReader {
 public:
  explicit RowReader(std::string_view bytes) : rest_(bytes) {}

  uint8_t U8() { return Fixed<uint8_t>(); }
  uint16_t U16() { return Fixed<uint16_t>(); }
  uint32_t U32() { return Fixed<uint32_t>(); }
  uint64_t U64() { return Fixed<uint64_t>(); }
  int32_t I32() { return Fixed<int32_t>(); }
  int64_t I64() { return Fixed<int64_t>(); }
  std::string_view String() { return Take(Length(1)); }
  template <typename T>
  std::vector<T> Array() {
    std::vector<T> values(Length(sizeof(T)));
    if (!values.empty()) Copy(values.data(), values.size() * sizeof(T));
    return values;
  }
  std::vector<std::string_view> Strings() {
    std::vector<std::string_view> texts(Length(1));
    for (std::string_view& text : texts) text = String();
    return texts;
  }
  bool ok() const { return ok_; }
  bool done() const { return rest_.empty(); }

 private:
  template <typename T>
  T Fixed() {
    T value{};
    Copy(&value, sizeof(T));
    return value;
  }
  // Out of line: g++ 12 takes the bytes of a short string that it can see for uninitialised.
  void Copy(void* to, size_t bytes);
  size_t Length(size_t bytes_each) {
    Decoder in(rest_);
    const uint64_t length = in.Varint();
    if (!in.ok() || length > in.remaining() / bytes_each) {
      Fail();
      return 0;
    }
    rest_ = in.Rest();
    return length;
  }
  std::string_view Take(size_t bytes) {
    if (bytes > rest_.size()) {
      Fail();
      return {};
    }
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }
  void Fail() {
    ok_ = false;
    rest_ = {};
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace pyrometer::store::clickhouse

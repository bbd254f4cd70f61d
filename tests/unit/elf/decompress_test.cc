#include "userspace/elf/decompress.h"

#include <gtest/gtest.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <functional>
#include <string>

namespace pyrometer::elf {
namespace {

std::string Text(size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += std::to_string(text.size() * 2654435761u) + " ";
  text.resize(bytes);
  return text;
}

std::string PackZlib(const std::string& text) {
  uLongf size = compressBound(text.size());
  std::string out(size, '\0');
  EXPECT_EQ(
      compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(text.data()), text.size()),
      Z_OK);
  out.resize(size);
  return out;
}

std::string PackZstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const size_t size = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3);
  EXPECT_FALSE(ZSTD_isError(size));
  out.resize(size);
  return out;
}

std::string PackXz(const std::string& text) {
  std::string out(lzma_stream_buffer_bound(text.size()), '\0');
  size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const uint8_t*>(text.data()),
                                    text.size(), reinterpret_cast<uint8_t*>(out.data()), &size, out.size()),
            LZMA_OK);
  out.resize(size);
  return out;
}

struct Codec {
  const char* name;
  std::function<std::string(const std::string&)> pack;
  std::function<StatusOr<std::string>(std::string_view, uint64_t)> unpack;
};

class DecompressTest : public testing::TestWithParam<int> {
 protected:
  static Codec codec() {
    switch (GetParam()) {
      case 0:
        return {"zlib", PackZlib, DecompressZlib};
      case 1:
        return {"zstd", PackZstd, DecompressZstd};
      default:
        return {"xz", PackXz, DecompressXz};
    }
  }
};

TEST_P(DecompressTest, GivesBackWhatWasPacked) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{262144}, size_t{262145}, size_t{3'000'000}}) {
    const std::string text = Text(bytes);
    const auto unpacked = codec().unpack(codec().pack(text), bytes);
    ASSERT_TRUE(unpacked.ok()) << codec().name << " " << bytes << ": " << unpacked.status();
    EXPECT_EQ(*unpacked, text);
  }
}

TEST_P(DecompressTest, StopsAtTheLimit) {
  const std::string packed = codec().pack(std::string(64 << 20, '\0'));  // a bomb: 64 MiB in a few KiB
  EXPECT_LT(packed.size(), 100'000u);
  const auto result = codec().unpack(packed, (64 << 20) - 1);
  EXPECT_EQ(result.status().code(), StatusCode::kResourceExhausted) << result.status();
}

TEST_P(DecompressTest, EveryTruncationIsAnError) {
  const std::string packed = codec().pack(Text(500));
  for (size_t n = 0; n < packed.size(); ++n) {
    EXPECT_FALSE(codec().unpack(std::string_view(packed).substr(0, n), 1 << 20).ok()) << codec().name << " " << n;
  }
}

TEST_P(DecompressTest, CorruptBytesNeverGiveMoreThanTheLimit) {
  const std::string packed = codec().pack(Text(2000));
  for (size_t i = 0; i < packed.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string corrupt = packed;
      corrupt[i] = static_cast<char>(corrupt[i] ^ flip);
      const auto result = codec().unpack(corrupt, 4096);
      EXPECT_TRUE(!result.ok() || result->size() <= 4096u);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, DecompressTest, testing::Values(0, 1, 2));

}  // namespace
}  // namespace pyrometer::elf

#include "userspace/store/codec.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::store {
namespace {

TEST(Codec, ExactBytes) {
  const struct {
    uint64_t value;
    std::string_view hex;
  } cases[] = {{0, "00"},
               {1, "01"},
               {127, "7f"},
               {128, "8001"},
               {300, "ac02"},
               {16384, "808001"},
               {UINT32_MAX, "ffffffff0f"},
               {UINT64_MAX, "ffffffffffffffffff01"}};
  for (const auto& c : cases) {
    std::string out;
    PutVarint(c.value, &out);
    EXPECT_EQ(HexEncode(out), c.hex);
    Decoder in(out);
    EXPECT_EQ(in.Varint(), c.value);
    EXPECT_TRUE(in.ok() && in.done());
  }
  std::string out;
  for (const int64_t v : {int64_t{0}, int64_t{-1}, int64_t{1}, int64_t{-2}, INT64_MAX, INT64_MIN}) PutZigzag(v, &out);
  EXPECT_EQ(HexEncode(out), "00010203feffffffffffffffff01ffffffffffffffffff01");
  Decoder in(out);
  for (const int64_t v : {int64_t{0}, int64_t{-1}, int64_t{1}, int64_t{-2}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(in.Zigzag(), v);
  }
  EXPECT_TRUE(in.ok() && in.done());

  std::string key;
  PutBigEndian32(0x01020304, &key);
  PutBigEndian64(0x05060708090a0b0cu, &key);
  PutString("ab", &key);
  EXPECT_EQ(HexEncode(key), "0102030405060708090a0b0c026162");
}

TEST(Codec, RandomRoundTrip) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> values;
  std::string out;
  for (int i = 0; i < 100'000; ++i) {
    values.push_back(random() >> (random() % 64));
    PutVarint(values.back(), &out);
  }
  Decoder in(out);
  for (const uint64_t value : values) ASSERT_EQ(in.Varint(), value);
  EXPECT_TRUE(in.ok() && in.done());
}

TEST(Codec, RefusesMalformed) {
  for (const std::string_view hex : {"", "80", "ffff", "8000", "ff00", "ffffffffffffffffff02", "ffffffffffffffffffff01",
                                     "80808080808080808080808000"}) {
    const std::string bytes = HexDecode(hex).value();
    Decoder in(bytes);
    EXPECT_EQ(in.Varint(), 0u) << hex;
    EXPECT_FALSE(in.ok()) << hex;
  }
  {
    const std::string bytes = HexDecode("8080808010").value();  // 2^32
    Decoder in(bytes);
    in.Varint32();
    EXPECT_FALSE(in.ok());
  }
  {
    Decoder in(
        "\x05"
        "abc");
    EXPECT_EQ(in.String(), "");
    EXPECT_FALSE(in.ok());
  }
  {
    const std::string bytes = HexDecode("ffffffff0f0000").value();  // 4 billion entries in two bytes
    Decoder in(bytes);
    EXPECT_EQ(in.Count(), 0u);
    EXPECT_FALSE(in.ok());
  }
}

TEST(Codec, NothingReadsPastTheEndOfRandomBytes) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random() % 24, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    // An own allocation of exact size, so that sanitizers see any byte too far.
    const std::vector<char> exact(bytes.begin(), bytes.end());
    Decoder in(std::string_view(exact.data(), exact.size()));
    while (in.ok() && !in.done()) {
      switch (random() % 6) {
        case 0:
          in.Varint();
          break;
        case 1:
          in.Zigzag();
          break;
        case 2:
          in.String();
          break;
        case 3:
          in.BigEndian32();
          break;
        case 4:
          in.BigEndian64();
          break;
        default:
          EXPECT_LE(in.Count(2) * 2, exact.size());
      }
    }
    EXPECT_LE(in.remaining(), exact.size());
  }
}

}  // namespace
}  // namespace pyrometer::store

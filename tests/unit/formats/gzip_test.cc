#include "ui-export/formats/gzip.h"

#include <gtest/gtest.h>

#include <random>

namespace pyrometer::formats {
namespace {

TEST(Gzip, RoundTripAndMembers) {
  std::mt19937_64 random(6);
  std::string plain;
  for (int i = 0; i < 700'000; ++i) plain.push_back(static_cast<char>(random() % 17));
  const StatusOr<std::string> packed = Gzip(plain);
  ASSERT_TRUE(packed.ok());
  EXPECT_LT(packed->size(), plain.size());
  EXPECT_EQ(*Gunzip(*packed, plain.size()), plain);
  EXPECT_EQ(*Gunzip(*packed + *Gzip("tail"), 1 << 20), plain + "tail");
  EXPECT_EQ(*Gunzip(*Gzip(""), 10), "");
  EXPECT_EQ(*Gzip(plain), *packed) << "deterministic";
}

TEST(Gzip, DamageIsNoticed) {
  const std::string packed = *Gzip("some text that is long enough to be packed, packed, packed");
  for (size_t length = 0; length < packed.size(); ++length) {
    EXPECT_EQ(Gunzip(packed.substr(0, length), 1 << 20).status().code(), StatusCode::kDataLoss) << length;
  }
  for (size_t i = 10; i < packed.size(); ++i) {
    std::string bad = packed;
    bad[i] = static_cast<char>(bad[i] ^ 0x55);
    EXPECT_FALSE(Gunzip(bad, 1 << 20).ok()) << "the checksum must notice byte " << i;
  }
  EXPECT_EQ(Gunzip(packed + "rubbish", 1 << 20).status().code(), StatusCode::kDataLoss);
}

TEST(Gzip, BombsAreRefused) {
  const std::string packed = *Gzip(std::string(size_t{80} << 20, '\0'));  // 1000:1
  EXPECT_LT(packed.size(), 100u << 10);
  EXPECT_EQ(Gunzip(packed, size_t{1} << 30).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Gunzip(*Gzip(std::string(1001, 'x')), 1000).status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(Gunzip(*Gzip(std::string(1000, 'x')), 1000).ok());
}

}  // namespace
}  // namespace pyrometer::formats

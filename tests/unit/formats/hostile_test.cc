// Readers against damage: cut at every byte, bytes changed at random. Whatever comes in, they answer
// with a profile or an error. Run under ASan and UBSan this is the fuzz test's little brother.
#include <gtest/gtest.h>

#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/gzip.h"
#include "ui-export/formats/pprof.h"
#include "ui-export/formats/viewer_json.h"

namespace pyrometer::formats {
namespace {

constexpr int kMutations = 1500;

std::string PlainBytes(Format format) {
  return format == Format::kPprof ? *WritePprof(ShopProfile(), nullptr) : *Serialize(ShopProfile(), format);
}

// A profile that was accepted must be sound: every writer can walk it.
void Exercise(const profile::Profile& p) {
  for (const Format format : {Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kSvg, Format::kJson}) {
    const StatusOr<std::string> bytes = Serialize(p, format);
    EXPECT_TRUE(bytes.ok()) << FormatName(format) << ": " << bytes.status();
  }
  EXPECT_FALSE(ViewerJson(p).empty());
}

class Hostile : public testing::TestWithParam<Format> {};

TEST_P(Hostile, CutAtEveryByte) {
  const std::string bytes = PlainBytes(GetParam());
  size_t accepted = 0;
  for (size_t length = 0; length < bytes.size(); ++length) {
    const StatusOr<profile::Profile> p = Parse(bytes.substr(0, length), GetParam());
    if (p.ok()) ++accepted;
    if (!p.ok()) {
      EXPECT_FALSE(Message(p.status()).empty());
    }
  }
  // Text cut at a line's end is whole; everything else must notice (the JSONs end in "}\n").
  if (GetParam() == Format::kFolded) {
    EXPECT_LT(accepted, bytes.size() / 2);
  } else if (GetParam() == Format::kPprof) {
    // Cut between two fields a protobuf is whole; references and the string table give most of them away.
    EXPECT_LT(accepted, 4u);
  } else {
    EXPECT_EQ(accepted, 1u);
  }
}

TEST_P(Hostile, ChangedAtRandom) {
  const std::string good = PlainBytes(GetParam());
  std::mt19937_64 random(8);
  size_t accepted = 0;
  for (int i = 0; i < kMutations; ++i) {
    std::string bytes = good;
    for (uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
          break;
        case 2:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 16));
          break;
        default:
          bytes.erase(at, 1 + random() % 8);
      }
      if (bytes.empty()) bytes = "x";
    }
    const StatusOr<profile::Profile> p = Parse(bytes, GetParam());
    if (!p.ok()) continue;
    ++accepted;
    if (accepted % 8 == 0) Exercise(*p);
  }
  // Neither all nor nothing: the mutations reach the depths of the reader.
  EXPECT_GT(accepted, 0u);
  EXPECT_LT(accepted, static_cast<size_t>(kMutations));
}

TEST_P(Hostile, OtherFormatsAreRefused) {
  for (const Format other : {Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kJson}) {
    if (other == GetParam()) continue;
    EXPECT_FALSE(Parse(PlainBytes(other), GetParam()).ok()) << FormatName(other);
  }
  EXPECT_FALSE(Parse("", GetParam()).ok());
  EXPECT_FALSE(Parse(*Gzip(""), GetParam()).ok());
}

INSTANTIATE_TEST_SUITE_P(Readers, Hostile,
                         testing::Values(Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kJson),
                         [](const auto& format) { return std::string(FormatName(format.param)); });

}  // namespace
}  // namespace pyrometer::formats

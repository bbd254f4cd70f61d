// Files in tests/golden/formats, byte for byte. After a wanted change:
//   PYROMETER_REGENERATE=1 unit_formats --gtest_filter='Golden*'
// and read the difference before committing it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/pprof.h"
#include "ui-export/formats/viewer_json.h"
#include "userspace/base/file.h"
#include "userspace/base/version.h"

namespace pyrometer::formats {
namespace {

void ExpectGolden(const std::string& name, const std::string& content) {
  if (std::getenv("PYROMETER_REGENERATE") != nullptr) {
    ASSERT_TRUE(WriteFileAtomically(GoldenPath(name), content).ok());
  }
  EXPECT_EQ(content, ReadGolden(name)) << name;
}

class Golden : public testing::Test {
 protected:
  // The input is a file as well, so that everything starts from what a person can read.
  Golden() {
    StatusOr<profile::Profile> read = ReadProfile(GoldenPath("shop.json"));
    if (read.ok()) shop_ = *std::move(read);
  }
  profile::Profile shop_;
};

TEST_F(Golden, Json) {
  ExpectGolden("shop.json", *Serialize(ShopProfile(), Format::kJson));
  EXPECT_EQ(Describe(shop_), Describe(ShopProfile()));
}

TEST_F(Golden, Folded) { ExpectGolden("shop.folded", *Serialize(shop_, Format::kFolded)); }

TEST_F(Golden, Speedscope) {
  std::string text = *Serialize(shop_, Format::kSpeedscope);
  const std::string exporter = "pyrometer " + std::string(kVersion);
  ASSERT_NE(text.find(exporter), std::string::npos);
  text.replace(text.find(exporter), exporter.size(), "pyrometer VERSION");
  ExpectGolden("shop.speedscope.json", text);
}

TEST_F(Golden, Viewer) { ExpectGolden("shop.viewer.json", ViewerJson(shop_) + "\n"); }

TEST_F(Golden, Svg) {
  // Without the script, which is text of ours and no output.
  std::string svg = *Serialize(shop_, Format::kSvg);
  svg.erase(svg.find("<script"), svg.find("</script>") + 10 - svg.find("<script"));
  ExpectGolden("shop.svg", svg);
}

// What is read back from pprof, in words: the message itself is binary.
TEST_F(Golden, Pprof) {
  const StatusOr<profile::Profile> again = Parse(*Serialize(shop_, Format::kPprof), Format::kPprof);
  ASSERT_TRUE(again.ok()) << again.status();
  ExpectGolden("shop.pprof.txt", Describe(*again));
}

}  // namespace
}  // namespace pyrometer::formats

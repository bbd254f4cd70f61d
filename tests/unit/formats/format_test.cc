#include "ui-export/formats/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/gzip.h"
#include "ui-export/formats/web_assets.h"
#include "userspace/base/file.h"

namespace pyrometer::formats {
namespace {

using ::testing::HasSubstr;

class FormatFiles : public testing::Test {
 protected:
  FormatFiles() : folder_(testing::TempDir() + "format_test_XXXXXX") {
    if (mkdtemp(folder_.data()) == nullptr) ADD_FAILURE() << "no temporary folder";
  }
  ~FormatFiles() override { std::filesystem::remove_all(folder_); }
  std::string File(const std::string& name, std::string_view content) const {
    const std::string path = folder_ + "/" + name;
    EXPECT_TRUE(WriteFileAtomically(path, content).ok());
    return path;
  }
  std::string folder_;
};

TEST(Format, FromPathAndName) {
  EXPECT_EQ(*FormatFromPath("a/b.pb.gz"), Format::kPprof);
  EXPECT_EQ(*FormatFromPath("x.pprof"), Format::kPprof);
  EXPECT_EQ(*FormatFromPath("x.folded"), Format::kFolded);
  EXPECT_EQ(*FormatFromPath("x.collapsed"), Format::kFolded);
  EXPECT_EQ(*FormatFromPath("x.speedscope.json"), Format::kSpeedscope);
  EXPECT_EQ(*FormatFromPath("x.json"), Format::kJson);
  EXPECT_EQ(*FormatFromPath("x.html"), Format::kHtml);
  EXPECT_EQ(*FormatFromPath("x.svg"), Format::kSvg);
  for (const Format format :
       {Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kHtml, Format::kSvg, Format::kJson}) {
    EXPECT_EQ(*FormatFromName(FormatName(format)), format);
  }
  EXPECT_THAT(std::string(Message(FormatFromPath("x.gif").status())), HasSubstr(".speedscope.json"));
  EXPECT_THAT(std::string(Message(FormatFromName("gif").status())), HasSubstr("pprof, folded, speedscope"));
}

TEST_F(FormatFiles, ContentDecidesNotTheName) {
  for (const Format format : {Format::kPprof, Format::kFolded, Format::kSpeedscope, Format::kJson}) {
    const std::string bytes = *Serialize(ShopProfile(), format);
    for (const std::string& content : {bytes, *Gzip(bytes)}) {
      if (format == Format::kPprof && content != bytes) continue;  // gzip in gzip is nobody's profile
      EXPECT_EQ(*SniffFormat(content), format) << FormatName(format);
      const StatusOr<profile::Profile> p = ReadProfile(File("misleading.svg", content));
      ASSERT_TRUE(p.ok()) << p.status();
      EXPECT_GE(p->sample_count(), 6u);
    }
  }
}

TEST_F(FormatFiles, ErrorsNameTheFileAndTheRemedy) {
  const struct {
    const char* name;
    std::string content;
    const char* message;
  } kCases[] = {
      {"empty.pb.gz", "", "is empty"},
      {"page.html", "<!doctype html><html></html>", "cannot be read back"},
      {"other", "{\"a\":1}", "neither a speedscope file nor a pyrometer-profile"},
      {"cut.pb.gz", Serialize(ShopProfile(), Format::kPprof)->substr(0, 100), "cut short"},
      {"text.txt", "hello world\n", "line 1 is not a folded stack"},
      {"noise",
       std::string("\x7f"
                   "ELF\x02\x01\x01\0\0\0",
                   10),
       "as pprof"},
  };
  for (const auto& c : kCases) {
    const std::string path = File(c.name, c.content);
    const StatusOr<profile::Profile> p = ReadProfile(path);
    ASSERT_FALSE(p.ok()) << c.name;
    EXPECT_THAT(std::string(Message(p.status())), HasSubstr(c.message));
    EXPECT_THAT(std::string(Message(p.status())), HasSubstr(path));
  }
  EXPECT_EQ(ReadProfile(folder_ + "/none.pb.gz").status().code(), StatusCode::kNotFound);
}

TEST_F(FormatFiles, AFailedWriteLeavesNothing) {
  const Status status = WriteProfile(ShopProfile(), Format::kPprof, folder_ + "/no/such/folder.pb.gz");
  EXPECT_EQ(status.code(), StatusCode::kNotFound) << status;
  profile::Profile empty;
  EXPECT_FALSE(WriteProfile(empty, Format::kFolded, folder_ + "/x.folded").ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  // No room for the new file: the old one stays, nothing lies beside it.
  const std::string path = folder_ + "/kept.json";
  ASSERT_TRUE(WriteProfile(ShopProfile(), Format::kJson, path).ok());
  struct rlimit old {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const struct rlimit small { .rlim_cur = 500, .rlim_max = old.rlim_max };
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = WriteProfile(ShopProfile(), Format::kSvg, path);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(full.ok());
  EXPECT_EQ(*ReadFile(path), *Serialize(ShopProfile(), Format::kJson));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FormatFiles, HtmlHoldsTheDataOrSaysWhyNot) {
  const StatusOr<std::string> page = Serialize(ShopProfile(), Format::kHtml, {.title = "my </title> shop"});
  if (ViewerPage().empty()) {
    EXPECT_EQ(page.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(FindWebAsset("/"), nullptr);
    GTEST_SKIP() << "built with -DPYROMETER_WEB=OFF";
  }
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->find("__PYROMETER_DATA__"), std::string::npos);
  EXPECT_THAT(*page, HasSubstr("<script id=\"pyrometer-data\" type=\"application/json\">{\"version\":1,\"title\":\"my "
                               "\\u003c/title> shop\""));
  EXPECT_THAT(*page, HasSubstr("hot_a(int)"));
}

TEST(WebAssets, AreFoundByPath) {
  if (ViewerPage().empty()) GTEST_SKIP() << "built with -DPYROMETER_WEB=OFF";
  const WebAsset* index = FindWebAsset("/");
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index, FindWebAsset("index.html"));
  EXPECT_EQ(index, FindWebAsset("/index.html"));
  EXPECT_EQ(index->mime_type, "text/html; charset=utf-8");
  EXPECT_THAT(std::string(index->content), HasSubstr("<div id=\"root\">"));
  EXPECT_EQ(FindWebAsset("/../etc/passwd"), nullptr);
  bool script = false;
  for (const WebAsset& asset : WebAssets()) {
    EXPECT_EQ(FindWebAsset(asset.path), &asset);
    EXPECT_FALSE(asset.content.empty());
    EXPECT_EQ(asset.etag.size(), 18u) << asset.path;
    script = script || asset.mime_type.starts_with("text/javascript");
  }
  EXPECT_TRUE(script);
}

}  // namespace
}  // namespace pyrometer::formats

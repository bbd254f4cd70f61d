#include "ui-export/formats/profile_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/json_text.h"

namespace pyrometer::formats {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(ProfileJson, VersionsAreChecked) {
  json document = json::parse(*Serialize(ShopProfile(), Format::kJson));
  document["version"] = 2;
  EXPECT_EQ(Parse(document.dump(), Format::kJson).status().code(), StatusCode::kFailedPrecondition);
  document["version"] = 1;
  document["a member of a later release"] = {1, 2, 3};
  EXPECT_TRUE(Parse(document.dump(), Format::kJson).ok()) << "unknown members are passed over";
  document.erase("version");
  EXPECT_EQ(Parse(document.dump(), Format::kJson).status().code(), StatusCode::kInvalidArgument);
}

TEST(ProfileJson, EveryDamageIsNamed) {
  const json good = json::parse(*Serialize(ShopProfile(), Format::kJson));
  const struct {
    const char* pointer;
    json value;
    const char* message;
  } kCases[] = {
      {"/format", "other", "\"format\""},
      {"/valueTypes", json::array(), "\"valueTypes\" is empty"},
      {"/valueTypes/0", 3, "\"valueTypes\" lacks"},
      {"/defaultValue", 2, "\"defaultValue\""},
      {"/period", 1.5, "\"period\""},
      {"/durationNs", -1, "\"durationNs\""},
      {"/comments", "x", "\"comments\""},
      {"/accounting", json::array(), "\"accounting\""},
      {"/accounting/dropped/ring full", -2, "\"accounting\""},
      {"/strings/0", "x", "\"strings\" does not start"},
      {"/strings/1", 7, "\"strings\" holds"},
      {"/mappings/1/file", 9999, "\"mappings\" has a \"file\" beyond"},
      {"/functions/1/name", "x", "\"functions\" has a \"name\""},
      {"/frames/1/kind", "odd", "unknown \"kind\""},
      {"/frames/1/mapping", 77, "\"frames\" has a \"mapping\" beyond"},
      {"/frames/1/lines/0/function", 77, "\"frames\" has a \"function\" beyond"},
      {"/stacks/parent/0", 1, "empty stack"},
      {"/stacks/parent/1", 1, "parent"},
      {"/stacks/parent/1", -1, "not an index"},
      {"/stacks/frame/1", 999, "\"stacks\" has a frame beyond"},
      {"/stacks/frame", json::array(), "different length"},
      {"/labelSets/1", json::object({{"", "x"}}), "label"},
      {"/labelSets/1", json::object({{"a", 1}}), "not text"},
      {"/samples/labels/0", 99, "beyond \"labelSets\""},
      {"/samples/stack/0", 9999, "beyond \"stacks\""},
      {"/samples/values/0/0", "x", "not a whole number"},
      {"/samples/values/0", json::array(), "different length"},
      {"/samples", 0, "\"labels\""},
  };
  for (const auto& c : kCases) {
    json bad = good;
    bad[json::json_pointer(c.pointer)] = c.value;
    const StatusOr<profile::Profile> p = Parse(bad.dump(), Format::kJson);
    ASSERT_FALSE(p.ok()) << c.pointer;
    EXPECT_THAT(std::string(Message(p.status())), HasSubstr(c.message)) << c.pointer;
  }
  for (const auto& [key, value] : good.items()) {
    json bad = good;
    bad.erase(key);
    const bool optional = key == "defaultValue" || key == "periodType" || key == "period" || key == "timeNs" ||
                          key == "durationNs" || key == "comments" || key == "accounting";
    EXPECT_EQ(Parse(bad.dump(), Format::kJson).ok(), optional) << key;
  }
}

TEST(ProfileJson, LargeNumbersAreStringsAndReadEitherWay) {
  std::string out;
  AppendJsonInteger(&out, int64_t{9007199254740991});
  AppendJsonInteger(&out, int64_t{9007199254740992});
  AppendJsonInteger(&out, INT64_MIN);
  AppendJsonInteger(&out, UINT64_MAX);
  EXPECT_EQ(out, "9007199254740991\"9007199254740992\"\"-9223372036854775808\"\"18446744073709551615\"");
  EXPECT_EQ(JsonInt64(json::parse("9007199254740993")), 9007199254740993);
  EXPECT_EQ(JsonInt64(json(UINT64_MAX)), std::nullopt);
  EXPECT_EQ(JsonUint64(json(-1)), std::nullopt);
  EXPECT_EQ(JsonUint64(json("12x")), std::nullopt);
}

TEST(JsonText, StringsAreSafeInsideAScript) {
  std::string out;
  AppendJsonString(&out, "</script>\"\\\n\x01\x7f\xff \xE2\x80\xA8\xE2\x80\xA9 \xE2\x80\xA6");
  EXPECT_EQ(out, "\"\\u003c/script>\\\"\\\\\\n\\u0001\\u007f\xEF\xBF\xBD \\u2028\\u2029 \xE2\x80\xA6\"");
}

TEST(JsonText, DepthAndErrorsAreBounded) {
  EXPECT_EQ(ParseJson(std::string(1 << 20, '[')).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ParseJson("{\"a\":[1,2}").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseJson("{\"a\":1e999}").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseJson("\"\xff\"").status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(ParseJson("\"" + std::string(1000, '[') + "\"").ok()) << "brackets in strings do not nest";
  EXPECT_TRUE(ParseJson("\xEF\xBB\xBF{}").ok()) << "byte order mark";
}

}  // namespace
}  // namespace pyrometer::formats

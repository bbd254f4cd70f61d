#include "ui-export/formats/speedscope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/formats/schema_check.h"
#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/format.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Written(const profile::Profile& p) {
  const StatusOr<std::string> text = Serialize(p, Format::kSpeedscope, {.title = "the shop"});
  return text.ok() ? json::parse(*text, nullptr, false) : json(std::string(Message(text.status())));
}

StatusOr<profile::Profile> Read(std::string_view profiles, std::string_view frames = R"([{"name":"a"},{"name":"b"}])") {
  return Parse(
      StrFormat(R"({"$schema":"%s","shared":{"frames":%s},"profiles":%s})", kSpeedscopeSchema, frames, profiles),
      Format::kSpeedscope);
}

TEST(Speedscope, FitsTheSchema) {
  const json schema = json::parse(ReadGolden("speedscope.schema.json"), nullptr, false);
  ASSERT_TRUE(schema.is_object());
  EXPECT_EQ(SchemaError(schema, Written(ShopProfile())), "");
  std::mt19937_64 random(5);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(SchemaError(schema, Written(RandomProfile(random))), "");
  // The check itself notices what is wrong.
  json broken = Written(ShopProfile());
  broken["profiles"][0]["unit"] = "fortnights";
  EXPECT_NE(SchemaError(schema, broken), "");
  broken = Written(ShopProfile());
  broken["shared"]["frames"][0].erase("name");
  EXPECT_NE(SchemaError(schema, broken), "");
}

TEST(Speedscope, OneProfilePerTypeAndContainer) {
  const json document = Written(ShopProfile());
  EXPECT_EQ(document["name"], "the shop");
  std::vector<std::string> names;
  for (const json& one : document["profiles"]) names.push_back(one["name"]);
  EXPECT_THAT(names, testing::ElementsAre("cpu{container.name=\"shop\"}", "cpu{container.name=\"web\"}",
                                          "cpu{container.name=\"\"}", "samples{container.name=\"shop\"}",
                                          "samples{container.name=\"web\"}", "samples{container.name=\"\"}"))
      << "the heaviest container first";
  const json& shop = document["profiles"][0];
  EXPECT_EQ(shop["unit"], "nanoseconds");
  ASSERT_EQ(shop["samples"].size(), 4u);
  EXPECT_EQ(shop["weights"][0], 545454540);
  EXPECT_EQ(shop["endValue"], 949494940);
  // Root first, inlined functions expanded, library as file where there is no source.
  std::vector<std::string> stack;
  for (const json& frame : shop["samples"][2]) {
    const json& shared = document["shared"]["frames"][frame.get<size_t>()];
    stack.push_back(shared["name"].get<std::string>() + "@" + shared.value("file", ""));
  }
  EXPECT_THAT(stack, testing::ElementsAre("_start@", "main@shop.cc", "hot_b(int)@shop.cc",
                                          "std::vector<Item>::push_back@shop.cc", "malloc@/usr/lib/libc.so.6"));
}

TEST(Speedscope, ComesBackWithContainersAndValues) {
  const StatusOr<profile::Profile> p = Parse(*Serialize(ShopProfile(), Format::kSpeedscope), Format::kSpeedscope);
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->value_types, (std::vector<profile::ValueType>{{"cpu", "nanoseconds"}, {"samples", "count"}}));
  EXPECT_EQ(p->Total(0), ShopProfile().Total(1));
  EXPECT_EQ(p->Total(1), 100);
  EXPECT_THAT(Describe(*p, {.places = false}),
              HasSubstr("{container.name=\"shop\"} _start;main;hot_a(int) 545454540 54\n"));
}

TEST(Speedscope, ReadsEvented) {
  const StatusOr<profile::Profile> p = Read(R"([{"type":"evented","name":"t","unit":"milliseconds","startValue":0,
    "endValue":9,"events":[{"type":"O","frame":0,"at":1},{"type":"O","frame":1,"at":2.5},{"type":"C","frame":1,"at":4},
    {"type":"C","frame":0,"at":9}]}])");
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->value_types[0], (profile::ValueType{"time", "nanoseconds"}));
  EXPECT_THAT(Describe(*p, {.places = false}), HasSubstr("{} a 6500000\n{} a;b 1500000\n"));
}

TEST(Speedscope, SeveralProfilesAreToldApart) {
  const StatusOr<profile::Profile> p =
      Read(R"([{"type":"sampled","name":"one","unit":"none","startValue":0,"endValue":1,"samples":[[0]],"weights":[1]},
               {"type":"sampled","name":"two","unit":"bytes","startValue":0,"endValue":2,"samples":[[0,1]],"weights":[2]}])");
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_THAT(Describe(*p, {.places = false}), HasSubstr("{profile=\"one\"} a 1 0\n{profile=\"two\"} a;b 0 2\n"));
}

TEST(Speedscope, RefusesWhatIsMalformed) {
  const struct {
    const char* profiles;
    const char* message;
  } kCases[] = {
      {"[]", "\"profiles\" is missing or empty"},
      {"[3]", "lacks \"type\""},
      {R"([{"type":"sampled","name":"x","unit":"ells"}])", "unknown unit"},
      {R"([{"type":"drawn","name":"x","unit":"none"}])", "unknown type"},
      {R"([{"type":"sampled","name":"x","unit":"none"}])", "equal length"},
      {R"([{"type":"sampled","name":"x","unit":"none","samples":[[0]],"weights":[]}])", "equal length"},
      {R"([{"type":"sampled","name":"x","unit":"none","samples":[[2]],"weights":[1]}])", "shared.frames"},
      {R"([{"type":"sampled","name":"x","unit":"none","samples":[[-1]],"weights":[1]}])", "shared.frames"},
      {R"([{"type":"sampled","name":"x","unit":"seconds","samples":[[0]],"weights":[1e300]}])", "out of range"},
      {R"([{"type":"sampled","name":"x","unit":"none","samples":[[0]],"weights":["1"]}])", "not a number"},
      {R"([{"type":"evented","name":"x","unit":"none","events":[{"type":"O","frame":0,"at":1}]}])", "open at its end"},
      {R"([{"type":"evented","name":"x","unit":"none","events":[{"type":"C","frame":0,"at":1}]}])", "innermost"},
      {R"([{"type":"evented","name":"x","unit":"none","events":[{"type":"O","frame":0,"at":1},{"type":"C","frame":1,"at":2}]}])",
       "innermost"},
      {R"([{"type":"evented","name":"x","unit":"none","events":[{"type":"O","frame":0,"at":2},{"type":"C","frame":0,"at":1}]}])",
       "order of time"},
      {R"([{"type":"evented","name":"x","unit":"none","events":[{"type":"Q","frame":0,"at":2}]}])", "neither opens"},
  };
  for (const auto& c : kCases) {
    const StatusOr<profile::Profile> p = Read(c.profiles);
    ASSERT_FALSE(p.ok()) << c.profiles;
    EXPECT_THAT(std::string(Message(p.status())), HasSubstr(c.message)) << c.profiles;
  }
  EXPECT_FALSE(Read("[]", "[{}]").ok());
  EXPECT_FALSE(Read("[]", "{}").ok());
}

}  // namespace
}  // namespace pyrometer::formats

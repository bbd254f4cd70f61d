#include "ui-export/formats/viewer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nlohmann/json.hpp"
#include "tests/unit/formats/test_profile.h"
#include "ui-export/formats/json_text.h"

namespace pyrometer::formats {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;

TEST(ViewerJson, HoldsTheWholeProfile) {
  const profile::Profile p = ShopProfile();
  const json v = json::parse(ViewerJson(p, "the <shop>"), nullptr, false);
  ASSERT_TRUE(v.is_object());
  EXPECT_EQ(v["version"], 1);
  EXPECT_EQ(v["title"], "the <shop>");
  EXPECT_EQ(v["profile"]["timeNs"], "1763937600000000000");
  EXPECT_EQ(v["profile"]["durationNs"], "10000000000");
  EXPECT_EQ(v["profile"]["period"], 10101010);
  EXPECT_EQ(v["profile"]["types"][1]["type"], "cpu");
  EXPECT_EQ(v["profile"]["types"][1]["unit"], "nanoseconds");
  EXPECT_EQ(v["profile"]["defaultType"], 1);
  EXPECT_EQ(v["profile"]["accounting"]["taken"], 102);
  EXPECT_EQ(v["profile"]["accounting"]["dropped"]["ring full"], 2);
  EXPECT_EQ(v["profile"]["comments"], json::array({"recorded by a test"}));

  const json& frames = v["frames"];
  const json& nodes = v["nodes"];
  for (const char* column : {"kind", "module", "file", "line", "inlined"}) {
    ASSERT_EQ(frames[column].size(), frames["name"].size()) << column;
  }
  ASSERT_EQ(nodes["frame"].size(), nodes["parent"].size());
  EXPECT_EQ(v["strings"][frames["name"][nodes["frame"][0].get<size_t>()].get<size_t>()], "all");
  EXPECT_EQ(nodes["parent"][0], -1);
  std::vector<std::string> paths;
  for (size_t i = 0; i < nodes["frame"].size(); ++i) {
    const size_t frame = nodes["frame"][i];
    std::string name = v["strings"][frames["name"][frame].get<size_t>()];
    if (i > 0) {
      const size_t parent = nodes["parent"][i];
      ASSERT_LT(parent, i) << "parents stand before children";
      name = paths[parent] + ";" + name;
    }
    paths.push_back(name);
  }
  const json& samples = v["samples"];
  ASSERT_EQ(samples["values"].size(), 2u);
  std::map<std::string, int64_t> cpu;
  for (size_t i = 0; i < samples["node"].size(); ++i) {
    const json& labels = v["labelSets"][samples["labels"][i].get<size_t>()];
    cpu[labels.value("container.name", "") + ":" + paths[samples["node"][i].get<size_t>()]] +=
        samples["values"][1][i].get<int64_t>();
  }
  EXPECT_EQ(cpu.size(), 7u);
  EXPECT_EQ(cpu["shop:all;_start;main;hot_b(int);std::vector<Item>::push_back"], 303030300);
  EXPECT_EQ(cpu["web:all;x.so+0xabc"], 10101010);
  EXPECT_EQ(cpu[":all;__x64_sys_read"], 20202020);
}

TEST(ViewerJson, FramesSayWhatTheyAre) {
  const json v = json::parse(ViewerJson(ShopProfile()), nullptr, false);
  std::map<std::string, std::string> seen;
  for (size_t i = 0; i < v["frames"]["name"].size(); ++i) {
    const auto text = [&](const char* column) {
      return v["strings"][v["frames"][column][i].get<size_t>()].get<std::string>();
    };
    seen[text("name")] = v["frames"]["kind"][i].dump() + " " + text("module") + " " + text("file") + ":" +
                         v["frames"]["line"][i].dump() + " " + v["frames"]["inlined"][i].dump();
  }
  EXPECT_EQ(seen["all"], "5  :0 0");
  EXPECT_EQ(seen["main"], "1 /srv/shop shop.cc:10 0");
  EXPECT_EQ(seen["hot_b(int)"], "1 /srv/shop shop.cc:30 0");
  EXPECT_EQ(seen["std::vector<Item>::push_back"], "1 /srv/shop shop.cc:30 1");
  EXPECT_EQ(seen["__x64_sys_read"], "2 [kernel] :0 0");
  EXPECT_EQ(seen["js::render"], "3  :0 0");
}

TEST(ViewerJson, IsSafeInsideAScriptAndForDoubles) {
  profile::Profile p;
  p.value_types = {{"x", "count"}};
  const profile::FrameId frame = AddFrame(&p, "</script><b>\xE2\x80\xA8", profile::FrameKind::kNative);
  p.Add(0, p.dictionary.InternStack(0, frame), {INT64_MAX});
  const std::string text = ViewerJson(p);
  EXPECT_EQ(text.find('<'), std::string::npos);
  EXPECT_EQ(text.find("\xE2\x80\xA8"), std::string::npos);
  const json v = json::parse(text, nullptr, false);
  EXPECT_EQ(v["samples"]["values"][0][0], kMaxSafeInteger);
  EXPECT_THAT(v["profile"]["comments"].get<std::vector<std::string>>(), Contains(HasSubstr("9,007,199,254,740,991")));
}

TEST(ViewerJson, AddressesOfOneFunctionAreOneBox) {
  profile::Profile p;
  p.value_types = {{"x", "count"}};
  for (const uint64_t address : {0x10, 0x20, 0x30}) {
    const profile::FrameId frame = AddFrame(&p, "f", profile::FrameKind::kNative, "/bin/a", address);
    p.Add(0, p.dictionary.InternStack(0, frame), {1});
  }
  const json v = json::parse(ViewerJson(p), nullptr, false);
  EXPECT_EQ(v["nodes"]["frame"].size(), 2u);
  EXPECT_EQ(v["samples"]["values"][0], json::array({3}));
}

TEST(ViewerJson, AnEmptyProfileIsStillOne) {
  profile::Profile p;
  p.value_types = {{"cpu", "nanoseconds"}};
  const json v = json::parse(ViewerJson(p), nullptr, false);
  ASSERT_TRUE(v.is_object());
  EXPECT_EQ(v["nodes"]["frame"].size(), 1u);
  EXPECT_EQ(v["title"], "cpu");
}

TEST(ViewerJson, TitlesSayWhatIsShown) {
  EXPECT_EQ(DefaultTitle(ShopProfile()), "cpu of node n1");
  profile::Profile p;
  p.value_types = {{"cpu", "nanoseconds"}};
  p.Add(AddLabels(&p, {{"container.name", "shop"}, {"node", "n1"}}), 0, {1});
  EXPECT_EQ(DefaultTitle(p), "cpu of container shop");
}

}  // namespace
}  // namespace pyrometer::formats

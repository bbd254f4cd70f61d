#include "userspace/profile/flame_graph.h"

#include <gtest/gtest.h>

#include <map>

namespace pyrometer::profile {
namespace {

TEST(FlameGraph, AsAProfile) {
  FlameGraph flame;
  flame.header.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  flame.header.default_value = 1;
  flame.header.accounting.taken = 12;
  flame.header.comments = {"as it was"};
  const LabelSetId shop = flame.header.dictionary.InternLabelSet(LabelSet().With("service", "shop"));
  flame.functions = {{.name = "all"},
                     {.name = "main", .module = "/bin/shop", .file = "main.c", .line = 7, .kind = FrameKind::kNative},
                     {.name = "work", .module = "/bin/shop", .kind = FrameKind::kNative},
                     {.name = "(smaller)", .kind = FrameKind::kSynthetic}};
  flame.nodes = {{.samples = 12, .value = 120},
                 {.parent = 0, .function = 1, .samples = 12, .value = 120},
                 {.parent = 1, .function = 2, .samples = 6, .value = 60},
                 {.parent = 1, .function = 3, .hidden = 31, .samples = 5, .value = 50},
                 {.parent = 2, .function = 3, .hidden = 2, .samples = 1, .value = 10}};
  flame.rows = {{.node = 1, .labels = shop, .samples = 1, .value = 10},
                {.node = 2, .labels = shop, .samples = 5, .value = 50},
                {.node = 3, .labels = shop, .samples = 5, .value = 50},
                {.node = 4, .labels = shop, .samples = 1, .value = 10}};
  const Profile profile = ToProfile(flame);
  EXPECT_EQ(profile.value_types, flame.header.value_types);
  EXPECT_EQ(profile.accounting, flame.header.accounting);
  EXPECT_EQ(profile.comments, flame.header.comments);
  std::map<std::string, int64_t> stacks;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    std::string names;
    for (const FrameId frame : profile.dictionary.FramesLeafFirst(profile.sample(i).stack)) {
      names = profile.dictionary.FrameName(frame) + (names.empty() ? "" : ";" + names);
    }
    stacks[names] = profile.values(i)[1];
    EXPECT_EQ(profile.dictionary.label_set(profile.sample(i).labels).Get("service"), "shop");
  }
  EXPECT_EQ(stacks, (std::map<std::string, int64_t>{
                        {"main", 10}, {"main;work", 50}, {"main;(31 smaller)", 50}, {"main;work;(2 smaller)", 10}}));
  const FrameId main = profile.dictionary.stack(profile.sample(0).stack).frame;
  EXPECT_EQ(profile.dictionary.string(profile.dictionary.mapping(profile.dictionary.frame(main).mapping).file),
            "/bin/shop");

  // A type that has no value of its own.
  flame.header.value_types.resize(1);
  flame.header.default_value = 0;
  EXPECT_EQ(ToProfile(flame).Total(0), 12);
}

}  // namespace
}  // namespace pyrometer::profile

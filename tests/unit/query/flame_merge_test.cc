#include "userspace/query/flame_merge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/query/store_model.h"

namespace pyrometer::query {
namespace {

using profile::FlameGraph;
using profile::FrameKind;
using store::MustOpen;
using store::TempFolder;

// Frames of every sort: named and not, inlined and not, of several files, of the kernel and of generated code.
class Fleet {
 public:
  Fleet(store::Store* store, uint64_t seed) : store_(*store), random_(seed) {}

  void Append(uint64_t sequence, int services) {
    store::BatchBuilder b("agent", sequence);
    for (int service = 0; service < services; ++service) {
      for (const char* pod : {"p0", "p1"}) {
        const uint32_t series =
            b.Series("cpu", {{"service", "s" + std::to_string(service)}, {"node", "n"}, {"pod", pod}});
        std::vector<std::pair<profile::StackId, uint64_t>> samples;
        for (int i = 0; i < 60; ++i) samples.emplace_back(Stack(&b.batch.dictionary), 1 + random_() % 50);
        b.Cpu(series, kT0, samples);
      }
    }
    ASSERT_TRUE(store_.Append(b.batch).ok());
  }

 private:
  profile::StackId Stack(profile::Dictionary* d) {
    profile::StackId stack = profile::kEmptyStack;
    for (size_t depth = random_() % 10; depth > 0; --depth) stack = d->InternStack(stack, Frame(d));
    return stack;
  }
  profile::FrameId Frame(profile::Dictionary* d) {
    const uint64_t which = random_() % 12;
    const uint64_t place = random_() % 24;  // what a place shows is the same everywhere
    const auto function = [&](uint64_t i) {
      return profile::Line{.function = d->InternFunction({.name = d->InternString("f" + std::to_string(i)),
                                                          .file = d->InternString("f.cc"),
                                                          .start_line = static_cast<int64_t>(10 + i)}),
                           .line = static_cast<int64_t>(20 + i)};
    };
    const profile::MappingId binary =
        d->InternMapping({.build_id = d->InternString(place % 2 == 0 ? "aa" : "bb"),
                          .file = d->InternString(place % 2 == 0 ? "/usr/bin/app" : "/usr/lib/libz.so.1")});
    profile::Frame frame{.kind = FrameKind::kNative, .mapping = binary, .address = ElfAddress(0x100 + place)};
    if (which < 6) {
      frame.lines = {function(place / 3)};
    } else if (which < 8) {
      frame.address = ElfAddress(0x200 + place);
      frame.lines = {function(place / 3), function(place / 3 + 1)};  // the first inlined into the second
    } else if (which < 10) {
      frame.address = ElfAddress(0x300 + place % 5);
      frame.miss = d->InternString("no symbols");
    } else if (which == 10) {
      frame = {.kind = FrameKind::kJit, .address = ElfAddress(0x7f00 + place)};
    } else {
      frame.kind = FrameKind::kKernel;
      frame.mapping = d->InternMapping({.file = d->InternString("[kernel]")});
      frame.lines = {{.function = d->InternFunction({.name = d->InternString("do_syscall_64")})}};
    }
    return d->InternFrame(frame);
  }

  store::Store& store_;
  std::mt19937_64 random_;
};

int64_t SumOfRows(const FlameGraph& flame) {
  int64_t sum = 0;
  for (const FlameGraph::Row& row : flame.rows) sum += row.value;
  return sum;
}

// What stands for others, by its name.
bool StandsForOthers(const FlameGraph& flame, const FlameGraph::Node& node) {
  const std::string& name = flame.functions[node.function].name;
  return name == kSmallerName || name == kOutsideFocusName;
}

class FlameMerge : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = MustOpen(folder_.path() + "/data");
    Fleet fleet(store_.get(), 7);
    for (uint64_t sequence = 1; sequence <= 3; ++sequence) fleet.Append(sequence, 5);
  }
  Engine engine() const { return Engine(store_.get()); }

  const TempFolder folder_;
  std::unique_ptr<store::Store> store_;
  const Selector cpu_{.type = "cpu"};
};

TEST_F(FlameMerge, IsWhatTheStacksSay) {
  for (const std::vector<std::string>& by :
       {std::vector<std::string>{}, {"service"}, {"service", "pod"}, {"pod"}, {"absent"}}) {
    const profile::Profile profile = Value(engine().MergeProfile(cpu_, {}, {.group_by = by}));
    const FlameGraph flame = Value(MergeFlame(engine(), cpu_, {}, {.root_labels = by}));
    EXPECT_EQ(BoxesOf(flame, 0), BoxesOf(BuildFlameTree(profile, 0, {.root_labels = by})));
    EXPECT_EQ(BoxesOf(flame, 1), BoxesOf(BuildFlameTree(profile, 1, {.root_labels = by})));
    EXPECT_EQ(flame.header.accounting, profile.accounting);
    EXPECT_EQ(flame.header.value_types, profile.value_types);
    EXPECT_EQ(flame.header.period, profile.period);
    EXPECT_EQ(flame.header.time_ns, profile.time_ns);
    EXPECT_EQ(flame.header.duration_ns, profile.duration_ns);
    EXPECT_EQ(flame.header.comments, profile.comments);
    for (const FlameGraph::Row& row : flame.rows) {
      EXPECT_EQ(flame.header.dictionary.label_set(row.labels).labels().size(),
                by == std::vector<std::string>{"absent"} ? 0u : by.size());
    }
  }
  for (const TopOrder order : {TopOrder::kSelf, TopOrder::kTotal}) {
    const profile::Profile profile = Value(engine().MergeProfile(cpu_, {}));
    for (const size_t n : {size_t{0}, size_t{1}, size_t{5}, size_t{1000}}) {
      const MergedTop top = Value(MergeTop(engine(), cpu_, {}, {.rows = n, .order = order}));
      EXPECT_EQ(RowsOf(top.tops.at(0).table), RowsOf(TopFunctions(profile, n, order)));
    }
    EXPECT_EQ(Value(MergeTop(engine(), cpu_, {})).build_ids, (std::vector<std::string>{"aa", "bb"}));
  }
}

// What is shown, by way and name; what stands for others by their number.
std::multimap<std::string, std::pair<int64_t, int64_t>> Shown(const FlameTree& tree) {
  std::multimap<std::string, std::pair<int64_t, int64_t>> shown;
  std::vector<std::string> ways(tree.size());
  for (size_t i = 0; i < tree.size(); ++i) {
    if (i > 0) ways[i] = ways[tree.parent[i]] + "/" + tree.names[tree.name[i]];
    shown.emplace(ways[i], std::pair(tree.self[i], tree.total[i]));
  }
  return shown;
}

TEST_F(FlameMerge, WhatATerminalShows) {
  for (const std::vector<std::string>& by : {std::vector<std::string>{}, {"service"}, {"pod"}}) {
    const profile::Profile profile = Value(engine().MergeProfile(cpu_, {}, {.group_by = by}));
    for (const double share : {0.0, 0.003, 0.05, 0.3}) {
      SCOPED_TRACE(share);
      const auto expected = Shown(BuildFlameTree(profile, 1, {.root_labels = by, .min_share = share}));
      const FlameMergeOptions options{.root_labels = by, .min_share = share};
      const profile::Profile merged = profile::ToProfile(Value(MergeFlame(engine(), cpu_, {}, options)));
      EXPECT_EQ(Shown(BuildFlameTree(merged, 1)), expected);
      EXPECT_EQ(merged.Total(0), profile.Total(0));
      EXPECT_EQ(merged.comments, profile.comments);
      // The same of stacks at hand.
      const profile::Profile folded = profile::ToProfile(FlameOf(profile, options));
      EXPECT_EQ(Shown(BuildFlameTree(folded, 1)), expected);
      EXPECT_EQ(folded.Total(0), profile.Total(0));
      if (share == 0) {
        EXPECT_EQ(Shown(BuildFlameTree(folded, 0)), Shown(BuildFlameTree(profile, 0, {.root_labels = by})));
      }
    }
  }
}

TEST_F(FlameMerge, TablesByLabel) {
  for (const std::vector<std::string>& by : {std::vector<std::string>{"service"}, {"service", "pod"}, {"absent"}}) {
    const profile::Profile profile = Value(engine().MergeProfile(cpu_, {}, {.group_by = by}));
    for (const size_t n : {size_t{0}, size_t{3}}) {
      const MergedTop top = Value(MergeTop(engine(), cpu_, {}, {.rows = n, .order = TopOrder::kTotal, .by = by}));
      const std::vector<profile::LabelledTop> expected = TopByLabels(profile, n, TopOrder::kTotal);
      ASSERT_EQ(top.tops.size(), expected.size());
      ASSERT_GE(top.tops.size(), 1u);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(top.tops[i].labels, expected[i].labels);
        EXPECT_EQ(RowsOf(top.tops[i].table), RowsOf(expected[i].table));
        EXPECT_EQ(top.tops[i].table.total, expected[i].table.total);
        EXPECT_EQ(top.tops[i].table.functions, expected[i].table.functions);
      }
      EXPECT_EQ(top.samples, profile.Total(0));
      EXPECT_EQ(top.value, profile.Total(1));
    }
  }
  const MergedTop nothing = Value(MergeTop(engine(), Value(ParseSelector("cpu{service=\"nobody\"}")), {}));
  EXPECT_EQ(nothing.samples, 0);
  ASSERT_EQ(nothing.tops.size(), 1u);
  EXPECT_TRUE(nothing.tops[0].table.rows.empty());
}

TEST_F(FlameMerge, FilesAndLinesAreThoseOfTheFunction) {
  const FlameGraph flame = Value(MergeFlame(engine(), cpu_, {}));
  size_t named = 0;
  for (const FlameGraph::Function& function : flame.functions) {
    if (function.name.empty() || function.name[0] != 'f') continue;
    ++named;
    EXPECT_EQ(function.file, "f.cc");
    EXPECT_EQ(function.line, 10 + std::stoi(function.name.substr(1)));
    EXPECT_EQ(function.build_id, "") << "has a name and a line";
  }
  EXPECT_GT(named, 5u);
}

TEST_F(FlameMerge, TheLargestBoxesAreShownAndTheRestIsSummedUp) {
  const FlameGraph whole = Value(MergeFlame(engine(), cpu_, {}, {.root_labels = {"service"}}));
  const Boxes all = BoxesOf(whole, 1);
  for (const size_t max_nodes : {size_t{1}, size_t{7}, size_t{100}, size_t{500}}) {
    SCOPED_TRACE(max_nodes);
    const FlameGraph cut = Value(MergeFlame(engine(), cpu_, {}, {.root_labels = {"service"}, .max_nodes = max_nodes}));
    EXPECT_EQ(SumOfRows(cut), SumOfRows(whole));
    EXPECT_EQ(cut.header.comments.size(), 1u);
    std::vector<int64_t> below(cut.nodes.size());
    size_t shown = 0;
    int64_t smallest = INT64_MAX;
    for (size_t i = cut.nodes.size(); i-- > 1;) {
      const FlameGraph::Node& node = cut.nodes[i];
      below[node.parent] += node.value;
      if (StandsForOthers(cut, node)) {
        EXPECT_GT(node.hidden, 0u);
        continue;
      }
      ++shown;
      smallest = std::min(smallest, node.value);
    }
    EXPECT_EQ(shown, max_nodes);
    // Of what is not shown nothing is larger.
    const Boxes boxes = BoxesOf(cut, 1);
    for (const auto& [way, box] : all) {
      if (!boxes.contains(way)) {
        EXPECT_LE(box.second, smallest) << way;
      }
    }
    for (const auto& [way, box] : boxes) {
      if (way.find(kSmallerName) == std::string::npos) {
        EXPECT_EQ(box, all.at(way)) << way;
      }
    }
    std::vector<int64_t> self(cut.nodes.size());
    for (const FlameGraph::Row& row : cut.rows) self[row.node] += row.value;
    for (size_t i = 0; i < cut.nodes.size(); ++i) EXPECT_EQ(self[i] + below[i], cut.nodes[i].value);
  }
}

TEST_F(FlameMerge, FocusShowsOneSubtreeWhole) {
  const FlameGraph whole = Value(MergeFlame(engine(), cpu_, {}, {.root_labels = {"service"}}));
  // A way of four boxes: a service, and three functions with something below.
  std::vector<uint32_t> children(whole.nodes.size());
  for (const FlameGraph::Node& node : whole.nodes) ++children[node.parent];
  uint32_t at = 0;
  for (uint32_t i = 1; i < whole.nodes.size(); ++i) {
    uint32_t depth = 0;
    for (uint32_t node = i; node != 0; node = whole.nodes[node].parent) ++depth;
    if (depth == 4 && children[i] > 1) at = i;
  }
  ASSERT_NE(at, 0u);
  std::vector<std::string> focus;
  for (uint32_t node = at; node != 0; node = whole.nodes[node].parent) {
    focus.insert(focus.begin(), whole.functions[whole.nodes[node].function].name);
  }
  const FlameGraph zoomed = Value(MergeFlame(engine(), cpu_, {}, {.root_labels = {"service"}, .focus = focus}));
  EXPECT_EQ(SumOfRows(zoomed), SumOfRows(whole));
  const Boxes all = BoxesOf(whole, 1), boxes = BoxesOf(zoomed, 1);
  for (const auto& [name, box] : boxes) {
    if (name.find(kOutsideFocusName) == std::string::npos) {
      EXPECT_EQ(box.second, all.at(name).second) << name;
    }
  }
  // Everything below is there, nothing beside it.
  size_t below = 0;
  for (const auto& [name, box] : all) {
    const size_t depth = static_cast<size_t>(std::count(name.begin(), name.end(), '#'));
    bool inside = depth >= focus.size();
    size_t position = 0;
    for (size_t i = 0; inside && i < focus.size(); ++i) {
      inside = name.compare(position, focus[i].size() + 2, "/" + focus[i] + "@") == 0;
      position = name.find('#', position) + 2;
    }
    if (inside) ++below;
    EXPECT_TRUE(!inside || boxes.contains(name)) << name;
  }
  EXPECT_GT(below, 1u);
  size_t shown = 0;
  for (size_t i = 1; i < zoomed.nodes.size(); ++i) shown += StandsForOthers(zoomed, zoomed.nodes[i]) ? 0 : 1;
  EXPECT_LE(shown, below + 2 * focus.size());

  focus[3] = "no such function";
  const FlameGraph nothing = Value(MergeFlame(engine(), cpu_, {}, {.root_labels = {"service"}, .focus = focus}));
  EXPECT_EQ(SumOfRows(nothing), SumOfRows(whole));
}

// Names that come later: shown at once, and again when there are more of them.
class OneFile : public store::LateNames {
 public:
  uint64_t generation() const override { return generation_; }
  std::vector<Line> Find(std::string_view build_id, ElfAddress address, bool has_name) override {
    ++asked;
    if (build_id != "aa" || has_name) return {};
    return {{.name = "inner" + suffix, .file = "late.c", .line = 3},
            {.name = "outer_" + std::to_string(address.value) + suffix, .file = "late.c", .line = 9}};
  }
  void Set(uint64_t generation, std::string text) {
    generation_ = generation;
    suffix = std::move(text);
  }
  std::string suffix;
  size_t asked = 0;

 private:
  uint64_t generation_ = 0;
};

TEST_F(FlameMerge, LateNamesAreShownAndNotStored) {
  OneFile late;
  Engine engine(store_.get());
  engine.set_late_names(&late);
  const auto names = [&] {
    std::set<std::string> set;
    const MergedTop top = Value(MergeTop(engine, cpu_, {}));
    for (const FunctionCost& row : top.tops.at(0).table.rows) set.insert(row.name);
    return set;
  };
  const Boxes plain = BoxesOf(Value(MergeFlame(engine, cpu_, {})), 1);
  EXPECT_EQ(late.asked, 0u) << "there is no file yet";
  EXPECT_TRUE(names().contains("app+0x300"));
  late.Set(1, "");
  EXPECT_TRUE(names().contains("outer_768") && names().contains("inner"));
  EXPECT_FALSE(names().contains("app+0x300"));
  EXPECT_TRUE(names().contains("libz.so.1+0x301"));
  const size_t asked = late.asked;
  EXPECT_EQ(SumOfRows(Value(MergeFlame(engine, cpu_, {}))), plain.at("").second);
  EXPECT_EQ(late.asked, asked) << "asked once per place";
  late.Set(2, "_v2");
  EXPECT_TRUE(names().contains("outer_768_v2"));
  EXPECT_FALSE(names().contains("outer_768"));
  // Whoever asks without them sees what was stored.
  EXPECT_EQ(BoxesOf(Value(MergeFlame(Engine(store_.get()), cpu_, {})), 1), plain);
}

TEST_F(FlameMerge, StaysWithinTheMemoryOfAQuestion) {
  store::ReadBudget little({.memory_bytes = 1000});
  EXPECT_EQ(MergeFlame(engine().For("", &little), cpu_, {}).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(MergeTop(engine().For("", &little), cpu_, {}, {.rows = 10}).status().code(),
            StatusCode::kResourceExhausted);
  store::ReadBudget enough({.memory_bytes = 4u << 20});
  EXPECT_TRUE(MergeFlame(engine().For("", &enough), cpu_, {}).ok());
  EXPECT_LT(enough.charged(), 1u << 20);
}

}  // namespace
}  // namespace pyrometer::query

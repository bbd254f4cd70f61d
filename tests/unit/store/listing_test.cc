#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/unit/store/store_testing.h"

namespace pyrometer::store {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

LabelMatcher M(std::string_view name, MatchOp op, std::string_view value) {
  return LabelMatcher::Make(name, op, value).value();
}

TEST(Listing, TypesLabelsAndValues) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  EXPECT_THAT(store->ProfileTypes("").value(), IsEmpty());
  EXPECT_THAT(store->LabelNames({}).value(), IsEmpty());
  EXPECT_THAT(store->Agents().value(), IsEmpty());
  BatchBuilder b("a", 1);
  b.Cpu(b.Series("cpu", {{"node", "n1"}, {"service", "shop"}, {"comm", "nginx"}}), kT0, {{0, 1}});
  b.Cpu(b.Series("cpu", {{"node", "n2"}, {"service", "shop"}}), kT0, {{0, 1}});
  b.Cpu(b.Series("cpu", {{"node", "n2"}, {"service", "cart"}, {"pod", "p-1"}}), kT0, {{0, 1}});
  b.Counter(b.Series("tcp_retransmits", {{"node", "n3"}, {"peer", "x"}}), kT0, 1);
  ASSERT_TRUE(store->Append(b.batch).ok());

  EXPECT_THAT(store->ProfileTypes("").value(), ElementsAre("cpu", "tcp_retransmits"));
  EXPECT_THAT(store->LabelNames({}).value(), ElementsAre("comm", "node", "peer", "pod", "service"));
  EXPECT_THAT(store->LabelNames({.type = "cpu"}).value(), ElementsAre("comm", "node", "pod", "service"));
  EXPECT_THAT(store->LabelValues("node", {}).value(), ElementsAre("n1", "n2", "n3"));
  EXPECT_THAT(store->LabelValues("node", {.type = "cpu"}).value(), ElementsAre("n1", "n2"));
  EXPECT_THAT(store->LabelValues("absent", {}).value(), IsEmpty());
  EXPECT_THAT(store->LabelValues("node", {.type = "absent"}).value(), IsEmpty());
  SeriesFilter shop{.type = "cpu", .matchers = {LabelMatcher::Equal("service", "shop")}};
  EXPECT_THAT(store->LabelValues("node", shop).value(), ElementsAre("n1", "n2"));
  EXPECT_THAT(store->LabelNames(shop).value(), ElementsAre("comm", "node", "service"));
  shop.matchers.push_back(M("comm", MatchOp::kNotEqual, ""));
  EXPECT_THAT(store->LabelValues("node", shop).value(), ElementsAre("n1"));
}

// Every operator against a plain loop over all series.
TEST(Listing, FindSeriesAgreesWithTheModel) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  std::mt19937_64 random(7);
  const std::vector<std::string> names = {"node", "service", "comm", "pod"};
  std::vector<profile::SeriesKey> all;
  BatchBuilder b("a", 1);
  for (int i = 0; i < 300; ++i) {
    std::vector<profile::Label> labels;
    for (const std::string& name : names) {
      if (random() % 3 != 0) labels.push_back({name, "v" + std::to_string(random() % 6)});
    }
    const std::string type = random() % 2 == 0 ? "cpu" : "off_cpu";
    const profile::SeriesKey key{type, Labels(labels)};
    if (std::find(all.begin(), all.end(), key) != all.end()) continue;
    all.push_back(key);
    b.Counter(b.Series(type, labels), kT0, 1);
  }
  ASSERT_TRUE(store->Append(b.batch).ok());
  for (int round = 0; round < 2; ++round) {
    for (int query = 0; query < 300; ++query) {
      SeriesFilter filter;
      if (random() % 4 != 0) filter.type = random() % 2 == 0 ? "cpu" : "off_cpu";
      for (size_t i = 0, n = random() % 4; i < n; ++i) {
        const std::string values[] = {"v1", "v2", "", "v[12]", ".*", "v.+", "(v3|)", "unknown", "v4|v5"};
        filter.matchers.push_back(M(names[random() % names.size()], static_cast<MatchOp>(random() % 4),
                                    values[random() % std::size(values)]));
      }
      std::vector<profile::SeriesKey> expected;
      for (const profile::SeriesKey& key : all) {
        bool match = filter.type.empty() || key.type == filter.type;
        for (const LabelMatcher& matcher : filter.matchers) match = match && matcher.Matches(key.labels);
        if (match) expected.push_back(key);
      }
      std::vector<profile::SeriesKey> found;
      for (const Series& series : Value(store->FindSeries(filter))) found.push_back({series.type, series.labels});
      std::sort(expected.begin(), expected.end());
      std::sort(found.begin(), found.end());
      ASSERT_EQ(found, expected);
    }
    store.reset();
    store = MustOpen(folder.path());
  }
}

}  // namespace
}  // namespace pyrometer::store

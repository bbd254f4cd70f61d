#include "userspace/query/engine.h"
#include "userspace/query/function_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/unit/store/store_testing.h"

namespace pyrometer::query {
namespace {

using store::BatchBuilder;
using store::kPeriod;
using store::kT0;
using store::kWindow;
using store::MustOpen;
using store::TempFolder;
using store::Value;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kStep = static_cast<int64_t>(kWindow);

Selector S(std::string_view text) { return Value(ParseSelector(text, "cpu")); }

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : store_(MustOpen(folder_.path())), engine_(store_.get()) {
    BatchBuilder b("a", 1);
    const uint32_t shop = b.Series(
        "cpu",
        {{"node", "n1"}, {"service", "shop"}, {"container.id", "c1"}, {"container.name", "shop"}, {"comm", "nginx"}});
    const uint32_t shop_sh = b.Series(
        "cpu",
        {{"node", "n1"}, {"service", "shop"}, {"container.id", "c1"}, {"container.name", "shop"}, {"comm", "sh"}});
    const uint32_t host = b.Series("cpu", {{"node", "n1"}, {"service", "sshd"}, {"comm", "sshd"}});
    const uint32_t session = b.Series("cpu", {{"node", "n1"}, {"service", "shop"}, {"session", "s1"}});
    b.Cpu(shop, kT0, {{b.Stack({"main", "hot_a"}), 60}, {b.Stack({"main", "hot_b"}), 40}});
    b.Cpu(shop, kT0 + kStep, {{b.Stack({"main", "hot_a"}), 6}});
    b.Cpu(shop_sh, kT0 + kStep, {{b.Stack({"main"}), 5}});
    b.Cpu(host, kT0, {{b.Stack({"main", "poll"}), 3}});
    b.Cpu(session, kT0, {{b.Stack({"main", "hot_a"}), 1000}});
    const auto counter = [&](std::string_view type, std::vector<profile::Label> labels, uint64_t value) {
      labels.push_back({"node", "n1"});
      b.Counter(b.Series(std::string(type), std::move(labels)), kT0, value);
    };
    counter(profile::kTypeSamplesTaken, {}, 120);
    counter(profile::kTypeSamplesDelivered, {}, 114);
    counter(profile::kTypeSamplesDropped, {{"reason", "ring full"}}, 6);
    counter(profile::kTypeSamplesDropped, {{"reason", "malformed"}}, 0);
    counter(profile::kTypeStackStops, {{"reason", "root"}}, 100);
    counter(profile::kTypeSymbolMisses, {{"reason", "no symbols"}}, 9);
    counter(profile::kTypeStackMeans, {{"reason", "unwind tables"}}, 98);
    counter(profile::kTypeStackMeans, {{"reason", "frame pointers: generated code"}}, 2);
    counter(profile::kTypeSamplesExpected, {}, 121);
    counter(profile::kTypeFrames, {}, 300);
    const auto latency = [&](std::string_view syscall, int64_t time_ns, uint64_t value, uint64_t count) {
      profile::HistogramPoint point{
          .series =
              b.Series("syscall_latency", {{"node", "n1"}, {"service", "shop"}, {"syscall", std::string(syscall)}}),
          .time_ns = time_ns,
          .duration_ns = kWindow};
      point.histogram.Record(value, count);
      point.errors = {{4, 1}};
      point.exemplars.push_back({.time_ns = time_ns + 1,
                                 .value = value,
                                 .stack = b.Stack({"main", std::string(syscall)}),
                                 .comm = "app",
                                 .tid = 7});
      b.batch.histograms.push_back(point);
    };
    latency("nanosleep", kT0, 20'000'000, 50);
    latency("nanosleep", kT0 + kStep, 21'000'000, 50);
    latency("read", kT0, 5'000'000, 10);
    EXPECT_TRUE(store_->Append(b.batch).ok());
  }

  std::map<std::string, int64_t> Folded(const profile::Profile& p, size_t value_index) {
    std::map<std::string, int64_t> folded;
    for (size_t i = 0; i < p.sample_count(); ++i) {
      std::string key = p.sample(i).labels == 0 ? "" : p.dictionary.label_set(p.sample(i).labels).ToString() + " ";
      std::vector<profile::FrameId> frames = p.dictionary.FramesLeafFirst(p.sample(i).stack);
      for (size_t f = frames.size(); f > 0; --f) key += p.dictionary.FrameName(frames[f - 1]) + (f > 1 ? ";" : "");
      folded[key] += p.values(i)[value_index];
    }
    return folded;
  }

  const TempFolder folder_;
  std::unique_ptr<store::Store> store_;
  const Engine engine_;
};

TEST_F(EngineTest, MergeIsExactAndLeavesSessionsOut) {
  const profile::Profile p = Value(engine_.MergeProfile(S("{service=\"shop\"}"), {}));
  EXPECT_EQ(Folded(p, 0), (std::map<std::string, int64_t>{{"main;hot_a", 66}, {"main;hot_b", 40}, {"main", 5}}));
  EXPECT_EQ(p.Total(1), 111 * static_cast<int64_t>(kPeriod));
  EXPECT_EQ(p.value_types[1], (profile::ValueType{"cpu", "nanoseconds"}));
  EXPECT_EQ(p.default_value, 1u);
  EXPECT_EQ(p.period, static_cast<int64_t>(kPeriod));
  EXPECT_EQ(p.time_ns, kT0);
  EXPECT_EQ(p.duration_ns, 2 * kWindow);
  const profile::Profile session = Value(engine_.MergeProfile(S("{session=\"s1\"}"), {}));
  EXPECT_EQ(session.Total(0), 1000);
  EXPECT_EQ(Value(engine_.MergeProfile(S("{service=\"absent\"}"), {})).sample_count(), 0u);
  EXPECT_EQ(Value(engine_.MergeProfile(S("off_cpu"), {})).sample_count(), 0u);
}

TEST_F(EngineTest, GroupByKeepsLabels) {
  const profile::Profile p =
      Value(engine_.MergeProfile(S("cpu"), {kT0 + kStep, kT0 + 2 * kStep}, {.group_by = {"comm", "absent"}}));
  EXPECT_EQ(Folded(p, 0),
            (std::map<std::string, int64_t>{{"{comm=\"nginx\"} main;hot_a", 6}, {"{comm=\"sh\"} main", 5}}));
}

TEST_F(EngineTest, AFunctionsHistoryIsOfWholeServices) {
  const auto history = [&](std::string_view selector, std::string_view name) {
    return FunctionHistory(engine_, S(std::string(selector)), name, {});
  };
  const auto sum = [](const std::vector<FunctionPoint>& points) {
    std::pair<uint64_t, uint64_t> total;
    for (const FunctionPoint& point : points) total = {total.first + point.self, total.second + point.total};
    return total;
  };
  std::map<std::string, std::pair<uint64_t, uint64_t>> fresh;
  for (const std::string name : {"main", "hot_a", "hot_b", "absent"}) {
    fresh[name] = sum(Value(history("cpu{service=\"shop\"}", name)));
  }
  EXPECT_EQ(fresh["main"], std::pair(5 * kPeriod, 111 * kPeriod));
  EXPECT_EQ(fresh["hot_a"], std::pair(66 * kPeriod, 66 * kPeriod));
  EXPECT_EQ(fresh["absent"], std::pair(uint64_t{0}, uint64_t{0}));
  // The same from the index, once the hour is over.
  store::KeepHouse(store_.get(), kT0 + 3 * 3600 * static_cast<int64_t>(kNsPerSecond));
  EXPECT_GT(store_->HousekeptUntil().value(), kT0);
  for (const auto& [name, expected] : fresh) {
    EXPECT_EQ(sum(Value(history("cpu{service=\"shop\"}", name))), expected) << name;
  }
  for (const std::string_view part : {"cpu{comm=\"nginx\"}", "cpu{node=\"n1\"}", "cpu{session=\"s1\"}"}) {
    EXPECT_EQ(history(part, "main").status().code(), StatusCode::kInvalidArgument) << part;
  }
  EXPECT_EQ(history("cpu", "").status().code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, RangesAreHalfOpenByWindowStart) {
  const auto samples = [&](int64_t from, int64_t to) {
    return Value(engine_.MergeProfile(S("{comm=\"nginx\"}"), {from, to})).Total(0);
  };
  EXPECT_EQ(samples(kT0, kT0 + 1), 100);
  EXPECT_EQ(samples(kT0 + 1, kT0 + kStep), 0);
  EXPECT_EQ(samples(kT0, kT0 + kStep), 100);
  EXPECT_EQ(samples(kT0 + kStep, kT0 + kStep + 1), 6);
  EXPECT_EQ(samples(INT64_MIN, INT64_MAX), 106);
  EXPECT_EQ(samples(0, 0), 0);
  EXPECT_EQ(samples(kT0 + kStep, kT0), 0);
}

TEST_F(EngineTest, Accounting) {
  // The whole node: the agent's own counters.
  const profile::Profile node = Value(engine_.MergeProfile(S("{node=\"n1\"}"), {}));
  EXPECT_EQ(node.accounting.taken, 120u);
  EXPECT_EQ(node.accounting.delivered, 114u);
  EXPECT_EQ(node.accounting.dropped, (std::map<std::string, uint64_t>{{"ring full", 6}}));
  EXPECT_EQ(node.accounting.stop_reasons, (std::map<std::string, uint64_t>{{"root", 100}}));
  EXPECT_EQ(node.accounting.miss_reasons, (std::map<std::string, uint64_t>{{"no symbols", 9}}));
  EXPECT_EQ(node.accounting.means,
            (std::map<std::string, uint64_t>{{"unwind tables", 98}, {"frame pointers: generated code", 2}}));
  EXPECT_EQ(node.accounting.expected, 121u);
  EXPECT_EQ(node.accounting.frames, 300u);
  EXPECT_EQ(node.accounting.taken, node.accounting.delivered + node.accounting.DroppedTotal());
  // A part of it: the counters cannot tell; the drops are told in words.
  const profile::Profile part = Value(engine_.MergeProfile(S("{comm=\"sh\"}"), {}));
  EXPECT_EQ(part.accounting.taken, 5u);
  EXPECT_EQ(part.accounting.delivered, 5u);
  EXPECT_THAT(part.comments, ElementsAre(HasSubstr("6 samples were dropped on the nodes of this selection")));
}

TEST_F(EngineTest, TimeSeries) {
  std::vector<TimeSeriesRow> rows = Value(engine_.TimeSeries(S("{service=\"shop\"}"), {}, kWindow, {"comm"}));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].labels.ToString(), "{comm=\"nginx\"}");
  EXPECT_THAT(rows[0].points,
              ElementsAre(SeriesPoint{kT0, 100, 100 * kPeriod}, SeriesPoint{kT0 + kStep, 6, 6 * kPeriod}));
  EXPECT_EQ(rows[1].labels.ToString(), "{comm=\"sh\"}");
  EXPECT_THAT(rows[1].points, ElementsAre(SeriesPoint{kT0 + kStep, 5, 5 * kPeriod}));

  rows = Value(engine_.TimeSeries(S("cpu"), {kT0, kT0 + 2 * kStep}, 0, {}));
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_THAT(rows[0].points, ElementsAre(SeriesPoint{kT0, 114, 114 * kPeriod}));
  // Steps are aligned to the epoch, not to the range.
  rows = Value(engine_.TimeSeries(S("{comm=\"nginx\"}"), {kT0 - 5, INT64_MAX}, 60'000'000'000, {}));
  EXPECT_EQ(rows[0].points[0].time_ns % 60'000'000'000, 0);

  rows = Value(engine_.TimeSeries(S("syscall_latency"), {}, kWindow, {"syscall"}));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows[1].points, ElementsAre(SeriesPoint{kT0, 10, 50'000'000}));
  rows = Value(engine_.TimeSeries(S("pyrometer_samples_taken"), {}, kWindow, {}));
  EXPECT_THAT(rows[0].points, ElementsAre(SeriesPoint{kT0, 0, 120}));
  EXPECT_TRUE(Value(engine_.TimeSeries(S("absent"), {}, kWindow, {})).empty());
}

TEST_F(EngineTest, TooManyStepsIsAnError) {
  BatchBuilder b("a", 2);
  const uint32_t series = b.Series("tcp_retransmits", {});
  for (uint64_t i = 0; i <= kMaxSteps; ++i) b.Counter(series, kT0 - static_cast<int64_t>(i), 1);
  ASSERT_TRUE(store_->Append(b.batch).ok());
  const Status status = engine_.TimeSeries(S("tcp_retransmits"), {}, 1, {}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("larger step"));
  EXPECT_EQ(Value(engine_.TimeSeries(S("tcp_retransmits"), {}, 2, {}))[0].points.size(), kMaxSteps / 2 + 1);
}

TEST_F(EngineTest, HistogramsAndExemplars) {
  const std::vector<HistogramRow> rows = Value(engine_.Histograms(S("syscall_latency"), {}, {"syscall"}));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].labels.Get("syscall"), "nanosleep");
  EXPECT_EQ(rows[0].histogram.count(), 100u);
  EXPECT_EQ(rows[0].histogram.max(), 21'000'000u);
  EXPECT_EQ(rows[0].errors, (std::map<int32_t, uint64_t>{{4, 2}}));
  EXPECT_EQ(rows[0].exemplars, 2u);
  const std::vector<HistogramSeriesRow> steps =
      Value(engine_.HistogramSeries(S("syscall_latency{syscall=\"nanosleep\"}"), {}, kWindow, {}));
  ASSERT_EQ(steps.size(), 1u);
  ASSERT_EQ(steps[0].steps.size(), 2u);
  EXPECT_EQ(steps[0].steps[1].time_ns, kT0 + kStep);
  EXPECT_EQ(steps[0].steps[1].histogram.max(), 21'000'000u);
  EXPECT_EQ(steps[0].steps[1].errors, 1u);

  const ExemplarResult slow = Value(engine_.ExemplarProfile(S("syscall_latency"), {}, 10'000'000, 20'500'000));
  ASSERT_EQ(slow.exemplars.size(), 1u);
  EXPECT_EQ(slow.exemplars[0].value, 20'000'000u);
  EXPECT_EQ(slow.exemplars[0].tid, 7u);
  EXPECT_EQ(slow.exemplars[0].labels.Get("syscall"), "nanosleep");
  EXPECT_EQ(Folded(slow.profile, 1), (std::map<std::string, int64_t>{{"main;nanosleep", 20'000'000}}));
  const ExemplarResult all = Value(engine_.ExemplarProfile(S("syscall_latency"), {}));
  EXPECT_EQ(Folded(all.profile, 0), (std::map<std::string, int64_t>{{"main;nanosleep", 2}, {"main;read", 1}}));
  EXPECT_EQ(all.exemplars[0].value, 21'000'000u);
  EXPECT_EQ(all.exemplars[2].value, 5'000'000u);
}

TEST_F(EngineTest, DrawnExemplarsStandForMany) {
  BatchBuilder b("drawn", 1);
  profile::HistogramPoint point{.series = b.Series("syscall_latency", {{"service", "drawn"}, {"syscall", "read"}}),
                                .time_ns = kT0,
                                .duration_ns = kWindow};
  point.histogram.Record(1000, 2048);
  const profile::StackId main = b.Stack({"main"}), other = b.Stack({"main", "other"}), waker = b.Stack({"feed"});
  point.exemplars = {{.time_ns = kT0, .value = 900, .stack = main, .comm = "c", .weight = 1024, .typical = true},
                     {.time_ns = kT0 + 1,
                      .value = 8000,
                      .stack = other,
                      .comm = "c",
                      .weight = 512,
                      .split = {{"poll", 7000}, {"running", 1000}},
                      .waker = {.stack = waker, .comm = "feeder", .tid = 3, .cause = "poll", .wait_ns = 6000}},
                     {.time_ns = kT0 + 2, .value = 9000, .stack = other, .comm = "c"}};
  b.batch.histograms.push_back(point);
  ASSERT_TRUE(store_->Append(b.batch).ok());
  const Selector selector = S("syscall_latency{service=\"drawn\"}");
  // One is of both kinds.
  const ExemplarResult slow = Value(engine_.ExemplarProfile(selector, {}));
  ASSERT_EQ(slow.exemplars.size(), 2u);
  EXPECT_EQ(Folded(slow.profile, 1), (std::map<std::string, int64_t>{{"main;other", 17'000}}));
  EXPECT_EQ(slow.exemplars[1].weight, 512u);
  EXPECT_EQ(slow.exemplars[1].split, (std::vector<profile::TimePart>{{"poll", 7000}, {"running", 1000}}));
  const profile::Waker& by = slow.exemplars[1].waker;
  EXPECT_EQ(by.comm, "feeder");
  EXPECT_EQ(by.wait_ns, 6000u);
  const profile::Dictionary& dictionary = slow.profile.dictionary;
  EXPECT_EQ(dictionary.FrameName(dictionary.stack(by.stack).frame), "feed");
  EXPECT_EQ(slow.exemplars[0].waker.stack, profile::kEmptyStack);
  const ExemplarResult drawn = Value(engine_.ExemplarProfile(selector, {}, 0, UINT64_MAX, ExemplarKind::kDrawn));
  ASSERT_EQ(drawn.exemplars.size(), 2u);
  EXPECT_EQ(Folded(drawn.profile, 0), (std::map<std::string, int64_t>{{"main", 1024}, {"main;other", 512}}));
  EXPECT_EQ(Folded(drawn.profile, 1),
            (std::map<std::string, int64_t>{{"main", 1024 * 900}, {"main;other", 512 * 8000}}));
}

TEST_F(EngineTest, LatestHistogramsAreAStateAndNoSum) {
  BatchBuilder b("b", 1);
  const auto open = [&](const char* node, const char* service, const char* call, int64_t time_ns, uint64_t count) {
    profile::HistogramPoint point{
        .series = b.Series("syscall_open", {{"node", node}, {"service", service}, {"syscall", call}}),
        .time_ns = time_ns,
        .duration_ns = kWindow};
    point.histogram.Record(5'000'000, count);
    b.batch.histograms.push_back(point);
  };
  for (int64_t i = 0; i < 4; ++i) open("n1", "shop", "read", kT0 + i * kStep, 3);
  open("n1", "shop", "flock", kT0 + kStep, 1);      // has returned since
  open("n1", "db", "fsync", kT0 + 2 * kStep, 5);    // so have all of this service
  open("n2", "shop", "read", kT0 + 3 * kStep, 2);   // another node's newest window
  open("n3", "shop", "read", kT0 - 8 * kStep, 90);  // this node is away
  ASSERT_TRUE(store_->Append(b.batch).ok());
  const TimeRange range{kT0 - 100 * kStep, kT0 + 4 * kStep};
  const auto ask = [&](std::string_view query, TimeRange of, const std::vector<std::string>& by) {
    std::map<std::string, uint64_t> counts;
    for (const HistogramRow& row : Value(engine_.LatestHistograms(S(query), of, by))) {
      counts[row.labels.ToString()] = row.histogram.count();
    }
    return counts;
  };
  using Counts = std::map<std::string, uint64_t>;
  EXPECT_EQ(ask("syscall_open", range, {"syscall"}), (Counts{{"{syscall=\"read\"}", 5}}));
  EXPECT_EQ(ask("syscall_open", range, {"node"}), (Counts{{"{node=\"n1\"}", 3}, {"{node=\"n2\"}", 2}}));
  // What none of the newest windows has is gone, also when it is all that was asked for.
  EXPECT_EQ(ask("syscall_open{service=\"db\"}", range, {"syscall"}), Counts());
  EXPECT_EQ(ask("syscall_open{syscall=\"flock\"}", range, {}), Counts());
  // As it was then.
  EXPECT_EQ(ask("syscall_open", {kT0, kT0 + 2 * kStep}, {"syscall"}),
            (Counts{{"{syscall=\"flock\"}", 1}, {"{syscall=\"read\"}", 3}}));
  // A range that ends long after the last window tells nothing of its end.
  EXPECT_EQ(ask("syscall_open", {kT0, kT0 + 20 * kStep}, {"syscall"}), Counts());
  EXPECT_EQ(ask("syscall_open", {}, {"syscall"}), Counts());
}

TEST_F(EngineTest, ContainersAndTotals) {
  const std::vector<ContainerSummary> containers = Value(engine_.Containers({}));
  ASSERT_EQ(containers.size(), 2u);
  EXPECT_EQ(containers[0].container_name, "shop");
  EXPECT_EQ(containers[0].container_id, "c1");
  EXPECT_EQ(containers[0].node, "n1");
  EXPECT_EQ(containers[0].samples, 111u);
  EXPECT_EQ(containers[0].cpu_ns, 111 * kPeriod);
  EXPECT_EQ(containers[0].series, 2u);
  EXPECT_EQ(containers[0].labels.Get("comm"), "");  // they differ
  EXPECT_EQ(containers[0].labels.Get("service"), "shop");
  EXPECT_EQ(containers[0].last_ns, kT0 + kStep);
  EXPECT_EQ(containers[1].service, "sshd");
  EXPECT_EQ(containers[1].container_id, "");
  const SumTotals totals = Value(engine_.Totals(S("cpu"), {kT0, kT0 + 1}));
  EXPECT_EQ(totals.samples, 103u);
  EXPECT_EQ(totals.value, 103 * kPeriod);
  EXPECT_EQ(totals.series, 2u);
  EXPECT_EQ(totals.windows, 2u);
}

}  // namespace
}  // namespace pyrometer::query

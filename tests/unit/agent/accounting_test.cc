// Counters of a window: increases of totals, each sample once, whatever comes when; histograms once per series and
// window.
#include "userspace/agent/accounting.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace pyrometer::agent {
namespace {

using profile::LabelSet;

// One window's counters, "type" or "type reason" -> value.
class Told {
 public:
  explicit Told(int64_t start_ns) : window_{builder_, start_ns, 10} {}
  const Accounting::Window& window() const { return window_; }
  std::map<std::string, uint64_t> counters() const {
    std::map<std::string, uint64_t> found;
    for (const profile::CounterPoint& point : batch_.counters) {
      const profile::SeriesKey& series = batch_.series[point.series];
      std::string name = series.type;
      if (const auto reason = series.labels.Get(profile::kLabelReason); !reason.empty())
        name.append(" ").append(reason);
      EXPECT_EQ(series.labels.Get(profile::kLabelNode), "n");
      EXPECT_EQ(point.time_ns, window_.start_ns);
      EXPECT_TRUE(found.emplace(name, point.value).second) << name << " twice";
    }
    return found;
  }

 private:
  profile::Batch batch_;
  BatchBuilder builder_{&batch_};
  Accounting::Window window_;
};

TEST(Accounting, EachLostSampleIsToldOnceAndTakenIsWhatArrivedOrWasLost) {
  Accounting accounting(LabelSet().With(profile::kLabelNode, "n"));
  kernel::SampleCounters totals;
  totals.dropped_ring_full = 5;
  totals.dropped_lost = 1;
  accounting.Lost("spool not writable", 7);
  accounting.LostTotals({{"spool full", 20}});
  Told first(0);
  accounting.AddSamples(first.window(), totals, {.delivered = 100, .expected = 140});
  const std::string dropped(profile::kTypeSamplesDropped);
  EXPECT_EQ(first.counters(), (std::map<std::string, uint64_t>{{dropped + " ring full", 5},
                                                               {dropped + " lost by the kernel", 1},
                                                               {dropped + " spool not writable", 7},
                                                               {dropped + " spool full", 20},
                                                               {std::string(profile::kTypeSamplesTaken), 133},
                                                               {std::string(profile::kTypeSamplesDelivered), 100},
                                                               {std::string(profile::kTypeSamplesExpected), 140}}));
  totals.dropped_ring_full = 6;
  accounting.LostTotals({{"spool full", 20}});
  Told second(10);
  accounting.AddSamples(second.window(), totals, {.delivered = 3});
  EXPECT_EQ(second.counters(), (std::map<std::string, uint64_t>{{dropped + " ring full", 1},
                                                                {std::string(profile::kTypeSamplesTaken), 4},
                                                                {std::string(profile::kTypeSamplesDelivered), 3}}));
}

TEST(Accounting, ATotalThatShrinksTellsNothingUntilItIsLargerAgain) {
  Accounting accounting(LabelSet().With(profile::kLabelNode, "n"));
  const auto polls = [&](uint64_t total) {
    Told told(0);
    accounting.AddTcp(told.window(), {.polls = total});
    const auto counters = told.counters();
    const auto found = counters.find("pyrometer_tcp_polls");
    return found == counters.end() ? 0 : found->second;
  };
  EXPECT_EQ(polls(10), 10u);
  EXPECT_EQ(polls(4), 0u);
  EXPECT_EQ(polls(12), 2u);
}

TEST(SampleCounters, AddUp) {
  kernel::SampleCounters sum, one;
  one.taken = 9, one.delivered = 4, one.dropped_ring_full = 2, one.dropped_scratch = 1, one.dropped_malformed = 1;
  one.dropped_lost = 1, one.pending = 5, one.user_stops[1] = 8;
  sum += one;
  sum += one;
  EXPECT_EQ(sum.taken, 18u);
  EXPECT_EQ(sum.delivered, 8u);
  EXPECT_EQ(sum.DroppedTotal(), 10u);
  EXPECT_EQ(sum.user_stops[1], 16u);
  EXPECT_EQ(sum.pending, 0u);
}

TEST(BatchBuilder, AHistogramOfASeriesAndWindowIsOnePointAlsoWhereTheBatchHadIt) {
  profile::Batch batch;
  const LabelSet labels = LabelSet().With("a", "b");
  {
    BatchBuilder builder(&batch);
    builder.Histogram("t", labels, 10, 5).histogram.Record(7);
    builder.Histogram("t", labels, 20, 5).histogram.Record(7);
  }
  BatchBuilder builder(&batch);
  builder.Histogram("t", labels, 10, 5).histogram.Record(9);
  builder.Histogram("other", labels, 10, 5).histogram.Record(9);
  ASSERT_EQ(batch.histograms.size(), 3u);
  EXPECT_EQ(batch.histograms[0].histogram.count(), 2u);
  EXPECT_EQ(batch.histograms[0].duration_ns, 5u);
  EXPECT_EQ(batch.histograms[1].histogram.count(), 1u);
  EXPECT_EQ(batch.histograms[2].histogram.count(), 1u);
  EXPECT_EQ(batch.series.size(), 2u);
}

}  // namespace
}  // namespace pyrometer::agent

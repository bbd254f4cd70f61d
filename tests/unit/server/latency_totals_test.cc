#include "userspace/server/latency_totals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

profile::LabelSet Shop() {
  return profile::LabelSet().With("node", "n1").With("container.name", "shop").With("service", "shop");
}

// Adds one counter point.
void AddCounter(LatencyTotals& totals, std::string_view type, const profile::LabelSet& labels, uint64_t value,
                std::string_view tenant = "") {
  const profile::SeriesKey series[] = {{std::string(type), labels}};
  profile::CounterPoint point[1];
  point[0].value = value;
  profile::BatchView batch;
  batch.tenant = tenant;
  batch.series = series;
  batch.counters = point;
  totals.Add(batch);
}

void AddHistogram(LatencyTotals& totals, std::string_view type, const profile::LabelSet& labels,
                  std::initializer_list<uint64_t> values) {
  const profile::SeriesKey series[] = {{std::string(type), labels}};
  profile::HistogramPoint point[1];
  for (const uint64_t value : values) point[0].histogram.Record(value);
  profile::BatchView batch;
  batch.series = series;
  batch.histograms = point;
  totals.Add(batch);
}

TEST(LatencyTotals, NothingYet) { EXPECT_EQ(LatencyTotals().Text(), ""); }

TEST(LatencyTotals, CountersAddUpOverWindowsAndPeers) {
  LatencyTotals totals;
  const profile::LabelSet rto = Shop().With("cause", "rto");
  AddCounter(totals, profile::kTypeTcpRetransmits, rto.With("peer", "10.0.0.1:80"), 3);
  AddCounter(totals, profile::kTypeTcpRetransmits, rto.With("peer", "10.0.0.2:80"), 4);
  AddCounter(totals, profile::kTypeTcpRetransmits, rto.With("peer", "10.0.0.2:80"), 5);
  EXPECT_EQ(totals.Text(),
            "# HELP pyrometer_tcp_retransmitted_segments_total TCP segments sent again, by cause.\n"
            "# TYPE pyrometer_tcp_retransmitted_segments_total counter\n"
            "pyrometer_tcp_retransmitted_segments_total"
            "{cause=\"rto\",container=\"shop\",node=\"n1\",service=\"shop\"} 12\n");
}

TEST(LatencyTotals, TimesAreSeconds) {
  LatencyTotals totals;
  AddCounter(totals, profile::kTypeWaitTime, Shop().With("cause", "lock"), 1'500'000'000);
  EXPECT_THAT(totals.Text(), HasSubstr("pyrometer_wait_seconds_total{cause=\"lock\",container=\"shop\","
                                       "node=\"n1\",service=\"shop\"} 1.500000000\n"));
}

TEST(LatencyTotals, HistogramsAreCumulativeAndComplete) {
  LatencyTotals totals;
  const profile::LabelSet labels = profile::LabelSet().With("service", "a");
  AddHistogram(totals, profile::kTypeRunQueue, labels, {500, 1023, 1024, 5'000});
  AddHistogram(totals, profile::kTypeRunQueue, labels, {60'000'000'000});
  const std::string text = totals.Text();
  EXPECT_THAT(text, HasSubstr("# TYPE pyrometer_run_queue_seconds histogram\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_bucket{service=\"a\",le=\"1.024e-06\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_bucket{service=\"a\",le=\"4.096e-06\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_bucket{service=\"a\",le=\"1.6384e-05\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_bucket{service=\"a\",le=\"17.1798692\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_bucket{service=\"a\",le=\"+Inf\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_sum{service=\"a\"} 60.000007547\n"));
  EXPECT_THAT(text, HasSubstr("pyrometer_run_queue_seconds_count{service=\"a\"} 5\n"));
}

TEST(LatencyTotals, SessionsOtherTypesAndTenants) {
  LatencyTotals totals;
  AddCounter(totals, profile::kTypeWaits, Shop().With("session", "s1"), 7);
  AddCounter(totals, "pyrometer_waits_lost", Shop(), 7);
  EXPECT_EQ(totals.Text(), "");
  AddCounter(totals, profile::kTypeWaits, profile::LabelSet().With("cause", "poll"), 7, "acme");
  EXPECT_THAT(totals.Text(), HasSubstr("pyrometer_waits_total{cause=\"poll\",tenant=\"acme\"} 7\n"));
}

TEST(LatencyTotals, BeyondTheLimitEverythingIsFoldedAndNothingLost) {
  LatencyTotals totals(2);
  for (int i = 0; i < 5; ++i) {
    AddCounter(totals, profile::kTypeTcpBytesSent, profile::LabelSet().With("service", StrFormat("s%d", i)), 10);
  }
  const std::string text = totals.Text();
  EXPECT_THAT(text, HasSubstr("{service=\"s1\"} 10\n"));
  EXPECT_THAT(text, Not(HasSubstr("{service=\"s2\"}")));
  EXPECT_THAT(text, HasSubstr("{service=\"[folded]\"} 30\n"));
}

TEST(LatencyTotals, HostileLabelValuesStayOneLine) {
  LatencyTotals totals;
  AddCounter(totals, profile::kTypeTcpBytesSent, profile::LabelSet().With("service", "a\"b\nc\\"), 1);
  EXPECT_THAT(totals.Text(), HasSubstr("{service=\"a\\\"b\\nc\\\\\"} 1\n"));
}

}  // namespace
}  // namespace pyrometer::server

// Shared by the tests of the ClickHouse backend: numbered batches that can be found again, a server of a test's own.
#pragma once

#include <gtest/gtest.h>
#include <stdio.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/clickhouse_servers.h"
#include "tests/unit/store/store_testing.h"
#include "userspace/store/clickhouse/clickhouse.h"

namespace pyrometer::store::clickhouse {

using test_support::ClickHouseServers;

inline std::string MessageOf(const Status& status) { return std::string(Message(status)); }

// Batch `sequence` of `agent`: `sequence` samples in each of three services, in windows of two days.
inline profile::Batch NumberedBatch(const std::string& agent, uint64_t sequence) {
  BatchBuilder b(agent, sequence);
  for (const char* service : {"x", "y", "z"}) {
    const uint32_t series = b.Series("cpu", {{"agent", agent}, {"service", service}});
    const auto back = static_cast<int64_t>(sequence * kWindow);
    constexpr int64_t kDay = 24 * 3600 * int64_t{1'000'000'000};
    const profile::StackId stack = b.Stack({"main", StrFormat("f%d", sequence % 50), StrFormat("g%d", sequence)});
    b.Cpu(series, kT0 - back, {{stack, sequence}});
    b.Cpu(series, kT0 - kDay - back, {{b.Stack({"main"}), 1}, {stack, sequence}});
  }
  return b.batch;
}

inline void MustAppend(Store& store, const profile::Batch& batch) {
  const StatusOr<AppendResult> result = store.Append(batch);
  EXPECT_TRUE(result.ok()) << result.status();
}

// sequence -> samples of it, by totals; and the stacks resolve and sum up to the same.
inline std::map<uint64_t, uint64_t> Found(const Store& store, const std::string& agent) {
  std::map<uint64_t, uint64_t> found;
  uint64_t totals = 0, stacks = 0;
  for (const Series& series :
       Value(store.FindSeries({.type = "cpu", .matchers = {LabelMatcher::Equal("agent", agent)}}))) {
    EXPECT_TRUE(store
                    .ScanTotals(SeriesOnly({series.id}), {}, false,
                                [&](const WindowTotal& total) {
                                  const auto back = static_cast<uint64_t>(kT0 - total.time_ns);
                                  found[back % (24 * 3600 * uint64_t{1'000'000'000}) / kWindow] += total.count;
                                  totals += total.count;
                                })
                    .ok());
    const StackSums sums = Value(store.SumStacks(StacksOf(series), {}));
    std::vector<LeafId> leaves;
    for (const StackSum& row : sums.sums) {
      leaves.push_back(row.leaf);
      stacks += row.count;
    }
    profile::Dictionary d;
    const auto resolved = store.ResolveStacks(series.trie, leaves, &d);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
  }
  EXPECT_EQ(totals, stacks);
  return found;
}

inline std::map<uint64_t, uint64_t> UpTo(uint64_t last) {
  std::map<uint64_t, uint64_t> expected;
  for (uint64_t sequence = 1; sequence <= last; ++sequence) expected[sequence] = 3 * (2 * sequence + 1);
  return expected;
}

class OneServer : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ClickHouseServers::WhyNot(false); !reason.empty()) GTEST_SKIP() << reason;
    ASSERT_EQ(servers_.Start(), "");
  }
  void TearDown() override {
    if (HasFailure()) printf("the server's last complaints:\n%s\n", servers_.Complaints(0).c_str());
  }
  std::unique_ptr<Store> MustOpenAt(const std::string& folder, const std::string& more = "") {
    auto store = Open(servers_.Url("db", more), folder_.path() + "/" + folder, TestOptions());
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  ClickHouseServers servers_{1, 1};
  const TempFolder folder_;
};

}  // namespace pyrometer::store::clickhouse

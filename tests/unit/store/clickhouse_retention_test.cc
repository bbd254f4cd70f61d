// Bytes of a tenant's hours in ClickHouse: what is counted is what lies there, after restarts, without the folder, in
// tables of an older version.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/unit/store/clickhouse_testing.h"
#include "userspace/store/chunk.h"

namespace pyrometer::store::clickhouse {
namespace {

constexpr int64_t kDay = 24 * kHourNs;

std::map<std::string, uint64_t> Counted(const Store& store) {
  std::map<std::string, uint64_t> bytes;
  for (const TenantInfo& tenant : Value(store.Tenants())) bytes[tenant.tenant] = tenant.bytes;
  return bytes;
}

// Everything that a batch can bring, so that every column has something in it.
profile::Batch BatchOf(const std::string& tenant, uint64_t sequence, int64_t time_ns) {
  BatchBuilder b("agent of " + tenant, sequence);
  b.batch.tenant = tenant;
  std::vector<std::pair<profile::StackId, uint64_t>> samples;
  for (int i = 0; i < 200; ++i) samples.emplace_back(b.Stack({"main", StrFormat("f%d", i)}), 1 + i);
  b.Cpu(b.Series("cpu", {{"service", "s"}}), time_ns, samples);
  b.Counter(b.Series("calls", {{"service", "s"}}), time_ns, sequence);
  profile::HistogramPoint point{
      .series = b.Series("syscall_latency", {{"service", "s"}}), .time_ns = time_ns, .duration_ns = kWindow};
  point.histogram.Record(7);
  point.errors = {{2, 1}};
  point.exemplars = {{.time_ns = time_ns,
                      .value = 7,
                      .stack = b.Stack({"main"}),
                      .comm = "c",
                      .call = std::string(300, 'x'),
                      .split = {{"poll", 7}}}};
  b.batch.histograms.push_back(point);
  return b.batch;
}

class Retention : public OneServer {
 protected:
  // What a tenant's rows take as they were inserted, by the server's own writer of that form.
  uint64_t Lies(uint32_t tenant) const {
    const std::string rows =
        servers_.Ask(0, StrFormat("SELECT * FROM db.points WHERE tenant = %d FORMAT RowBinary", tenant));
    EXPECT_FALSE(rows.starts_with("error")) << rows;
    return rows.size();
  }
  std::map<std::string, uint64_t> Lie() const { return {{"", Lies(1)}, {"b", Lies(2)}}; }
};

TEST_F(Retention, BytesAreThoseOfTheRows) {
  auto store = MustOpenAt("a");
  // The first tenant is there from the start.
  MustAppend(*store, BatchOf("", 1, kT0));
  for (uint64_t sequence = 1; sequence <= 4; ++sequence) {
    MustAppend(*store, BatchOf("b", sequence, kT0 - static_cast<int64_t>(sequence) * kHourNs));
    EXPECT_TRUE(Value(store->Append(BatchOf("b", sequence, kT0))).duplicate);
  }
  const auto lie = Lie();
  EXPECT_GT(lie.at(""), 0u);
  EXPECT_GT(lie.at("b"), 3 * lie.at(""));
  EXPECT_EQ(Counted(*store), lie);
  store.reset();
  store = MustOpenAt("a");
  EXPECT_EQ(Counted(*store), lie);
  MustAppend(*store, BatchOf("b", 5, kT0));
  const auto more = Lie();
  EXPECT_EQ(Counted(*store), more);
  // Whether an hour was taken up makes no difference.
  KeepHouse(store.get(), kT0 + kDay);
  EXPECT_EQ(Counted(*store), more);
  store.reset();
  store = MustOpenAt("b");
  EXPECT_EQ(Counted(*store), more);
}

TEST_F(Retention, TablesOfTheVersionBeforeAreCountedOnce) {
  auto store = MustOpenAt("a");
  MustAppend(*store, BatchOf("", 1, kT0));
  MustAppend(*store, BatchOf("b", 1, kT0 - kHourNs));
  MustAppend(*store, BatchOf("b", 2, kT0));
  const auto lie = Lie();
  ASSERT_EQ(Counted(*store), lie);
  store.reset();
  EXPECT_EQ(
      servers_.Ask(0,
                   "INSERT INTO db.records SELECT family, key, version + 1000, 1, '' FROM db.records WHERE family "
                   "= 0 AND substring(key, 1, 1) = 'B'"),
      "");
  EXPECT_EQ(servers_.Ask(0,
                         "INSERT INTO db.records SELECT family, key, version + 1000, 0, concat('\\x02', "
                         "substring(value, 2)) FROM db.records WHERE family = 0 AND key = 'tables'"),
            "");
  const std::string version =
      "SELECT hex(substring(value, 1, 1)) FROM db.records WHERE family = 0 AND key = 'tables' ORDER BY version DESC "
      "LIMIT 1";
  ASSERT_EQ(servers_.Ask(0, version), "02\n");
  for (const char* folder : {"a", "b"}) {
    store = MustOpenAt(folder);
    EXPECT_EQ(Counted(*store), lie);
    EXPECT_EQ(servers_.Ask(0, version), "03\n");
    store.reset();
  }
}

// Hours that are hidden for their bytes have their sums first, are hidden also without the folder, and their records
// go.
TEST_F(Retention, TheCutoffIsNotForgotten) {
  StoreOptions options = TestOptions();
  auto now = std::make_shared<int64_t>(kT0);
  options.now = [now] { return *now; };
  options.tenant_limits["b"] = options.limits;
  options.tenant_limits["b"].retention_bytes = 10'000;
  const auto open = [&](const std::string& folder) {
    auto store = Open(servers_.Url("db"), folder_.path() + "/" + folder, options);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  };
  auto store = open("a");
  for (uint64_t hour = 0; hour < 12; ++hour) {
    *now = kT0 + static_cast<int64_t>(hour) * kHourNs;
    MustAppend(*store, BatchOf("b", hour + 1, *now));
    MustAppend(*store, BatchOf("", hour + 1, *now));
  }
  *now += 2 * kHourNs;
  const uint64_t per_hour = Lies(2) / 12;
  ASSERT_LT(per_hour * 2, 10'000u);
  KeepHouse(store.get(), *now);
  const auto counted = Counted(*store);
  EXPECT_EQ(counted.at(""), Lies(1));
  EXPECT_EQ(counted.at("b"), 10'000 / per_hour * per_hour);
  const auto since = [&] { return Value(store->Tenants())[1].kept_since_ns; };
  const int64_t kept_since = since();
  EXPECT_EQ(kept_since, HourStart(HourOf(kT0)) + static_cast<int64_t>(12 - 10'000 / per_hour) * kHourNs);
  const std::string sums =
      "SELECT count(), uniqExact(time_ns), sum(count) FROM db.rollups WHERE tenant = 2 AND kind = 0 AND empty(leaves)";
  const std::string made = servers_.Ask(0, sums);
  EXPECT_EQ(made, StrFormat("%d\t%d\t%d\n", 12 - 10'000 / per_hour, 12 - 10'000 / per_hour,
                            (12 - 10'000 / per_hour) * (200 * 201 / 2)));
  // A point that comes too late is hidden and counts no more.
  MustAppend(*store, BatchOf("b", 13, kT0));
  EXPECT_EQ(Counted(*store), counted);
  for (const char* folder : {"a", "b"}) {
    store.reset();
    store = open(folder);
    EXPECT_EQ(Counted(*store), counted);
    EXPECT_EQ(since(), kept_since);
    KeepHouse(store.get(), *now);
    EXPECT_EQ(Counted(*store), counted);
    EXPECT_EQ(servers_.Ask(0, sums), made);
  }
  EXPECT_EQ(servers_.Ask(0,
                         "SELECT countIf(gone = 0), count() FROM (SELECT key, argMax(deleted, version) AS gone FROM "
                         "db.records WHERE family = 0 AND hex(substring(key, 1, 5)) = '4200000002' GROUP BY key)"),
            StrFormat("%d\t12\n", 10'000 / per_hour));
}

}  // namespace
}  // namespace pyrometer::store::clickhouse

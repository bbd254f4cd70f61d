// Hours, days and retention: what housekeeping makes of points says the same as the points did.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "tests/unit/store/store_testing.h"
#include "userspace/store/chunk.h"
#include "userspace/store/function_trie.h"

namespace pyrometer::store {
namespace {

constexpr int64_t kDay = 24 * kHourNs;
// The beginning of a day.
constexpr int64_t kMidnight = kT0 / kDay * kDay;

// A store whose clock the test sets.
struct Clocked {
  const TempFolder folder;
  std::shared_ptr<int64_t> now = std::make_shared<int64_t>(kMidnight);
  StoreOptions options = TestOptions();
  std::unique_ptr<Store> store;
  uint64_t sequence = 0;

  explicit Clocked(TenantLimits limits = {}) {
    options.limits = limits;
    options.now = [clock = now] { return *clock; };
    Reopen();
  }
  void Reopen() {
    store.reset();
    store = MustOpen(folder.path(), options);
  }
  // One window of each pod at `time_ns`, `count` samples each.
  void Append(int64_t time_ns, uint64_t count, int pods = 2, const std::string& service = "shop") {
    BatchBuilder b("a", ++sequence);
    for (int pod = 0; pod < pods; ++pod) {
      const uint32_t series = b.Series("cpu", {{"service", service}, {"pod", StrFormat("%s-%d", service, pod)}});
      b.Cpu(series, time_ns, {{b.Stack({"main", "work"}), count}});
    }
    const StatusOr<AppendResult> result = store->Append(b.batch);
    ASSERT_TRUE(result.ok()) << result.status();
  }
  // One window of five samples in one frame, which has a name or not.
  void AppendFrame(int64_t time_ns, const char* name) {
    *now = time_ns;
    BatchBuilder b("a", ++sequence);
    profile::Dictionary& d = b.batch.dictionary;
    profile::Frame frame{.kind = profile::FrameKind::kNative, .address = ElfAddress(0x1000)};
    frame.mapping = d.InternMapping({.build_id = d.InternString("b1"), .file = d.InternString("/lib/x.so")});
    if (name != nullptr) frame.lines = {{.function = d.InternFunction({.name = d.InternString(name)}), .line = 1}};
    b.Cpu(b.Series("cpu", {{"service", "s"}}), time_ns,
          {{d.InternStack(profile::kEmptyStack, d.InternFrame(frame)), 5}});
    const StatusOr<AppendResult> result = store->Append(b.batch);
    ASSERT_TRUE(result.ok()) << result.status();
  }
  HousekeepingResult Keep(int64_t at_ns) {
    *now = at_ns;
    return KeepHouse(store.get(), at_ns);
  }
};

// Cost of a function over all time, in the service of the first group.
uint64_t HistoryOf(const Store& store, std::string_view name) {
  uint64_t total = 0;
  const std::vector<TrieId> tries = {store.FindGroups({.type = "cpu"}).value().at(0).trie};
  EXPECT_TRUE(store.ScanFunction(tries, "cpu", name, {}, [&](const FunctionHour& hour) { total += hour.total; }).ok());
  return total;
}

// Samples of all groups, from totals and from stacks.
uint64_t GroupSum(const Store& store, TimeRange range = {}) {
  uint64_t total = 0, stacks = 0;
  for (const Group& group : Value(store.FindGroups({.type = "cpu"}))) {
    StackSelection selection;
    selection.trie = group.trie;
    selection.groups = {group.id};
    selection.groups_are_whole = true;
    for (const Series& one : Value(store.FindSeries({.type = "cpu"}))) {
      if (one.group == group.id) selection.series.push_back(one.id);
    }
    EXPECT_TRUE(store.ScanTotals(selection, range, true, [&](const WindowTotal& t) { total += t.count; }).ok());
    for (const StackSum& row : Value(store.SumStacks(selection, range)).sums) stacks += row.count;
  }
  EXPECT_EQ(total, stacks);
  return total;
}

TEST(Housekeeping, SumsStayWhatTheyWere) {
  Clocked c;
  for (int hour = 0; hour < 30; ++hour) {
    for (int minute = 0; minute < 60; minute += 10) {
      *c.now = kMidnight + hour * kHourNs;
      c.Append(kMidnight + hour * kHourNs + minute * 60'000'000'000, 1 + static_cast<uint64_t>(hour));
    }
  }
  const TimeRange one_hour{kMidnight + 3 * kHourNs, kMidnight + 4 * kHourNs};
  const TimeRange across{kMidnight + 3 * kHourNs + kHourNs / 2, kMidnight + 27 * kHourNs + kHourNs / 4};
  const uint64_t all = SampleSum(*c.store), hour_sum = GroupSum(*c.store, one_hour), cut = GroupSum(*c.store, across);
  EXPECT_EQ(all, 2u * 6 * (30 * 31 / 2));
  const HousekeepingResult done = c.Keep(kMidnight + 2 * kDay + 3 * kHourNs);
  EXPECT_EQ(done.hours, 30u);
  if (InFolder()) {
    // In ClickHouse windows stay as they are, and days are summed up when they are asked for.
    EXPECT_EQ(done.rows, 30u * 6 * 2);
    EXPECT_EQ(done.days, 2u);
  }
  EXPECT_EQ(c.store->Stats().value().fresh_points, 0u);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(SampleSum(*c.store), all);
    EXPECT_EQ(StackSampleSum(*c.store), all);
    EXPECT_EQ(GroupSum(*c.store), all);
    EXPECT_EQ(GroupSum(*c.store, one_hour), hour_sum);
    EXPECT_EQ(GroupSum(*c.store, across), cut);
    c.Reopen();
  }
}

// An hour of a large service is summed up while it goes on.
TEST(Housekeeping, LargeHoursAreTakenUpBeforeTheyEnd) {
  if (!InFolder()) GTEST_SKIP() << "in ClickHouse points stay as they are";
  Clocked c;
  c.options.busy_hour_bytes = 1000;
  c.Reopen();
  uint64_t appended = 0, rows = 0;
  const TimeRange first_half{kMidnight, kMidnight + kHourNs / 2};
  for (int i = 0; i < 360; ++i) {
    *c.now = kMidnight + i * 10'000'000'000;
    c.Append(*c.now, 3, 4, "large");
    if (i % 60 == 0) c.Append(*c.now, 1, 1, "small");
    appended += 12 + (i % 60 == 0 ? 1 : 0);
    if (i % 20 != 19) continue;
    const uint64_t fresh = Value(c.store->Stats()).fresh_points;
    const HousekeepingResult done = c.Keep(*c.now);
    EXPECT_EQ(done.hours, fresh >= 80 ? 1u : 0u);
    rows += done.rows;
    // The small service's are too few.
    EXPECT_EQ(Value(c.store->Stats()).fresh_points, static_cast<uint64_t>(i) / 60 + 1);
    EXPECT_EQ(SampleSum(*c.store), appended);
    EXPECT_EQ(StackSampleSum(*c.store), appended);
    EXPECT_EQ(GroupSum(*c.store), appended);
    EXPECT_EQ(GroupSum(*c.store, first_half), std::min<uint64_t>(appended, 180 * 12 + 3));
  }
  EXPECT_EQ(rows, 360u * 4);
  EXPECT_EQ(c.Keep(kMidnight + kDay + 3 * kHourNs).hours, 1u);
  EXPECT_EQ(Value(c.store->Stats()).fresh_points, 0u);
  c.Reopen();
  EXPECT_EQ(SampleSum(*c.store), appended);
  EXPECT_EQ(GroupSum(*c.store), appended);
  EXPECT_EQ(GroupSum(*c.store, first_half), 180u * 12 + 3);
  // Of the history of a function, what came before the hour ended is there once.
  EXPECT_EQ(HistoryOf(*c.store, "work"), 360 * 12 * kPeriod);
}

// Blocks of cells take ordinals as batches do, also when the store is closed before the next batch comes.
TEST(Housekeeping, LatePointsReplaceNothing) {
  Clocked c;
  const std::vector<std::string> services = {"a", "b", "c", "d"};
  for (const std::string& service : services) c.Append(kMidnight, 10, 1, service);
  c.Keep(kMidnight + 2 * kHourNs);
  for (uint64_t round = 1; round <= 3; ++round) {
    c.Reopen();
    c.Append(kMidnight + 60'000'000'000, 1, 1, services[round]);
    c.Keep(kMidnight + 2 * kHourNs + static_cast<int64_t>(round) * kHourNs);
    EXPECT_EQ(SampleSum(*c.store), 40 + round);
    EXPECT_EQ(StackSampleSum(*c.store), 40 + round);
    EXPECT_EQ(GroupSum(*c.store), 40 + round);
  }
}

TEST(Housekeeping, OldWindowsGoAtOnceAndTheirSumsStay) {
  TenantLimits limits;
  limits.retention_ns = 10 * static_cast<uint64_t>(kDay);
  limits.rollup_retention_ns = 100 * static_cast<uint64_t>(kDay);
  Clocked c(limits);
  c.Append(kMidnight, 5);
  c.Keep(kMidnight + kDay);
  *c.now = kMidnight + 20 * kDay;
  c.Append(*c.now, 7);
  const HousekeepingResult done = c.Keep(kMidnight + 20 * kDay + 2 * kHourNs);
  EXPECT_EQ(done.kept_since_ns, kMidnight + 10 * kDay + 2 * kHourNs);
  const auto check = [&] {
    EXPECT_EQ(SampleSum(*c.store), 14u);
    EXPECT_EQ(StackSampleSum(*c.store), 14u);
    EXPECT_EQ(GroupSum(*c.store), 24u);
    EXPECT_EQ(GroupSum(*c.store, {kMidnight, kMidnight + kHourNs}), 10u);
  };
  check();
  ASSERT_TRUE(c.store->Settle().ok());
  check();
  c.Reopen();
  check();
  // And at last the sums go too, and the series that nothing is left of.
  c.Keep(kMidnight + 200 * kDay);
  EXPECT_EQ(GroupSum(*c.store), 0u);
  EXPECT_TRUE(c.store->FindSeries({.type = "cpu"}).value().empty());
}

TEST(Housekeeping, BeyondItsBytesATenantsOldestHoursGo) {
  TenantLimits limits;
  limits.retention_bytes = 2000;
  Clocked c(limits);
  c.options.tenant_limits["roomy"] = TenantLimits{};
  c.Reopen();
  uint64_t sequence = 0;
  for (int hour = 0; hour < 40; ++hour) {
    *c.now = kMidnight + hour * kHourNs;
    c.Append(*c.now, 3, 4);
    BatchBuilder other("b", ++sequence);
    other.batch.tenant = "roomy";
    other.Cpu(other.Series("cpu", {{"service", "x"}}), *c.now, {{other.Stack({"main"}), 1}});
    ASSERT_TRUE(c.store->Append(other.batch).ok());
    c.Keep(*c.now + kHourNs / 2);
    // What was counted before counts afterwards.
    if (hour % 10 == 9) c.Reopen();
  }
  c.Keep(kMidnight + 42 * kHourNs);
  const uint64_t kept = SampleSum(*c.store);
  EXPECT_GT(kept, 0u);
  EXPECT_LT(kept, 40u * 12);
  // Of the oldest hours their sums are left.
  EXPECT_EQ(GroupSum(*c.store), 40u * 12);
  // The newest stay.
  EXPECT_EQ(SampleSum(*c.store, "cpu", {kMidnight + 39 * kHourNs}), 12u);
  const std::vector<TenantInfo> tenants = Value(c.store->Tenants());
  ASSERT_EQ(tenants.size(), 2u);
  EXPECT_LE(tenants[0].bytes, 2000u);
  EXPECT_GT(tenants[0].kept_since_ns, kMidnight);
  // Nobody else is concerned.
  uint64_t roomy = 0;
  for (const Series& one : Value(c.store->FindSeries({.tenant = "roomy", .type = "cpu"}))) {
    for (const StackSum& row : Value(c.store->SumStacks(StacksOf(one), {})).sums) roomy += row.count;
  }
  EXPECT_EQ(roomy, 40u);
  c.Reopen();
  EXPECT_EQ(SampleSum(*c.store), kept);
  EXPECT_EQ(Value(c.store->Tenants())[0].bytes, tenants[0].bytes);
  EXPECT_EQ(Value(c.store->Tenants())[1].bytes, tenants[1].bytes);
}

// Deploys bring new stacks for as long as a store lives: those of a large service that come last have a trie of their
// own, and what is asked of the service is the sum.
TEST(Housekeeping, ALargeServiceHasSeveralTries) {
  Clocked c;
  c.options.max_trie_nodes = 50;
  c.Reopen();
  BatchBuilder b("a", 0);
  const uint32_t series = b.Series("cpu", {{"service", "shop"}, {"pod", "p"}});
  const uint32_t other = b.Series("cpu", {{"service", "quiet"}});
  auto memo = c.store->NewMemo();
  const auto append = [&](int day) {
    std::vector<std::pair<profile::StackId, uint64_t>> samples = {{b.Stack({"main", "steady"}), 1}};
    for (int i = 0; i < 10; ++i) {
      samples.push_back({b.Stack({"main", StrFormat("deploy %d", day), StrFormat("function %d.%d", i, day)}), 2});
    }
    *c.now = kMidnight + day * kDay;
    b.batch.profiles.clear();
    ++b.batch.sequence;
    b.Cpu(series, *c.now, std::move(samples)).Cpu(other, *c.now, {{b.Stack({"main"}), 1}});
    const StatusOr<AppendResult> result = AppendOfStream(c.store.get(), b.batch, memo.get());
    ASSERT_TRUE(result.ok()) << result.status();
  };
  for (int day = 0; day < 20; ++day) append(day);
  const auto expect = [&](uint64_t windows, uint64_t sums) {
    EXPECT_EQ(SampleSum(*c.store), windows * 22);
    EXPECT_EQ(StackSampleSum(*c.store), windows * 22);
    EXPECT_EQ(GroupSum(*c.store), sums * 22);
    // Two by their labels, whatever there is behind them.
    EXPECT_EQ(Value(c.store->Stats()).series, 2u);
  };
  const auto reopen = [&] {
    c.store.reset();
    memo.reset();
    if (InFolder()) {
      const FsckReport report = Value(Fsck(c.folder.path()));
      EXPECT_EQ(report.problem_count, 0u) << report.problems[0].place << ": " << report.problems[0].what;
    }
    c.Reopen();
    memo = c.store->NewMemo();
  };
  const uint64_t tries = Value(c.store->Stats()).tries;
  EXPECT_GE(tries, 4u);
  EXPECT_LE(tries, 8u);
  // Views of those that were replaced are made once, and small.
  size_t sealed = 0;
  for (int round = 0; round < 2; ++round) {
    for (const Series& one : Value(c.store->FindSeries({.type = "cpu"}))) {
      const auto view = Value(c.store->Functions(one.trie));
      EXPECT_EQ(view, Value(c.store->Functions(one.trie)));
      if (view->sealed()) ++sealed;
    }
  }
  if (InFolder()) {
    EXPECT_GE(sealed, 2u);
  }
  // The newest may be empty yet.
  EXPECT_GE(Value(c.store->FindSeries({.type = "cpu"})).size(), tries - 1);
  expect(20, 20);
  c.Keep(*c.now + 2 * kHourNs);
  expect(20, 20);
  reopen();
  expect(20, 20);
  append(20);
  expect(21, 21);

  // Those that nothing is left of go; the newest of the same labels stays.
  c.options.limits.retention_ns = 10 * static_cast<uint64_t>(kDay);
  c.options.limits.rollup_retention_ns = 0;
  reopen();
  EXPECT_GT(c.Keep(kMidnight + 20 * kDay + 2 * kHourNs).series_removed, 0u);
  EXPECT_LT(Value(c.store->FindSeries({.type = "cpu"})).size(), tries - 1);
  expect(10, 21);
  reopen();
  const size_t series_left = Value(c.store->FindSeries({.type = "cpu"})).size();
  append(21);
  EXPECT_LE(Value(c.store->FindSeries({.type = "cpu"})).size(), series_left + 1);
  expect(11, 22);

  // A tenant near its limit of a day stays in the trie it has: the next one had to take all of its stacks again.
  c.options.limits.max_nodes = 10;
  reopen();
  const uint64_t tries_before = Value(c.store->Stats()).tries;
  for (int day = 22; day < 40; ++day) append(day);
  EXPECT_LE(Value(c.store->Stats()).tries, tries_before + 1);
  EXPECT_GT(Value(c.store->Stats()).folded_samples, 0u);
}

// A service whose code stays as it is and has more stacks than a trie is meant for: its tries grow until they fit,
// instead of taking all stacks again and again.
TEST(Housekeeping, TriesGrowToWhatIsInUse) {
  Clocked c;
  c.options.max_trie_nodes = 50;
  c.Reopen();
  auto memo = c.store->NewMemo();
  BatchBuilder b("a", 0);
  const uint32_t series = b.Series("cpu", {{"service", "shop"}});
  std::vector<profile::StackId> stacks;
  for (int i = 0; i < 150; ++i) stacks.push_back(b.Stack({"main", StrFormat("f%d", i / 15), StrFormat("f%d", i % 15)}));
  for (int round = 0; round < 60; ++round) {
    std::vector<std::pair<profile::StackId, uint64_t>> samples;
    for (int i = 0; i < 15; ++i) samples.push_back({stacks[static_cast<size_t>(round * 15 + i) % stacks.size()], 1});
    b.batch.profiles.clear();
    ++b.batch.sequence;
    b.Cpu(series, kMidnight + round * kNsPerSecond, std::move(samples));
    const StatusOr<AppendResult> result = AppendOfStream(c.store.get(), b.batch, memo.get());
    ASSERT_TRUE(result.ok()) << result.status();
  }
  EXPECT_GT(Value(c.store->Stats()).tries, 1u);
  EXPECT_LE(Value(c.store->Stats()).tries, 3u);
  EXPECT_EQ(SampleSum(*c.store), 60u * 15);
  EXPECT_EQ(StackSampleSum(*c.store), 60u * 15);
}

TEST(Housekeeping, AFunctionsHistory) {
  Clocked c;
  for (int hour = 0; hour < 26; ++hour) {
    *c.now = kMidnight + hour * kHourNs;
    c.Append(*c.now, 2);
  }
  c.Keep(kMidnight + 30 * kHourNs);
  const std::vector<TrieId> tries = {c.store->FindGroups({.type = "cpu"}).value().at(0).trie};
  const auto history = [&](std::string_view name, TimeRange range) {
    FunctionHour sum;
    EXPECT_TRUE(c.store
                    ->ScanFunction(tries, "cpu", name, range,
                                   [&](const FunctionHour& hour) {
                                     sum.self += hour.self;
                                     sum.total += hour.total;
                                   })
                    .ok());
    return std::pair(sum.self, sum.total);
  };
  EXPECT_EQ(history("work", {}), std::pair(26 * 4 * kPeriod, 26 * 4 * kPeriod));
  EXPECT_EQ(history("main", {}), std::pair(uint64_t{0}, 26 * 4 * kPeriod));
  EXPECT_EQ(history("main", {kMidnight + 24 * kHourNs, kMidnight + 25 * kHourNs}), std::pair(uint64_t{0}, 4 * kPeriod));
  EXPECT_EQ(history("absent", {}), std::pair(uint64_t{0}, uint64_t{0}));
}

// An hour that was taken up before a function had its name knows it afterwards.
TEST(Housekeeping, ANameThatComesLateIsInTheHistory) {
  Clocked c;
  c.AppendFrame(kMidnight, nullptr);
  c.Keep(kMidnight + 3 * kHourNs);
  EXPECT_EQ(HistoryOf(*c.store, "late"), 0u);
  c.AppendFrame(kMidnight + 3 * kHourNs, "late");
  c.Keep(kMidnight + 6 * kHourNs);
  EXPECT_EQ(HistoryOf(*c.store, "late"), 10 * kPeriod);
  c.Reopen();
  EXPECT_EQ(HistoryOf(*c.store, "late"), 10 * kPeriod);
}

// The same for an hour of which only sums are left.
TEST(Housekeeping, ANameThatComesLateIsInTheHistoryOfOldHours) {
  TenantLimits limits;
  limits.retention_ns = static_cast<uint64_t>(kDay);
  Clocked c(limits);
  c.AppendFrame(kMidnight, nullptr);
  c.Keep(kMidnight + 4 * kDay);
  c.AppendFrame(kMidnight + 4 * kDay, "late");
  c.Keep(kMidnight + 4 * kDay + 3 * kHourNs);
  EXPECT_EQ(HistoryOf(*c.store, "late"), 10 * kPeriod);
}

}  // namespace
}  // namespace pyrometer::store

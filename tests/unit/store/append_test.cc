#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <shared_mutex>
#include <thread>

#include "tests/unit/store/store_testing.h"
#include "userspace/store/embedded_store.h"
#include "userspace/store/validate.h"

namespace pyrometer::store {
namespace {

using ::testing::HasSubstr;

profile::Batch SmallBatch(const std::string& agent, uint64_t sequence, uint64_t count = 3) {
  BatchBuilder b(agent, sequence);
  const uint32_t series = b.Series("cpu", {{"node", "n1"}, {"service", "shop"}});
  b.Cpu(series, kT0, {{b.Stack({"main", "hot"}), count}, {b.Stack({"main"}), 1}});
  return b.batch;
}

TEST(Append, AppliesOnceAndCountsGaps) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  EXPECT_EQ(store->LastSequence("", "a").value(), 0u);
  AppendResult r = store->Append(SmallBatch("a", 1)).value();
  EXPECT_FALSE(r.duplicate);
  EXPECT_EQ(r.last_sequence, 1u);
  EXPECT_EQ(r.gap, 0u);
  r = store->Append(SmallBatch("a", 1)).value();
  EXPECT_TRUE(r.duplicate);
  EXPECT_EQ(r.last_sequence, 1u);
  EXPECT_EQ(SampleSum(*store), 4u);

  r = store->Append(SmallBatch("a", 5)).value();
  EXPECT_FALSE(r.duplicate);
  EXPECT_EQ(r.gap, 3u);
  EXPECT_TRUE(store->Append(SmallBatch("a", 4)).value().duplicate);
  EXPECT_FALSE(store->Append(SmallBatch("b", 1)).value().duplicate);
  EXPECT_EQ(SampleSum(*store), 12u);
  EXPECT_EQ(StackSampleSum(*store), 12u);

  store.reset();
  store = MustOpen(folder.path());
  EXPECT_EQ(store->LastSequence("", "a").value(), 5u);
  EXPECT_TRUE(store->Append(SmallBatch("a", 5)).value().duplicate);
  EXPECT_EQ(SampleSum(*store), 12u);
  const std::vector<AgentInfo> agents = store->Agents().value();
  ASSERT_EQ(agents.size(), 2u);
  EXPECT_EQ(agents[0].agent_id, "a");
  EXPECT_EQ(agents[0].node, "node-a");
  EXPECT_EQ(agents[0].batches, 2u);
  EXPECT_EQ(agents[0].gaps, 3u);
  EXPECT_EQ(agents[0].duplicates, 1u);
  EXPECT_EQ(agents[0].samples, 8u);
  EXPECT_EQ(agents[0].last_seen_ns, TestOptions().now());
  const StoreStats stats = store->Stats().value();
  EXPECT_EQ(stats.batches, 3u);
  EXPECT_EQ(stats.samples, 12u);
  EXPECT_EQ(stats.series, 1u);
  EXPECT_EQ(stats.stacks, 2u);
  EXPECT_EQ(stats.nodes, 2u);
  EXPECT_EQ(stats.frames, 2u);
  EXPECT_EQ(stats.gaps, 3u);
  EXPECT_GT(stats.disk_bytes, 0u);
  EXPECT_GT(stats.memory_bytes, 0u);
}

TEST(Append, StacksComeBackWithTheirNames) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  ASSERT_TRUE(store->Append(SmallBatch("a", 1)).ok());
  for (int round = 0; round < 2; ++round) {
    const std::vector<Series> series = store->FindSeries({.type = "cpu"}).value();
    ASSERT_EQ(series.size(), 1u);
    EXPECT_EQ(series[0].labels.Get("service"), "shop");
    const StackSums sums = store->SumStacks(StacksOf(series[0]), {}).value();
    ASSERT_EQ(sums.sums.size(), 2u);
    EXPECT_EQ(sums.points, 1u);
    EXPECT_EQ(sums.period_ns, kPeriod);
    EXPECT_EQ(sums.first_ns, kT0);
    EXPECT_EQ(sums.end_ns, kT0 + static_cast<int64_t>(kWindow));
    profile::Dictionary d;
    const std::vector<LeafId> leaves = {sums.sums[1].leaf, 0, sums.sums[0].leaf};
    const std::vector<profile::StackId> stacks = store->ResolveStacks(series[0].trie, leaves, &d).value();
    EXPECT_EQ(stacks[1], profile::kEmptyStack);
    const std::vector<profile::FrameId> leaf_first = d.FramesLeafFirst(stacks[0]);
    ASSERT_EQ(leaf_first.size(), 2u);
    EXPECT_EQ(d.FrameName(leaf_first[0]), "hot");
    EXPECT_EQ(d.FrameName(leaf_first[1]), "main");
    EXPECT_EQ(sums.sums[1].count, 3u);
    const profile::Mapping& mapping = d.mapping(d.frame(leaf_first[0]).mapping);
    EXPECT_EQ(d.string(mapping.build_id), "abc123");
    EXPECT_EQ(d.string(mapping.file), "/bin/app");
    EXPECT_EQ(store->ResolveStacks(series[0].trie, {{99u}}, &d).status().code(), StatusCode::kOutOfRange);
    store.reset();
    store = MustOpen(folder.path());
  }
}

profile::Batch OneFrame(uint64_t sequence, profile::Frame frame, const std::string& function, int64_t line,
                        const std::string& miss, const std::string& build_id) {
  BatchBuilder b("a", sequence);
  profile::Dictionary& d = b.batch.dictionary;
  frame.mapping = d.InternMapping({.build_id = d.InternString(build_id), .file = d.InternString("/lib/x.so")});
  frame.miss = d.InternString(miss);
  if (!function.empty()) {
    frame.lines = {{.function = d.InternFunction({.name = d.InternString(function)}), .line = line}};
  }
  const profile::StackId stack = d.InternStack(profile::kEmptyStack, d.InternFrame(frame));
  b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0 + static_cast<int64_t>(sequence * kWindow), {{stack, 1}});
  return b.batch;
}

// name -> samples, over all series.
std::map<std::string, uint64_t> LeafNames(const Store& store) {
  std::map<std::string, uint64_t> names;
  for (const Series& series : Value(store.FindSeries({}))) {
    profile::Dictionary d;
    const StackSums sums = Value(store.SumStacks(StacksOf(series), {}));
    for (const StackSum& row : sums.sums) {
      const profile::StackId stack = store.ResolveStacks(series.trie, {{row.leaf}}, &d).value()[0];
      const profile::Frame& frame = d.frame(d.stack(stack).frame);
      std::string name = d.FrameName(d.stack(stack).frame);
      if (!frame.lines.empty() && frame.lines[0].line != 0) name += StrFormat(":%d", frame.lines[0].line);
      names[name] += row.count;
    }
  }
  return names;
}

TEST(Append, ALateSymbolNamesEarlierSamples) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  const profile::Frame native{.kind = profile::FrameKind::kNative, .address = ElfAddress(0x1234)};
  ASSERT_TRUE(store->Append(OneFrame(1, native, "", 0, "no symbols", "b1")).ok());
  EXPECT_EQ(LeafNames(*store), (std::map<std::string, uint64_t>{{"x.so+0x1234", 1}}));
  ASSERT_TRUE(store->Append(OneFrame(2, native, "parse", 0, "", "b1")).ok());
  EXPECT_EQ(LeafNames(*store), (std::map<std::string, uint64_t>{{"parse", 2}}));
  ASSERT_TRUE(store->Append(OneFrame(3, native, "parse", 42, "", "b1")).ok());
  EXPECT_EQ(LeafNames(*store), (std::map<std::string, uint64_t>{{"parse:42", 3}}));
  // A poorer description changes nothing; another build ID is another place.
  ASSERT_TRUE(store->Append(OneFrame(4, native, "", 0, "no symbols", "b1")).ok());
  ASSERT_TRUE(store->Append(OneFrame(5, native, "scan", 0, "", "b2")).ok());
  EXPECT_EQ(LeafNames(*store), (std::map<std::string, uint64_t>{{"parse:42", 4}, {"scan", 1}}));
  // Nor does one that is as good, and its names are not kept.
  const uint64_t strings = Value(store->Stats()).strings;
  ASSERT_TRUE(store->Append(OneFrame(6, native, "other", 43, "", "b1")).ok());
  EXPECT_EQ(Value(store->Stats()).strings, strings);
  EXPECT_EQ(LeafNames(*store), (std::map<std::string, uint64_t>{{"parse:42", 5}, {"scan", 1}}));
  store.reset();
  store = MustOpen(folder.path());
  EXPECT_EQ(LeafNames(*store), (std::map<std::string, uint64_t>{{"parse:42", 5}, {"scan", 1}}));
}

TEST(Append, KernelAndJitAddressesAreNotIdentities) {
  // The kernel moves at each boot, and generated code is anybody's: the same address, other functions.
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  const profile::Frame kernel{.kind = profile::FrameKind::kKernel, .address = ElfAddress(0xffffffff81000010)};
  const profile::Frame jit{.kind = profile::FrameKind::kJit, .address = ElfAddress(0x7f0000001000)};
  ASSERT_TRUE(store->Append(OneFrame(1, kernel, "do_fork", 0, "", "k")).ok());
  ASSERT_TRUE(store->Append(OneFrame(2, kernel, "do_exit", 0, "", "k")).ok());
  ASSERT_TRUE(store->Append(OneFrame(3, jit, "js:a", 0, "", "")).ok());
  ASSERT_TRUE(store->Append(OneFrame(4, jit, "js:b", 0, "", "")).ok());
  EXPECT_EQ(LeafNames(*store),
            (std::map<std::string, uint64_t>{{"do_exit", 1}, {"do_fork", 1}, {"js:a", 1}, {"js:b", 1}}));
}

// Beyond the limit the known outer frames stay, and everything below them is one visible frame.
TEST(Append, StackLimitFoldsVisiblyAndCounts) {
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.limits.max_nodes = 40;
  auto store = MustOpen(folder.path(), options);
  BatchBuilder b("a", 1);
  const uint32_t big = b.Series("cpu", {{"service", "big"}});
  std::vector<std::pair<profile::StackId, uint64_t>> samples;
  for (int i = 0; i < 100; ++i) samples.push_back({b.Stack({"main", "f" + std::to_string(i), "leaf"}), 1});
  b.Cpu(big, kT0, samples);
  const AppendResult result = store->Append(b.batch).value();
  EXPECT_THAT(result.notice, HasSubstr("--max-stacks"));
  EXPECT_THAT(result.notice, HasSubstr("limit 40"));
  EXPECT_EQ(SampleSum(*store), 100u);
  EXPECT_EQ(StackSampleSum(*store), 100u);
  const std::map<std::string, uint64_t> names = LeafNames(*store);
  const uint64_t folded = names.at(std::string(kFoldedStacksName));
  EXPECT_EQ(folded + names.at("leaf"), 100u);
  EXPECT_GT(folded, 75u);
  EXPECT_EQ(store->Stats().value().folded_samples, folded);
  // The fold hangs where the known frames end.
  const Series series = store->FindSeries({}).value()[0];
  const StackSums all = store->SumStacks(StacksOf(series), {}).value();
  for (const StackSum& row : all.sums) {
    profile::Dictionary d;
    const auto frames = d.FramesLeafFirst(store->ResolveStacks(series.trie, {{row.leaf}}, &d).value()[0]);
    ASSERT_GE(frames.size(), 2u);
    EXPECT_EQ(d.FrameName(frames.back()), "main");
  }
  // Known stacks are still found; the fold is the same node in the next batch.
  b.batch.sequence = 2;
  ASSERT_TRUE(store->Append(b.batch).ok());
  EXPECT_EQ(LeafNames(*store).at(std::string(kFoldedStacksName)), 2 * folded);
  EXPECT_LE(store->Stats().value().nodes, 40u + 40 / 8 + 1);
  // Nobody else is concerned.
  BatchBuilder other("x", 1);
  other.batch.tenant = "quiet";
  other.Cpu(other.Series("cpu", {{"service", "big"}}), kT0, {{other.Stack({"main", "f1", "own"}), 7}});
  EXPECT_EQ(store->Append(other.batch).value().notice, "");
  // After a restart too, and with the limit raised new stacks are whole again.
  store.reset();
  options.limits.max_nodes = 1000;
  store = MustOpen(folder.path(), options);
  b.batch.sequence = 3;
  ASSERT_TRUE(store->Append(b.batch).ok());
  EXPECT_EQ(LeafNames(*store).at(std::string(kFoldedStacksName)), 2 * folded);
  EXPECT_EQ(StackSampleSum(*store), 300u);
}

// Deploys bring new stacks every day for years: the limit is of a day's. With ClickHouse it is of all, since there all
// of a service are in memory.
TEST(Append, StackLimitIsOfADay) {
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.limits.max_nodes = 40;
  int64_t now = options.now();
  options.now = [&now] { return now; };
  auto store = MustOpen(folder.path(), options);
  const auto folded_on = [&](int day) {
    now = TestOptions().now() + day * static_cast<int64_t>(kDayNs);
    BatchBuilder b("a", static_cast<uint64_t>(day) + 1);
    std::vector<std::pair<profile::StackId, uint64_t>> samples;
    for (int i = 0; i < 30; ++i) samples.push_back({b.Stack({"main", StrFormat("f%d of %d", i, day)}), 1});
    b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0, samples);
    const StatusOr<AppendResult> result = store->Append(b.batch);
    EXPECT_TRUE(result.ok()) << result.status();
    return !result->notice.empty();
  };
  EXPECT_FALSE(folded_on(0));
  EXPECT_EQ(folded_on(1), !InFolder());
  EXPECT_EQ(folded_on(2), !InFolder());
  EXPECT_EQ(SampleSum(*store), 90u);

  // A stream that lasts for days forgets what was folded on another.
  BatchBuilder b("long", 0);
  const uint32_t series = b.Series("cpu", {{"service", "s"}});
  std::vector<std::pair<profile::StackId, uint64_t>> samples;
  for (int i = 0; i < 60; ++i) samples.push_back({b.Stack({"main", StrFormat("long %d", i)}), 1});
  auto memo = store->NewMemo();
  for (int day = 3; day < 6; ++day) {
    now = TestOptions().now() + day * static_cast<int64_t>(kDayNs);
    b.batch.profiles.clear();
    ++b.batch.sequence;
    b.Cpu(series, kT0, samples);
    const StatusOr<AppendResult> result = AppendOfStream(store.get(), b.batch, memo.get());
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->notice.empty(), InFolder() && day > 3) << day << ": " << result->notice;
  }
}

// Beyond the limit what is known is still found, also where a frame is known by its lines alone; and new names are not
// written, since nothing could refer to them.
TEST(Append, BeyondTheStackLimitKnownStacksStayWhole) {
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.limits.max_nodes = 30;
  auto store = MustOpen(folder.path(), options);
  const auto known = [](BatchBuilder* b) {
    return std::vector<std::pair<profile::StackId, uint64_t>>{
        {b->Stack({"module", "handler", "render"}, profile::FrameKind::kInterpreted), 1},
        {b->Stack({"main", "work"}), 1}};
  };
  const auto append = [&](uint64_t sequence, int new_stacks) {
    BatchBuilder b("a", sequence);
    auto samples = known(&b);
    for (int i = 0; i < new_stacks; ++i) samples.push_back({b.Stack({StrFormat("x%d.%d", sequence, i), "y", "z"}), 1});
    b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0, samples);
    return store->Append(b.batch).value();
  };
  EXPECT_EQ(append(1, 0).notice, "");
  EXPECT_NE(append(2, 50).notice, "");
  const uint64_t frames = Value(store->Stats()).frames;
  EXPECT_NE(append(3, 50).notice, "");
  EXPECT_EQ(Value(store->Stats()).frames, frames);
  EXPECT_EQ(append(4, 0).notice, "");
  const std::map<std::string, uint64_t> names = LeafNames(*store);
  EXPECT_EQ(names.at("render"), 4u);
  EXPECT_EQ(names.at("work"), 4u);
  EXPECT_EQ(StackSampleSum(*store), 2u * 4 + 100);
}

TEST(Append, NamesLimitFoldsWhatWouldNeedNewOnes) {
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.limits.max_name_bytes = 200;
  auto store = MustOpen(folder.path(), options);
  for (uint64_t sequence = 1; sequence <= 20; ++sequence) {
    BatchBuilder b("a", sequence);
    std::vector<std::pair<profile::StackId, uint64_t>> samples = {{b.Stack({"main", "known"}), 1}};
    for (int i = 0; i < 5; ++i) samples.push_back({b.Stack({"main", StrFormat("unknown_%d_%d", sequence, i)}), 1});
    b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0, samples);
    const StatusOr<AppendResult> result = store->Append(b.batch);
    ASSERT_TRUE(result.ok()) << result.status();
    if (sequence == 20) {
      EXPECT_THAT(result->notice, HasSubstr("--max-names"));
    }
  }
  const std::map<std::string, uint64_t> names = LeafNames(*store);
  EXPECT_EQ(names.at("known"), 20u);
  EXPECT_GT(names.at(std::string(kFoldedStacksName)), 50u);
  EXPECT_EQ(StackSampleSum(*store), 120u);
}

TEST(Append, SeriesLimitFoldsVisiblyAndSaysSo) {
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.limits.max_series = 3;
  auto store = MustOpen(folder.path(), options);
  const auto batch = [](uint64_t sequence, int first, int last) {
    BatchBuilder b("a", sequence);
    for (int i = first; i < last; ++i) {
      b.Counter(b.Series("tcp_retransmits", {{"service", "s"}, {"comm", "c" + std::to_string(i)}}), kT0, 1);
    }
    return b.batch;
  };
  EXPECT_EQ(store->Append(batch(1, 0, 2)).value().notice, "");
  const AppendResult folded = store->Append(batch(2, 1, 6)).value();
  EXPECT_THAT(folded.notice, HasSubstr("3 points went to the series {folded="));
  EXPECT_THAT(folded.notice, HasSubstr("has 4 series, its limit is 3; raise it with --max-series"));
  uint64_t counted = 0, in_fold = 0;
  for (const Series& series : Value(store->FindSeries({.type = "tcp_retransmits"}))) {
    ASSERT_TRUE(store
                    ->ScanTotals(SeriesOnly({series.id}), {}, false,
                                 [&](const WindowTotal& total) {
                                   counted += total.value;
                                   if (series.labels.Has(kFoldedLabel)) in_fold += total.value;
                                 })
                    .ok());
    if (series.labels.Has(kFoldedLabel)) {
      EXPECT_EQ(series.labels.Get("service"), "s");
    }
  }
  EXPECT_EQ(counted, 7u);
  EXPECT_EQ(in_fold, 3u);
  EXPECT_EQ(store->Stats().value().series, 4u);
  EXPECT_EQ(store->Tenants().value()[0].folded_series, 3u);
}

TEST(Append, TenantsShareNothingThatShows) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  for (const std::string tenant : {"", "red", "blue"}) {
    BatchBuilder b("a", 1);  // the same agent id in each
    b.batch.tenant = tenant;
    b.Cpu(b.Series("cpu", {{"service", "shop"}, {"owner", tenant + "x"}}), kT0,
          {{b.Stack({"main", "f_" + tenant}), 1 + tenant.size()}});
    ASSERT_FALSE(store->Append(b.batch).value().duplicate) << tenant;
  }
  for (int round = 0; round < 2; ++round) {
    for (const std::string tenant : {"", "red", "blue"}) {
      const std::vector<Series> series = store->FindSeries({.tenant = tenant}).value();
      ASSERT_EQ(series.size(), 1u) << tenant;
      const StackSums sums = store->SumStacks(StacksOf(series[0]), {}).value();
      ASSERT_EQ(sums.sums.size(), 1u);
      EXPECT_EQ(sums.sums[0].count, 1 + tenant.size());
      EXPECT_THAT(store->LabelValues("owner", {.tenant = tenant}).value(), ::testing::ElementsAre(tenant + "x"));
      EXPECT_EQ(store->LastSequence(tenant, "a").value(), 1u);
      profile::Dictionary d;
      const auto stack = store->ResolveStacks(series[0].trie, {{sums.sums[0].leaf}}, &d).value()[0];
      EXPECT_EQ(d.FrameName(d.stack(stack).frame), "f_" + tenant);
    }
    EXPECT_TRUE(store->FindSeries({.tenant = "green"}).value().empty());
    EXPECT_EQ(store->Tenants().value().size(), 3u);
    store.reset();
    store = MustOpen(folder.path());
  }
  BatchBuilder bad("a", 1);
  bad.batch.tenant = "no spaces";
  EXPECT_EQ(store->Append(bad.batch).status().code(), StatusCode::kInvalidArgument);
}

TEST(Append, RateLimitSlowsThenRefusesNamingIt) {
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.tenant_limits["noisy"].max_bytes_per_s = 100;
  auto store = MustOpen(folder.path(), options);
  const auto batch = [](const std::string& tenant, uint64_t sequence) {
    BatchBuilder b("a", sequence);
    b.batch.tenant = tenant;
    std::vector<std::pair<profile::StackId, uint64_t>> samples;
    for (int i = 0; i < 20'000; ++i) samples.push_back({b.Stack({"f" + std::to_string(i)}), 1});
    b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0, samples);
    return b.batch;
  };
  ASSERT_TRUE(store->Append(batch("noisy", 1)).ok());
  ASSERT_TRUE(store->Append(batch("", 1)).ok());
  StatusOr<AppendResult> result = AppendResult{};
  for (uint64_t sequence = 2; result.ok() && sequence < 10; ++sequence)
    result = store->Append(batch("noisy", sequence));
  EXPECT_EQ(result.status().code(), StatusCode::kResourceExhausted) << result.status();
  EXPECT_THAT(std::string(Message(result.status())),
              HasSubstr("tenant 'noisy' sends more than its limit of 100 B a second"));
  EXPECT_THAT(std::string(Message(result.status())), HasSubstr("--max-rate"));
  EXPECT_TRUE(store->Append(batch("", 2)).ok());
  EXPECT_GT(store->Tenants().value()[1].throttled, 0u);
}

TEST(Append, RefusesMalformedBatchesWhole) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  const int64_t now = TestOptions().now();
  struct Case {
    std::string_view message;
    std::function<void(profile::Batch&)> spoil;
  };
  const Case cases[] = {
      {"no agent id", [](profile::Batch& b) { b.agent_id.clear(); }},
      {"agent id is not UTF-8", [](profile::Batch& b) { b.agent_id = "\xff"; }},
      {"node name is not UTF-8", [](profile::Batch& b) { b.node = std::string(300, 'n'); }},
      {"sequence number is 0", [](profile::Batch& b) { b.sequence = 0; }},
      {"its type is empty", [](profile::Batch& b) { b.series[0].type.clear(); }},
      {"series 9 of 1", [](profile::Batch& b) { b.profiles[0].series = 9; }},
      {"stack 1000 of", [](profile::Batch& b) { b.profiles[0].samples[0].stack = 1000; }},
      {"above 2^56", [](profile::Batch& b) { b.profiles[0].samples[0].count = UINT64_MAX; }},
      {"above 2^56", [](profile::Batch& b) { b.profiles[0].samples[1].value = uint64_t{1} << 60; }},
      {"before the year 2000", [](profile::Batch& b) { b.profiles[0].time_ns = -1; }},
      {"before the year 2000", [](profile::Batch& b) { b.profiles[0].time_ns = INT64_MIN; }},
      {"ahead of the store's clock", [&](profile::Batch& b) { b.profiles[0].time_ns = now + 2 * 3'600'000'000'000; }},
      {"ahead of the store's clock", [&](profile::Batch& b) { b.profiles[0].time_ns = INT64_MAX; }},
      {"a window of", [](profile::Batch& b) { b.profiles[0].duration_ns = UINT64_MAX; }},
      {"points of another kind",
       [](profile::Batch& b) { b.counters.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1, .value = 1}); }},
      {"counter point 0: its value",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.counters.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1, .value = UINT64_MAX});
       }},
      {"exemplar with stack",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.histograms.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1});
         b.histograms[0].exemplars.push_back({.time_ns = kT0, .value = 1, .stack = 77});
       }},
      {"comm that is too long",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.histograms.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1});
         b.histograms[0].exemplars.push_back({.comm = std::string(1000, 'c')});
       }},
      {"exemplar with stack",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.histograms.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1});
         b.histograms[0].exemplars.push_back({.waker = {.stack = 77, .wait_ns = 1}});
       }},
      {"parts of its time",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.histograms.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1});
         b.histograms[0].exemplars.push_back({.split = std::vector<profile::TimePart>(33)});
       }},
      {"a cause too long",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.histograms.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1});
         b.histograms[0].exemplars.push_back({.split = {{std::string(1000, 'c'), 1}}});
       }},
      {"waker has a name that is too long",
       [](profile::Batch& b) {
         b.profiles.clear();
         b.histograms.push_back({.series = 0, .time_ns = kT0, .duration_ns = 1});
         b.histograms[0].exemplars.push_back({.waker = {.comm = std::string(1000, 'c'), .wait_ns = 1}});
       }},
      {"string 5 has",
       [](profile::Batch& b) {
         while (b.dictionary.string_count() < 5) b.dictionary.InternString(std::to_string(b.dictionary.string_count()));
         b.dictionary.InternString(std::string(kMaxStringBytes + 1, 'x'));
       }},
      {"function 3: string out of range", [](profile::Batch& b) { b.dictionary.InternFunction({.name = 9999}); }},
      {"mapping 2: string out of range", [](profile::Batch& b) { b.dictionary.InternMapping({.file = 9999}); }},
      {"frame 3: mapping or string", [](profile::Batch& b) { b.dictionary.InternFrame({.mapping = 9999}); }},
      {"frame 3: function", [](profile::Batch& b) { b.dictionary.InternFrame({.lines = {{.function = 9999}}}); }},
      {"frame 3: unknown kind",
       [](profile::Batch& b) { b.dictionary.InternFrame({.kind = static_cast<profile::FrameKind>(99)}); }},
      {"deeper than",
       [](profile::Batch& b) {
         profile::StackId stack = profile::kEmptyStack;
         for (size_t i = 0; i <= kMaxStackDepth; ++i) stack = b.dictionary.InternStack(stack, 1);
       }},
  };
  for (const Case& c : cases) {
    profile::Batch batch = SmallBatch("a", 1);
    c.spoil(batch);
    const Status status = store->Append(batch).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(Message(status)), HasSubstr(std::string(c.message)));
  }
  EXPECT_TRUE(store->FindSeries({}).value().empty());
  EXPECT_EQ(store->Stats().value().strings, 0u);
  EXPECT_EQ(store->LastSequence("", "a").value(), 0u);
  EXPECT_TRUE(store->Append(SmallBatch("a", 1)).ok());
}

TEST(Append, HistogramsAndCounters) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  BatchBuilder b("a", 1);
  const uint32_t latency = b.Series("syscall_latency", {{"service", "s"}, {"syscall", "read"}});
  const uint32_t bytes = b.Series("tcp_bytes_sent", {{"peer", "10.0.0.1:80"}});
  profile::HistogramPoint point{.series = latency, .time_ns = kT0, .duration_ns = kWindow};
  point.histogram.Record(5'000'000, 10);
  point.histogram.Record(20'000'000);
  point.errors = {{11, 3}};
  point.exemplars = {
      {.time_ns = kT0 + 5,
       .value = 20'000'000,
       .stack = b.Stack({"main", "read"}),
       .comm = "app",
       .tid = 42,
       .call = "read(3 → /tmp/x) = 1",
       .weight = 64,
       .typical = true,
       .split = {{"poll", 19'000'000}, {"running", 1'000'000}},
       .waker =
           {.stack = b.Stack({"feed", "write"}), .comm = "feeder", .tid = 43, .cause = "poll", .wait_ns = 18'000'000}},
      {.time_ns = kT0 + 6, .value = 5'000'000, .stack = b.Stack({"main"}), .comm = "app", .tid = 44}};
  b.batch.histograms.push_back(point);
  b.Counter(bytes, kT0, 4096);
  ASSERT_TRUE(store->Append(b.batch).ok());
  b.batch.sequence = 2;
  b.batch.agent_id = "other";  // the same series and window from elsewhere: both count
  ASSERT_TRUE(store->Append(b.batch).ok());

  const std::vector<Series> series = store->FindSeries({.type = "syscall_latency"}).value();
  ASSERT_EQ(series.size(), 1u);
  std::vector<HistogramWindow> windows;
  ASSERT_TRUE(store
                  ->ScanHistograms(SeriesOnly({series[0].id}), {kT0, kT0 + 1}, false,
                                   [&](const HistogramWindow& w) { windows.push_back(w); })
                  .ok());
  ASSERT_EQ(windows.size(), 2u);
  for (const HistogramWindow& window : windows) {
    EXPECT_EQ(window.histogram, point.histogram);
    EXPECT_EQ(window.errors, point.errors);
    ASSERT_EQ(window.exemplars.size(), 2u);
    EXPECT_EQ(window.exemplars[0].comm, "app");
    EXPECT_EQ(window.exemplars[0].tid, 42u);
    EXPECT_EQ(window.exemplars[0].call, "read(3 → /tmp/x) = 1");
    profile::Dictionary d;
    const profile::StackId stack = store->ResolveStacks(series[0].trie, {{window.exemplars[0].leaf}}, &d).value()[0];
    EXPECT_EQ(d.FrameName(d.stack(stack).frame), "read");
    EXPECT_EQ(window.exemplars[0].weight, 64u);
    EXPECT_TRUE(window.exemplars[0].typical);
    EXPECT_EQ(window.exemplars[0].split,
              (std::vector<profile::TimePart>{{"poll", 19'000'000}, {"running", 1'000'000}}));
    const profile::Waker& waker = window.exemplars[0].waker;
    EXPECT_EQ(waker.comm, "feeder");
    EXPECT_EQ(waker.cause, "poll");
    EXPECT_EQ(waker.tid, 43u);
    EXPECT_EQ(waker.wait_ns, 18'000'000u);
    const profile::StackId woken =
        store->ResolveStacks(series[0].trie, {{window.exemplars[0].waker_leaf}}, &d).value()[0];
    EXPECT_EQ(d.FrameName(d.stack(woken).frame), "write");
    EXPECT_EQ(window.exemplars[1].comm, "app");
    EXPECT_FALSE(window.exemplars[1].typical);
    EXPECT_TRUE(window.exemplars[1].split.empty());
    EXPECT_EQ(window.exemplars[1].waker.wait_ns, 0u);
    EXPECT_EQ(window.exemplars[1].waker_leaf, 0u);
  }
  windows.clear();
  ASSERT_TRUE(store
                  ->ScanHistograms(SeriesOnly({series[0].id}), {kT0 + 1, INT64_MAX}, false,
                                   [&](const HistogramWindow& w) { windows.push_back(w); })
                  .ok());
  EXPECT_TRUE(windows.empty());

  std::vector<WindowTotal> totals;
  const SeriesId counter = store->FindSeries({.type = "tcp_bytes_sent"}).value()[0].id;
  ASSERT_TRUE(store
                  ->ScanTotals(SeriesOnly({counter, series[0].id}), {}, false,
                               [&](const WindowTotal& t) { totals.push_back(t); })
                  .ok());
  ASSERT_EQ(totals.size(), 4u);
  EXPECT_EQ(totals[0].value, 4096u);
  EXPECT_EQ(totals[2].count, 11u);
  EXPECT_EQ(totals[2].value, 70'000'000u);
}

// Many threads, each an agent; some also resend what another thread sends right now.
TEST(Append, ConcurrentAgentsAndResends) {
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  constexpr int kThreads = 8;
  constexpr uint64_t kBatches = 25;
  std::atomic<uint64_t> applied{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      // Two threads per agent: each batch is sent twice.
      const std::string agent = "agent" + std::to_string(t / 2);
      for (uint64_t sequence = 1; sequence <= kBatches; ++sequence) {
        BatchBuilder b(agent, sequence);
        const uint32_t series = b.Series("cpu", {{"node", agent}, {"service", "s" + std::to_string(sequence % 3)}});
        b.Cpu(series, kT0 + static_cast<int64_t>(sequence * kWindow),
              {{b.Stack({"main", "f" + std::to_string(sequence), agent}), sequence}});
        b.batch.profiles.back().time_ns = kT0;
        const StatusOr<AppendResult> result = store->Append(b.batch);
        ASSERT_TRUE(result.ok()) << result.status();
        if (!result->duplicate) applied += sequence;
      }
    });
  }
  std::thread reader([&] {
    while (!stop) {
      // Totals and samples of one series are written together.
      for (const Series& series : Value(store->FindSeries({.type = "cpu"}))) {
        const StackSums sums = store->SumStacks(StacksOf(series), {}).value();
        std::vector<LeafId> leaves;
        for (const StackSum& row : sums.sums) leaves.push_back(row.leaf);
        profile::Dictionary d;
        ASSERT_TRUE(store->ResolveStacks(series.trie, leaves, &d).ok());
      }
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  reader.join();
  const uint64_t expected = kThreads / 2 * kBatches * (kBatches + 1) / 2;
  EXPECT_EQ(applied, expected);
  EXPECT_EQ(SampleSum(*store), expected);
  EXPECT_EQ(StackSampleSum(*store), expected);
  store.reset();
  store = MustOpen(folder.path());
  EXPECT_EQ(StackSampleSum(*store), expected);
}

// While stacks are being made known, those that are written have their functions: a batch that is staged and not
// written yet is in the trie already.
void ReadFunctionsWhileMoreCome(uint64_t max_trie_nodes) {
  const uint64_t batches = TestsAreShort() ? 40 : 300;
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.max_trie_nodes = max_trie_nodes;
  auto store = MustOpen(folder.path(), options);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      const std::string agent = "agent" + std::to_string(t);
      for (uint64_t sequence = 1; sequence <= batches; ++sequence) {
        BatchBuilder b(agent, sequence);
        std::vector<std::pair<profile::StackId, uint64_t>> samples;
        for (int i = 0; i < 20; ++i) {
          samples.emplace_back(b.Stack({"main", agent + "_" + std::to_string(sequence) + "_" + std::to_string(i)}), 1);
        }
        b.Cpu(b.Series("cpu", {{"node", agent}, {"service", "s"}}), kT0, samples);
        ASSERT_TRUE(store->Append(b.batch).ok());
      }
    });
  }
  std::thread reader([&] {
    while (!stop) {
      for (const Series& series : Value(store->FindSeries({.type = "cpu"}))) {
        const StackSums sums = store->SumStacks(StacksOf(series), {}).value();
        const auto functions = store->Functions(series.trie);
        ASSERT_TRUE(functions.ok()) << functions.status();
        const std::shared_lock lock((*functions)->mutex);
        for (const StackSum& row : sums.sums) {
          ASSERT_LT(row.leaf, (*functions)->leaf_count());
          ASSERT_NE((*functions)->leaf(row.leaf), 0u);
        }
      }
    }
  });
  std::thread housekeeper([&] {
    while (!stop) ASSERT_TRUE(store->Housekeep(options.now(), kNsPerSecond).ok());
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  reader.join();
  housekeeper.join();
  EXPECT_EQ(StackSampleSum(*store), 2 * batches * 20);
}

TEST(Append, FunctionsOfWhatIsWrittenWhileMoreCome) { ReadFunctionsWhileMoreCome(0); }
TEST(Append, FunctionsOfReplacedTriesWhileMoreCome) { ReadFunctionsWhileMoreCome(100); }

// Between two new names a batch lets others define theirs: each tenant still pays for its own.
TEST(Append, TenantsWhoDefineAtTheSameTimePayForTheirOwn) {
  constexpr int kTenants = 3, kBatches = 4, kStacks = 1000;
  const TempFolder folder;
  auto store = MustOpen(folder.path());
  std::vector<std::thread> threads;
  for (int t = 0; t < kTenants; ++t) {
    threads.emplace_back([&, t] {
      const std::string tenant = "tenant" + std::to_string(t);
      for (uint64_t sequence = 1; sequence <= kBatches; ++sequence) {
        BatchBuilder b(tenant, sequence);
        b.batch.tenant = tenant;
        profile::Dictionary& d = b.batch.dictionary;
        const profile::MappingId mapping = d.InternMapping({.build_id = d.InternString("aa" + std::to_string(t))});
        std::vector<std::pair<profile::StackId, uint64_t>> samples;
        for (uint64_t i = sequence * kStacks; i < (sequence + 1) * kStacks; ++i) {
          const profile::FunctionId function =
              d.InternFunction({.name = d.InternString(tenant + "_" + std::to_string(i))});
          samples.emplace_back(d.InternStack(profile::kEmptyStack, d.InternFrame({.kind = profile::FrameKind::kNative,
                                                                                  .mapping = mapping,
                                                                                  .address = ElfAddress(i),
                                                                                  .lines = {{.function = function}}})),
                               1);
        }
        b.Cpu(b.Series("cpu", {{"node", tenant}, {"service", "s"}}), kT0, samples);
        ASSERT_TRUE(store->Append(b.batch).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<TenantInfo> tenants = store->Tenants().value();
  std::erase_if(tenants, [](const TenantInfo& tenant) { return tenant.tenant.empty(); });
  ASSERT_EQ(tenants.size(), size_t{kTenants});
  for (const TenantInfo& tenant : tenants) {
    EXPECT_EQ(tenant.frames, uint64_t{kBatches * kStacks}) << tenant.tenant;
    EXPECT_EQ(tenant.nodes, uint64_t{kBatches * kStacks}) << tenant.tenant;
    EXPECT_EQ(tenant.samples, uint64_t{kBatches * kStacks}) << tenant.tenant;
  }
}

// Between two new stacks too; then a limit that one batch is far from may be met by all of them together.
TEST(Append, StreamsOfOneTenantMeetItsLimitTogether) {
  constexpr uint64_t kStreams = 4, kStacks = 4000;
  const TempFolder folder;
  StoreOptions options = TestOptions();
  options.limits.max_nodes = 10'000;
  auto store = MustOpen(folder.path(), options);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kStreams; ++t) {
    threads.emplace_back([&, t] {
      BatchBuilder b("agent" + std::to_string(t), 1);
      profile::Dictionary& d = b.batch.dictionary;
      const profile::MappingId mapping = d.InternMapping({.build_id = d.InternString("aa")});
      std::vector<std::pair<profile::StackId, uint64_t>> samples;
      for (uint64_t i = 0; i < kStacks; ++i) {
        profile::StackId stack = profile::kEmptyStack;
        for (const uint64_t address : {1000 + t * 100 + i / 100, 5000 + i % 100}) {
          stack = d.InternStack(
              stack,
              d.InternFrame({.kind = profile::FrameKind::kNative, .mapping = mapping, .address = ElfAddress(address)}));
        }
        samples.emplace_back(stack, 1);
      }
      b.Cpu(b.Series("cpu", {{"service", "s"}}), kT0 + static_cast<int64_t>(t * kWindow), samples);
      ASSERT_TRUE(store->Append(b.batch).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t samples = 0;
  for (const auto& [name, count] : LeafNames(*store)) samples += count;
  EXPECT_EQ(samples, kStreams * kStacks);
  const TenantInfo tenant = Value(store->Tenants()).at(0);
  EXPECT_GT(tenant.folded_samples, kStreams * kStacks - 10'000);
  EXPECT_EQ(LeafNames(*store)[std::string(kFoldedStacksName)], tenant.folded_samples);
}

}  // namespace
}  // namespace pyrometer::store

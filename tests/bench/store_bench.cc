// Store and query on a fleet of known shape. Run: build/bench/tests/bench/store_bench
//
// name                     what one iteration is
// Append/pods              one batch of one node: `pods` pods × 1,000 raw samples, synced to disk
// MergeServiceHour         10 pods × 60 windows × 1,000 samples of one service, merged with names
// TimeLineServiceHour      the same hour as a time line (totals only)
// LabelValues              all values of `pod` among 500 cpu series
// FlameTree/stacks         tree of a profile with that many distinct stacks
//
// Samples: per service 20,000 stacks in a call tree of realistic depth (10 to 40 frames), drawn log-uniformly (Zipf
// with s = 1) as real profiles are. `bytes_per_sample`: the data folder, dictionary and index included, after
// a restart. Seeded: the same data each time.

#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "userspace/base/strings.h"
#include "userspace/query/engine.h"
#include "userspace/query/flame_tree.h"
#include "userspace/store/store.h"

namespace pyrometer {
namespace {

constexpr int64_t kStart = 1'700'000'000'000'000'000;
constexpr uint64_t kMinute = 60 * kNsPerSecond;
constexpr int kStacksPerService = 20'000;

class Fleet {
 public:
  Fleet() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-bench-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    Reopen();
  }
  ~Fleet() {
    store_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  // Opening writes what is in the log to compressed files.
  void Reopen() {
    store_.reset();
    store::StoreOptions options;
    options.now = [] { return kStart + int64_t{86'400} * 1'000'000'000; };
    StatusOr<std::unique_ptr<store::Store>> opened = store::Store::Open(folder_, options);
    if (!opened.ok()) {
      std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
      std::exit(1);
    }
    store_ = *std::move(opened);
  }
  store::Store& store() { return *store_; }
  uint64_t samples() const { return samples_; }

  // One node's window: `pods` pods of `service`.
  profile::Batch Window(int service, int first_pod, int pods, uint64_t minute) {
    profile::Batch batch;
    batch.agent_id = StrFormat("agent-%d-%d", service, first_pod);
    batch.node = StrFormat("node-%d-%d", service, first_pod);
    batch.sequence = ++sequences_[batch.agent_id];
    const std::vector<std::vector<int>>& stacks = Stacks(service);
    std::vector<profile::StackId> known(stacks.size(), UINT32_MAX);
    for (int pod = first_pod; pod < first_pod + pods; ++pod) {
      batch.series.push_back({"cpu", profile::LabelSet::Make({{"service", StrFormat("service-%d", service)},
                                                              {"pod", StrFormat("service-%d-%d", service, pod)},
                                                              {"node", batch.node},
                                                              {"namespace", "production"}})
                                         .value()});
      profile::ProfilePoint point{.series = static_cast<uint32_t>(batch.series.size() - 1),
                                  .time_ns = kStart + static_cast<int64_t>(minute * kMinute),
                                  .duration_ns = kMinute,
                                  .period_ns = 10'101'010};
      std::map<int, uint64_t> counts;
      for (int i = 0; i < 1000; ++i) {
        const double u = std::uniform_real_distribution<>(0, 1)(random_);
        ++counts[static_cast<int>(std::exp(u * std::log(static_cast<double>(stacks.size())))) - 1];
      }
      for (const auto& [rank, count] : counts) {
        profile::StackId& id = known[static_cast<size_t>(rank)];
        if (id == UINT32_MAX) {
          id = profile::kEmptyStack;
          for (const int function : stacks[static_cast<size_t>(rank)]) {
            id = batch.dictionary.InternStack(id, Frame(&batch.dictionary, function));
          }
        }
        point.samples.push_back({id, count, count * point.period_ns});
      }
      samples_ += 1000;
      batch.profiles.push_back(std::move(point));
    }
    return batch;
  }

  void Append(const profile::Batch& batch) {
    const StatusOr<store::AppendResult> result = store_->Append(batch);
    if (!result.ok()) {
      std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
      std::exit(1);
    }
  }

 private:
  static profile::FrameId Frame(profile::Dictionary* d, int function) {
    const auto mapping = d->InternMapping(
        {.build_id = d->InternString("6f1d3c0f5a7be0d84a1b"), .file = d->InternString("/usr/bin/service")});
    const auto name =
        d->InternString(StrFormat("company::product::Component%d::HandleRequest%d", function % 97, function));
    const auto id =
        d->InternFunction({.name = name, .file = d->InternString(StrFormat("src/component%d.cc", function % 97))});
    return d->InternFrame({.kind = profile::FrameKind::kNative,
                           .mapping = mapping,
                           .address = ElfAddress(0x1000u + static_cast<uint64_t>(function) * 64),
                           .lines = {{.function = id, .line = 10 + function % 500}}});
  }

  // Root first: each stack branches off an earlier one, as call trees do.
  const std::vector<std::vector<int>>& Stacks(int service) {
    std::vector<std::vector<int>>& stacks = stacks_[service];
    if (!stacks.empty()) return stacks;
    std::mt19937_64 random(static_cast<uint64_t>(service) + 1);
    for (int i = 0; i < kStacksPerService; ++i) {
      std::vector<int> stack;
      if (i > 0) {
        stack = stacks[random() % stacks.size()];
        stack.resize(1 + random() % stack.size());
      }
      const size_t depth = 10 + random() % 31;
      while (stack.size() < depth) stack.push_back(static_cast<int>(random() % 8000));
      stacks.push_back(std::move(stack));
    }
    return stacks;
  }

  std::string folder_;
  std::unique_ptr<store::Store> store_;
  std::mt19937_64 random_{1};
  std::map<int, std::vector<std::vector<int>>> stacks_;
  std::map<std::string, uint64_t> sequences_;
  uint64_t samples_ = 0;
};

void Append(benchmark::State& state) {
  Fleet fleet;
  const int pods = static_cast<int>(state.range(0));
  uint64_t minute = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const profile::Batch batch = fleet.Window(0, 0, pods, minute++);
    state.ResumeTiming();
    fleet.Append(batch);
  }
  state.counters["samples/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * pods * 1000), benchmark::Counter::kIsRate);
}
BENCHMARK(Append)->Arg(1)->Arg(50)->Unit(benchmark::kMillisecond)->UseRealTime();

// Ten services × 10 pods × 60 minutes, made once.
Fleet& Hour() {
  static Fleet& fleet = *[] {
    auto* made = new Fleet;
    for (uint64_t minute = 0; minute < 60; ++minute) {
      for (int service = 0; service < 10; ++service) made->Append(made->Window(service, 0, 10, minute));
    }
    made->Reopen();
    std::atexit([] { delete &Hour(); });
    return made;
  }();
  return fleet;
}

const store::TimeRange kHour{kStart, kStart + static_cast<int64_t>(60 * kMinute)};

void MergeServiceHour(benchmark::State& state) {
  Fleet& fleet = Hour();
  const query::Engine engine(&fleet.store());
  const query::Selector selector = query::ParseSelector("cpu{service=\"service-3\"}").value();
  size_t stacks = 0;
  for (auto _ : state) stacks = engine.MergeProfile(selector, kHour).value().sample_count();
  state.counters["stacks"] = static_cast<double>(stacks);
  const store::StoreStats stats = fleet.store().Stats().value();
  state.counters["bytes_per_sample"] = static_cast<double>(stats.disk_bytes) / static_cast<double>(fleet.samples());
  state.counters["trie_nodes"] = static_cast<double>(stats.stacks);
}
BENCHMARK(MergeServiceHour)->Unit(benchmark::kMillisecond);

void TimeLineServiceHour(benchmark::State& state) {
  const query::Engine engine(&Hour().store());
  const query::Selector selector = query::ParseSelector("cpu{service=\"service-3\"}").value();
  for (auto _ : state) benchmark::DoNotOptimize(engine.TimeSeries(selector, kHour, kMinute, {"pod"}).value().size());
}
BENCHMARK(TimeLineServiceHour)->Unit(benchmark::kMillisecond);

void LabelValues(benchmark::State& state) {
  Fleet& fleet = Hour();
  for (auto _ : state) benchmark::DoNotOptimize(fleet.store().LabelValues("pod", {.type = "cpu"}).value().size());
}
BENCHMARK(LabelValues)->Unit(benchmark::kMillisecond);

void FlameTree(benchmark::State& state) {
  profile::Profile p;
  p.value_types = {{"samples", "count"}};
  std::mt19937_64 random(5);
  std::vector<profile::FrameId> frames;
  profile::Dictionary& d = p.dictionary;
  for (int i = 0; i < 5000; ++i) {
    frames.push_back(
        d.InternFrame({.address = ElfAddress(static_cast<uint64_t>(i)),
                       .lines = {{.function = d.InternFunction({.name = d.InternString("f" + std::to_string(i))})}}}));
  }
  std::vector<profile::StackId> stacks = {profile::kEmptyStack};
  while (stacks.size() < static_cast<size_t>(state.range(0))) {
    stacks.push_back(d.InternStack(stacks[random() % stacks.size()], frames[random() % frames.size()]));
    p.Add(0, stacks.back(), {1});
  }
  for (auto _ : state) benchmark::DoNotOptimize(query::BuildFlameTree(p, 0).size());
}
BENCHMARK(FlameTree)->Arg(10'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pyrometer

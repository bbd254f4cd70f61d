// Store and query on the generator's fleet (tests/support/fleet.h). Run: build/bench/tests/bench/store_bench
//
// name                       what one iteration is
// Append/pods                one batch of one node: `pods` pods × 1,000 raw samples, synced to disk
// MergeServiceHour/form      10 pods × 60 windows × 1,000 samples of one service, every stack spelt out with names:
// what
//                            exports get; fresh (before housekeeping), dense, one pod of it
// FlameServiceHour/form      the same as a flame graph: what the page gets
// SumFleetHour               stacks of all services' hour summed up, without names
// FlameFleetHour/boxes       flame graph of all services' hour, the largest `boxes` boxes; 0 = all
// FlameFleetHourOnePercent   the same, of boxes of 1 % and more: what a terminal gets
// FlameFleetHourByService    the same with a level of services
// TopFleetHour               its 100 most expensive functions
// NameFleetTries             views of all services' tries as functions, made anew by one thread
// MergeFleetHour             every stack of it spelt out with names
// TimeLineServiceHour        the service-hour as a time line (totals only)
// FunctionNinetyDays         what one function took in 90 days, by the hour
// LabelValues                all values of `pod`
// FlameTree/stacks           tree of a profile with that many distinct stacks
//
//   store_bench [--services N]            measures; default 50 services
//   store_bench --check [--services N]    measures nothing: compares every box and row of the fleet's and a service's
//                                         hour, by way of functions, with what all stacks spelt out say
//
// The fleet has --services × 10 pods × 60 windows × 1,000 raw samples; building it takes half a minute. Seeded: the
// same data each time. --benchmark_filter chooses.

#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/fleet.h"
#include "userspace/base/strings.h"
#include "userspace/query/engine.h"
#include "userspace/query/flame_merge.h"
#include "userspace/query/flame_tree.h"
#include "userspace/query/function_history.h"
#include "userspace/store/chunk.h"
#include "userspace/store/function_trie.h"
#include "userspace/store/store.h"

namespace pyrometer {
namespace {

int g_services = 50;

void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// A store in a folder that goes away, and the fleet that fills it.
class Filled {
 public:
  explicit Filled(testing::FleetOptions options) : fleet_(options), stream_(&fleet_) {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-bench-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    store::StoreOptions opening;
    // Tries of all services fit: how fast sums are, not how often they are loaded.
    opening.memory_budget_bytes = std::max<uint64_t>(1u << 30, static_cast<uint64_t>(options.services) * (24u << 20));
    opening.limits.retention_ns = 0;
    opening.now = [this] { return now_ns_; };
    auto opened = store::Store::Open(folder_, opening);
    Must(opened.status());
    store_ = *std::move(opened);
    for (int node = 0; node < options.nodes; ++node) memos_.push_back(store_->NewMemo());
  }
  ~Filled() {
    store_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  testing::FleetStream::Batch Window(int node, int window) { return stream_.Window(node, window); }
  void Append(int node, const testing::FleetStream::Batch& batch) {
    for (const profile::ProfilePoint& point : batch.profiles) now_ns_ = std::max(now_ns_, point.time_ns);
    Must(store_->Append(batch.view(), memos_[static_cast<size_t>(node)].get()).status());
  }
  void AppendAll(int windows) {
    for (int window = 0; window < windows; ++window) {
      for (int node = 0; node < fleet_.options().nodes; ++node) Append(node, Window(node, window));
    }
  }
  void KeepHouse() {
    now_ns_ += 3 * store::kHourNs;
    for (bool more = true; more;) {
      const auto result = store_->Housekeep(now_ns_, 60 * kNsPerSecond);
      Must(result.status());
      more = result->more;
    }
  }
  store::Store& store() { return *store_; }
  const testing::FleetOptions& options() const { return fleet_.options(); }

 private:
  const testing::Fleet fleet_;
  testing::FleetStream stream_;
  std::string folder_;
  int64_t now_ns_ = 0;
  std::unique_ptr<store::Store> store_;
  std::vector<std::unique_ptr<store::StreamMemo>> memos_;
};

void Append(benchmark::State& state) {
  const int pods = static_cast<int>(state.range(0));
  Filled filled({.services = 1, .pods = pods, .nodes = 1});
  int window = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const testing::FleetStream::Batch batch = filled.Window(0, window++);
    state.ResumeTiming();
    filled.Append(0, batch);
  }
  state.counters["samples/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * pods * 1000), benchmark::Counter::kIsRate);
}
BENCHMARK(Append)->Arg(1)->Arg(50)->Unit(benchmark::kMillisecond)->UseRealTime();

// The hour of the whole fleet, and one service's; made once each.
Filled& Hour(bool dense) {
  static Filled* const made[2] = {[] {
                                    auto* filled = new Filled({.services = 1, .nodes = 1});
                                    filled->AppendAll(60);
                                    std::atexit([] { delete &Hour(false); });
                                    return filled;
                                  }(),
                                  [] {
                                    auto* filled = new Filled({.services = g_services});
                                    filled->AppendAll(60);
                                    filled->KeepHouse();
                                    std::atexit([] { delete &Hour(true); });
                                    return filled;
                                  }()};
  return *made[dense ? 1 : 0];
}

store::TimeRange HourOf(const Filled& filled) {
  return {filled.options().start_ns, filled.options().start_ns + store::kHourNs};
}

// The first service, by a label that only it has.
query::Selector OneService(Filled& filled) {
  const std::string service = filled.store().LabelValues("service", {.type = "cpu"}).value().at(0);
  return query::ParseSelector(StrFormat("cpu{service=\"%s\"}", service)).value();
}

// What the page asks for.
constexpr int64_t kPageBoxes = 200'000;

enum Form { kFresh = 0, kDense = 1, kDenseOnePod = 2 };
void MergeServiceHour(benchmark::State& state) {
  Filled& filled = Hour(state.range(0) != kFresh);
  const query::Engine engine(&filled.store());
  query::Selector selector = OneService(filled);
  if (state.range(0) == kDenseOnePod) {
    const std::string pod = filled.store().LabelValues("pod", selector.Filter()).value().at(0);
    selector = query::ParseSelector(StrFormat("cpu{pod=\"%s\"}", pod)).value();
  }
  size_t stacks = 0;
  for (auto _ : state) stacks = engine.MergeProfile(selector, HourOf(filled)).value().sample_count();
  state.counters["stacks"] = static_cast<double>(stacks);
}
BENCHMARK(MergeServiceHour)->Arg(kFresh)->Arg(kDense)->Arg(kDenseOnePod)->Unit(benchmark::kMillisecond)->UseRealTime();

void FlameServiceHour(benchmark::State& state) {
  Filled& filled = Hour(state.range(0) != kFresh);
  const query::Engine engine(&filled.store());
  query::Selector selector = OneService(filled);
  if (state.range(0) == kDenseOnePod) {
    const std::string pod = filled.store().LabelValues("pod", selector.Filter()).value().at(0);
    selector = query::ParseSelector(StrFormat("cpu{pod=\"%s\"}", pod)).value();
  }
  size_t boxes = 0;
  for (auto _ : state) {
    boxes = query::MergeFlame(engine, selector, HourOf(filled), {.max_nodes = kPageBoxes}).value().nodes.size();
  }
  state.counters["boxes"] = static_cast<double>(boxes);
}
BENCHMARK(FlameServiceHour)->Arg(kFresh)->Arg(kDense)->Arg(kDenseOnePod)->Unit(benchmark::kMillisecond)->UseRealTime();

void FlameFleetHour(benchmark::State& state) {
  Filled& filled = Hour(true);
  const query::Engine engine(&filled.store());
  const query::Selector selector = query::ParseSelector("cpu").value();
  size_t boxes = 0;
  uint64_t charged = 0;
  for (auto _ : state) {
    store::ReadBudget budget;
    boxes = query::MergeFlame(engine.For("", &budget), selector, HourOf(filled),
                              {.max_nodes = static_cast<size_t>(state.range(0))})
                .value()
                .nodes.size();
    charged = budget.charged();
  }
  state.counters["boxes"] = static_cast<double>(boxes);
  state.counters["MB_charged"] = static_cast<double>(charged) / 1e6;
}
BENCHMARK(FlameFleetHour)->Arg(kPageBoxes)->Arg(20'000)->Arg(0)->Unit(benchmark::kMillisecond)->UseRealTime();

// What `pyrometer flame` asks for.
void FlameFleetHourOnePercent(benchmark::State& state) {
  Filled& filled = Hour(true);
  const query::Engine engine(&filled.store());
  const query::Selector selector = query::ParseSelector("cpu").value();
  size_t boxes = 0;
  for (auto _ : state) {
    boxes = query::MergeFlame(engine, selector, HourOf(filled), {.min_share = 0.01}).value().nodes.size();
  }
  state.counters["boxes"] = static_cast<double>(boxes);
}
BENCHMARK(FlameFleetHourOnePercent)->Unit(benchmark::kMillisecond)->UseRealTime();

void FlameFleetHourByService(benchmark::State& state) {
  Filled& filled = Hour(true);
  const query::Engine engine(&filled.store());
  const query::Selector selector = query::ParseSelector("cpu").value();
  for (auto _ : state) {
    const auto flame =
        query::MergeFlame(engine, selector, HourOf(filled), {.root_labels = {"service"}, .max_nodes = kPageBoxes});
    benchmark::DoNotOptimize(flame.value().nodes.size());
  }
}
BENCHMARK(FlameFleetHourByService)->Unit(benchmark::kMillisecond)->UseRealTime();

void TopFleetHour(benchmark::State& state) {
  Filled& filled = Hour(true);
  const query::Engine engine(&filled.store());
  const query::Selector selector = query::ParseSelector("cpu").value();
  size_t functions = 0;
  for (auto _ : state)
    functions = query::MergeTop(engine, selector, HourOf(filled), {.rows = 100}).value().tops[0].table.functions;
  state.counters["functions"] = static_cast<double>(functions);
}
BENCHMARK(TopFleetHour)->Unit(benchmark::kMillisecond)->UseRealTime();

void SumFleetHour(benchmark::State& state) {
  Filled& filled = Hour(true);
  const std::vector<store::Group> groups = filled.store().FindGroups({.type = "cpu"}).value();
  size_t stacks = 0;
  for (auto _ : state) {
    stacks = 0;
    for (const store::Group& group : groups) {
      store::StackSelection selection;
      selection.groups = {group.id};
      selection.groups_are_whole = true;
      selection.trie = group.trie;
      stacks += filled.store().SumStacks(selection, HourOf(filled)).value().sums.size();
    }
  }
  state.counters["stacks"] = static_cast<double>(stacks);
  state.counters["trie_nodes"] = static_cast<double>(filled.store().Stats().value().nodes);
}
BENCHMARK(SumFleetHour)->Unit(benchmark::kMillisecond)->UseRealTime();

void NameFleetTries(benchmark::State& state) {
  Filled& filled = Hour(true);
  const std::vector<store::Group> groups = filled.store().FindGroups({.type = "cpu"}).value();
  double functions = 0, bytes = 0;
  for (auto _ : state) {
    state.PauseTiming();
    filled.store().LetGoOfCaches();
    functions = bytes = 0;
    state.ResumeTiming();
    for (const store::Group& group : groups) {
      const auto view = filled.store().Functions(group.trie).value();
      functions += static_cast<double>(view->size());
      bytes += static_cast<double>(view->bytes());
    }
  }
  state.counters["trie_nodes"] = static_cast<double>(filled.store().Stats().value().nodes);
  state.counters["function_nodes"] = functions;
  state.counters["MB"] = bytes / 1e6;
}
BENCHMARK(NameFleetTries)->Unit(benchmark::kMillisecond)->UseRealTime();

void MergeFleetHour(benchmark::State& state) {
  Filled& filled = Hour(true);
  const query::Engine engine(&filled.store());
  const query::Selector selector = query::ParseSelector("cpu").value();
  size_t stacks = 0;
  for (auto _ : state) stacks = engine.MergeProfile(selector, HourOf(filled)).value().sample_count();
  state.counters["stacks"] = static_cast<double>(stacks);
}
BENCHMARK(MergeFleetHour)->Unit(benchmark::kMillisecond)->UseRealTime();

void TimeLineServiceHour(benchmark::State& state) {
  Filled& filled = Hour(true);
  const query::Engine engine(&filled.store());
  const query::Selector selector = OneService(filled);
  for (auto _ : state) {
    benchmark::DoNotOptimize(engine.TimeSeries(selector, HourOf(filled), 60 * kNsPerSecond, {"pod"}).value().size());
  }
}
BENCHMARK(TimeLineServiceHour)->Unit(benchmark::kMillisecond);

void FunctionNinetyDays(benchmark::State& state) {
  constexpr int kHours = 90 * 24;
  Filled filled({.services = 1, .pods = 1, .nodes = 1, .window_ns = static_cast<uint64_t>(store::kHourNs)});
  filled.AppendAll(kHours);
  filled.KeepHouse();
  const query::Engine engine(&filled.store());
  const query::Selector selector = OneService(filled);
  const store::TimeRange range{filled.options().start_ns, filled.options().start_ns + kHours * store::kHourNs};
  const profile::Profile profile = engine.MergeProfile(selector, range).value();
  const std::string name = query::TopFunctions(profile, 1).rows.at(0).name;
  size_t points = 0;
  for (auto _ : state) points = query::FunctionHistory(engine, selector, name, range).value().size();
  state.counters["points"] = static_cast<double>(points);
}
BENCHMARK(FunctionNinetyDays)->Unit(benchmark::kMillisecond);

void LabelValues(benchmark::State& state) {
  Filled& filled = Hour(true);
  size_t values = 0;
  for (auto _ : state) values = filled.store().LabelValues("pod", {.type = "cpu"}).value().size();
  state.counters["values"] = static_cast<double>(values);
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

// Box by box, number by number. False when anything differs.
bool CheckFlame(const char* what, Filled& filled, const query::Selector& selector, const std::vector<std::string>& by) {
  using Box = std::tuple<std::string, std::string, int>;  // name, module, kind
  struct Node {
    int64_t self = 0, total = 0;
    std::map<Box, size_t> children;
  };
  const query::Engine engine(&filled.store());
  const profile::Profile profile = engine.MergeProfile(selector, HourOf(filled), {.group_by = by}).value();
  const profile::FlameGraph flame = query::MergeFlame(engine, selector, HourOf(filled), {.root_labels = by}).value();
  bool equal = true;
  for (const size_t value : {size_t{0}, size_t{1}}) {
    const query::FlameTree tree = query::BuildFlameTree(profile, value, {.root_labels = by});
    equal = equal && tree.size() == flame.nodes.size();
    std::vector<Node> nodes(tree.size());
    for (size_t i = 0; i < tree.size(); ++i) {
      nodes[i].self = tree.self[i];
      nodes[i].total = tree.total[i];
      const bool label = tree.kind[i] == query::FlameNodeKind::kLabel;
      const Box box{tree.names[tree.name[i]], tree.modules[tree.module[i]],
                    static_cast<int>(label ? query::FlameNodeKind::kSynthetic : tree.kind[i])};
      if (i > 0) nodes[tree.parent[i]].children.emplace(box, i);
    }
    std::vector<int64_t> self(flame.nodes.size());
    for (const auto& row : flame.rows) self[row.node] += value == 0 ? row.samples : row.value;
    std::vector<size_t> there(flame.nodes.size());
    for (size_t i = 0; i < flame.nodes.size() && equal; ++i) {
      const auto& node = flame.nodes[i];
      const auto& function = flame.functions[node.function];
      if (i > 0) {
        const auto& children = nodes[there[node.parent]].children;
        const auto found = children.find({function.name, function.module, static_cast<int>(function.kind)});
        if (found == children.end()) {
          equal = false;
          break;
        }
        there[i] = found->second;
      }
      equal = nodes[there[i]].self == self[i] && nodes[there[i]].total == (value == 0 ? node.samples : node.value);
    }
  }
  const query::TopTable expected = query::TopFunctions(profile, 0);
  const query::TopTable top = query::MergeTop(engine, selector, HourOf(filled)).value().tops[0].table;
  bool rows_equal = expected.rows.size() == top.rows.size() && expected.total == top.total;
  for (size_t i = 0; i < top.rows.size() && rows_equal; ++i) {
    const query::FunctionCost &a = expected.rows[i], &b = top.rows[i];
    rows_equal = a.name == b.name && a.module == b.module && a.kind == b.kind && a.self == b.self && a.total == b.total;
  }
  std::printf("%-28s %zu stacks, %zu boxes %s, %zu functions %s\n", what, profile.sample_count(), flame.nodes.size(),
              equal ? "equal" : "DIFFERENT", top.rows.size(), rows_equal ? "equal" : "DIFFERENT");
  return equal && rows_equal;
}

int Check() {
  Filled& filled = Hour(true);
  Filled& fresh = Hour(false);
  const query::Selector all = query::ParseSelector("cpu").value();
  bool equal = CheckFlame("service-hour, fresh", fresh, all, {});
  equal = CheckFlame("service-hour, dense", filled, OneService(filled), {}) && equal;
  equal = CheckFlame("service-hour by pod", filled, OneService(filled), {"pod"}) && equal;
  equal = CheckFlame("fleet-hour", filled, all, {}) && equal;
  return equal ? 0 : 1;
}

}  // namespace
}  // namespace pyrometer

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  bool check = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--check") {
      check = true;
    } else if (argument == "--services" && i + 1 < argc) {
      pyrometer::g_services = std::max(1, std::atoi(argv[++i]));
    } else {
      std::fprintf(stderr, "unknown argument %s; see the head of tests/bench/store_bench.cc\n", argv[i]);
      return 2;
    }
  }
  if (check) return pyrometer::Check();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

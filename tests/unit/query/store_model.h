// A store too simple to be wrong: a list of everything appended; and random questions asked of it and of the engine.
// Used by the differential tests of both backends.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/unit/store/store_testing.h"
#include "userspace/base/strings.h"
#include "userspace/query/engine.h"
#include "userspace/query/flame_merge.h"
#include "userspace/query/flame_tree.h"

namespace pyrometer::query {

using store::kT0;
using store::kWindow;
using store::Value;

inline constexpr int64_t kStep = static_cast<int64_t>(kWindow);
inline constexpr int64_t kModelHour = 3600 * int64_t{1'000'000'000};

struct ModelSample {
  profile::SeriesKey key;
  int64_t time_ns;
  std::string stack;  // root first
  uint64_t count, value;
};
struct ModelHistogram {
  profile::SeriesKey key;
  int64_t time_ns;
  profile::Histogram histogram;
  std::map<int32_t, uint64_t> errors;
  struct Single {
    profile::Exemplar exemplar;
    std::string text;
  };
  std::vector<Single> exemplars;
};
struct ModelCounter {
  profile::SeriesKey key;
  int64_t time_ns;
  uint64_t value;
};

// All that an exemplar says, of the model or of an answer; stacks root first.
template <typename Exemplar>
std::string ExemplarText(const Exemplar& e, const std::string& stack, const std::string& waker_stack) {
  std::string text = StrFormat("%d %d in %s: %s %d %s, for %d%s", e.time_ns, e.value, stack, e.comm, e.tid, e.call,
                               e.weight, e.typical ? ", typical" : "");
  for (const profile::TimePart& part : e.split) text += StrFormat(" [%s %d]", part.cause, part.ns);
  const profile::Waker& w = e.waker;
  return text + StrFormat(" woken by %s %d from %s after %d in %s", w.comm, w.tid, w.cause, w.wait_ns, waker_stack);
}

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  profile::LabelSet RandomLabels() {
    std::vector<profile::Label> labels;
    const auto maybe = [&](const char* name, uint64_t values, uint64_t absent_in) {
      if (absent_in == 0 || random_() % absent_in != 0)
        labels.push_back({name, "v" + std::to_string(random_() % values)});
    };
    maybe("service", 4, 6);
    maybe("node", 3, 0);
    maybe("comm", 3, 3);
    if (random_() % 8 == 0) labels.push_back({"session", "s"});
    return profile::LabelSet::Make(labels).value();
  }

  std::string RandomStack(store::BatchBuilder* b, profile::StackId* id) {
    std::vector<std::string> names;
    std::string folded;
    // Names carry random new ones now and then, so that dictionaries and tries grow all the time.
    for (size_t depth = random_() % 9; depth > 0; --depth) {
      names.push_back(random_() % 20 == 0 ? "new" + std::to_string(random_() % 100'000)
                                          : "f" + std::to_string(random_() % 6));
      folded += (folded.empty() ? "" : ";") + names.back();
    }
    *id = b->Stack(names);
    return folded;
  }

  // Half of them bare, as of agents that know no more.
  std::string RandomExemplar(store::BatchBuilder* b, int64_t time_ns, profile::Exemplar* exemplar) {
    const auto name = [this](const char* prefix) { return prefix + std::to_string(random_() % 5); };
    *exemplar = {.time_ns = time_ns + static_cast<int64_t>(random_() % 1000),
                 .value = random_() % 1000,
                 .comm = name("comm"),
                 .tid = static_cast<uint32_t>(random_())};
    const std::string stack = RandomStack(b, &exemplar->stack);
    std::string waker_stack;
    if (random_() % 2 == 0) {
      if (random_() % 2 == 0) exemplar->call = name("read(3) = ");
      if (random_() % 2 == 0) exemplar->weight = 1 + random_() % (1 << 20);
      exemplar->typical = exemplar->weight != 0 && random_() % 2 == 0;
      for (size_t k = random_() % 4; k > 0; --k) exemplar->split.push_back({name("cause"), random_()});
      if (random_() % 2 == 0) {
        exemplar->waker = {.comm = random_() % 3 == 0 ? "" : name("comm"),
                           .tid = static_cast<uint32_t>(random_()),
                           .cause = name("cause"),
                           .wait_ns = 1 + random_() % 1000};
        waker_stack = RandomStack(b, &exemplar->waker.stack);
      }
    }
    return ExemplarText(*exemplar, stack, waker_stack);
  }

  // A batch, and what it would add.
  profile::Batch RandomBatch(const std::string& agent, uint64_t sequence) {
    store::BatchBuilder b(agent, sequence);
    pending_samples_.clear();
    pending_histograms_.clear();
    pending_counters_.clear();
    for (size_t i = 0, n = 1 + random_() % 6; i < n; ++i) {
      const profile::LabelSet labels = RandomLabels();
      const int64_t time_ns = RandomTime();
      switch (random_() % 4) {
        case 0: {
          const profile::SeriesKey key{"syscall_latency", labels};
          b.batch.series.push_back(key);
          profile::HistogramPoint point{
              .series = static_cast<uint32_t>(b.batch.series.size() - 1), .time_ns = time_ns, .duration_ns = kWindow};
          ModelHistogram model{key, time_ns, {}, {}, {}};
          for (size_t k = random_() % 20; k > 0; --k) point.histogram.Record(random_() >> (random_() % 40 + 20));
          for (size_t k = random_() % 3; k > 0; --k)
            point.errors[static_cast<int32_t>(random_() % 5)] = 1 + random_() % 9;
          for (size_t k = random_() % 3; k > 0; --k) {
            profile::Exemplar exemplar;
            const std::string text = RandomExemplar(&b, time_ns, &exemplar);
            model.exemplars.push_back({exemplar, text});
            point.exemplars.push_back(exemplar);
          }
          model.histogram = point.histogram;
          model.errors = point.errors;
          b.batch.histograms.push_back(point);
          pending_histograms_.push_back(model);
          break;
        }
        case 1: {
          const profile::SeriesKey key{"tcp_retransmits", labels};
          b.batch.series.push_back(key);
          const uint64_t value = random_() % 100;
          b.Counter(static_cast<uint32_t>(b.batch.series.size() - 1), time_ns, value);
          pending_counters_.push_back({key, time_ns, value});
          break;
        }
        default: {
          const profile::SeriesKey key{"cpu", labels};
          b.batch.series.push_back(key);
          profile::ProfilePoint point{.series = static_cast<uint32_t>(b.batch.series.size() - 1),
                                      .time_ns = time_ns,
                                      .duration_ns = kWindow,
                                      .period_ns = 10};
          const bool derived = random_() % 3 != 0;
          for (size_t k = random_() % 40; k > 0; --k) {
            profile::ProfilePoint::Sample sample;
            const std::string folded = RandomStack(&b, &sample.stack);
            sample.count = random_() % 5;
            sample.value = derived ? sample.count * 10 : random_() % 1000;
            point.samples.push_back(sample);
            pending_samples_.push_back({key, time_ns, folded, sample.count, sample.value});
          }
          b.batch.profiles.push_back(point);
        }
      }
    }
    return b.batch;
  }
  void Commit() {
    samples.insert(samples.end(), pending_samples_.begin(), pending_samples_.end());
    histograms.insert(histograms.end(), pending_histograms_.begin(), pending_histograms_.end());
    counters.insert(counters.end(), pending_counters_.begin(), pending_counters_.end());
  }
  uint64_t Random() { return random_(); }
  // Windows of the last minutes, of the hours before, and of days ago.
  int64_t RandomTime() {
    constexpr int64_t kHoursAgo[] = {0, 0, 0, 1, 1, 2, 5, 23, 24, 25, 47, 49};
    return kT0 - kStep * static_cast<int64_t>(random_() % 30) -
           kModelHour * kHoursAgo[random_() % std::size(kHoursAgo)];
  }
  // Some arbitrary, some that begin and end with hours or days, some without end.
  TimeRange RandomRange() {
    TimeRange range;
    if (random_() % 4 == 0) return range;
    range.from_ns = RandomTime() + static_cast<int64_t>(random_() % 3) - 1;
    const uint64_t scale = random_() % 3;
    range.to_ns = range.from_ns + (scale == 0   ? kStep * static_cast<int64_t>(random_() % 20)
                                   : scale == 1 ? kModelHour * static_cast<int64_t>(random_() % 30)
                                                : 24 * kModelHour * static_cast<int64_t>(random_() % 3));
    const int64_t unit = random_() % 2 == 0 ? kModelHour : 24 * kModelHour;
    if (random_() % 2 == 0) range.from_ns -= range.from_ns % unit;
    if (random_() % 2 == 0) range.to_ns -= range.to_ns % unit;
    range.to_ns = std::max(range.from_ns, range.to_ns);
    return range;
  }

  std::vector<ModelSample> samples;
  std::vector<ModelHistogram> histograms;
  std::vector<ModelCounter> counters;

 private:
  std::mt19937_64 random_;
  std::vector<ModelSample> pending_samples_;
  std::vector<ModelHistogram> pending_histograms_;
  std::vector<ModelCounter> pending_counters_;
};

inline std::string FoldedOf(const profile::Dictionary& d, profile::StackId stack) {
  std::string folded;
  const std::vector<profile::FrameId> frames = d.FramesLeafFirst(stack);
  for (size_t i = frames.size(); i > 0; --i) folded += (folded.empty() ? "" : ";") + d.FrameName(frames[i - 1]);
  return folded;
}

// Boxes by their way from the root: (self, total). What stands for hidden ones counts like any other.
using Boxes = std::map<std::string, std::pair<int64_t, int64_t>>;
inline std::string BoxName(std::string_view parent, std::string_view name, std::string_view module, int kind) {
  return std::string(parent) + "/" + std::string(name) + "@" + std::string(module) + "#" + std::to_string(kind);
}
inline Boxes BoxesOf(const FlameTree& tree) {
  Boxes boxes;
  std::vector<std::string> ways(tree.size());
  for (size_t i = 1; i < tree.size(); ++i) {
    const bool label = tree.kind[i] == FlameNodeKind::kLabel;
    ways[i] = BoxName(ways[tree.parent[i]], tree.names[tree.name[i]], tree.modules[tree.module[i]],
                      static_cast<int>(label ? FlameNodeKind::kSynthetic : tree.kind[i]));
  }
  for (size_t i = 0; i < tree.size(); ++i) {
    EXPECT_TRUE(boxes.emplace(ways[i], std::pair(tree.self[i], tree.total[i])).second) << ways[i];
  }
  return boxes;
}
inline Boxes BoxesOf(const profile::FlameGraph& flame, size_t value_index) {
  Boxes boxes;
  std::vector<std::string> ways(flame.nodes.size());
  for (size_t i = 0; i < flame.nodes.size(); ++i) {
    const profile::FlameGraph::Node& node = flame.nodes[i];
    const profile::FlameGraph::Function& function = flame.functions[node.function];
    if (i > 0) {
      EXPECT_LT(node.parent, i);
      ways[i] = BoxName(ways[node.parent], function.name, function.module, static_cast<int>(function.kind));
    }
    EXPECT_TRUE(boxes.emplace(ways[i], std::pair(0, value_index == 0 ? node.samples : node.value)).second) << ways[i];
  }
  for (const profile::FlameGraph::Row& row : flame.rows) {
    boxes[ways[row.node]].first += value_index == 0 ? row.samples : row.value;
  }
  return boxes;
}
inline std::vector<std::tuple<std::string, std::string, int, int64_t, int64_t>> RowsOf(const TopTable& table) {
  std::vector<std::tuple<std::string, std::string, int, int64_t, int64_t>> rows;
  for (const FunctionCost& row : table.rows) {
    rows.emplace_back(row.name, row.module, static_cast<int>(row.kind), row.self, row.total);
  }
  return rows;
}

using Sums = std::map<std::pair<std::string, std::string>, std::pair<uint64_t, uint64_t>>;

// A dozen random questions of every kind, and what a plain loop over everything says.
inline void Compare(Model* model, const Engine& engine) {
  const std::vector<std::string> conditions = {"",
                                               "service=\"v1\"",
                                               "service!=\"v1\"",
                                               "service=~\"v[12]\",comm=\"\"",
                                               "node!~\"v0|v2\"",
                                               "session=\"s\"",
                                               "session=~\".*\",comm=~\"v.\"",
                                               "absent=\"x\""};
  const int questions = store::TestsAreShort() ? 3 : 12;
  for (int question = 0; question < questions; ++question) {
    const std::string condition = conditions[model->Random() % conditions.size()];
    const TimeRange range = model->RandomRange();
    std::vector<std::string> by;
    for (const char* name : {"node", "comm"}) {
      if (model->Random() % 2 == 0) by.push_back(name);
    }
    constexpr uint64_t kSteps[] = {0, kWindow, 2 * kWindow, static_cast<uint64_t>(kModelHour)};
    const uint64_t step = kSteps[model->Random() % std::size(kSteps)];
    const Selector cpu = Value(ParseSelector("cpu{" + condition + "}"));
    const Selector latency = Value(ParseSelector("syscall_latency{" + condition + "}"));
    const Selector retransmits = Value(ParseSelector("tcp_retransmits{" + condition + "}"));
    SCOPED_TRACE(cpu.ToString());
    const auto start = [&](int64_t t) { return step == 0 ? range.from_ns : t - t % static_cast<int64_t>(step); };

    // Merge, totals, cpu over time.
    Sums expected, found;
    std::map<std::pair<std::string, int64_t>, std::pair<uint64_t, uint64_t>> expected_steps, found_steps;
    std::pair<uint64_t, uint64_t> expected_total, found_total;
    for (const ModelSample& s : model->samples) {
      if (!cpu.Matches(s.key.type, s.key.labels) || !range.Contains(s.time_ns)) continue;
      expected_total.first += s.count;
      expected_total.second += s.value;
      const std::string labels = s.key.labels.Only(by).ToString();
      auto& step_sum = expected_steps[{labels, start(s.time_ns)}];
      step_sum.first += s.count;
      step_sum.second += s.value;
      if (s.count == 0 && s.value == 0) continue;
      auto& sum = expected[{labels, s.stack}];
      sum.first += s.count;
      sum.second += s.value;
    }
    const profile::Profile merged = Value(engine.MergeProfile(cpu, range, {.group_by = by}));
    for (size_t i = 0; i < merged.sample_count(); ++i) {
      auto& sum = found[{merged.dictionary.label_set(merged.sample(i).labels).ToString(),
                         FoldedOf(merged.dictionary, merged.sample(i).stack)}];
      sum.first += static_cast<uint64_t>(merged.values(i)[0]);
      sum.second += static_cast<uint64_t>(merged.values(i)[1]);
    }
    ASSERT_EQ(found, expected);
    // The same by way of functions, as far as boxes and rows go.
    const profile::FlameGraph flame = Value(MergeFlame(engine, cpu, range, {.root_labels = by}));
    for (const size_t value : {size_t{0}, size_t{1}}) {
      ASSERT_EQ(BoxesOf(flame, value), BoxesOf(BuildFlameTree(merged, value, {.root_labels = by})));
    }
    for (const TopOrder order : {TopOrder::kSelf, TopOrder::kTotal}) {
      for (const size_t n : {size_t{0}, size_t{3}}) {
        const TopTable top = Value(MergeTop(engine, cpu, range, {.rows = n, .order = order})).tops.at(0).table;
        const TopTable expected_top = TopFunctions(merged, n, order);
        ASSERT_EQ(RowsOf(top), RowsOf(expected_top));
        ASSERT_EQ(top.total, expected_top.total);
        ASSERT_EQ(top.functions, expected_top.functions);
        const std::vector<profile::LabelledTop> tops =
            Value(MergeTop(engine, cpu, range, {.rows = n, .order = order, .by = by})).tops;
        const std::vector<profile::LabelledTop> expected_tops = TopByLabels(merged, n, order);
        if (by.empty()) continue;
        ASSERT_EQ(tops.size(), expected_tops.size());
        for (size_t i = 0; i < tops.size(); ++i) {
          ASSERT_EQ(tops[i].labels, expected_tops[i].labels);
          ASSERT_EQ(RowsOf(tops[i].table), RowsOf(expected_tops[i].table));
        }
      }
    }
    const SumTotals totals = Value(engine.Totals(cpu, range));
    found_total = {totals.samples, totals.value};
    ASSERT_EQ(found_total, expected_total);
    for (const TimeSeriesRow& row : Value(engine.TimeSeries(cpu, range, step, by))) {
      for (const SeriesPoint& point : row.points) {
        if (point.count != 0 || point.value != 0)
          found_steps[{row.labels.ToString(), point.time_ns}] = {point.count, point.value};
      }
    }
    std::erase_if(expected_steps, [](const auto& e) { return e.second == std::pair<uint64_t, uint64_t>(); });
    ASSERT_EQ(found_steps, expected_steps);

    // Histograms, errors, exemplars.
    std::map<std::string, profile::Histogram> expected_histograms, found_histograms;
    std::map<std::string, std::map<int32_t, uint64_t>> expected_errors, found_errors;
    std::multiset<std::string> expected_exemplars, found_exemplars;
    const auto kind = model->Random() % 2 == 0 ? ExemplarKind::kSlow : ExemplarKind::kDrawn;
    const uint64_t min = model->Random() % 500, max = min + model->Random() % 500;
    for (const ModelHistogram& h : model->histograms) {
      if (!latency.Matches(h.key.type, h.key.labels) || !range.Contains(h.time_ns)) continue;
      expected_histograms[h.key.labels.Only(by).ToString()].Merge(h.histogram);
      auto& errors = expected_errors[h.key.labels.Only(by).ToString()];
      for (const auto& [error_number, count] : h.errors) errors[error_number] += count;
      for (const auto& [exemplar, text] : h.exemplars) {
        const bool wanted = kind == ExemplarKind::kSlow ? !exemplar.typical : exemplar.weight != 0;
        if (wanted && exemplar.value >= min && exemplar.value <= max) expected_exemplars.insert(text);
      }
    }
    for (const HistogramRow& row : Value(engine.Histograms(latency, range, by))) {
      found_histograms[row.labels.ToString()] = row.histogram;
      found_errors[row.labels.ToString()] = row.errors;
    }
    ASSERT_EQ(found_histograms, expected_histograms);
    ASSERT_EQ(found_errors, expected_errors);
    std::map<std::string, profile::Histogram> stepped;
    for (const HistogramSeriesRow& row : Value(engine.HistogramSeries(latency, range, step, by))) {
      for (const HistogramStep& one : row.steps) stepped[row.labels.ToString()].Merge(one.histogram);
    }
    ASSERT_EQ(stepped, expected_histograms);
    const ExemplarResult exemplars = Value(engine.ExemplarProfile(latency, range, min, max, kind));
    const profile::Dictionary& names = exemplars.profile.dictionary;
    for (const ExemplarRow& row : exemplars.exemplars) {
      found_exemplars.insert(ExemplarText(row, FoldedOf(names, row.stack), FoldedOf(names, row.waker.stack)));
    }
    ASSERT_EQ(found_exemplars, expected_exemplars);

    // Counters.
    uint64_t expected_count = 0;
    for (const ModelCounter& c : model->counters) {
      if (retransmits.Matches(c.key.type, c.key.labels) && range.Contains(c.time_ns)) expected_count += c.value;
    }
    ASSERT_EQ(Value(engine.Totals(retransmits, range)).value, expected_count);
  }
}

}  // namespace pyrometer::query

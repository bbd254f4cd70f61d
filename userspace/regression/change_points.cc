#include "userspace/regression/change_points.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <span>

#include "userspace/base/check.h"
#include "userspace/regression/random.h"

namespace pyrometer::regression {
namespace {

// As in MaxTTest: points that are all equal have no variance.
constexpr double kLeastVariance = 1e-18;
// Equal sums in another order differ in the last digits.
constexpr double kTie = 1e-9;

// What the noise between neighbouring points is worth beside a window's own, in degrees of freedom; as in analysis.cc.
constexpr double kPriorDegrees = 4;
// The shortest window: five points on either side.
constexpr size_t kLeastWindow = 10;

struct Window {
  size_t begin = 0;
  size_t end = 0;
};

struct Cut {
  size_t at = 0;
  double t_squared = 0;
  double difference = 0;
  Window window;
};

// All of n points, then windows of half, a quarter… of them, each overlapping the next by half: a level that rises and
// falls again hardly shows where everything before it is held against everything after it.
std::vector<Window> Windows(size_t n) {
  std::vector<Window> windows = {{0, n}};
  for (size_t length = n / 2; length >= kLeastWindow; length /= 2) {
    for (size_t begin = 0; begin + length < n; begin += std::max<size_t>(1, length / 2)) {
      windows.push_back({begin, begin + length});
    }
    windows.push_back({n - length, n});
  }
  return windows;
}

double MedianOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

// Of the noise, by the differences of neighbours: changes of level and single outliers hardly touch it.
double NeighbourVariance(std::span<const double> values) {
  std::vector<double> steps;
  for (size_t i = 1; i < values.size(); ++i) steps.push_back(std::abs(values[i] - values[i - 1]));
  if (steps.empty()) return 0;
  const double deviation = 1.4826 * MedianOf(std::move(steps)) / std::sqrt(2.0);
  return deviation * deviation;
}

// The best cut of `values` within any of the windows.
Cut Best(std::span<const double> values, const std::vector<Window>& windows, size_t least) {
  const double prior = kPriorDegrees * NeighbourVariance(values);
  Cut best;
  for (const Window& window : windows) {
    const size_t n = window.end - window.begin;
    if (n < 2 * least) continue;
    const auto count = static_cast<double>(n);
    const std::span<const double> part = values.subspan(window.begin, n);
    const double mean = std::accumulate(part.begin(), part.end(), 0.0) / count;
    double squares = 0, left = 0;
    for (const double value : part) squares += (value - mean) * (value - mean);
    for (size_t i = 0; i + least < n; ++i) {
      left += part[i] - mean;
      if (i + 1 < least) continue;
      const double before = static_cast<double>(i + 1), after = count - before;
      // The centred sum of all is 0.
      const double difference = -left / after - left / before;
      const double between = difference * difference * before * after / count;
      const double within = std::max(squares - between + prior, kLeastVariance * count);
      const double t_squared = between * (count - 2 + kPriorDegrees) / within;
      if (t_squared > best.t_squared) best = {window.begin + i + 1, t_squared, difference, window};
    }
  }
  return best;
}

class Search {
 public:
  Search(const RunTable& table, const ChangePointOptions& options) : table_(table), options_(options) {}

  std::vector<ChangePoint> Run() {
    for (size_t column = 0; column < table_.columns(); ++column) Look(column, 0, table_.runs());
    std::sort(found_.begin(), found_.end(), [](const ChangePoint& a, const ChangePoint& b) {
      return std::pair(a.column, a.at) < std::pair(b.column, b.at);
    });
    // The levels beside a change reach to its neighbours.
    for (size_t i = 0; i < found_.size(); ++i) {
      ChangePoint& one = found_[i];
      const bool first = i == 0 || found_[i - 1].column != one.column;
      const bool last = i + 1 == found_.size() || found_[i + 1].column != one.column;
      one.begin = first ? 0 : found_[i - 1].at;
      one.end = last ? table_.runs() : found_[i + 1].at;
      const auto mean = [&](size_t begin, size_t end) {
        const std::vector<double> values = Values(one.column, begin, end);
        return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
      };
      one.difference = mean(one.at, one.end) - mean(one.begin, one.at);
    }
    return std::move(found_);
  }

 private:
  std::vector<double> Values(size_t column, size_t begin, size_t end) const {
    std::vector<double> values;
    for (size_t i = begin; i < end; ++i) values.push_back(table_.value(i, column));
    return values;
  }

  // The largest statistics over all columns, one per drawn order of the points, descending.
  const std::vector<double>& Maxima(size_t begin, size_t end) {
    const auto [entry, added] = maxima_.try_emplace({begin, end});
    if (!added) return entry->second;
    std::vector<size_t> order(end - begin);
    std::iota(order.begin(), order.end(), size_t{0});
    const std::vector<Window> windows = Windows(end - begin);
    std::vector<double> values(end - begin);
    Random random(options_.seed ^ (begin << 32 | end));
    for (size_t draw = 0; draw < options_.draws; ++draw) {
      if (draw > 0) random.Shuffle(std::span(order));  // the true order is one of them
      double largest = 0;
      for (size_t c = 0; c < table_.columns(); ++c) {
        for (size_t i = 0; i < order.size(); ++i) values[i] = table_.value(begin + order[i], c);
        largest = std::max(largest, Best(values, windows, options_.least_points).t_squared);
      }
      entry->second.push_back(largest);
    }
    std::sort(entry->second.rbegin(), entry->second.rend());
    return entry->second;
  }

  double Median(size_t column, size_t begin, size_t end) const { return MedianOf(Values(column, begin, end)); }

  // A short part has a median easily: nearly all of its points must lie on their side of the middle, of three all.
  bool IsUnanimous(size_t column, size_t begin, size_t end, double middle, bool below) const {
    constexpr size_t kShort = 8;
    if (end - begin >= kShort) return true;
    size_t astray = 0;
    for (size_t i = begin; i < end; ++i) astray += (table_.value(i, column) < middle) == below ? 0 : 1;
    return astray <= (end - begin - 1) / 4;
  }

  void Look(size_t column, size_t begin, size_t end) {
    if (end - begin < 2 * options_.least_points) return;
    const Cut cut = Best(Values(column, begin, end), Windows(end - begin), options_.least_points);
    if (cut.at == 0) return;
    const std::vector<double>& maxima = Maxima(begin, end);
    const double seen = cut.t_squared - kTie * (1 + cut.t_squared);
    const auto as_large = std::partition_point(maxima.begin(), maxima.end(), [&](double m) { return m >= seen; });
    const double p = static_cast<double>(as_large - maxima.begin()) / static_cast<double>(maxima.size());
    if (p > options_.level) return;
    const size_t at = begin + cut.at;
    const size_t from = begin + cut.window.begin, to = begin + cut.window.end;
    const double before = Median(column, from, at), after = Median(column, at, to), moved = after - before;
    if (moved * cut.difference <= 0 || std::abs(moved) < std::abs(cut.difference) / 2) return;
    const double middle = (before + after) / 2;
    if (!IsUnanimous(column, from, at, middle, before < after) ||
        !IsUnanimous(column, at, to, middle, after < before)) {
      return;
    }
    found_.push_back({.column = column, .at = at, .p = p});
    Look(column, begin, at);
    Look(column, at, end);
  }

  const RunTable& table_;
  const ChangePointOptions& options_;
  std::map<std::pair<size_t, size_t>, std::vector<double>> maxima_;
  std::vector<ChangePoint> found_;
};

}  // namespace

std::vector<ChangePoint> FindChangePoints(const RunTable& table, const ChangePointOptions& options) {
  CHECK(options.least_points > 0 && options.draws > 0);
  return Search(table, options).Run();
}

}  // namespace pyrometer::regression

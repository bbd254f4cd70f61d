#include "userspace/regression/history.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "userspace/base/check.h"
#include "userspace/regression/analysis.h"
#include "userspace/regression/change_points.h"

namespace pyrometer::regression {
namespace {

// As for a check: of a gain that may remain when moved work is added up.
constexpr double kMovedRemainder = 0.25;

struct Column {
  FunctionIndex function = 0;
  std::vector<double> mean_count;  // per version, after size factors
};

double MeanOf(const std::vector<double>& values, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += values[i];
  return sum / static_cast<double>(end - begin);
}

}  // namespace

bool History::HasStandingRegression() const {
  return std::any_of(changes.begin(), changes.end(), [](const HistoryChange& change) {
    return change.standing && change.ratio > 1 && change.moved_from.empty();
  });
}

History FindHistory(const RunSet& runs, const std::vector<uint32_t>& version_of_run, std::vector<std::string> versions,
                    const HistoryOptions& options) {
  CHECK(version_of_run.size() == runs.runs().size());
  const CountTable counts = CountFunctions(runs);
  const std::vector<double> log_size = LogSizeFactors(counts);
  const size_t points = versions.size();
  std::vector<double> runs_of(points), whole(points);
  bool cpu_known = true;
  for (size_t r = 0; r < counts.runs(); ++r) {
    ++runs_of[version_of_run[r]];
    whole[version_of_run[r]] += counts.total(r) / std::exp(log_size[r]);
    cpu_known = cpu_known && counts.cpu_ns(r) > 0;
  }
  for (size_t v = 0; v < points; ++v) {
    CHECK(runs_of[v] > 0);
    whole[v] /= runs_of[v];
  }

  std::vector<Column> columns;
  for (FunctionIndex f = 1; f < counts.functions(); ++f) {
    Column column{.function = f, .mean_count = std::vector<double>(points)};
    double total = 0;
    for (size_t r = 0; r < counts.runs(); ++r) {
      total += counts.exclusive(r, f);
      column.mean_count[version_of_run[r]] +=
          counts.exclusive(r, f) / std::exp(log_size[r]) / runs_of[version_of_run[r]];
    }
    if (total / static_cast<double>(counts.runs()) >= kLeastMeanCount) columns.push_back(std::move(column));
  }
  if (columns.size() > kMaxHistoryColumns) {
    const auto size = [](const Column& column) { return MeanOf(column.mean_count, 0, column.mean_count.size()); };
    std::stable_sort(columns.begin(), columns.end(),
                     [&](const Column& a, const Column& b) { return size(a) > size(b); });
    columns.resize(kMaxHistoryColumns);
  }
  if (cpu_known) {
    Column total{.function = 0, .mean_count = std::vector<double>(points)};
    for (size_t r = 0; r < counts.runs(); ++r) {
      total.mean_count[version_of_run[r]] += counts.cpu_ns(r) / runs_of[version_of_run[r]];
    }
    columns.push_back(std::move(total));
  }

  History history{.versions = std::move(versions), .columns = columns.size(), .changes = {}};
  if (points < 2 || columns.empty()) return history;
  RunTable table(points, columns.size());
  for (size_t c = 0; c < columns.size(); ++c) {
    for (size_t v = 0; v < points; ++v) table.value(v, c) = std::log(columns[c].mean_count[v] + 0.5);
  }
  for (const ChangePoint& found :
       FindChangePoints(table, {.level = options.level, .draws = options.draws, .seed = options.seed})) {
    const Column& column = columns[found.column];
    HistoryChange change{.function = column.function, .version = found.at, .p = found.p};
    const double before = MeanOf(column.mean_count, found.begin, found.at),
                 after = MeanOf(column.mean_count, found.at, found.end);
    const double total = column.function == 0 ? before : MeanOf(whole, found.begin, found.at);
    change.ratio = before > 0 ? after / before : std::numeric_limits<double>::infinity();
    change.share_before = before / total;
    change.share_after = after / total;
    const double least = column.function == 0 ? options.min_total_effect : options.min_effect;
    if (std::abs(change.share_after - change.share_before) >= least) history.changes.push_back(std::move(change));
  }
  for (HistoryChange& change : history.changes) {
    change.standing = std::none_of(history.changes.begin(), history.changes.end(), [&](const HistoryChange& other) {
      return other.function == change.function && other.version > change.version;
    });
    if (change.function == 0 || change.ratio < 1) continue;
    const double gained = change.share_after - change.share_before;
    for (const HistoryChange& other : history.changes) {
      if (other.function == 0 || other.version != change.version || other.ratio >= 1) continue;
      const double lost = other.share_before - other.share_after;
      if (std::abs(gained - lost) <= std::max(options.min_effect, kMovedRemainder * gained)) {
        change.moved_from.push_back(other.function);
        break;
      }
    }
  }
  std::stable_sort(history.changes.begin(), history.changes.end(), [](const HistoryChange& a, const HistoryChange& b) {
    const double one = std::abs(a.share_after - a.share_before), other = std::abs(b.share_after - b.share_before);
    return a.version != b.version ? a.version > b.version : one > other;
  });
  return history;
}

}  // namespace pyrometer::regression

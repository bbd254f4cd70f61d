#include "userspace/regression/max_t_test.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "userspace/base/check.h"
#include "userspace/regression/random.h"

namespace pyrometer::regression {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A column whose runs are all equal has no variance; this keeps its t finite (a relative difference of 1e-9 is
// nothing).
constexpr double kLeastVariance = 1e-18;
// Draws handled together, so that a column's values are loaded once for all of them.
constexpr size_t kTile = 8;

double Choose(double n, double k) {
  double result = 1;
  for (double i = 1; i <= k; ++i) result = result * (n - k + i) / i;
  return std::round(result);
}

struct BlockRange {
  size_t begin = 0;
  size_t end = 0;
};

std::vector<BlockRange> Ranges(const Design& design) {
  std::vector<BlockRange> ranges(design.blocks());
  for (size_t run = 0; run < design.runs(); ++run) {
    BlockRange& range = ranges[design.block[run]];
    if (range.end == 0) range.begin = run;
    range.end = run + 1;
  }
  return ranges;
}

std::vector<double> Centred(const RunTable& table, const Design& design) {
  const size_t columns = table.columns();
  std::vector<double> z(table.runs() * columns);
  std::vector<double> mean(columns);
  for (const BlockRange& range : Ranges(design)) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (size_t run = range.begin; run < range.end; ++run) {
      for (size_t c = 0; c < columns; ++c) mean[c] += table.value(run, c);
    }
    for (double& m : mean) m /= static_cast<double>(range.end - range.begin);
    for (size_t run = range.begin; run < range.end; ++run) {
      for (size_t c = 0; c < columns; ++c) z[run * columns + c] = table.value(run, c) - mean[c];
    }
  }
  return z;
}

// Walks through arrangements of the labels: all of them where that is asked for, else random ones.
class Arranger {
 public:
  Arranger(const Design& design, uint64_t seed) : sides_(design.side), ranges_(Ranges(design)), random_(seed) {}

  void Shuffle() {
    for (const BlockRange& range : ranges_) {
      random_.Shuffle(std::span(sides_).subspan(range.begin, range.end - range.begin));
    }
  }
  // The first arrangement in order; NextInOrder gives the others, false after the last.
  void StartInOrder() {
    for (const BlockRange& range : ranges_) std::sort(Begin(range), End(range));
  }
  bool NextInOrder() {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [this](const BlockRange& range) { return std::next_permutation(Begin(range), End(range)); });
  }
  const std::vector<Side>& sides() const { return sides_; }

 private:
  std::vector<Side>::iterator Begin(const BlockRange& range) {
    return sides_.begin() + static_cast<std::ptrdiff_t>(range.begin);
  }
  std::vector<Side>::iterator End(const BlockRange& range) {
    return sides_.begin() + static_cast<std::ptrdiff_t>(range.end);
  }

  std::vector<Side> sides_;
  std::vector<BlockRange> ranges_;
  Random random_;
};

// The statistic of all columns for any labelling, as t·|t| = degrees · d·|d| / (spread − d²), where spread holds what
// does not depend on the labels; draws are compared by it, without a root.
class Statistic {
 public:
  Statistic(const RunTable& table, const Design& design) : columns_(table.columns()), z_(Centred(table, design)) {
    const auto baseline = static_cast<double>(design.count(Side::kBaseline));
    const auto candidate = static_cast<double>(design.count(Side::kCandidate));
    runs_ = design.runs();
    weight_[0] = -1 / baseline;
    weight_[1] = 1 / candidate;
    scale_ = baseline * candidate / (baseline + candidate);
    own_degrees_ = static_cast<double>(runs_) - static_cast<double>(design.blocks()) - 1;
    spread_.resize(columns_);
    degrees_.resize(columns_);
    for (size_t run = 0; run < runs_; ++run) {
      for (size_t c = 0; c < columns_; ++c) spread_[c] += Square(z_[run * columns_ + c]);
    }
    for (size_t c = 0; c < columns_; ++c) {
      const RunTable::Prior& prior = table.prior(c);
      degrees_[c] = std::max(1.0, prior.degrees + std::max(0.0, own_degrees_));
      spread_[c] = (prior.degrees * prior.variance + spread_[c] + kLeastVariance) / scale_;
    }
  }

  // difference[c] for up to kTile labellings at once, `tile` × columns.
  void Differences(std::span<const std::vector<Side>> labellings, std::vector<double>* differences) const {
    differences->assign(labellings.size() * columns_, 0.0);
    for (size_t run = 0; run < runs_; ++run) {
      const double* z = &z_[run * columns_];
      for (size_t i = 0; i < labellings.size(); ++i) {
        const double weight = weight_[static_cast<size_t>(labellings[i][run])];
        double* out = differences->data() + i * columns_;
        for (size_t c = 0; c < columns_; ++c) out[c] += weight * z[c];
      }
    }
  }
  // Into `square`, which may be the differences themselves.
  void SignedSquares(const double* difference, double* square) const {
    for (size_t c = 0; c < columns_; ++c) {
      const double d = difference[c];
      square[c] = degrees_[c] * d * std::abs(d) / std::max(spread_[c] - d * d, kLeastVariance);
    }
  }
  double StandardError(size_t c, double difference) const {
    return std::sqrt(std::max(spread_[c] - Square(difference), kLeastVariance) / degrees_[c]);
  }
  double degrees(size_t c) const { return degrees_[c]; }
  size_t columns() const { return columns_; }

 private:
  static double Square(double x) { return x * x; }

  size_t columns_;
  size_t runs_ = 0;
  std::vector<double> z_;  // centred by block, run-major
  double weight_[2];
  double scale_ = 1;  // d² × scale is the sum of squares that the difference explains
  double own_degrees_ = 0;
  std::vector<double> spread_;
  std::vector<double> degrees_;
};

// Counts, for one direction, how often the largest statistic among a column and all less significant ones
// reaches the column's own: the step-down p-values.
class StepDown {
 public:
  // `statistic`: observed per column, larger is more significant.
  explicit StepDown(std::vector<double> statistic) : observed_(std::move(statistic)), counts_(observed_.size()) {
    order_.resize(observed_.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [this](size_t a, size_t b) { return observed_[a] < observed_[b]; });
  }

  // Returns the maximum over all columns. `sign` -1 turns the direction round.
  double Count(const double* drawn, double sign) {
    double largest = -kInfinity;
    for (size_t i = 0; i < order_.size(); ++i) {
      const size_t c = order_[i];
      largest = std::max(largest, sign * drawn[c]);
      counts_[i] += largest >= observed_[c] - kTie * (1 + std::abs(observed_[c])) ? 1 : 0;
    }
    return largest;
  }

  std::vector<double> PValues(size_t draws) const {
    std::vector<double> p(observed_.size());
    double highest = 0;
    for (size_t i = order_.size(); i-- > 0;) {
      highest = std::max(highest, static_cast<double>(counts_[i]) / static_cast<double>(draws));
      p[order_[i]] = std::min(1.0, highest);
    }
    return p;
  }

 private:
  // Equal arrangements summed in another order differ in the last digits; they count as equal.
  static constexpr double kTie = 1e-9;

  const std::vector<double> observed_;
  std::vector<size_t> order_;  // least significant first
  std::vector<uint64_t> counts_;
};

}  // namespace

size_t Design::count(Side which) const { return static_cast<size_t>(std::count(side.begin(), side.end(), which)); }

double Design::Arrangements() const {
  double result = 1;
  for (const BlockRange& range : Ranges(*this)) {
    const auto candidates = std::count(side.begin() + static_cast<std::ptrdiff_t>(range.begin),
                                       side.begin() + static_cast<std::ptrdiff_t>(range.end), Side::kCandidate);
    result *= Choose(static_cast<double>(range.end - range.begin), static_cast<double>(candidates));
  }
  return result;
}

bool Design::IsValid() const {
  if (side.size() != block.size()) return false;
  for (size_t run = 0; run < runs(); ++run) {
    const uint32_t before = run == 0 ? 0 : block[run - 1];
    if (block[run] < before || block[run] > before + 1 || (run == 0 && block[run] != 0)) return false;
  }
  if (blocks() <= 1) return true;
  for (const BlockRange& range : Ranges(*this)) {
    size_t candidates = 0;
    for (size_t run = range.begin; run < range.end; ++run) candidates += side[run] == Side::kCandidate ? 1 : 0;
    if (2 * candidates != range.end - range.begin) return false;
  }
  return true;
}

std::vector<double> WithinBlockVariance(const RunTable& table, const Design& design) {
  const std::vector<double> z = Centred(table, design);
  const double degrees = std::max(1.0, static_cast<double>(design.runs()) - static_cast<double>(design.blocks()));
  std::vector<double> variance(table.columns());
  for (size_t i = 0; i < z.size(); ++i) variance[i % table.columns()] += z[i] * z[i] / degrees;
  return variance;
}

MaxTResult MaxTTest(const RunTable& table, const Design& design, const MaxTOptions& options) {
  CHECK(table.runs() == design.runs() && design.IsValid());
  CHECK(design.count(Side::kBaseline) > 0 && design.count(Side::kCandidate) > 0 && options.draws > 0);
  const Statistic statistic(table, design);
  const size_t columns = statistic.columns();

  MaxTResult result;
  result.columns.resize(columns);
  std::vector<double> difference, observed(columns);
  statistic.Differences(std::span(&design.side, 1), &difference);
  statistic.SignedSquares(difference.data(), observed.data());
  for (size_t c = 0; c < columns; ++c) {
    MaxTColumn& column = result.columns[c];
    column.difference = difference[c];
    column.standard_error = statistic.StandardError(c, difference[c]);
    column.t = column.difference / column.standard_error;
    column.degrees = statistic.degrees(c);
  }

  StepDown slower(observed);
  std::vector<double> negated(columns);
  std::transform(observed.begin(), observed.end(), negated.begin(), std::negate<>());
  StepDown faster(negated);
  std::vector<double> maxima;  // as t, one per draw
  std::vector<double> drawn_difference, drawn(columns);
  std::vector<std::vector<Side>> tile;
  const auto flush = [&] {
    statistic.Differences(tile, &drawn_difference);
    for (size_t i = 0; i < tile.size(); ++i) {
      statistic.SignedSquares(drawn_difference.data() + i * columns, drawn.data());
      const double largest = slower.Count(drawn.data(), 1);
      faster.Count(drawn.data(), -1);
      maxima.push_back(std::copysign(std::sqrt(std::abs(largest)), largest));
    }
    tile.clear();
  };
  const auto add = [&](const std::vector<Side>& sides) {
    tile.push_back(sides);
    if (tile.size() == kTile) flush();
  };

  result.arrangements = design.Arrangements();
  Arranger arranger(design, options.seed);
  if (result.arrangements <= static_cast<double>(options.draws)) {
    result.exact = true;
    arranger.StartInOrder();
    do {
      add(arranger.sides());
    } while (arranger.NextInOrder());
  } else {
    add(design.side);
    for (size_t i = 1; i < options.draws; ++i) {
      arranger.Shuffle();
      add(arranger.sides());
    }
  }
  flush();
  result.draws = maxima.size();

  const std::vector<double> p_slower = slower.PValues(result.draws), p_faster = faster.PValues(result.draws);
  for (size_t c = 0; c < columns; ++c) {
    result.columns[c].p_slower = p_slower[c];
    result.columns[c].p_faster = p_faster[c];
  }
  std::sort(maxima.begin(), maxima.end(), std::greater<>());
  for (const double level : options.levels) {
    // p = (number of draws >= t) / draws <= level: at most floor(level × draws) of them.
    const auto allowed = static_cast<size_t>(level * static_cast<double>(result.draws) + 1e-9);
    result.critical.push_back(allowed == 0 ? kInfinity : maxima[allowed - 1]);
  }
  return result;
}

}  // namespace pyrometer::regression

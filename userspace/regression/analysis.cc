#include "userspace/regression/analysis.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "userspace/base/check.h"

namespace pyrometer::regression {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// What the prior is worth beside a column's own runs. 4 was best in simulation among 2, 4, 8: more loses power where
// functions differ in their noise, less leaves t with heavy tails at 8 runs.
constexpr double kPriorDegrees = 4;
// Huber's constant: 95 % efficient under normal noise.
constexpr double kHuber = 1.345;
// Variation between runs beyond counting noise that size factors start from; it keeps one large function from being all
// the weight.
constexpr double kStartingPhiSquared = 0.0004;
// Samples per run of a reference that small functions are pooled into: many, so that a large function is one voice
// among them.
constexpr double kPooledCount = 20;
// Samples on one side, all runs together, below which a ratio means nothing.
constexpr double kLeastForRatio = 8;

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// What is common to all runs is judged by these: every function of some size, and the small ones pooled, for the long
// tail is often most of a program.
struct Reference {
  std::vector<double> log_count;  // per run
  double mean_count = 0;
};

std::vector<Reference> References(const CountTable& counts) {
  const size_t runs = counts.runs();
  std::vector<Reference> references;
  const auto refer = [&](const std::vector<double>& row) {
    Reference reference{.log_count = {}, .mean_count = Mean(row)};
    for (const double count : row) reference.log_count.push_back(std::log(count + 0.5));
    references.push_back(std::move(reference));
  };
  std::vector<double> row(runs), pool(runs);
  for (size_t f = 1; f < counts.functions(); ++f) {
    size_t present = 0;
    for (size_t r = 0; r < runs; ++r) {
      row[r] = counts.exclusive(r, f);
      present += row[r] > 0 ? 1 : 0;
    }
    if (Mean(row) >= kPooledCount) {
      // One that is absent from one side says nothing about the machine.
      if (4 * present >= 3 * runs) refer(row);
      continue;
    }
    for (size_t r = 0; r < runs; ++r) pool[r] += row[r];
    if (Mean(pool) < kPooledCount) continue;
    refer(pool);
    std::fill(pool.begin(), pool.end(), 0.0);
  }
  return references;
}

// The value that a quarter of the weight is below. No one's weight counts for more than a quarter of all.
double LowerQuartile(std::vector<std::pair<double, double>> values_and_weights) {
  double all = 0, left = 0;
  for (const auto& [value, weight] : values_and_weights) all += weight;
  for (auto& [value, weight] : values_and_weights) {
    weight = std::min(weight, all / 4);
    left += weight / 4;
  }
  std::sort(values_and_weights.begin(), values_and_weights.end());
  for (const auto& [value, weight] : values_and_weights) {
    left -= weight;
    if (left <= 0) return value;
  }
  return 0;
}

// Labels unseen. Large functions, whose counting noise is small, tell φ²: the quieter of them, since a renamed or a
// wild one says nothing of the others. What is left is counting noise.
NoiseModel FitNoise(const CountTable& counts, const std::vector<double>& log_size, const Design& design) {
  const std::vector<Reference> references = References(counts);
  RunTable table(counts.runs(), references.size());
  for (size_t i = 0; i < references.size(); ++i) {
    for (size_t r = 0; r < counts.runs(); ++r) table.value(r, i) = references[i].log_count[r] - log_size[r];
  }
  const std::vector<double> variance = WithinBlockVariance(table, design);
  NoiseModel noise;
  for (int round = 0; round < 2; ++round) {
    std::vector<std::pair<double, double>> beyond;
    std::vector<double> ratio;
    for (size_t i = 0; i < references.size(); ++i) {
      const double counting = noise.counting / references[i].mean_count;
      // A variance is known to a part of itself.
      const double error = counting + kStartingPhiSquared;
      beyond.emplace_back(variance[i] - counting, 1 / (error * error));
    }
    noise.phi_squared = std::max(0.0, LowerQuartile(std::move(beyond)));
    for (size_t i = 0; i < references.size(); ++i) {
      ratio.push_back((variance[i] - noise.phi_squared) * references[i].mean_count);
    }
    noise.counting = std::max(1.0, Median(std::move(ratio)));
  }
  return noise;
}

}  // namespace

std::vector<double> LogSizeFactors(const CountTable& counts) {
  const size_t runs = counts.runs();
  std::vector<double> log_size(runs);
  bool work_known = true;
  for (size_t r = 0; r < runs; ++r) work_known = work_known && counts.work(r) > 0;
  if (work_known) {
    for (size_t r = 0; r < runs; ++r) log_size[r] = std::log(counts.work(r));
    const double mean = Mean(log_size);
    for (double& s : log_size) s -= mean;
    return log_size;
  }
  const std::vector<Reference> references = References(counts);
  if (references.size() < 2) return log_size;
  std::vector<double> mean_log, precision;
  for (const Reference& reference : references) {
    mean_log.push_back(Mean(reference.log_count));
    precision.push_back(1 / (1 / reference.mean_count + kStartingPhiSquared));
  }

  std::vector<double> deviations(references.size());
  for (size_t r = 0; r < runs; ++r) {
    for (size_t i = 0; i < references.size(); ++i) {
      deviations[i] = references[i].log_count[r] - mean_log[i];
    }
    double centre = Median(deviations);
    // Fixed point of the weighted mean with deviations clipped; it converges linearly, and 1e-6 is far below any noise.
    for (int round = 0; round < 50; ++round) {
      double weighted = 0, weights = 0;
      for (size_t i = 0; i < references.size(); ++i) {
        const double residual = deviations[i] - centre;
        const double z = std::abs(residual) * std::sqrt(precision[i]);
        const double weight = precision[i] * (z <= kHuber ? 1 : kHuber / z);
        weighted += weight * residual;
        weights += weight;
      }
      const double step = weighted / weights;
      centre += step;
      if (std::abs(step) < 1e-6) break;
    }
    log_size[r] = centre;
  }
  const double mean = Mean(log_size);
  for (double& s : log_size) s -= mean;
  return log_size;
}

Analysis::Analysis(const CountTable& counts, Design design, const AnalysisOptions& options)
    : counts_(counts), design_(std::move(design)), options_(options), log_size_(LogSizeFactors(counts)) {
  CHECK(counts_.runs() == design_.runs());
  const size_t runs = counts_.runs();
  const auto run_count = static_cast<double>(runs);
  for (size_t r = 0; r < runs; ++r) {
    if (design_.side[r] == Side::kBaseline) baseline_total_ += counts_.total(r) / std::exp(log_size_[r]);
  }
  baseline_total_ /= static_cast<double>(design_.count(Side::kBaseline));

  // What is tested must not depend on the labels: the mean over all runs decides.
  std::vector<double> mean_count;
  bool cpu_known = true;
  for (size_t r = 0; r < runs; ++r) cpu_known = cpu_known && counts_.cpu_ns(r) > 0;
  for (FunctionIndex f = 1; f < counts_.functions(); ++f) {
    double exclusive = 0, inclusive = 0;
    bool same = true;
    for (size_t r = 0; r < runs; ++r) {
      exclusive += counts_.exclusive(r, f);
      inclusive += counts_.inclusive(r, f);
      same = same && counts_.exclusive(r, f) == counts_.inclusive(r, f);
    }
    if (inclusive > 0) functions_.push_back({f, {}, {}});
    if (exclusive / run_count >= kLeastMeanCount) {
      columns_.push_back({Kind::kExclusive, f});
      mean_count.push_back(exclusive / run_count);
    }
    if (!same && inclusive / run_count >= kLeastMeanCount) {
      columns_.push_back({Kind::kInclusive, f});
      mean_count.push_back(inclusive / run_count);
    }
  }
  if (cpu_known) {
    columns_.push_back({Kind::kTotal, 0});
    mean_count.push_back(0);
  }

  RunTable table(runs, columns_.size());
  for (size_t c = 0; c < columns_.size(); ++c) {
    const Column& column = columns_[c];
    for (size_t r = 0; r < runs; ++r) {
      switch (column.kind) {
        case Kind::kExclusive:
          table.value(r, c) = LogCount(counts_.exclusive(r, column.function), r);
          break;
        case Kind::kInclusive:
          table.value(r, c) = LogCount(counts_.inclusive(r, column.function), r);
          break;
        case Kind::kTotal:
          table.value(r, c) = std::log(counts_.cpu_ns(r));
          break;
      }
    }
  }
  noise_ = FitNoise(counts_, log_size_, design_);
  for (size_t c = 0; c < columns_.size(); ++c) {
    if (columns_[c].kind != Kind::kTotal) table.prior(c) = PriorFor(mean_count[c]);
  }

  test_ = MaxTTest(table, design_, {.draws = options_.draws, .seed = options_.seed, .levels = {options_.level}});
  critical_ = test_.critical[0];
  TestTheRest(table);

  size_t at = 0;
  std::vector<double> row(runs);
  for (FunctionEffect& effect : functions_) {
    const MaxTColumn *exclusive = nullptr, *inclusive = nullptr;
    for (; at < columns_.size() && columns_[at].function == effect.function && columns_[at].kind != Kind::kTotal;
         ++at) {
      (columns_[at].kind == Kind::kExclusive ? exclusive : inclusive) = &test_.columns[at];
    }
    for (size_t r = 0; r < runs; ++r) row[r] = counts_.exclusive(r, effect.function);
    effect.exclusive = Describe(row, exclusive);
    // Of a function that only one side has, no ratio could be detected.
    if (exclusive != nullptr && !effect.exclusive.is_new && !effect.exclusive.vanished) {
      errors_.emplace_back(exclusive->standard_error, effect.exclusive.baseline_share);
    }
    bool same = true;
    for (size_t r = 0; r < runs; ++r) {
      same = same && row[r] == counts_.inclusive(r, effect.function);
      row[r] = counts_.inclusive(r, effect.function);
    }
    // A leaf's inclusive count is its exclusive one; it is tested once.
    effect.inclusive = same ? effect.exclusive : Describe(row, inclusive);
  }
  if (cpu_known) DescribeTotal(test_.columns.back());
  DescribeInstructions();
}

void Analysis::TestTheRest(const RunTable& table) {
  std::vector<size_t> rest;
  for (size_t c = 0; c < columns_.size(); ++c) {
    if (test_.columns[c].p_slower > options_.level && test_.columns[c].p_faster > options_.level) rest.push_back(c);
  }
  if (rest.empty() || rest.size() == columns_.size()) return;
  RunTable reduced(table.runs(), rest.size());
  for (size_t i = 0; i < rest.size(); ++i) {
    for (size_t r = 0; r < table.runs(); ++r) reduced.value(r, i) = table.value(r, rest[i]);
    reduced.prior(i) = table.prior(rest[i]);
  }
  const MaxTResult result =
      MaxTTest(reduced, design_, {.draws = options_.draws, .seed = options_.seed, .levels = {options_.level}});
  critical_ = result.critical[0];
  for (size_t i = 0; i < rest.size(); ++i) test_.columns[rest[i]].p_slower = result.columns[i].p_slower;
}

RunTable::Prior Analysis::PriorFor(double mean_count) const {
  return {.variance = noise_.Variance(mean_count), .degrees = kPriorDegrees};
}

double Analysis::LogCount(double count, size_t run) const { return std::log(count + 0.5) - log_size_[run]; }

double Analysis::Detectable(double standard_error, double degrees, double share) const {
  if (!(critical_ < kInfinity)) return kInfinity;
  const double delta = std::log1p(options_.min_effect / std::max(share, 1e-9));
  const double needed = std::max(critical_ * standard_error,
                                 delta + StudentQuantile(1 - options_.effect_level, degrees) * standard_error);
  return std::expm1(needed + NormalQuantile(options_.power) * standard_error);
}

void Analysis::Decide(const MaxTColumn& column, Effect* effect) const {
  effect->t = column.t;
  effect->p = column.p_slower;
  effect->p_faster = column.p_faster;
  const double delta = std::log1p(options_.min_effect / std::max(effect->baseline_share, 1e-9));
  const double quantile = StudentQuantile(1 - options_.effect_level, column.degrees);
  const bool worth_it = effect->is_new ? effect->excess_interval.low > options_.min_effect
                                       : column.difference - quantile * column.standard_error > delta;
  effect->slower = column.p_slower <= options_.level && worth_it;
  // Faster is good news and no verdict: significant, and by more than the minimum effect at its best estimate.
  effect->faster = column.p_faster <= options_.level && effect->excess < -options_.min_effect;
}

Effect Analysis::Describe(std::span<const double> counts, const MaxTColumn* column) const {
  Effect effect;
  double sum[2] = {0, 0}, scaled[2] = {0, 0}, exposure[2] = {0, 0};
  for (size_t r = 0; r < counts.size(); ++r) {
    const auto side = static_cast<size_t>(design_.side[r]);
    const double size = std::exp(log_size_[r]);
    sum[side] += counts[r];
    scaled[side] += counts[r] / size;
    exposure[side] += size;
  }
  const auto baseline_runs = static_cast<double>(design_.count(Side::kBaseline));
  const auto candidate_runs = static_cast<double>(design_.count(Side::kCandidate));
  effect.baseline_count = scaled[0] / baseline_runs;
  effect.candidate_count = scaled[1] / candidate_runs;
  const double whole = std::max(baseline_total_, 1e-9);
  effect.baseline_share = effect.baseline_count / whole;
  effect.candidate_share = effect.candidate_count / whole;
  effect.excess = effect.candidate_share - effect.baseline_share;
  effect.is_new = sum[0] < kLeastForRatio && sum[1] >= 4 * std::max(sum[0], kLeastForRatio / 2);
  effect.vanished = sum[1] < kLeastForRatio && sum[0] >= 4 * std::max(sum[1], kLeastForRatio / 2);
  effect.ratio = effect.baseline_count > 0 ? effect.candidate_count / effect.baseline_count : kInfinity;

  if (effect.is_new || effect.vanished || column == nullptr) {
    // Counting noise, widened by what varies beyond it.
    const Interval low = PoissonInterval(sum[0], options_.confidence),
                   high = PoissonInterval(sum[1], options_.confidence);
    const double spread[2] = {noise_.counting + effect.baseline_count * noise_.phi_squared,
                              noise_.counting + effect.candidate_count * noise_.phi_squared};
    const auto rate = [&](double events, double centre, size_t side) {
      return std::max(0.0, centre + (events - centre) * std::sqrt(spread[side])) / std::max(exposure[side], 1e-9) /
             whole;
    };
    effect.excess_interval = {rate(high.low, sum[1], 1) - rate(low.high, sum[0], 0),
                              rate(high.high, sum[1], 1) - rate(low.low, sum[0], 0)};
    const double least = rate(low.low, sum[0], 0), most = rate(low.high, sum[0], 0);
    effect.ratio_interval = {most > 0 ? rate(high.low, sum[1], 1) / most : 0,
                             least > 0 ? rate(high.high, sum[1], 1) / least : kInfinity};
  }
  if (column == nullptr) return effect;
  effect.tested = true;
  if (!effect.is_new && !effect.vanished) {
    const double half = StudentQuantile(0.5 + options_.confidence / 2, column->degrees) * column->standard_error;
    effect.ratio = std::exp(column->difference);
    effect.ratio_interval = {std::exp(column->difference - half), std::exp(column->difference + half)};
    effect.excess = effect.baseline_share * (effect.ratio - 1);
    effect.excess_interval = {effect.baseline_share * (effect.ratio_interval.low - 1),
                              effect.baseline_share * (effect.ratio_interval.high - 1)};
  }
  effect.detectable = Detectable(column->standard_error, column->degrees, effect.baseline_share);
  effect.detectable_share = effect.detectable * effect.baseline_share;
  Decide(*column, &effect);
  return effect;
}

// What is of the whole run: all of it is its share.
void Analysis::DescribeWhole(const MaxTColumn& column, Effect* effect) const {
  effect->ratio = std::exp(column.difference);
  effect->candidate_share = effect->ratio;
  effect->excess = effect->ratio - 1;
  const double half = StudentQuantile(0.5 + options_.confidence / 2, column.degrees) * column.standard_error;
  effect->ratio_interval = {std::exp(column.difference - half), std::exp(column.difference + half)};
  effect->excess_interval = {effect->ratio_interval.low - 1, effect->ratio_interval.high - 1};
}

void Analysis::DescribeTotal(const MaxTColumn& column) {
  Effect& effect = total_;
  effect.tested = true;
  double sum[2] = {0, 0};
  for (size_t r = 0; r < counts_.runs(); ++r) sum[static_cast<size_t>(design_.side[r])] += counts_.cpu_ns(r);
  effect.baseline_count = sum[0] / static_cast<double>(design_.count(Side::kBaseline));
  effect.candidate_count = sum[1] / static_cast<double>(design_.count(Side::kCandidate));
  effect.baseline_share = 1;
  DescribeWhole(column, &effect);
  effect.t = column.t;
  effect.p = column.p_slower;
  effect.p_faster = column.p_faster;
  const double delta = std::log1p(options_.min_total_effect);
  const double quantile = StudentQuantile(1 - options_.effect_level, column.degrees);
  effect.slower = column.p_slower <= options_.level && column.difference - quantile * column.standard_error > delta;
  effect.faster = column.p_faster <= options_.level && column.difference < -delta;
  const double needed = std::max(critical_ * column.standard_error, delta + quantile * column.standard_error);
  effect.detectable =
      critical_ < kInfinity ? std::expm1(needed + NormalQuantile(options_.power) * column.standard_error) : kInfinity;
  effect.detectable_share = effect.detectable;
}

void Analysis::DescribeInstructions() {
  Effect& effect = instructions_;
  RunTable table(counts_.runs(), 1);
  double sum[2] = {0, 0};
  for (size_t r = 0; r < counts_.runs(); ++r) {
    if (counts_.instructions(r) <= 0) return;
    table.value(r, 0) = std::log(counts_.instructions(r));
    sum[static_cast<size_t>(design_.side[r])] += counts_.instructions(r);
  }
  const MaxTColumn column = MaxTTest(table, design_, {.draws = 1, .seed = 1, .levels = {}}).columns[0];
  effect.tested = true;
  effect.baseline_count = sum[0] / static_cast<double>(design_.count(Side::kBaseline));
  effect.candidate_count = sum[1] / static_cast<double>(design_.count(Side::kCandidate));
  effect.baseline_share = 1;
  DescribeWhole(column, &effect);
}

Effect Analysis::Measure(std::span<const double> counts) const {
  CHECK(counts.size() == counts_.runs());
  const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
  if (mean < kLeastMeanCount) return Describe(counts, nullptr);
  RunTable table(counts.size(), 1);
  for (size_t r = 0; r < counts.size(); ++r) table.value(r, 0) = LogCount(counts[r], r);
  table.prior(0) = PriorFor(mean);
  // One draw: the true labels; the maximum over all columns is the one that was drawn before.
  MaxTColumn column = MaxTTest(table, design_, {.draws = 1, .seed = 1, .levels = {}}).columns[0];
  column.p_slower = column.t >= critical_ ? options_.level : 1;
  column.p_faster = -column.t >= critical_ ? options_.level : 1;
  return Describe(counts, &column);
}

double Analysis::DetectableShare() const {
  double largest = errors_.empty() ? kInfinity : 0;
  for (const FunctionEffect& effect : functions_) {
    const Effect& own = effect.exclusive;
    if (own.tested && !own.is_new && !own.vanished) largest = std::max(largest, own.detectable_share);
  }
  return largest;
}

size_t Analysis::PairsFor(double share) const {
  if (errors_.empty()) return 0;
  // Where so few runs give no critical value, what many runs of as many functions have.
  constexpr double kUsualCritical = 4.5;
  constexpr size_t kMostPairs = 4096;
  const double critical = critical_ < kInfinity ? critical_ : kUsualCritical;
  const double pairs_now =
      static_cast<double>(std::min(design_.count(Side::kBaseline), design_.count(Side::kCandidate)));
  for (size_t pairs = 8; pairs <= kMostPairs; pairs += 2) {
    const double shrink = std::sqrt(pairs_now / static_cast<double>(pairs));
    double largest = 0;
    for (const auto& [error, part] : errors_) {
      const double delta = std::log1p(options_.min_effect / std::max(part, 1e-9));
      const double z = NormalQuantile(1 - options_.effect_level), power = NormalQuantile(options_.power);
      const double needed = std::max(critical * error * shrink, delta + z * error * shrink) + power * error * shrink;
      largest = std::max(largest, std::expm1(needed) * part);
    }
    if (largest <= share) return pairs;
  }
  return 0;
}

bool Analysis::RulesOutMinEffect() const {
  if (!(critical_ < kInfinity) || errors_.empty()) return false;
  size_t at = 0;
  for (const FunctionEffect& effect : functions_) {
    const Effect& own = effect.exclusive;
    if (!own.tested || own.vanished) continue;
    double highest = own.excess_interval.high;
    if (!own.is_new) {
      const auto& [error, share] = errors_[at++];
      highest = std::expm1(std::log(own.ratio) + critical_ * error) * share;
    }
    if (highest >= options_.min_effect) return false;
  }
  return true;
}

}  // namespace pyrometer::regression

// The randomisation test: which columns of a table of runs differ between two sides, with the chance of any
// false one held at alpha, whatever the noise.
//
//   RunTable table(16, 300);                       // 16 runs, 300 functions; fill value(run, column)
//   MaxTResult result = MaxTTest(table, design, {.draws = 10'000, .seed = 1});
//   result.columns[f].p                            // adjusted for all columns (Westfall–Young, step-down), one-sided
//
// Under the hypothesis that side makes no difference to some set of columns, the labels of the runs are as good as any
// others that the collection could have drawn: within each block, every arrangement was equally likely. So the largest
// t over the columns is compared with the largest t under arrangements drawn anew. No distribution is assumed,
// correlated columns (a caller and its callee) are handled as they are, and drift from block to block cancels, since
// values are centred per block.
//
// What must not look at the labels: the values themselves (normalisation) and the prior variances. Otherwise the level
// is only approximately held.
//
// All arrangements are enumerated when there are no more than `draws` of them; the answer then does not depend
// on the seed. Otherwise `draws` - 1 random ones and the true one are counted: p is never 0.
//
// Threads: pure. Cost: 10,000 draws × 16 runs × 2,000 columns 0.3 s on one core; 12 bytes × columns, 8 × draws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pyrometer::regression {

enum class Side : uint8_t { kBaseline = 0, kCandidate = 1 };

// How runs were labelled: runs of one block are exchangeable under the null hypothesis. A block with one side only
// carries no information about the difference.
struct Design {
  std::vector<Side> side;       // per run
  std::vector<uint32_t> block;  // per run, dense from 0, runs of a block adjacent

  size_t runs() const { return side.size(); }
  size_t blocks() const { return block.empty() ? 0 : block.back() + 1; }
  size_t count(Side which) const;
  // Arrangements that the test can tell apart, saturating; 1/this is the smallest p it can give.
  double Arrangements() const;
  // Every block has as many runs of either side, or there is one block only.
  bool IsValid() const;
};

class RunTable {
 public:
  RunTable(size_t runs, size_t columns) : runs_(runs), columns_(columns), values_(runs * columns), prior_(columns) {}

  size_t runs() const { return runs_; }
  size_t columns() const { return columns_; }
  double& value(size_t run, size_t column) { return values_[run * columns_ + column]; }
  double value(size_t run, size_t column) const { return values_[run * columns_ + column]; }
  // The variance of a run's value that is expected for this column, and what it is worth in degrees of freedom; 0
  // leaves the column with its own variance.
  struct Prior {
    double variance = 0;
    double degrees = 0;
  };
  Prior& prior(size_t column) { return prior_[column]; }
  const Prior& prior(size_t column) const { return prior_[column]; }

 private:
  size_t runs_;
  size_t columns_;
  std::vector<double> values_;
  std::vector<Prior> prior_;
};

struct MaxTOptions {
  size_t draws = 10'000;
  uint64_t seed = 1;
  // Levels whose critical value of the maximum is wanted, each in (0, 1).
  std::vector<double> levels = {};
};

struct MaxTColumn {
  double difference = 0;      // candidate mean − baseline mean
  double standard_error = 0;  // of the difference, shrunk
  double t = 0;
  double degrees = 0;   // of freedom that the standard error stands on
  double p_slower = 1;  // adjusted, for difference > 0
  double p_faster = 1;  // adjusted, for difference < 0
};

struct MaxTResult {
  std::vector<MaxTColumn> columns;
  // Per MaxTOptions::levels: an unchanged table exceeds this t in some column with at most that chance. Infinite where
  // there are too few arrangements.
  std::vector<double> critical;
  double arrangements = 0;
  size_t draws = 0;    // counted, the true one included
  bool exact = false;  // all arrangements were enumerated
};

// Preconditions: table.runs() == design.runs(), design.IsValid(), both sides present.
MaxTResult MaxTTest(const RunTable& table, const Design& design, const MaxTOptions& options);

// Residual variance of each column within blocks, labels unseen: (sum of squares of centred values) / (runs − blocks).
std::vector<double> WithinBlockVariance(const RunTable& table, const Design& design);

}  // namespace pyrometer::regression

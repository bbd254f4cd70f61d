// Adds up stacks of one trie. Starts as a list of rows; becomes two arrays indexed by leaf once the
// list would be longer than the arrays are wide: dense adding costs 1 to 5 ns per row however many
// stacks there are, sorting costs more, and clearing wide arrays for three rows most of all.
//
//   StackAccumulator sum(trie.leaf_count());
//   RETURN_IF_ERROR(sum.Add(rows));
//   std::vector<StackSum> total = sum.Finish();
//
// Threads: none shared. Inside this room only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "userspace/base/status.h"
#include "userspace/store/chunk.h"
#include "userspace/store/reader.h"

namespace pyrometer::store {

class StackAccumulator {
 public:
  static constexpr uint64_t kBytesPerLeaf = 2 * sizeof(uint64_t);

  explicit StackAccumulator(size_t leaves) : leaves_(leaves), sparse_limit_(std::max<size_t>(4096, leaves / 4)) {}

  // DATA_LOSS for a leaf that the trie does not have. Precondition: rows are sorted.
  Status Add(const std::vector<StackSum>& rows) {
    if (!rows.empty() && rows.back().leaf >= leaves_) return DataLossError("damaged stack samples: unknown stack");
    if (!dense_) {
      sparse_.insert(sparse_.end(), rows.begin(), rows.end());
      if (sparse_.size() > sparse_limit_) MakeDense();
      return OkStatus();
    }
    for (const StackSum& row : rows) AddDense(row.leaf, row.count, row.value);
    return OkStatus();
  }
  // For many rows to come.
  void MakeDense() {
    if (dense_) return;
    dense_ = true;
    sums_.resize(leaves_);
    for (const StackSum& row : sparse_) AddDense(row.leaf, row.count, row.value);
    sparse_ = {};
  }
  // Precondition: MakeDense. False for an unknown leaf.
  bool AddOne(LeafId leaf, uint64_t count, uint64_t value) {
    if (leaf >= leaves_) return false;
    AddDense(leaf, count, value);
    return true;
  }

  // Sorted by leaf, no zero rows. The accumulator is empty then.
  std::vector<StackSum> Finish() {
    if (!dense_) {
      std::sort(sparse_.begin(), sparse_.end(), [](const StackSum& a, const StackSum& b) { return a.leaf < b.leaf; });
      size_t kept = 0;
      for (const StackSum& row : sparse_) {
        if (kept > 0 && sparse_[kept - 1].leaf == row.leaf) {
          sparse_[kept - 1].count = SaturatingAdd(sparse_[kept - 1].count, row.count);
          sparse_[kept - 1].value = SaturatingAdd(sparse_[kept - 1].value, row.value);
        } else {
          sparse_[kept++] = row;
        }
      }
      sparse_.resize(kept);
      return std::move(sparse_);
    }
    std::vector<StackSum> result;
    result.reserve(static_cast<size_t>(
        std::count_if(sums_.begin(), sums_.end(), [](const Sum& sum) { return sum.count != 0 || sum.value != 0; })));
    for (LeafId leaf = 0; leaf < sums_.size(); ++leaf) {
      if (sums_[leaf].count != 0 || sums_[leaf].value != 0)
        result.push_back({leaf, sums_[leaf].count, sums_[leaf].value});
    }
    sums_ = {};
    return result;
  }

 private:
  struct Sum {
    uint64_t count = 0;
    uint64_t value = 0;
  };
  void AddDense(LeafId leaf, uint64_t count, uint64_t value) {
    Sum& sum = sums_[leaf];
    sum.count = SaturatingAdd(sum.count, count);
    sum.value = SaturatingAdd(sum.value, value);
  }

  const size_t leaves_;
  const size_t sparse_limit_;
  bool dense_ = false;
  std::vector<StackSum> sparse_;
  std::vector<Sum> sums_;
};

}  // namespace pyrometer::store

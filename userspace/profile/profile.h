// A profile in memory: what a session records, what a query returns, what every format reads and
// writes. One or more values per sample (as pprof has), stacks in a trie, label sets per sample.
//
//   Profile p;
//   p.value_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
//   p.Add(labels_id, stack_id, {1, 10'101'010});      // equal (labels, stack) add up
//
// Threads: none shared. Cost: dictionary + 8 bytes + 8 per value for each distinct (labels, stack).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "userspace/profile/dictionary.h"

namespace pyrometer::profile {

// What is counted and in which unit: ("cpu", "nanoseconds"), ("samples", "count").
struct ValueType {
  std::string type;
  std::string unit;
  bool operator==(const ValueType&) const = default;
};

// How far a profile can be trusted. The invariant: taken = delivered + sum of dropped.
struct Accounting {
  // CPU time by the kernel's own accounts x frequency, which no probe touches; 0 = not known. `taken` comes close to
  // it unless ticks were lost before any probe saw them (a virtual machine that was not run, masked interrupts).
  uint64_t expected = 0;
  uint64_t taken = 0;
  uint64_t delivered = 0;
  std::map<std::string, uint64_t> dropped;  // by reason
  // Why user stacks ended ("root", "no frame pointer", "depth limit", …) and why frames have no name.
  std::map<std::string, uint64_t> stop_reasons;
  std::map<std::string, uint64_t> miss_reasons;
  // Samples by the least trustworthy means by which frames of their user stack were found ("unwind tables", …).
  std::map<std::string, uint64_t> means;
  uint64_t frames = 0;  // frames of all samples, of which miss_reasons counts a part

  uint64_t DroppedTotal() const;
  void Merge(const Accounting& other);
  bool operator==(const Accounting&) const = default;
};

class Profile {
 public:
  struct Sample {
    LabelSetId labels = 0;
    StackId stack = kEmptyStack;
  };

  Dictionary dictionary;
  std::vector<ValueType> value_types;
  // Index into value_types that a viewer shows first.
  size_t default_value = 0;
  ValueType period_type;
  int64_t period = 0;        // in period_type's unit between samples; 0 = unknown
  int64_t time_ns = 0;       // Unix time of the start; 0 = unknown
  uint64_t duration_ns = 0;  // 0 = unknown
  std::vector<std::string> comments;
  Accounting accounting;

  // Precondition: values.size() == value_types.size(), ids from `dictionary`.
  void Add(LabelSetId labels, StackId stack, std::span<const int64_t> values);
  void Add(LabelSetId labels, StackId stack, std::initializer_list<int64_t> values) {
    Add(labels, stack, std::span<const int64_t>(values.begin(), values.size()));
  }

  size_t sample_count() const { return samples_.size(); }
  const Sample& sample(size_t i) const { return samples_[i]; }
  std::span<const int64_t> values(size_t i) const {
    return {values_.data() + i * value_types.size(), value_types.size()};
  }
  int64_t Total(size_t value_index) const;

  // Adds all of `other`. INVALID_ARGUMENT when the value types differ. Times span both.
  Status Merge(const Profile& other);

 private:
  std::vector<Sample> samples_;
  std::vector<int64_t> values_;
  std::unordered_map<uint64_t, size_t> index_;  // labels << 32 | stack -> sample
};

// All but the samples, with an empty dictionary.
Profile CopyHeader(const Profile& from);

// The part of `profile` whose samples carry label set `labels`, without its comments and accounting.
Profile Slice(const Profile& profile, LabelSetId labels);

}  // namespace pyrometer::profile

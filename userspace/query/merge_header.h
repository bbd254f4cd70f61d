// What a merge of stacks says beside the stacks: types, period, times, and how far it can be trusted. Inside this room
// only.
//
//   MergeHeader header(selector);
//   header.Begin(&profile);
//   for (const store::StackSums& sums : …) header.Saw(sums);
//   RETURN_IF_ERROR(header.Finish(engine, found, range, samples, &profile));
//
// Threads: none shared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "userspace/query/engine.h"
#include "userspace/query/selection.h"

namespace pyrometer::query {

// "nanoseconds" or "count".
std::string UnitOf(std::string_view type);

// Profiles hold signed values.
inline int64_t ToSigned(uint64_t value) { return static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX)); }

class MergeHeader {
 public:
  // `selector` must outlive this.
  explicit MergeHeader(const Selector& selector) : selector_(selector) {}

  // Types of our own counters of samples have a count and no value.
  bool samples_only() const { return selector_.type.starts_with("pyrometer_"); }
  // Value types.
  void Begin(profile::Profile* profile) const;
  void Saw(const store::StackSums& sums);
  // Times, period and accounting. `samples`: all that was added up.
  Status Finish(const Engine& engine, const Found& found, TimeRange range, uint64_t samples,
                profile::Profile* profile) const;

 private:
  const Selector& selector_;
  bool any_ = false;
  bool same_period_ = true;
  int64_t period_ = 0;
  int64_t first_ns_ = 0;
  int64_t end_ns_ = 0;
};

}  // namespace pyrometer::query

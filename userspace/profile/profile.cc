#include "userspace/profile/profile.h"

#include <algorithm>

namespace pyrometer::profile {

uint64_t Accounting::DroppedTotal() const {
  uint64_t total = 0;
  for (const auto& [reason, count] : dropped) total += count;
  return total;
}

void Accounting::Merge(const Accounting& other) {
  expected += other.expected;
  taken += other.taken;
  delivered += other.delivered;
  for (const auto& [reason, count] : other.dropped) dropped[reason] += count;
  for (const auto& [reason, count] : other.stop_reasons) stop_reasons[reason] += count;
  for (const auto& [reason, count] : other.miss_reasons) miss_reasons[reason] += count;
  for (const auto& [name, count] : other.means) means[name] += count;
  frames += other.frames;
}

void Profile::Add(LabelSetId labels, StackId stack, std::span<const int64_t> values) {
  DCHECK(values.size() == value_types.size());
  const auto [entry, added] = index_.try_emplace(uint64_t{labels} << 32 | stack, samples_.size());
  if (added) {
    samples_.push_back({labels, stack});
    values_.insert(values_.end(), values.begin(), values.end());
    return;
  }
  int64_t* sums = values_.data() + entry->second * value_types.size();
  // Hostile profiles hold huge values: wrap like two's complement instead of undefined overflow.
  for (size_t i = 0; i < values.size(); ++i) {
    sums[i] = static_cast<int64_t>(static_cast<uint64_t>(sums[i]) + static_cast<uint64_t>(values[i]));
  }
}

int64_t Profile::Total(size_t value_index) const {
  uint64_t total = 0;
  for (size_t i = value_index; i < values_.size(); i += value_types.size()) total += static_cast<uint64_t>(values_[i]);
  return static_cast<int64_t>(total);
}

Status Profile::Merge(const Profile& other) {
  if (value_types != other.value_types) {
    return InvalidArgumentError("profiles with different value types cannot be added");
  }
  DictionaryMapper mapper(other.dictionary, &dictionary);
  for (size_t i = 0; i < other.sample_count(); ++i) {
    Add(mapper.LabelSet(other.samples_[i].labels), mapper.Stack(other.samples_[i].stack), other.values(i));
  }
  const int64_t end =
      std::max(time_ns + static_cast<int64_t>(duration_ns), other.time_ns + static_cast<int64_t>(other.duration_ns));
  if (time_ns == 0 || (other.time_ns != 0 && other.time_ns < time_ns)) time_ns = other.time_ns;
  duration_ns = static_cast<uint64_t>(end - time_ns);
  comments.insert(comments.end(), other.comments.begin(), other.comments.end());
  accounting.Merge(other.accounting);
  return OkStatus();
}

Profile CopyHeader(const Profile& from) {
  Profile to;
  to.value_types = from.value_types;
  to.default_value = from.default_value;
  to.period_type = from.period_type;
  to.period = from.period;
  to.time_ns = from.time_ns;
  to.duration_ns = from.duration_ns;
  to.comments = from.comments;
  to.accounting = from.accounting;
  return to;
}

Profile Slice(const Profile& profile, LabelSetId labels) {
  Profile slice = CopyHeader(profile);
  slice.comments.clear();
  slice.accounting = {};
  slice.dictionary = profile.dictionary;
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    if (profile.sample(i).labels == labels) slice.Add(labels, profile.sample(i).stack, profile.values(i));
  }
  return slice;
}

}  // namespace pyrometer::profile

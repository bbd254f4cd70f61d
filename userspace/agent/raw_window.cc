#include "userspace/agent/raw_window.h"

#include <algorithm>

#include "userspace/base/clock.h"

namespace pyrometer::agent {

size_t RawWindow::FrameHash::operator()(const RawFrame& frame) const {
  const uint64_t mixed = (frame.address ^ (uint64_t{frame.origin} << 40) ^
                          (uint64_t{static_cast<uint8_t>(frame.kind)} << 32) ^ frame.reason) *
                         0x9E3779B97F4A7C15u;
  return mixed ^ (mixed >> 32);
}

RawWindow::RawWindow(int64_t start_ns, uint64_t duration_ns)
    : start_ns_(start_ns),
      duration_ns_(duration_ns),
      frames_(1),
      stacks_(1),
      binaries_(1),
      processes_(1),
      reasons_(1) {}

uint32_t RawWindow::OriginOf(const std::shared_ptr<const process::Binary>& binary) {
  const auto [entry, added] = binary_ids_.try_emplace(binary.get(), static_cast<uint32_t>(binaries_.size()));
  if (added) binaries_.push_back(binary);
  return entry->second;
}

uint32_t RawWindow::OriginOf(ProcessKey process) {
  const auto [entry, added] = process_ids_.try_emplace(process, static_cast<uint32_t>(processes_.size()));
  if (added) processes_.push_back(process);
  return entry->second;
}

uint16_t RawWindow::ReasonOf(std::string_view reason) {
  // A dozen reasons exist: a scan beats a map.
  const auto found = std::find(reasons_.begin(), reasons_.end(), reason);
  if (found != reasons_.end()) return static_cast<uint16_t>(found - reasons_.begin());
  reasons_.emplace_back(reason);
  return static_cast<uint16_t>(reasons_.size() - 1);
}

profile::StackId RawWindow::InternStack(profile::StackId parent, const RawFrame& frame) {
  const auto [id, new_frame] = frame_ids_.try_emplace(frame, static_cast<profile::FrameId>(frames_.size()));
  if (new_frame) frames_.push_back(frame);
  const auto [node, new_node] =
      stack_ids_.try_emplace(uint64_t{parent} << 32 | id->second, static_cast<profile::StackId>(stacks_.size()));
  if (new_node) stacks_.push_back({parent, id->second});
  return node->second;
}

profile::StackId RawWindow::InternStack(std::span<const RawFrame> leaf_first) {
  profile::StackId stack = profile::kEmptyStack;
  for (size_t i = leaf_first.size(); i > 0; --i) stack = InternStack(stack, leaf_first[i - 1]);
  return stack;
}

RecentCallers& RawWindow::RecentCallersOf(uint32_t tid) {
  const auto found = recent_callers_.find(tid);
  if (found != recent_callers_.end()) return found->second;
  if (recent_callers_.size() >= kMaxRecentThreads) recent_callers_.clear();
  return recent_callers_[tid];
}

RawExemplar* RawWindow::FindExemplar(const CallKey& key, uint32_t tid, uint64_t time_ns) {
  const auto found = exemplars_.find(key);
  if (found == exemplars_.end()) return nullptr;
  // The newest ones are asked for.
  const auto exemplar = std::find_if(found->second.rbegin(), found->second.rend(),
                                     [&](const RawExemplar& one) { return one.tid == tid && one.time_ns == time_ns; });
  return exemplar == found->second.rend() ? nullptr : &*exemplar;
}

void RawWindow::Count(std::string_view name, Counts* counts) {
  const auto found = counts->find(name);
  ++(found != counts->end() ? found->second : (*counts)[std::string(name)]);
}

void RawWindow::Sums::Add(const Sums& more) {
  count += more.count;
  value += more.value;
  offsets_ms.insert(offsets_ms.end(), more.offsets_ms.begin(), more.offsets_ms.end());
}

void RawWindow::AddSampleAt(const RawGroup& group, profile::StackId stack, uint64_t value, int64_t unix_ns) {
  Sums& sums = samples_[group][stack];
  ++sums.count;
  sums.value += value;
  ++sample_count_;
  if (duration_ns_ == 0 || duration_ns_ > kMaxOffsetMs * kNsPerMs) return;
  const int64_t offset_ms = (unix_ns - start_ns_) / static_cast<int64_t>(kNsPerMs);
  sums.offsets_ms.push_back(static_cast<uint16_t>(std::clamp<int64_t>(offset_ms, 0, kMaxOffsetMs)));
}

void RawWindow::AddSample(const RawGroup& group, profile::StackId stack, uint64_t count, uint64_t value) {
  Sums& sums = samples_[group][stack];
  sums.count += count;
  sums.value += value;
  if (group.type.empty()) sample_count_ += count;
}

}  // namespace pyrometer::agent

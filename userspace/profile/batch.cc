#include "userspace/profile/batch.h"

namespace pyrometer::profile {
namespace {

// Definitions into a dictionary, on demand.
class DefinitionsMapper {
 public:
  DefinitionsMapper(const Definitions& from, Dictionary* to) : from_(from), to_(*to), stacks_(from.stack_count()) {}

  StackId Stack(StackId id) {
    path_.clear();
    for (; id != kEmptyStack && stacks_[id] == 0; id = from_.stack(id).parent) path_.push_back(id);
    StackId there = id == kEmptyStack ? kEmptyStack : stacks_[id] - 1;
    for (size_t i = path_.size(); i > 0; --i) {
      there = to_.InternStack(there, Frame(from_.stack(path_[i - 1]).frame));
      stacks_[path_[i - 1]] = there + 1;
    }
    return there;
  }

 private:
  StringId String(StringId id) { return to_.InternString(from_.string(id)); }

  FrameId Frame(FrameId id) {
    const auto known = frames_.find(id);
    if (known != frames_.end()) return known->second;
    const FrameView view = from_.frame(id);
    Mapping mapping = from_.mapping(view.mapping);
    mapping.build_id = String(mapping.build_id);
    mapping.file = String(mapping.file);
    profile::Frame frame{
        .kind = view.kind, .mapping = to_.InternMapping(mapping), .address = view.address, .miss = String(view.miss)};
    for (const Line& line : view.lines) {
      profile::Function function = from_.function(line.function);
      function.name = String(function.name);
      function.system_name = String(function.system_name);
      function.file = String(function.file);
      frame.lines.push_back({to_.InternFunction(function), line.line, line.column});
    }
    const FrameId there = to_.InternFrame(std::move(frame));
    frames_.emplace(id, there);
    return there;
  }

  const Definitions& from_;
  Dictionary& to_;
  std::vector<uint32_t> stacks_;  // id there + 1
  std::unordered_map<FrameId, FrameId> frames_;
  std::vector<StackId> path_;
};

}  // namespace

Batch CopyBatch(const BatchView& view) {
  Batch batch;
  batch.tenant = view.tenant;
  batch.agent_id = view.agent_id;
  batch.node = view.node;
  batch.sequence = view.sequence;
  std::vector<uint32_t> series(view.series.size(), UINT32_MAX);
  const auto series_of = [&](uint32_t index) {
    if (series[index] == UINT32_MAX) {
      series[index] = static_cast<uint32_t>(batch.series.size());
      batch.series.push_back(view.series[index]);
    }
    return series[index];
  };
  DefinitionsMapper mapper(*view.definitions, &batch.dictionary);
  for (ProfilePoint point : view.profiles) {
    point.series = series_of(point.series);
    for (ProfilePoint::Sample& sample : point.samples) sample.stack = mapper.Stack(sample.stack);
    batch.profiles.push_back(std::move(point));
  }
  for (HistogramPoint point : view.histograms) {
    point.series = series_of(point.series);
    for (Exemplar& exemplar : point.exemplars) {
      exemplar.stack = mapper.Stack(exemplar.stack);
      exemplar.waker.stack = mapper.Stack(exemplar.waker.stack);
    }
    batch.histograms.push_back(std::move(point));
  }
  for (CounterPoint point : view.counters) {
    point.series = series_of(point.series);
    batch.counters.push_back(point);
  }
  return batch;
}

}  // namespace pyrometer::profile

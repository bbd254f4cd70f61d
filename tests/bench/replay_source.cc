#include "tests/bench/replay_source.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "ui-export/formats/format.h"
#include "userspace/base/strings.h"
#include "userspace/regression/run_file.h"

namespace pyrometer::bench {
namespace {

constexpr int kMaxGroups = 8;
// Of a file that does not say how long it lasted.
constexpr uint64_t kUnknownLengthNs = 10 * kNsPerSecond;

}  // namespace

StatusOr<std::unique_ptr<ReplaySource>> ReplaySource::Read(const std::string& path, const ReplayOptions& options) {
  std::unique_ptr<ReplaySource> source(new ReplaySource(options));
  profile::Dictionary dictionary;
  RETURN_IF_ERROR(path.ends_with(".pyro") ? source->AddRuns(path, &dictionary) : source->AddProfile(path, &dictionary));
  if (source->windows_.empty()) return InvalidArgumentError(path + " holds no samples");
  if (source->options_.windows == 0) source->options_.windows = source->windows_.size();
  source->start_ns_ = UnixNowNs() - static_cast<int64_t>(source->SinceStart(source->options_.windows + 1));
  for (int i = 0; i < std::min(options.agents, kMaxGroups); ++i) {
    profile::Batch batch;
    batch.dictionary = dictionary;
    source->groups_.push_back(std::move(batch));
  }
  return source;
}

Status ReplaySource::AddRuns(const std::string& path, profile::Dictionary* dictionary) {
  ASSIGN_OR_RETURN(const regression::RunSet runs, regression::ReadRunFile(path));
  const regression::RunOrigin& origin = runs.origin(regression::Side::kBaseline);
  const std::string service = std::filesystem::path(origin.command.substr(0, origin.command.find(' '))).filename();
  ASSIGN_OR_RETURN(
      profile::LabelSet labels,
      profile::LabelSet::Make({{std::string(profile::kLabelService), service.empty() ? "replay" : service}}));
  series_.push_back({std::string(profile::kTypeCpu), std::move(labels)});
  std::vector<profile::StackId> stacks(runs.nodes().size(), profile::kEmptyStack);
  for (size_t node = 1; node < stacks.size(); ++node) {
    const regression::FunctionFacts& facts = runs.functions()[runs.nodes()[node].function];
    const auto function = dictionary->InternFunction({.name = dictionary->InternString(facts.name),
                                                      .file = dictionary->InternString(facts.file),
                                                      .start_line = facts.line});
    const auto mapping = dictionary->InternMapping({.file = dictionary->InternString(facts.module)});
    // Addresses are gone; the functions are what there is.
    stacks[node] = dictionary->InternStack(
        stacks[runs.nodes()[node].parent],
        dictionary->InternFrame(
            {.kind = profile::FrameKind::kNative, .mapping = mapping, .lines = {{function, facts.line}}}));
  }
  const uint64_t period_ns = kNsPerSecond / std::max<uint32_t>(1, origin.frequency_hz);
  for (const regression::Run& run : runs.runs()) {
    const uint64_t length_ns = run.facts.wall_ns > 0 ? run.facts.wall_ns : kUnknownLengthNs;
    profile::ProfilePoint point{.duration_ns = length_ns, .period_ns = period_ns};
    for (const auto& [node, count] : run.counts) point.samples.push_back({stacks[node], count, count * period_ns});
    Window window{.since_start_ns = length_ns_};
    window.points.push_back(std::move(point));
    windows_.push_back(std::move(window));
    length_ns_ += length_ns;
  }
  return OkStatus();
}

Status ReplaySource::AddProfile(const std::string& path, profile::Dictionary* dictionary) {
  ASSIGN_OR_RETURN(const profile::Profile read, formats::ReadProfile(path));
  size_t counts = 0;
  while (counts < read.value_types.size() && read.value_types[counts].unit != "count") ++counts;
  if (counts == read.value_types.size()) {
    return InvalidArgumentError(path + " says no numbers of samples: replay a recording of `pyrometer record`");
  }
  length_ns_ = read.duration_ns > 0 ? read.duration_ns : kUnknownLengthNs;
  const uint64_t period_ns = static_cast<uint64_t>(std::max<int64_t>(1, read.period));
  profile::DictionaryMapper mapper(read.dictionary, dictionary);
  std::map<profile::LabelSetId, size_t> points;
  Window window;
  for (size_t i = 0; i < read.sample_count(); ++i) {
    const profile::Profile::Sample& sample = read.sample(i);
    const auto [entry, added] = points.try_emplace(sample.labels, window.points.size());
    if (added) {
      profile::LabelSet labels = read.dictionary.label_set(sample.labels);
      if (!labels.Has(profile::kLabelService)) labels = labels.With(profile::kLabelService, "replay");
      window.points.push_back(
          {.series = static_cast<uint32_t>(series_.size()), .duration_ns = length_ns_, .period_ns = period_ns});
      series_.push_back({std::string(profile::kTypeCpu), std::move(labels)});
    }
    const auto count = static_cast<uint64_t>(std::max<int64_t>(0, read.values(i)[counts]));
    if (count == 0) continue;
    window.points[entry->second].samples.push_back({mapper.Stack(sample.stack), count, count * period_ns});
  }
  if (!window.points.empty()) windows_.push_back(std::move(window));
  return OkStatus();
}

uint64_t ReplaySource::SinceStart(uint64_t sequence) const {
  const uint64_t index = sequence - 1;
  return index / windows_.size() * length_ns_ + windows_[index % windows_.size()].since_start_ns;
}

uint64_t ReplaySource::DueNs(uint64_t sequence) const {
  // A window is sent when it is over.
  if (options_.speed <= 0) return 0;
  return static_cast<uint64_t>(static_cast<double>(SinceStart(sequence + 1)) / options_.speed);
}

rpc::Hello ReplaySource::Hello(int agent) const {
  return {.agent_id = StrFormat("replay-%d", agent), .node = StrFormat("node-%d", agent)};
}

const profile::Batch& ReplaySource::Get(int agent, uint64_t sequence) {
  profile::Batch& batch = groups_[static_cast<size_t>(Group(agent))];
  const rpc::Hello hello = Hello(agent);
  batch.agent_id = hello.agent_id;
  batch.node = hello.node;
  batch.sequence = sequence;
  batch.series = series_;
  for (profile::SeriesKey& series : batch.series) {
    series.labels =
        series.labels.With(profile::kLabelNode, hello.node).With(profile::kLabelPod, StrFormat("pod-%d", agent));
  }
  batch.profiles = windows_[(sequence - 1) % windows_.size()].points;
  for (profile::ProfilePoint& point : batch.profiles) {
    point.time_ns = start_ns_ + static_cast<int64_t>(SinceStart(sequence));
  }
  return batch;
}

}  // namespace pyrometer::bench

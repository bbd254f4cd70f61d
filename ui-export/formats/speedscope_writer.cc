#include <algorithm>
#include <unordered_map>

#include "ui-export/formats/call_tree.h"
#include "ui-export/formats/format.h"
#include "ui-export/formats/frame_kinds.h"
#include "ui-export/formats/json_text.h"
#include "ui-export/formats/speedscope.h"
#include "userspace/base/strings.h"
#include "userspace/base/version.h"

namespace pyrometer::formats {
namespace {

// Browsers run out of memory somewhere above this (speedscope issues 347 and 519).
constexpr size_t kBrowserComfortBytes = size_t{60} << 20;

std::string_view SpeedscopeUnit(std::string_view unit) {
  for (const std::string_view known : {"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}) {
    if (unit == known) return known;
  }
  return "none";
}

class SpeedscopeWriter {
 public:
  SpeedscopeWriter(const profile::Profile& profile, std::string_view title)
      : profile_(profile), title_(title), tree_(BuildCallTree(profile)) {}

  StatusOr<std::string> Write(std::vector<std::string>* notes) {
    out_ = "{\"$schema\":";
    AppendJsonString(&out_, kSpeedscopeSchema);
    out_ += ",\"name\":";
    AppendJsonString(&out_, title_);
    out_ += ",\"exporter\":";
    AppendJsonString(&out_, StrFormat("pyrometer %s", kVersion));
    const std::vector<std::string> containers = ContainersByWeight();
    const bool by_container = containers.size() > 1 || (containers.size() == 1 && !containers[0].empty());
    // Viewers open on the first: the container with most of the default value.
    std::vector<size_t> types{profile_.default_value};
    for (size_t t = 0; t < profile_.value_types.size(); ++t) {
      if (t != profile_.default_value) types.push_back(t);
    }
    std::string profiles;
    for (const size_t type : types) {
      for (const std::string& container : containers) {
        if (!profiles.empty()) profiles += ",\n";
        RETURN_IF_ERROR(AppendProfile(&profiles, type, container, by_container));
      }
    }
    out_ += ",\"activeProfileIndex\":0,\n\"shared\":{\"frames\":[";
    AppendFrames();
    out_ += "]},\n\"profiles\":[\n";
    out_ += profiles;
    out_ += "]}\n";
    if (notes != nullptr) AppendNotes(notes);
    return std::move(out_);
  }

 private:
  std::vector<std::string> ContainersByWeight() const {
    std::vector<std::string> containers = LabelValues(profile_, profile::kLabelContainerName);
    std::unordered_map<std::string_view, double> weights;
    for (size_t i = 0; i < profile_.sample_count(); ++i) {
      const profile::LabelSet& labels = profile_.dictionary.label_set(profile_.sample(i).labels);
      weights[labels.Get(profile::kLabelContainerName)] +=
          static_cast<double>(profile_.values(i)[profile_.default_value]);
    }
    std::stable_sort(containers.begin(), containers.end(),
                     [&](const std::string& a, const std::string& b) { return weights[a] > weights[b]; });
    return containers;
  }

  Status AppendProfile(std::string* out, size_t type, std::string_view container, bool by_container) {
    const profile::ValueType& value_type = profile_.value_types[type];
    // Values by node, of this container's samples only.
    std::vector<std::pair<uint32_t, uint64_t>> weights;
    std::unordered_map<uint32_t, size_t> index;
    for (size_t i = 0; i < profile_.sample_count(); ++i) {
      const profile::LabelSet& labels = profile_.dictionary.label_set(profile_.sample(i).labels);
      if (labels.Get(profile::kLabelContainerName) != container) continue;
      const uint32_t node = tree_.node_of_sample(i);
      const auto [entry, added] = index.try_emplace(node, weights.size());
      if (added) weights.emplace_back(node, 0);
      weights[entry->second].second += static_cast<uint64_t>(profile_.values(i)[type]);
    }
    std::erase_if(weights, [this](const auto& weight) {
      negative_ |= static_cast<int64_t>(weight.second) < 0;
      return static_cast<int64_t>(weight.second) <= 0;
    });
    std::string name = value_type.type;
    // As a selector says it: an empty value is "in no container".
    if (by_container) {
      name += StrFormat("{%s=\"", profile::kLabelContainerName);
      for (const char c : container) {
        if (c == '\\' || c == '"') name += '\\';
        name += c == '\n' ? std::string("\\n") : std::string(1, c);
      }
      name += "\"}";
    }
    *out += "{\"type\":\"sampled\",\"name\":";
    AppendJsonString(out, name);
    *out += ",\"unit\":\"";
    *out += SpeedscopeUnit(value_type.unit);
    *out += "\",\"startValue\":0,\"endValue\":";
    uint64_t total = 0;
    for (const auto& [node, weight] : weights) total += weight;
    *out += std::to_string(total);
    *out += ",\"samples\":[";
    std::vector<uint32_t> path;
    for (size_t i = 0; i < weights.size(); ++i) {
      path.clear();
      for (uint32_t node = weights[i].first; node != 0; node = tree_.nodes()[node].parent) {
        path.push_back(SharedFrame(tree_.nodes()[node].frame));
      }
      *out += i > 0 ? ",[" : "[";
      for (size_t p = path.size(); p > 0; --p) {
        *out += std::to_string(path[p - 1]);
        if (p > 1) *out += ',';
      }
      *out += ']';
      if (out->size() > kMaxOutputBytes) {
        return ResourceExhaustedError(StrFormat("the speedscope file would exceed %s; cut the profile or write pprof",
                                                FormatBytes(kMaxOutputBytes)));
      }
    }
    *out += "],\"weights\":[";
    for (size_t i = 0; i < weights.size(); ++i) {
      if (i > 0) *out += ',';
      *out += std::to_string(weights[i].second);
    }
    *out += "]}";
    return OkStatus();
  }

  // Index into shared.frames, which holds only frames that are used.
  uint32_t SharedFrame(uint32_t frame) {
    const auto [entry, added] = shared_.try_emplace(frame, static_cast<uint32_t>(shared_frames_.size()));
    if (added) shared_frames_.push_back(frame);
    return entry->second;
  }

  void AppendFrames() {
    for (size_t i = 0; i < shared_frames_.size(); ++i) {
      const CallTreeFrame& frame = tree_.frames()[shared_frames_[i]];
      out_ += i > 0 ? ",\n{\"name\":" : "{\"name\":";
      AppendJsonString(&out_, frame.name);
      // speedscope colours by file: without a source file the library or "[kernel]" serves.
      std::string_view file = frame.file;
      if (file.empty() && (frame.module.starts_with('[') || LooksLikeLibrary(frame.module))) file = frame.module;
      if (file.empty()) file = PseudoMapping(frame.kind);
      if (!file.empty()) {
        out_ += ",\"file\":";
        AppendJsonString(&out_, file);
      }
      if (frame.line > 0) out_ += ",\"line\":" + std::to_string(std::min(frame.line, kMaxSafeInteger));
      out_ += '}';
    }
  }

  void AppendNotes(std::vector<std::string>* notes) {
    notes->push_back(
        "speedscope files hold names, files and lines: addresses, build IDs, times and labels but the container's "
        "name are lost");
    if (negative_) notes->push_back("stacks with negative values were left out");
    if (tree_.truncated()) notes->push_back("too many distinct stacks: the deepest count for their callers");
    if (out_.size() > kBrowserComfortBytes) {
      notes->push_back(StrFormat("the file is %s: browsers may run out of memory on it; cut it by time or container",
                                 FormatBytes(out_.size())));
    }
  }

  const profile::Profile& profile_;
  std::string_view title_;
  const CallTree tree_;
  std::string out_;
  std::unordered_map<uint32_t, uint32_t> shared_;
  std::vector<uint32_t> shared_frames_;
  bool negative_ = false;
};

}  // namespace

StatusOr<std::string> WriteSpeedscope(const profile::Profile& profile, std::string_view title,
                                      std::vector<std::string>* notes) {
  if (profile.default_value >= profile.value_types.size()) {
    return InvalidArgumentError("a profile without value types cannot be written");
  }
  return SpeedscopeWriter(profile, title).Write(notes);
}

}  // namespace pyrometer::formats

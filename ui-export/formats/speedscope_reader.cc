#include <algorithm>
#include <cmath>

#include "ui-export/formats/format.h"
#include "ui-export/formats/frame_kinds.h"
#include "ui-export/formats/import.h"
#include "ui-export/formats/json_text.h"
#include "ui-export/formats/speedscope.h"
#include "userspace/base/strings.h"

namespace pyrometer::formats {
namespace {

using nlohmann::json;

constexpr size_t kMaxProfiles = 4096;
constexpr size_t kMaxTypes = 16;

struct Unit {
  std::string_view name;
  int64_t scale;              // to our unit
  std::string_view our_type;  // when the profile's name does not say
  std::string_view our_unit;
};
constexpr Unit kUnits[] = {
    {"none", 1, "samples", "count"},
    {"nanoseconds", 1, "time", "nanoseconds"},
    {"microseconds", 1'000, "time", "nanoseconds"},
    {"milliseconds", 1'000'000, "time", "nanoseconds"},
    {"seconds", 1'000'000'000, "time", "nanoseconds"},
    {"bytes", 1, "space", "bytes"},
};

// `cpu{container.name="shop"}`, as our writer names profiles, into its parts. Any other name has no
// parts: false.
bool ParseSelectorName(std::string_view name, std::string* type, std::string* container) {
  const std::string opening = StrFormat("{%s=\"", profile::kLabelContainerName);
  const size_t brace = name.find(opening);
  *type = name.substr(0, brace);
  if (brace == std::string_view::npos) return true;
  if (!name.ends_with("\"}")) return false;
  const size_t start = brace + opening.size();
  if (name.size() < start + 2) return false;
  const std::string_view quoted = name.substr(start, name.size() - start - 2);
  for (size_t i = 0; i < quoted.size(); ++i) {
    if (quoted[i] == '\\' && i + 1 < quoted.size()) {
      ++i;
      container->push_back(quoted[i] == 'n' ? '\n' : quoted[i]);
    } else {
      container->push_back(quoted[i]);
    }
  }
  return true;
}

class SpeedscopeReader {
 public:
  explicit SpeedscopeReader(const json& document) : document_(document) {}

  StatusOr<profile::Profile> Read(std::vector<std::string>* notes) {
    const json* exporter = Find(document_, "exporter");
    ours_ = exporter != nullptr && exporter->is_string() &&
            exporter->get_ref<const std::string&>().starts_with("pyrometer ");
    RETURN_IF_ERROR(ReadFrames());
    const json* profiles = Find(document_, "profiles");
    if (profiles == nullptr || !profiles->is_array() || profiles->empty()) {
      return InvalidArgumentError("not a valid speedscope file: \"profiles\" is missing or empty");
    }
    if (profiles->size() > kMaxProfiles) {
      return ResourceExhaustedError(StrFormat("speedscope file with more than %d profiles", kMaxProfiles));
    }
    // All value types first: samples need a slot for each.
    for (const json& one : *profiles) {
      ASSIGN_OR_RETURN(const Header header, ReadHeader(one));
      headers_.push_back(header);
    }
    for (size_t i = 0; i < headers_.size(); ++i) {
      Status status =
          headers_[i].evented ? ReadEvents((*profiles)[i], headers_[i]) : ReadSamples((*profiles)[i], headers_[i]);
      if (!status.ok()) return WithContext(status, StrFormat("not a valid speedscope file: profile %d", i));
    }
    if (const json* active = Find(document_, "activeProfileIndex")) {
      const auto index = JsonUint64(*active);
      if (index && *index < headers_.size()) profile_.default_value = headers_[*index].type;
    }
    if (notes != nullptr && truncated_) {
      notes->push_back(StrFormat("stacks deeper than %d frames were cut", kMaxStackDepth));
    }
    return std::move(profile_);
  }

 private:
  struct Header {
    bool evented = false;
    size_t type = 0;
    double scale = 1;
    profile::LabelSetId labels = 0;
  };

  StatusOr<Header> ReadHeader(const json& one) {
    const json* type = Find(one, "type");
    const json* name = Find(one, "name");
    const json* unit = Find(one, "unit");
    if (type == nullptr || !type->is_string() || name == nullptr || !name->is_string() || unit == nullptr ||
        !unit->is_string()) {
      return InvalidArgumentError("not a valid speedscope file: a profile lacks \"type\", \"name\" or \"unit\"");
    }
    const auto known = std::find_if(std::begin(kUnits), std::end(kUnits),
                                    [&](const Unit& u) { return u.name == unit->get_ref<const std::string&>(); });
    if (known == std::end(kUnits)) {
      return InvalidArgumentError(StrFormat("not a valid speedscope file: unknown unit \"%s\"",
                                            unit->get_ref<const std::string&>().substr(0, 40)));
    }
    Header header{.scale = static_cast<double>(known->scale)};
    const std::string& kind = type->get_ref<const std::string&>();
    if (kind != "sampled" && kind != "evented") {
      return InvalidArgumentError(
          StrFormat("not a valid speedscope file: a profile of unknown type \"%s\"", kind.substr(0, 40)));
    }
    header.evented = kind == "evented";
    profile::ValueType value_type{std::string(known->our_type), std::string(known->our_unit)};
    std::vector<profile::Label> labels;
    std::string own_type;
    std::string container;
    if (ours_ && ParseSelectorName(name->get_ref<const std::string&>(), &own_type, &container)) {
      value_type.type = own_type;
      labels.push_back({std::string(profile::kLabelContainerName), container});
    } else if (Find(document_, "profiles")->size() > 1) {
      labels.push_back({"profile", name->get<std::string>()});
    }
    header.labels = profile_.dictionary.InternLabelSet(profile::LabelSet::MakeLenient(std::move(labels)));
    auto& types = profile_.value_types;
    const auto found = std::find(types.begin(), types.end(), value_type);
    header.type = static_cast<size_t>(found - types.begin());
    if (found == types.end()) {
      if (types.size() >= kMaxTypes) {
        return ResourceExhaustedError(StrFormat("speedscope file with more than %d value types", kMaxTypes));
      }
      types.push_back(std::move(value_type));
    }
    return header;
  }

  Status ReadFrames() {
    const json* shared = Find(document_, "shared");
    const json* frames = shared == nullptr ? nullptr : Find(*shared, "frames");
    if (frames == nullptr || !frames->is_array()) {
      return InvalidArgumentError("not a valid speedscope file: \"shared.frames\" is missing or not a list");
    }
    for (const json& entry : *frames) {
      const json* name = Find(entry, "name");
      if (name == nullptr || !name->is_string()) {
        return InvalidArgumentError("not a valid speedscope file: a frame without \"name\"");
      }
      NamedFrame frame{.name = name->get_ref<const std::string&>()};
      const json* file = Find(entry, "file");
      if (file != nullptr && file->is_string()) frame.file = file->get_ref<const std::string&>();
      for (const auto& [key, field] : {std::pair{"line", &frame.line}, std::pair{"col", &frame.column}}) {
        if (const json* value = Find(entry, key)) *field = JsonInt64(*value).value_or(0);
      }
      frames_.push_back(InternFrame(frame));
    }
    return OkStatus();
  }

  // "[kernel]" and libraries as file are how writers, ours too, name the module.
  profile::FrameId InternFrame(NamedFrame frame) {
    const FrameClues clues{.mapping_file = frame.file, .function_name = frame.name};
    if (frame.file.empty() || (frame.file.front() != '[' && !LooksLikeLibrary(frame.file))) {
      if (frame.name.starts_with(kTruncatedFrame)) frame.kind = profile::FrameKind::kSynthetic;
      return InternNamedFrame(&profile_.dictionary, frame);
    }
    profile::Dictionary& dictionary = profile_.dictionary;
    profile::Frame made{.kind = ClassifyFrame(clues)};
    if (!IsPseudoMapping(frame.file)) {
      made.mapping = dictionary.InternMapping({.file = dictionary.InternString(ToUtf8(frame.file))});
    }
    frame.file = {};
    made.lines.push_back(InternNamedLine(&dictionary, frame));
    return dictionary.InternFrame(std::move(made));
  }

  StatusOr<profile::FrameId> Frame(const json& value) const {
    const auto index = JsonUint64(value);
    if (!index || *index >= frames_.size()) {
      return InvalidArgumentError("refers to a frame that is not in \"shared.frames\"");
    }
    return frames_[*index];
  }

  Status Add(const Header& header, profile::StackId stack, int64_t value) {
    row_.assign(profile_.value_types.size(), 0);
    row_[header.type] = value;
    profile_.Add(header.labels, stack, row_);
    return CheckStackBudget(profile_.dictionary);
  }

  static StatusOr<int64_t> Scaled(double value, double scale) {
    constexpr double kLimit = 9.2e18;  // just below INT64_MAX
    const double scaled = value * scale;
    if (!(std::fabs(scaled) < kLimit)) return InvalidArgumentError("holds a value out of range");
    return std::llround(scaled);
  }

  Status ReadSamples(const json& one, const Header& header) {
    const json* samples = Find(one, "samples");
    const json* weights = Find(one, "weights");
    if (samples == nullptr || !samples->is_array() || weights == nullptr || !weights->is_array() ||
        samples->size() != weights->size()) {
      return InvalidArgumentError("needs \"samples\" and \"weights\" of equal length");
    }
    std::vector<profile::FrameId> frames;
    for (size_t i = 0; i < samples->size(); ++i) {
      const json& sample = (*samples)[i];
      const json& weight = (*weights)[i];
      if (!sample.is_array() || !weight.is_number()) {
        return InvalidArgumentError("holds a sample that is not a list or a weight that is not a number");
      }
      frames.clear();
      for (auto frame = sample.rbegin(); frame != sample.rend(); ++frame) {
        ASSIGN_OR_RETURN(const profile::FrameId id, Frame(*frame));
        frames.push_back(id);
      }
      truncated_ |= LimitDepth(&profile_.dictionary, &frames);
      const auto whole = header.scale == 1 ? JsonInt64(weight) : std::nullopt;
      int64_t value = 0;
      if (whole) {
        value = *whole;
      } else {
        ASSIGN_OR_RETURN(value, Scaled(weight.get<double>(), header.scale));
      }
      RETURN_IF_ERROR(Add(header, stacks_.Intern(&profile_.dictionary, frames), value));
    }
    return OkStatus();
  }

  // Time between two events belongs to the stack that was open meanwhile.
  Status ReadEvents(const json& one, const Header& header) {
    const json* events = Find(one, "events");
    if (events == nullptr || !events->is_array()) return InvalidArgumentError("needs \"events\"");
    struct Open {
      profile::FrameId frame;
      profile::StackId stack;
    };
    std::vector<Open> open;
    double last = 0;
    bool first = true;
    for (const json& event : *events) {
      const json* type = Find(event, "type");
      const json* at = Find(event, "at");
      const json* frame = Find(event, "frame");
      if (type == nullptr || !type->is_string() || at == nullptr || !at->is_number() || frame == nullptr) {
        return InvalidArgumentError("holds an event without \"type\", \"at\" or \"frame\"");
      }
      const double now = at->get<double>();
      if (!first && now < last) return InvalidArgumentError("holds events that are not in order of time");
      if (!first && now > last) {
        ASSIGN_OR_RETURN(const int64_t value, Scaled(now - last, header.scale));
        if (!open.empty() && value > 0) RETURN_IF_ERROR(Add(header, open.back().stack, value));
      }
      first = false;
      last = now;
      ASSIGN_OR_RETURN(const profile::FrameId id, Frame(*frame));
      if (type->get_ref<const std::string&>() == "O") {
        const profile::StackId below = open.empty() ? profile::kEmptyStack : open.back().stack;
        // Below the limit the stack grows; above, time counts for the deepest frame kept.
        const bool keep = open.size() < kMaxStackDepth;
        truncated_ |= !keep;
        open.push_back({id, keep ? profile_.dictionary.InternStack(below, id) : below});
        RETURN_IF_ERROR(CheckStackBudget(profile_.dictionary));
      } else if (type->get_ref<const std::string&>() == "C") {
        if (open.empty() || open.back().frame != id) {
          return InvalidArgumentError("closes a frame that is not the innermost open one");
        }
        open.pop_back();
      } else {
        return InvalidArgumentError("holds an event that neither opens (\"O\") nor closes (\"C\")");
      }
    }
    if (!open.empty()) return InvalidArgumentError("leaves frames open at its end");
    return OkStatus();
  }

  const json& document_;
  bool ours_ = false;
  profile::Profile profile_;
  std::vector<profile::FrameId> frames_;  // by index in shared.frames
  std::vector<Header> headers_;
  StackInterner stacks_;
  std::vector<int64_t> row_;
  bool truncated_ = false;
};

}  // namespace

StatusOr<profile::Profile> ReadSpeedscope(const json& document, std::vector<std::string>* notes) {
  return SpeedscopeReader(document).Read(notes);
}

}  // namespace pyrometer::formats

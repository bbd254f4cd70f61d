#include "ui-export/formats/viewer_json.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "ui-export/formats/call_tree.h"
#include "ui-export/formats/json_text.h"

namespace pyrometer::formats {
namespace {

// Appends "a,b,c" of what `value(i)` gives for i in [0, count).
template <typename Value>
void AppendList(std::string* out, size_t count, const Value& value) {
  out->push_back('[');
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out->push_back(',');
    *out += std::to_string(value(i));
  }
  out->push_back(']');
}

class StringTable {
 public:
  StringTable() { Id(""); }
  // `text` must outlive the table.
  uint32_t Id(std::string_view text) {
    const auto [entry, added] = ids_.try_emplace(text, static_cast<uint32_t>(strings_.size()));
    if (added) strings_.push_back(text);
    return entry->second;
  }
  const std::vector<std::string_view>& strings() const { return strings_; }

 private:
  std::unordered_map<std::string_view, uint32_t> ids_;
  std::vector<std::string_view> strings_;
};

// What all of them share: header, strings, label sets.
class ViewerWriter {
 public:
  virtual ~ViewerWriter() = default;

  std::string Write(std::string_view title) {
    // Samples and frames first: what had to be changed becomes a comment of the header.
    const std::string frames = Frames();
    const std::string nodes = Nodes();
    const std::string samples = Samples();
    std::string out = "{\"version\":1,\"title\":";
    AppendJsonString(&out, title);
    out += ",\"profile\":";
    AppendHeader(&out);
    out += Range();
    out += ",\"strings\":[";
    for (size_t i = 0; i < strings_.strings().size(); ++i) {
      if (i > 0) out += ',';
      AppendJsonString(&out, strings_.strings()[i]);
    }
    out += "],\"frames\":";
    out += frames;
    out += ",\"nodes\":";
    out += nodes;
    out += ",\"labelSets\":";
    AppendLabelSets(&out);
    out += ",\"samples\":";
    out += samples;
    return out + "}";
  }

 protected:
  explicit ViewerWriter(const profile::Profile& profile) : profile_(profile) {}
  // A member "range" with a comma in front, or nothing.
  virtual std::string Range() const { return ""; }
  virtual std::string Frames() = 0;
  virtual std::string Nodes() = 0;
  virtual std::string Samples() = 0;
  virtual bool truncated() const = 0;

  const profile::Profile& profile_;
  StringTable strings_;

  int64_t Clamp(int64_t value) {
    const int64_t clamped = std::clamp(value, -kMaxSafeInteger, kMaxSafeInteger);
    clamped_ |= clamped != value;
    return clamped;
  }
  uint64_t Clamp(uint64_t value) {
    clamped_ |= value > static_cast<uint64_t>(kMaxSafeInteger);
    return std::min(value, static_cast<uint64_t>(kMaxSafeInteger));
  }
  std::map<std::string, uint64_t> Clamp(std::map<std::string, uint64_t> counts) {
    for (auto& [name, count] : counts) count = Clamp(count);
    return counts;
  }

  uint32_t LabelSet(profile::LabelSetId id) {
    const auto [entry, added] = label_set_ids_.try_emplace(id, static_cast<uint32_t>(label_sets_.size()));
    if (added) label_sets_.push_back(id);
    return entry->second;
  }

 private:
  void AppendLabelSets(std::string* out) {
    *out += "[";
    for (size_t i = 0; i < label_sets_.size(); ++i) {
      *out += i > 0 ? ",{" : "{";
      bool first = true;
      for (const profile::Label& label : profile_.dictionary.label_set(label_sets_[i]).labels()) {
        if (!first) *out += ',';
        first = false;
        AppendJsonString(out, label.name);
        *out += ':';
        AppendJsonString(out, label.value);
      }
      *out += '}';
    }
    *out += ']';
  }

  void AppendHeader(std::string* out) {
    *out += "{\"timeNs\":\"" + std::to_string(profile_.time_ns) + "\",\"durationNs\":\"" +
            std::to_string(profile_.duration_ns) + "\",\"period\":" + std::to_string(Clamp(profile_.period)) +
            ",\"types\":[";
    for (size_t t = 0; t < profile_.value_types.size(); ++t) {
      *out += t > 0 ? ",{\"type\":" : "{\"type\":";
      AppendJsonString(out, profile_.value_types[t].type);
      *out += ",\"unit\":";
      AppendJsonString(out, profile_.value_types[t].unit);
      *out += '}';
    }
    profile::Accounting accounting = profile_.accounting;
    accounting.taken = Clamp(accounting.taken);
    accounting.delivered = Clamp(accounting.delivered);
    accounting.dropped = Clamp(std::move(accounting.dropped));
    accounting.stop_reasons = Clamp(std::move(accounting.stop_reasons));
    accounting.miss_reasons = Clamp(std::move(accounting.miss_reasons));
    accounting.expected = Clamp(accounting.expected);
    accounting.means = Clamp(std::move(accounting.means));
    accounting.frames = Clamp(accounting.frames);
    *out += "],\"defaultType\":" +
            std::to_string(profile_.default_value < profile_.value_types.size() ? profile_.default_value : 0) +
            ",\"accounting\":";
    AppendJsonAccounting(out, accounting);
    std::vector<std::string> comments = profile_.comments;
    if (clamped_) comments.push_back("numbers beyond 9,007,199,254,740,991 are shown as that");
    if (truncated()) comments.push_back("too many distinct stacks to show: the deepest count for their callers");
    *out += ",\"comments\":[";
    for (size_t i = 0; i < comments.size(); ++i) {
      if (i > 0) *out += ',';
      AppendJsonString(out, comments[i]);
    }
    *out += "]}";
  }

  std::unordered_map<profile::LabelSetId, uint32_t> label_set_ids_;
  std::vector<profile::LabelSetId> label_sets_;
  bool clamped_ = false;
};

class ProfileWriter : public ViewerWriter {
 public:
  explicit ProfileWriter(const profile::Profile& profile) : ViewerWriter(profile), tree_(BuildCallTree(profile)) {}

 private:
  std::string Frames() override {
    const std::vector<CallTreeFrame>& frames = tree_.frames();
    const size_t count = frames.size();
    std::string out = "{\"name\":";
    AppendList(&out, count, [&](size_t i) { return strings_.Id(frames[i].name); });
    out += ",\"kind\":";
    AppendList(&out, count, [&](size_t i) { return static_cast<int>(frames[i].kind); });
    out += ",\"module\":";
    AppendList(&out, count, [&](size_t i) { return strings_.Id(frames[i].module); });
    out += ",\"file\":";
    AppendList(&out, count, [&](size_t i) { return strings_.Id(frames[i].file); });
    out += ",\"line\":";
    AppendList(&out, count, [&](size_t i) { return Clamp(frames[i].line); });
    out += ",\"inlined\":";
    AppendList(&out, count, [&](size_t i) { return frames[i].inlined ? 1 : 0; });
    return out + "}";
  }

  std::string Nodes() override {
    const std::vector<CallTree::Node>& nodes = tree_.nodes();
    std::string out = "{\"frame\":";
    AppendList(&out, nodes.size(), [&](size_t i) { return nodes[i].frame; });
    out += ",\"parent\":";
    AppendList(&out, nodes.size(), [&](size_t i) { return i == 0 ? int64_t{-1} : int64_t{nodes[i].parent}; });
    return out + "}";
  }

  // One entry per (labels, node): stacks that differ only in addresses or lines share a node.
  std::string Samples() override {
    struct Row {
      uint32_t labels;
      uint32_t node;
    };
    const size_t types = profile_.value_types.size();
    std::vector<Row> rows;
    std::vector<uint64_t> values;  // types × rows; unsigned: sums of hostile values may wrap
    std::unordered_map<uint64_t, size_t> row_of;
    for (size_t i = 0; i < profile_.sample_count(); ++i) {
      const uint32_t labels = LabelSet(profile_.sample(i).labels);
      const uint32_t node = tree_.node_of_sample(i);
      const auto [entry, added] = row_of.try_emplace(uint64_t{labels} << 32 | node, rows.size());
      if (added) {
        rows.push_back({labels, node});
        values.resize(values.size() + types);
      }
      for (size_t t = 0; t < types; ++t) {
        values[entry->second * types + t] += static_cast<uint64_t>(profile_.values(i)[t]);
      }
    }
    std::string out = "{\"labels\":";
    AppendList(&out, rows.size(), [&](size_t i) { return rows[i].labels; });
    out += ",\"node\":";
    AppendList(&out, rows.size(), [&](size_t i) { return rows[i].node; });
    out += ",\"values\":[";
    for (size_t t = 0; t < types; ++t) {
      if (t > 0) out += ',';
      AppendList(&out, rows.size(), [&](size_t i) { return Clamp(static_cast<int64_t>(values[i * types + t])); });
    }
    return out + "]}";
  }
  bool truncated() const override { return tree_.truncated(); }

  const CallTree tree_;
};

class FlameWriter : public ViewerWriter {
 public:
  explicit FlameWriter(const profile::FlameGraph& flame) : ViewerWriter(flame.header), flame_(flame) {}

 private:
  std::string Range() const override {
    constexpr int64_t kNsPerMs = 1'000'000;
    return ",\"range\":[" + std::to_string(flame_.from_ns / kNsPerMs) + "," + std::to_string(flame_.to_ns / kNsPerMs) +
           "]";
  }
  // One function is two frames when it is inlined at some places only.
  std::string Frames() override {
    std::unordered_map<uint32_t, uint32_t> ids;
    std::vector<uint32_t> frames;  // function << 1 | inlined
    for (const profile::FlameGraph::Node& node : flame_.nodes) {
      const uint32_t key = node.function << 1 | (node.inlined ? 1 : 0);
      const auto [entry, added] = ids.try_emplace(key, static_cast<uint32_t>(frames.size()));
      if (added) frames.push_back(key);
      frame_of_node_.push_back(entry->second);
    }
    const auto function = [&](size_t i) -> const profile::FlameGraph::Function& {
      return flame_.functions[frames[i] >> 1];
    };
    const size_t count = frames.size();
    std::string out = "{\"name\":";
    AppendList(&out, count, [&](size_t i) { return strings_.Id(function(i).name); });
    out += ",\"kind\":";
    AppendList(&out, count, [&](size_t i) { return static_cast<int>(function(i).kind); });
    out += ",\"module\":";
    AppendList(&out, count, [&](size_t i) { return strings_.Id(function(i).module); });
    out += ",\"file\":";
    AppendList(&out, count, [&](size_t i) { return strings_.Id(function(i).file); });
    out += ",\"line\":";
    AppendList(&out, count, [&](size_t i) { return function(i).line; });
    out += ",\"inlined\":";
    AppendList(&out, count, [&](size_t i) { return frames[i] & 1; });
    return out + "}";
  }

  std::string Nodes() override {
    std::string out = "{\"frame\":";
    AppendList(&out, flame_.nodes.size(), [&](size_t i) { return frame_of_node_[i]; });
    out += ",\"parent\":";
    AppendList(&out, flame_.nodes.size(),
               [&](size_t i) { return i == 0 ? int64_t{-1} : int64_t{flame_.nodes[i].parent}; });
    return out + "}";
  }

  std::string Samples() override {
    const std::vector<profile::FlameGraph::Row>& rows = flame_.rows;
    std::string out = "{\"labels\":";
    AppendList(&out, rows.size(), [&](size_t i) { return LabelSet(rows[i].labels); });
    out += ",\"node\":";
    AppendList(&out, rows.size(), [&](size_t i) { return rows[i].node; });
    out += ",\"values\":[";
    AppendList(&out, rows.size(), [&](size_t i) { return Clamp(rows[i].samples); });
    if (flame_.header.value_types.size() > 1) {
      out += ',';
      AppendList(&out, rows.size(), [&](size_t i) { return Clamp(rows[i].value); });
    }
    return out + "]}";
  }
  bool truncated() const override { return false; }

  const profile::FlameGraph& flame_;
  std::vector<uint32_t> frame_of_node_;
};

}  // namespace

std::string DefaultTitle(const profile::Profile& profile) {
  std::string title = profile.default_value < profile.value_types.size()
                          ? profile.value_types[profile.default_value].type
                          : std::string("profile");
  const struct {
    std::string_view label;
    std::string_view word;
  } kScopes[] = {
      {profile::kLabelContainerName, "container"}, {profile::kLabelService, "service"}, {profile::kLabelNode, "node"}};
  for (const auto& scope : kScopes) {
    const std::vector<std::string> values = LabelValues(profile, scope.label);
    if (values.size() == 1 && !values[0].empty()) {
      title += " of ";
      title += scope.word;
      return title + " " + values[0];
    }
  }
  return title;
}

std::string ViewerJson(const profile::Profile& profile, std::string_view title) {
  const std::string own_title = title.empty() ? DefaultTitle(profile) : std::string(title);
  return ProfileWriter(profile).Write(own_title);
}

std::string ViewerJson(const profile::FlameGraph& flame, std::string_view title) {
  return FlameWriter(flame).Write(title);
}

}  // namespace pyrometer::formats

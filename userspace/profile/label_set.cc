#include "userspace/profile/label_set.h"

#include <algorithm>
#include <functional>

#include "userspace/base/strings.h"

namespace pyrometer::profile {
namespace {

bool NameLess(const Label& label, std::string_view name) { return label.name < name; }

// Cuts at most at `limit` bytes, never inside a UTF-8 sequence.
std::string CutUtf8(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return std::string(text.substr(0, limit));
}

}  // namespace

StatusOr<LabelSet> LabelSet::Make(std::vector<Label> labels) {
  std::erase_if(labels, [](const Label& label) { return label.value.empty(); });
  std::sort(labels.begin(), labels.end());
  if (labels.size() > kMaxLabelsPerSet) {
    return InvalidArgumentError(StrFormat("%d labels on one series; the limit is %d", labels.size(), kMaxLabelsPerSet));
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    const Label& label = labels[i];
    if (label.name.empty()) return InvalidArgumentError("a label without a name");
    if (!IsUtf8(label.name) || !IsUtf8(label.value)) {
      return InvalidArgumentError(StrFormat("label '%s' is not UTF-8", ToUtf8(label.name)));
    }
    if (label.name.size() > kMaxLabelNameBytes || label.value.size() > kMaxLabelValueBytes) {
      return InvalidArgumentError(StrFormat("label '%s' is too long: names up to %d bytes, values up to %d",
                                            CutUtf8(label.name, 64), kMaxLabelNameBytes, kMaxLabelValueBytes));
    }
    if (i > 0 && labels[i - 1].name == label.name) {
      return InvalidArgumentError(StrFormat("label '%s' appears twice", label.name));
    }
  }
  LabelSet set;
  set.labels_ = std::move(labels);
  return set;
}

LabelSet LabelSet::MakeLenient(std::vector<Label> labels) {
  for (Label& label : labels) {
    label.name = CutUtf8(ToUtf8(label.name), kMaxLabelNameBytes);
    label.value = CutUtf8(ToUtf8(label.value), kMaxLabelValueBytes);
  }
  std::erase_if(labels, [](const Label& label) { return label.name.empty() || label.value.empty(); });
  std::stable_sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.name < b.name; });
  labels.erase(
      std::unique(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.name == b.name; }),
      labels.end());
  if (labels.size() > kMaxLabelsPerSet) labels.resize(kMaxLabelsPerSet);
  LabelSet set;
  set.labels_ = std::move(labels);
  return set;
}

std::string_view LabelSet::Get(std::string_view name) const {
  const auto found = std::lower_bound(labels_.begin(), labels_.end(), name, NameLess);
  return found != labels_.end() && found->name == name ? std::string_view(found->value) : std::string_view();
}

bool LabelSet::Has(std::string_view name) const { return !Get(name).empty(); }

LabelSet LabelSet::With(std::string_view name, std::string_view value) const {
  LabelSet copy = *this;
  auto found = std::lower_bound(copy.labels_.begin(), copy.labels_.end(), name, NameLess);
  const bool present = found != copy.labels_.end() && found->name == name;
  if (value.empty()) {
    if (present) copy.labels_.erase(found);
  } else if (present) {
    found->value = value;
  } else {
    copy.labels_.insert(found, Label{std::string(name), std::string(value)});
  }
  return copy;
}

LabelSet LabelSet::Only(const std::vector<std::string>& names) const {
  LabelSet subset;
  for (const Label& label : labels_) {
    if (std::find(names.begin(), names.end(), label.name) != names.end()) subset.labels_.push_back(label);
  }
  return subset;
}

std::string LabelSet::ToString() const {
  std::string out = "{";
  for (size_t i = 0; i < labels_.size(); ++i) {
    if (i > 0) out += ',';
    out += labels_[i].name;
    out += "=\"";
    for (const char c : labels_[i].value) {
      if (c == '\\' || c == '"') out += '\\';
      if (c == '\n') {
        out += "\\n";
      } else {
        out += c;
      }
    }
    out += '"';
  }
  return out + "}";
}

size_t LabelSetHash::operator()(const LabelSet& set) const {
  size_t hash = 0xcbf29ce484222325u;
  const auto mix = [&hash](std::string_view text) {
    hash = (hash ^ std::hash<std::string_view>{}(text)) * 0x9E3779B97F4A7C15u;
  };
  for (const Label& label : set.labels()) {
    mix(label.name);
    mix(label.value);
  }
  return hash;
}

}  // namespace pyrometer::profile

#include "ui-export/formats/call_tree.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

namespace pyrometer::formats {

using profile::FrameKind;

namespace {

// Beside containers stands what runs in none.
constexpr std::string_view kHost = "host";

}  // namespace

class CallTreeBuilder {
 public:
  CallTreeBuilder(const profile::Profile& profile, const std::vector<std::string>& root_labels)
      : profile_(profile), dictionary_(profile.dictionary), root_labels_(root_labels) {}

  CallTree Build() {
    tree_.frames_.push_back({.name = "all", .kind = FrameKind::kSynthetic});
    tree_.nodes_.push_back({});
    tree_.sample_nodes_.reserve(profile_.sample_count());
    for (size_t i = 0; i < profile_.sample_count(); ++i) {
      const profile::Profile::Sample& sample = profile_.sample(i);
      tree_.sample_nodes_.push_back(NodeOf(RootOf(sample.labels), sample.stack));
    }
    return std::move(tree_);
  }

 private:
  struct FrameHash {
    size_t operator()(const CallTreeFrame& f) const {
      const std::hash<std::string_view> hash;
      size_t h = hash(f.name) * 31 + static_cast<size_t>(f.kind) * 2 + (f.inlined ? 1 : 0);
      h = h * 1'000'003 + hash(f.module);
      return h * 1'000'003 + hash(f.file);
    }
  };

  uint32_t Intern(const CallTreeFrame& frame) {
    const auto [entry, added] = frame_ids_.try_emplace(frame, static_cast<uint32_t>(tree_.frames_.size()));
    if (added) tree_.frames_.push_back(frame);
    return entry->second;
  }

  uint32_t Child(uint32_t parent, uint32_t frame) {
    const auto found = children_.find(uint64_t{parent} << 32 | frame);
    if (found != children_.end()) return found->second;
    if (tree_.nodes_.size() >= kMaxCallTreeNodes) {
      tree_.truncated_ = true;
      return parent;
    }
    const uint32_t node = static_cast<uint32_t>(tree_.nodes_.size());
    tree_.nodes_.push_back({frame, parent});
    children_.emplace(uint64_t{parent} << 32 | frame, node);
    return node;
  }

  // What `id` looks like, outermost function first.
  const std::vector<uint32_t>& Expand(profile::FrameId id) {
    const auto [entry, added] = expanded_.try_emplace(id);
    if (!added) return entry->second;
    const profile::Frame& frame = dictionary_.frame(id);
    const std::string_view module = dictionary_.string(dictionary_.mapping(frame.mapping).file);
    if (frame.lines.empty()) {
      entry->second.push_back(Intern({.name = Own(dictionary_.FrameName(id)), .kind = frame.kind, .module = module}));
      return entry->second;
    }
    for (size_t i = frame.lines.size(); i > 0; --i) {
      const profile::Function& function = dictionary_.function(frame.lines[i - 1].function);
      std::string_view name = dictionary_.string(function.name);
      if (name.empty()) name = Own(dictionary_.FrameName(id, i - 1));
      entry->second.push_back(Intern({.name = name,
                                      .kind = frame.kind,
                                      .module = module,
                                      .file = dictionary_.string(function.file),
                                      .line = function.start_line,
                                      .inlined = i < frame.lines.size()}));
    }
    return entry->second;
  }

  uint32_t RootOf(profile::LabelSetId labels) {
    if (root_labels_.empty()) return 0;
    const auto [entry, added] = roots_.try_emplace(labels, 0);
    if (!added) return entry->second;
    for (const std::string& name : root_labels_) {
      std::string_view value = dictionary_.label_set(labels).Get(name);
      if (value.empty() && name == profile::kLabelContainerName) value = kHost;
      if (value.empty()) continue;
      entry->second = Child(entry->second, Intern({.name = value, .kind = FrameKind::kSynthetic}));
    }
    return entry->second;
  }

  uint32_t NodeOf(uint32_t root, profile::StackId stack) {
    // Up to the nearest known ancestor, then down again: imported stacks may be thousands deep.
    pending_.clear();
    uint32_t node = root;
    for (; stack != profile::kEmptyStack; stack = dictionary_.stack(stack).parent) {
      const auto known = nodes_.find(uint64_t{root} << 32 | stack);
      if (known != nodes_.end()) {
        node = known->second;
        break;
      }
      pending_.push_back(stack);
    }
    for (size_t i = pending_.size(); i > 0; --i) {
      for (const uint32_t frame : Expand(dictionary_.stack(pending_[i - 1]).frame)) node = Child(node, frame);
      nodes_.emplace(uint64_t{root} << 32 | pending_[i - 1], node);
    }
    return node;
  }

  std::string_view Own(std::string text) {
    const auto [entry, added] = own_ids_.try_emplace(std::move(text), 0);
    if (added) {
      tree_.owned_.push_back(entry->first);
      entry->second = tree_.owned_.size() - 1;
    }
    return tree_.owned_[entry->second];
  }

  const profile::Profile& profile_;
  const profile::Dictionary& dictionary_;
  const std::vector<std::string>& root_labels_;
  CallTree tree_;
  std::unordered_map<CallTreeFrame, uint32_t, FrameHash> frame_ids_;
  std::unordered_map<uint64_t, uint32_t> children_;  // parent << 32 | frame
  std::unordered_map<profile::FrameId, std::vector<uint32_t>> expanded_;
  std::unordered_map<profile::LabelSetId, uint32_t> roots_;
  std::unordered_map<uint64_t, uint32_t> nodes_;  // root node << 32 | stack
  std::unordered_map<std::string, size_t> own_ids_;
  std::vector<profile::StackId> pending_;
};

std::vector<int64_t> CallTree::SelfValues(const profile::Profile& profile, size_t value_index) const {
  std::vector<int64_t> self(nodes_.size());
  for (size_t i = 0; i < sample_nodes_.size(); ++i) {
    // Unsigned: hostile values may overflow, which must not be undefined.
    int64_t& at = self[sample_nodes_[i]];
    at = static_cast<int64_t>(static_cast<uint64_t>(at) + static_cast<uint64_t>(profile.values(i)[value_index]));
  }
  return self;
}

std::vector<int64_t> CallTree::TotalValues(const std::vector<int64_t>& self) const {
  std::vector<int64_t> total = self;
  for (size_t node = nodes_.size(); node > 1; --node) {
    int64_t& parent = total[nodes_[node - 1].parent];
    parent = static_cast<int64_t>(static_cast<uint64_t>(parent) + static_cast<uint64_t>(total[node - 1]));
  }
  return total;
}

std::vector<std::vector<uint32_t>> CallTree::SortedChildren() const {
  std::vector<std::vector<uint32_t>> children(nodes_.size());
  for (uint32_t node = 1; node < nodes_.size(); ++node) children[nodes_[node].parent].push_back(node);
  for (std::vector<uint32_t>& siblings : children) {
    std::stable_sort(siblings.begin(), siblings.end(),
                     [this](uint32_t a, uint32_t b) { return frame_of(a).name < frame_of(b).name; });
  }
  return children;
}

CallTree BuildCallTree(const profile::Profile& profile, const std::vector<std::string>& root_labels) {
  return CallTreeBuilder(profile, root_labels).Build();
}

std::vector<std::string> LabelValues(const profile::Profile& profile, std::string_view label) {
  std::vector<bool> used(profile.dictionary.label_set_count());
  for (size_t i = 0; i < profile.sample_count(); ++i) used[profile.sample(i).labels] = true;
  std::set<std::string, std::less<>> values;
  for (profile::LabelSetId id = 0; id < used.size(); ++id) {
    if (used[id]) values.emplace(profile.dictionary.label_set(id).Get(label));
  }
  return {values.begin(), values.end()};
}

}  // namespace pyrometer::formats

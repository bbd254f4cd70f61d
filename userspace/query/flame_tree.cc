#include "userspace/query/flame_tree.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "userspace/base/check.h"
#include "userspace/base/strings.h"
#include "userspace/query/function_table.h"

namespace pyrometer::query {
namespace {

int64_t WrappingAdd(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// A node before pruning and ordering. Parents are created before children.
struct Node {
  uint32_t parent = 0;
  FunctionPlace place;
  FlameNodeKind kind = FlameNodeKind::kUnknown;
  bool inlined = false;
  int64_t self = 0;
  int64_t total = 0;
  double size = 0;  // sum of |self| below: what decides about hiding, also where differences cancel out
};

// Equal functions under one parent share a node.
struct ChildKey {
  uint32_t parent;
  uint32_t name;
  uint32_t module;
  FlameNodeKind kind;
  bool operator==(const ChildKey&) const = default;
};
struct ChildKeyHash {
  size_t operator()(const ChildKey& key) const {
    uint64_t hash = (uint64_t{key.parent} << 32 | key.name) * 0x9E3779B97F4A7C15u;
    hash ^= (uint64_t{key.module} << 8 | static_cast<uint64_t>(key.kind)) * 0xC2B2AE3D27D4EB4Fu;
    return hash ^ hash >> 31;
  }
};

class Builder {
 public:
  Builder(const profile::Profile& profile, const FlameTreeOptions& options)
      : profile_(profile), dictionary_(profile.dictionary), options_(options), functions_(profile.dictionary) {
    nodes_.push_back({.place = {.name = functions_.names.Id("all")}, .kind = FlameNodeKind::kRoot});
  }

  void AddSamples(size_t value_index) {
    for (size_t i = 0; i < profile_.sample_count(); ++i) {
      const profile::Profile::Sample& sample = profile_.sample(i);
      const uint32_t root = LabelRoot(sample.labels);
      Node& node = nodes_[NodeOf(root, sample.stack)];
      node.self = WrappingAdd(node.self, profile_.values(i)[value_index]);
    }
    for (Node& node : nodes_) {
      node.total = node.self;
      node.size = std::abs(static_cast<double>(node.self));
    }
    for (size_t i = nodes_.size() - 1; i > 0; --i) {
      Node& parent = nodes_[nodes_[i].parent];
      parent.total = WrappingAdd(parent.total, nodes_[i].total);
      parent.size += nodes_[i].size;
    }
  }

  FlameTree Emit() {
    SortChildren();
    FlameTree tree;
    const double threshold = options_.min_share * nodes_[0].size;
    // Pre-order with our own stack: real stacks of 100,000 frames exist (runaway recursion).
    struct Task {
      uint32_t node;
      uint32_t parent;  // in the tree
      uint32_t depth;
    };
    std::vector<Task> tasks = {{0, 0, 0}};
    while (!tasks.empty()) {
      const Task task = tasks.back();
      tasks.pop_back();
      const auto index = static_cast<uint32_t>(tree.size());
      const Node& node = nodes_[task.node];
      Push(&tree, task.parent, task.depth, node.place, node.kind, node.inlined, node.self, node.total, 0);
      const size_t begin = child_begin_[task.node], end = child_begin_[task.node + 1];
      uint32_t hidden = 0;
      int64_t hidden_total = 0;
      // Backwards: the first child comes off the task stack first.
      for (size_t i = end; i > begin; --i) {
        const uint32_t child = children_[i - 1];
        if (nodes_[child].size < threshold) {
          ++hidden;
          hidden_total = WrappingAdd(hidden_total, nodes_[child].total);
        } else {
          tasks.push_back({child, index, task.depth + 1});
        }
      }
      if (hidden > 0) {
        // A leaf, directly behind its parent: pre-order holds.
        const FunctionPlace place{.name = functions_.names.Id(StrFormat("(%d smaller)", hidden))};
        Push(&tree, index, task.depth + 1, place, FlameNodeKind::kSmaller, false, hidden_total, hidden_total, hidden);
      }
    }
    tree.names = functions_.names.Take();
    tree.modules = functions_.modules.Take();
    tree.files = functions_.files.Take();
    return tree;
  }

 private:
  static void Push(FlameTree* tree, uint32_t parent, uint32_t depth, const FunctionPlace& place, FlameNodeKind kind,
                   bool inlined, int64_t self, int64_t total, uint32_t hidden) {
    tree->name.push_back(place.name);
    tree->parent.push_back(parent);
    tree->depth.push_back(depth);
    tree->self.push_back(self);
    tree->total.push_back(total);
    tree->kind.push_back(kind);
    tree->module.push_back(place.module);
    tree->file.push_back(place.file);
    tree->line.push_back(place.line);
    tree->inlined.push_back(inlined ? 1 : 0);
    tree->hidden.push_back(hidden);
  }

  uint32_t Child(uint32_t parent, const FunctionPlace& place, FlameNodeKind kind, bool inlined) {
    const auto [entry, added] =
        index_.try_emplace(ChildKey{parent, place.name, place.module, kind}, static_cast<uint32_t>(nodes_.size()));
    if (added) {
      nodes_.push_back({.parent = parent, .place = place, .kind = kind, .inlined = inlined});
    } else if (!inlined) {
      nodes_[entry->second].inlined = false;  // inlined at some places only
    }
    return entry->second;
  }

  uint32_t LabelRoot(profile::LabelSetId labels) {
    if (options_.root_labels.empty()) return 0;
    const auto [entry, added] = label_roots_.try_emplace(labels, 0);
    if (!added) return entry->second;
    uint32_t node = 0;
    for (const std::string& name : options_.root_labels) {
      const std::string_view value = dictionary_.label_set(labels).Get(name);
      const uint32_t text = functions_.names.Id(value.empty() ? "(no " + name + ")" : std::string(value));
      node = Child(node, {.name = text}, FlameNodeKind::kLabel, false);
    }
    entry->second = node;
    return node;
  }

  uint32_t NodeOf(uint32_t root, profile::StackId stack) {
    pending_.clear();
    uint32_t node = root;
    for (; stack != profile::kEmptyStack; stack = dictionary_.stack(stack).parent) {
      const auto known = memo_.find(uint64_t{root} << 32 | stack);
      if (known != memo_.end()) {
        node = known->second;
        break;
      }
      pending_.push_back(stack);
    }
    for (size_t i = pending_.size(); i > 0; --i) {
      const std::vector<FunctionPlace>& places = functions_.Of(dictionary_.stack(pending_[i - 1]).frame);
      // Outermost function first; those inside it were inlined.
      for (size_t line = places.size(); line > 0; --line) {
        const FunctionPlace& place = places[line - 1];
        node = Child(node, place, static_cast<FlameNodeKind>(place.kind), line < places.size());
      }
      memo_.emplace(uint64_t{root} << 32 | pending_[i - 1], node);
    }
    return node;
  }

  // children_[child_begin_[n] … child_begin_[n + 1]) are the children of n, by name.
  void SortChildren() {
    child_begin_.assign(nodes_.size() + 1, 0);
    for (size_t i = 1; i < nodes_.size(); ++i) ++child_begin_[nodes_[i].parent + 1];
    for (size_t i = 1; i < child_begin_.size(); ++i) child_begin_[i] += child_begin_[i - 1];
    children_.resize(nodes_.size() - 1);
    std::vector<size_t> at(child_begin_.begin(), child_begin_.end() - 1);
    for (uint32_t i = 1; i < nodes_.size(); ++i) children_[at[nodes_[i].parent]++] = i;
    const auto before = [this](uint32_t a, uint32_t b) {
      const Node &x = nodes_[a], &y = nodes_[b];
      if (x.place.name != y.place.name)
        return functions_.names.text(x.place.name) < functions_.names.text(y.place.name);
      if (x.place.module != y.place.module) {
        return functions_.modules.text(x.place.module) < functions_.modules.text(y.place.module);
      }
      return x.kind < y.kind;
    };
    for (size_t n = 0; n < nodes_.size(); ++n) {
      std::sort(children_.begin() + static_cast<std::ptrdiff_t>(child_begin_[n]),
                children_.begin() + static_cast<std::ptrdiff_t>(child_begin_[n + 1]), before);
    }
  }

  const profile::Profile& profile_;
  const profile::Dictionary& dictionary_;
  const FlameTreeOptions& options_;
  FunctionTable functions_;
  std::vector<Node> nodes_;
  std::unordered_map<ChildKey, uint32_t, ChildKeyHash> index_;
  std::unordered_map<uint64_t, uint32_t> memo_;  // label root << 32 | stack -> node
  std::unordered_map<profile::LabelSetId, uint32_t> label_roots_;
  std::vector<profile::StackId> pending_;
  std::vector<size_t> child_begin_;
  std::vector<uint32_t> children_;
};

}  // namespace

FlameTree BuildFlameTree(const profile::Profile& profile, size_t value_index, const FlameTreeOptions& options) {
  CHECK(value_index < profile.value_types.size());
  Builder builder(profile, options);
  builder.AddSamples(value_index);
  FlameTree tree = builder.Emit();
  tree.value_type = profile.value_types[value_index].type;
  tree.value_unit = profile.value_types[value_index].unit;
  return tree;
}

}  // namespace pyrometer::query

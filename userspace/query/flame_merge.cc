#include "userspace/query/flame_merge.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/query/trie_sums.h"
#include "userspace/store/chunk.h"

namespace pyrometer::query {
namespace {

using profile::FlameGraph;
using store::SaturatingAdd;

// Boxes between two looks at the budget.
constexpr size_t kNodesPerCheck = 4096;

// How many of the boxes seen so far are at least as large as some size; by powers of two in sixteen steps.
class SizeCensus {
 public:
  void Add(uint64_t size) { ++counts_[BucketOf(size)]; }
  // A size below which no box can be among the `n` largest; 0 while fewer have been seen.
  uint64_t Floor(size_t n) const {
    size_t seen = 0;
    for (size_t bucket = counts_.size(); bucket-- > 0;) {
      seen += counts_[bucket];
      if (seen >= n) return LowestOf(bucket);
    }
    return 0;
  }

 private:
  static constexpr unsigned kStepBits = 4;
  static size_t BucketOf(uint64_t size) {
    if (size < 1u << kStepBits) return size;
    const unsigned shift = static_cast<unsigned>(std::bit_width(size)) - kStepBits - 1;
    return (size_t{shift} + 1) << kStepBits | ((size >> shift) & ((1u << kStepBits) - 1));
  }
  static uint64_t LowestOf(size_t bucket) {
    if (bucket < 1u << kStepBits) return bucket;
    const size_t shift = (bucket >> kStepBits) - 1;
    return ((uint64_t{1} << kStepBits) | (bucket & ((1u << kStepBits) - 1))) << shift;
  }
  std::vector<uint64_t> counts_ = std::vector<uint64_t>(61u << kStepBits);
};

class FlameMerger {
 public:
  FlameMerger(const Engine& engine, const Selector& selector, const FlameMergeOptions& options)
      : engine_(engine), options_(options), header_(selector) {}

  StatusOr<FlameGraph> Run(const Selector& selector, TimeRange range) {
    header_.Begin(&flame_.header);
    flame_.from_ns = range.from_ns;
    flame_.to_ns = range.to_ns;
    ASSIGN_OR_RETURN(const Found found, Find(engine_.reader(), engine_.tenant(), selector, options_.root_labels));
    parts_ = StackParts(found, options_.root_labels);
    trees_.resize(parts_.size());
    uint64_t samples = 0;
    RETURN_IF_ERROR(SumParts(engine_, parts_, range, &header_, &samples,
                             [this](size_t part, const store::FunctionTrie& functions, const store::StackSums& sums) {
                               return TakePart(part, functions, sums);
                             }));
    RETURN_IF_ERROR(header_.Finish(engine_, found, range, samples, &flame_.header));
    RETURN_IF_ERROR(Walk());
    AddHidden();
    RETURN_IF_ERROR(NameNodes());
    if (cut_ && options_.max_nodes != 0) {
      flame_.header.comments.push_back(
          StrFormat("shown are the %s largest boxes; smaller ones are summed up as %s: zoom in to see them",
                    FormatCount(options_.max_nodes), kSmallerName));
    }
    return std::move(flame_);
  }

 private:
  struct Member {
    uint32_t part;
    uint32_t node;  // of its tree
  };
  // A box that is known but not shown (yet).
  struct Open {
    uint64_t samples = 0, value = 0;
    uint32_t parent = 0;  // shown
    uint32_t symbol = 0;
    uint32_t level = 0;  // of its children: below root_labels.size() these are values of labels
    bool inlined = true;
    bool on_the_way = false;  // to the focus
    Member member{};          // the only one, or
    uint32_t many = 0;        // index into many_
  };
  struct Hidden {
    uint64_t samples = 0, value = 0;
    uint32_t boxes = 0;
    uint32_t part = 0;  // one whose labels they have
  };

  Status TakePart(size_t part, const store::FunctionTrie& functions, const store::StackSums& sums) {
    store::ScopedCharge charge(engine_.budget());
    RETURN_IF_ERROR(charge.Add(functions.size() * NodeSums::kBytesPerNode));
    ASSIGN_OR_RETURN(const NodeSums totals, NodeSums::Totals(functions, sums));
    UsedTree tree = UsedTree::Of(functions, totals);
    RETURN_IF_ERROR(Charge(engine_.budget(), tree.bytes()));
    trees_[part] = std::move(tree);
    return OkStatus();
  }

  uint64_t SizeOf(const Open& open) const { return header_.samples_only() ? open.samples : open.value; }

  // Ids of shown symbols: label values count down from the top, so that they never meet the table's.
  uint32_t SymbolOf(uint32_t part, uint32_t local) {
    std::vector<uint32_t>& known = symbol_ids_[part];
    if (known[local] == 0) known[local] = symbols_.Id(trees_[part].symbols[local]) + 1;
    return known[local] - 1;
  }
  uint32_t LabelSymbol(std::string text) {
    const auto [entry, added] = label_ids_.try_emplace(std::move(text), static_cast<uint32_t>(labels_.size()));
    if (added) labels_.push_back(&entry->first);
    return UINT32_MAX - entry->second;
  }
  bool IsLabel(uint32_t symbol) const { return UINT32_MAX - symbol < labels_.size(); }

  // From the root to the largest box that is known, again and again.
  Status Walk() {
    symbol_ids_.resize(parts_.size());
    label_sets_.resize(parts_.size());
    many_.resize(1);
    Open root;
    std::vector<Member> all;
    for (uint32_t part = 0; part < trees_.size(); ++part) {
      const UsedTree& tree = trees_[part];
      if (tree.size() == 0) continue;
      symbol_ids_[part].resize(tree.symbols.size());
      all.push_back({part, 0});
      root.samples = SaturatingAdd(root.samples, tree.samples[0]);
      root.value = SaturatingAdd(root.value, tree.value[0]);
    }
    root.on_the_way = !options_.focus.empty();
    const double least = std::ceil(options_.min_share * static_cast<double>(SizeOf(root)));
    floor_ = least > 0 && least < 0x1p63 ? static_cast<uint64_t>(least) : 0;
    many_.push_back(std::move(all));
    root.many = 1;
    RETURN_IF_ERROR(Show(root));
    for (size_t shown = 1; !heap_.empty(); ++shown) {
      if (options_.max_nodes != 0 && shown > options_.max_nodes) break;
      if (shown % kNodesPerCheck == 0) RETURN_IF_ERROR(Check(engine_.budget()));
      std::pop_heap(heap_.begin(), heap_.end());
      const uint32_t slot = heap_.back().slot;
      heap_.pop_back();
      const Open open = opens_[slot];
      free_.push_back(slot);
      RETURN_IF_ERROR(Show(open));
    }
    cut_ = cut_ || !heap_.empty();
    for (const HeapEntry& entry : heap_) Hide(opens_[entry.slot], kSmaller);
    heap_.clear();
    return OkStatus();
  }

  // Makes it a node, and its children known.
  Status Show(const Open& open) {
    const auto node = static_cast<uint32_t>(flame_.nodes.size());
    smaller_.emplace_back();
    flame_.nodes.push_back({.parent = open.parent,
                            .function = open.symbol,
                            .inlined = open.inlined && node != 0 && !IsLabel(open.symbol),
                            .samples = ToSigned(open.samples),
                            .value = ToSigned(open.value)});
    const std::span<const Member> members = MembersOf(open);
    children_.clear();
    if (open.level < options_.root_labels.size()) {
      LabelChildren(open.level, members);
    } else {
      FunctionChildren(members);
    }
    uint64_t below_samples = 0, below_value = 0;
    for (const Open& child : children_) {
      below_samples = SaturatingAdd(below_samples, child.samples);
      below_value = SaturatingAdd(below_value, child.value);
    }
    if (open.samples > below_samples || open.value > below_value) {
      flame_.rows.push_back({.node = node,
                             .labels = members.empty() ? 0 : LabelsOf(members[0].part),
                             .samples = ToSigned(open.samples - std::min(open.samples, below_samples)),
                             .value = ToSigned(open.value - std::min(open.value, below_value))});
    }
    if (open.many != 0) many_[open.many] = {};
    RETURN_IF_ERROR(ChooseTheWay(open, node));
    const uint64_t floor = floor_;
    for (Open& child : children_) {
      child.parent = node;
      const uint64_t size = child.on_the_way ? UINT64_MAX : SizeOf(child);
      census_.Add(size);
      if (size < floor) {
        cut_ = true;
        Hide(child, kSmaller);
        if (child.many != 0) many_[child.many] = {};
        continue;
      }
      uint32_t slot;
      if (free_.empty()) {
        slot = static_cast<uint32_t>(opens_.size());
        opens_.emplace_back();
      } else {
        slot = free_.back();
        free_.pop_back();
      }
      // Among equals the one that was known first.
      heap_.push_back({size, known_++, slot});
      opens_[slot] = child;
      std::push_heap(heap_.begin(), heap_.end());
    }
    if (options_.max_nodes != 0 && known_ >= next_floor_) {
      floor_ = std::max(floor_, census_.Floor(options_.max_nodes));
      next_floor_ = known_ + std::max<uint64_t>(options_.max_nodes / 8, 1024);
    }
    return OkStatus();
  }

  std::span<const Member> MembersOf(const Open& open) const {
    if (open.many != 0) return many_[open.many];
    return {&open.member, 1};
  }

  void LabelChildren(uint32_t level, std::span<const Member> members) {
    const std::string& label = options_.root_labels[level];
    std::map<uint32_t, std::vector<Member>> by_value;
    for (const Member& member : members) {
      const std::string_view value = parts_[member.part].labels.Get(label);
      by_value[LabelSymbol(value.empty() ? "(no " + label + ")" : std::string(value))].push_back(member);
    }
    for (auto& [symbol, list] : by_value) {
      Open& child = children_.emplace_back();
      child.symbol = symbol;
      child.level = level + 1;
      for (const Member& member : list) {
        child.samples = SaturatingAdd(child.samples, trees_[member.part].samples[0]);
        child.value = SaturatingAdd(child.value, trees_[member.part].value[0]);
      }
      child.many = static_cast<uint32_t>(many_.size());
      many_.push_back(std::move(list));
    }
  }

  void FunctionChildren(std::span<const Member> members) {
    const auto level = static_cast<uint32_t>(options_.root_labels.size());
    const auto open_of = [&](uint32_t part, uint32_t node, uint32_t symbol) {
      const UsedTree& tree = trees_[part];
      return Open{.samples = tree.samples[node],
                  .value = tree.value[node],
                  .symbol = symbol,
                  .level = level,
                  .inlined = (tree.symbol[node] & UsedTree::kInlinedBit) != 0,
                  .member = {part, node}};
    };
    if (members.size() == 1) {
      const UsedTree& tree = trees_[members[0].part];
      for (uint32_t i = tree.first_child[members[0].node]; i < tree.first_child[members[0].node + 1]; ++i) {
        children_.push_back(
            open_of(members[0].part, i, SymbolOf(members[0].part, tree.symbol[i] & ~UsedTree::kInlinedBit)));
      }
      return;
    }
    struct Child {
      uint32_t symbol, part, node;
      bool operator<(const Child& other) const { return std::pair(symbol, part) < std::pair(other.symbol, other.part); }
    };
    std::vector<Child> found;
    for (const Member& member : members) {
      const UsedTree& tree = trees_[member.part];
      for (uint32_t i = tree.first_child[member.node]; i < tree.first_child[member.node + 1]; ++i) {
        found.push_back({SymbolOf(member.part, tree.symbol[i] & ~UsedTree::kInlinedBit), member.part, i});
      }
    }
    std::sort(found.begin(), found.end());
    for (size_t begin = 0, end = 0; begin < found.size(); begin = end) {
      Open child = open_of(found[begin].part, found[begin].node, found[begin].symbol);
      std::vector<Member> list = {child.member};
      for (end = begin + 1; end < found.size() && found[end].symbol == found[begin].symbol; ++end) {
        const Open more = open_of(found[end].part, found[end].node, found[end].symbol);
        child.samples = SaturatingAdd(child.samples, more.samples);
        child.value = SaturatingAdd(child.value, more.value);
        child.inlined = child.inlined && more.inlined;
        list.push_back(more.member);
      }
      if (list.size() > 1) {
        child.many = static_cast<uint32_t>(many_.size());
        many_.push_back(std::move(list));
      }
      children_.push_back(child);
    }
  }

  // Of the children of a box on the way to the focus only those of the next name remain.
  Status ChooseTheWay(const Open& open, uint32_t node) {
    if (!open.on_the_way) return OkStatus();
    const size_t step = depth_of_way_[open.parent == node ? UINT32_MAX : open.parent];
    depth_of_way_[node] = step + 1;
    if (step >= options_.focus.size()) return OkStatus();
    std::vector<store::Symbol> symbols;
    for (const Open& child : children_) {
      symbols.push_back(IsLabel(child.symbol) ? store::Symbol{} : symbols_.symbol(child.symbol));
    }
    ASSIGN_OR_RETURN(const std::vector<FlameGraph::Function> described, Describe(engine_.reader(), symbols));
    std::vector<Open> kept;
    for (size_t i = 0; i < children_.size(); ++i) {
      Open& child = children_[i];
      child.parent = node;
      const std::string& name = IsLabel(child.symbol) ? *labels_[UINT32_MAX - child.symbol] : described[i].name;
      if (name != options_.focus[step]) {
        Hide(child, kOutside);
        continue;
      }
      child.on_the_way = step + 1 < options_.focus.size();
      kept.push_back(child);
    }
    children_ = std::move(kept);
    return OkStatus();
  }

  profile::LabelSetId LabelsOf(uint32_t part) {
    std::optional<profile::LabelSetId>& known = label_sets_[part];
    if (!known) known = flame_.header.dictionary.InternLabelSet(parts_[part].labels);
    return *known;
  }

  enum Why : uint8_t { kSmaller = 0, kOutside = 1 };
  // Sums it up beside what is shown of its parent's children.
  void Hide(const Open& open, Why why) {
    // Above the functions each part has labels of its own.
    if (open.level < options_.root_labels.size()) {
      bool first = true;
      for (const Member& member : MembersOf(open)) {
        AddHidden(open.parent, why, LabelsOf(member.part), trees_[member.part].samples[member.node],
                  trees_[member.part].value[member.node], first ? 1 : 0);
        first = false;
      }
      return;
    }
    // Below them all have the same, and there are many.
    if (why == kSmaller) {
      Hidden& hidden = smaller_[open.parent];
      hidden.samples = SaturatingAdd(hidden.samples, open.samples);
      hidden.value = SaturatingAdd(hidden.value, open.value);
      ++hidden.boxes;
      hidden.part = MembersOf(open)[0].part;
      return;
    }
    AddHidden(open.parent, why, LabelsOf(MembersOf(open)[0].part), open.samples, open.value, 1);
  }
  void AddHidden(uint32_t parent, Why why, profile::LabelSetId labels, uint64_t samples, uint64_t value,
                 uint32_t boxes) {
    Hidden& hidden = hidden_[{uint64_t{parent} << 1 | why, labels}];
    hidden.samples = SaturatingAdd(hidden.samples, samples);
    hidden.value = SaturatingAdd(hidden.value, value);
    hidden.boxes += boxes;
  }

  // One node per (parent, reason), one row per label set of it.
  void AddHidden() {
    for (uint32_t parent = 0; parent < smaller_.size(); ++parent) {
      const Hidden& hidden = smaller_[parent];
      if (hidden.boxes != 0) {
        AddHidden(parent, kSmaller, LabelsOf(hidden.part), hidden.samples, hidden.value, hidden.boxes);
      }
    }
    smaller_ = {};
    uint64_t last = UINT64_MAX;
    for (const auto& [key, hidden] : hidden_) {
      if (key.first != last) {
        last = key.first;
        flame_.nodes.push_back(
            {.parent = static_cast<uint32_t>(key.first >> 1),
             .function = LabelSymbol(std::string((key.first & 1) == kOutside ? kOutsideFocusName : kSmallerName))});
      }
      FlameGraph::Node& node = flame_.nodes.back();
      node.hidden += hidden.boxes;
      node.samples = ToSigned(SaturatingAdd(static_cast<uint64_t>(node.samples), hidden.samples));
      node.value = ToSigned(SaturatingAdd(static_cast<uint64_t>(node.value), hidden.value));
      flame_.rows.push_back({.node = static_cast<uint32_t>(flame_.nodes.size() - 1),
                             .labels = key.second,
                             .samples = ToSigned(hidden.samples),
                             .value = ToSigned(hidden.value)});
    }
  }

  // From ids of symbols to functions, the root's first.
  Status NameNodes() {
    std::vector<store::Symbol> symbols;
    std::vector<uint32_t> of_symbol(symbols_.size()), of_label(labels_.size());  // 0: not shown yet
    std::vector<std::pair<uint32_t, const std::string*>> shown_labels;
    flame_.nodes[0].function = 0;
    uint32_t next = 1;
    for (size_t i = 1; i < flame_.nodes.size(); ++i) {
      uint32_t& function = flame_.nodes[i].function;
      uint32_t& known = IsLabel(function) ? of_label[UINT32_MAX - function] : of_symbol[function];
      if (known == 0) {
        known = next++;
        if (IsLabel(function)) {
          shown_labels.emplace_back(known, labels_[UINT32_MAX - function]);
          symbols.emplace_back();
        } else {
          symbols.push_back(symbols_.symbol(function));
        }
      }
      function = known;
    }
    ASSIGN_OR_RETURN(std::vector<FlameGraph::Function> described, Describe(engine_.reader(), symbols));
    flame_.functions.push_back({.name = "all", .kind = profile::FrameKind::kSynthetic});
    flame_.functions.insert(flame_.functions.end(), std::make_move_iterator(described.begin()),
                            std::make_move_iterator(described.end()));
    for (const auto& [function, text] : shown_labels) {
      flame_.functions[function] = {.name = *text, .kind = profile::FrameKind::kSynthetic};
    }
    return OkStatus();
  }

  const Engine& engine_;
  const FlameMergeOptions& options_;
  MergeHeader header_;
  FlameGraph flame_;
  std::vector<StackPart> parts_;
  std::vector<UsedTree> trees_;  // by part
  SymbolTable symbols_;
  std::vector<std::vector<uint32_t>> symbol_ids_;  // by part and its symbol; id + 1
  std::unordered_map<std::string, uint32_t> label_ids_;
  std::vector<const std::string*> labels_;

  struct HeapEntry {
    uint64_t size;
    uint64_t number;
    uint32_t slot;
    bool operator<(const HeapEntry& other) const {
      return size != other.size ? size < other.size : number > other.number;
    }
  };
  std::vector<HeapEntry> heap_;
  std::vector<Open> opens_;
  std::vector<uint32_t> free_;  // slots of opens_
  std::vector<std::vector<Member>> many_;
  std::vector<Open> children_;  // of the box that is being shown
  SizeCensus census_;
  uint64_t known_ = 0;
  uint64_t floor_ = 0;
  uint64_t next_floor_ = 0;
  bool cut_ = false;
  std::unordered_map<uint32_t, size_t> depth_of_way_;  // by node; how many names of the focus lead there
  std::vector<Hidden> smaller_;                        // by node
  // What is hidden elsewhere, by parent << 1 | Why and labels; in the end all of it.
  std::map<std::pair<uint64_t, profile::LabelSetId>, Hidden> hidden_;
  std::vector<std::optional<profile::LabelSetId>> label_sets_;  // by part
};

}  // namespace

StatusOr<profile::FlameGraph> MergeFlame(const Engine& engine, const Selector& selector, TimeRange range,
                                         const FlameMergeOptions& options) {
  return FlameMerger(engine, selector, options).Run(selector, range);
}

}  // namespace pyrometer::query

// The tree behind every flame graph (page, HTML, SVG, terminal): functions from root to leaf with
// self and total values, as flat arrays in pre-order.
//
//   query::FlameTree tree = query::BuildFlameTree(profile, profile.default_value, {.root_labels = {"container.name"}});
//   for (size_t i = 0; i < tree.size(); ++i) Draw(tree.names[tree.name[i]], tree.depth[i], tree.total[i]);
//
// Node 0 is the root "all"; its total is the total of the profile, always. parent[i] < i. Children of a node follow
// it in name order, so equal profiles give equal trees. Stacks with the same function names share nodes even where
// addresses differ; inlined functions get a node each.
//
// `min_share` hides nodes for display only: hidden siblings are replaced by one node "(N smaller)" with
// their exact sum, so children + self = total holds at every node of every tree.
//
// Threads: pure. Cost: linear in stacks × depth once, ~60 bytes per node; no recursion, any depth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "userspace/profile/profile.h"

namespace pyrometer::query {

// What a node is, for colouring.
enum class FlameNodeKind : uint8_t {
  kUnknown = 0,      // FrameKind::kUnknown
  kNative = 1,       // user space machine code
  kKernel = 2,       // kernel
  kJit = 3,          // generated code
  kInterpreted = 4,  // interpreter's frame
  kSynthetic = 5,    // ours, e.g. "[truncated]"
  kRoot = 6,         // node 0
  kLabel = 7,        // a root label's value, e.g. a container name
  kSmaller = 8,      // "(N smaller)": hidden siblings
};

struct FlameTreeOptions {
  // Levels between root and stacks, one per label name, e.g. {"container.name", "comm"}; samples without
  // the label go under "(no <label>)". Only labels kept on the profile's samples can be used (MergeOptions::group_by).
  std::vector<std::string> root_labels;
  // Nodes whose total is below this share of the whole are hidden (0 = show all, 0.001 = below 0.1 %).
  double min_share = 0;
};

struct FlameTree {
  std::string value_type;  // "cpu"
  std::string value_unit;  // "nanoseconds"

  // Tables; index 0 of each is "".
  std::vector<std::string> names;    // function names, label values, "(N smaller)"
  std::vector<std::string> modules;  // files of mappings
  std::vector<std::string> files;    // source files

  // One entry per node, pre-order.
  std::vector<uint32_t> name;       // index into names
  std::vector<uint32_t> parent;     // node index; 0 for node 0 itself
  std::vector<uint32_t> depth;      // 0 for the root
  std::vector<int64_t> self;        // value that ended here
  std::vector<int64_t> total;       // self and everything below
  std::vector<FlameNodeKind> kind;  // for colouring
  std::vector<uint32_t> module;     // index into modules
  std::vector<uint32_t> file;       // index into files
  std::vector<int32_t> line;        // source line of the function's start if known, else of the first call; 0 unknown
  std::vector<uint8_t> inlined;     // 1: was inlined into its parent
  std::vector<uint32_t> hidden;     // for kSmaller: siblings it stands for; else 0

  size_t size() const { return name.size(); }
};

// Precondition: value_index < profile.value_types.size(). Negative values (differences) are kept.
FlameTree BuildFlameTree(const profile::Profile& profile, size_t value_index, const FlameTreeOptions& options = {});

}  // namespace pyrometer::query

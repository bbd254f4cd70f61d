// Flame graphs and tables of functions straight from the store, for whole fleets: numbers of all stacks, names of only
// those boxes that are shown.
//
//   ASSIGN_OR_RETURN(profile::FlameGraph flame, MergeFlame(engine, selector, range, {.max_nodes = 20'000}));
//   ASSIGN_OR_RETURN(MergedTop top, MergeTop(engine, selector, range, {.rows = 100}));
//
// How: per service, sums per stack become sums per node of its trie of functions (store/function_trie.h), and those
// become totals in one pass from the last node to the first; services at the same time on several cores. Then the tries
// are walked together from the root, always on at the largest box that is known, so that the `max_nodes` largest are
// found without a look at what lies below the smaller ones. What is left out is summed up exactly beside its siblings.
// Names are read last.
//
// Every number is the one that BuildFlameTree (flame_tree.h) and TopFunctions (engine.h) give for
// Engine::MergeProfile, and the tests hold them against each other. `inlined` differs: here it means inlined in every
// stack that the service ever had, there in those of the selection. File and line are those of one of the places.
//
// Threads: any. Cost: tests/bench/store_bench; memory about 24 bytes per box that has samples, shown or not, and 16 per
// stack of the services that are being read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/profile/flame_graph.h"
#include "userspace/query/engine.h"

namespace pyrometer::query {

// Names of boxes that stand for others.
inline constexpr std::string_view kSmallerName = "(smaller)";
inline constexpr std::string_view kOutsideFocusName = "(outside the focus)";

struct FlameMergeOptions {
  // Values of these labels are the levels below the root; "(no <label>)" where there is none.
  std::vector<std::string> root_labels;
  // Boxes shown, the largest ones by total; those that stand for others not counted. 0 = all.
  size_t max_nodes = 0;
  // Boxes below this share of the whole stand under (smaller) too, as in FlameTreeOptions. 0 = none.
  double min_share = 0;
  // Names from the root (exclusive) to the box that is looked at: its subtree is shown, boxes on the way to it, and
  // what lies beside the way in one sum each. Empty: everything. Nothing of that name: no box but the way as far as it
  // goes.
  std::vector<std::string> focus;
};

// For profile types. Nothing matching gives a root with 0.
StatusOr<profile::FlameGraph> MergeFlame(const Engine& engine, const Selector& selector, TimeRange range,
                                         const FlameMergeOptions& options = {});

// The same of stacks that are at hand; `max_nodes` and `focus` are of no effect. For profiles with one or two value
// types.
profile::FlameGraph FlameOf(const profile::Profile& profile, const FlameMergeOptions& options);

struct TopMergeOptions {
  size_t rows = 0;  // 0 = all
  TopOrder order = TopOrder::kSelf;
  // A table for each combination of these labels' values. Empty: one for everything.
  std::vector<std::string> by;
};
struct MergedTop {
  profile::Profile header;                 // as FlameGraph::header
  int64_t samples = 0;                     // that were added up
  int64_t value = 0;                       // as FlameGraph::Node
  std::vector<profile::LabelledTop> tops;  // the most expensive first; without `by` always one
  std::vector<std::string> build_ids;      // of rows without a name, distinct
};
// As TopFunctions and TopByLabels of the same.
StatusOr<MergedTop> MergeTop(const Engine& engine, const Selector& selector, TimeRange range,
                             const TopMergeOptions& options = {});

}  // namespace pyrometer::query

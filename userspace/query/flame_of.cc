#include <cmath>
#include <map>
#include <tuple>

#include "userspace/query/flame_merge.h"
#include "userspace/query/flame_tree.h"

namespace pyrometer::query {

using profile::FlameGraph;

FlameGraph FlameOf(const profile::Profile& profile, const FlameMergeOptions& options) {
  const bool has_value = profile.value_types.size() > 1;
  // Trees that hide nothing are equal but for their numbers.
  const FlameTreeOptions all{.root_labels = options.root_labels};
  const FlameTree samples = BuildFlameTree(profile, 0, all);
  const FlameTree values = BuildFlameTree(profile, has_value ? 1 : 0, all);
  const FlameTree& sizes = profile.default_value == 0 ? samples : values;
  const double least = options.min_share * static_cast<double>(sizes.total[0]);
  FlameGraph flame;
  flame.header = profile::CopyHeader(profile);
  flame.functions.push_back({.name = "all", .kind = profile::FrameKind::kSynthetic});
  flame.nodes.push_back({.samples = samples.total[0], .value = has_value ? values.total[0] : 0});
  constexpr uint32_t kHidden = UINT32_MAX;
  std::vector<uint32_t> node_of(samples.size(), kHidden), smaller_of(samples.size(), kHidden);
  std::map<std::tuple<uint32_t, uint32_t, FlameNodeKind>, uint32_t> functions;
  const auto add_row = [&](uint32_t node, int64_t count, int64_t value) {
    if (count != 0 || value != 0)
      flame.rows.push_back({.node = node, .samples = count, .value = has_value ? value : 0});
  };
  node_of[0] = 0;
  add_row(0, samples.self[0], values.self[0]);
  for (uint32_t i = 1; i < samples.size(); ++i) {
    const uint32_t parent = node_of[samples.parent[i]];
    if (parent == kHidden) continue;
    const bool hidden = std::abs(static_cast<double>(sizes.total[i])) < least;
    uint32_t& node = hidden ? smaller_of[samples.parent[i]] : node_of[i];
    if (node == kHidden) {
      const bool ours = hidden || samples.kind[i] == FlameNodeKind::kLabel;
      const auto kind = ours ? profile::FrameKind::kSynthetic : static_cast<profile::FrameKind>(samples.kind[i]);
      const auto [function, added] =
          functions.try_emplace({hidden ? kHidden : samples.name[i], samples.module[i], samples.kind[i]},
                                static_cast<uint32_t>(flame.functions.size()));
      if (added) {
        flame.functions.push_back({.name = hidden ? std::string(kSmallerName) : samples.names[samples.name[i]],
                                   .module = hidden ? "" : samples.modules[samples.module[i]],
                                   .file = hidden ? "" : samples.files[samples.file[i]],
                                   .line = hidden ? 0 : samples.line[i],
                                   .kind = kind});
      }
      node = static_cast<uint32_t>(flame.nodes.size());
      flame.nodes.push_back({.parent = parent, .function = function->second, .inlined = samples.inlined[i] != 0});
    }
    flame.nodes[node].samples += samples.total[i];
    if (has_value) flame.nodes[node].value += values.total[i];
    if (hidden) ++flame.nodes[node].hidden;
    add_row(node, hidden ? samples.total[i] : samples.self[i], hidden ? values.total[i] : values.self[i]);
  }
  return flame;
}

}  // namespace pyrometer::query

#include "userspace/profile/flame_graph.h"

#include "userspace/base/strings.h"

namespace pyrometer::profile {

Profile ToProfile(const FlameGraph& flame) {
  Profile profile = CopyHeader(flame.header);
  Dictionary& dictionary = profile.dictionary;
  DictionaryMapper labels(flame.header.dictionary, &dictionary);
  const auto frame = [&](std::string_view name, const FlameGraph::Function& function) {
    const FunctionId id = dictionary.InternFunction({.name = dictionary.InternString(name),
                                                     .file = dictionary.InternString(function.file),
                                                     .start_line = function.line});
    Frame made{.kind = function.kind, .lines = {{.function = id}}};
    if (!function.module.empty()) {
      made.mapping = dictionary.InternMapping({.file = dictionary.InternString(function.module)});
    }
    return dictionary.InternFrame(std::move(made));
  };
  std::vector<FrameId> frames(flame.functions.size());
  std::vector<bool> known(frames.size());
  std::vector<StackId> stacks(flame.nodes.size(), kEmptyStack);
  for (size_t i = 1; i < flame.nodes.size(); ++i) {
    const FlameGraph::Node& node = flame.nodes[i];
    const FlameGraph::Function& function = flame.functions[node.function];
    FrameId id;
    if (node.hidden != 0) {
      id = frame(StrFormat("(%d smaller)", node.hidden), function);
    } else {
      if (!known[node.function]) frames[node.function] = frame(function.name, function);
      known[node.function] = true;
      id = frames[node.function];
    }
    stacks[i] = dictionary.InternStack(stacks[node.parent], id);
  }
  for (const FlameGraph::Row& row : flame.rows) {
    const int64_t both[] = {row.samples, row.value};
    profile.Add(labels.LabelSet(row.labels), stacks[row.node], std::span(both, profile.value_types.size()));
  }
  return profile;
}

}  // namespace pyrometer::profile

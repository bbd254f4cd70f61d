#include "userspace/regression/count_table.h"

namespace pyrometer::regression {

std::vector<bool> OutermostNodes(const RunSet& runs) {
  const std::vector<StackNode>& nodes = runs.nodes();
  std::vector<bool> outermost(nodes.size());
  // Depth first through the children, counting how often each function lies on the way; no recursion, any depth.
  std::vector<NodeIndex> first(nodes.size()), next(nodes.size());
  for (NodeIndex i = static_cast<NodeIndex>(nodes.size()); i-- > 1;) {
    next[i] = first[nodes[i].parent];
    first[nodes[i].parent] = i;
  }
  std::vector<uint32_t> on_path(runs.functions().size());
  NodeIndex at = first[0];
  while (at != 0) {
    outermost[at] = on_path[nodes[at].function]++ == 0;
    if (first[at] != 0) {
      at = first[at];
      continue;
    }
    while (at != 0) {
      --on_path[nodes[at].function];
      if (next[at] != 0) {
        at = next[at];
        break;
      }
      at = nodes[at].parent;
    }
  }
  return outermost;
}

std::vector<double> NodeTotals(const RunSet& runs, const Run& run) {
  const std::vector<StackNode>& nodes = runs.nodes();
  std::vector<double> total(nodes.size());
  for (const auto& [node, count] : run.counts) total[node] += static_cast<double>(count);
  for (size_t i = nodes.size(); i-- > 1;) total[nodes[i].parent] += total[i];
  return total;
}

CountTable CountFunctions(const RunSet& runs) {
  CountTable table(runs.runs().size(), runs.functions().size());
  const std::vector<StackNode>& nodes = runs.nodes();
  const std::vector<bool> outermost = OutermostNodes(runs);
  for (size_t r = 0; r < runs.runs().size(); ++r) {
    const Run& run = runs.runs()[r];
    table.cpu_ns(r) = run.facts.iterations > 0 ? run.facts.iteration_cpu_ns : static_cast<double>(run.facts.cpu_ns);
    // A benchmark's are those of its iterations, however many it made.
    if (run.facts.iterations == 0) table.instructions(r) = static_cast<double>(run.facts.instructions);
    for (const auto& [node, count] : run.counts) {
      table.total(r) += static_cast<double>(count);
      if (node != 0) table.exclusive(r, nodes[node].function) += static_cast<double>(count);
    }
    if (run.facts.iterations > 0) table.work(r) = table.total(r) / run.facts.iteration_cpu_ns;
    const std::vector<double> total = NodeTotals(runs, run);
    for (size_t i = 1; i < nodes.size(); ++i) {
      if (outermost[i]) table.inclusive(r, nodes[i].function) += total[i];
    }
  }
  return table;
}

}  // namespace pyrometer::regression
